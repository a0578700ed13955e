"""Finds the file of a model in a folder, as Hugging Face, timm, OpenCLIP and our own runs leave it."""

from keras_vit.weights.files.checkpoint import is_checkpoint

# The first that is there is read.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model_best.pth.tar",
    "model.keras",
)


def find_file(folder):
    """The file in a folder that holds a model: the first of `NAMES`, or else the only checkpoint that is there.

    Args:
        folder: `pathlib.Path`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several, and none has one of the names.
    """
    found = find_files(folder)
    if not found:
        raise FileNotFoundError(
            f"a folder of weights must hold a checkpoint, such as {NAMES[0]} or {NAMES[2]}. Received: {str(folder)!r}"
        )
    if len(found) > 1:
        raise ValueError(
            f"a folder must hold one checkpoint, or one called {', '.join(NAMES)}; pass the path of a file. "
            f"Received: {str(folder)!r} with {', '.join(file.name for file in found)}"
        )
    return found[0]


def find_files(folder):
    """The files in a folder that may hold a model: the first of `NAMES`, or else all checkpoints.

    Args:
        folder: `pathlib.Path`.

    Returns:
        A sorted list of `pathlib.Path`.
    """
    named = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if named is not None:
        return [named]
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_checkpoint(file)]
