"""What several workers make of a run's batches: together the batches of one, and no more than that takes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config import AugmentConfig, DataConfig, DistributionConfig, Recipe
from keras_vit.data import EncodedFiles, EncodedShards, Split, evaluation_dataset, training_dataset
from keras_vit.data.pipeline.worker_shard import WorkerShard
from keras_vit.experiment.datasets import training_data
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec
from keras_vit.training.loop.run_context import RunContext
from keras_vit.training.loop.workers import Workers

COUNT, BATCH, CLASSES = 37, 9, 4
RGB = InputSpec.symmetric((8, 8), 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 8, 8, 3), dtype="uint8")
LABELS = RNG.integers(0, CLASSES, COUNT)
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]
CROPS = {"crop_scale": (0.3, 1.0), "flip": True, "random_erasing_prob": 0.5}


def _shards(count=COUNT, files=5):
    """A stream of files, dealt to them in turn."""
    numbers = [np.arange(count)[i::files] for i in range(files)]
    table = tf.ragged.constant([list(part) for part in numbers], tf.int64)

    def parse(number):
        return tf.gather(PNGS, number), tf.gather(LABELS, number)

    return EncodedShards(
        [f"file {i}" for i in range(files)],
        [len(part) for part in numbers],
        lambda shard: tf.data.Dataset.from_tensor_slices(table[shard]),
        parse,
        buffer=7,
    )


SPLITS = {
    "memory": lambda: Split(IMAGES, LABELS),
    "files": lambda: EncodedFiles([str(i) for i in range(COUNT)], LABELS, PNGS),
    "stream": _shards,
}


def _training(split, augment, **arguments):
    batches, _ = training_dataset(split, CLASSES, RGB, BATCH, 2, 3, augment, **arguments)
    return [tuple(column.numpy() for column in batch) for batch in batches]


def _keys(batches):
    """Each example as something that can be counted."""
    return [image.tobytes() for images, *_ in batches for image in np.asarray(images)]


@pytest.mark.parametrize(
    ("kind", "workers", "repeats", "augment"),
    [
        (
            "memory",
            2,
            3,
            AugmentConfig(padding=1, flip=True, random_erasing_prob=0.5, mixup=0.8, cutmix=1.0, mixup_mode="sample"),
        ),
        ("memory", 4, 1, AugmentConfig(shift=1.0, rotation=10.0, zoom=0.1, flip=True, mixup=0.4)),
        ("memory", 2, 1, AugmentConfig(**CROPS)),
        ("files", 3, 3, AugmentConfig(**CROPS, mixup=0.8, cutmix=1.0, mixup_mode="batch")),
        ("stream", 2, 1, AugmentConfig(**CROPS, cutmix=1.0, mixup_mode="sample", mixup_prob=0.5)),
    ],
)
def test_the_rows_of_all_workers_are_the_batches_of_one(kind, workers, repeats, augment):
    """Bit by bit, whatever is drawn and mixed, also where the workers do not divide the batch and within an epoch."""
    split, settings = SPLITS[kind](), {"repeats": repeats, "first_epoch": 1, "first_step": 1}
    whole = _training(split, augment, **settings)
    assert len(whole) == 3
    parts = [_training(split, augment, shard=WorkerShard(i, workers), **settings) for i in range(workers)]
    for batches in zip(whole, *parts, strict=True):
        for column, *rows in zip(*batches, strict=True):
            np.testing.assert_array_equal(np.concatenate(rows), column)


@pytest.mark.parametrize(("augment", "made"), [(AugmentConfig(), 3), (AugmentConfig(mixup=0.5, mixup_mode="batch"), 6)])
def test_a_worker_decodes_its_rows_and_those_that_they_are_mixed_with(augment, made):
    split, decoded = SPLITS["files"](), []

    def read(number, original=split.read):
        with tf.control_dependencies([tf.numpy_function(decoded.append, [number], [])]):
            return original(number)

    split.read = read
    batches = _training(split, augment, shard=WorkerShard(2, 3))
    assert len(batches) == 8
    assert len(decoded) == 8 * made


def test_weights_and_class_weights_stay_with_their_rows():
    split = Split(IMAGES, LABELS, RNG.uniform(size=COUNT).astype("float32"))
    settings = {"augment": AugmentConfig(flip=True), "class_weights": (1.0, 2.0, 3.0, 4.0)}
    whole = _training(split, **settings)
    parts = [_training(split, shard=WorkerShard(i, 2), **settings) for i in range(2)]
    for (_, _, weights), *rows in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([w for _, _, w in rows]), weights)


def test_by_files_every_worker_reads_others_and_all_have_as_many_steps():
    split, workers = _shards(files=5), 2
    parts = [_training(split, AugmentConfig(), shard=WorkerShard(i, workers, by_files=True)) for i in range(workers)]
    assert len({len(part) for part in parts}) == 1
    assert sum(len(part[0][0]) for part in parts) == BATCH
    epochs = [[_keys(part[: len(part) // 2]), _keys(part[len(part) // 2 :])] for part in parts]
    for epoch in range(2):
        seen = [key for part in epochs for key in part[epoch]]
        assert len(set(seen)) == len(seen) == len(parts[0]) // 2 * BATCH
    assert epochs[0][0] != epochs[0][1]
    again = _training(split, AugmentConfig(), shard=WorkerShard(0, workers, by_files=True))
    assert _keys(again) == _keys(parts[0])


def test_by_files_a_run_goes_on_where_it_was():
    split, augment = _shards(files=5), AugmentConfig(**CROPS)
    for i in range(2):
        shard = WorkerShard(i, 2, by_files=True)
        whole = _training(split, augment, shard=shard)
        steps = len(whole) // 2
        assert steps > 2
        rest = _training(split, augment, shard=shard, first_epoch=1, first_step=1)
        assert len(rest) == steps - 1
        assert _keys(rest) == _keys(whole[steps + 1 :])


@pytest.mark.parametrize(
    ("shards", "workers", "wanted", "chosen"),
    [
        (None, 2, "auto", "data"),  # images in memory
        (1, 2, "auto", "data"),
        (2, 2, "auto", "file"),
        (5, 2, "auto", "file"),
        (5, 1, "auto", "data"),
        (5, 2, "data", "data"),
        (5, 2, "file", "file"),
    ],
)
def test_a_recipe_is_divided_by_files_where_every_worker_has_one(shards, workers, wanted, chosen, tmp_path):
    recipe = Recipe(
        name="recipe",
        model=ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=4),
        data=DataConfig(name="digits", batch_size=BATCH),
        distribution=DistributionConfig(sharding=wanted),
    )
    split = _shards(files=shards) if shards else SPLITS["memory"]()
    context = RunContext(tmp_path, tf.distribute.get_strategy(), Workers(count=workers))
    data = training_data(recipe, split, context)
    assert data.sharding == chosen
    # Of 37 rows 4 batches of 9; of its own files each worker makes batches of 4 and of 5 rows, the second one only 3.
    assert data.steps_per_epoch == (3 if chosen == "file" else 4)


def test_by_files_workers_draw_other_changes():
    """Each for its n-th image, which is the same one here."""
    png = tf.io.encode_png(IMAGES[0]).numpy()
    split = EncodedShards(
        ["a", "b"], [20, 20], lambda shard: tf.data.Dataset.range(20), lambda n: (png, tf.constant(0, tf.int64)), 1
    )
    first, second = (_keys(_training(split, AugmentConfig(flip=True), shard=WorkerShard(i, 2, True))) for i in range(2))
    assert set(first) == set(second)
    assert len(set(first)) == 2
    mirrored = [[key == first[0] for key in keys] for keys in (first, second)]
    assert mirrored[0] != mirrored[1][: len(first)]


@pytest.mark.parametrize(("kind", "workers"), [("memory", 2), ("files", 3), ("stream", 3)])
def test_evaluation_deals_every_example_to_one_worker(kind, workers):
    split = SPLITS[kind]()
    whole = [tuple(x.numpy() for x in batch) for batch in evaluation_dataset(split, CLASSES, RGB, BATCH)]
    parts = [
        list(evaluation_dataset(split, CLASSES, RGB, BATCH, shard=WorkerShard(i, workers))) for i in range(workers)
    ]
    assert sorted(key for part in parts for key in _keys(part)) == sorted(_keys(whole))
    lengths = [len(_keys(part)) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert sum(y.numpy().sum(0) for part in parts for _, y in part).tolist() == np.bincount(LABELS).tolist()


@pytest.mark.parametrize(
    ("split", "shard", "message"),
    [
        (SPLITS["memory"], WorkerShard(0, 10), "a row for every worker"),
        (SPLITS["memory"], WorkerShard(0, 2, True), "a stream of as many files as workers"),
        (_shards, WorkerShard(0, 6, True), "a stream of as many files as workers"),
        (lambda: _shards(12, 3), WorkerShard(0, 3, True), None),
        (lambda: _shards(5, 3), WorkerShard(0, 3, True), "the files of every worker must hold at least one batch"),
    ],
)
def test_splits_that_cannot_be_sharded_are_refused(split, shard, message):
    if message is None:
        assert len(_training(split(), AugmentConfig(), shard=shard)) == 2
        return
    with pytest.raises(ValueError, match=message):
        _training(split(), AugmentConfig(), shard=shard)
