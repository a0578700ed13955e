"""Models as LiteRT (TensorFlow Lite) files."""

import json
import re
import zipfile

import numpy as np
import tensorflow as tf

from keras_vit.export.runtimes.base import INPUT, RuntimeFile, beside, check_suffix, difference, put, source
from keras_vit.validation import check_choice

_MAX_BYTES = 2**31 - 2**24  # A FlatBuffer addresses 2 GB.
DESCRIPTION = "keras_vit.json"
LABELS = "labels.txt"


def litert_model(model, path, labels=None, *, quantize=None, images=None):
    """Writes a model as a LiteRT file, with LiteRT's built-in operations only.

    Its signature `serving_default` takes `images`, float32 `(batch, h, w, channels)`, normalized, and gives `logits`,
    float32 `(batch, num_classes)`; `probabilities` where the model ends in a softmax or sigmoid, `representation`
    without a classifier. The batch may be of any size, which makes the interpreter resize its input. As with
    TensorFlow Lite's associated files, a zip archive at the end of the file holds `keras_vit.json`, how images are
    prepared, and `labels.txt`; interpreters pass over it. The file is tried in `ai-edge-litert` where that is
    installed, and appears whole or not at all; an older one is replaced.

    Args:
        model: a model of keras_vit.
        path: where; `.tflite`.
        labels: class names; `None` for the model's own.
        quantize: `None`, or `int8`: weights and activations are int8, with ranges that are calibrated on `images`.
            Input and output stay float32. `RuntimeFile.quantization` then says how the outputs differ from Keras' on
            the same images; no limit is set on it.
        images: with `quantize`, sequence of at least one image file or uint8 array `(h, w, channels)`, as
            `InputSpec.load` takes them: 100 or more like those that the model will see.

    Returns:
        A `RuntimeFile`.

    Raises:
        ValueError: if `quantize` comes without images, or images without it; if LiteRT lacks an operation of the
            model, or the model cannot be written for another reason.
    """
    path = check_suffix(path, ".tflite")
    check_choice(quantize, (None, "int8"), "quantize")
    count = None if images is None else len(images)
    if (quantize is None) != (images is None) or count == 0:
        raise ValueError(
            f"quantize='int8' needs images to calibrate with, and images need it. Received: {quantize=!r}, "
            f"{count or 'no'} images"
        )
    prepared = source(model, labels, _MAX_BYTES)
    pixels = None if images is None else np.stack([prepared.input_spec.load(image) for image in images])
    with beside(path) as folder:
        written = folder / path.name
        written.write_bytes(_convert(prepared, folder / "saved_model", pixels))
        _describe(written, prepared)
        runtime, found, quantization = _try(written, prepared, pixels)
        put(written, path)
    return RuntimeFile(path, runtime, found, quantization)


def _convert(prepared, folder, images):
    """Converts a model to bytes, through a SavedModel: from a function, variables would have no values."""
    from tensorflow.lite.python.convert import ConverterError

    prepared.save(folder)
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        if images is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({INPUT: image[None]} for image in images)
        return converter.convert()
    except ConverterError as error:
        found = re.search(r"(?:Select|Custom) ops: (.+)", str(error))
        reason = f"it has no {found.group(1)}" if found else str(error).strip().splitlines()[0]
        raise ValueError(
            f"LiteRT must have every operation of a model. Received: {prepared.model.name!r}; {reason}"
        ) from error


def _describe(path, prepared):
    """Appends the description to the file."""
    description = prepared.description()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(DESCRIPTION, json.dumps(description, indent=1, ensure_ascii=False))
        if prepared.labels is not None:
            archive.writestr(LABELS, "\n".join(prepared.labels) + "\n")


def _try(path, prepared, images):
    """Verifies a file with LiteRT, if it is installed: its name and the difference to Keras, for int8 on `images`."""
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None, None, None

    def load():
        # It resizes its input to the batch of every call.
        run = Interpreter(model_path=str(path)).get_signature_runner()
        return lambda images: run(**{INPUT: images})[prepared.output]

    runtime = f"ai-edge-litert {ai_edge_litert.__version__}"
    if images is None:
        return runtime, difference(prepared, load), None
    expected = prepared.model.predict(images, batch_size=8, verbose=0)
    run = load()
    outputs = np.concatenate([run(image[None]) for image in images])
    relative = np.abs(outputs - expected) / max(float(np.abs(expected).max()), 1e-12)
    quantization = {
        "images": len(images),
        "outputs_max": float(relative.max()),
        "outputs_mean": float(relative.mean()),
    }
    if prepared.output in ("logits", "probabilities"):
        quantization["top1_agreement"] = float(np.mean(outputs.argmax(1) == expected.argmax(1)))
    return runtime, None, quantization
