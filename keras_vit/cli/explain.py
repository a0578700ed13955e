"""`keras_vit explain`: pictures of what a model attends to, and of why it finds a class."""

import os
import pathlib

from keras_vit.cli.console import counted, say
from keras_vit.cli.predictor import best_classes, check_no_limit, prediction_limits
from keras_vit.data import UnreadableFile, read_images
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.image_ops.decode import DATA_LIMITS
from keras_vit.interpret import (
    grad_cam,
    integrated_gradients,
    pixel_heat_map,
    relevance,
    rollout_model,
    smooth_grad,
)
from keras_vit.interpret.class_scores import ClassScores
from keras_vit.interpret.plots import heat_map_figure
from keras_vit.interpret.taps import inner_images
from keras_vit.metadata import has_classifier, metadata
from keras_vit.zoo.create import is_saved_model, load_model
from keras_vit_client.image_files import find_images

# Methods that explain a class, from a model, normalized images and classes to heat maps.
CLASS_METHODS = {
    "relevance": relevance,
    "grad_cam": grad_cam,
    "integrated_gradients": lambda model, x, classes: pixel_heat_map(integrated_gradients(model, x, classes)),
    "smooth_grad": lambda model, x, classes: pixel_heat_map(smooth_grad(model, x, classes)),
}


def explain(options):
    """Draws one picture per image: the patches that the classifier attends to, or why it finds a class.

    Raises:
        ValueError: if the model has no such explanation; on an unknown class; if images cannot be read, naming all of
            them.
    """
    images = find_images(options.images)
    if options.class_name is not None and options.method == "rollout":
        raise ValueError(
            "rollout is the same for every class; explain a class with "
            f"--method {', '.join(CLASS_METHODS)}. Received: --class {options.class_name}"
        )
    is_saved = is_saved_model(options.model)
    if is_saved:
        check_no_limit(options.max_pixels)
        if options.method != "rollout":
            raise ValueError(
                "a SavedModel has rollout only; pass the Keras model that it was exported from as --model. "
                f"Received: --method {options.method}"
            )
        spec, explain_image = _of_saved_model(options.model)
    else:
        model = load_model(options.model)
        by_class = options.method != "rollout"
        spec, explain_image = _of_class(model, options.method, options.class_name) if by_class else _of_model(model)
    limits = DATA_LIMITS if is_saved else prediction_limits(options.max_pixels)
    pictures, failures = _picture_paths(images, pathlib.Path(options.to)), []
    with counted("images", len(images)) as advance:
        for image, picture, pixels in zip(images, pictures, read_images(images, spec, limits), strict=True):
            answer = pixels.reason if isinstance(pixels, UnreadableFile) else explain_image(image, pixels)
            if isinstance(answer, str):
                failures.append(f"\n  {image}: {answer}")
            else:
                heat_map, title = answer
                picture.parent.mkdir(parents=True, exist_ok=True)
                figure = heat_map_figure(pixels, {options.method.replace("_", " "): heat_map}, title)
                figure.savefig(picture, dpi=120)
                say(f"{image}: {title + ', ' if title else ''}{picture}")
            advance(1)
    if failures:
        raise ValueError(
            f"every image must be readable. Received: {len(failures)} of {len(images)} that are not{''.join(failures)}"
        )


def _of_model(model):
    """Returns `(InputSpec, function)` of a model; the function maps a path and pixels to `(heat map, title)`."""
    spec, maps = metadata(model).input_spec, rollout_model(model)

    def explain_image(image, pixels):
        answer = maps.predict_on_batch(spec.normalize(pixels)[None])
        title = _best(model, answer["outputs"]) if has_classifier(model) else ""
        return answer["heat_map"][0], title

    return spec, explain_image


def _of_class(model, method, name):
    """Returns the same as `_of_model` for a method that explains a class: by name or number, or the best one."""
    spec, scores = metadata(model).input_spec, ClassScores(model)
    chosen = None if name is None else int(name) if name.isdigit() and name not in scores.names else name
    if chosen is not None:
        scores.number(chosen)  # an unknown class is reported before any image is read

    def explain_image(image, pixels):
        x = spec.normalize(pixels)[None]
        inside = inner_images(scores.parts, x)
        (number,) = scores.numbers(chosen, inside)
        probability = scores.probabilities(inside)[0, number]
        return CLASS_METHODS[method](model, x, [int(number)])[0], f"{scores.names[number]} {probability:.3f}"

    return spec, explain_image


def _of_saved_model(path):
    """Returns the same as `_of_model` for a SavedModel; the function returns a str, the reason, for a bad image."""
    loaded = LoadedSavedModel(path)
    loaded.check_signature("explain", "have the signature `explain`, which Swin Transformers do not have")

    def explain_image(image, pixels):
        (answer,) = loaded.explain([image])
        return answer if isinstance(answer, str) else (answer["heat_map"], f"{answer['class']} {answer['score']:.3f}")

    return loaded.input_spec, explain_image


def _picture_paths(images, folder):
    """Returns a different path for each picture, keeping the folders below the images' common parent."""
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
    """Describes the best class of one image with its score, or the values of a regression."""
    (answer,) = best_classes(model, outputs, 1)
    return ", ".join(f"{name} {score:.3f}" for name, score in answer)
