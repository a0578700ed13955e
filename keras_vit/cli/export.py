"""The commands that make something of a trained model: a SavedModel, pictures of what it looks at."""

import os
import pathlib

from keras_vit.cli.console import counted, say, warn
from keras_vit.cli.predictor import asked_limits, best_classes, check_no_limit
from keras_vit.cli.runtimes import export_format, export_runtime, read_labels
from keras_vit.data import UnreadableFile, read_images
from keras_vit.export import read_description, saved_model, write_server_files
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.server.files import BATCHING_CONFIG, allowed_batch_sizes, check_model_name
from keras_vit.export.server.warmup import BATCH_SIZES, check_batch_sizes
from keras_vit.image_ops.decode import DATA
from keras_vit.interpret import rollout_model
from keras_vit.interpret.plots import overlay
from keras_vit.metadata import has_classifier, metadata
from keras_vit.zoo.create import is_saved_model, load_model
from keras_vit_cli import defaults
from keras_vit_client.image_files import find_images


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


def explain(options):
    """Draws which patches are in what the classifier sees, one picture an image.

    Raises:
        ValueError: if the model has no such map; if images cannot be read, with all of their names.
    """
    images = find_images(options.images)
    saved = is_saved_model(options.model)
    if saved:
        check_no_limit(options.max_pixels)
    spec, explained = _of_saved_model(options.model) if saved else _of_model(load_model(options.model))
    limits = DATA if saved else asked_limits(options.max_pixels)
    pictures, failed = _picture_paths(images, pathlib.Path(options.to)), []
    with counted("images", len(images)) as advance:
        for image, picture, pixels in zip(images, pictures, read_images(images, spec, limits), strict=True):
            answer = pixels.reason if isinstance(pixels, UnreadableFile) else explained(image, pixels)
            if isinstance(answer, str):
                failed.append(f"\n  {image}: {answer}")
            else:
                heat_map, title = answer
                picture.parent.mkdir(parents=True, exist_ok=True)
                say(f"{image}: {title + ', ' if title else ''}{overlay(pixels, heat_map, picture, title)}")
            advance(1)
    if failed:
        raise ValueError(
            f"every image must be readable. Received: {len(failed)} of {len(images)} that are not{''.join(failed)}"
        )


def _of_model(model):
    """`(InputSpec, callable)` of a model: from a path and its pixels to `(heat map, title)`."""
    spec, maps = metadata(model).input_spec, rollout_model(model)

    def explained(image, pixels):
        answer = maps.predict_on_batch(spec.normalize(pixels)[None])
        title = _best(model, answer["outputs"]) if has_classifier(model) else ""
        return answer["heat_map"][0], title

    return spec, explained


def _of_saved_model(path):
    """As `_of_model`, by the signature `explain` of a SavedModel; a str where that finds an image bad."""
    loaded = LoadedSavedModel(path)
    loaded.check_signature("explain", "have the signature `explain`, which those of Swin Transformers have not")

    def explained(image, pixels):
        (answer,) = loaded.explain([image])
        return answer if isinstance(answer, str) else (answer["heat_map"], f"{answer['class']} {answer['score']:.3f}")

    return loaded.input_spec, explained


def _picture_paths(images, folder):
    """For each image the path of its picture: no two alike, with the folders below the one that all images are in."""
    parents = [image.resolve().parent for image in images]
    root = os.path.commonpath(parents)
    paths = []
    for image, parent in zip(images, parents, strict=True):
        path = folder / parent.relative_to(root) / f"{image.stem}_explained.png"
        if path in paths:
            path = path.with_name(f"{image.name}_explained.png")
        paths.append(path)
    return paths


def _best(model, outputs):
    """The name and score of the best class of one image, or the values of a regression."""
    (answer,) = best_classes(model, outputs, 1)
    return ", ".join(f"{name} {score:.3f}" for name, score in answer)
