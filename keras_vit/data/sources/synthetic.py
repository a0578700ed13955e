"""Synthetic images: noise with random labels, for smoke tests of recipes without their data set."""

import io

import numpy as np
from PIL import Image

from keras_vit.data.sources.encoded import EncodedDataset, EncodedFiles

NAME = "synthetic"
_COUNT, _SIZE = 64, (160, 200)  # images of a split; height and width in pixels


def open_synthetic(config):
    """Makes JPEGs of noise with random labels, the same in every run.

    Args:
        config: `DataConfig`; its `num_classes` and `multi_label` are used.

    Returns:
        An `EncodedDataset`, all splits of which are equal.

    Raises:
        ValueError: without `num_classes`.
    """
    if config.num_classes is None:
        raise ValueError("synthetic images need num_classes. Received: num_classes=None")
    random = np.random.default_rng(0)
    contents = [_jpeg(random.integers(256, size=(*_SIZE, 3), dtype="uint8")) for _ in range(_COUNT)]
    labels = random.integers(config.num_classes, size=_COUNT)
    if config.multi_label:
        labels = np.eye(config.num_classes, dtype="float32")[labels]
    files = EncodedFiles([f"synthetic {number}" for number in range(_COUNT)], labels, contents)
    names = tuple(str(number) for number in range(config.num_classes))
    return EncodedDataset(NAME, names, 3, lambda split: files)


def _jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()
