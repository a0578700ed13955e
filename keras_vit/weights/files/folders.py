"""Finds the file of a model in a folder, as Hugging Face, timm, OpenCLIP and the runs of this library write it."""

from keras_vit.weights.files.checkpoint import is_checkpoint

# The first one that exists is read.
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
    """Finds the checkpoint in a folder: the first of `NAMES` that exists, else the only checkpoint.

    Args:
        folder: `pathlib.Path`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if there are several, none of them with one of these names.
    """
    files = find_files(folder)
    if not files:
        raise FileNotFoundError(
            f"a folder of weights must hold a checkpoint, such as {NAMES[0]} or {NAMES[2]}. Received: {str(folder)!r}"
        )
    if len(files) > 1:
        raise ValueError(
            f"a folder must hold one checkpoint, or one called {', '.join(NAMES)}; pass the path of a file. "
            f"Received: {str(folder)!r} with {', '.join(file.name for file in files)}"
        )
    return files[0]


def find_files(folder):
    """Lists the checkpoints in a folder: the first of `NAMES` that exists, else all checkpoints.

    Args:
        folder: `pathlib.Path`.

    Returns:
        A sorted list of `pathlib.Path`.
    """
    named = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if named is not None:
        return [named]
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_checkpoint(file)]
