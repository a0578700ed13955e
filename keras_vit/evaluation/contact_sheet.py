"""A contact sheet: many images with their titles in one figure."""

import math

import numpy as np

from keras_vit.evaluation.figures import new_figure

_WIDTH = 2.0  # of an image, in inches
_LINE = 0.22  # of a title's line


def contact_sheet(images, titles=None, columns=None, title=""):
    """Draws images beside each other, each with its title, in their own proportions.

    Args:
        images: sequence of uint8 arrays `(height, width, channels)` of 1 or 3 channels.
        titles: sequence of str, one an image, or `None`.
        columns: int, or `None`: about as many as rows.
        title: str. Above all of them. Default empty.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ValueError: if there are no images, or not a title for each.
        ImportError: without matplotlib.
    """
    images = [np.asarray(image) for image in images]
    titles = [""] * len(images) if titles is None else [*titles]
    if not images or len(titles) != len(images):
        raise ValueError(
            f"a contact sheet needs images and a title for each. Received: {len(images)} images, {len(titles)} titles"
        )
    columns = min(columns or math.ceil(len(images) ** 0.5), len(images))
    rows = math.ceil(len(images) / columns)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    height = _WIDTH * tallest + _LINE * (1 + max(text.count("\n") for text in titles))
    figure = new_figure(figsize=(columns * _WIDTH * 1.05, rows * height + (0.4 if title else 0)))
    cells = figure.subplots(rows, columns, squeeze=False).flat
    for axes in cells:
        axes.set_axis_off()
    for axes, image, text in zip(figure.axes, images, titles, strict=False):
        gray = image.shape[-1] == 1
        axes.imshow(image[..., 0] if gray else image, **({"cmap": "gray", "vmin": 0, "vmax": 255} if gray else {}))
        axes.set_title(text, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
