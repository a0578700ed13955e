"""Where images come from: scikit-learn's digits, TensorFlow Datasets, folders of classes.

Every source ends in the same thing, two `Split`s of uint8 images at the model's size, so that the same
pipeline trains on all of them. Images are prepared once, by the model's `InputSpec`, and kept in memory.
"""

import dataclasses
import functools

import numpy as np

from keras_vit.data.folder import class_names, read_folder
from keras_vit.data.pipeline import check_labels, check_not_empty
from keras_vit.data.stream import folder_examples, tfds_examples
from keras_vit.validation import nearest


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels.

    Args:
        images: uint8 array `(examples, height, width, channels)`.
        labels: int64 array `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, examples):
        """A part of the split, by a slice or an index array."""
        return Split(self.images[examples], self.labels[examples])


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: str.
        class_names: tuple of str, in the order of the labels.
        num_channels: int. Channels of its images.
        read: callable `(split name, InputSpec) -> Split`.
        examples: callable `split name ->` an iterator of `(image, label)` with what `InputSpec.resize` takes, and how
            many there are (or `None`); or `None` for a data set that is in memory anyway.
    """

    name: str
    class_names: tuple
    num_channels: int
    read: object
    examples: object = None

    def split(self, name, input_spec):
        """Reads one split.

        Args:
            name: str, for example `train`.
            input_spec: `InputSpec` that prepares the images.

        Returns:
            A `Split`.

        Raises:
            ValueError: if it is empty, or a label is out of range.
        """
        split = self.read(name, input_spec)
        check_not_empty(len(split), self.name, name)
        check_labels(split.labels, len(self.class_names))
        return split


def load_source(config):
    """The source that a recipe names.

    Args:
        config: `DataConfig`.

    Returns:
        A `Source`; nothing large is read yet.

    Raises:
        ValueError: if it is unknown or missing, with what to do about it.
    """
    if config.folder:
        return _folder(config)
    return _digits() if config.name == "digits" else _tfds(config)


def train_and_evaluation(source, config, input_spec):
    """The splits that a run trains on and is judged by.

    Returns:
        `(training Split, evaluation Split, name of the latter)`: the test split, or with a
        `validation_fraction` the end of the training split.
    """
    train = source.split(config.train_split, input_spec)
    if not config.validation_fraction:
        return train, source.split(config.test_split, input_spec), config.test_split
    if config.folder:  # Sorted by class: a validation part of all classes must be drawn.
        train = train[np.random.default_rng(0).permutation(len(train))]
    count = max(1, round(len(train) * config.validation_fraction))
    return train[:-count], train[-count:], "validation"


def _digits():
    """1,797 handwritten digits, 8 x 8 pixels, split in halves as in scikit-learn's own example."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError("the digits come with scikit-learn: pip install 'keras_vit[data]'") from error

    def read(name, input_spec):
        digits = load_digits()
        half = len(digits.target) // 2
        parts = {"train": slice(None, half), "test": slice(half, None)}
        if name not in parts:
            raise ValueError(f"the digits have the splits 'train' and 'test'. Received: split={name!r}")
        pixels = np.round(digits.images[parts[name]] * (255 / 16)).astype("uint8")
        images = np.stack([input_spec.resize(image) for image in pixels])
        return Split(images, digits.target[parts[name]].astype("int64"))

    return Source("digits", tuple("0123456789"), 1, read)


def _folder(config):
    def read(name, input_spec):
        folder = read_folder(config.folder, name, input_spec, config.skip_unreadable)
        if folder.class_names != names:
            raise ValueError(
                f"all splits must have the same class folders. "
                f"Received: {names} in {config.train_split!r}, {folder.class_names} in {name!r}"
            )
        return Split(folder.images, folder.labels)

    names = class_names(config.folder, config.train_split)
    return Source(str(config.folder), names, 3, read, functools.partial(folder_examples, config.folder))


def _tfds(config):
    """Any image data set of TensorFlow Datasets with the features `image` and `label`."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError("TensorFlow Datasets is missing: pip install 'keras_vit[data]'") from error
    try:
        builder = tfds.builder(config.name, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise ValueError(f"unknown data set{nearest(config.name, known)} Received: name={config.name!r}") from None
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(f"a data set must have 'image' and 'label'. Received: {config.name!r} with {sorted(features)}")

    def examples(name):
        _prepare(builder, config)
        try:
            # Also slices, such as train[:10%]. Pillow decodes, whose pixels are those that the weights know.
            dataset = builder.as_dataset(split=name, decoders={"image": tfds.decode.SkipDecoding()})
        except ValueError as error:
            known = list(builder.info.splits)
            raise ValueError(
                f"unknown split of {config.name!r}{nearest(name, known)} Received: split={name!r} ({error})"
            ) from error
        return tfds_examples(dataset)

    def read(name, input_spec):
        pairs = [(input_spec.resize(image), label) for image, label in examples(name)[0]]
        images, labels = zip(*pairs, strict=True) if pairs else ((), ())
        return Split(np.array(images, "uint8"), np.array(labels, "int64"))

    return Source(config.name, tuple(features["label"].names), features["image"].shape[-1] or 3, read, examples)


def _prepare(builder, config):
    """Downloads and prepares a data set where that is allowed; else, or if it fails, says how to get it."""
    how = (
        f'Prepare it with: python -c "import tensorflow_datasets as tfds; tfds.load({config.name!r})" '
        "(--set data.data_dir=... for another directory), or use a folder of class folders: --set data.folder=..."
    )
    try:
        if config.download:
            builder.download_and_prepare()
        elif not builder.is_prepared():
            raise ValueError(f"the data set {config.name!r} is not in {str(builder.data_dir)!r}. {how}")
    except ValueError:
        raise
    except Exception as error:  # TFDS lets through whatever its downloader raises.
        raise ValueError(
            f"the data set {config.name!r} could not be downloaded or prepared ({error}). {how}"
        ) from error
