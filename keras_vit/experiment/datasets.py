"""The data sets of a recipe, each worker of a strategy making its part of them."""

import os

from keras_vit.data import Part, Service, evaluation_dataset, steps_of_epoch, training_dataset
from keras_vit.distribution.strategies import distribute_shards


def training_data(recipe, split, strategy, workers):
    """What a recipe trains on.

    Args:
        recipe: `Recipe`.
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        strategy: `tf.distribute.Strategy`.
        workers: `keras_vit.training.Workers` of it.

    Returns:
        The callable from the first epoch, and the steps of it that are left out, to a data set; the steps of an epoch;
        and how workers divide the data: `data` or `file`, see `DistributionConfig`.

    Raises:
        ValueError: as `keras_vit.data.training_dataset`; if no service answers at the address of one.
    """
    settings, data = recipe.training, recipe.data
    sharding = recipe.distribution.sharding
    if sharding == "auto":
        sharding = "file" if len(getattr(split, "shards", ())) >= workers.count > 1 else "data"
    by_files = sharding == "file" and workers.count > 1
    # Every start is a job of its own for a service, the same one for all workers.
    job = workers.broadcast(os.urandom(8)).hex() if workers.count > 1 else None
    service = Service(data.service, job) if data.service else None
    if service:
        service.check()
    steps = settings.steps_per_epoch or steps_of_epoch(split, data.batch_size, Part(0, workers.count, by_files))

    def dataset(first_epoch, first_step):
        def make(part):
            batches, _ = training_dataset(
                split,
                recipe.model.num_classes,
                recipe.input_spec,
                data.batch_size,
                settings.epochs,
                settings.seed,
                recipe.augment,
                first_epoch,
                settings.steps_per_epoch,
                first_step=first_step,
                repeats=data.aug_repeats,
                class_weights=data.class_weights,
                skip_unreadable=data.skip_unreadable,
                part=part,
                service=service,
            )
            # Without an end: where there is one, workers ask each other in every step whether it has come.
            return batches.repeat() if part else batches

        return distribute_shards(strategy, make, data.batch_size, by_files)

    return dataset, steps, sharding


def evaluation_data(recipe, split, strategy, skipped=None):
    """The batches that a model is judged by, every example once.

    Args:
        recipe, split, strategy: as for `training_data`.
        skipped: list or `None`. The names of unreadable images are appended: those of this worker.

    Returns:
        What `evaluate` takes.
    """

    def make(part):
        batches = evaluation_dataset(
            split,
            recipe.model.num_classes,
            recipe.input_spec,
            recipe.data.batch_size,
            skip_unreadable=recipe.data.skip_unreadable,
            skipped=skipped,
            part=part,
        )
        limit = recipe.training.evaluation_steps
        return batches.take(limit) if limit else batches

    return distribute_shards(strategy, make)
