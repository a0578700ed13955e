"""`keras_vit inspect`: pictures of what a model has learned, whatever the class."""

import pathlib

import numpy as np

from keras_vit.cli.console import say
from keras_vit.cli.predictor import prediction_limits
from keras_vit.data import UnreadableFile, read_images
from keras_vit.interpret import attention_distance, patch_filters, plots, position_similarity, token_pca
from keras_vit.metadata import metadata
from keras_vit.zoo.create import load_model
from keras_vit_client.image_files import find_images

_WITH_IMAGES = ("distance", "pca")


def inspect(options):
    """Draws the positions, filters, attention distances or token components of a model as one picture.

    Raises:
        ValueError: if the model does not have what is asked for; without images where they are needed; if images
            cannot be read.
    """
    model, name = load_model(options.model), options.figure
    pixels = images = None
    if name in _WITH_IMAGES:
        if not options.image:
            raise ValueError(f"--figure {name} needs images: --image photo.jpg. Received: no --image")
        spec = metadata(model).input_spec
        files = find_images(options.image)
        pixels = list(read_images(files, spec, prediction_limits(None)))
        bad = [
            f"\n  {file}: {x.reason}" for file, x in zip(files, pixels, strict=True) if isinstance(x, UnreadableFile)
        ]
        if bad:
            raise ValueError(
                f"every image must be readable. Received: {len(bad)} of {len(files)} that are not{''.join(bad)}"
            )
        images = spec.normalize(np.stack(pixels))
    if name == "positions":
        figure = plots.positions_figure(position_similarity(model))
    elif name == "filters":
        figure = plots.filters_figure(patch_filters(model))
    elif name == "distance":
        figure = plots.distance_figure(attention_distance(model, images))
    else:
        figure = plots.pca_figure(pixels, token_pca(model, images))
    folder = pathlib.Path(options.to)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model.name}_{name}.png"
    figure.savefig(path, dpi=120)
    say(f"{options.model}: {path}")
