"""Sources, folders, augmentation and the batches that come out."""

import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.config import AugmentConfig, DataConfig
from keras_vit.data import Source, Split, evaluation_dataset, load_source, read_images, training_dataset
from keras_vit.data.augment.augment import affine, mixup
from keras_vit.data.sources.load import train_and_evaluation
from keras_vit.preprocessing import InputSpec

GRAY = InputSpec(size=8, mean=(0.5,), std=(0.5,))
RGB = InputSpec(size=8)
SEED = tf.constant([1, 2])


def _split(examples, size=4, channels=1):
    images = np.arange(examples, dtype="uint8").reshape(-1, 1, 1, 1) * np.ones((1, size, size, channels), "uint8")
    return Split(images, np.arange(examples) % 3)


def _seen(dataset):
    """The pixel of every image of a dataset, which is the number of its example."""
    return [np.round((batch.numpy()[:, 0, 0, 0] + 1) * 127.5).astype(int) for batch, _ in dataset]


def _training(split, **arguments):
    spec = GRAY.replace(size=split.images.shape[1])
    settings = {"batch_size": 4, "epochs": 3, "seed": 0, "augment": AugmentConfig(), **arguments}
    return training_dataset(split, 3, spec, **settings)


def test_the_digits_are_split_in_halves_as_by_scikit_learn():
    source = load_source(DataConfig(name="digits"))
    train, test = source.split("train", GRAY), source.split("test", GRAY)
    assert (len(train), len(test)) == (898, 899)
    assert train.images.shape == (898, 8, 8, 1)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.labels[:5].tolist() == [0, 1, 2, 3, 4]


def test_an_epoch_shows_every_example_at_most_once_and_in_a_new_order():
    dataset, steps = _training(_split(10))
    seen = _seen(dataset)
    assert steps == 2
    assert len(seen) == 3 * steps
    epochs = [np.concatenate(seen[i : i + 2]) for i in (0, 2, 4)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize("step", [0, 2, 3])
def test_a_resumed_run_sees_the_rest_of_an_uninterrupted_one(step):
    settings = {"augment": AugmentConfig(shift=2.0, rotation=30.0, flip=True, mixup=0.4)}
    whole = [x.numpy() for x, _ in _training(_split(12), **settings)[0]]
    rest = [x.numpy() for x, _ in _training(_split(12), first_epoch=1, first_step=step, **settings)[0]]
    assert len(whole) == 9
    np.testing.assert_array_equal(np.stack(rest), np.stack(whole[3 + step :]))


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_that_an_epoch_does_not_have_is_refused(step):
    with pytest.raises(ValueError, match=rf"first_step must be in 0..3. Received: first_step={step}"):
        _training(_split(12), first_step=step)


def test_another_seed_is_another_order():
    first, second = (np.concatenate(_seen(_training(_split(12), seed=seed)[0])) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 64])
def test_evaluation_counts_every_example_once(batch_size):
    split = _split(10)
    dataset = evaluation_dataset(split, 3, GRAY.replace(size=4), batch_size)
    assert np.concatenate(_seen(dataset)).tolist() == list(range(10))
    labels = np.concatenate([y.numpy().argmax(1) for _, y in dataset])
    np.testing.assert_array_equal(labels, split.labels)


def test_batches_are_normalized_as_by_the_input_spec():
    split = Split(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype("uint8"), np.zeros(5, "int64"))
    spec = InputSpec(size=8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    batch, _ = next(iter(evaluation_dataset(split, 2, spec, 5)))
    np.testing.assert_allclose(batch, spec.normalize(split.images), atol=1e-6)


def test_fewer_images_than_a_batch_raise():
    with pytest.raises(ValueError, match=r"at least one batch. Received: 3 images, batch_size=4"):
        _training(_split(3))


def test_an_epoch_cut_short_resumes_where_the_next_one_begins():
    whole = _seen(_training(_split(12), steps_per_epoch=2)[0])
    rest = _seen(_training(_split(12), steps_per_epoch=2, first_epoch=1)[0])
    assert len(whole) == 6
    np.testing.assert_array_equal(rest, whole[2:])


def test_more_steps_than_an_epoch_has_raise():
    with pytest.raises(ValueError, match=r"steps_per_epoch must be at most 3.* Received: steps_per_epoch=4"):
        _training(_split(12), steps_per_epoch=4)


def test_a_label_that_is_no_class_is_refused_by_both_pipelines():
    split = Split(np.zeros((8, 4, 4, 1), "uint8"), np.arange(8))
    with pytest.raises(ValueError, match=r"labels must be in 0..2. Received: 0..7"):
        _training(split)
    with pytest.raises(ValueError, match=r"labels must be in 0..2. Received: 0..7"):
        evaluation_dataset(split, 3, GRAY.replace(size=4), 4)


def test_no_augmentation_leaves_the_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 1)).astype("uint8")
    np.testing.assert_array_equal(affine(images, AugmentConfig(), SEED), images)


def test_flip_mirrors_some_images_exactly():
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 6, 1)).astype("uint8")
    changed = affine(images, AugmentConfig(flip=True), SEED).numpy()
    mirrored = np.array([np.allclose(c, i[:, ::-1], atol=1e-2) for c, i in zip(changed, images, strict=True)])
    same = np.array([np.allclose(c, i, atol=1e-2) for c, i in zip(changed, images, strict=True)])
    assert np.all(mirrored | same)
    assert 10 < mirrored.sum() < 54


def test_a_shift_moves_the_picture_by_at_most_its_limit():
    image = np.zeros((1, 15, 15, 1), "uint8")
    image[:, 7, 7] = 255
    changed = affine(np.repeat(image, 200, 0), AugmentConfig(shift=2.0), SEED).numpy()[..., 0]
    grid = np.arange(15)
    rows = (changed.sum(2) * grid).sum(1) / changed.sum((1, 2)) - 7
    columns = (changed.sum(1) * grid).sum(1) / changed.sum((1, 2)) - 7
    for offsets in (rows, columns):
        assert np.abs(offsets).max() <= 2.0
        assert np.abs(offsets).max() > 1.5
        assert abs(offsets.mean()) < 0.35


def test_a_rotation_is_about_the_center():
    image = np.zeros((1, 9, 9, 1), "uint8")
    image[:, 4, 4] = 200
    changed = affine(np.repeat(image, 50, 0), AugmentConfig(rotation=90.0), SEED).numpy()
    np.testing.assert_allclose(changed[:, 4, 4], 200, atol=0.5)


def test_what_moves_in_has_the_fill_color():
    changed = affine(np.zeros((20, 4, 4, 1), "uint8"), AugmentConfig(shift=3.0, fill=255), SEED).numpy()
    assert changed.max() == pytest.approx(255)


def test_mixup_mixes_images_and_targets_by_the_same_weight():
    images = tf.reshape(tf.range(4.0), (4, 1, 1, 1))
    targets = tf.one_hot(tf.range(4), 4)
    mixed, rows = mixup(images, targets, 0.8, SEED)
    weight = float(rows[0, 0])
    assert 0.5 <= weight < 1
    np.testing.assert_allclose(tf.reduce_sum(rows, 1), 1, atol=1e-6)
    np.testing.assert_allclose(
        mixed[:, 0, 0, 0], weight * np.arange(4) + (1 - weight) * np.roll(np.arange(4), 1), atol=1e-5
    )


def test_mixup_off_changes_nothing():
    images, targets = tf.ones((2, 1, 1, 1)), tf.eye(2)
    assert mixup(images, targets, 0.0, SEED) == (images, targets)


def _write(folder, split, name, count, value=0):
    target = folder / split / name
    target.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (10, 12), (value, i, 0)).save(target / f"{i}.png")


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        _write(tmp_path, split, "cat", count, 10)
        _write(tmp_path, split, "dog", count, 200)
    return tmp_path


def test_a_folder_is_read_by_class_names(folder):
    source = load_source(DataConfig(folder=str(folder)))
    train = source.split("train", RGB)
    assert source.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.images.shape == (6, 8, 8, 3)
    assert train.images[4, 0, 0].tolist() == [200, 1, 0]


def test_unreadable_images_are_named(folder):
    (folder / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    with pytest.raises(ValueError, match=r"1 unreadable: .*broken.jpg"):
        load_source(DataConfig(folder=str(folder))).split("train", RGB)


def test_a_truncated_image_is_unreadable(folder):
    whole = folder / "train" / "cat" / "whole.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype("uint8")
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"1 unreadable: .*whole.jpg"):
        load_source(DataConfig(folder=str(folder))).split("train", RGB)


def test_unreadable_images_are_skipped_only_when_asked(folder):
    (folder / "train" / "cat" / "broken.jpg").write_bytes(b"")
    source = load_source(DataConfig(folder=str(folder), skip_unreadable=True))
    with pytest.warns(UserWarning, match=r"^1 unreadable image is left out: .*broken.jpg"):
        assert len(source.split("train", RGB)) == 6


def test_a_split_in_memory_and_as_a_stream_name_all_that_is_unreadable(folder):
    names = ["cat/broken.jpg", "dog/cut.png", "dog/text.gif"]
    for name in names:
        (folder / "train" / name).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3 unreadable: .*cat/broken.jpg, .*dog/cut.png, .*dog/text.gif"):
        load_source(DataConfig(folder=str(folder))).split("train", RGB)
    config, skipped = DataConfig(folder=str(folder), in_memory=False, skip_unreadable=True), []
    split = load_source(config).load("train", config, RGB)
    with pytest.warns(UserWarning, match="left out"):
        batches = list(evaluation_dataset(split, 2, RGB, 4, skip_unreadable=True, skipped=skipped))
    assert skipped == [str(folder / "train" / name) for name in names]
    with pytest.warns(UserWarning, match="^3 unreadable images are left out"):
        memory = load_source(config).split("train", RGB)
    np.testing.assert_array_equal(np.concatenate([np.argmax(y, 1) for _, y in batches]), memory.labels)


def test_read_images_gives_pixels_or_the_error_of_each_file(folder):
    paths = [folder / "none.png", *sorted((folder / "train").rglob("*.png")), folder / "broken.png"]
    paths[-1].write_bytes(b"no image")
    found = list(read_images(paths, RGB))
    assert len(found) == len(paths) == 8
    assert re.search(r"Received: '.*none.png' \(No such file", str(found[0]))
    assert re.search(r"Received: '.*broken.png' \(cannot identify", str(found[-1]))
    np.testing.assert_array_equal(found[1:-1], [RGB.resize(path) for path in paths[1:-1]])
    assert list(read_images([], RGB)) == []


def test_a_folder_of_another_structure_is_explained(tmp_path):
    with pytest.raises(ValueError, match=r"<folder>/<split>/<class>/<image>"):
        load_source(DataConfig(folder=str(tmp_path / "nowhere")))


def test_splits_with_other_classes_are_refused(folder):
    _write(folder, "test", "bird", 1)
    source = load_source(DataConfig(folder=str(folder)))
    with pytest.raises(ValueError, match="the same class folders"):
        source.split("test", RGB)


def test_hidden_folders_are_no_classes(folder):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    assert load_source(DataConfig(folder=str(folder))).class_names == ("cat", "dog")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="at least one image"):
        load_source(DataConfig(folder=str(tmp_path))).split("train", RGB)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_out_of_range_are_refused(labels):
    source = Source(
        "bad", ("a", "b", "c"), 1, lambda name, spec: Split(np.zeros((2, 8, 8, 1), "uint8"), np.array(labels))
    )
    with pytest.raises(ValueError, match=r"labels must be in 0..2"):
        source.split("train", GRAY)


def test_a_validation_part_replaces_the_test_split():
    config = DataConfig(name="digits", validation_fraction=0.25)
    source = load_source(config)
    train, validation, name = train_and_evaluation(source, config, GRAY)
    whole = source.split("train", GRAY)
    assert name == "validation"
    assert len(validation) == round(len(whole) / 4)
    rows = [{image.tobytes() for image in split.images} for split in (train, validation, whole)]
    assert rows[0] | rows[1] == rows[2]
    assert not rows[0] & rows[1]
    shares = np.bincount(validation.labels) / np.bincount(whole.labels)
    assert np.abs(shares - 0.25).max() < 0.02
    np.testing.assert_array_equal(train_and_evaluation(source, config, GRAY)[1].images, validation.images)


def test_the_validation_part_of_a_folder_has_all_classes(folder):
    config = DataConfig(folder=str(folder), validation_fraction=0.5)
    _, validation, _ = train_and_evaluation(load_source(config), config, RGB)
    assert len(validation) == 3


def test_an_unknown_data_set_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        load_source(DataConfig(name="cifr10"))


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    source = load_source(DataConfig(name="cifar10", data_dir=str(tmp_path), download=False))
    with pytest.raises(ValueError, match=r"tfds.load\('cifar10'\).*data.folder"):
        source.split("train", RGB)


def test_a_failed_download_says_how_to_get_it(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    source = load_source(DataConfig(name="cifar10", data_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"no route to host.*tfds.load\('cifar10'\)"):
        source.split("train", RGB)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("mnist", 10)])
def test_tfds_data_sets_are_read(name, classes, tmp_path):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=7):
        source = load_source(DataConfig(name=name, data_dir=str(tmp_path)))
        spec = RGB if source.num_channels == 3 else GRAY
        split = source.split("train", spec)
    assert len(source.class_names) == classes
    assert split.images.shape == (7, 8, 8, source.num_channels)
    assert split.images.dtype == np.uint8


def test_a_prepared_tfds_data_set_is_found_and_its_splits_are_checked(tmp_path):
    import tensorflow_datasets as tfds

    tfds.testing.DummyMnist(data_dir=str(tmp_path)).download_and_prepare()
    source = load_source(DataConfig(name="dummy_mnist", data_dir=str(tmp_path), download=False))
    assert len(source.split("test", GRAY)) == 20
    assert len(source.split("train[:10%]", GRAY)) == 2
    with pytest.raises(ValueError, match="Did you mean 'test'"):
        source.split("tests", GRAY)


def test_a_train_fraction_lies_within_a_larger_one_and_beside_the_validation_part():
    spec = InputSpec(size=8, mean=(0.5,), std=(0.5,))

    def parts(fraction):
        config = DataConfig(name="digits", validation_fraction=0.2, train_fraction=fraction)
        return train_and_evaluation(load_source(config), config, spec)

    whole, judge, name = parts(1.0)
    half, same, _ = parts(0.5)
    tenth, _, _ = parts(0.1)
    assert name == "validation"
    np.testing.assert_array_equal(judge.images, same.images)
    assert (len(half), len(tenth)) == (round(0.5 * len(whole)), round(0.1 * len(whole)))
    rows = [{image.tobytes() for image in split.images} for split in (whole, half, tenth)]
    assert rows[2] < rows[1] < rows[0]
    assert np.bincount(tenth.labels, minlength=10).min() >= 6
    with pytest.raises(ValueError, match="train_fraction"):
        DataConfig(name="digits", train_fraction=0.0)
