"""Reads the files that Keras writes: `.keras` and `.weights.h5`.

Both hold the names of the layers; a `.keras` file also holds the config of the model, which is read as data: no layer
is built and no code in the file runs.
"""

import io
import json

import h5py
import ml_dtypes
import numpy as np

WEIGHTS_MEMBER, _CONFIG_MEMBER = "model.weights.h5", "config.json"
# The state of the optimizer, which is skipped.
_OPTIMIZER = "optimizer"
_METADATA_LAYER, _RANDOM = "metadata", "seed_generator"


def open_keras(archive):
    """Reads the arrays and the config of a `.keras` file.

    Args:
        archive: `zipfile.ZipFile`.

    Returns:
        As `open_hdf5`, and the object in `config.json`.
    """
    config = json.loads(archive.read(_CONFIG_MEMBER)) if _CONFIG_MEMBER in archive.namelist() else {}
    return *open_hdf5(io.BytesIO(archive.read(WEIGHTS_MEMBER))), config


def open_hdf5(source):
    """Reads the arrays of a `.weights.h5` file.

    Args:
        source: path, or a file of bytes.

    Returns:
        `(shapes, read, roots)`: a dict from key to shape, a callable that reads a key, and a dict from the prefix of
        every keras_vit model in the file to its grid of positions, a tuple or `None`. Keys are names of layers joined
        by slashes; the last part is the number of a variable in its layer, or its name.

    Raises:
        ValueError: if it holds no layers by name.
    """
    file = h5py.File(source)
    if not len(file):
        raise ValueError("it is an HDF5 file that holds no arrays")
    datasets, named = {}, set()
    for parts, group in _layers(file):
        named.add("/".join(parts))
        for name, dataset in _own_items(group):
            if isinstance(dataset, h5py.Dataset) and _RANDOM not in parts:
                if dataset.external or dataset.is_virtual:
                    raise ValueError(f"arrays must lie in the file itself. Received: {dataset.name!r}")
                datasets["/".join((*parts, name))] = dataset
    if not named - {""}:
        raise ValueError("an HDF5 file must be one of Keras 3: model.save_weights('x.weights.h5')")
    grids = {key: dataset for key, dataset in datasets.items() if key.endswith("patch_encoder/grid_size")}
    roots = {}
    for name in named:
        prefix, _, layer = name.rpartition("/")
        if layer == _METADATA_LAYER:
            prefix = f"{prefix}/" if prefix else ""
            grid = grids.get(f"{prefix}patch_encoder/grid_size")
            roots[prefix] = None if grid is None else tuple(int(side) for side in grid[()])
    shapes = {key: dataset.shape for key, dataset in datasets.items() if key not in grids}

    def read(key):
        array, dtype = np.asarray(datasets[key]), datasets[key].attrs.get("dtype")
        return array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" and array.dtype.itemsize == 2 else array

    return shapes, read, roots


def _layers(file):
    """Yields every layer: the names of the layers around it and its own, and its variables."""
    waiting, seen = [((), file, True)], set()
    while waiting:
        parts, group, is_root = waiting.pop()
        if group.id in seen:  # A link may lead back.
            continue
        seen.add(group.id)
        variables = group.get("vars")
        if isinstance(variables, h5py.Group):
            name = variables.attrs.get("name")
            # The name of the outermost model is not part of the keys.
            parts = parts if is_root or not isinstance(name, str) else (*parts, name)
            yield parts, variables
        for name, child in _own_items(group):
            if name != "vars" and isinstance(child, h5py.Group) and not (is_root and name == _OPTIMIZER):
                waiting.append((parts, child, False))


def _own_items(group):
    """Lists the names and members of a group, without links to other files."""
    names = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
    return [(name, group[name]) for name in names]
