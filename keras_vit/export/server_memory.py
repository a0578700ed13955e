"""How much memory a server needs, whatever strangers send it."""

import pathlib

from keras_vit.export.description import options_of
from keras_vit.export.versions import MODEL_FILE, newest
from keras_vit.image_ops.decode import BYTES_A_PIXEL, MAX_PIXELS, PARALLEL

# The server itself, the graph, the activations of its batches, the requests.
BASE_MIB = 1024
_STEP_MIB = 256
# How many times the bytes on the disk are the weights that a call unpacks.
_UNPACKED = {"float32": 0, "bfloat16": 2, "int8": 4}


def memory_needed(directory, cpus):
    """The memory of a server of the newest version in a folder, while every image is as large as it may be.

    The sum of `BASE_MIB`; the weights twice, since a new version is loaded beside the old one; what each batch unpacks
    of weights that are stored in fewer bytes; and the images that are decoded at the same time: `PARALLEL` of each
    batch, of which there are as many as cores, with `BYTES_A_PIXEL * max_pixels` bytes each. The limit is that of the
    graph: what clients send is for a proxy to bound.

    Args:
        directory: path of the folder of the versions. Where there is none yet, the images are those that an export
            allows by default, and the weights nothing.
        cpus: int. Cores, which are also the batches that are computed at the same time.

    Returns:
        int, MiB, a multiple of 256.
    """
    version = newest(pathlib.Path(directory))
    weights, unpacked, max_pixels = 0, 0, MAX_PIXELS
    if (version / MODEL_FILE).exists():
        weights = sum(file.stat().st_size for file in (version / "variables").iterdir())
        options = options_of(version)
        unpacked, max_pixels = _UNPACKED.get(options.get("weights"), 0), options.get("max_pixels", MAX_PIXELS)
    images = PARALLEL * cpus * BYTES_A_PIXEL * max_pixels
    needed = BASE_MIB + (weights * (2 + unpacked * cpus) + images) / 2**20
    return _STEP_MIB * -int(-needed // _STEP_MIB)
