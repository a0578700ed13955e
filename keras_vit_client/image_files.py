"""The image files that a command's arguments stand for: files, folders and patterns."""

import glob
import os
import pathlib

# A file that is named itself may have any ending.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp"),
    *(".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
)


def find_images(arguments):
    """Lists image files.

    Args:
        arguments: str or paths. A file is taken whatever its ending, also one that does not exist, which shows when
            it is read. A folder stands for the images in it and its subfolders, hidden ones aside. A pattern with `*`,
            `?` or `[...]`, where `**` is any number of folders, stands for the files and folders that match.

    Returns:
        A list of `pathlib.Path`, in the order of the arguments, sorted within each; every file once.

    Raises:
        ValueError: if a folder holds no image, or nothing matches a pattern.
    """
    found = []
    for argument in arguments:
        path = pathlib.Path(argument)
        if path.is_dir():
            found += _in_folder(path)
        elif path.exists() or not glob.has_magic(str(argument)):
            found.append(path)
        else:
            found += _matching(str(argument))
    return list(dict.fromkeys(found))


def _in_folder(folder):
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [pathlib.Path(parent, name) for name in names if not name.startswith(".")]
    images = sorted(path for path in paths if path.suffix.lower() in EXTENSIONS)
    if not images:
        raise ValueError(
            f"a folder must hold images ({', '.join(EXTENSIONS)}). Received: {str(folder)!r}, with {len(paths)} "
            f"other {'file' if len(paths) == 1 else 'files'}"
        )
    return images


def _matching(pattern):
    matches = [pathlib.Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    # With `**` a folder and what is in it may both match.
    folders = [path for path in matches if path.is_dir()]
    files = [path for path in matches if not path.is_dir()]
    if not files:
        files = [image for folder in folders for image in _in_folder(folder)]
    if not files:
        raise ValueError(f"a pattern must match a file. Received: {pattern!r}, which matches nothing")
    return files
