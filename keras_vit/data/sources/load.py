"""Sources of images: TensorFlow Datasets, folders of classes, TFRecords, arrays, scikit-learn's digits.

Every source returns splits of the same kinds: a small split is decoded images in memory, prepared once by the model's
`InputSpec`; a large one is encoded images, decoded during training.
"""

import dataclasses
import warnings

from keras_vit.data.labels import check_kind, check_labels, check_not_empty
from keras_vit.data.sources import synthetic
from keras_vit.data.sources.arrays import array_splits, digit_splits, read_npz
from keras_vit.data.sources.encoded import EncodedFiles
from keras_vit.data.sources.folder import describe_unused, find_split
from keras_vit.data.sources.memory import decode_split
from keras_vit.data.sources.tfds import open_tfds
from keras_vit.data.sources.tfrecords import cached_records, open_tfrecords

MEMORY_LIMIT = 2**30  # bytes of decoded images that `in_memory="auto"` keeps


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: str.
        class_names: tuple of str, in the order of the labels.
        num_channels: int. Channels of its images.
        read: callable `(split name, InputSpec) -> Split`.
        encoded: callable `split name ->` `EncodedFiles` or `EncodedShards`; or `None` for a data set in memory.
    """

    name: str
    class_names: tuple
    num_channels: int
    read: object
    encoded: object = None

    def split(self, name, input_spec):
        """Reads one split into memory.

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

    def load(self, name, config, input_spec, augment=None):
        """Loads a split, in memory or encoded, by `DataConfig.in_memory` and `DataConfig.cache`.

        Args:
            name: str.
            config: `DataConfig`.
            input_spec: `InputSpec`.
            augment: `AugmentConfig` or `None`, of a training split: a random crop needs the full resolution.

        Returns:
            `Split`, `EncodedFiles` or `EncodedShards`.

        Raises:
            ValueError: as `split`; if the labels of arrays are not of the kind of `DataConfig.multi_label`.
        """
        if self.encoded is None:
            split = self.split(name, input_spec)
            check_kind(split.labels, config.multi_label)
            return split
        if config.in_memory is True:
            return self.split(name, input_spec)
        encoded = self.encoded(name)
        check_not_empty(len(encoded), self.name, name)
        if config.in_memory == "auto" and _fits(encoded, input_spec, augment):
            return self.split(name, input_spec)
        if config.cache == "memory":
            return encoded.cached()
        if config.cache:
            return cached_records(encoded, config, name, self.name)
        return encoded


def _fits(encoded, input_spec, augment):
    """Returns whether a split may be decoded once, at the size of the model."""
    height, width = input_spec.size
    if len(encoded) * height * width * input_spec.num_channels > MEMORY_LIMIT:
        return False
    if augment is None or augment.crop_scale is None:
        return True
    try:
        return encoded.image_size() == (height, width)
    except ValueError:  # Reading the split reports unreadable images.
        return False


def load_source(config, class_names=()):
    """Opens the source of a recipe's data.

    Args:
        config: `DataConfig`.
        class_names: sequence of tuples of str, the names that a trained model may have for its classes. A folder whose
            class folders are some of one of them gets all its classes, in its order; other data sets have their own.

    Returns:
        A `Source`; images are read later.

    Raises:
        ValueError: if it is unknown or missing, with what to do.
    """
    if config.arrays:
        return array_source(read_npz(config.arrays), config.num_classes, str(config.arrays))
    if config.tfrecords:
        return _encoded_source(open_tfrecords(config), config)
    if config.folder:
        return _folder(config, class_names)
    if config.name == "digits":
        return array_source(digit_splits(), 10, "digits")
    if config.name == synthetic.NAME:
        return _encoded_source(synthetic.open_synthetic(config), config)
    return _encoded_source(open_tfds(config), config)


def array_source(splits, num_classes=None, name="arrays", class_names=None):
    """Makes a source of arrays.

    Args:
        splits: dict from a split's name to `(images, labels)` or `(images, labels, weights)`: uint8 `(examples, height,
            width[, channels])`, of any number of channels, or uint16, of which the upper 8 bits are taken; int
            `(examples,)` or multi-hot rows `(examples, classes)`, floats `(examples,)`.
        num_classes: int or `None`: one more than the largest label, or the columns of the rows.
        name: str.
        class_names: sequence of str or `None`: the numbers of the classes.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    read, known, channels = array_splits(splits, num_classes, name)
    names = tuple(class_names) if class_names is not None else tuple(str(i) for i in range(known))
    return Source(name, names, channels, read)


def train_and_evaluation(source, config, input_spec, augment=None):
    """Loads the splits that a run is trained and evaluated on.

    Args:
        source: `Source`.
        config: `DataConfig`.
        input_spec: `InputSpec`.
        augment: `AugmentConfig` or `None`. See `Source.load`.

    Returns:
        `(training split, evaluation split, name of the latter)`. The latter is the test split, or with a
        `validation_split` that one, or with a `validation_fraction` a random part of the training split, the same in
        every run.
    """
    train = source.load(config.train_split, config, input_spec, augment)
    if config.validation_split:
        evaluation, name = source.load(config.validation_split, config, input_spec), "validation"
    elif config.validation_fraction:
        train, evaluation = train.divide(config.validation_fraction)
        name = "validation"
    else:
        evaluation, name = source.load(config.test_split, config, input_spec), config.test_split
    if config.train_fraction < 1:
        _, train = train.divide(config.train_fraction)
    return train, evaluation, name


def _folder(config, class_names=()):
    """Makes the `Source` of a folder of images; it warns about unused files."""
    first = find_split(config.folder, config.train_split)
    splits = {config.train_split: first}
    names = next((tuple(c) for c in class_names if set(first.class_names) <= set(c)), first.class_names)
    if not first.class_names:
        unused = f" Unused: {describe_unused(first.unused)}." if first.unused else ""
        raise ValueError(
            f"the class folders of a data set must hold at least one image.{unused} "
            f"Received: {str(config.folder)!r}, split {config.train_split!r}: empty"
        )

    def listed(name):
        if name not in splits:
            splits[name] = find_split(config.folder, name)
        split = splits[name]
        if split.unused:
            warnings.warn(f"split {split.name!r} of {config.folder}: {describe_unused(split.unused)}", stacklevel=2)
        splits[name] = dataclasses.replace(split, unused={})  # one warning is enough
        return split.examples(names)

    def encoded(name):
        paths, labels = listed(name)
        return EncodedFiles([str(path) for path in paths], labels)

    def read(name, input_spec):
        return decode_split(encoded(name), input_spec, config.skip_unreadable)

    return Source(str(config.folder), names, 3, read, encoded)


def _encoded_source(dataset, config):
    """Makes the `Source` of an `EncodedDataset`, such as TFDS or TFRecords."""

    def read(name, input_spec):
        return decode_split(dataset.encoded(name), input_spec, config.skip_unreadable)

    return Source(dataset.name, dataset.class_names, dataset.num_channels, read, dataset.encoded)
