"""The datasets of a recipe; with several workers, each of them makes its own shard."""

import contextlib
import dataclasses
import os

from keras_vit.config.from_weights import complete_from_weights
from keras_vit.data import (
    DataService,
    WorkerShard,
    evaluation_dataset,
    ignore_end_of_data,
    load_mask_source,
    load_source,
    masked_evaluation_dataset,
    masked_training_dataset,
    steps_of_epoch,
    train_and_evaluation,
    training_dataset,
    unwrap_tf_errors,
)
from keras_vit.distribution.strategies import distribute_shards


@dataclasses.dataclass(frozen=True)
class Splits:
    """The examples of a run.

    Args:
        source: str. The name of their source.
        class_names: tuple of str.
        train: `Split`, `EncodedFiles` or `EncodedShards`.
        evaluation: likewise: the validation split, if the recipe has one, else the test split.
        evaluation_name: str.
    """

    source: str
    class_names: tuple
    train: object
    evaluation: object
    evaluation_name: str


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The training batches of a run.

    Args:
        dataset: callable from an epoch and a step to a dataset of all batches from there on.
        steps_per_epoch: int.
        sharding: `data` or `file`: the division among workers, see `DistributionConfig`.
    """

    dataset: object
    steps_per_epoch: int
    sharding: str


def load_splits(recipe, source, context):
    """Loads the examples of a recipe, on the chief first: other workers find the files that it has downloaded.

    Args:
        recipe: `Recipe`.
        source: `keras_vit.data.Source`, or `None` for the one that `recipe.data` names.
        context: `RunContext`.

    Returns:
        The recipe, its model adapted to the data, and the `Splits`.

    Raises:
        ValueError: on bad data, see `keras_vit.data`.
    """
    for is_turn_of_chief in (True, False):
        with context.workers.fail_together():
            if context.workers.is_chief is is_turn_of_chief:
                recipe = complete_from_weights(recipe)
                source = source or open_source(recipe)
                recipe = _adapt_to_source(recipe, source, context.log)
                # Masks are decoded with their images, in every step.
                data = dataclasses.replace(recipe.data, in_memory=False) if recipe.segmentation else recipe.data
                train, evaluation, name = train_and_evaluation(source, data, recipe.input_spec, recipe.augment)
    context.log(f"data: {source.name}, {len(train):,} training images, {len(evaluation):,} images in {name!r}")
    return recipe, Splits(source.name, source.class_names, train, evaluation, name)


def open_source(recipe):
    """Opens the data set that a recipe names: images with classes, or with masks.

    Args:
        recipe: `Recipe`.

    Returns:
        A `keras_vit.data.Source`; nothing large is read yet.

    Raises:
        ValueError: as `keras_vit.data.load_source` and `load_mask_source`.
    """
    return load_mask_source(recipe.data, recipe.segmentation) if recipe.segmentation else load_source(recipe.data)


def _adapt_to_source(recipe, source, log):
    num_classes = len(source.class_names)
    is_classifier = not recipe.masking and not recipe.data.multi_label
    if is_classifier and num_classes < 2:
        raise ValueError(
            "a classifier needs at least two classes: with one there is nothing to learn. "
            f"Received: {source.name!r} with the classes {source.class_names}"
        )
    if num_classes != recipe.model.num_classes:
        log(
            f"{source.name} has {num_classes} classes: the head gets {num_classes} outputs "
            f"(recipe: {recipe.model.num_classes})"
        )
    return recipe.for_data(num_classes, source.num_channels)


def training_data(recipe, split, context):
    """Prepares the training batches of a recipe.

    Args:
        recipe: `Recipe`.
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        context: `RunContext`.

    Returns:
        `TrainingData`.

    Raises:
        ValueError: as `keras_vit.data.training_dataset`; if the `tf.data` service of the recipe does not answer.
    """
    settings, data, workers = recipe.training, recipe.data, context.workers
    sharding = recipe.distribution.sharding
    if sharding == "auto":
        sharding = "file" if len(getattr(split, "shards", ())) >= workers.count > 1 else "data"
    by_files = sharding == "file" and workers.count > 1
    # A `tf.data` service needs a new job for every start of a run, the same one on all workers.
    job = workers.broadcast(os.urandom(8)).hex() if workers.count > 1 else None
    service = DataService(data.service, job) if data.service else None
    if service:
        service.check_reachable()
    steps = settings.steps_per_epoch or steps_of_epoch(split, data.batch_size, WorkerShard(0, workers.count, by_files))

    def dataset(first_epoch, first_step):
        def make(shard):
            if recipe.segmentation:
                batches = masked_training_dataset(
                    split,
                    recipe.model.num_classes,
                    recipe.input_spec,
                    data,
                    recipe.segmentation,
                    recipe.augment,
                    settings,
                    first_epoch,
                    first_step,
                    steps,
                    shard,
                )
                return batches.repeat() if shard else batches
            batches, _ = training_dataset(
                split,
                recipe.model.num_classes,
                recipe.input_spec,
                data.batch_size,
                settings.epochs,
                settings.seed,
                recipe.augment,
                first_epoch,
                steps,
                first_step=first_step,
                repeats=data.aug_repeats,
                class_weights=data.class_weights,
                skip_unreadable=data.skip_unreadable,
                shard=shard,
                service=service,
            )
            # An endless dataset spares the workers a question in every step: whether one of them is at its end.
            return batches.repeat() if shard else batches

        return distribute_shards(context.strategy, make, data.batch_size, by_files)

    return TrainingData(dataset, steps, sharding)


def evaluation_data(recipe, split, strategy, skipped=None):
    """Makes the batches of an evaluation, with each example once.

    Args:
        recipe: `Recipe`.
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        strategy: `tf.distribute.Strategy`.
        skipped: list or `None`. The names of unreadable images of this worker are appended.

    Returns:
        A dataset for `evaluate`.
    """

    def make(shard):
        if recipe.segmentation:
            arguments = (recipe.model.num_classes, recipe.input_spec, recipe.data, recipe.segmentation)
            batches = masked_evaluation_dataset(split, *arguments, shard)
        else:
            batches = evaluation_dataset(
                split,
                recipe.model.num_classes,
                recipe.input_spec,
                recipe.data.batch_size,
                skip_unreadable=recipe.data.skip_unreadable,
                skipped=skipped,
                shard=shard,
            )
        limit = recipe.training.evaluation_steps
        return batches.take(limit) if limit else batches

    return distribute_shards(strategy, make)


@contextlib.contextmanager
def reading_errors(recipe):
    """A context that raises the errors of the data without TensorFlow's wrapping.

    If unreadable images are skipped, the length of an evaluation is unknown, and the end of the data no warning.
    """
    with unwrap_tf_errors(), ignore_end_of_data() if recipe.data.skip_unreadable else contextlib.nullcontext():
        yield
