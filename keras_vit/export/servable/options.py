"""Options of an export."""

import dataclasses

from keras_vit.image_ops.decode import MAX_PIXELS
from keras_vit.image_ops.headers import FORMATS
from keras_vit.outputs import ACTIVATIONS
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import check_choice, check_positive

COMPUTE_DTYPES = ("float32", "bfloat16")
WEIGHT_DTYPES = ("float32", "bfloat16", "int8")
# Batch sizes that are warmed up and that a server's configuration allows, by default.
BATCH_SIZES = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `keras_vit.export.saved_model`, checked.

    Args:
        labels: class names; both of them for a single logit, the second one last; `None` for the model's own, or the
            numbers of the classes.
        input_spec: `InputSpec` of the model's size and channels; `None` for the model's own.
        top_k: int. Number of classes in an answer, limited to those of the model. Default 5.
        dtype: compute dtype, `float32` or `bfloat16`; `None` for the model's own.
        weights: dtype of the stored weights: `float32`; `bfloat16`, half of the bytes; `int8`, a quarter (dense layers
            and convolutions, with one scale per output channel). Weights are dequantized in each call.
        activation: output activation that turns logits into probabilities: `softmax`, or `sigmoid` (several labels per
            image); `linear` for the values of a regression. `None`: by the loss that the model is compiled with, else
            `softmax`, and `sigmoid` for a single logit with labels of two classes. A model that ends in an activation
            keeps it.
        formats: accepted image formats, of `jpeg`, `png`, `webp`, `bmp`, `gif`. Default all.
        max_pixels: int. Images with more pixels are rejected before decoding. Default 2 ** 25. Decoding takes six or
            seven bytes a pixel, of a progressive JPEG up to eleven.
        apply_exif_orientation: bool. Whether images are rotated by their Exif orientation, as `InputSpec.load` and data
            sets do. Default True.
        compare: images on which the error of a reduced `dtype` or `weights` is measured against float32: paths, or
            uint8 arrays `(h, w, channels)`; `None`: sixteen synthetic images.
        batch_sizes: increasing ints. Batch sizes that get warm-up records, which need the extra `serving`; without it a
            warning says that there are none. `()`: no records. Default (1, 2, 4, 8), as in `write_server_files`.
        license: str. License of the weights, for the description; `None` for that of the published weights.

    Raises:
        ValueError: if a value is invalid whatever the model.
    """

    labels: tuple | None = None
    input_spec: InputSpec | None = None
    top_k: int = 5
    dtype: str | None = None
    weights: str = "float32"
    activation: str | None = None
    formats: tuple = FORMATS
    max_pixels: int = MAX_PIXELS
    apply_exif_orientation: bool = True
    compare: tuple | None = None
    batch_sizes: tuple = BATCH_SIZES
    license: str | None = None

    def __post_init__(self):
        check_positive(self.top_k, "top_k")
        if self.dtype is not None:
            check_choice(self.dtype, COMPUTE_DTYPES, "dtype")
        check_choice(self.weights, WEIGHT_DTYPES, "weights")
        check_choice(self.activation, ACTIVATIONS, "activation")
        check_positive(self.max_pixels, "max_pixels")
        normalized = {
            "labels": self.labels if self.labels is None else tuple(str(label) for label in self.labels),
            "formats": _check_formats(self.formats),
            "apply_exif_orientation": bool(self.apply_exif_orientation),
            "batch_sizes": check_batch_sizes(self.batch_sizes) if self.batch_sizes else (),
        }
        for name, value in normalized.items():
            object.__setattr__(self, name, value)


def _check_formats(formats):
    """Returns the formats as a tuple without repetitions."""
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    for name in formats:
        check_choice(name, FORMATS, "formats")
    if not formats:
        raise ValueError("formats must name at least one format. Received: formats=()")
    return tuple(dict.fromkeys(formats))


def check_batch_sizes(batch_sizes):
    """Returns the batch sizes as a tuple; raises a `ValueError` unless they are increasing positive ints."""
    sizes = tuple(check_positive(size, "batch_sizes") for size in batch_sizes)
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"batch_sizes must be increasing. Received: batch_sizes={batch_sizes!r}")
    return sizes
