"""Embeds images: data sets in memory, and any number of files in parts that survive a killed process."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import types

import numpy as np

from keras_vit.atomic import replaced
from keras_vit.backend.runtime import to_numpy
from keras_vit.evaluation.batches import image_batches
from keras_vit.evaluation.embeddings import (
    BATCH,
    Embeddings,
    check_suffix,
    describe_extractor,
    feature_model,
    save_blocks,
)
from keras_vit.metadata import metadata

PART = 2048  # images in a file of a part


def embed(model, data, features="representation", batch_size=BATCH, class_names=None):
    """Embeds images with a model.

    Args:
        model: a model of keras_vit, or one built around one.
        data: uint8 images `(images, height, width, channels)` of the size of the model, or float ones as it takes
            them; a pair of images and labels; a `tf.data.Dataset` or other iterable of batches `(images, labels)`; a
            folder `<folder>/<class>/<image>`, or a list of paths.
        features: as for `keras_vit.evaluation.feature_model`. Default `representation`: what the head classifies.
        batch_size: int. For arrays and files. Default 64.
        class_names: sequence of str, or `None`: those of a folder.

    Returns:
        `keras_vit.evaluation.Embeddings`.

    Raises:
        ValueError: if there are no images, if an image cannot be read, or if the data is none of the above.
    """
    extractor, spec = feature_model(model, features), metadata(model).input_spec
    source = describe_extractor(model, extractor, features)
    names = tuple(class_names) if class_names is not None else None
    if isinstance(data, str | os.PathLike) or (isinstance(data, list | tuple) and data and _is_path(data[0])):
        files, labels, names = _files_of(data, names)
        blocks = []
        for _, block, unreadable in _embed_files(extractor, spec, files, batch_size):
            if unreadable:
                first = unreadable[0]
                raise ValueError(f"every image must be readable. Received: {first.path} ({first.reason})")
            blocks.append(block)
        return Embeddings(np.concatenate(blocks), labels, names, tuple(map(str, files)), source)
    if hasattr(data, "shape"):
        batches = ((images, None, None) for images in _images_only(data, spec, batch_size))
    else:
        batches = image_batches(data, spec, batch_size)
    blocks, labels = [], []
    for images, targets, _ in batches:
        blocks.append(to_numpy(extractor.predict_on_batch(images)))
        labels.append(targets)
    if not blocks:
        raise ValueError("there must be at least one image to embed. Received: none")
    if labels[0] is None:
        return Embeddings(np.concatenate(blocks), None, names, None, source)
    numbers = np.concatenate(labels)
    if numbers.ndim == 2:  # one-hot rows, or a column
        numbers = numbers.argmax(axis=1) if numbers.shape[1] > 1 else numbers[:, 0]
    return Embeddings(np.concatenate(blocks), numbers.astype("int64"), names, None, source)


def _is_path(value):
    return isinstance(value, str | os.PathLike)


def _images_only(images, spec, batch_size):
    for start in range(0, len(images), batch_size):
        batch = to_numpy(images[start : start + batch_size])
        yield spec.normalize(batch) if batch.dtype == "uint8" else batch


def _files_of(data, names):
    """Files, labels and class names of a folder, or of a list of paths."""
    from keras_vit.data import find_image_folder

    if isinstance(data, list | tuple):
        return [pathlib.Path(path) for path in data], None, names
    folder = find_image_folder(data, min_classes=1)
    if len(folder.splits) > 1:
        raise ValueError(
            f"a folder to embed must have one split; pass one of {sorted(folder.splits)}, for example "
            f"{str(folder.path / next(iter(folder.splits)))!r}. Received: {str(data)!r}"
        )
    (split,) = folder.splits.values()
    files, labels = split.examples(names)
    return files, labels, split.class_names if names is None else names


def _embed_files(extractor, spec, files, batch_size):
    """Yields positions and vectors of the readable files of each batch, and the list of its `UnreadableFile`s."""
    from keras_vit.data import read_batches

    start = 0
    for images, errors in read_batches(files, spec, batch_size):
        rows = start + np.flatnonzero([error is None for error in errors])
        empty = np.zeros((0, extractor.output_shape[-1]), "float32")
        vectors = to_numpy(extractor.predict_on_batch(images)) if len(images) else empty
        yield rows, vectors, [error for error in errors if error is not None]
        start += len(errors)


def embed_to_file(model, files, path, labels=None, class_names=None, *, features="representation", batch_size=BATCH,
                  overwrite=False, advance=None):  # fmt: skip
    """Embeds image files into a file of embeddings; run again after an interruption, it continues.

    Parts of 2,048 images are kept in `<path>.parts` until all are there. Memory does not grow with the number of images
    but for their paths.

    Args:
        model: a model of keras_vit, or one built around one.
        files: sequence of paths.
        path: `.npz` or `.parquet`.
        labels: int array, one for each file, or `None`.
        class_names: tuple of str, or `None`.
        features: as for `feature_model`.
        batch_size: int.
        overwrite: bool. Whether the parts of other images or another model are discarded, and a file is replaced.
        advance: callable that is told how many more images are done, or `None`.

    Returns:
        The list of `(path, reason)` of the files that cannot be read; they are left out.

    Raises:
        ValueError: if the file exists, or its parts are of other images or another model, and `overwrite` is false; if
            no image can be read.
    """
    path, files, advance = pathlib.Path(path), [pathlib.Path(file) for file in files], advance or (lambda count: None)
    check_suffix(path)
    if not files:
        raise ValueError("there must be at least one image to embed. Received: none")
    extractor, spec = feature_model(model, features), metadata(model).input_spec
    source = describe_extractor(model, extractor, features)
    parts = path.with_name(f"{path.name}.parts")
    if path.exists() and not overwrite:
        raise ValueError(
            f"the file exists already; pass overwrite (--overwrite) to replace it. Received: {str(path)!r}"
        )
    _prepare(parts, {"source": source, "files": _checksum(files), "count": len(files), "part": PART}, overwrite)
    for number, start in enumerate(range(0, len(files), PART)):
        chosen = files[start : start + PART]
        part = parts / f"{number:06d}.npz"
        if not part.exists():
            _write_part(part, extractor, spec, chosen, batch_size, advance)
        else:
            advance(len(chosen))
    unreadable = _join(parts, path, files, labels, class_names, source)
    shutil.rmtree(parts)
    return unreadable


def _checksum(files):
    """SHA-256 of the paths, sizes and times of files."""
    digest = hashlib.sha256()
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _prepare(parts, content, overwrite):
    """Creates the folder of the parts, or checks that it belongs to the same images and model."""
    manifest = parts / "manifest.json"
    try:
        known = json.loads(manifest.read_text("utf-8"))
    except (OSError, ValueError):
        known = None
    if known == content:
        return
    if known is not None and not overwrite:
        name = next(name for name in content if known.get(name) != content[name])
        raise ValueError(
            f"unfinished parts must be of the same images and model; pass overwrite (--overwrite) to discard them. "
            f"Received: {str(parts)!r}, where {'the images have' if name != 'source' else 'the model has'} changed"
        )
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    with replaced(manifest) as partial:
        partial.write_text(json.dumps(content), "utf-8")


def _write_part(part, extractor, spec, files, batch_size, advance):
    rows, blocks, unreadable = [], [], []
    for positions, vectors, errors in _embed_files(extractor, spec, files, batch_size):
        rows.append(positions)
        blocks.append(vectors)
        unreadable += [(error.path, error.reason) for error in errors]
        advance(len(positions) + len(errors))
    with replaced(part) as partial:
        np.savez(
            partial,
            rows=np.concatenate(rows),
            features=np.concatenate(blocks),
            unreadable=np.array(json.dumps(unreadable)),
        )


def _join(parts, path, files, labels, class_names, source):
    """Writes the file of all parts; returns what could not be read."""
    names = sorted(parts.glob("*.npz"))
    rows, unreadable = [], []
    for number, name in enumerate(names):
        with np.load(name) as part:
            rows.append(part["rows"] + number * PART)
            unreadable += [tuple(item) for item in json.loads(str(part["unreadable"]))]
    rows = np.concatenate(rows)
    if not len(rows):
        first, reason = unreadable[0]
        raise ValueError(f"no image can be read. Received: {len(files)} files, the first {first} ({reason})")

    class Content(types.SimpleNamespace):
        def __len__(self):
            return len(rows)

    content = Content(
        labels=None if labels is None else np.asarray(labels)[rows],
        class_names=class_names,
        paths=tuple(str(files[row]) for row in rows),
        source=source,
    )
    save_blocks(path, (np.load(name)["features"] for name in names), content)
    return unreadable
