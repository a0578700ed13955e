"""Images with labels for `keras_vit evaluate` and `calibrate`: which classifier, which data set, which labels."""

import contextlib
import dataclasses
import pathlib
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.cli.console import counted, warn
from keras_vit.config import DataConfig
from keras_vit.data import (
    EncodedFiles,
    close_iterators,
    evaluation_dataset,
    ignore_end_of_data,
    load_source,
    unwrap_tf_errors,
)
from keras_vit.data.labels import check_labels, check_not_empty
from keras_vit.data.sources.folder import ALL, find_image_folder
from keras_vit.data.unreadable import skipped_message
from keras_vit.evaluation.classifier import Classifier, classifier_of
from keras_vit.evaluation.imagenet import SUBSETS, find_subset, read_real, subset_classes
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels
from keras_vit.zoo.create import is_saved_model, load_model
from keras_vit_client.image_files import find_images


@dataclasses.dataclass(frozen=True)
class LabeledImages:
    """A split of a data set, ready to be predicted.

    Args:
        name: str, of the data set.
        split_name: str.
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        batches: `tf.data.Dataset` of normalized images and rows of labels.
        skipped: list that receives the names of unreadable images that are left out.
        class_names: tuple of str, of the model, or `None`.
        multi_label: bool. Whether an image may have several classes or none.
        label_sets: `True`, or the labels that count as right of each image; `False`: one class an image.
        classes: numbers of the classes to choose among, or `None`: all.
        choice: str or `None`. What those are, in words.
    """

    name: str
    split_name: str
    split: object
    batches: tf.data.Dataset
    skipped: list
    class_names: tuple | None
    multi_label: bool
    label_sets: object = False
    classes: list | None = None
    choice: str | None = None

    def names(self):
        """Returns the names of the images that were read, a list of str, after the last batch."""
        if hasattr(self.split, "name_of"):
            names = [self.split.name_of(number) for number in range(len(self.split))]
        else:
            names = [f"image {number}" for number in range(len(self.split))]
        left_out = set(self.skipped)
        return [name for name in names if name not in left_out]

    @contextlib.contextmanager
    def reading(self):
        """Returns a context in which the batches are read, with a progress bar.

        Yields:
            A callable that adds a number of images to what is done.

        Raises:
            ValueError: if an image cannot be read, or none can.
        """
        with (
            close_iterators(),
            unwrap_tf_errors(),
            ignore_end_of_data(),
            warnings.catch_warnings(),
            counted("images", len(self.split)) as advance,
        ):
            warnings.filterwarnings("ignore", ".* left out: ")  # They are listed below.
            try:
                yield advance
            except (ValueError, tf.errors.OpError):
                check_not_empty(len(self.split) - len(self.skipped), self.name, self.split_name)
                raise
        if self.skipped:
            warn(skipped_message(self.skipped, limit=None))


def open_classifier(name, activation=None):
    """Loads a model as a `Classifier`.

    Args:
        name: what `keras_vit.load_model` takes, or the folder of a SavedModel.
        activation: as for `keras_vit.outputs.score_activation`.

    Returns:
        `(Classifier, keras.Model or None, calibration or None)`; the last one is that of the probabilities of a
        SavedModel that returns no logits, which have it already.

    Raises:
        ValueError: if the model has no classes.
    """
    if not is_saved_model(name):
        model = load_model(name)
        return classifier_of(model, activation), model, None
    loaded = LoadedSavedModel(name)
    model, content = loaded.keras_model(), loaded.metadata
    options, config = loaded.description["options"], loaded.description["config"]
    baked = None if loaded.has_logits else loaded.calibration
    kind = options["activation"] or config.get("classifier_activation") or "softmax"
    classifier = Classifier(
        name=loaded.description["model"],
        predict=model.predict_on_batch,
        # The two classes of a single output come as two.
        units=loaded.num_classes,
        activation=activation or kind,
        from_logits=loaded.has_logits,
        labels=content.labels,
        input_spec=content.input_spec,
        calibration=loaded.calibration if loaded.has_logits else None,
    )
    return classifier, None, baked


def open_images(options, classifier):
    """Opens the data set that a command names, for the classes of a model.

    Args:
        options: `data`, `folder`, `arrays`, `data_dir`, `split`, `batch_size`, `skip_unreadable`, `multi_label`; of
            `evaluate` also `real` and `choose_from`.
        classifier: `Classifier`.

    Returns:
        `LabeledImages`.

    Raises:
        ValueError: if the data set is unknown or empty, or has other classes than the model.
    """
    real = getattr(options, "real", None)
    if real and (options.skip_unreadable or not options.folder):
        raise ValueError(
            "--real needs --folder with ImageNet's validation images, all of them readable; the data set "
            "imagenet2012_real of TFDS has the labels of ReaL itself. "
            f"Received: --real {real} {'with --skip-unreadable' if options.folder else 'without --folder'}"
        )
    split_name = _split_name(options)
    if real:
        return _real_images(options, classifier, split_name)
    config = DataConfig(
        name=options.data,
        folder=options.folder,
        arrays=options.arrays,
        num_classes=classifier.num_classes if options.arrays else None,
        batch_size=options.batch_size,
        train_split=split_name,
        data_dir=options.data_dir,
        skip_unreadable=options.skip_unreadable,
    )
    source = load_source(config, _known_names(classifier))
    if not options.arrays:  # whose classes have no names
        _check_classes(classifier, source)
    spec, skipped = classifier.input_spec, []
    # Arrays are in memory anyway.
    load = source.split if source.encoded is None else lambda name, spec: source.encoded(name)
    split, skip = load(split_name, spec), options.skip_unreadable and source.encoded is not None
    check_not_empty(len(split), source.name, split_name)
    is_real = (options.data or "").startswith("imagenet2012_real")
    multi_label = options.multi_label or _has_several(split)
    classes, choice = _classes(options, split, source)
    return LabeledImages(
        name=source.name,
        split_name=split_name,
        split=split,
        batches=evaluation_dataset(
            split, classifier.num_classes, spec, options.batch_size, skip_unreadable=skip, skipped=skipped
        ),
        skipped=skipped,
        class_names=classifier.labels and tuple(classifier.class_names),
        multi_label=multi_label and not is_real,
        label_sets=is_real,
        classes=classes,
        choice="labels of ReaL" if is_real else choice,
    )


def _real_images(options, classifier, split_name):
    """Opens images of ImageNet's validation set with the labels of ReaL."""
    _check_is_imagenet(classifier, "--real")
    folder = pathlib.Path(options.folder)
    part = folder / split_name if (folder / split_name).is_dir() else folder
    # Behind any layout of folders, as ReaL goes by the names of files.
    paths = sorted(find_images([part]), key=lambda path: path.name)
    sets = read_real(options.real, paths)
    split = EncodedFiles([str(path) for path in paths], np.zeros(len(paths), "int64"))
    batches = evaluation_dataset(split, classifier.num_classes, classifier.input_spec, options.batch_size)
    names = classifier.labels and tuple(classifier.class_names)
    return LabeledImages(
        str(folder), split_name, split, batches, [], names, False, label_sets=sets, choice="labels of ReaL"
    )


def _split_name(options):
    """Returns the split to evaluate on: `--split`, else `test`; all images of a folder without splits.

    Raises:
        ValueError: if no `--split` is given and the folder has splits, but no `test`.
    """
    if options.split or not options.folder:
        is_validation = (options.data or "").startswith("imagenet2012")
        return options.split or ("validation" if is_validation else "test")
    try:
        names = [*find_image_folder(options.folder, min_classes=1).splits]
    except ValueError:  # Loading the folder raises the same error.
        return "test"
    if names == [ALL]:
        return ALL
    if "test" not in names:
        raise ValueError(
            f"--split must name a split of the folder, which has no test split: --split {names[-1]}. "
            f"Received: no --split for {str(options.folder)!r}, which has {', '.join(names)}"
        )
    return "test"


def _known_names(classifier):
    """Returns the names that a folder may give to the classes of a model, a list of tuples."""
    names = [] if classifier.labels is None else [tuple(classifier.labels)]
    if _is_imagenet(classifier):
        # ImageNetV2 calls its folders by the numbers of the classes.
        names += [imagenet_ids(), tuple(str(number) for number in range(classifier.num_classes))]
    return names


def _is_imagenet(classifier):
    """Returns whether a model has the classes of ImageNet-1k, or 1,000 without names."""
    labels = classifier.labels
    return classifier.num_classes == 1000 if labels is None else labels in (read_labels("imagenet1k"), imagenet_ids())


def _check_is_imagenet(classifier, what):
    if not _is_imagenet(classifier):
        raise ValueError(
            f"{what} needs a model with the classes of ImageNet-1k. "
            f"Received: {classifier.name!r} with {classifier.num_classes} classes"
        )


def _check_classes(classifier, source):
    """Raises a `ValueError` unless a data set has the classes of the model, by name, as WordNet ids or as numbers."""
    names, labels = source.class_names, classifier.labels
    if labels is not None and names not in (labels, *_known_names(classifier)[1:]):
        raise ValueError(
            f"the data set must have the classes of the model. Received: {_shortened(names)} for {_shortened(labels)}"
        )
    if classifier.num_classes != len(names):
        raise ValueError(
            "the data set must have as many classes as the model. "
            f"Received: {len(names)} for num_classes={classifier.num_classes}"
        )


def _shortened(names):
    return f"{len(names)} classes, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _has_several(split):
    """Returns whether labels are rows of which one has several classes, or none."""
    labels = split.labels
    return labels is not None and labels.ndim == 2 and not np.allclose(labels.sum(axis=1), 1)


def _classes(options, split, source):
    """Returns the classes to choose among, `None` for all, and in words which they are."""
    asked, name = getattr(options, "choose_from", None), (options.data or "").partition("/")[0]
    if asked == "all":
        return None, None
    if asked == "present":
        if split.labels is None or split.labels.ndim != 1:
            raise ValueError(
                "--choose-from present needs a folder, or arrays with one class an image. "
                f"Received: {source.name!r}, whose labels come with its images"
            )
        check_labels(split.labels, len(source.class_names))
        present = np.unique(split.labels).tolist()
        return present, f"the {len(present)} classes that have images"
    if options.folder and source.class_names == imagenet_ids():
        ids = imagenet_ids()
        name = find_subset({ids[label] for label in split.labels})
    if name not in SUBSETS:
        return None, None
    return subset_classes(name), f"the 200 classes of {name}"
