"""The SavedModel to check, and results of checks."""

import dataclasses
import functools
import io
import math
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from keras_vit.export.servable.description import read_description
from keras_vit.export.servable.signature_defs import SERVE_TAG, graphs_for_serving, named_signatures, read_saved_model
from keras_vit.preprocessing import InputSpec

_PICTURES, _MAX_SIDE = 5, 400
_DETAILED, _DOWNSCALING = 2, 1.6
DIFFERENCE = 1e-5
_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Einsum")
HALF_DIFFERENCE = 3e-2  # For models that compute in bfloat16, with a precision of 4e-3.


class CheckFailed(Exception):
    """A check failed; the message is its finding."""


class NotApplicable(Exception):
    """A check does not apply to this model; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a check.

    Args:
        check: str, its name.
        passed: bool, or `None` if the check does not apply.
        finding: str. The measurement, the failure, or the reason why the check does not apply.
    """

    check: str
    passed: bool | None
    finding: str


def require(condition, finding):
    """Raises `CheckFailed` unless a condition holds."""
    if not condition:
        raise CheckFailed(finding)


class Exported:
    """A version of a SavedModel, parsed on first use and loaded when a check calls it.

    Args:
        path: path of the version.
        model: the `keras.Model` that was exported, or `None`.
        files: paths of images to test with; missing ones are synthetic.
    """

    WITHOUT_CLASSES = "it has no classifier of encoded images"
    WITHOUT_BYTES = "images of this number of channels are never encoded"

    def __init__(self, path, model=None, files=()):
        self.path = pathlib.Path(path).resolve()
        self.model = model
        self._given = [_readable(file) for file in files]
        if not (self.path / "saved_model.pb").is_file():
            raise ValueError(f"there must be a SavedModel in the folder of a version. Received: {str(self.path)!r}")

    @functools.cached_property
    def proto(self):
        """The whole `SavedModel` message."""
        return read_saved_model(self.path)

    @property
    def graph(self):
        """The `MetaGraphDef` for serving."""
        graphs = graphs_for_serving(self.proto)
        require(graphs, f"no MetaGraph has the tag {SERVE_TAG!r}")
        return graphs[0]

    def nodes(self):
        """Every node of the graph and of its functions."""
        yield from self.graph.graph_def.node
        for function in self.graph.graph_def.library.function:
            yield from function.node_def

    @property
    def signatures(self):
        """dict of `SignatureDef` by name, without TensorFlow's own."""
        return named_signatures(self.graph)

    @functools.cached_property
    def description(self):
        """dict of `read_description`."""
        try:
            return read_description(self.path)
        except ValueError as error:
            raise CheckFailed(str(error)) from None

    @property
    def input_spec(self):
        """`InputSpec`, from the description."""
        return InputSpec(**self.description["input_spec"])

    @property
    def formats(self):
        """list of str. The formats of encoded images that are accepted, such as `jpeg`."""
        return self.description["options"]["formats"]

    @property
    def family(self):
        """str. Name of the architecture, such as `ViT` or `Swin`, from the description."""
        return self.description["family"].removesuffix("Config")

    @property
    def has_head(self):
        """bool. Whether the model returns scores of classes, or values."""
        return "images" in self.description["signatures"]

    @property
    def is_classifier(self):
        """bool. Whether the model returns scores of classes."""
        return self.has_head and self.description["options"]["activation"] != "linear"

    @property
    def takes_bytes(self):
        """bool. Whether images may be encoded: those of 1 or 3 channels."""
        return self.input_spec.num_channels in (1, 3)

    @functools.cached_property
    def computes_in_half(self):
        """bool. Whether some matrix products are in bfloat16 or float16."""
        half = (tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum)
        return any(node.op in _PRODUCTS and node.attr["T"].type in half for node in self.nodes())

    @property
    def tolerance(self):
        """float. Tolerance between answers in different batches, relative to the largest value or 1."""
        return HALF_DIFFERENCE if self.computes_in_half else DIFFERENCE

    @functools.cached_property
    def _loaded(self):
        return tf.saved_model.load(str(self.path))

    def call(self, name, **inputs):
        """Calls a signature and returns its outputs as NumPy arrays, by name."""
        outputs = self._loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    @functools.cached_property
    def pictures(self):
        """list of bytes. At least five encoded images: the given ones, then synthetic ones."""
        side = min(_MAX_SIDE, math.isqrt(self.description["options"]["max_pixels"]))
        missing = range(max(0, _PICTURES - len(self._given)))
        return self._given + [_picture(seed, self.formats[seed % len(self.formats)], side) for seed in missing]

    @functools.cached_property
    def detailed(self):
        """list of bytes. Encoded images of noise, which reveal the resizing method."""
        most = math.isqrt(self.description["options"]["max_pixels"])
        size = [min(most, math.ceil(_DOWNSCALING * side)) for side in self.input_spec.size]
        return [_noise(seed, self.formats[seed % len(self.formats)], size) for seed in range(_DETAILED)]


def _readable(file):
    """Reads an image file; raises a `ValueError` unless Pillow can decode it."""
    try:
        data = pathlib.Path(file).read_bytes()
        Image.open(io.BytesIO(data)).load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's message for this contains the address of an object.
        why = "no image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"an image must be a readable file. Received: {str(file)!r} ({why})") from error
    return data


def _picture(seed, format, side):
    """Encodes a smooth color image whose sides are at most `side`."""
    random = np.random.default_rng(seed)
    size = [int(length) for length in random.integers(side // 4 + 1, side + 1, 2)]
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), "uint8"))
    return _encoded(small.resize(size, Image.Resampling.BICUBIC), format)


def _noise(seed, format, size):
    """Encodes noise with little color and contrast, so that resizing does not clip at black or white."""
    random = np.random.default_rng(seed)
    pixels = random.integers(56, 200, (*size, 1)) + random.integers(-16, 17, (*size, 3))
    return _encoded(Image.fromarray(pixels.astype("uint8")), format)


def _encoded(image, format):
    buffer, options = io.BytesIO(), {"lossless": True} if format == "webp" else {}
    image.save(buffer, format, **options)
    return buffer.getvalue()
