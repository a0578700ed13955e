"""The data of a fine-tuning run: a folder, arrays or a dataset, split into training, validation and test."""

import dataclasses
import hashlib
import pathlib
import statistics

import numpy as np
from PIL import Image

from keras_vit.config import DataConfig
from keras_vit.data import Source, Split
from keras_vit.data.sources.folder import ALL, find_image_folder
from keras_vit.data.sources.memory import find_unreadable_files
from keras_vit.data.unreadable import skipped_message

_VALIDATION_FRACTION = 0.2  # of the training images, if there is no validation split
_NUM_SIZE_SAMPLES = 64  # images whose size is read
_MAX_BATCH_SIZE = 32
_MIN_STEPS = 5  # in an epoch, unless there are too few images


@dataclasses.dataclass(frozen=True)
class FineTuningData:
    """The images that a model is fine-tuned on.

    Args:
        name: str, for the run's folder.
        config: `DataConfig`.
        source: `Source` of data in memory; `None` for a folder, which `config` names.
        test_split: str or `None`. The split that is evaluated once, at the end.
        side: int, pixels. The median of the shorter sides of the training images.
        description: str. Lines about the splits, for the user.
        unreadable: frozenset of str, the paths of images that cannot be decoded and are left out.
        example: str or `None`. The path of a readable image, preferably outside the training split.
    """

    name: str
    config: DataConfig
    source: Source | None
    test_split: str | None
    side: int
    description: str
    unreadable: frozenset = frozenset()
    example: str | None = None

    def count(self, split):
        """The number of readable images in a split, an int."""
        return len(split) - sum(name in self.unreadable for name in getattr(split, "names", ()))


def load_fine_tuning_data(
    data, validation=None, test=None, class_names=None, batch_size=None, validation_fraction=None
):
    """Loads the images to train, validate and test on.

    Args:
        data: path of a folder, see `keras_vit.data.find_image_folder`; `(images, labels)`; or a `tf.data.Dataset` of
            such pairs, batched or not. Images are pixels from 0 to 255, or floats from 0 to 1; labels are numbers or
            one-hot rows.
        validation, test: arrays or a dataset, as `data`; `None` for the splits of the folder, or a fraction of the
            training images for validation and no test.
        class_names: sequence of str, for arrays and datasets that do not name their classes.
        batch_size: int or `None`: up to 32, less if that would leave few steps in an epoch.
        validation_fraction: float or `None`: 0.2.

    Returns:
        A `FineTuningData`.

    Raises:
        ValueError: if there are fewer than two classes, or the data has another form.
    """
    if isinstance(data, str | pathlib.Path):
        if validation is not None or test is not None or class_names is not None:
            raise ValueError(
                "validation, test and class_names must be None for a folder, which has its own. "
                f"Received: validation={validation is not None}, test={test is not None}, class_names={class_names!r}"
            )
        return _load_folder(data, batch_size, validation_fraction)
    splits = {"train": data, "validation": validation, "test": test}
    splits = {name: split for name, split in splits.items() if split is not None}
    return _load_arrays(splits, class_names, batch_size, validation_fraction)


def _load_folder(path, batch_size, fraction):
    folder = find_image_folder(path)
    unreadable = find_unreadable_files([file for split in folder.splits.values() for file in split.examples()[0]])
    if unreadable:
        splits = {name: split.without(set(unreadable)) for name, split in folder.splits.items()}
        folder = dataclasses.replace(folder, splits=splits)
    training = next((name for name in ("train", ALL) if name in folder.splits), None)
    if training is None:
        raise ValueError(
            "a folder with splits must have a training split, <folder>/train/<class>/<image>. "
            f"Received: {str(path)!r} with {', '.join(folder.splits)}"
        )
    if not len(folder.splits[training]):
        raise ValueError(f"training images must be readable. Received: {skipped_message(unreadable)}")
    split, has_validation = folder.splits[training], "validation" in folder.splits
    files = [file for files in split.files.values() for file in files]
    config = _config(len(split), batch_size, None if has_validation else fraction or _VALIDATION_FRACTION)
    config = dataclasses.replace(
        config,
        folder=str(folder.path),
        name=None,
        train_split=training,
        validation_split="validation" if has_validation else None,
        skip_unreadable=True,
        in_memory=False,  # Both phases then split the same list of files, also if some of them cannot be read.
    )
    lines = [folder.describe()]
    if unreadable:
        lines.append(f"  {skipped_message(unreadable, limit=None)}")
    if not has_validation:
        lines.append(
            f"  no validation split: {config.validation_fraction:.0%} of the training images are used for validation"
        )
    test = "test" if "test" in folder.splits else None
    name = pathlib.Path(path).resolve().name
    return FineTuningData(
        name, config, None, test, _median_side(files), "\n".join(lines), frozenset(unreadable), _example(folder.splits)
    )


def _example(splits):
    """Returns the path of the first image of the test, the validation or any other split, in this order."""
    names = [*(name for name in ("test", "validation") if name in splits), *splits]
    return str(next(file for name in names for files in splits[name].files.values() for file in files))


def _config(count, batch_size, fraction):
    """Makes the `DataConfig` for a number of training images; the caller sets its source."""
    num_training = round(count * (1 - (fraction or 0)))
    largest = 2 ** max((num_training // _MIN_STEPS).bit_length() - 1, 0)
    return DataConfig(
        name="memory", batch_size=batch_size or min(_MAX_BATCH_SIZE, largest), validation_fraction=fraction or 0.0
    )


def _median_side(files):
    """The median of the shorter sides of a sample of images; unreadable ones are left out."""
    sides = []
    for file in files[:: max(len(files) // _NUM_SIZE_SAMPLES, 1)]:
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return int(statistics.median(sides)) if sides else 10**6


def _load_arrays(splits, class_names, batch_size, fraction):
    class_names = class_names or getattr(splits["train"], "class_names", None)
    pairs = {name: _pairs(data) for name, data in splits.items()}
    labels = pairs["train"][1]
    count = len(class_names) if class_names is not None else int(max(labels.max() for _, labels in pairs.values())) + 1
    names = tuple(str(name) for name in class_names) if class_names is not None else tuple(map(str, range(count)))
    if len(set(labels.tolist())) < 2:
        raise ValueError(f"a classifier needs at least 2 classes. Received: labels of {sorted(set(labels.tolist()))}")
    images = pairs["train"][0]

    def split(name, input_spec):
        pixels, numbers = pairs[name]
        resized = np.stack([input_spec.resize(image) for image in pixels])
        return Split(resized.astype("uint8"), numbers)

    config = _config(len(labels), batch_size, None if "validation" in pairs else fraction or _VALIDATION_FRACTION)
    # The name contains a digest, so that a run is not resumed with other images.
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(image) for image in images) + labels.tobytes())
    config = dataclasses.replace(
        config,
        name=f"memory-{digest.hexdigest()[:16]}",
        validation_split="validation" if "validation" in pairs else None,
    )
    counts = np.bincount(labels, minlength=count)
    class_counts = ", ".join(f"{name} {number:,}" for name, number in list(zip(names, counts, strict=True))[:20])
    lines = [f"{len(labels):,} training images ({class_counts})"]
    lines += [f"{len(numbers):,} {name} images" for name, (_, numbers) in pairs.items() if name != "train"]
    source = Source("images in memory", names, images[0].shape[-1], split)
    side = int(statistics.median(min(image.shape[:2]) for image in images[: 10 * _NUM_SIZE_SAMPLES]))
    return FineTuningData("images", config, source, "test" if "test" in pairs else None, side, "\n".join(lines))


def _pairs(data):
    """Reads arrays or a dataset into a list of uint8 images `(h, w, channels)` and int64 labels."""
    if hasattr(data, "element_spec"):
        rank = len(data.element_spec[0].shape)
        data = data.unbatch() if rank == 4 else data
        pairs = list(data.as_numpy_iterator())
        images, labels = [pair[0] for pair in pairs], np.array([pair[1] for pair in pairs])
    elif isinstance(data, tuple | list) and len(data) == 2:
        images, labels = list(data[0]), np.asarray(data[1])
    else:
        raise ValueError(
            "data must be the path of a folder, a pair (images, labels) or a tf.data.Dataset of such pairs. "
            f"Received: {type(data).__name__}"
        )
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"every image must have a label. Received: {len(images)} images, {len(labels)} labels")
    if labels.ndim == 2 and labels.shape[-1] > 1:
        labels = labels.argmax(axis=-1)
    labels = labels.reshape(-1)
    if not (np.issubdtype(labels.dtype, np.integer) or np.array_equal(labels, labels.astype("int64"))):
        raise ValueError(f"labels must be class indices or one-hot rows. Received: dtype {labels.dtype}")
    return _as_pixels(images), labels.astype("int64")


def _as_pixels(images):
    """Converts images to uint8 with a channel axis."""
    images = [np.asarray(image) for image in images]
    images = [image[..., None] if image.ndim == 2 else image for image in images]
    if all(image.dtype == np.uint8 for image in images):
        return images
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    if low < 0 or high > 255:
        raise ValueError(
            "images must be pixels from 0 to 255, or floats from 0 to 1, which the model's own preprocessing "
            f"normalizes. Received: values from {low:g} to {high:g}"
        )
    scale = 255 if high <= 1 and not np.issubdtype(images[0].dtype, np.integer) else 1
    return [np.rint(image * scale).astype("uint8") for image in images]
