"""Ways to serve one model: what each does with a batch of photographs. Imported by a worker only, after its packages.

Those that take bytes decode, resize and normalize them; KerasHub's export, ONNX Runtime and OpenVINO in Python, with
Pillow, as their users do. Those that take floats get images that are ready.
"""

import io
import os
import pathlib
import statistics

import numpy as np
from worker import timed


def write(name, files):
    """Random weights of a model in the format of every contender; the number of weights, and bytes by file."""
    import keras

    import keras_vit
    from keras_vit import export

    keras.utils.set_random_seed(0)
    model = keras_vit.create_model(name)
    head = model.get_layer("head")
    head.kernel.assign(keras.random.normal(head.kernel.shape, stddev=0.05, seed=0))  # zeros would give equal scores
    model.save(files["keras"])
    export.saved_model(model, pathlib.Path(files["saved_model"]).parent, version=1)
    notes = {}
    for kind, writer in (("onnx", export.onnx_model), ("openvino", export.openvino_model)):
        try:
            writer(model, files[kind])
        except ImportError as error:
            notes[kind] = str(error)
    spec = keras_vit.metadata(model).input_spec.get_config()
    return {"parameters": model.count_params(), "input_spec": spec, "notes": notes}


def write_kerashub(name, files):
    """The same architecture of KerasHub, as its `model.export` writes it."""
    from keras_contenders import kerashub_model

    from keras_vit.models import VARIANTS

    kerashub_model(VARIANTS[name].get_config()).export(files["kerashub"], verbose=False)
    return {}


def sizes(files):
    """Bytes by format, of the files that are there."""
    found = {}
    for kind, name in files.items():
        path = pathlib.Path(name)
        parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        parts = [part for place in parts for part in (place.rglob("*") if place.is_dir() else [place])]
        if total := sum(part.stat().st_size for part in parts if part.is_file()):
            found[kind] = total
    return found


def photographs(folder, count):
    """The bytes of `count` JPEGs of a folder, of which each comes again where it has fewer."""
    paths = sorted(path for path in pathlib.Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    return [paths[i % len(paths)].read_bytes() for i in range(count)]


def _inputs(task):
    """A function from a batch size to what a contender is called with: bytes, or images that are ready."""
    from keras_vit.preprocessing import InputSpec

    spec = InputSpec(**task.config["input_spec"])
    data = photographs(task.config["folder"], task.batch)

    def prepared(batch):
        return np.stack([spec.load(io.BytesIO(item)) for item in data[:batch]])

    if task.config["kind"] == "floats":
        ready = prepared(task.batch)
        return lambda batch: ready[:batch]
    return prepared


def _threads():
    """The threads that were asked for, or `None`."""
    return int(os.environ["TF_NUM_INTRAOP_THREADS"]) if "TF_NUM_INTRAOP_THREADS" in os.environ else None


def saved_model(task):
    """The signatures of keras_vit's SavedModel, as a server calls them."""
    import tensorflow as tf

    signatures = tf.saved_model.load(task.config["files"]["saved_model"]).signatures
    if task.config["kind"] == "bytes":
        serve, data = signatures["serving_default"], photographs(task.config["folder"], task.batch)
        return lambda batch=1: serve(image_bytes=tf.constant(data[:batch]))["scores"].numpy(), task.config["parameters"]
    serve, images = signatures["images"], _inputs(task)
    return lambda batch=1: serve(images=tf.constant(images(batch)))["logits"].numpy(), task.config["parameters"]


def kerashub(task):
    """A SavedModel written by KerasHub's `model.export`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(task.config["files"]["kerashub"])
    serve, images = loaded.signatures["serving_default"], _inputs(task)
    (name,) = serve.structured_input_signature[1]
    (output,) = serve.structured_outputs
    return lambda batch=1: serve(**{name: tf.constant(images(batch))})[output].numpy(), task.config["parameters"]


def onnx(task):
    """The ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _threads() or 0
    path = task.config["files"]["onnx"]
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = _inputs(task)
    return lambda batch=1: session.run(["logits"], {"images": images(batch)})[0], task.config["parameters"]


def openvino(task, precision):
    """OpenVINO's file; `precision` is what it computes in, `f32`, or `None` for its own choice."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    if _threads():
        options["INFERENCE_NUM_THREADS"] = _threads()
    compiled = openvino.Core().compile_model(task.config["files"]["openvino"], "CPU", options)
    images = _inputs(task)
    return lambda batch=1: compiled(images(batch))["logits"], task.config["parameters"]


def direct(task, how):
    """The Keras model itself: `call`ed, or by `predict_on_batch`, which compiles it."""
    import keras

    import keras_vit  # noqa: F401, registers its layers

    model, images = keras.models.load_model(task.config["files"]["keras"]), _inputs(task)
    if how == "call":
        return lambda batch=1: model(images(batch), training=False).numpy(), model.count_params()
    return lambda batch=1: model.predict_on_batch(images(batch)), model.count_params()


def stages(files, folder, input_spec, batch, calls):
    """Milliseconds of an answer to bytes and of its parts: medians of calls in turns.

    Returns:
        A dict: `total`, the signature `serving_default`; `preparing`, the part of its graph that decodes, resizes and
        normalizes; `model`, the Keras model as a function of images that are normalized; `decoding`, the bare decoding
        of the same JPEGs on all cores, below which no preparing gets.
    """
    import keras
    import tensorflow as tf

    from keras_vit.image_ops.decode import decode_images
    from keras_vit.image_ops.resize import normalize
    from keras_vit.preprocessing import InputSpec

    spec, data = InputSpec(**input_spec), tf.constant(photographs(folder, batch))
    serve = tf.saved_model.load(files["saved_model"]).signatures["serving_default"]
    model = keras.models.load_model(files["keras"])

    @tf.function
    def prepared(data):
        return normalize(decode_images(data, spec)[0], spec)

    @tf.function(autograph=False)
    def decoded(data):
        def last_pixel(item):
            return tf.io.decode_jpeg(item, channels=3, dct_method="INTEGER_ACCURATE")[-1, -1, -1]

        return tf.map_fn(last_pixel, data, fn_output_signature=tf.uint8, parallel_iterations=batch)

    ready, answer = tf.constant(prepared(data)), tf.function(lambda images: model(images, training=False))
    parts = {
        "total": lambda: serve(image_bytes=data)["scores"].numpy(),
        "preparing": lambda: prepared(data).numpy(),
        "model": lambda: answer(ready).numpy(),
        "decoding": lambda: decoded(data).numpy(),
    }
    seconds = {name: [] for name in parts}
    for call in range(calls + 2):
        for name, part in parts.items():
            if call < 2:
                part()
            else:
                seconds[name].append(timed(part))
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def cold_start(files, folder, batch, warm):
    """Milliseconds that a fresh process needs to load a model and to answer for the first and the second time."""
    import tensorflow as tf

    data, loaded = tf.constant(photographs(folder, batch)), []
    result = {"load": timed(lambda: loaded.append(tf.saved_model.load(files["saved_model"])))}
    signatures = loaded[0].signatures
    if warm:
        result["warm_up"] = timed(lambda: _replay(files["saved_model"], signatures))
    for name in ("first", "second"):
        result[name] = timed(lambda: signatures["serving_default"](image_bytes=data)["scores"].numpy())
    return {name: 1000 * seconds for name, seconds in result.items()}


def _replay(path, signatures):
    """Runs the warm-up records of a SavedModel in the model that is loaded, as a server does."""
    import tensorflow as tf

    from keras_vit.export.server.warmup import read_warmup

    for log in read_warmup(path):
        request = getattr(log, log.WhichOneof("log_type")).request
        if log.HasField("classify_log"):
            examples = [example.SerializeToString() for example in request.input.example_list.examples]
            inputs = {"inputs": tf.constant(examples)}
        else:
            inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)
