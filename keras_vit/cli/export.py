"""The commands that make something of a trained model: a SavedModel, pictures of what it looks at."""

import pathlib

from keras_vit.cli.console import say, warn
from keras_vit.cli.runtimes import export_format, export_runtime, read_labels
from keras_vit.export import read_description, saved_model, write_server_files
from keras_vit.export.server.files import BATCHING_CONFIG, allowed_batch_sizes, check_model_name
from keras_vit.export.server.warmup import BATCH_SIZES, check_batch_sizes
from keras_vit.zoo.create import load_model
from keras_vit_cli import defaults


def export(options):
    """Writes a model as a SavedModel, and tells what fewer bits cost; or as a file for another runtime."""
    file_format = export_format(options.model, options.to, options.format)
    if file_format != "saved_model":
        say(export_runtime(options, file_format))
        return
    if options.quantize or options.images:
        raise ValueError(
            f"--quantize and --images are for LiteRT, --to NAME.tflite; a SavedModel has --weights int8. "
            f"Received: --to {options.to}"
        )
    # All that the server's files may be refused for, before there is a version.
    check_model_name(pathlib.Path(options.to).resolve().name)
    batch_sizes = _batch_sizes(options)
    path = saved_model(
        load_model(options.model),
        options.to,
        read_labels(options.labels),
        top_k=options.top_k,
        version=options.number,
        dtype=options.dtype,
        weights=options.weights,
        activation=options.activation,
        max_pixels=options.max_pixels,
        upright=options.upright,
        compare=options.compare,
        formats=options.accept,
        batch_sizes=batch_sizes,
        license=options.license,
    )
    size = sum(file.stat().st_size for file in (path / "variables").iterdir())
    say(f"exported: {path}, {size / 1e6:.1f} MB of weights")
    description = read_description(path)
    if (top_k := description["options"]["top_k"]) < options.top_k != defaults("export")["top_k"]:
        warn(f"an answer has all {top_k} classes of the model. Received: --top-k {options.top_k}")
    if files := write_server_files(options.to, batch_sizes=batch_sizes):
        say("for a server: " + ", ".join(str(file) for file in files))
    if description["front"]:
        say(description["front"])
    if difference := description["difference"]:
        say("beside the model in float32: " + _costs(difference, options.compare))


def _batch_sizes(options):
    """Those that are given, or that the server with the files in the folder makes, or the usual ones."""
    allowed = allowed_batch_sizes(options.to)
    sizes = check_batch_sizes(options.batch_sizes or allowed or BATCH_SIZES)
    if allowed not in (None, sizes):
        raise ValueError(
            f"--batch-sizes must be the allowed_batch_sizes of {BATCHING_CONFIG} in the folder, where there is one. "
            f"Received: {' '.join(map(str, sizes))}, where it has {' '.join(map(str, allowed))}"
        )
    return sizes


def _costs(difference, compared):
    """A line of what `measure_difference` found."""
    of = f"{difference['images']} {'images' if compared else 'images of noise'}"
    text = f"outputs of {of} differ by {difference['outputs_max']:.1e} of the largest one at most"
    if "top1_agreement" in difference:
        text += f", probabilities by {difference['probabilities_max']:.1e}"
        text += f"; the best class is the same for {difference['top1_agreement']:.1%}"
    return text
