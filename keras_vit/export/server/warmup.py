"""Warm-up records of TF Serving: requests that a server replays before a version is available.

TensorFlow sets up much at the first request of each batch size; with the records that time is part of loading. A server
refuses a version whose record fails, and more than 1,000 records; it ignores a file of another name or place.
Source: `servables/tensorflow/saved_model_warmup_util.cc` of TF Serving.
"""

import contextlib
import importlib.util
import io
import pathlib

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from keras_vit.export.servable.description import warm_up_format
from keras_vit.export.servable.options import BATCH_SIZES, check_batch_sizes
from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, DEFAULT, SERVE_TAG, signature_defs
from keras_vit.validation import as_pair

WARMUP_FILE = pathlib.Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
# TF Serving's name for the input of serialized examples.
EXAMPLES_INPUT = "inputs"
_SIZE = 224
_FEATURE = "image_bytes"


def write_warmup(version_directory, model_name, batch_sizes=BATCH_SIZES, image_size=None, feature=_FEATURE):
    """Writes a record for every signature and batch size into a SavedModel.

    String inputs get a JPEG, or another format where the model takes none, an input `inputs` a serialized `tf.Example`
    with it, numbers get gray images.

    Args:
        version_directory: path of the folder with `saved_model.pb`.
        model_name: str, the model's name on the server.
        batch_sizes: increasing positive ints: those of the server's `allowed_batch_sizes`. Default `(1, 2, 4, 8)`.
        image_size: int or `(h, w)` of the images; `None` for what the signatures tell, else 224.
        feature: str, the feature of a `tf.Example` that holds the image. Default `image_bytes`.

    Returns:
        The number of records.

    Raises:
        ImportError: without the extra `serving`.
        ValueError: if there is no SavedModel, or there would be no record or more than 1,000.
    """
    log_type = _prediction_log()
    signatures, sizes = signature_defs(version_directory), check_batch_sizes(batch_sizes)
    count = len(signatures) * len(sizes)
    if not 1 <= count <= MAX_RECORDS:
        raise ValueError(
            f"there must be 1 to {MAX_RECORDS} warm-up records. "
            f"Received: {len(signatures)} signatures, {len(sizes)} batch sizes"
        )
    side = _image_size(signatures) if image_size is None else as_pair(image_size, "image_size")
    picture = _picture(side, warm_up_format(version_directory))
    logs = []
    for name, signature in signatures.items():
        for size in sizes:
            log = log_type()
            if signature.method_name == CLASSIFY_METHOD:
                request = log.classify_log.request
                request.input.example_list.examples.extend([image_example(picture, feature)] * size)
            else:
                request = log.predict_log.request
                for key, info in signature.inputs.items():
                    request.inputs[key].CopyFrom(_tensor(key, info, size, side, picture, feature))
            request.model_spec.name, request.model_spec.signature_name = model_name, name
            logs.append(log)
    file = pathlib.Path(version_directory) / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())
    return count


def read_warmup(version_directory):
    """Reads the warm-up records of a SavedModel.

    Args:
        version_directory: path of the folder with `saved_model.pb`.

    Returns:
        A list of `PredictionLog`.

    Raises:
        ImportError: without the extra `serving`.
        ValueError: if the file is missing or no TFRecord of 1 to 1,000 `PredictionLog` with a request.
    """
    log_type = _prediction_log()
    file = pathlib.Path(version_directory) / WARMUP_FILE
    logs = []
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            logs.append(log_type.FromString(record))
    except (tf.errors.OpError, DecodeError) as error:
        raise ValueError(
            "warm-up requests must be a TFRecord of PredictionLog. "
            f"Received: {str(file)!r}, record {len(logs)} ({error})"
        ) from error
    if not 1 <= len(logs) <= MAX_RECORDS:
        raise ValueError(f"there must be 1 to {MAX_RECORDS} warm-up records. Received: {len(logs)} in {str(file)!r}")
    for number, log in enumerate(logs):
        if log.WhichOneof("log_type") not in ("predict_log", "classify_log"):
            raise ValueError(
                "a warm-up record must be a Predict or Classify request. "
                f"Received: record {number} of {str(file)!r}, {log.WhichOneof('log_type')}"
            )
    return logs


def replay_warmup(version_directory):
    """Runs the warm-up records of a SavedModel in a session, as a server does before a version is available.

    Args:
        version_directory: path of the folder with `saved_model.pb`.

    Returns:
        A list with `(signature name, batch size)` of each record.

    Raises:
        ImportError: without the extra `serving`.
        ValueError: for a record that cannot be read or run; the message names it.
    """
    logs = read_warmup(version_directory)
    replayed = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        with _quiet():
            graph = tf.compat.v1.saved_model.load(session, [SERVE_TAG], str(version_directory))
        for number, log in enumerate(logs):
            request = getattr(log, log.WhichOneof("log_type")).request
            name = request.model_spec.signature_name or DEFAULT
            try:
                if name not in graph.signature_def:
                    raise ValueError("the SavedModel has no such signature")
                signature = graph.signature_def[name]
                size = (_classify if log.HasField("classify_log") else _predict)(session, signature, request)
            except (tf.errors.OpError, ValueError, TypeError) as error:
                raise ValueError(
                    f"a warm-up record must run. Received: record {number}, signature {name!r} ({error})"
                ) from error
            replayed.append((name, size))
    return replayed


@contextlib.contextmanager
def _quiet():
    """Returns a context without TensorFlow's deprecation warning for sessions, which servers use."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def _predict(session, signature, request):
    """Runs a `PredictRequest`; returns its batch size."""
    if set(request.inputs) != set(signature.inputs):
        raise ValueError(f"the inputs are {sorted(signature.inputs)}, not {sorted(request.inputs)}")
    arrays = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    outputs = request.output_filter or signature.outputs
    session.run(
        [signature.outputs[key].name for key in outputs],
        {signature.inputs[key].name: array for key, array in arrays.items()},
    )
    return len(next(iter(arrays.values())))


def _classify(session, signature, request):
    """Runs a `ClassificationRequest` and checks the answer as a server does; returns its batch size."""
    if signature.method_name != CLASSIFY_METHOD:
        raise ValueError(f"its method is {signature.method_name!r}, not {CLASSIFY_METHOD!r}")
    if set(signature.inputs) != {EXAMPLES_INPUT} or not set(signature.outputs) <= {"classes", "scores"}:
        raise ValueError(f"it maps {sorted(signature.inputs)} to {sorted(signature.outputs)}")
    examples = [example.SerializeToString() for example in request.input.example_list.examples]
    outputs = {key: info.name for key, info in signature.outputs.items()}
    for key, value in session.run(outputs, {signature.inputs[EXAMPLES_INPUT].name: examples}).items():
        if value.ndim != 2 or len(value) != len(examples):
            raise ValueError(f"{key} has the shape {value.shape} for {len(examples)} examples")
    return len(examples)


def _tensor(name, info, size, side, picture, feature):
    """Makes the `TensorProto` of an input: `size` images."""
    if info.dtype == tf.string.as_datatype_enum:
        item = image_example(picture, feature).SerializeToString() if name == EXAMPLES_INPUT else picture
        return tf.make_tensor_proto([item] * size, tf.string)
    dims = [dim.size for dim in info.tensor_shape.dim]
    unknown = [size, *side, 3] if len(dims) == 4 else [size] + [1] * (len(dims) - 1)
    shape = [size, *(other if dim < 0 else dim for dim, other in zip(dims[1:], unknown[1:], strict=True))]
    # One repeated value keeps the file small.
    value = np.full((), 100 if tf.as_dtype(info.dtype).is_integer else 0.5, tf.as_dtype(info.dtype).as_numpy_dtype)
    tensor = tf.make_tensor_proto(value)
    if tensor.tensor_content:
        raise ValueError(f"inputs of the type {tf.as_dtype(info.dtype).name} have no warm-up. Received: {name!r}")
    tensor.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return tensor


def image_example(data, feature=_FEATURE):
    """Makes a `tf.train.Example` with an encoded image."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={feature: value}))


def _image_size(signatures):
    """Returns the height and width of a signature's images, else 224."""
    for signature in signatures.values():
        for info in signature.inputs.values():
            dims = [dim.size for dim in info.tensor_shape.dim]
            if len(dims) == 4 and min(dims[1:3]) > 0:
                return tuple(dims[1:3])
    return _SIZE, _SIZE


def _picture(side, format):
    """Encodes an image of color gradients."""
    height, width = side
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(buffer, format, quality=90)
    return buffer.getvalue()


def has_protos():
    """Returns whether the extra `serving`, with the messages of TF Serving, is installed."""
    return importlib.util.find_spec("tensorflow_serving") is not None


def _prediction_log():
    try:
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    except ImportError as error:
        raise ImportError(
            "warm-up records need the package tensorflow-serving-api: "
            "pip install 'keras-vit-zoo[serving] @ git+<this repository>'. "
            f"Received: {error}"
        ) from error
    return PredictionLog
