"""Segmentation of images at their full resolution, its mean IoU, and a figure of masks beside the truth."""

import os

import keras
import numpy as np
from PIL import Image

from keras_vit.evaluation.figures import new_figure
from keras_vit.image_ops.pillow_reader import read_array, read_picture
from keras_vit.metadata import metadata
from keras_vit.models.segmentation import num_segmentation_classes
from keras_vit.preprocessing import INTERPOLATIONS
from keras_vit.validation import is_number

_BATCH = 8  # Windows in one call of the model.
_MAX_LEGEND = 20


class Segmenter:
    """A segmentation model with what it needs for images of any size.

    An image is resized so that it covers the input of the model, with its proportions kept. Windows of the input's size
    slide over it, their logits are averaged where they overlap, enlarged bilinearly to the size of the image, and the
    best class of each pixel is taken.

    Args:
        model: of `keras_vit.models.add_segmentation_head`, or trained by a recipe with `segmentation`.
        window_stride: float in (0, 1]. Distance of the windows in sizes of the input. Default 2 / 3.

    Raises:
        ValueError: if the model is none.

    Source: mmsegmentation `EncoderDecoder.slide_inference`, as in DINOv2's evaluation (crops of 512, stride 341).
    """

    def __init__(self, model, window_stride=2 / 3):
        self.num_classes = num_segmentation_classes(model)
        if not is_number(window_stride) or not 0 < window_stride <= 1:
            raise ValueError(f"window_stride must be in (0, 1]. Received: window_stride={window_stride!r}")
        content = metadata(model)
        self.input_spec, self.window_stride = content.input_spec, window_stride
        self.class_names = content.labels or tuple(str(number) for number in range(self.num_classes))
        # A model of its own, outside of the strategy that the other may be trained under.
        self._model = keras.Model(model.inputs, model.outputs, name=model.name)

    def logits(self, image):
        """Computes the logits of every pixel of an image.

        Args:
            image: path, `PIL.Image` or uint8 array `(height, width)` or `(height, width, channels)`. A file is turned
                upright as its Exif orientation says.

        Returns:
            float32 array `(height, width, classes)`.

        Raises:
            ValueError: if the image is unreadable or has other channels than the model.
        """
        image = self._pixels(image)
        spec, size = self.input_spec, image.shape[:2]
        scale = max(target / side for target, side in zip(spec.size, size, strict=True))
        resized = tuple(max(round(side * scale), target) for side, target in zip(size, spec.size, strict=True))
        method = INTERPOLATIONS[spec.interpolation]
        channels = [Image.fromarray(channel).resize(resized[::-1], method) for channel in np.moveaxis(image, -1, 0)]
        images = np.asarray(spec.normalize(np.stack([np.asarray(channel) for channel in channels], axis=-1)))
        height, width = spec.size
        corners = [
            (top, left)
            for top in _starts(resized[0], height, self.window_stride)
            for left in _starts(resized[1], width, self.window_stride)
        ]
        total = np.zeros((*resized, self.num_classes), "float32")
        count = np.zeros((*resized, 1), "float32")
        for start in range(0, len(corners), _BATCH):
            part = corners[start : start + _BATCH]
            windows = np.stack([images[top : top + height, left : left + width] for top, left in part])
            for (top, left), logits in zip(part, self._model.predict_on_batch(windows), strict=True):
                total[top : top + height, left : left + width] += logits
                count[top : top + height, left : left + width] += 1
        mean = keras.ops.image.resize((total / count)[None], size, "bilinear", data_format="channels_last")
        return keras.ops.convert_to_numpy(mean)[0]

    def _pixels(self, image):
        """An image of any kind as uint8 `(height, width, channels)` with the channels of the model."""
        mode = {1: "L", 3: "RGB"}.get(self.input_spec.num_channels)
        if isinstance(image, str | os.PathLike):
            image = read_picture(image) if mode else read_array(image)
        if not isinstance(image, Image.Image):
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise ValueError(
                    "an image must be a file, a PIL.Image or a uint8 array (height, width, channels). "
                    f"Received: {image.dtype} {image.shape}"
                )
            image = image[..., None] if image.ndim == 2 else image
            if image.shape[-1] == self.input_spec.num_channels:
                return image
            if image.shape[-1] not in (1, 3) or not mode:
                raise ValueError(
                    f"an image must have the {self.input_spec.num_channels} channels of the model. "
                    f"Received: {image.shape}"
                )
            image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        pixels = np.asarray(image.convert(mode) if mode else image)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def __call__(self, image):
        """Returns the class of every pixel of an image, int32 `(height, width)`. Arguments: as for `logits`."""
        return self.logits(image).argmax(axis=-1).astype("int32")


def _starts(length, window, stride):
    """The first pixels of windows that cover a side; the last one ends with it."""
    step = max(int(window * stride), 1)
    return [*range(0, length - window, step), length - window]


def segment(model, image, window_stride=2 / 3):
    """Segments one image at its full resolution.

    Args:
        model, window_stride: as for `Segmenter`, which spares the preparation for more than one image.
        image: as for `Segmenter.logits`.

    Returns:
        int32 array `(height, width)` of classes.

    Raises:
        ValueError: if the model is none of segmentation, or the image is unreadable.
    """
    return Segmenter(model, window_stride)(image)


def evaluate_segmentation(model, examples, ignore_label=255, window_stride=2 / 3):
    """Measures a segmentation model on whole images at their own resolution.

    Args:
        model, window_stride: as for `Segmenter`.
        examples: iterable of `(uint8 image (height, width, channels), int mask (height, width))` of any sizes. Masks
            hold classes, and `ignore_label` where pixels do not count.
        ignore_label: int. Default 255.

    Returns:
        A dict of JSON types: `examples`, `pixels`, `mean_iou` (over the classes that are in a mask or predicted),
        `accuracy` (of pixels), `mean_accuracy` (over the classes in masks) and `classes`, a list of dicts with `name`,
        `pixels`, `iou` and `accuracy`, which are `None` for classes that do not occur.

    Raises:
        ValueError: if there is no example, a mask has another size than its image or a label is no class.
    """
    segmenter = model if isinstance(model, Segmenter) else Segmenter(model, window_stride)
    size, number = segmenter.num_classes, 0
    matrix = np.zeros((size, size), "int64")
    for image, mask in examples:
        mask = np.asarray(mask)
        counted = mask != ignore_label
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"a mask must have the size of its image. Received: {mask.shape} for {image.shape[:2]} in example "
                f"{number}"
            )
        if counted.any() and not 0 <= mask[counted].min() <= mask[counted].max() < size:
            raise ValueError(
                f"labels must be classes, in 0..{size - 1}, or {ignore_label}. "
                f"Received: {mask[counted].min()}..{mask[counted].max()} in example {number}"
            )
        cells = mask[counted].astype("int64") * size + segmenter(image)[counted]
        matrix += np.bincount(cells, minlength=size * size).reshape(size, size)
        number += 1
    if not number:
        raise ValueError("a data set to evaluate must have an image. Received: none")
    return {"examples": number, **scores(matrix, segmenter.class_names)}


def scores(matrix, class_names):
    """Computes the measures of a confusion matrix of pixels.

    Args:
        matrix: int array `(classes, classes)`, true classes in rows.
        class_names: sequence of str.

    Returns:
        A dict, as `evaluate_segmentation` without `examples`.
    """
    hits, true, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    unions = true + predicted - hits
    ious = [hit / union if union else None for hit, union in zip(hits.tolist(), unions.tolist(), strict=True)]
    recalls = [hit / count if count else None for hit, count in zip(hits.tolist(), true.tolist(), strict=True)]
    classes = zip(class_names, true.tolist(), ious, recalls, strict=True)
    return {
        "pixels": int(matrix.sum()),
        "mean_iou": _mean(ious),
        "accuracy": int(hits.sum()) / max(int(matrix.sum()), 1),
        "mean_accuracy": _mean(recalls),
        "classes": [
            {"name": name, "pixels": count, "iou": iou, "accuracy": recall} for name, count, iou, recall in classes
        ],
    }


def _mean(values):
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else 0.0


def mask_figure(rows, class_names, ignore_label=255):
    """Draws images with their true and their predicted masks.

    Args:
        rows: sequence of `(uint8 image, true mask, predicted mask)`.
        class_names: sequence of str.
        ignore_label: int. The label that is drawn white. Default 255.

    Returns:
        A matplotlib `Figure`, a row an image, with the names of the classes below.

    Raises:
        ImportError: without matplotlib.
    """
    colors = class_colors(len(class_names))
    height = sum(3 * image.shape[0] / image.shape[1] + 0.3 for image, _, _ in rows)
    figure = new_figure(figsize=(9, height + 0.8))
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for line, (image, true, predicted) in zip(grid, rows, strict=True):
        pictures = image, color_mask(true, colors, ignore_label), color_mask(predicted, colors, ignore_label)
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray")
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title)
    seen = np.unique(np.concatenate([np.concatenate([t.ravel(), p.ravel()]) for _, t, p in rows]))
    seen = [number for number in seen.tolist() if 0 <= number < len(class_names) and number != ignore_label]
    from matplotlib.patches import Patch

    patches = [Patch(color=colors[number] / 255, label=class_names[number]) for number in seen[:_MAX_LEGEND]]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6) or 1)
    return figure


def class_colors(count):
    """Colors of classes that are told apart, the same for every number of classes; uint8 `(count, 3)`.

    Source: the color map of Pascal VOC's development kit.
    """
    colors = np.zeros((count, 3), "uint8")
    for number in range(count):
        bits = number
        for shift in range(7, -1, -1):
            colors[number] |= np.array([(bits >> channel & 1) << shift for channel in range(3)], "uint8")
            bits >>= 3
    return colors


def color_mask(mask, colors, ignore_label=255):
    """Converts a mask to uint8 RGB; ignored pixels are white."""
    mask = np.asarray(mask)
    ignored = (mask == ignore_label) | (mask >= len(colors)) | (mask < 0)
    picture = colors[np.where(ignored, 0, mask)]
    picture[ignored] = 255
    return picture
