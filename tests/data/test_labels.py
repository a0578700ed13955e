"""Arrays, weights, label smoothing, and evaluation that is padded to whole batches."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config import AugmentConfig, DataConfig, Recipe
from keras_vit.data import Split, array_source, evaluation_dataset, load_source, training_dataset
from keras_vit.data.sources.encoded import EncodedShards
from keras_vit.experiment import runner as experiment
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

SPEC = InputSpec.symmetric(4, 1)


def _split(count, weights=None, multi_label=False):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 4, 4, 1)).astype("uint8")
    labels = np.arange(count) % 3
    if multi_label:
        labels = generator.integers(0, 2, (count, 3)).astype("float32")
    return Split(images, labels, weights)


def _model(**metrics):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **metrics)
    return model


def _metrics():
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.TopKCategoricalAccuracy(2, name="top-2"),
        keras.metrics.CategoricalCrossentropy(from_logits=True, name="entropy"),
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 13, 64])
def test_padded_evaluation_equals_that_of_the_examples(batch_size):
    split = _split(13)
    plain = _model(metrics=_metrics()).evaluate(
        evaluation_dataset(split, 3, SPEC, batch_size), return_dict=True, verbose=0
    )
    dataset = evaluation_dataset(split, 3, SPEC, batch_size, pad=True)
    padded = _model(weighted_metrics=_metrics()).evaluate(dataset, return_dict=True, verbose=0)
    assert padded == pytest.approx(plain, rel=1e-5)
    batches = list(dataset)
    assert {len(column) for batch in batches for column in batch} == {batch_size}
    assert sum(np.count_nonzero(w) for _, _, w in batches) == 13
    assert dataset.element_spec[0].shape[0] == batch_size


def test_padded_evaluation_keeps_the_weights_of_examples():
    split = _split(10, np.linspace(0.5, 2, 10).astype("float32"))
    results = [
        _model(weighted_metrics=_metrics()).evaluate(
            evaluation_dataset(split, 3, SPEC, 4, pad=pad), return_dict=True, verbose=0
        )
        for pad in (False, True)
    ]
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_padding_needs_to_know_the_number():
    with pytest.raises(ValueError, match=r"pad=True.* skip_unreadable=True"):
        evaluation_dataset(_split(4), 3, SPEC, 4, pad=True, skip_unreadable=True)


def _batches(split, augment=None, **arguments):
    return list(training_dataset(split, 3, SPEC, 4, 1, 0, augment or AugmentConfig(), **arguments)[0])


def _pixels(images):
    """What was normalized, by which an example is known again."""
    return np.round((images.numpy() + 1) * 127.5).astype("uint8")


def test_weights_stay_with_their_examples():
    split = _split(12, np.arange(12, dtype="float32"))
    known = {image.tobytes(): weight for image, weight in zip(split.images, split.weights, strict=True)}
    for images, _, weights in _batches(split):
        np.testing.assert_array_equal([known[image.tobytes()] for image in _pixels(images)], weights)
    crop = AugmentConfig(crop_scale=(1.0, 1.0))
    assert sorted(w for _, _, ws in _batches(split, crop) for w in ws.numpy()) == list(range(12))


def test_class_weights_weight_every_example_by_its_class():
    for _, targets, weights in _batches(_split(12), class_weights=(1.0, 2.0, 5.0)):
        np.testing.assert_array_equal(weights, np.array([1.0, 2.0, 5.0])[targets.numpy().argmax(1)])
    for _, targets, weights in _batches(_split(12), AugmentConfig(mixup=0.5), class_weights=(1.0, 2.0, 5.0)):
        np.testing.assert_allclose(weights, targets.numpy() @ [1.0, 2.0, 5.0], rtol=1e-6)


def test_class_weights_train_as_those_of_fit():
    split = _split(12)
    losses = []
    for arguments, weights in (({"class_weights": (1.0, 2.0, 5.0)}, None), ({}, {0: 1.0, 1: 2.0, 2: 5.0})):
        model = _model(optimizer=keras.optimizers.SGD(0.1))
        dataset, _ = training_dataset(split, 3, SPEC, 4, 1, 0, AugmentConfig(), **arguments)
        losses.append(model.fit(dataset, class_weight=weights, verbose=0).history["loss"][0])
        losses.append(float(keras.ops.sum(model.weights[0])))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ({"weights": np.ones(12, "float32")}, {"augment": AugmentConfig(mixup=0.1)}, "cannot be mixed"),
        ({"multi_label": True}, {"class_weights": (1.0, 1.0, 1.0)}, "multi-label"),
        ({}, {"class_weights": (1.0, 1.0)}, "each of the 3 classes. Received: 2"),
    ],
)
def test_weights_without_a_meaning_are_refused(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        _batches(_split(12, **arguments), **settings)


def test_label_smoothing_is_that_of_the_loss_also_of_mixed_targets():
    for augment in (AugmentConfig(), AugmentConfig(mixup=0.5)):
        (_, plain), (_, smoothed) = (_batches(_split(12), augment, label_smoothing=s)[0] for s in (0.0, 0.3))
        np.testing.assert_allclose(smoothed, plain * 0.7 + 0.1, atol=1e-6)
        logits = tf.random.stateless_normal((4, 3), [1, 2])
        in_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)(plain, logits)
        in_targets = keras.losses.CategoricalCrossentropy(from_logits=True)(smoothed, logits)
        assert float(in_targets) == pytest.approx(float(in_loss), rel=1e-6)


def test_targets_of_several_classes_are_rows():
    split = _split(8, multi_label=True)
    known = {i.tobytes(): row.tolist() for i, row in zip(split.images, split.labels, strict=True)}
    for images, targets in _batches(split):
        assert [known[image.tobytes()] for image in _pixels(images)] == targets.numpy().tolist()
    with pytest.raises(ValueError, match=r"multi-hot labels must have 4 columns. Received: shape \(8, 3\)"):
        evaluation_dataset(split, 4, SPEC, 4)


def test_an_npz_file_is_a_source(tmp_path):
    split = _split(9)
    arrays = {"x_train": split.images[..., 0], "y_train": split.labels, "w_train": np.ones(9)}
    np.savez(tmp_path / "data.npz", **arrays, x_test=split.images[:2, ..., 0], y_test=split.labels[:2, None])
    source = load_source(DataConfig(arrays=str(tmp_path / "data.npz")))
    assert (source.num_channels, source.class_names) == (1, ("0", "1", "2"))
    train, test = source.split("train", SPEC), source.split("test", SPEC.replace(size=6))
    np.testing.assert_array_equal(train.images, split.images)
    np.testing.assert_array_equal(test.labels, [0, 1])
    assert train.weights.tolist() == [1.0] * 9
    assert test.images.shape == (2, 6, 6, 1)
    with pytest.raises(ValueError, match=r"unknown split of .*Did you mean 'train'"):
        source.split("trian", SPEC)


@pytest.mark.parametrize("content", [b"", b"PK rubbish"])
def test_a_file_without_arrays_is_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"arrays must be a readable .npz file. Received: .*data.npz"):
        load_source(DataConfig(arrays=str(tmp_path / "data.npz")))


def test_arrays_of_16_bits_keep_their_upper_8(tmp_path):
    deep = np.arange(2 * 4 * 4 * 5, dtype="uint16").reshape(2, 4, 4, 5) * 400
    np.savez(tmp_path / "data.npz", x_train=deep, y_train=[0, 1])
    source = load_source(DataConfig(arrays=str(tmp_path / "data.npz")))
    split = source.split("train", InputSpec.symmetric((4, 4), 5))
    assert (source.num_channels, split.images.dtype) == (5, np.uint8)
    np.testing.assert_array_equal(split.images, deep // 256)


def test_a_recipe_needs_two_classes(tmp_path):
    model = ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=2)
    np.savez(tmp_path / "data.npz", x_train=np.zeros((4, 8, 8, 3), "uint8"), y_train=np.zeros(4, int))
    recipe = Recipe(name="single", model=model, data=DataConfig(arrays=str(tmp_path / "data.npz")))
    with pytest.raises(ValueError, match=r"at least two classes.*\n?.*Received: .*\('0',\)"):
        experiment.run(recipe, tmp_path / "run", log=lambda text: None)


def test_an_npz_file_without_splits_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"must have x_<split> and y_<split>. Received: .* with \['images'\]"):
        load_source(DataConfig(arrays=str(tmp_path / "data.npz")))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), [0, 1], "images must be uint8"),
        (np.zeros((2, 4, 4), "uint8"), [0, 1, 2], r"labels must be \(examples,\)"),
        (np.zeros((2, 4, 4), "uint8"), [0.0, 1.0], "labels must be integers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        array_source({"train": (images, np.array(labels))})


def test_arrays_of_python_are_a_source():
    split = _split(6, multi_label=True)
    source = array_source({"train": (split.images, split.labels)}, class_names=["a", "b", "c"])
    assert source.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(source.split("train", SPEC).labels, split.labels)


@pytest.mark.parametrize(
    ("labels", "multi_label", "message"),
    [
        ([0, 1], True, r"multi_label needs rows, one column a class. Received: labels of shape \(2,\)"),
        ([[1.0, 1.0], [0.0, 1.0]], False, r"rows of one class must sum to 1.* Received: .* sum to 1..2"),
        ([[0.0, 1.0], [0.3, 0.7]], False, None),
        ([[1.0, 1.0], [0.0, 0.0]], True, None),
    ],
)
def test_labels_are_of_the_kind_that_the_config_tells(labels, multi_label, message, tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros((2, 4, 4), "uint8"), y_train=np.array(labels))
    config = DataConfig(arrays=str(tmp_path / "data.npz"), multi_label=multi_label)
    with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
        load_source(config).load("train", config, SPEC)


def test_a_config_needs_a_source_and_weights_that_are_numbers():
    with pytest.raises(ValueError, match="data needs one of name, folder, tfrecords, arrays"):
        DataConfig()
    with pytest.raises(ValueError, match="class_weights must be numbers"):
        DataConfig(name="digits", class_weights=(1.0, "2"))


def test_class_weights_of_a_stream_are_checked_before_it_is_read():
    stream = EncodedShards(["a"], [12], lambda shard: tf.data.Dataset.range(12), lambda number: ("", number % 3))
    with pytest.raises(ValueError, match=r"each of the 3 classes\. Received: 1"):
        training_dataset(stream, 3, InputSpec(size=4), 4, 1, 0, AugmentConfig(), class_weights=(1.0,))
