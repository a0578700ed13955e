"""Embeddings of images: one vector an image, with what is needed to use them again."""

import dataclasses
import itertools
import json
import pathlib
import zipfile
import zlib

import keras
import numpy as np

from keras_vit.atomic import replaced
from keras_vit.backend.runtime import to_numpy
from keras_vit.metadata import composition, metadata
from keras_vit.models.backbone import build_backbone
from keras_vit.validation import check_choice

FEATURES = ("representation", "class_token", "mean", "class_token+mean")
SUFFIXES = (".npz", ".parquet")
BATCH = 64
_ROWS = 16384  # that are looked at together


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of images.

    Args:
        features: float array `(images, dim)`.
        labels: int array `(images,)`, or `None`.
        class_names: tuple of str in the order of the labels, or `None`.
        paths: tuple of str, the image files, or `None`.
        source: dict of JSON types that says how they were made, see `describe_source`; `None` if unknown.

    Raises:
        ValueError: if there is not one label and one path for each vector, if labels are no class numbers, or
            if a value is not finite.
    """

    features: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple | None = None
    paths: tuple | None = None
    source: dict | None = None

    def __post_init__(self):
        check_features(self.features, "features")
        if self.labels is not None:
            object.__setattr__(self, "labels", check_labels(self.labels, len(self.features), "labels"))
            if self.class_names is not None and self.labels.max(initial=0) >= len(self.class_names):
                raise ValueError(
                    f"labels must be below the number of classes. Received: {self.labels.max()} for "
                    f"{len(self.class_names)} class names"
                )
        if self.paths is not None and len(self.paths) != len(self.features):
            raise ValueError(
                f"there must be a path for each image. Received: {len(self.paths)} paths, {len(self.features)} images"
            )

    def __len__(self):
        return len(self.features)

    def save(self, path):
        """Writes a `.npz` or `.parquet` file, whole or not at all.

        Raises:
            ValueError: on another suffix.
            ImportError: for `.parquet` without pyarrow.
        """
        save_blocks(path, [self.features], self)


def check_features(features, name):
    """Raises a `ValueError` unless features are a matrix of finite numbers with at least one row."""
    if getattr(features, "ndim", None) != 2 or not len(features) or not np.issubdtype(features.dtype, np.floating):
        shape = getattr(features, "shape", None)
        raise ValueError(f"{name} must be a float array (images, dim) with at least one image. Received: shape={shape}")
    # Sums are finite where all numbers are, and there are few of them.
    blocks = (features[start : start + _ROWS] for start in range(0, len(features), _ROWS))
    sums = np.concatenate([np.abs(block).sum(axis=1, dtype="float64") for block in blocks])
    if not np.isfinite(sums).all():
        rows = np.flatnonzero(~np.isfinite(sums))
        raise ValueError(
            f"{name} must be finite. Received: NaN or infinity in {len(rows)} rows, first in row {rows[0]}"
        )


def check_labels(labels, count, name):
    """Returns labels as int64 array `(count,)`; raises a `ValueError` unless they are class numbers."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise ValueError(
            f"{name} must be class numbers from 0, an int array ({count},), one for each image. "
            f"Received: {labels.dtype} {labels.shape}" + (f" from {labels.min()}" if labels.size else "")
        )
    return labels.astype("int64")


def feature_model(model, features="representation"):
    """Builds the model from images to one vector an image; it shares the layers of `model`.

    Args:
        model: a model of keras_vit, or one built around one.
        features: `representation`: what the head classifies, before `pre_logits`; `class_token` and `mean`: that token,
            or the mean of the patches, behind the final norm; `class_token+mean`: both, side by side.

    Returns:
        A `keras.Model` to float32 `(batch, dim)`.

    Raises:
        ValueError: if the model has no class token.
    """
    check_choice(features, FEATURES, "features")
    parts = composition(model)
    config = parts.marker.content.config
    if features == "representation":
        # The norm of some models follows the pooling.
        name = "encoder_norm" if config.norm_follows_pooling else "representation"
        vectors = [parts.tensors[name]]
        images = None
    else:
        if "class_token" in features and not config.has_class_token:
            raise ValueError(
                f"features={features!r} needs a class token; use 'representation' or 'mean'. Received: {model.name!r}"
            )
        last = build_backbone(model, 1, norm=True, prefix="return", layout="tokens")
        output = last.output if isinstance(last.output, list) else [last.output, None]
        vectors = [output[1][:, 0]] if "class_token" in features else []
        vectors += [keras.ops.mean(keras.ops.cast(output[0], "float32"), axis=1)] if "mean" in features else []
        images = last.input
    vectors = [keras.ops.cast(vector, "float32") for vector in vectors]
    output = keras.ops.concatenate(vectors, axis=-1) if len(vectors) > 1 else vectors[0]
    name = f"{model.name}_embedding"
    return parts.with_front(output, name) if images is None else keras.Model(images, output, name=name)


def describe_source(model, features="representation"):
    """Describes how embeddings of a model are made; two models with the same description embed alike.

    Returns:
        A dict of JSON types: `model`, `origin`, `license`, `features`, `input_spec` and `weights`, a checksum of all
        weights in front of the embedding.
    """
    return describe_extractor(model, feature_model(model, features), features)


def describe_extractor(model, extractor, features):
    """The same for a model and what `feature_model` has made of it."""
    content = metadata(model)
    checksum = 0
    for weight in extractor.weights:
        checksum = zlib.crc32(np.ascontiguousarray(to_numpy(weight)), checksum)
    return {
        "model": model.name,
        "origin": content.origin,
        "license": content.license,
        "features": features,
        "input_spec": content.input_spec.get_config(),
        "weights": f"{checksum:08x}",
    }


def check_same_source(*embeddings):
    """Raises a `ValueError` if embeddings were made by different models, as far as they say."""
    known = [item.source for item in embeddings if item.source is not None]
    for source in known[1:]:
        different = [name for name in source if source[name] != known[0].get(name) and name not in ("origin", "model")]
        if different:
            name = different[0]
            raise ValueError(
                "embeddings must come from one model and the same kind of features. "
                f"Received: {name}={known[0].get(name)!r} ({known[0].get('model')}) and {source[name]!r} "
                f"({source.get('model')})"
            )
    widths = {item.features.shape[1] for item in embeddings}
    if len(widths) > 1:
        raise ValueError(f"embeddings must have the same width. Received: {sorted(widths)}")


def save_blocks(path, blocks, content):
    """Writes a file of embeddings block by block, so that not all of them must be in memory.

    Args:
        path: `.npz` or `.parquet`.
        blocks: iterable of float arrays `(images, dim)`.
        content: object with the other fields of `Embeddings`, whose `len` is the number of images.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        (_write_npz if path.suffix == ".npz" else _write_parquet)(partial, iter(blocks), content)


def check_suffix(path):
    """Raises a `ValueError` unless embeddings can be written to a file of this name."""
    if pathlib.Path(path).suffix not in SUFFIXES:
        raise ValueError(f"embeddings are written to a .npz or .parquet file. Received: {str(path)!r}")


def _write_npz(path, blocks, content):
    first = next(blocks)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(content), first.shape[1])}
            np.lib.format.write_array_header_2_0(file, header)
            for block in itertools.chain([first], blocks):
                file.write(np.ascontiguousarray(block, "<f4").data)
        arrays = {
            "labels": content.labels,
            "class_names": None if content.class_names is None else np.array(content.class_names, "U"),
            "paths": None if content.paths is None else np.array(content.paths, "U"),
            "source": None if content.source is None else np.array(json.dumps(content.source)),
        }
        for name, array in arrays.items():
            if array is not None:
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(".parquet files need pyarrow: pip install pyarrow, or use a .npz file") from error
    return pyarrow


def _write_parquet(path, blocks, content):
    pyarrow = _pyarrow()
    notes = {"source": content.source, "class_names": content.class_names}
    first, start, labels = next(blocks), 0, content.labels
    kind = pyarrow.list_(pyarrow.float32(), first.shape[1])
    fields = [("path", pyarrow.string()), ("label", pyarrow.int64()), ("features", kind)]
    schema = pyarrow.schema(fields, metadata={"keras_vit": json.dumps(notes)})
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for block in itertools.chain([first], blocks):
            stop = start + len(block)
            flat = pyarrow.array(np.ascontiguousarray(block, "float32").ravel())
            columns = [
                pyarrow.array(content.paths[start:stop] if content.paths else [None] * len(block), pyarrow.string()),
                pyarrow.array([None] * len(block) if labels is None else labels[start:stop], pyarrow.int64()),
                pyarrow.FixedSizeListArray.from_arrays(flat, block.shape[1]),
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            start = stop


def load_embeddings(path):
    """Reads a file that `Embeddings.save` or `keras_vit embed` has written.

    Args:
        path: `.npz` or `.parquet`.

    Returns:
        `Embeddings`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds something else.
    """
    path = pathlib.Path(path)
    check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of embeddings {str(path)!r}; `keras_vit embed` writes one")
    try:
        return (_read_npz if path.suffix == ".npz" else _read_parquet)(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"a file of embeddings must be whole. Received: {str(path)!r} ({error})") from error


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    return Embeddings(
        stored["features"],
        stored.get("labels"),
        tuple(stored["class_names"].tolist()) if "class_names" in stored else None,
        tuple(stored["paths"].tolist()) if "paths" in stored else None,
        json.loads(str(stored["source"])) if "source" in stored else None,
    )


def _read_parquet(path):
    pyarrow = _pyarrow()
    table = pyarrow.parquet.read_table(path)
    notes = json.loads((table.schema.metadata or {}).get(b"keras_vit", b"{}"))
    column = table.column("features").combine_chunks()
    features = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    labels, paths = table.column("label"), table.column("path")
    return Embeddings(
        features,
        None if labels.null_count else labels.to_numpy(),
        tuple(notes["class_names"]) if notes.get("class_names") else None,
        None if paths.null_count else tuple(paths.to_pylist()),
        notes.get("source"),
    )
