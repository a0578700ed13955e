"""Models as LiteRT (TensorFlow Lite) files."""

import json
import re
import zipfile

import tensorflow as tf

from keras_vit.export.runtimes import INPUT, RuntimeFile, beside, check_suffix, difference, put, source

_MOST_BYTES = 2**31 - 2**24  # a FlatBuffer addresses 2 GB
DESCRIPTION = "keras_vit.json"
LABELS = "labels.txt"


def litert_model(model, path, labels=None):
    """Writes a model as a LiteRT file, of LiteRT's own operations alone.

    Its signature `serving_default` takes `images`, float32 `(batch, h, w, channels)`, normalised, and gives `logits`,
    float32 `(batch, num_classes)`; `probabilities` where the model ends in a softmax or sigmoid, `representation`
    without a classifier. The batch may be of any size, which makes the interpreter resize its input. As with
    TensorFlow Lite's associated files, a zip archive at the end of the file holds `keras_vit.json`, how images are
    prepared, and `labels.txt`; interpreters pass over it. The file is tried in `ai-edge-litert` where that is
    installed, and appears whole or not at all; an older one is replaced.

    Args:
        model: a model of keras_vit.
        path: where; `.tflite`.
        labels: class names; `None` for the model's own.

    Returns:
        A `RuntimeFile`.

    Raises:
        ValueError: if LiteRT lacks an operation of the model, or the model cannot be written for another reason.
    """
    path = check_suffix(path, ".tflite")
    prepared = source(model, labels, _MOST_BYTES)
    with beside(path) as folder:
        written = folder / path.name
        written.write_bytes(_convert(prepared, folder / "saved_model"))
        _describe(written, prepared)
        runtime, found = _try(written, prepared)
        put(written, path)
    return RuntimeFile(path, runtime, found)


def _convert(prepared, folder):
    """The bytes of a model. From a SavedModel: from a function the variables would stay without values, so NaN."""
    from tensorflow.lite.python.convert import ConverterError

    prepared.save(folder)
    try:
        return tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
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


def _try(path, prepared):
    """What LiteRT, if it is there, makes of a file: its name and the difference to Keras."""
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None, None

    def load():
        # It resizes its input to the batch of every call.
        run = Interpreter(model_path=str(path)).get_signature_runner()
        return lambda images: run(**{INPUT: images})[prepared.output]

    return f"ai-edge-litert {ai_edge_litert.__version__}", difference(prepared, load)
