"""Label sets of ImageNet's test sets: the 200 classes of ImageNet-A and of ImageNet-R, the labels of ReaL.

The lists of classes are those of the authors' own evaluation programs, as WordNet ids: `hendrycks/natural-adv-examples`
and `hendrycks/imagenet-r`.
"""

import functools
import importlib.resources
import json
import pathlib
import re

from keras_vit.weights.hub.catalog import imagenet_ids

SUBSETS = ("imagenet_a", "imagenet_r")
_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_REAL_IMAGES = 50_000


@functools.cache
def subset_ids(name):
    """Reads the WordNet ids of a test set with a part of ImageNet's classes, sorted.

    Args:
        name: `imagenet_a` (Hendrycks et al., arXiv:1907.07174) or `imagenet_r` (arXiv:2006.16241).

    Returns:
        A tuple of 200 str.
    """
    file = importlib.resources.files("keras_vit.evaluation").joinpath(f"label_sets/{name}.txt")
    return tuple(file.read_text("utf-8").split())


def subset_classes(name):
    """Returns the classes of `subset_ids` as numbers among ImageNet's 1,000, a list of int."""
    numbers = {wordnet_id: number for number, wordnet_id in enumerate(imagenet_ids())}
    return [numbers[wordnet_id] for wordnet_id in subset_ids(name)]


def find_subset(ids):
    """Returns the name of the test set that has exactly these WordNet ids, or `None`."""
    return next((name for name in SUBSETS if set(ids) == set(subset_ids(name))), None)


def read_real(file, images):
    """Reads the ReaL labels (Beyer et al., arXiv:2006.07159) of images of ImageNet's validation set.

    Args:
        file: path of `real.json` of `google-research/reassessed-imagenet`: a list of 50,000 lists of class numbers, in
            the order of the file names.
        images: paths of images named `ILSVRC2012_val_<8 digits>`, as ImageNet has them.

    Returns:
        A list with, for each image, a list of int, which may be empty.

    Raises:
        ValueError: if the file is none of these, or an image is called otherwise.
    """
    try:
        sets = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the labels of ReaL must be a readable real.json. Received: {str(file)!r} ({error})"
        ) from error
    classes = len(imagenet_ids())
    valid = isinstance(sets, list) and all(
        isinstance(row, list) and all(isinstance(i, int) and 0 <= i < classes for i in row) for row in sets
    )
    if not valid or len(sets) != _REAL_IMAGES:
        found = f"a list of {len(sets)}" if isinstance(sets, list) else f"a {type(sets).__name__}"
        raise ValueError(
            f"the labels of ReaL must be {_REAL_IMAGES} lists of numbers in 0..{classes - 1}. "
            f"Received: {str(file)!r}, {found}"
        )
    found = [(_IMAGE.match(pathlib.Path(image).stem), image) for image in images]
    for match, image in found:
        if match is None or not 1 <= int(match[1]) <= len(sets):
            raise ValueError(
                "images of ReaL must have the names of ImageNet's validation set, ILSVRC2012_val_00000001.JPEG and so "
                f"on. Received: {pathlib.Path(image).name!r}"
            )
    return [sets[int(match[1]) - 1] for match, _ in found]
