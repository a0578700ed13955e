"""Models as ONNX files."""

import json
import logging

import keras
import numpy as np
import tensorflow as tf

from keras_vit.backend.export_mode import portable_graph
from keras_vit.export.runtimes.base import INPUT, RuntimeFile, beside, check_suffix, difference, put, require, source

OPSET = 18  # the newest that tf2onnx writes
_MAX_BYTES = 2**31 - 2**24  # A protobuf message holds less than 2 GB.


def onnx_model(model, path, labels=None):
    """Writes a model as an ONNX file.

    Input `images`, float32 `(batch, h, w, channels)`, normalized as the file's metadata says; output `logits`,
    float32 `(batch, num_classes)`; `probabilities` where the model ends in a softmax or sigmoid, `representation`
    without a classifier. The batch may be of any size. The file is checked by `onnx.checker` and, where it is
    installed, in ONNX Runtime, and appears whole or not at all; an older one is replaced.

    Args:
        model: a model of keras_vit.
        path: where; `.onnx`.
        labels: class names; `None` for the model's own.

    Returns:
        A `RuntimeFile`.

    Raises:
        ImportError: without tf2onnx, the extra `onnx`.
        ValueError: if the model cannot be written as valid ONNX, with the reason.
    """
    path = check_suffix(path, ".onnx")
    require("tf2onnx", "onnx", "writing ONNX")
    prepared = source(model, labels, _MAX_BYTES)
    proto = _convert(prepared)
    _describe(proto, prepared.description())
    import onnx

    with beside(path) as folder:
        written = folder / path.name
        onnx.save(proto, written)
        try:
            onnx.checker.check_model(str(written), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"a model must be valid as ONNX. Received: {model.name!r}; {reason}") from error
        runtime, found = _try(written, prepared)
        put(written, path)
    return RuntimeFile(path, runtime, found)


def _convert(prepared):
    """Converts a model to an `onnx.ModelProto`.

    tf2onnx gets a graph without weights, whose places are inputs: it copies a graph over and over, and would need fifty
    times the memory of the weights. They are put in afterwards, as initializers with their names in the model.
    """
    import tf2onnx

    model, weights = prepared.model, prepared.model.weights

    def call(images, *values):
        with portable_graph(), keras.StatelessScope(list(zip(weights, values, strict=True))):
            return {prepared.output: model(images, training=False)}

    places = [tf.TensorSpec(weight.shape, tf.float32, name=f"weight_{i}") for i, weight in enumerate(weights)]
    signature = [*prepared.signature, *places]
    function = tf.function(call, input_signature=signature, autograph=False)
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    # What it cannot convert it only logs; the check of the file tells it better.
    logger.setLevel(logging.CRITICAL)
    try:
        proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    finally:
        logger.setLevel(level)
    _divide_before_erf(proto.graph)
    _fill(proto.graph, {place.name: weight for place, weight in zip(places, weights, strict=True)})
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def _fill(graph, weights):
    """Converts graph inputs that stand for weights to initializers."""
    from onnx import numpy_helper

    for node in graph.node:
        node.input[:] = [weights[name].path if name in weights else name for name in node.input]
    inputs = list(graph.input)
    del graph.input[:]
    graph.input.extend(value for value in inputs if value.name not in weights)
    for value in inputs:
        if value.name in weights:
            weight = weights[value.name]
            graph.initializer.append(numpy_helper.from_array(keras.ops.convert_to_numpy(weight), weight.path))


def _divide_before_erf(graph):
    """Writes `erf(x * sqrt(1/2))` as `erf(x / sqrt(2))`, the only form that ONNX Runtime fuses into a GELU.

    TensorFlow's optimizer in tf2onnx would turn the quotient into a product.
    """
    from onnx import numpy_helper

    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    root, replaced = "keras_vit/sqrt_2", set()
    for node in graph.node:
        product = makers.get(node.input[0]) if node.op_type == "Erf" else None
        if product is None or product.op_type != "Mul":
            continue
        factors = [name for name in product.input if name in constants]
        if len(factors) == 1 and np.allclose(numpy_helper.to_array(constants[factors[0]]), 0.5**0.5, rtol=1e-6):
            (x,) = (name for name in product.input if name != factors[0])
            replaced.add(factors[0])
            product.op_type = "Div"
            product.input[:] = [x, root]
            if root not in {tensor.name for tensor in graph.initializer}:
                graph.initializer.append(numpy_helper.from_array(np.array(2**0.5, "float32"), root))
    # ONNX Runtime warns of each initializer that no node uses.
    for name in replaced.difference(*(node.input for node in graph.node)):
        graph.initializer.remove(constants[name])


def _describe(proto, description):
    """Stores the description in the metadata, every value as JSON except plain text."""
    proto.producer_name, proto.graph.name = "keras_vit", description["name"]
    for key, value in description.items():
        if value is not None:
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)


def _try(path, prepared):
    """Verifies a file with ONNX Runtime, if it is installed: its name and the difference to Keras."""
    try:
        import onnxruntime
    except ImportError:
        return None, None

    def load():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda images: session.run([prepared.output], {INPUT: images})[0]

    return f"onnxruntime {onnxruntime.__version__}", difference(prepared, load)
