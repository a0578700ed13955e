"""How the images of a model are prepared. It belongs to the weights, so it travels inside the model.

Pure data and Pillow / NumPy; the same rules as graph operations are in `keras_vit.data`.
"""

import dataclasses
import math

import keras
import numpy as np
from PIL import Image, ImageOps

from keras_vit.backend import foreign_float32, is_foreign_tensor
from keras_vit.validation import as_pair, check_choice

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MODES = {1: "L", 3: "RGB"}
# A strip of one row and thousands of columns would grow to gigabytes before its crop.
_MOST_RESIZED_PIXELS = 2**26


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Size, crop, interpolation and normalisation of a model's images.

    An image is resized so that it covers `size / crop_fraction` with its proportions kept, the centre of
    `size` is cut out, and `(pixel / 255 - mean) / std` is fed to the model.

    Args:
        size: int or `(h, w)`, pixels. What the model takes.
        crop_fraction: float in (0, 1], the part of the resized image that the centre crop keeps; `None`
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
        """Pixels to -1 .. 1 in every channel, the preprocessing of random weights; `fields` are the others."""
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
        """The `(h, w)` to which an image of `image_size` is resized before the crop.

        Resizing covers the target: the side that is short relative to it decides, the other is
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
        """Resizes, crops and normalises one image.

        Args:
            image: path, `PIL.Image`, or uint8 array `(h, w)` or `(h, w, channels)`. The file of a JPEG
                is turned upright as its Exif orientation says, as in an export; what is open is taken as it is.

        Returns:
            float32 array `(*size, num_channels)`.

        Raises:
            ValueError: if the file is no readable image, or the channels cannot be converted.
        """
        return self.normalize(self.resize(image))

    def resize(self, image):
        """As `load`, without the normalisation: uint8 array `(*size, num_channels)`."""
        image = self._cropped(_open(image, self.num_channels))
        return np.asarray(image, "uint8").reshape(*self.size, self.num_channels)

    def _cropped(self, image):
        """A `PIL.Image` resized and cropped to `size`."""
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

    def normalize(self, images):
        """Normalizes pixels.

        Args:
            images: pixels 0 to 255, `(..., channels)`: a NumPy array, a nested list, or a tensor, also of another
                library than the active backend's, such as one inside `tf.data` on the JAX and PyTorch backends.

        Returns:
            `(pixel / 255 - mean) / std`, float32, of the shape and the library of `images`; of a list an array.
        """
        if is_foreign_tensor(images):
            images, mean, std = foreign_float32(images, self.mean, self.std)
            return (images / 255.0 - mean) / std
        if isinstance(images, np.ndarray | list | tuple):
            images = np.asarray(images, "float32")
            return (images / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        mean, std = (keras.ops.convert_to_tensor(v, "float32") for v in (self.mean, self.std))
        return (keras.ops.cast(images, "float32") / 255.0 - mean) / std

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


def _from_array(array):
    """A `PIL.Image` of a uint8 array; floats, which Pillow takes for grey images, would lose their scale."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
        raise TypeError("neither (h, w) nor (h, w, channels) of uint8")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def _read(image):
    """A `PIL.Image` with its pixels from a path or an array, a file's upright."""
    try:
        opened = _from_array(image) if isinstance(image, np.ndarray) else Image.open(image)
        opened.load()  # a truncated file shows here
        opened = upright(opened)
    except (OSError, AttributeError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        is_array = isinstance(image, np.ndarray)
        what = f"array of shape {image.shape} and dtype {image.dtype}" if is_array else repr(str(image))
        raise ValueError(f"an image must be a readable file or a uint8 array. Received: {what} ({error})") from error
    return opened


def upright(image):
    """A `PIL.Image` turned as its Exif orientation says, as exports do: JPEGs, of which some are the first of an MPO.

    One whose Exif data cannot be read stays as it is.
    """
    try:
        return ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO") else image
    except Exception:  # Pillow names no errors of damaged metadata, which belong to many modules.
        return image


def _open(image, num_channels):
    """A `PIL.Image` with `num_channels` channels from a path, an image or an array."""
    opened = image if isinstance(image, Image.Image) else _read(image)
    if num_channels not in _MODES:
        if len(opened.getbands()) != num_channels:
            raise ValueError(
                f"an image must have the {num_channels} channels of the model. "
                f"Received: {len(opened.getbands())} channels"
            )
        return opened
    return opened.convert(_MODES[num_channels])
