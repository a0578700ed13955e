"""`keras_vit export`: a SavedModel, or a file for another runtime."""

import pathlib

from keras_vit.cli.console import say, warn
from keras_vit.cli.runtimes import export_format, export_runtime, given_options, read_labels
from keras_vit.export import read_description, saved_model, write_server_files
from keras_vit.export.servable.options import BATCH_SIZES, check_batch_sizes
from keras_vit.export.server.files import BATCHING_CONFIG, allowed_batch_sizes, check_model_name
from keras_vit.zoo.create import load_model


def export(options):
    """Exports a model as a SavedModel and prints its quantization error; or as a file for another runtime."""
    file_format = export_format(options.model, options.to, options.format)
    if file_format != "saved_model":
        say(export_runtime(options, file_format))
        return
    if options.quantize or options.images:
        raise ValueError(
            "--quantize and --images apply to LiteRT, --to NAME.tflite; for a SavedModel use --weights int8. "
            f"Received: --to {options.to}"
        )
    # Check the arguments of the server files before a version is written.
    check_model_name(pathlib.Path(options.to).resolve().name)
    given = given_options(options) | {"batch_sizes": _batch_sizes(options)}
    path = saved_model(load_model(options.model), options.to, read_labels(options.labels), **given)
    size = sum(file.stat().st_size for file in (path / "variables").iterdir())
    say(f"exported: {path}, {size / 1e6:.1f} MB of weights")
    description = read_description(path)
    top_k = description["options"]["top_k"]
    if options.top_k is not None and top_k < options.top_k:
        warn(f"the model has only {top_k} classes, all of which are in an answer. Received: --top-k {options.top_k}")
    if files := write_server_files(options.to, batch_sizes=given["batch_sizes"]):
        say("for a server: " + ", ".join(str(file) for file in files))
    if description["front"]:
        say(description["front"])
    if error := description["difference"]:
        say("vs. the float32 model: " + _error_text(error, options.compare))


def _batch_sizes(options):
    """Returns `--batch-sizes`, else those of `batching.config` in the folder, else the defaults."""
    allowed = allowed_batch_sizes(options.to)
    sizes = check_batch_sizes(options.batch_sizes or allowed or BATCH_SIZES)
    if allowed not in (None, sizes):
        raise ValueError(
            f"--batch-sizes must be the allowed_batch_sizes of {BATCHING_CONFIG} in the folder; edit that file or "
            f"leave the option out. Received: {' '.join(map(str, sizes))} for {' '.join(map(str, allowed))}"
        )
    return sizes


def _error_text(error, compare):
    """Describes a quantization error in one line."""
    images = f"{error['images']} {'images' if compare else 'synthetic images'}"
    text = f"outputs for {images} differ by at most {error['outputs_max']:.1e} of the largest one"
    if "top1_agreement" in error:
        text += f", probabilities by {error['probabilities_max']:.1e}"
        text += f"; the best class is the same for {error['top1_agreement']:.1%}"
    return text
