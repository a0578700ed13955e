"""Explanations and views of models as matplotlib figures."""

import math

import numpy as np
from PIL import Image

_SIDE = 3.0  # of a panel, in inches
_TITLE = 0.35
# The heat at which the colors end: single extreme patches would hide the rest.
_HIGHEST = 99.5


def new_figure(**options):
    """Creates a matplotlib `Figure` that needs no display.

    Args:
        **options: of `matplotlib.figure.Figure`.

    Raises:
        ImportError: without matplotlib, with what installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: pip install 'keras-vit-zoo[plots] @ git+<this repository>'"
        ) from error
    return Figure(layout="constrained", **options)


def blend(pixels, heat_map, cmap="turbo", strength=0.65):
    """Lays a heat map over an image, the more opaque the hotter.

    Args:
        pixels: uint8 array `(height, width, channels)` of 1 or 3 channels.
        heat_map: float array `(h, w)`; its lowest value is transparent.
        cmap: name of a colormap of matplotlib. Default `turbo`.
        strength: float. Opacity of the hottest places. Default 0.65.

    Returns:
        float32 array `(height, width, 3)`, 0 to 1.
    """
    import matplotlib

    pixels = np.asarray(pixels)
    image = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels
    image = image.astype("float32") / 255
    heat = np.asarray(heat_map, "float32")
    low, high = heat.min(), np.percentile(heat, _HIGHEST)
    high = high if high > low else heat.max()
    heat = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
    heat = np.asarray(Image.fromarray(heat).resize(image.shape[1::-1], Image.Resampling.BICUBIC)).clip(0, 1)
    opacity = strength * np.sqrt(heat)[..., None]
    colors = matplotlib.colormaps[cmap](heat)[..., :3]
    return ((1 - opacity) * image + opacity * colors).astype("float32")


def heat_map_figure(pixels, heat_maps, title="", cmap="turbo"):
    """Draws an image, and beside it the same under each of its heat maps.

    Args:
        pixels: uint8 array `(height, width, channels)`, what the model sees.
        heat_maps: dict from titles to float arrays `(h, w)`, or one array.
        title: str. Above the figure. Default empty.
        cmap: name of a colormap of matplotlib. Default `turbo`.

    Returns:
        A matplotlib `Figure` with one panel more than heat maps.

    Raises:
        ImportError: without matplotlib.
    """
    maps = heat_maps if isinstance(heat_maps, dict) else {"": heat_maps}
    figure, panels = _panels(1 + len(maps), np.asarray(pixels).shape, title, columns=4, has_titles=any(maps))
    _show(panels[0], pixels)
    for axes, (name, heat_map) in zip(panels[1:], maps.items(), strict=True):
        axes.imshow(blend(pixels, heat_map, cmap))
        axes.set_title(name, fontsize=9)
    return figure


def attention_heads_figure(pixels, attention, grid_size, query=0, title=""):
    """Draws where each head of a block looks from one token.

    Args:
        pixels: uint8 array `(height, width, channels)`.
        attention: float array `(heads, tokens, tokens)` of one image and block, see `attention_maps`.
        grid_size: `(h, w)`. The patches are the last tokens.
        query: int. Number of the token that looks. Default 0, the class token.
        title: str. Default empty.

    Returns:
        A matplotlib `Figure` with a panel for the image and one for each head.

    Raises:
        ImportError: without matplotlib.
    """
    maps = np.asarray(attention)[:, query, -math.prod(grid_size) :].reshape(-1, *grid_size)
    return heat_map_figure(pixels, {f"head {i}": heat for i, heat in enumerate(maps)}, title)


def positions_figure(similarity, title="similarity of position embeddings"):
    """Draws for each patch the map of the similarities of its position to all others.

    Args:
        similarity: float array `(h, w, h, w)`, see `position_similarity`. Of more than 16 rows or columns, evenly
            spaced ones are drawn.
        title: str.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: without matplotlib.
    """
    height, width = similarity.shape[:2]
    rows, columns = (np.unique(np.linspace(0, side - 1, min(side, 16)).round().astype(int)) for side in (height, width))
    cell = min(0.55, 8 / max(len(rows), len(columns)))
    size = (
        max(len(columns) * cell * width / max(height, width) + 1.2, 3.5),
        len(rows) * cell * height / max(height, width) + 0.7,
    )
    figure = new_figure(figsize=size)
    panels = figure.subplots(len(rows), len(columns), squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axes = panels[i, j]
            image = axes.imshow(similarity[row, column], vmin=-1, vmax=1, cmap="viridis")
            axes.set(xticks=[], yticks=[])
            for edge in axes.spines.values():
                edge.set_visible(False)
            if i == len(rows) - 1:
                axes.set_xlabel(column, fontsize=7)
            if j == 0:
                axes.set_ylabel(row, fontsize=7)
    figure.colorbar(image, ax=panels, label="cosine similarity", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("column of the patch", fontsize=8)
    figure.supylabel("row of the patch", fontsize=8)
    return figure


def filters_figure(filters, title="principal components of the patch embedding"):
    """Draws filters as small color images, each with its own contrast.

    Args:
        filters: float array `(filters, height, width, channels)`, see `patch_filters`.
        title: str.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: without matplotlib.
    """
    filters = np.asarray(filters)
    columns = min(7, len(filters))
    rows = math.ceil(len(filters) / columns)
    figure = new_figure(figsize=(max(columns * 1.0, 3.5), rows * filters.shape[1] / filters.shape[2] + 0.5))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels:
        axes.set_axis_off()
    for axes, values in zip(figure.axes, filters, strict=False):
        picture = 0.5 + values / (2 * max(np.abs(values).max(), 1e-12))
        gray = picture.shape[-1] != 3
        axes.imshow(picture[..., 0] if gray else picture, cmap="gray", vmin=0, vmax=1)
    figure.suptitle(title, fontsize=10)
    return figure


def distance_figure(distances, title="mean attention distance"):
    """Draws the attention distance of each head over the depth of the network.

    Args:
        distances: list of float arrays `(batch, heads)`, one a block, see `attention_distance`.
        title: str.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: without matplotlib.
    """
    figure = new_figure(figsize=(6, 4))
    axes = figure.subplots()
    means = [np.asarray(block).mean(axis=0) for block in distances]
    for depth, heads in enumerate(means):
        axes.scatter([depth] * len(heads), heads, c=range(len(heads)), cmap="tab20", vmin=0, vmax=19, s=28, alpha=0.85)
    axes.plot(
        range(len(means)), [heads.mean() for heads in means], color="gray", linewidth=1, label="mean of the heads"
    )
    axes.set(xlabel="encoder block", ylabel="pixels", title=title, ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower right", frameon=False)
    return figure


def pca_figure(pixels, pca, title="principal components of the tokens"):
    """Draws images above the colors of their patches.

    Args:
        pixels: sequence of uint8 arrays `(height, width, channels)`, of one size.
        pca: `TokenPCA` of the same images.
        title: str.

    Returns:
        A matplotlib `Figure` with two rows.

    Raises:
        ImportError: without matplotlib.
    """
    aspect = pixels[0].shape[0] / pixels[0].shape[1]
    side = min(_SIDE, 14 / len(pixels))
    figure = new_figure(figsize=(max(side * len(pixels), 3.5), 2 * side * aspect + _TITLE))
    panels = figure.subplots(2, len(pixels), squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for above, below, image, colors in zip(*panels, pixels, pca.colors, strict=True):
        _show(above, image)
        height, width = image.shape[:2]
        below.imshow(colors, extent=(0, width, height, 0), interpolation="nearest")
    figure.suptitle(title, fontsize=10)
    return figure


def _panels(count, shape, title, columns, has_titles):
    """A figure with panels of the proportions of an image, without axes."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    height = _SIDE * shape[0] / shape[1] + (_TITLE if has_titles else 0)
    figure = new_figure(figsize=(columns * _SIDE, rows * height + (_TITLE if title else 0)))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=11)
    return figure, panels[:count]


def _show(axes, pixels):
    pixels = np.asarray(pixels)
    is_gray = pixels.shape[-1] == 1
    axes.imshow(pixels[..., 0] if is_gray else pixels, **({"cmap": "gray", "vmin": 0, "vmax": 255} if is_gray else {}))
