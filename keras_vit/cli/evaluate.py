"""`keras_vit evaluate`: loss and accuracy of a model on a data set."""

import warnings

import keras
import tensorflow as tf

from keras_vit.cli.console import CONSOLE, say, warn
from keras_vit.cli.predictor import classifier
from keras_vit.config import DataConfig
from keras_vit.data import close_iterators, evaluation_dataset, ignore_end_of_data, load_source, unwrap_tf_errors
from keras_vit.data.labels import check_not_empty
from keras_vit.data.sources.folder import ALL, find_image_folder
from keras_vit.data.unreadable import skipped_message
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.metadata import metadata, output
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels
from keras_vit.zoo.create import is_saved_model, load_model


def evaluate(options):
    """Prints loss and accuracy of a model on a split of a data set."""
    split_name = _split_name(options)
    config = DataConfig(
        name=options.data,
        folder=options.folder,
        batch_size=options.batch_size,
        train_split=split_name,
        data_dir=options.data_dir,
        skip_unreadable=options.skip_unreadable,
    )
    loaded = LoadedSavedModel(options.model) if is_saved_model(options.model) else load_model(options.model)
    content = loaded.metadata if isinstance(loaded, LoadedSavedModel) else metadata(loaded)
    names = [] if content.labels is None else [content.labels]
    source = load_source(config, [*names, imagenet_ids()] if names == [read_labels("imagenet1k")] else names)
    model, num_classes, has_logits = _classifier(loaded, source.class_names)
    _check_classes(content, num_classes, source)
    spec, skipped = content.input_spec, []
    # Arrays are in memory anyway.
    load = source.split if source.encoded is None else lambda name, spec: source.encoded(name)
    split, skip = load(split_name, spec), options.skip_unreadable and source.encoded is not None
    check_not_empty(len(split), source.name, split_name)
    batches = evaluation_dataset(split, num_classes, spec, options.batch_size, skip_unreadable=skip, skipped=skipped)
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(from_logits=has_logits),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            # With five classes or fewer the right one is always among the best five.
            *([keras.metrics.TopKCategoricalAccuracy(5, name="top-5")] if num_classes > 5 else []),
            _Count(name="images"),
        ],
    )
    with close_iterators(), unwrap_tf_errors(), ignore_end_of_data(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* left out: ")  # They are listed below.
        try:
            results = model.evaluate(batches, return_dict=True, verbose="auto" if CONSOLE.is_terminal else 0)
        except (ValueError, tf.errors.OpError):
            check_not_empty(len(split) - len(skipped), source.name, split_name)
            raise
    count = int(results.pop("images"))
    measures = ", ".join(f"{name} {float(value):.4f}" for name, value in results.items())
    say(f"{source.name}, {split_name}: {count:,} images, {measures}")
    if skipped:
        warn(skipped_message(skipped, limit=None))


def _split_name(options):
    """Returns the split to evaluate on: `--split`, else `test`; all images of a folder without splits.

    Raises:
        ValueError: if no `--split` is given and the folder has splits, but no `test`.
    """
    if options.split or not options.folder:
        return options.split or "test"
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


def _classifier(loaded, class_names):
    """Returns `(model with one output per class, number of classes, whether outputs are logits)`."""
    if isinstance(loaded, LoadedSavedModel):
        return loaded.keras_model(), loaded.num_classes, loaded.has_logits
    model, has_probabilities = classifier(loaded, class_names)
    return model, max(output(loaded).units, 2), not has_probabilities


class _Count(keras.metrics.Sum):
    """Number of examples."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(keras.ops.ones(keras.ops.shape(y_true)[0]))


def _check_classes(content, num_classes, source):
    """Raises a `ValueError` unless a data set has the classes of the model, by name or as WordNet ids."""
    names, labels = source.class_names, content.labels
    if labels is not None and labels != names and not (names == imagenet_ids() and labels == read_labels("imagenet1k")):
        raise ValueError(
            f"the data set must have the classes of the model. Received: {_shortened(names)} for {_shortened(labels)}"
        )
    if num_classes != len(names):
        raise ValueError(
            f"the data set must have as many classes as the model. Received: {len(names)} for num_classes={num_classes}"
        )


def _shortened(names):
    return f"{len(names)} classes, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
