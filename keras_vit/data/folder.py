"""Folders of class folders of images."""

import concurrent.futures
import dataclasses
import os
import pathlib
import warnings

import numpy as np

from keras_vit.data.readable import left_out, unreadable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True)
class Folder:
    """What `read_folder` found: `images`, `labels` and `class_names`."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple


def class_names(folder, split):
    """The names of the class folders of `folder/split`, sorted.

    Raises:
        ValueError: if there is no such folder, or no folders in it.
    """
    root = pathlib.Path(folder) / split
    folders = [p for p in root.iterdir() if p.is_dir()] if root.is_dir() else []
    names = tuple(sorted(p.name for p in folders if not p.name.startswith(".")))
    if not names:
        raise ValueError(
            "a folder of images must look like <folder>/<split>/<class>/<image>. "
            f"Received: folder={str(folder)!r}, split={split!r}, where there are no class folders"
        )
    return names


def list_images(folder, split):
    """`(paths, labels, class names)` of `folder/split`, sorted by class and file name."""
    names = class_names(folder, split)
    paths, labels = [], []
    for label, name in enumerate(names):
        files = sorted((pathlib.Path(folder) / split / name).iterdir())
        images = [file for file in files if file.suffix.lower() in EXTENSIONS]
        paths += images
        labels += [label] * len(images)
    return paths, labels, names


def read_folder(folder, split, input_spec, skip_unreadable=False):
    """Reads all images of `folder/split/<class>/*` into memory.

    Args:
        folder: path.
        split: str.
        input_spec: `InputSpec` that prepares the images.
        skip_unreadable: bool. Leave unreadable images out, with a warning that names them.

    Returns:
        A `Folder` with uint8 images `(examples, height, width, channels)` and int64 labels.

    Raises:
        ValueError: if the folder has another structure, or an image is unreadable; all of them are named.
    """
    paths, labels, names = list_images(folder, split)

    def read(path):
        try:
            return input_spec.resize(path)
        except ValueError as error:
            return error

    # Pillow lets go of the interpreter's lock while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(read, paths))
    bad = [str(path) for path, result in zip(paths, results, strict=True) if isinstance(result, ValueError)]
    if bad:
        if not skip_unreadable:
            raise unreadable(bad)
        warnings.warn(left_out(bad), stacklevel=2)
    kept = [(r, label) for r, label in zip(results, labels, strict=True) if not isinstance(r, ValueError)]
    images = np.array([image for image, _ in kept], "uint8").reshape(-1, *input_spec.size, input_spec.num_channels)
    return Folder(images, np.array([label for _, label in kept], "int64"), names)
