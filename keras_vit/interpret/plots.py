"""Heat maps as pictures."""

import numpy as np

# Two windows of three inches each.
_SIZE = (6.4, 3.4)


def overlay(pixels, heat_map, path, title=""):
    """Draws an image, and beside it the same with its heat map over it.

    Args:
        pixels: uint8 array `(height, width, channels)`, what the model sees.
        heat_map: float array `(h, w)`, of the patches, row by row.
        path: of the PNG.
        title: str. Default empty.

    Returns:
        `path`.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures of heat maps need matplotlib: pip install 'keras-vit-zoo[plots] @ git+<this repository>'"
        ) from error
    picture = np.asarray(pixels)
    gray = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[-1] == 1 else {}
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    figure = Figure(figsize=_SIZE, layout="constrained")
    extent = (0, picture.shape[1], picture.shape[0], 0)
    for axes, is_covered in zip(figure.subplots(1, 2), (False, True), strict=True):
        axes.imshow(picture, extent=extent, **gray)
        if is_covered:
            axes.imshow(heat_map, extent=extent, cmap="inferno", alpha=0.6, interpolation="bilinear")
        axes.set_axis_off()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path
