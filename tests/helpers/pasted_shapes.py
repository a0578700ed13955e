"""A small data set for segmentation: photographs with shapes pasted on them.

    python tests/helpers/pasted_shapes.py PHOTOGRAPHS FOLDER

Every image has one to three circles, squares or triangles, filled with another photograph, so that only their
outline and the break in the scene tell them from the background. Their borders, 2 pixels wide, are ignored, as in
Pascal VOC.
"""

import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("background", "circle", "square", "triangle")
SIZE = 320  # pixels, the shorter side of an image
IGNORED = 255


def make_data_set(photographs, folder, counts=None, size=SIZE, seed=0):
    """Writes `<folder>/{train,validation,test}/{images,masks}` and `classes.txt`.

    Args:
        photographs: list of paths, which are divided among the splits, so that none is in two.
        folder: path.
        counts: dict from a split to its number of images. Default 240, 40 and 80.
        size: int. Shorter side of the images.
        seed: int.
    """
    counts = counts or {"train": 240, "validation": 40, "test": 80}
    random, photographs = np.random.default_rng(seed), sorted(photographs)
    random.shuffle(photographs)
    total, folder, start = sum(counts.values()), pathlib.Path(folder), 0
    for split, count in counts.items():
        stop = len(photographs) if split == [*counts][-1] else start + max(len(photographs) * count // total, 2)
        part, start = photographs[start:stop], stop
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = paste_shapes(part, random, size)
            image.save(folder / split / "images" / f"{number:04}.jpg", quality=92)
            mask.save(folder / split / "masks" / f"{number:04}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def paste_shapes(photographs, random, size=SIZE):
    """Makes one image and its palette mask, `PIL.Image`s."""
    width = int(size * random.uniform(1, 1.5))
    chosen = random.choice(len(photographs), 2, replace=False)
    background, filling = (_cropped(photographs[i], random, (width, size)) for i in chosen)
    mask = Image.new("P", background.size, 0)
    mask.putpalette([0, 0, 0, 230, 60, 60, 60, 180, 60, 60, 90, 230] + [0] * 756)
    border = Image.new("L", background.size, 0)
    for _ in range(random.integers(1, 4)):
        label = int(random.integers(1, len(CLASSES)))
        shape = Image.new("L", background.size, 0)
        _draw(ImageDraw.Draw(shape), label, random, background.size)
        background.paste(filling, (0, 0), shape)
        mask.paste(label, (0, 0), shape)
        edge = np.asarray(shape.filter(ImageFilter.MaxFilter(3))) != np.asarray(shape.filter(ImageFilter.MinFilter(3)))
        kept = np.where(np.asarray(shape) > 0, 0, np.asarray(border))
        border = Image.fromarray(np.where(edge, 255, kept).astype("uint8"))
    mask.paste(IGNORED, (0, 0), border)
    return background, mask


def _cropped(path, random, size):
    """A part of a photograph of a size `(width, height)`."""
    width, height = size
    with Image.open(path) as image:
        image = image.convert("RGB")
    scale = max(width / image.width, height / image.height)
    image = image.resize((max(round(image.width * scale), width), max(round(image.height * scale), height)))
    left, top = random.integers(image.width - width + 1), random.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def _draw(draw, label, random, size):
    radius = min(size) * random.uniform(0.12, 0.3)
    x, y = (random.uniform(radius, side - radius) for side in size)
    if label == 1:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return
    draw.regular_polygon((x, y, radius), 4 if label == 2 else 3, rotation=int(random.integers(360)), fill=255)


if __name__ == "__main__":
    found = [path for path in pathlib.Path(sys.argv[1]).iterdir() if path.suffix.lower() in (".jpg", ".jpeg")]
    make_data_set(found, sys.argv[2])
