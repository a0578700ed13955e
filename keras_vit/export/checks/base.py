"""A SavedModel under examination, and what a check says of it."""

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

_PICTURES, _LARGEST_SIDE = 5, 400
_DETAILED, _SHRINKING = 2, 1.6
DIFFERENCE = 1e-5
_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Einsum")
HALF_DIFFERENCE = 3e-2  # where the model computes in bfloat16, whose numbers are 4e-3 apart


class NotMet(Exception):
    """What is wrong, in words for the table."""


class DoesNotApply(Exception):
    """Why a check says nothing of this model."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a check has found.

    Args:
        check: str, what must hold.
        passed: bool, or `None` where the check does not apply.
        finding: str. What was found, what is wrong, or why it does not apply.
    """

    check: str
    passed: bool | None
    finding: str


def require(condition, finding):
    """Raises `NotMet` unless a condition holds."""
    if not condition:
        raise NotMet(finding)


class Exported:
    """A version of a SavedModel, parsed at once and loaded when a check calls it.

    Args:
        path: path of the version.
        model: the `keras.Model` that was exported, or `None`.
        files: paths of images to try it with; empty: images are drawn.
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
        """What `read_description` tells: a dict."""
        try:
            return read_description(self.path)
        except ValueError as error:
            raise NotMet(str(error)) from None

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
        """str. What the architecture is called, such as `ViT` or `Swin`, from the description."""
        return self.description["family"].removesuffix("Config")

    @property
    def has_head(self):
        """bool. Whether there is more than a representation: scores of classes, or values."""
        return "images" in self.description["signatures"]

    @property
    def is_classifier(self):
        """bool. Whether there should be scores of classes."""
        return self.has_head and self.description["options"]["activation"] != "linear"

    @property
    def takes_bytes(self):
        """bool. Whether images may come encoded: those of 1 or 3 channels."""
        return self.input_spec.num_channels in (1, 3)

    @functools.cached_property
    def computes_in_half(self):
        """bool. Whether some products are of bfloat16 or float16."""
        half = (tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum)
        return any(node.op in _PRODUCTS and node.attr["T"].type in half for node in self.nodes())

    @property
    def tolerance(self):
        """float. How much an answer may differ from the same answer in another batch, relative to 1 or the largest."""
        return HALF_DIFFERENCE if self.computes_in_half else DIFFERENCE

    @functools.cached_property
    def _loaded(self):
        return tf.saved_model.load(str(self.path))

    def call(self, name, **inputs):
        """The outputs of a signature as NumPy arrays, by name."""
        outputs = self._loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        return {key: value.numpy() for key, value in outputs.items()}

    @functools.cached_property
    def pictures(self):
        """The bytes of at least five images that every export takes: those given, or some that are drawn."""
        side = min(_LARGEST_SIDE, math.isqrt(self.description["options"]["max_pixels"]))
        missing = range(max(0, _PICTURES - len(self._given)))
        return self._given + [_picture(seed, self.formats[seed % len(self.formats)], side) for seed in missing]

    @functools.cached_property
    def detailed(self):
        """The bytes of images of which every pixel is another, so that it tells how they are resized."""
        most = math.isqrt(self.description["options"]["max_pixels"])
        size = [min(most, math.ceil(_SHRINKING * side)) for side in self.input_spec.size]
        return [_noise(seed, self.formats[seed % len(self.formats)], size) for seed in range(_DETAILED)]


def _readable(file):
    """The bytes of an image file; a `ValueError` unless Pillow can read it."""
    try:
        data = pathlib.Path(file).read_bytes()
        Image.open(io.BytesIO(data)).load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own words for this name an object of the process.
        why = "no image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"an image must be a readable file. Received: {str(file)!r} ({why})") from error
    return data


def _picture(seed, format, side):
    """The bytes of a smooth coloured image whose sides are at most `side`."""
    random = np.random.default_rng(seed)
    size = [int(length) for length in random.integers(side // 4 + 1, side + 1, 2)]
    small = Image.fromarray(random.integers(0, 256, (5, 6, 3), "uint8"))
    return _encoded(small.resize(size, Image.Resampling.BICUBIC), format)


def _noise(seed, format, size):
    """The bytes of an image of noise, grey and a little coloured, of which no edge is black or white when resized."""
    random = np.random.default_rng(seed)
    pixels = random.integers(56, 200, (*size, 1)) + random.integers(-16, 17, (*size, 3))
    return _encoded(Image.fromarray(pixels.astype("uint8")), format)


def _encoded(image, format):
    buffer, options = io.BytesIO(), {"lossless": True} if format == "webp" else {}
    image.save(buffer, format, **options)
    return buffer.getvalue()
