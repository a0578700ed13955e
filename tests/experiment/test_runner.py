"""Recipes from end to end: a validation part that chooses, teachers, weights of other runs, frozen layers."""

import csv
import dataclasses
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit import load_model
from keras_vit.config import DataConfig, DistillationConfig, OptimizerConfig, Recipe, TrainingConfig, apply_overrides
from keras_vit.config.files import load_recipe
from keras_vit.experiment import runner as experiment
from keras_vit.metadata import metadata
from keras_vit.models import ConvNetConfig, ViTConfig, build_model
from keras_vit.preprocessing import InputSpec
from keras_vit.training import Distiller, adapt_teacher, initial_model, layer_decay_scales, make_distiller
from keras_vit.training.initialization.warm_start import remat_scope
from keras_vit.training.loop import fit as run_module
from keras_vit.training.loop.callbacks import best_epoch, is_stalled, tensorboard
from keras_vit.training.loop.checkpoint import load_checkpoint
from keras_vit.training.reports import run_record as record
from keras_vit.training.tasks.losses import make_accuracy
from keras_vit.zoo import create as zoo

MODEL = ViTConfig(
    image_size=8, patch_size=4, num_channels=1, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=10
)
RECIPE = Recipe(
    name="run",
    model=MODEL,
    data=DataConfig(name="digits", batch_size=64, validation_fraction=0.1),
    optimizer=OptimizerConfig(learning_rate=1e-2, ema_momentum=0.5),
    training=TrainingConfig(epochs=3, steps_per_epoch=2, compiler="plain", precision="float32"),
)


def _run(recipe, directory):
    return experiment.run(recipe, directory, log=lambda text: None)


def _numpy(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return _run(RECIPE, tmp_path_factory.mktemp("finished"))


def test_the_best_epoch_is_kept_by_the_validation_part(finished):
    """And its weights are the averages, as they were validated."""
    epochs = finished.record["epochs"]
    scores = [epoch["val_accuracy"] for epoch in epochs]
    assert len(scores) == 3
    assert finished.record["best_epoch"] == int(np.argmax(scores)) + 1
    assert finished.record["validation_accuracy"] == pytest.approx(scores[-1])
    model = load_model(finished.directory)
    np.testing.assert_array_equal(_numpy(model)[0], _numpy(finished.model)[0])
    model.load_weights(finished.directory / "best.weights.h5")
    _, validation = finished.splits
    images = metadata(model).input_spec.normalize(validation.images)
    accuracy = np.mean(model.predict(images, verbose=0).argmax(-1) == validation.labels)
    assert accuracy == pytest.approx(max(scores), abs=1e-6)


def test_the_log_is_a_table_of_the_epochs(finished):
    with open(finished.directory / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row.pop("epoch")) for row in rows] == [1, 2, 3]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == finished.record["epochs"]
    seconds = [float(row["wall_seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert sorted(path.name for path in finished.directory.iterdir() if "partial" in path.name) == []


def test_a_record_says_how_it_was_computed(finished):
    assert (finished.record["precision"], finished.record["compiler"]) == ("float32", "plain")


@pytest.mark.parametrize(
    ("scores", "best", "stalled"),
    [([], None, False), ([0.5], 0, False), ([0.5, 0.5, 0.4], 0, True), ([0.5, 0.4, 0.6], 2, False)],
)
def test_the_first_of_the_best_counts(scores, best, stalled):
    history = [{"val_accuracy": score} for score in scores]
    assert best_epoch(history) == best
    assert is_stalled(history, patience=2) == stalled
    assert not is_stalled(history, None)
    assert best_epoch([{"loss": 1.0}]) is None


@pytest.mark.long
def test_early_stopping_ends_with_the_best_weights_also_when_resumed(tmp_path):
    """At a rate that spoils the weights the first epochs are the best."""
    recipe = RECIPE.replace(
        training=dataclasses.replace(RECIPE.training, epochs=40, early_stopping=1, steps_per_epoch=1),
        optimizer=OptimizerConfig(learning_rate=0.3, schedule="constant"),
    )
    stopped = _run(recipe, tmp_path)
    scores = [epoch["val_accuracy"] for epoch in stopped.record["epochs"]]
    assert len(scores) == stopped.record["best_epoch"] + 1 < 40
    assert stopped.evaluation["accuracy"] == pytest.approx(max(scores))
    again = _run(recipe, tmp_path)
    assert again.record["resumed_from"] == len(scores)
    for a, b in zip(_numpy(again.model), _numpy(stopped.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_early_stopping_needs_a_validation_part():
    with pytest.raises(ValueError, match="early_stopping=2"):
        apply_overrides(RECIPE, ["training.early_stopping=2", "data.validation_fraction=0"])


@pytest.mark.filterwarnings("error:Skipping variable loading")
@pytest.mark.parametrize("token", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_student_of_another_run(finished, token, tmp_path):
    """It learns, resumes, and is saved without its teacher."""
    teacher = DistillationConfig(teacher=str(finished.directory), kind="soft", temperature=2.0)
    recipe = RECIPE.replace(
        name="student",
        model=MODEL.replace(distillation_token=token),
        distillation=teacher,
        input_spec=InputSpec(size=8, mean=(0.1,), std=(0.3,)),
        data=DataConfig(name="digits", batch_size=64),
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    whole = _run(recipe, tmp_path / "whole")
    assert whole.record["config"]["distillation"]["teacher"] == str(finished.directory)
    again = _run(recipe, tmp_path / "whole")
    assert again.record["resumed_from"] == 3
    for a, b in zip(_numpy(again.model), _numpy(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)
    saved = load_model(tmp_path / "whole")
    assert {weight.path for weight in saved.weights} == {weight.path for weight in build_model(recipe.model).weights}
    assert again.evaluation == whole.evaluation
    slots = [(v.path.split("/")[-1], v.shape) for v in saved.optimizer.variables]
    assert slots == [(v.path.split("/")[-1], v.shape) for v in whole.model.optimizer.variables]


def test_a_teacher_sees_the_images_in_its_own_way():
    """The same pixels, whatever the student's normalization; another size is resized."""
    ours, theirs = InputSpec(8, mean=(0.2,), std=(0.5,)), InputSpec(8, mean=(0.6,), std=(0.1,))
    student = build_model(MODEL, ours)
    teacher = build_model(MODEL, theirs)
    pixels = np.random.default_rng(0).integers(256, size=(3, 8, 8, 1)).astype("uint8")
    logits = adapt_teacher(student, teacher)(ours.normalize(pixels))
    np.testing.assert_allclose(logits, teacher(theirs.normalize(pixels)), atol=1e-4)
    assert adapt_teacher(student, build_model(MODEL, ours)).name == "model"
    large = build_model(MODEL.replace(image_size=16), theirs.replace(size=16))
    flat = np.full((1, 8, 8, 1), 51, "uint8")
    expected = large(theirs.normalize(np.full((1, 16, 16, 1), 51, "uint8")))
    np.testing.assert_allclose(adapt_teacher(student, large)(ours.normalize(flat)), expected, atol=1e-4)
    plain = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    assert adapt_teacher(student, plain) is plain


def test_a_convolutional_teacher_keeps_its_statistics():
    """Batch norms of a teacher neither learn nor count."""
    student = build_model(MODEL)
    teacher = build_model(ConvNetConfig(image_size=8, num_channels=1, widths=(4, 4), depths=(0, 1), num_classes=10))
    before = _numpy(teacher)
    distiller = make_distiller(student, teacher, DistillationConfig(teacher=""))
    distiller.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True)
    images, targets = np.random.default_rng(0).normal(size=(4, 8, 8, 1)), np.eye(10)[:4]
    distiller.fit(images, targets, verbose=0)
    assert len(before) > 4
    for old, new in zip(before, _numpy(teacher), strict=True):
        np.testing.assert_array_equal(new, old)
    with pytest.raises(ValueError, match="is for Transformers"):
        layer_decay_scales(teacher, 0.5)
    with pytest.raises(ValueError, match="needs encoder blocks"):
        remat_scope(metadata(teacher).config)


def test_the_first_weights_follow_the_recipe():
    recipe = RECIPE.replace(training=TrainingConfig(initialization="truncated_normal"))
    kernels = [w for w in initial_model(recipe).weights if w.name == "kernel" and w.path.startswith("encoder_block")]
    drawn = np.concatenate([keras.ops.convert_to_numpy(kernel).ravel() for kernel in kernels])
    assert drawn.std() == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ValueError, match="Did you mean 'mimetic'"):
        TrainingConfig(initialization="mimetics")


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        ({"num_classes": 9}, None, "classes.*9 and 10"),
        ({"num_channels": 3}, None, "channels.*3 and 1"),
        ({"classifier_activation": "softmax"}, None, "must output logits"),
        ({"num_classes": 0}, None, "must output logits"),
        ({}, "abcdefghij", "in the same order"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(fields, labels, message):
    student = build_model(MODEL, labels=tuple("0123456789"))
    with pytest.raises(ValueError, match=message):
        adapt_teacher(student, build_model(MODEL.replace(**fields), labels=labels and tuple(labels)))


@pytest.mark.parametrize("token", [False, True])
def test_the_soft_loss_of_a_single_head_is_hintons(token):
    """`temperature ** 2` times the divergence, averaged over images alone; DeiT's is averaged over the classes too."""
    student = build_model(MODEL.replace(distillation_token=token))
    distiller = make_distiller(student, build_model(MODEL), DistillationConfig(teacher="", kind="soft", temperature=3))
    assert isinstance(distiller, Distiller)
    theirs, ours = np.random.default_rng(0).normal(size=(2, 4, 10)).astype("float32")
    p, q = (keras.ops.convert_to_numpy(keras.ops.softmax(logits / 3)) for logits in (theirs, ours))
    divergence = 9 * np.sum(p * np.log(p / q), axis=-1).mean()
    loss = float(distiller.distillation_loss(theirs, ours))
    assert loss == pytest.approx(divergence / (10 if token else 1), rel=1e-4)


def test_a_linear_probe_of_another_run(finished, tmp_path):
    """At another image size and with a new head: only the head moves."""
    recipe = RECIPE.replace(
        model=MODEL.replace(image_size=12),
        weights=str(finished.directory),
        freeze=("(?!head).*",),
        training=dataclasses.replace(RECIPE.training, head_zeroinit=True, epochs=1),
    )
    with pytest.warns(UserWarning, match="positions"):
        probe = _run(recipe, tmp_path)
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in finished.model.weights}
    same = {w.path for w in probe.model.weights if np.array_equal(keras.ops.convert_to_numpy(w), before[w.path])}
    resized = {"patch_encoder/position_embedding"} | {path for path in before if path.startswith("head/")}
    assert same == set(before) - resized
    assert probe.model.get_layer("head").kernel.numpy().any()


def test_smoke_needs_no_other_files():
    recipe = RECIPE.replace(
        distillation=DistillationConfig(teacher="nowhere"),
        optimizer=OptimizerConfig(gradient_accumulation_steps=8),
    )
    smoke = recipe.smoke()
    assert (smoke.distillation.teacher, smoke.optimizer.gradient_accumulation_steps) == (None, 2)


@pytest.mark.long
def test_a_smoke_run_with_everything(tmp_path):
    recipe = apply_overrides(
        RECIPE,
        [
            "distillation.teacher=some_teacher",
            "training.loss=binary",
            "training.gradient_checkpointing=True",
            "training.compiler=fused",
            "training.precision=mixed_bfloat16",
            "optimizer.name=muon",
            "optimizer.gradient_accumulation_steps=4",
            "optimizer.layer_decay=0.7",
            'freeze=("patch_encoder",)',
        ],
    )
    smoked = _run(recipe.smoke(), tmp_path)
    assert len(smoked.record["epochs"]) == 1
    assert json.loads((tmp_path / "record.json").read_text())["config"]["freeze"] == ["patch_encoder"]


def test_a_group_that_the_recipe_has_not_yet_can_be_set():
    recipe = apply_overrides(RECIPE, ["distillation.teacher=a.keras", "distillation.alpha=0.9"])
    assert recipe.distillation == DistillationConfig(teacher="a.keras", alpha=0.9)
    assert apply_overrides(recipe, ["distillation=None"]).distillation is None
    with pytest.raises(ValueError, match="a new DistillationConfig needs teacher"):
        apply_overrides(RECIPE, ["distillation.alpha=0.9"])
    with pytest.raises(ValueError, match="Did you mean 'alpha'"):
        apply_overrides(RECIPE, ["distillation.alfa=0.9"])


@pytest.mark.long
def test_tensorboard_gets_a_point_an_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = dataclasses.replace(RECIPE.training, tensorboard=True, epochs=2)
    finished = _run(RECIPE.replace(training=training), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "train"))
    events.Reload()
    tensors = events.Tensors("epoch_loss")
    assert [point.step for point in tensors] == [0, 1]
    values = [tf.make_ndarray(point.tensor_proto) for point in tensors]
    np.testing.assert_allclose(values, [epoch["loss"] for epoch in finished.record["epochs"]], rtol=1e-5)


def test_tensorboard_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        tensorboard(tmp_path)


@pytest.mark.long
def test_a_validation_part_is_not_recorded_as_the_test_set(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(40, 8, 8, 1), dtype="uint8")
    labels = np.arange(40) % 10
    arrays = tmp_path / "set.npz"
    np.savez(arrays, x_train=images, y_train=labels, x_validation=images[:10], y_validation=labels[:10])
    recipe = load_recipe("vit_digits")
    model = recipe.model.replace(num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16)
    recipe = recipe.replace(model=model, training=dataclasses.replace(recipe.training, compiler="plain"))
    data = {"name": None, "arrays": str(arrays), "test_split": "validation", "num_classes": 10, "batch_size": 8}
    for fraction, name, count in ((0.25, "validation", 10), (0.0, "test", 10)):
        config = dataclasses.replace(recipe.data, **data, validation_fraction=fraction)
        finished = experiment.run(recipe.replace(data=config).smoke(), tmp_path / name, log=lambda text: None)
        other = {"validation": "test", "test": "validation"}[name]
        assert finished.record[f"{name}_examples"] == count
        assert finished.record[f"{name}_loss"] > 0
        assert f"{other}_accuracy" not in finished.record
        assert finished.record["training_examples"] == (30 if fraction else 40)


def test_a_seed_that_no_generator_takes_is_refused():
    with pytest.raises(ValueError, match="seed must be in"):
        TrainingConfig(seed=-1)


class _Spoil(keras.callbacks.Callback):
    """Makes a weight infinite where the third epoch begins."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.inf, "float32"))


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_kept_is_finite_where_the_loss_is_no_number(averaged, tmp_path, monkeypatch):
    usual = run_module._callbacks
    monkeypatch.setattr(run_module, "_callbacks", lambda *args: [_Spoil(), *usual(*args)])
    # So good that the third epoch would be the best by its accuracy of one class.
    monkeypatch.setattr(run_module.callbacks, "best_epoch", lambda history: len(history) - 1 if history else None)
    optimizer = OptimizerConfig(learning_rate=1e-3, ema_momentum=0.5 if averaged else None)
    recipe = RECIPE.replace(training=dataclasses.replace(RECIPE.training, epochs=5), optimizer=optimizer)
    with pytest.raises(RuntimeError, match=r"epoch 3: the loss is not a number\. .*checkpoint.npz"):
        _run(recipe, tmp_path)
    assert load_checkpoint(tmp_path / "checkpoint.npz").state["epoch"] == 2
    with np.load(tmp_path / "checkpoint.npz") as file:
        assert all(np.isfinite(file[name]).all() for name in file.files)
    model = build_model(MODEL)
    model.load_weights(tmp_path / "best.weights.h5")
    assert all(np.isfinite(weight).all() for weight in _numpy(model))


def test_a_loss_that_is_no_number_at_once_leaves_nothing(tmp_path):
    recipe = RECIPE.replace(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RuntimeError, match="the loss is not a number"):
        _run(recipe, tmp_path)
    assert not (tmp_path / "best.weights.h5").exists()


@pytest.mark.long
def test_averages_that_a_run_does_not_end_with_are_kept_beside(tmp_path):
    training = dataclasses.replace(RECIPE.training, epochs=2)
    runs = {}
    for name, settings in (("none", {}), ("beside", {"ema_momentum": 0.5, "ema_evaluate": False})):
        optimizer = OptimizerConfig(learning_rate=1e-2, **settings)
        runs[name] = _run(RECIPE.replace(training=training, optimizer=optimizer), tmp_path / name)
    for a, b in zip(_numpy(runs["none"].model), _numpy(runs["beside"].model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert runs["none"].record["validation_accuracy"] == runs["beside"].record["validation_accuracy"]
    assert not (tmp_path / "none" / "average.weights.h5").exists()
    average = build_model(MODEL)
    average.load_weights(tmp_path / "beside" / "average.weights.h5")
    ended = _run(
        RECIPE.replace(training=training, optimizer=OptimizerConfig(learning_rate=1e-2, ema_momentum=0.5)),
        tmp_path / "averaged",
    )
    for a, b in zip(_numpy(ended.model), _numpy(average), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.long
def test_a_record_names_the_code_of_every_part(tmp_path, monkeypatch):
    short = dataclasses.replace(RECIPE.training, epochs=2)
    first = {"commit": "a" * 40, "dirty": False, "versions": {}}
    monkeypatch.setattr(record, "code", lambda: first)
    whole = _run(RECIPE.replace(training=short), tmp_path)
    assert whole.record["commit"] == "a" * 40
    assert "earlier_code" not in whole.record
    monkeypatch.setattr(record, "code", lambda: {**first, "commit": "b" * 40})
    again = _run(RECIPE.replace(training=short), tmp_path)
    assert again.record["commit"] == "b" * 40
    assert again.record["earlier_code"] == [first]


def test_the_accuracy_of_several_labels_is_that_of_the_likeliest_class():
    metric = make_accuracy(multi_label=True)
    targets = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 0]], "float32")
    logits = np.array([[0, 1, 2], [3, 1, 2], [3, 1, 2], [3, 1, 2]], "float32")
    metric.update_state(targets, logits)
    assert float(metric.result()) == 0.5
    assert metric.name == make_accuracy().name == "accuracy"


@pytest.fixture(scope="module")
def unvalidated(tmp_path_factory):
    """A run without a validation split; 64 does not divide its test split."""
    recipe = RECIPE.replace(
        training=dataclasses.replace(RECIPE.training, label_smoothing=0.3, epochs=2),
        data=DataConfig(name="digits", batch_size=64),
    )
    return _run(recipe, tmp_path_factory.mktemp("unvalidated"))


def test_the_test_split_chooses_nothing(unvalidated, finished):
    """It is evaluated once, behind the last epoch."""
    assert not (unvalidated.directory / "best.weights.h5").exists()
    assert len(unvalidated.record["epochs"]) == 2
    assert [name for epoch in unvalidated.record["epochs"] for name in epoch if name.startswith("val_")] == []
    assert unvalidated.record["best_epoch"] is None
    assert "val_" not in (unvalidated.directory / "log.csv").read_text()
    # What a run with a validation part leaves.
    assert (finished.directory / "best.weights.h5").exists()
    assert "val_accuracy" in finished.record["epochs"][0]


def test_an_evaluation_counts_every_example_once_and_does_not_smooth(unvalidated):
    finished, (_, test) = unvalidated, unvalidated.splits
    logits = finished.model.predict(metadata(finished.model).input_spec.normalize(test.images), verbose=0)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    plain = -np.log(shares[np.arange(len(test)), test.labels]).mean()
    assert finished.record["test_loss"] == pytest.approx(plain, rel=1e-4)
    assert finished.record["test_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == test.labels), abs=1e-6)
    assert finished.record["test_examples"] == len(test) == 899


@pytest.mark.long
def test_any_keras_model_can_teach_under_xla(tmp_path):
    """One that is not of the library says how it wants its pixels."""
    teacher = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer="random_normal")]
    )
    teacher.save(tmp_path / "teacher.keras")
    recipe = RECIPE.replace(
        distillation=DistillationConfig(teacher=str(tmp_path / "teacher.keras"), kind="soft"),
        training=dataclasses.replace(RECIPE.training, compiler="xla", epochs=1),
        input_spec=InputSpec(size=8, mean=(0.2,), std=(0.5,)),
    )
    with pytest.raises(ValueError, match=r"needs distillation\.teacher_mean and teacher_std"):
        _run(recipe, tmp_path / "run")
    settings = ["distillation.teacher_mean=(0,)", f"distillation.teacher_std=({1 / 255},)"]
    assert len(_run(apply_overrides(recipe, settings), tmp_path / "run").record["epochs"]) == 1
    student = build_model(MODEL, recipe.input_spec)
    config = dataclasses.replace(recipe.distillation, teacher_mean=(0,), teacher_std=(1 / 255,))
    pixels = np.random.default_rng(0).integers(256, size=(3, 8, 8, 1)).astype("uint8")
    wrapped = make_distiller(student, teacher, config).teacher
    np.testing.assert_allclose(wrapped(recipe.input_spec.normalize(pixels)), teacher(pixels), rtol=1e-3, atol=1e-2)
    teacher.add(keras.layers.Softmax())
    with pytest.raises(ValueError, match="outputs probabilities"):
        adapt_teacher(student, teacher)


@pytest.mark.long
def test_a_name_of_the_catalog_can_teach(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(zoo, "create_model", lambda name: asked.append(name) or build_model(MODEL))
    name = "vit_small_patch16_224.augreg_in21k_ft_in1k"
    recipe = RECIPE.replace(distillation=DistillationConfig(teacher=name))
    _run(recipe.replace(training=dataclasses.replace(RECIPE.training, epochs=1)), tmp_path)
    assert asked == [name]
