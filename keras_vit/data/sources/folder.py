"""Folders of images: where their splits and classes are, and which of their files are not used.

A folder looks like `<folder>/<class>/...` or `<folder>/<split>/<class>/...`. Images in subfolders of a class belong to
the class. Nothing is dropped silently: every file that is no example is listed with the reason.
"""

import collections
import dataclasses
import os
import pathlib

import numpy as np

from keras_vit.validation import nearest
from keras_vit_client.image_files import EXTENSIONS

# Names of the folders of splits, whatever their case. `ALL` is the only split of a folder that has none of them.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
ALL = "all"

# Pillow alone cannot read them.
_UNSUPPORTED = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".psd",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".orf",
    ".rw2",
)
_SIGNATURES = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (8, b"WEBP"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (4, b"ftypavif"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n"),
)

HIDDEN = "hidden files"
NO_IMAGES = "files that are no images"
UNSUPPORTED = "images of a format to convert to JPEG or PNG first"
OUTSIDE = "images outside the class folders"
EMPTY = "class folders without images"
OTHER = "folders beside the splits"
_ONE_OF = {
    HIDDEN: "hidden file",
    NO_IMAGES: "file that is no image",
    UNSUPPORTED: "image of a format to convert to JPEG or PNG first",
    OUTSIDE: "image outside the class folders",
    EMPTY: "class folder without images",
    OTHER: "folder beside the splits",
}

_LISTED = 5  # names of a reason in a description


@dataclasses.dataclass(frozen=True)
class FolderSplit:
    """The images of one split.

    Args:
        name: str. The name of its folder; `all` where the classes lie in the folder itself.
        path: path.
        files: dict from a class name to a sorted tuple of paths, classes sorted, without those that have no image.
        unused: dict from a reason (str) to a sorted tuple of paths that are not used.
    """

    name: str
    path: pathlib.Path
    files: dict
    unused: dict

    @property
    def class_names(self):
        """tuple of str, sorted."""
        return tuple(self.files)

    @property
    def counts(self):
        """dict from a class name to its number of images."""
        return {name: len(files) for name, files in self.files.items()}

    def __len__(self):
        return sum(self.counts.values())

    def without(self, paths):
        """The split without some files, a set of str. A class whose files are all among them stays, with none."""
        kept = {name: tuple(f for f in files if str(f) not in paths) for name, files in self.files.items()}
        return dataclasses.replace(self, files=kept)

    def examples(self, class_names=None):
        """The paths and their labels.

        Args:
            class_names: tuple of str, those of the training split, in the order of the labels; a class of them may have
                no image here. Default `None`: the split's own.

        Returns:
            A list of paths, sorted by class and name, and int64 labels `(examples,)`.

        Raises:
            ValueError: if the split has a class that is not among `class_names`.
        """
        class_names = self.class_names if class_names is None else tuple(class_names)
        unknown = [name for name in self.files if name not in class_names]
        if unknown:
            raise ValueError(
                f"every split must have the same class folders as the training split, {_some(class_names)}. "
                f"Received: {_some(unknown)} in {str(self.path)!r}"
            )
        paths, labels = [], []
        for label, name in enumerate(class_names):
            files = self.files.get(name, ())
            paths += files
            labels += [label] * len(files)
        return paths, np.array(labels, "int64")


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """The layout of a folder of images.

    Args:
        path: path of the folder that holds the splits or the classes.
        splits: dict from `train`, `validation` and `test`, those that are there, or from `all`, to a `FolderSplit`.
        class_names: tuple of str, of the training split (or of `all`, or of the first one), in the order of the labels.
        unused: dict from a reason (str) to a tuple of paths, of all splits and of what lies beside them.
    """

    path: pathlib.Path
    splits: dict
    class_names: tuple
    unused: dict

    def describe(self):
        """Text of a few lines: the splits with their images, the classes with theirs, and what is not used."""
        lines = [f"{self.path}: {len(self.class_names)} classes"]
        for name, split in self.splits.items():
            counts = ", ".join(f"{key} {count:,}" for key, count in list(split.counts.items())[:20])
            more = len(split.counts) - 20
            lines.append(f"  {name}: {len(split):,} images ({counts}{f' and {more} more classes' if more > 0 else ''})")
        if self.unused:
            lines.append("  " + describe_unused(self.unused))
        return "\n".join(lines)


def find_image_folder(folder, min_classes=2):
    """Finds out the layout of a folder of images.

    The layout is `<folder>/<split>/<class>/...`, with splits named as in `SPLITS` in any case, or
    `<folder>/<class>/...`. Either may lie in a single subfolder, as an unpacked archive has it.

    Args:
        folder: path.
        min_classes: int. Fewer classes with images are refused. Default 2: with one there is nothing to learn.

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: if there is no such folder, if it has no images in class folders or fewer than `min_classes`
            classes, or if a split has a class that the training split lacks.
    """
    given = root = pathlib.Path(folder)
    while len(subfolders := _subfolders(root)) == 1 and not _split_folders(root) and _holds_only_folders(subfolders[0]):
        root = subfolders[0]  # an archive's own folder; one class would be refused
    found = _split_folders(root)
    if found:
        splits = {name: read_split(path) for name, path in found.items()}
        beside = [p for p in subfolders if p not in found.values()]
        files = [p for p in root.iterdir() if p.is_file()]
        unused = {OTHER: beside} if beside else {}
        for reason, paths in _sorted_out(files).items():
            unused[OUTSIDE if reason is None else reason] = paths
    else:
        splits = {ALL: read_split(root, ALL)} if root.is_dir() else {}
        unused = {}
    for split in splits.values():
        for reason, paths in split.unused.items():
            unused[reason] = [*unused.get(reason, ()), *paths]
    splits = {name: split for name, split in splits.items() if len(split)}
    unused = {reason: tuple(sorted(paths)) for reason, paths in unused.items()}
    if not splits:
        what = f", {describe_unused(unused)}" if unused else "" if root.is_dir() else ", which does not exist"
        raise ValueError(
            "a folder of images must look like <folder>/<class>/<image> or <folder>/<split>/<class>/<image>. "
            f"Received: {str(given)!r}{what}"
        )
    first = next(splits[name] for name in ("train", ALL, *splits) if name in splits)
    if len(first.class_names) < min_classes:
        raise ValueError(
            f"a classifier needs at least {min_classes} classes with images, each in a folder of its own. "
            f"Received: {_some(first.class_names)} in {str(first.path)!r}"
        )
    for split in splits.values():
        split.examples(first.class_names)  # raises where a class is unknown
    return ImageFolder(root, splits, first.class_names, unused)


def read_split(path, name=None):
    """Lists the images of the class folders in a folder.

    Args:
        path: path.
        name: str or `None`: that of the folder.

    Returns:
        A `FolderSplit`; no image is opened but those without a usual ending.
    """
    path = pathlib.Path(path)
    files, unused = {}, collections.defaultdict(list)
    direct = [p for p in path.iterdir() if p.is_file()]
    for reason, paths in _sorted_out(direct).items():
        unused[OUTSIDE if reason is None else reason] += paths
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        if folder.name.startswith("."):
            unused[HIDDEN].append(folder)
            continue
        kinds = _sorted_out(_files_below(folder), folder)
        images = kinds.pop(None, ())
        for reason, paths in kinds.items():
            unused[reason] += paths
        if images:
            files[folder.name] = tuple(sorted(images))
        else:
            unused[EMPTY].append(folder)
    return FolderSplit(name or path.name, path, files, {reason: tuple(sorted(p)) for reason, p in unused.items()})


def find_split(folder, name):
    """The split of a folder that a recipe or an option names.

    Args:
        folder: path.
        name: str. The name of a subfolder with class folders, one of the names in `SPLITS`, or `all`; a folder whose
            classes lie in itself is also its `train`.

    Returns:
        A `FolderSplit`.

    Raises:
        ValueError: if there is no such split, with those that there are.
    """
    path = pathlib.Path(folder) / name
    if path.is_dir() and not _is_hidden(path) and _subfolders(path):
        return read_split(path)
    layout = find_image_folder(folder, min_classes=1)
    standard = next((key for key, names in SPLITS.items() if name.lower() in names), name)
    if standard == "train" and ALL in layout.splits:
        standard = ALL
    if standard not in layout.splits:
        known = [split.name for split in layout.splits.values()]
        advice = ""
        if known == [ALL]:
            advice = (
                " Its images are not divided into splits; data.validation_fraction=0.2 evaluates on a part of them."
            )
        elif standard == "test" and "validation" in layout.splits:
            other = layout.splits["validation"].name
            advice = (
                f" To measure with {other}, set data.test_split={other} of a recipe, or --split {other} of a command."
            )
        raise ValueError(
            f"unknown split of {str(folder)!r}, which has {', '.join(known)}{nearest(name, known)}{advice} "
            f"Received: split={name!r}"
        )
    return layout.splits[standard]


def describe_unused(unused):
    """Describes the unused files in a line: their number for each reason, and the first names.

    Args:
        unused: dict from a reason (str) to a sequence of paths.
    """
    parts = []
    for reason, paths in unused.items():
        names = ", ".join(str(path) for path in paths[:_LISTED])
        more = f" and {len(paths) - _LISTED:,} more" if len(paths) > _LISTED else ""
        reason = _ONE_OF.get(reason, reason) if len(paths) == 1 else reason
        parts.append(f"{len(paths):,} {reason} ({names}{more})")
    return "not used: " + "; ".join(parts)


def _split_folders(root):
    """dict from `train`, `validation` and `test` to the folder of that split; empty where the folders are classes.

    A folder named `train` may be a class. It is a split where it has subfolders and, if there are images beside them,
    none of its neighbors holds images as a class does.
    """
    names = {name: key for key, names in SPLITS.items() for name in names}
    named = [folder for folder in _subfolders(root) if folder.name.lower() in names]
    others = [folder for folder in _subfolders(root) if folder not in named]
    if others and not any(names[folder.name.lower()] == "train" for folder in named):
        return {}
    if not all(_subfolders(folder) for folder in named):
        return {}
    if any(_holds_images(folder) for folder in named) and any(_holds_images(folder) for folder in others):
        return {}
    found = {}
    for folder in named:
        name = names[folder.name.lower()]
        if name in found:
            raise ValueError(
                f"a folder must have one {name} split. Received: {found[name].name!r} and {folder.name!r} in {root}"
            )
        found[name] = folder
    return found


def _subfolders(path):
    """The folders in a folder that are not hidden, sorted; none where there is no folder."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not _is_hidden(p) and p.name != "__MACOSX")


def _holds_only_folders(path):
    """Returns whether a folder has subfolders and no images beside them."""
    return bool(_subfolders(path)) and not _holds_images(path)


def _holds_images(path):
    """Returns whether a folder itself holds images."""
    return any(_reason(p) is None for p in path.iterdir() if p.is_file())


def _is_hidden(path):
    return path.name.startswith(".")


def _files_below(folder):
    """All files in a folder and its subfolders; links to folders are followed, each folder once."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (pathlib.Path(parent, name) for name in names)


def _sorted_out(paths, folder=None):
    """dict from a reason to the paths that are not used for it; those of images under `None`.

    What lies in a hidden subfolder of `folder` is hidden too.
    """
    kinds = collections.defaultdict(list)
    for path in paths:
        is_hidden = folder is not None and any(part.startswith(".") for part in path.relative_to(folder).parts)
        kinds[HIDDEN if is_hidden else _reason(path)].append(path)
    return kinds


def _reason(path):
    """Why a file is not used, or `None` for an image."""
    ending = path.suffix.lower()
    if _is_hidden(path):
        return HIDDEN
    if ending in EXTENSIONS:
        return None
    if ending in _UNSUPPORTED:
        return UNSUPPORTED
    return None if _looks_like_an_image(path) else NO_IMAGES


def _looks_like_an_image(path):
    try:
        with open(path, "rb") as file:
            head = file.read(32)
    except OSError:
        return False
    return any(head[at : at + len(text)] == text for at, text in _SIGNATURES)


def _some(names):
    names = list(names)
    return f"{len(names)} class{'' if len(names) == 1 else 'es'} ({', '.join(names[:5])}{', ...' * (len(names) > 5)})"
