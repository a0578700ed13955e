"""Models as files of OpenVINO's intermediate representation."""

import contextlib
import json
import sys

from keras_vit.export.runtimes.base import RuntimeFile, beside, check_suffix, difference, put, require, source


def openvino_model(model, path, labels=None):
    """Writes a model for OpenVINO: a `.xml` file and its weights beside it as `.bin`.

    Input `images`, float32 `(batch, h, w, channels)`, normalized as the file's `rt_info` says under `keras_vit`; output
    `logits`, float32 `(batch, num_classes)`; `probabilities` where the model ends in a softmax or sigmoid,
    `representation` without a classifier. The batch may be of any size. The weights stay float32; on CPUs with
    bfloat16 OpenVINO nevertheless computes in it unless `INFERENCE_PRECISION_HINT` is `f32`, as here, where the file is
    tried. An older file is replaced; at no time does a `.xml` lie beside the weights of another.

    Args:
        model: a model of keras_vit.
        path: where; `.xml`.
        labels: class names; `None` for the model's own.

    Returns:
        A `RuntimeFile`.

    Raises:
        ImportError: without openvino, the extra `openvino`.
        ValueError: if OpenVINO cannot read the model, with the reason.
    """
    path = check_suffix(path, ".xml")
    with without_telemetry():
        require("openvino", "openvino", "writing for OpenVINO")
    prepared = source(model, labels)
    with beside(path) as folder:
        written = folder / path.name
        _convert(prepared, folder / "saved_model", written)
        runtime, found = _try(written, prepared)
        path.unlink(missing_ok=True)
        put(written.with_suffix(".bin"), path.with_suffix(".bin"))
        put(written, path)
    return RuntimeFile(path, runtime, found)


@contextlib.contextmanager
def without_telemetry():
    """Returns a context in which OpenVINO is imported without its telemetry package."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules.setdefault(name, None)  # what Python takes for a package that is not installed
    try:
        yield
    finally:
        if before is None:
            sys.modules.pop(name, None)


def _convert(prepared, folder, written):
    """Writes both files, through `read_model`, because `openvino.convert_model` sends telemetry."""
    import openvino

    prepared.save(folder)
    try:
        converted = openvino.Core().read_model(str(folder))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(line for line in lines if not line.startswith(("Exception from", "Check ")))
        raise ValueError(
            f"OpenVINO must have every operation of a model. Received: {prepared.model.name!r}; {reason}"
        ) from error
    for key, value in prepared.description().items():
        if value is not None:
            converted.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["keras_vit", key])
    openvino.save_model(converted, str(written), compress_to_fp16=False)


def _try(path, prepared):
    """Verifies a file with OpenVINO: its name and the difference to Keras."""
    import openvino

    def load():
        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda images: compiled(images)[prepared.output]

    return f"openvino {openvino.__version__.split('-')[0]}", difference(prepared, load)
