"""Images of noise, for trying a recipe whose data set is not there."""

import io

import numpy as np
from PIL import Image

from keras_vit.data.sources.encoded import EncodedFiles, Opened

NAME = "invented"
_COUNT, _SIZE = 64, (160, 200)  # images of a split; height and width in pixels


def open_invented(config):
    """JPEGs of noise with random labels, the same in every run.

    Args:
        config: `DataConfig`; `num_classes` and `multi_label` count.

    Returns:
        An `Opened`, whose every split is the same.

    Raises:
        ValueError: without `num_classes`.
    """
    if config.num_classes is None:
        raise ValueError("invented images need num_classes. Received: num_classes=None")
    random = np.random.default_rng(0)
    contents = [_jpeg(random.integers(256, size=(*_SIZE, 3), dtype="uint8")) for _ in range(_COUNT)]
    labels = random.integers(config.num_classes, size=_COUNT)
    if config.multi_label:
        labels = np.eye(config.num_classes, dtype="float32")[labels]
    files = EncodedFiles([f"invented {number}" for number in range(_COUNT)], labels, contents)
    names = tuple(str(number) for number in range(config.num_classes))
    return Opened(NAME, names, 3, lambda split: files)


def _jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()
