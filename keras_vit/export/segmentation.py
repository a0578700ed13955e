"""Writes segmentation models as SavedModels that take images of any size and give masks of the same size."""

import pathlib

import keras
import tensorflow as tf

from keras_vit.export.servable.description import write_description
from keras_vit.export.servable.functional import check_backend
from keras_vit.export.versions import check_version, newest, write_version
from keras_vit.image_ops.decode import MAX_PIXELS, VALID, Limits, decode
from keras_vit.image_ops.masks import read_mask
from keras_vit.image_ops.resize import METHODS, fit_channels, normalize, whole_pixels
from keras_vit.metadata import metadata
from keras_vit.models.segmentation import num_segmentation_classes
from keras_vit.origin import portable_origin
from keras_vit.version import __version__


def segmentation_model(model, directory, version=None, window_stride=2 / 3, max_pixels=MAX_PIXELS):
    """Writes `<directory>/<version>/`, a SavedModel of a segmentation model with the preprocessing in the graph.

    As `keras_vit.evaluation.Segmenter`, it resizes an image so that it covers the input of the model, slides windows
    over it, averages their logits and gives the best class of each pixel of the image. Signatures:

    * `serving_default`: `image_bytes`, string `(n,)`, encoded images of any size, to `masks`, string `(n,)`, gray PNGs
      of the size of each upright image whose values are the classes (16 bits for more than 256 classes), and `valid`
      `(n,)`. An image that is damaged, too large or of an unknown format gets an empty string and False.
    * `images`: `images`, uint8 `(n, height, width, channels)`, to `classes`, int32 `(n, height, width)`.

    Args:
        model: of `keras_vit.models.add_segmentation_head`, or trained by a recipe with `segmentation`.
        directory: path; its name is the model's name on a server.
        version: int or `None`: the next one.
        window_stride: float in (0, 1]. Distance of the windows in sizes of the input. Default 2 / 3.
        max_pixels: int. Encoded images with more are not decoded.

    Returns:
        The path of the version. `keras_vit.export.read_description` reads its class names and preprocessing.

    Raises:
        ValueError: if the model is no segmentation model or takes images of other than 1 or 3 channels, or the version
            exists; under another backend than TensorFlow.
    """
    check_backend()
    check_version(directory, version)
    num_classes, content = num_segmentation_classes(model), metadata(model)
    spec = content.input_spec
    if spec.num_channels not in (1, 3):
        raise ValueError(f"a segmentation model to export must take gray or RGB images. Received: {spec.num_channels}")
    functions = _signatures(model, spec, num_classes, window_stride, max_pixels)
    functions = {name: function.get_concrete_function() for name, function in functions.items()}
    labels = content.labels or tuple(str(number) for number in range(num_classes))
    description = {
        "task": "segmentation",
        "model": model.name,
        "family": type(content.config).__name__,
        "config": content.config.get_config(),
        "input_spec": spec.get_config(),
        "labels": list(labels),
        "weights": {
            "origin": portable_origin(content.origin),
            "license": content.license,
            "parameters": model.count_params(),
        },
        "options": {"window_stride": window_stride, "max_pixels": max_pixels},
        "libraries": {"keras_vit": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
    }
    name = pathlib.Path(directory).resolve().name

    def write(path, number):
        if not (path / "saved_model.pb").exists():
            module = tf.Module()
            # Each variable once; under a strategy the copy of one device.
            module.weights = list({id(v): v for function in functions.values() for v in function.variables}.values())
            tf.saved_model.save(module, str(path), functions)
        write_description(path, name, number, description)

    return write_version(directory, write, version)


def _signatures(model, spec, num_classes, stride, max_pixels):
    shape = (None, *spec.size, spec.num_channels)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
    def run(windows):
        return tf.cast(model(windows, training=False), tf.float32)

    def classes_of(image):
        return _classes(image, run, spec, num_classes, stride)

    depth = tf.uint8 if num_classes <= 2**8 else tf.uint16

    def mask_of(data):
        image, reason = decode(data, Limits(max_pixels=max_pixels), num_channels=spec.num_channels)
        is_valid = reason == VALID

        def encoded():
            return tf.io.encode_png(tf.cast(classes_of(image), depth)[..., None])

        return tf.cond(is_valid, encoded, lambda: tf.constant(b"")), is_valid

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")], autograph=False)
    def serving_default(image_bytes):
        count = tf.size(image_bytes, out_type=tf.int64)
        rows = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
        # Images that cannot be decoded raise, and are left out.
        rows = rows.map(lambda number, data: (number, *mask_of(data))).ignore_errors()
        rows = rows.concatenate(tf.data.Dataset.from_tensors((count, tf.constant(b""), False)))
        numbers, masks, valid = rows.batch(count + 1).get_single_element()
        places = tf.scatter_nd(numbers[:, None], tf.range(tf.size(numbers)) + 1, [count + 1])[:count]
        masks, valid = tf.concat([[b""], masks], 0), tf.concat([[False], valid], 0)
        return {"masks": tf.gather(masks, places), "valid": tf.gather(valid, places)}

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, spec.num_channels), tf.uint8, "images")], autograph=False
    )
    def images(images):
        classes = tf.TensorSpec((None, None), tf.int32)
        return {"classes": tf.map_fn(classes_of, images, fn_output_signature=classes)}

    return {"serving_default": serving_default, "images": images}


def _classes(image, run, spec, num_classes, stride):
    """The class of each pixel of an image, int32 `(height, width)`; the rules are those of `Segmenter`."""
    size, target = tf.shape(image)[:2], spec.size
    scale = tf.reduce_max(tf.constant(target, tf.float64) / tf.cast(size, tf.float64))
    resized = tf.cast(tf.round(tf.cast(size, tf.float64) * scale), tf.int32)
    resized = tf.maximum(resized, tf.constant(target))
    method = METHODS[spec.interpolation]
    pixels = tf.image.resize(fit_channels(image, spec.num_channels), resized, method, antialias=method != "nearest")
    pixels = whole_pixels(pixels)
    tops, lefts = (_starts(resized[axis], target[axis], stride) for axis in (0, 1))
    corners = tf.reshape(tf.stack(tf.meshgrid(tops, lefts, indexing="ij"), -1), (-1, 2))

    def add(number, total, count):
        top, left = corners[number, 0], corners[number, 1]
        window = tf.slice(pixels, (top, left, 0), (*target, spec.num_channels))
        logits = run(normalize(window[None], spec))[0]
        padding = [[top, resized[0] - target[0] - top], [left, resized[1] - target[1] - left], [0, 0]]
        ones = tf.ones((*target, 1))
        return number + 1, total + tf.pad(logits, padding), count + tf.pad(ones, padding)

    start = (0, tf.zeros((resized[0], resized[1], num_classes)), tf.zeros((resized[0], resized[1], 1)))
    shapes = (tf.TensorShape(()), tf.TensorShape((None, None, num_classes)), tf.TensorShape((None, None, 1)))
    _, total, count = tf.while_loop(lambda number, *_: number < tf.shape(corners)[0], add, start, shapes)
    logits = tf.image.resize(total / count, size, "bilinear")
    return tf.argmax(logits, -1, tf.int32)


def _starts(length, window, stride):
    """`keras_vit.evaluation.segmentation`'s rule in the graph."""
    return tf.concat([tf.range(0, length - window, max(int(window * stride), 1)), [length - window]], 0)


def segment_files(path, files):
    """Segments image files with a SavedModel, without Keras.

    Args:
        path: of a version that `segmentation_model` has written, or of a folder of versions.
        files: paths of images.

    Returns:
        A list of int arrays `(height, width)` of classes.

    Raises:
        ValueError: if the SavedModel is none of segmentation, or an image is unreadable.
    """
    path = newest(path)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    if "masks" not in signature.structured_outputs:
        raise ValueError(f"a SavedModel to segment with must give masks. Received: {str(path)!r}")
    found = []
    for file in files:
        answer = signature(image_bytes=tf.constant([pathlib.Path(file).read_bytes()]))
        if not answer["valid"][0]:
            raise ValueError(f"an image must be a readable file. Received: {str(file)!r}")
        found.append(read_mask(answer["masks"].numpy()[0]))
    return found
