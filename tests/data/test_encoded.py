"""Images that stay encoded: files, TFRecords and TFDS, their orders, caches, validation parts and failures."""

import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import warnings
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.config import AugmentConfig, DataConfig, Recipe, TrainingConfig
from keras_vit.data import (
    EncodedFiles,
    Split,
    close_iterators,
    evaluation_dataset,
    load_source,
    train_and_evaluation,
    training_dataset,
    unwrap_tf_errors,
    write_tfrecords,
)
from keras_vit.data.seeds import hashed, spread_repeats
from keras_vit.data.sources.arrays import stratified_mask
from keras_vit.data.sources.tfrecords import count_records
from keras_vit.experiment import runner as experiment
from keras_vit.image_ops.resize import normalize
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

RGB = InputSpec(size=8, interpolation="nearest")
COUNT = 20
PROJECT = pathlib.Path(__file__).parents[2]


def _image(number):
    """One color, by which the example is known again."""
    return np.full((8, 8, 3), number * 10, "uint8")


def _numbers(batches):
    return np.concatenate([np.round((x.numpy()[:, 0, 0, 0] + 1) * 12.75).astype(int) for x, *_ in batches])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for number in range(COUNT):
        path = root / "train" / "ab"[number // 10] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_image(number)).save(path)
    return root


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    examples = ((_image(number), number // 10) for number in range(COUNT))
    assert write_tfrecords(root, "train", examples, ["a", "b"], shards=3) == COUNT
    return root


@pytest.fixture(params=["folder", "tfrecords"])
def config(request):
    name = {"folder": "folder", "tfrecords": "records"}[request.param]
    values = {request.param: str(request.getfixturevalue(name)), "in_memory": False, "shuffle_buffer": 5}
    return DataConfig(**values)


def _load(config, name="train", **arguments):
    return load_source(config).load(name, config, RGB, **arguments)


def _training(split, **arguments):
    settings = {"batch_size": 4, "epochs": 3, "seed": 0, "augment": AugmentConfig(), **arguments}
    return training_dataset(split, 2, RGB, **settings)


def test_an_epoch_shows_every_example_once_and_in_a_new_order(config):
    dataset, steps = _training(_load(config))
    epochs = _numbers(dataset).reshape(3, COUNT)
    assert steps == 5
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert {tuple(y) for _, ys in dataset for y in ys.numpy()} == {(1, 0), (0, 1)}


def test_labels_stay_with_their_images(config):
    for images, targets in _training(_load(config), epochs=1)[0]:
        np.testing.assert_array_equal(targets.numpy().argmax(1), _numbers([(images,)]) // 10)


@pytest.mark.parametrize(("global_seed", "step"), [(0, 0), (7, 2)])
def test_a_resumed_run_sees_the_rest_of_an_uninterrupted_one(config, global_seed, step):
    """Whatever TensorFlow's own seed is."""
    settings = {"augment": AugmentConfig(crop_scale=(0.3, 1.0), shift=2.0, mixup=0.4), "steps_per_epoch": 3}
    settings |= {"batch_size": 6, "repeats": 3} if step else {}
    whole = [x.numpy() for x, _ in _training(_load(config), **settings)[0]]
    tf.random.set_seed(global_seed)
    rest = [x.numpy() for x, _ in _training(_load(config), first_epoch=1, first_step=step, **settings)[0]]
    assert len(whole) == 9
    np.testing.assert_array_equal(np.stack(rest), np.stack(whole[3 + step :]))


def test_going_on_within_an_epoch_decodes_nothing_of_the_steps_before(config):
    split, decoded = _load(config), []

    def read(record, original=split.read):
        counted = tf.numpy_function(lambda: decoded.append(1), [], [])
        with tf.control_dependencies([counted]):
            return original(record)

    split.read = read
    seen = _numbers(_training(split, epochs=1, first_step=3)[0])
    assert len(seen) == len(decoded) == 8


def test_another_seed_is_another_order(config):
    first, second = (_numbers(_training(_load(config), seed=seed)[0]) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_evaluation_counts_every_example_once(config, batch_size):
    dataset = evaluation_dataset(_load(config), 2, RGB, batch_size)
    numbers = _numbers(dataset)
    assert dataset.cardinality() == -(-COUNT // batch_size)
    assert sorted(numbers) == list(range(COUNT))


def test_evaluation_in_the_graph_equals_that_in_memory(config):
    encoded = evaluation_dataset(_load(config), 2, RGB, 6)
    memory = evaluation_dataset(load_source(config).split("train", RGB), 2, RGB, 6)
    for found, expected in zip(encoded, memory, strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_a_validation_part_is_apart_and_the_same_in_every_run(config, fraction):
    config = DataConfig(**{**vars(config), "validation_fraction": fraction})
    parts = [train_and_evaluation(load_source(config), config, RGB) for _ in range(2)]
    train, validation = (_numbers(evaluation_dataset(split, 2, RGB, 4)) for split in parts[0][:2])
    assert (len(train), len(validation)) == (len(parts[0][0]), len(parts[0][1]))
    assert sorted([*train, *validation]) == list(range(COUNT))
    assert abs(len(validation) - fraction * COUNT) <= 5
    np.testing.assert_array_equal(_numbers(evaluation_dataset(parts[1][1], 2, RGB, 4)), validation)
    epoch = _numbers(_training(parts[0][0], epochs=1, batch_size=1)[0])
    assert sorted(epoch) == sorted(train)


def test_a_part_is_drawn_class_by_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    part = stratified_mask(labels, 0.2)
    np.testing.assert_allclose(np.bincount(labels[part]), [20, 10, 2], atol=1)
    assert part.sum() == 32
    assert len(np.unique(np.diff(np.flatnonzero(part[:100])))) > 2  # drawn, not every fifth


def test_a_part_needs_an_image():
    with pytest.raises(ValueError, match=r"fraction=0.01 of 10 images"):
        stratified_mask(np.zeros(10, "int64"), 0.01)


def test_the_hash_spreads_and_is_the_same_in_numpy_and_tensorflow():
    numbers = np.arange(50_000)
    found = hashed(numbers)
    np.testing.assert_array_equal(tf.function(hashed)(tf.constant(numbers)).numpy(), found)
    assert len(np.unique(found)) == len(found)
    np.testing.assert_allclose(np.histogram(found, 10, (0, 2**32))[0] / 5000, 1, atol=0.05)
    low = found < 2**31
    assert np.mean(low[1:] == low[:-1]) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("cache", ["memory", "files"])
def test_a_cache_holds_the_same_examples(config, cache, tmp_path):
    cache = str(tmp_path / "cache") if cache == "files" else cache
    config = DataConfig(**{**vars(config), "cache": cache})
    for _ in range(2):  # written, and found
        epoch = _numbers(_training(_load(config), epochs=1)[0])
        assert sorted(epoch) == list(range(COUNT))
    for images, targets in evaluation_dataset(_load(config), 2, RGB, 4):
        np.testing.assert_array_equal(targets.numpy().argmax(1), _numbers([(images,)]) // 10)


def test_a_cache_in_memory_needs_its_files_no_more(config, tmp_path):
    kind = "folder" if config.folder else "tfrecords"
    copy = shutil.copytree(getattr(config, kind), tmp_path / "copy")
    split = _load(DataConfig(**{**vars(config), kind: str(copy), "cache": "memory"}))
    shutil.rmtree(copy)
    assert sorted(_numbers(_training(split, epochs=1)[0])) == list(range(COUNT))
    assert sorted(_numbers(evaluation_dataset(split, 2, RGB, 4))) == list(range(COUNT))


def test_an_order_of_chance_shows_every_example_once(records):
    """Of a stream; files are always in the order that is drawn."""
    split = _load(DataConfig(tfrecords=str(records), in_memory=False, shuffle_buffer=5, deterministic=False))
    epochs = _numbers(_training(split, epochs=2)[0]).reshape(2, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)


def test_crops_are_cut_while_a_jpeg_is_decoded(folder):
    """What lies outside is not turned into pixels."""
    split = _load(DataConfig(folder=str(folder), in_memory=False))

    def operations(augment):
        variant = tf.data.experimental.to_variant(_training(split, augment=augment)[0])
        graph = tf.raw_ops.DatasetToGraphV2(input_dataset=variant, external_state_policy=1)  # 1: as it is
        graph = tf.compat.v1.GraphDef.FromString(graph.numpy())
        return {node.op for function in graph.library.function for node in function.node_def}

    assert "DecodeAndCropJpeg" in operations(AugmentConfig(crop_scale=(0.3, 1.0)))
    whole = operations(AugmentConfig())
    assert "DecodeJpeg" in whole
    assert "DecodeAndCropJpeg" not in whole


def test_a_cache_of_another_data_set_is_refused(folder, records, tmp_path):
    _load(DataConfig(folder=str(folder), in_memory=False, cache=str(tmp_path)))
    with pytest.raises(ValueError, match="a cache must be of the same data set"):
        _load(DataConfig(tfrecords=str(records), in_memory=False, cache=str(tmp_path)))


def test_a_cache_mixes_the_classes(folder, tmp_path):
    split = _load(DataConfig(folder=str(folder), in_memory=False, cache=str(tmp_path)))
    labels = [int(label) for _, _, label in split.examples()]
    assert np.count_nonzero(np.diff(labels)) > 1


def test_small_data_sets_are_decoded_once_unless_a_crop_wants_more(folder, monkeypatch):
    auto = DataConfig(folder=str(folder))
    crop = AugmentConfig(crop_scale=(0.08, 1.0))
    assert isinstance(_load(auto), Split)
    assert isinstance(_load(auto, augment=crop), Split)  # as large as the model's images
    source = load_source(auto)
    assert isinstance(source.load("train", auto, RGB.replace(size=4), crop), EncodedFiles)
    monkeypatch.setattr("keras_vit.data.sources.load.MEMORY_LIMIT", COUNT * 8 * 8 * 3 - 1)
    assert isinstance(_load(auto), EncodedFiles)


def test_a_split_in_memory_is_cropped_too(folder):
    split = load_source(DataConfig(folder=str(folder))).split("train", RGB)
    settings = {"augment": AugmentConfig(crop_scale=(0.3, 1.0)), "steps_per_epoch": 3}
    whole = [(x.numpy(), y.numpy()) for x, y in _training(split, **settings)[0]]
    rest = [x.numpy() for x, _ in _training(split, first_epoch=1, first_step=2, **settings)[0]]
    assert len(whole) == 9
    np.testing.assert_array_equal(np.stack(rest), np.stack([x for x, _ in whole[5:]]))
    for images, targets in whole:
        np.testing.assert_array_equal(targets.argmax(1), _numbers([(tf.constant(images),)]) // 10)


def test_repeated_augmentation_keeps_an_epochs_length(config):
    for split in (_load(config), load_source(config).split("train", RGB)):
        epochs = _numbers(_training(split, epochs=2, batch_size=6, repeats=3)[0]).reshape(2, 3, 6)
        for batch in epochs.reshape(6, 6):
            np.testing.assert_array_equal(np.bincount(batch)[np.unique(batch)], [3, 3])
            np.testing.assert_array_equal(batch, np.tile(batch[:2], 3))
        assert all(len(np.unique(epoch)) == 6 for epoch in epochs)
        assert set(epochs[0].ravel()) != set(epochs[1].ravel())


def test_the_copies_of_an_image_are_changed_differently(folder):
    split = _load(DataConfig(folder=str(folder), in_memory=False))
    spec = RGB.replace(interpolation="bilinear")
    augment = AugmentConfig(shift=3.0, fill=255)
    images, _ = next(iter(training_dataset(split, 2, spec, 6, 1, 0, augment, repeats=3)[0]))
    assert len({image.tobytes() for image in images.numpy()}) == 6


@pytest.mark.parametrize("batch_size", [6, 7, 16])
def test_copies_are_dealt_apart(batch_size):
    places = spread_repeats(batch_size, 3)
    assert sorted(places) == list(range(batch_size))
    of_copies = [[i for i, place in enumerate(places) if place // 3 == image] for image in range(batch_size // 3)]
    assert min(np.diff(places).min() for places in of_copies) >= batch_size // 3


@pytest.fixture
def broken(tmp_path):
    """Two of eight images are cut short, one is empty."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
    for number in range(8):
        path = tmp_path / "train" / "a" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[number]).save(path)
        if number in (2, 3, 7):
            path.write_bytes(path.read_bytes()[: -40 if number < 7 else 0])
    return _load(DataConfig(folder=str(tmp_path), in_memory=False))


def _broken_batches(split, **arguments):
    return training_dataset(split, 1, RGB, 4, 2, 0, AugmentConfig(), **arguments)[0]


def test_an_unreadable_image_is_named(broken):
    error = pytest.raises(
        ValueError, match=r"^every image must be readable.*unreadable: [^ ]*/a/[237].jpg \([^{\[]+\)$"
    )
    with error, unwrap_tf_errors():
        list(_broken_batches(broken))
    with pytest.raises(ValueError, match=r"/a/2.jpg \("), unwrap_tf_errors():
        list(evaluation_dataset(broken, 1, RGB, 4))


@pytest.mark.slow
def test_a_process_ends_where_an_image_is_unreadable(broken, tmp_path):
    """A thread of `tf.data` that outlived the error would abort or block it."""
    (tmp_path / "train" / "b").mkdir()
    shutil.copy(tmp_path / "train" / "a" / "0.jpg", tmp_path / "train" / "b")
    settings = {
        "data.folder": tmp_path,
        "data.test_split": "train",
        "data.in_memory": False,
        "data.batch_size": 4,
        "model.image_size": 8,
        "model.num_layers": 1,
        "training.epochs": 1,
        "training.compiler": "plain",
        "optimizer.warmup_epochs": 2,
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "keras_vit_cli", "train", "vit_tiny_cifar10", *options, "--out", tmp_path / "run"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=PROJECT)
    assert answer.returncode == 1, answer.stderr
    said = [line.partition(".")[0] for line in answer.stderr.splitlines() if line.startswith("keras_vit train: ")]
    warmup, unreadable = [line.partition(": ")[2] for line in said]
    assert warmup.startswith("the warm-up of 4 updates")
    assert unreadable.startswith("every image must be readable; ")
    assert "make_optimizer.py" not in answer.stderr


def test_unreadable_images_are_replaced_in_training_and_named(broken):
    skipped = []
    with pytest.warns(UserWarning, match=r"left out: .*/a/[237].jpg"):
        batches = list(_broken_batches(broken, skip_unreadable=True, skipped=skipped))
    assert len(batches) == 4
    assert sorted(name[-5:] for name in skipped) == ["2.jpg"] * 2 + ["3.jpg"] * 2 + ["7.jpg"] * 2
    good = {image.tobytes() for (image,) in zip(evaluation_images(broken), strict=True)}
    assert {image.tobytes() for x, _ in batches for image in x.numpy()} == good


def evaluation_images(split):
    """The readable images, in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.concatenate([x.numpy() for x, _ in evaluation_dataset(split, 1, RGB, 4, skip_unreadable=True)])


def test_unreadable_images_are_missing_in_evaluation(broken):
    assert len(evaluation_images(broken)) == 5


def test_a_data_set_without_a_readable_image_stops(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "train" / "a" / f"{number}.png").write_bytes(b"none")
    split = _load(DataConfig(folder=str(tmp_path), in_memory=False))
    error = pytest.raises(ValueError, match="no image of the data set is readable")
    with error, unwrap_tf_errors(), pytest.warns(UserWarning, match="left out"):
        list(_broken_batches(split, skip_unreadable=True))


def test_python_is_asked_once_about_a_stream_that_fails(broken):
    """Threads that read ahead have nothing left to ask when the process ends."""
    asked, name_of = [], broken.name_of
    broken.name_of = lambda number: asked.append(number) or name_of(number)
    batches = iter(_broken_batches(broken))
    with pytest.raises(ValueError, match="must be readable"), unwrap_tf_errors():
        list(batches)
    time.sleep(0.2)
    assert len(asked) <= 2  # a gap of two images at most
    with pytest.raises(StopIteration):
        next(batches)


def test_no_iterator_outlives_an_error():
    kept = []

    def read():
        batches = iter(tf.data.Dataset.range(3))
        kept.append(weakref.ref(batches))
        raise KeyError

    with pytest.raises(KeyError) as error, close_iterators():
        read()
    assert error.tb is not None
    assert kept[0]() is None


def test_other_errors_of_tensorflow_stay_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), unwrap_tf_errors():
        raise tf.errors.InvalidArgumentError(None, None, "not of the images")


def test_a_label_of_a_stream_that_is_no_class_is_refused(records):
    split = _load(DataConfig(tfrecords=str(records), in_memory=False))
    for skip in (False, True):
        error = pytest.raises(ValueError, match=r"labels must be in 0..0. Received: 1..1")
        with error, unwrap_tf_errors():
            list(training_dataset(split, 1, RGB, 4, 1, 0, AugmentConfig(), skip_unreadable=skip)[0])


def test_a_broken_record_is_named_by_its_file(tmp_path):
    examples = [(_image(0), 0), (b"\xff\xd8\xff rubbish", 0), (_image(2), 0)]
    write_tfrecords(tmp_path, "train", examples, ["a"], shards=1)
    split = _load(DataConfig(tfrecords=str(tmp_path), in_memory=False))
    with pytest.raises(ValueError, match=r"record 1 of .*train-00000-of-00001.tfrecord \("), unwrap_tf_errors():
        list(evaluation_dataset(split, 1, RGB, 4))


def test_tfrecords_of_others_are_counted_and_their_features_named(tmp_path):
    for shard, numbers in enumerate(([0, 1, 2], [], [3, 4])):
        with tf.io.TFRecordWriter(str(tmp_path / f"val-{shard}.rec")) as writer:
            for number in numbers:
                png = tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(_image(number)).numpy()]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[number + 1]))
                features = tf.train.Features(feature={"png": png, "class": label})
                writer.write(tf.train.Example(features=features).SerializeToString())
    names = {"image_key": "png", "label_key": "class", "label_offset": 1, "num_classes": 5, "in_memory": False}
    config = DataConfig(tfrecords=str(tmp_path / "{split}-*.rec"), **names)
    assert [count_records(path) for path in sorted(tmp_path.iterdir())] == [3, 0, 2]
    batches = list(evaluation_dataset(_load(config, "val"), 5, RGB, 5))
    assert _numbers(batches).tolist() == list(range(5))
    np.testing.assert_array_equal(batches[0][1], np.eye(5))
    with pytest.raises(ValueError, match=r"need data.num_classes"):
        load_source(DataConfig(tfrecords=str(tmp_path / "{split}-*.rec")))
    with pytest.raises(ValueError, match=r"TFRecords must match their pattern.*split='test': no files"):
        _load(config, "test")


def test_a_file_cut_short_is_no_tfrecord(records, tmp_path):
    whole = next(iter(records.glob("*.tfrecord"))).read_bytes()
    for size in (len(whole) - 1, 5):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"must hold whole records. Received: .*cut', cut short"):
            count_records(tmp_path / "cut")


def test_examples_may_have_several_classes_or_none(tmp_path):
    rows = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], "float32")
    write_tfrecords(tmp_path, "train", zip(map(_image, range(4)), rows, strict=True), "abc", shards=2)
    config = DataConfig(tfrecords=str(tmp_path), multi_label=True)
    for in_memory in (True, False):
        split = _load(DataConfig(**{**vars(config), "in_memory": in_memory}))
        for dataset in (
            evaluation_dataset(split, 3, RGB, 4),
            training_dataset(split, 3, RGB, 4, 1, 0, AugmentConfig())[0],
        ):
            ((images, targets),) = list(dataset)
            np.testing.assert_array_equal(targets, rows[_numbers([(images,)])])


@pytest.mark.parametrize(("name", "split"), [("cifar10", "train"), ("imagenet2012", "validation")])
def test_tfds_streams_from_mock_data(name, split, tmp_path):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=5):
        config = DataConfig(name=name, data_dir=str(tmp_path), in_memory=False)
        source = load_source(config)
        encoded = source.load(split, config, RGB)
        classes = len(source.class_names)
        augment = AugmentConfig(crop_scale=(0.08, 1.0))
        dataset, steps = training_dataset(encoded, classes, RGB, 2, 1, 0, augment)
        trained = [x.numpy() for x, _ in dataset]
        evaluated = list(evaluation_dataset(encoded, classes, RGB, 3))
    assert classes == {"cifar10": 10, "imagenet2012": 1000}[name]
    assert (len(encoded), steps, len(trained)) == (5, 2, 2)
    assert [len(y) for _, y in evaluated] == [3, 2]


def test_tfds_streams_from_its_files(tmp_path):
    import tensorflow_datasets as tfds

    tfds.testing.DummyMnist(data_dir=str(tmp_path)).download_and_prepare()
    config = DataConfig(name="dummy_mnist", data_dir=str(tmp_path), download=False, in_memory=False)
    gray = InputSpec(size=8, mean=(0.5,), std=(0.5,))
    source = load_source(config)
    parts = [source.load(name, config, gray) for name in ("train", "train[:30%]", "train[30%:]")]
    assert [len(part) for part in parts] == [20, 6, 14]
    assert parts[2].name_of(0).startswith("record 0 of ")
    labels = [np.concatenate([y.numpy().argmax(1) for _, y in evaluation_dataset(p, 10, gray, 4)]) for p in parts]
    np.testing.assert_array_equal(labels[0], np.concatenate(labels[1:]))
    in_memory = source.split("train", gray)
    np.testing.assert_array_equal(in_memory.labels, labels[0])
    assert len(list(training_dataset(parts[0], 10, gray, 5, 2, 0, AugmentConfig())[0])) == 8


def _public_data():
    if "KERAS_VIT_DATA" not in os.environ:
        pytest.skip("KERAS_VIT_DATA is not set")
    return pathlib.Path(os.environ["KERAS_VIT_DATA"])


def test_the_graph_decodes_cifar10_jpeg_as_pillow_does(tmp_path):
    with tarfile.open(_public_data() / "cifar10_jpeg.tar.gz") as archive:
        for member in itertools.islice(archive, 40):
            archive.extract(member, tmp_path, filter="data")
    split = next(path.name for path in tmp_path.iterdir())
    source, spec = load_source(DataConfig(folder=str(tmp_path), train_split=split)), InputSpec(size=32)
    in_memory = source.split(split, spec)
    encoded = evaluation_dataset(source.encoded(split), len(source.class_names), spec, 64)
    images = np.concatenate([x.numpy() for x, _ in encoded])
    assert len(images) > 30
    np.testing.assert_array_equal(np.round((images + 1) * 127.5), in_memory.images)


def test_the_graph_prepares_photographs_as_pillow_does(tmp_path):
    folder = tmp_path / "val" / "photograph"
    folder.mkdir(parents=True)
    for path in sorted((_public_data() / "imagenet_samples").glob("*.JPEG"))[:4]:
        (folder / path.name).symlink_to(path)
    source = load_source(DataConfig(folder=str(tmp_path), train_split="val"))
    spec = InputSpec(size=64, crop_fraction=0.9)
    ((images, _),) = evaluation_dataset(source.encoded("val"), 1, spec, 4)
    difference = np.abs(np.round((images.numpy() + 1) * 127.5) - source.split("val", spec).images)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.001


@pytest.mark.filterwarnings("error:Your input ran out")
@pytest.mark.long
def test_a_recipe_trains_on_a_stream_and_goes_on(records, tmp_path):
    data = {"tfrecords": str(records), "validation_fraction": 0.4, "in_memory": False, "batch_size": 3}
    data["aug_repeats"] = 3
    data["skip_unreadable"] = True  # of which nobody knows the number of batches
    model = ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=2)
    augment = AugmentConfig(crop_scale=(0.3, 1.0), flip=True)
    training = TrainingConfig(epochs=2, compiler="plain")
    recipe = Recipe(name="stream", model=model, data=DataConfig(**data), augment=augment, training=training)
    first = experiment.run(recipe, tmp_path / "run", log=lambda text: None)
    assert first.evaluation["split"] == "validation"
    assert first.evaluation["examples"] + len(first.splits[0]) == COUNT
    image, label = first.splits[1].example(RGB)
    assert image.shape == (8, 8, 3)
    assert label in (0, 1)
    again = experiment.run(recipe, tmp_path / "run", log=lambda text: None)
    assert again.evaluation == first.evaluation


def test_every_second_image_is_mirrored_once(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    pixels = np.zeros((8, 8, 3), "uint8")
    pixels[:, :4] = 255
    for number in range(64):
        Image.fromarray(pixels).save(tmp_path / "train" / "a" / f"{number}.png")
    split = _load(DataConfig(folder=str(tmp_path), in_memory=False))
    ((images, _),) = training_dataset(split, 1, RGB, 64, 1, 0, AugmentConfig(flip=True))[0]
    mirrored = images.numpy()[:, 0, 0, 0] < 0
    np.testing.assert_array_equal(images[:, 0, -1, 0] > 0, mirrored)
    assert 20 < mirrored.sum() < 44


def test_batches_are_normalized_as_by_the_input_spec():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3)).astype("uint8")
    spec = InputSpec(size=(4, 6), mean=(0.1, 0.5, 0.3), std=(0.4, 0.2, 0.6))
    np.testing.assert_array_equal(normalize(tf.constant(images), spec), spec.normalize(images))
