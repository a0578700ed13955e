"""A `tf.data` service of a dispatcher and two workers makes the batches of a run."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config import AugmentConfig, DataConfig, Recipe, TrainingConfig
from keras_vit.data import EncodedFiles, EncodedShards, Split, training_dataset
from keras_vit.data.pipeline.tf_data_service import PIECE, DataService
from keras_vit.data.pipeline.worker_shard import WorkerShard
from keras_vit.experiment import runner as experiment
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

COUNT, BATCH, EPOCHS = 120, 4, 3
GRAY = InputSpec.symmetric((4, 4), 1)
IMAGES = np.tile(np.arange(COUNT, dtype="uint8")[:, None, None, None], (1, 4, 4, 1))
LABELS = np.arange(COUNT) % 2
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]


@pytest.fixture(scope="module")
def address():
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    name = dispatcher.target.partition("://")[2]
    workers = [service.WorkerServer(service.WorkerConfig(dispatcher_address=name)) for _ in range(2)]
    yield dispatcher.target
    del workers, dispatcher  # which end by that


def _stream():
    """Four files with 30 examples each."""
    return EncodedShards(
        ["a", "b", "c", "d"],
        [30] * 4,
        lambda shard: tf.data.Dataset.range(30).map(lambda number: 30 * shard + number),
        lambda number: (tf.gather(PNGS, number), tf.gather(LABELS, number)),
        buffer=16,
    )


def _batches(split, augment=AugmentConfig(), **settings):  # noqa: B008, frozen
    return training_dataset(split, 2, GRAY, BATCH, EPOCHS, 5, augment, **settings)[0]


def _images(batches):
    return [image.tobytes() for images, _ in batches for image in images.numpy()]


def _numbers(batches):
    return [round((image.numpy()[0, 0, 0] + 1) * 127.5) for images, _ in batches for image in images]


@pytest.mark.parametrize(
    ("split", "augment"),
    [
        (Split(IMAGES, LABELS), AugmentConfig(shift=1.0, mixup=0.5)),
        (EncodedFiles([str(i) for i in range(COUNT)], LABELS, PNGS), AugmentConfig(crop_scale=(0.2, 1.0))),
    ],
    ids=["memory", "files"],
)
def test_the_batches_are_those_that_the_run_would_make_itself(address, split, augment):
    own = list(_batches(split, augment))
    served = list(_batches(split, augment, service=DataService(address)))
    assert len(own) == EPOCHS * COUNT // BATCH > 2 * PIECE
    assert sorted(_images([batch]) for batch in served) == sorted(_images([batch]) for batch in own)
    assert served[0][0].shape == own[0][0].shape


def test_a_stream_comes_whole_in_every_epoch(address):
    """With one epoch more, of which the run takes what it needs; the rest of the workers' batches is left out."""
    numbers = _numbers(_batches(_stream(), service=DataService(address)))
    counts = collections.Counter(numbers)
    assert set(counts) == set(range(COUNT))
    assert min(counts.values()) >= EPOCHS
    assert max(counts.values()) <= EPOCHS + 1
    assert numbers[:COUNT] != sorted(numbers[:COUNT])


def test_every_batch_goes_to_one_worker_of_the_run(address):
    parts = [
        iter(_batches(Split(IMAGES, LABELS), shard=WorkerShard(i, 2), service=DataService(address, "run")))
        for i in range(2)
    ]
    seen = [[], []]
    for _ in range(EPOCHS * COUNT // BATCH):  # in step, as the workers of a strategy are
        for own, part in zip(seen, parts, strict=True):
            images, targets = next(part)
            assert images.shape == (BATCH // 2, 4, 4, 1)
            numbers = _numbers([(images, targets)])
            assert targets.numpy().argmax(1).tolist() == [number % 2 for number in numbers]
            own += numbers
    counts = collections.Counter(seen[0] + seen[1])
    assert sum(counts.values()) == EPOCHS * COUNT
    assert set(counts) == set(range(COUNT))
    assert max(counts.values()) <= EPOCHS + 1


def test_a_run_that_goes_on_begins_near_its_step(address):
    whole = list(_batches(Split(IMAGES, LABELS), service=DataService(address)))
    rest = list(_batches(Split(IMAGES, LABELS), first_epoch=1, first_step=PIECE + 3, service=DataService(address)))
    assert len(whole) - len(rest) == COUNT // BATCH + PIECE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_unreadable": True}, "skip_unreadable=True"),
        ({"shard": WorkerShard(0, 3)}, "batch_size must be a multiple"),
    ],
)
def test_what_a_service_cannot_do_is_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        _batches(Split(IMAGES, LABELS), service=DataService("grpc://nowhere:1"), **arguments)


@pytest.mark.parametrize("service", ["localhost:5000", "http://localhost:5000", "grpc://localhost"])
def test_a_service_has_a_protocol_and_a_port(service):
    with pytest.raises(ValueError, match="grpc://host:port"):
        DataConfig(name="digits", service=service)


def _recipe(folder, service):
    images = np.repeat(IMAGES, 3, axis=-1)
    np.savez(folder / "set.npz", x_train=images, y_train=LABELS, x_test=images[:10], y_test=LABELS[:10])
    return Recipe(
        name="served",
        model=ViTConfig(image_size=4, patch_size=2, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8),
        data=DataConfig(arrays=str(folder / "set.npz"), batch_size=BATCH, service=service),
        training=TrainingConfig(epochs=2),
    )


def test_a_recipe_trains_on_what_a_service_makes(address, tmp_path):
    run = experiment.run(_recipe(tmp_path, address), tmp_path / "run", log=lambda text: None)
    losses = [epoch["loss"] for epoch in run.record["epochs"]]
    assert len(losses) == 2
    assert 0 < losses[0] != losses[1] > 0
    assert run.evaluation["examples"] == 10


def test_a_service_that_does_not_answer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"must answer at its address. Received: service='grpc://localhost:1' \("):
        experiment.run(_recipe(tmp_path, "grpc://localhost:1"), tmp_path / "run", log=lambda text: None)
