"""Preprocessing of a model's images. It belongs to the weights, so it travels inside the model.

Pure data and Pillow / NumPy; the same rules as graph operations are in `keras_vit.image_ops`.
"""

import dataclasses
import math
import pathlib

import keras
import numpy as np
from PIL import Image

from keras_vit.backend.runtime import foreign_float32, is_foreign_tensor
from keras_vit.image_ops.pillow_reader import UnreadableImage, bands, eight_bits, read_array, read_picture
from keras_vit.validation import as_pair, check_choice

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_PICTURES = (1, 3)  # channels of models of pictures, gray ones and colored ones
# A strip of one row and thousands of columns would grow to gigabytes before its crop.
_MOST_RESIZED_PIXELS = 2**26


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Size, crop, interpolation and normalization of a model's images.

    An image is resized so that it covers `size / crop_fraction` with its proportions kept, the center of
    `size` is cut out, and `(pixel / 255 - mean) / std` is fed to the model.

    Args:
        size: int or `(h, w)`, pixels. Input size of the model.
        crop_fraction: float in (0, 1], the part of the resized image that the center crop keeps; `None`
            squashes the whole image to `size`. Default 1.0.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, always antialiased. Default `bicubic`.
        mean, std: one float a channel, on the scale 0 to 1. Defaults 0.5: pixels become -1 to 1.

    Raises:
        ValueError: if a field breaks these rules.

    Source: the fields of timm's `pretrained_cfg` (input_size, crop_pct, crop_mode, interpolation, mean, std).
    """

    size: tuple
    crop_fraction: float | None = 1.0
    interpolation: str = "bicubic"
    mean: tuple = (0.5, 0.5, 0.5)
    std: tuple = (0.5, 0.5, 0.5)

    def __post_init__(self):
        object.__setattr__(self, "size", as_pair(self.size, "size"))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not hasattr(values, "__iter__"):
                raise ValueError(f"{name} must hold one number a channel. Received: {name}={values!r}")
            object.__setattr__(self, name, tuple(float(value) for value in values))
        check_choice(self.interpolation, INTERPOLATIONS, "interpolation")
        if len(self.mean) != len(self.std) or not self.mean or any(s <= 0 for s in self.std):
            raise ValueError(
                "mean and std must hold one number a channel, std above zero. "
                f"Received: mean={self.mean}, std={self.std}"
            )
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1] or None. Received: crop_fraction={self.crop_fraction}")

    @classmethod
    def symmetric(cls, size, num_channels, **fields):
        """Returns the preprocessing of random weights, pixels to -1 .. 1 in every channel; `fields` are the others."""
        half = (0.5,) * num_channels
        return cls(size, mean=half, std=half, **fields)

    @property
    def num_channels(self):
        """int. Channels of an image."""
        return len(self.mean)

    def replace(self, **changes):
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def resized_size(self, image_size):
        """Returns the `(h, w)` to which an image of `image_size` is resized before the crop.

        The resized image covers the target: the relatively short side fits exactly, the other is
        truncated to a whole pixel as in torchvision and timm.
        """
        if self.crop_fraction is None:
            return self.size
        target = [math.floor(s / self.crop_fraction) for s in self.size]
        (height, width), (target_h, target_w) = image_size, target
        if height * target_w <= width * target_h:
            return target_h, max(int(target_h * width / height), target_w)
        return max(int(target_w * height / width), target_h), target_w

    def load(self, image):
        """Resizes, crops and normalizes one image.

        Args:
            image: path, open file, `PIL.Image`, or uint8 or uint16 array `(h, w)` or `(h, w, channels)`. The image in a
                file is rotated by its Exif orientation, as everywhere in keras_vit; a `PIL.Image` is used as it is. Of
                16 bits the upper 8 are used, alpha is dropped. An array has the channels of the model, or is gray or
                RGB and converted; its channels are resized separately, and none is treated as alpha.

        Returns:
            float32 array `(*size, num_channels)`.

        Raises:
            ValueError: if the file is no readable image, or the channels cannot be converted.
        """
        return self.normalize(self.resize(image))

    def resize(self, image):
        """Prepares an image as `load` does, without the normalization: uint8 array `(*size, num_channels)`."""
        image = _open(image, self.num_channels)
        if not isinstance(image, Image.Image):
            channels = [self._cropped(Image.fromarray(channel)) for channel in np.moveaxis(image, -1, 0)]
            return np.stack([np.asarray(channel) for channel in channels], -1)
        image = self._cropped(image)
        if image.mode != ("L" if self.num_channels == 1 else "RGB"):
            image = image.convert("L" if self.num_channels == 1 else "RGB")
        return np.asarray(image, "uint8").reshape(*self.size, self.num_channels)

    def _cropped(self, image):
        """Resizes and crops a `PIL.Image` to `size`."""
        resized = height, width = self.resized_size((image.height, image.width))
        top, left = (round((r - s) / 2) for r, s in zip(resized, self.size, strict=True))
        method, box = INTERPOLATIONS[self.interpolation], (left, top, left + self.size[1], top + self.size[0])
        if height * width > _MOST_RESIZED_PIXELS:
            # The same within rounding, of the pixels under the crop alone.
            ratios = (image.width / width, image.height / height)
            box = tuple(side * ratio for side, ratio in zip(box, 2 * ratios, strict=True))
            return image.resize(self.size[::-1], method, box)
        if resized != (image.height, image.width):
            image = image.resize((width, height), method)
        return image.crop(box)

    def normalize(self, images, any_channels=False):
        """Normalizes pixels.

        Args:
            images: pixels 0 to 255, `(..., channels)`: a NumPy array, a nested list, or a tensor, also of another
                library than the active backend's, such as one inside `tf.data` on the JAX and PyTorch backends.
            any_channels: bool. Whether a single mean and std hold for every channel. Default `False`.

        Returns:
            `(pixel / 255 - mean) / std`, float32, of the shape and the library of `images`; of a list an array. One
            gray channel becomes as many as the model has.

        Raises:
            ValueError: if these are no numbers, or have another number of channels.
        """
        self._check_pixels(images, any_channels)
        if is_foreign_tensor(images):
            images, scale, shift = foreign_float32(images, *self.scale_and_shift)
            return images * scale - shift
        scale, shift = (np.float32(values) for values in self.scale_and_shift)
        if isinstance(images, np.ndarray | list | tuple):
            return np.asarray(images, "float32") * scale - shift
        scale, shift = (keras.ops.convert_to_tensor(values, "float32") for values in (scale, shift))
        return keras.ops.cast(images, "float32") * scale - shift

    @property
    def scale_and_shift(self):
        """Two float64 arrays, a number a channel: `pixel * scale - shift` is `(pixel / 255 - mean) / std`.

        Everything that normalizes computes in this way, so that all of it has the same float32 numbers, and pixels that
        are fed as they are (mean 0, std 1 / 255) stay as they are.
        """
        mean, std = np.float64(self.mean), np.float64(self.std)
        return 1 / (255 * std), mean / std

    def _check_pixels(self, images, any_channels):
        """Raises a `ValueError` unless these may be pixels; what is not known in a graph passes."""
        if isinstance(images, list | tuple):
            images = np.asarray(images)
        if isinstance(images, np.ndarray) and images.dtype.kind not in "biuf":
            raise ValueError(
                "images must be numbers, 0 to 255; files are loaded, resized and normalized by input_spec.load(path). "
                f"Received: dtype={images.dtype}, shape={images.shape}"
            )
        shape = getattr(images, "shape", None)
        if any_channels or shape is None or getattr(shape, "rank", 0) is None:  # TensorFlow's shape of any rank
            return
        channels = shape[-1] if len(shape) else 0
        if channels not in (None, 1, len(self.mean)):
            raise ValueError(
                f"images must be (..., height, width, channels) with {len(self.mean)} channels, the last axis. "
                f"Received: shape={tuple(shape)}"
            )

    def get_config(self):
        """The fields as JSON types."""
        return {
            "size": list(self.size),
            "crop_fraction": self.crop_fraction,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)


def _open(image, num_channels):
    """A `PIL.Image` of mode `L` or `RGB`; for other numbers of channels a uint8 array `(h, w, num_channels)`."""
    is_picture = num_channels in _PICTURES
    try:
        if isinstance(image, np.ndarray):
            opened = _from_array(image, num_channels)
        elif isinstance(image, Image.Image):
            opened = eight_bits(image) if is_picture else bands(image)
        else:
            opened = (read_picture if is_picture else read_array)(_file(image))
    except (UnreadableImage, TypeError) as error:
        text = f"an image must be a readable file or a uint8 array. Received: {_described(image)} ({error})"
        raise (
            UnreadableImage(text, error.reason) if isinstance(error, UnreadableImage) else ValueError(text)
        ) from error
    if not isinstance(opened, Image.Image) and opened.shape[-1] != num_channels:
        raise ValueError(
            f"an image must have the {num_channels} channels of the model. Received: {opened.shape[-1]} channels"
        )
    return opened


def _file(image):
    """A path or an open file."""
    if isinstance(image, str | pathlib.PurePath) or hasattr(image, "read"):
        return image
    raise TypeError(f"a {type(image).__name__}")


def _described(image):
    """An image, for errors."""
    if isinstance(image, np.ndarray):
        return f"array of shape {image.shape} and dtype {image.dtype}"
    return repr(str(getattr(image, "name", image) if hasattr(image, "read") else image))


def _from_array(array, num_channels):
    """A `PIL.Image` of a gray or RGB array for a model of pictures, else the array as uint8 `(h, w, channels)`."""
    if array.ndim not in (2, 3) or not array.size:
        raise TypeError("neither (h, w) nor (h, w, channels)")
    if array.dtype == np.uint16:
        array = (array >> 8).astype("uint8")
    if array.dtype != np.uint8:
        # Floats of 0 to 1 and those of 0 to 255 look alike where an image is dark.
        raise TypeError("neither uint8 nor uint16; scale to 0..255 and round, then array.astype('uint8')")
    array = array if array.ndim == 3 else array[..., None]
    channels = array.shape[-1]
    if num_channels not in _PICTURES:
        return array
    if channels not in _PICTURES:
        advice = ", array[..., :3] drops alpha" if channels == 4 else ""
        raise TypeError(f"{channels} channels for a model of {num_channels}{advice}")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
