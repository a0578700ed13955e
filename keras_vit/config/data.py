"""Data settings of a recipe: source, splits and batches."""

import dataclasses
import re
import typing

from keras_vit.validation import check_choice, check_positive, check_rate, is_number

SOURCES = ("name", "folder", "tfrecords", "arrays")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Settings of the data source, its splits and batches.

    Set one of `name`, `folder`, `tfrecords` and `arrays`; of several, the last in this list is used. `--set` of one
    resets the others, also those of an earlier `--set`.

    Args:
        name: str or `None`. `digits` (scikit-learn's, bundled), `synthetic` (noise, with `num_classes`) or the name of
            a TFDS data set.
        folder: str or `None`. A folder with `train/<class>/...` and `test/<class>/...`, or `<class>/...` alone, whose
            split is `train`; see `keras_vit.data.find_image_folder`.
        tfrecords: str or `None`. Files of `tf.train.Example`, as a pattern with `{split}` in it
            (`imagenet/{split}-*`), or a folder that `keras_vit.data.write_tfrecords` wrote.
        arrays: str or `None`. An `.npz` file with `x_<split>`, `y_<split>` and, if wished, `w_<split>`.
        data_dir: str or `None`. Directory of TFDS; `None` for its default.
        download: bool. Lets TFDS download and prepare a missing data set. Default True.
        train_split, test_split: str. Names of the splits, or folders; for TFDS also slices, `train[:90%]`.
        num_classes: int or `None`. For TFRecords and arrays without class names.
        multi_label: bool. Whether an example of TFRecords or arrays may have several classes or none: targets are
            multi-hot rows, and the loss is `sigmoid` or `binary`. Default False: one class, as its number or, in
            arrays, as a row of probabilities that add up to 1.
        image_key, label_key: str. Features of a TFRecord. Defaults `image/encoded` and `image/class/label`.
        label_offset: int. Subtracted from the labels of TFRecords and masks; 1 if they start at 1. Pixels of a mask
            with a smaller label are ignored, as the 0 of ADE20K. Default 0.
        batch_size: int. Global batch size. Training drops the remainder of an epoch; evaluation keeps it as a short
            batch without padding, so that every example counts once.
        validation_fraction: float in [0, 1). Fraction of the training split that is evaluated instead of the test
            split, to choose settings. Selected at random, the same in every run: stratified by class if the labels are
            in memory, by a hash of the index of an example in a stream. Default 0.
        validation_split: str or `None`. A split or folder used instead of `validation_fraction`. Default `None`.
        train_fraction: float in (0, 1]. Fraction of the remaining training split that is used, selected at random, the
            same in every run; a smaller fraction is a subset of a larger one. Default 1.
        skip_unreadable: bool. Leave unreadable images out, and name them, instead of stopping. Default False.
        in_memory: bool or `auto`. Whether all images are decoded before the first step. `auto` does so where they
            take no more than a gibibyte at the model's size and no random crop wants their full resolution.
        cache: str or `None`. For images that are not `in_memory`: `memory` keeps their encoded bytes, the path of a
            folder copies them there as TFRecords on first use. Default `None`.
        shuffle_buffer: int. Size of the shuffle buffer of splits that are read as a stream (TFDS and TFRecords without
            `cache=memory`); the order of the files is shuffled too. Default 16384.
        deterministic: bool. Gives a stream the same order in every run. False may be faster on slow disks. Default
            True.
        aug_repeats: int. Number of differently augmented copies of each image in a batch (timm `aug_repeats`; repeated
            augmentation, Hoffer et al., arXiv:1901.09335). The length of an epoch is unchanged. Default 1; DeiT: 3.
        class_weights: tuple of floats or `None`. Weight of every class in the training loss.
        service: str or `None`. Dispatcher of a `tf.data` service whose workers make the training batches,
            `grpc://host:port`. The order of the batches differs from run to run. Default `None`.
    """

    # An override of one of these fields resets the others.
    exclusive: typing.ClassVar = SOURCES

    name: str | None = None
    folder: str | None = None
    tfrecords: str | None = None
    arrays: str | None = None
    data_dir: str | None = None
    download: bool = True
    train_split: str = "train"
    test_split: str = "test"
    num_classes: int | None = None
    multi_label: bool = False
    image_key: str = "image/encoded"
    label_key: str = "image/class/label"
    label_offset: int = 0
    batch_size: int = 128
    validation_fraction: float = 0.0
    validation_split: str | None = None
    train_fraction: float = 1.0
    skip_unreadable: bool = False
    in_memory: bool | str = "auto"
    cache: str | None = None
    shuffle_buffer: int = 16384
    deterministic: bool = True
    aug_repeats: int = 1
    class_weights: tuple | None = None
    service: str | None = None

    @property
    def has_validation(self):
        """bool. Whether a validation split is evaluated instead of the test split."""
        return bool(self.validation_split or self.validation_fraction)

    def __post_init__(self):
        for name in ("batch_size", "shuffle_buffer", "aug_repeats"):
            check_positive(getattr(self, name), name)
        if self.num_classes is not None:
            check_positive(self.num_classes, "num_classes")
        check_rate(self.validation_fraction, "validation_fraction")
        if self.validation_split and self.validation_fraction:
            raise ValueError(
                "a validation part is a split of its own or a fraction of the training split, not both. Received: "
                f"validation_split={self.validation_split!r}, validation_fraction={self.validation_fraction}"
            )
        if not is_number(self.train_fraction) or not 0 < self.train_fraction <= 1:
            raise ValueError(f"train_fraction must be in (0, 1]. Received: train_fraction={self.train_fraction!r}")
        check_choice(self.in_memory, ("auto", True, False), "in_memory")
        weights = self.class_weights
        numbers = isinstance(weights, tuple | list) and all(is_number(w) and w >= 0 for w in weights)
        if weights is not None and not (numbers and weights):
            raise ValueError(f"class_weights must be numbers of at least 0. Received: class_weights={weights!r}")
        if self.service is not None and not re.fullmatch(r"grpc://\S+:\d+", self.service):
            raise ValueError(f"a tf.data service must look like grpc://host:port. Received: service={self.service!r}")
        if self.multi_label and not (self.tfrecords or self.arrays or self.name == "synthetic"):
            raise ValueError(
                "multi_label needs TFRecords or arrays, whose examples may have several classes. "
                f"Received: multi_label=True, name={self.name!r}, folder={self.folder!r}"
            )
        if not any(getattr(self, name) for name in SOURCES):
            raise ValueError(f"data needs one of {', '.join(SOURCES)}. Received: none of them")
