"""Recipes, overrides, optimizers, schedules and run records."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from keras_vit.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
    apply_overrides,
)
from keras_vit.config.recipe import with_current_names
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec
from keras_vit.training import AdamW, compile_model, make_optimizer, warmup_cosine
from keras_vit.training.loop.hardware import choose_compiler, choose_precision
from keras_vit.training.reports import run_record as record

MODEL = ViTConfig(
    image_size=8, patch_size=4, num_channels=1, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=32, num_classes=10
)
RECIPE = Recipe(name="tiny", model=MODEL, data=DataConfig(name="digits"))


@pytest.mark.parametrize(
    ("assignment", "read", "expected"),
    [
        ("optimizer.learning_rate=3e-4", lambda r: r.optimizer.learning_rate, 3e-4),
        ("optimizer.learning_rate=1", lambda r: r.optimizer.learning_rate, 1.0),
        ("optimizer.global_clipnorm=None", lambda r: r.optimizer.global_clipnorm, None),
        ("optimizer.global_clipnorm=2", lambda r: r.optimizer.global_clipnorm, 2.0),
        ("data.name=cifar10", lambda r: r.data.name, "cifar10"),
        ("data.folder=some/folder", lambda r: r.data.folder, "some/folder"),
        ("data.name=123", lambda r: r.data.name, "123"),
        ("augment.flip=true", lambda r: r.augment.flip, True),
        ("model.image_size=(8, 16)", lambda r: r.model.image_size, (8, 16)),
        ("model.image_size=16", lambda r: r.model.image_size, (16, 16)),
        ("training.compiler=xla", lambda r: r.training.compiler, "xla"),
    ],
)
def test_an_override_sets_a_typed_value(assignment, read, expected):
    value = read(apply_overrides(RECIPE, [assignment]))
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.learning_rat=1", "Did you mean 'learning_rate'"),
        ("optimiser.learning_rat=1", "Did you mean 'optimizer'"),
        ("optimiser.learning_rate=1", r"optimizer\.learning_rate=1\. Received: optimiser\.learning_rate=1"),
        ("mixup=0.8", r" augment\.mixup=0\.8\. Received: mixup=0\.8"),
        ("training.mixup=0.8", r" augment\.mixup=0\.8\. Received: training"),
        ("lr=1", r" optimizer\.learning_rate=1\. "),
        ("img_size=32", r" model\.image_size=32\. "),
        ("teacher=x.keras", r" distillation\.teacher=x\.keras\. "),
        ("ratio=0.5", r" masking\.ratio=0\.5\. "),
        ("optimizer.learning_rate=fast", "must be float"),
        ("training.epochs=2.5", "must be int"),
        ("training.epochs=True", "must be int"),
        ("augment.flip=1", "must be bool"),
        ("data.batch_size=0", "batch_size must be a positive int"),
        ("model.num_heads=3", "hidden_dim must be a multiple of num_heads"),
        ("optimizer=adam", "is a group"),
        ("optimizer.learning_rate=1e400", "must be positive and finite"),
        ("optimizer.layer_decay=2", r"must be in \(0, 1\] or None"),
        ("augment.rotation=1e400", "must be finite"),
        ("augment.mixup=1e400", "must be finite"),
        ("augment.policy=randaug(2, 10)", r"Did you mean 'randaugment'\? Received: 'randaug\(2, 10\)'"),
        ("augment.policy=rand-m9-foo1", "foo1.*rand-m9-foo1"),
        ("augment.policy=rand-n2.5", "Received: 'n2.5' in 'rand-n2.5'"),
        ("name=../x", "name=.*/x"),
        ("name.first=x", "has no fields of its own"),
        ("optimizer.learning_rate", "must look like a.b=value"),
    ],
)
def test_a_bad_override_raises(assignment, message):
    with pytest.raises(ValueError, match=message):
        apply_overrides(RECIPE, [assignment])


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (DataConfig, {}, "needs one of name, folder, tfrecords, arrays"),
        (DataConfig, {"name": "digits", "validation_fraction": 1.0}, "must be a rate"),
        (DataConfig, {"name": "digits", "multi_label": True}, "multi_label needs TFRecords or arrays"),
        (InputSpec, {"size": 8, "mean": 1}, "mean must hold one number a channel. Received: mean=1"),
        (AugmentConfig, {"shift": -1.0}, "shift=-1.0"),
        (AugmentConfig, {"fill": 300}, "fill=300"),
        (OptimizerConfig, {"learning_rate": 0.0}, "must be positive"),
        (OptimizerConfig, {"ema_momentum": 1.0}, "must be a rate"),
        (OptimizerConfig, {"global_clipnorm": 0.0}, "must be positive or None"),
        (DistillationConfig, {"teacher": "x", "temperature": 2.0}, "temperature is for kind='soft'"),
        (TrainingConfig, {"precision": "float8"}, "must be one of"),
        (TrainingConfig, {"epochs": 0}, "must be a positive int"),
    ],
)
def test_a_bad_setting_raises(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_a_record_for_others_has_no_folders_of_this_machine():
    weights = {"weights": "/home/ann/S_16.npz", "data": {"folder": r"C:\photos\flowers", "name": "digits"}, "lr": 0.1}
    made = {
        "commit": "a",
        "config": weights | {"freeze": ["(?!head).*"], "teacher": "runs/x", "url": "https://x.org/y"},
    }
    assert record.without_folders(made) == {
        "commit": "a",
        "config": {
            "weights": "S_16.npz",
            "data": {"folder": "flowers", "name": "digits"},
            "lr": 0.1,
            "freeze": ["(?!head).*"],
            "teacher": "runs/x",
            "url": "https://x.org/y",
        },
    }


def test_overrides_that_depend_on_each_other_are_checked_together():
    changed = apply_overrides(RECIPE, ["model.patch_size=3", "model.image_size=9", "model.num_heads=1"])
    assert (changed.model.image_size, changed.model.patch_size, changed.model.num_heads) == ((9, 9), (3, 3), 1)


def test_several_labels_are_no_softmax():
    data = DataConfig(arrays="some.npz", multi_label=True)
    with pytest.raises(ValueError, match=r"multi_label.*loss='softmax'"):
        RECIPE.replace(data=data)
    RECIPE.replace(data=data, training=TrainingConfig(loss="binary"))


def test_a_recipe_trains_on_logits():
    recipe = RECIPE.replace(model=MODEL.replace(classifier_activation="softmax"))
    with pytest.raises(ValueError, match="trains on logits"):
        compile_model(keras.Sequential(), recipe, 1, False)


def test_a_recipe_follows_its_data():
    fitted = RECIPE.for_data(num_classes=7, num_channels=3)
    assert (fitted.model.num_classes, fitted.model.num_channels) == (7, 3)
    assert fitted.input_spec.size == (8, 8)
    assert fitted.input_spec.num_channels == 3


def test_smoke_is_two_small_steps():
    smoke = RECIPE.smoke()
    assert (smoke.training.epochs, smoke.training.steps_per_epoch, smoke.data.batch_size) == (1, 2, 8)
    assert smoke.model == RECIPE.model


def test_a_recipe_is_json():
    plain = RECIPE.for_data(10, 1).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["model"]["image_size"] == [8, 8]


def test_warmup_cosine_follows_its_definition():
    schedule = warmup_cosine(peak=0.1, total_steps=110, warmup_steps=10, final=0.01)
    steps = np.arange(111)
    warm = steps / 10 * 0.1
    cosine = 0.01 + (0.1 - 0.01) * 0.5 * (1 + np.cos(np.pi * (steps - 10) / 100))
    expected = np.where(steps < 10, warm, cosine)
    np.testing.assert_allclose([float(schedule(step)) for step in steps], expected, rtol=1e-5, atol=1e-8)


def test_the_warmup_must_be_shorter_than_the_run():
    with pytest.raises(ValueError, match="must be shorter than the run"):
        warmup_cosine(0.1, total_steps=10, warmup_steps=10)


def _decayed(optimizer, names):
    """Which variables shrink under a zero gradient."""
    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in names]
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(3)] * len(names), variables)
    return [bool(np.all(keras.ops.convert_to_numpy(v) < 1)) for v in variables]


NAMES = ("kernel", "bias", "gamma", "beta", "class_token", "position_embedding", "register_tokens")


@pytest.mark.parametrize("reload", [False, True])
def test_weight_decay_spares_all_but_kernels_also_after_reloading(reload):
    optimizer = AdamW(0.1, weight_decay=0.5)
    if reload:
        optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert _decayed(optimizer, NAMES) == [True] + [False] * 6


def test_every_variable_of_a_model_is_classified():
    """Kernels, the query of attention pooling and nothing else are decayed."""
    from keras_vit.models import build_vit

    config = MODEL.replace(pooling="map", num_registers=1, distillation_token=True, layer_scale_init=0.1, qk_norm=True)
    optimizer = AdamW(0.1, weight_decay=0.5)
    variables = build_vit(config).trainable_variables
    optimizer.build(variables)
    before = [keras.ops.convert_to_numpy(v) for v in variables]
    optimizer.apply([keras.ops.zeros_like(v) for v in variables], variables)
    changed = {v.name for v, old in zip(variables, before, strict=True) if np.any(np.array(v) != old)}
    assert changed == {"kernel", "probe"}


def test_the_optimizer_of_a_recipe_has_its_settings():
    config = OptimizerConfig(
        learning_rate=0.01, warmup_epochs=1, weight_decay=0.3, global_clipnorm=2.0, ema_momentum=0.9
    )
    optimizer = make_optimizer(config, steps_per_epoch=10, epochs=3)
    assert float(optimizer.learning_rate) == 0.0
    assert (optimizer.weight_decay, optimizer.global_clipnorm, optimizer.use_ema) == (0.3, 2.0, True)


@pytest.mark.parametrize(
    ("device", "flags", "replicas", "wanted", "precision", "compiler"),
    [
        ("cpu", {"avx2", "avx512f"}, 1, "auto", "float32", "fused"),
        ("cpu", {"avx512f", "avx512_bf16"}, 1, "auto", "mixed_bfloat16", "fused"),
        ("cpu", {"amx_bf16"}, 2, "auto", "mixed_bfloat16", "fused"),
        ("cpu", {"avx512_bf16"}, 1, "float32", "float32", "fused"),
        ("cpu", set(), 1, "mixed_bfloat16", "mixed_bfloat16", "fused"),
        ("gpu", set(), 1, "auto", "mixed_bfloat16", "xla"),
        ("gpu", set(), 2, "float32", "float32", "plain"),
    ],
)
def test_precision_and_compiler_follow_the_hardware(device, flags, replicas, wanted, precision, compiler):
    recipe = RECIPE.replace(training=TrainingConfig(precision=wanted))
    assert choose_precision(recipe, device, flags) == precision
    assert choose_compiler(recipe, device, replicas) == compiler


def test_a_wish_overrules_the_hardware():
    recipe = RECIPE.replace(training=TrainingConfig(compiler="plain"))
    assert choose_compiler(recipe, "cpu", 1) == "plain"


def test_a_run_record_has_what_the_design_asks_for(tmp_path):
    from keras_vit.models import build_vit

    recipe = RECIPE.for_data(10, 1)
    result = {"history": [{"loss": 1.0, "accuracy": 0.5}], "seconds": 1.23, "resumed_from": 0}
    made = record.run_record(recipe, result, build_vit(recipe.model), {"split": "test", "accuracy": 0.5, "examples": 2})
    wanted = {"recipe", "model", "config", "commit", "dirty", "hardware", "versions", "seed", "epochs"}
    assert wanted | {"wall_seconds", "test_accuracy", "test_examples"} <= set(made)
    assert 0 < made["process_seconds"] < 24 * 3600
    assert made["process_seconds"] == pytest.approx(record.process_seconds(), abs=60)
    resumed = record.run_record(
        recipe,
        {**result, "resumed_from": 1},
        build_vit(recipe.model),
        {"split": "test", "accuracy": 0.5, "examples": 2},
    )
    assert resumed["process_seconds"] is None
    record.write_json(tmp_path / "a" / "record.json", made)
    assert json.loads((tmp_path / "a" / "record.json").read_text()) == made
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["record.json"]


def test_a_validation_accuracy_is_not_called_test_accuracy():
    from keras_vit.models import build_vit

    recipe = RECIPE.for_data(10, 1)
    recipe = recipe.replace(data=dataclasses.replace(recipe.data, validation_fraction=0.1))
    result = {"history": [], "seconds": 0.0, "resumed_from": 0}
    made = record.run_record(
        recipe, result, build_vit(recipe.model), {"split": "validation", "accuracy": 0.5, "examples": 2}
    )
    assert "validation_accuracy" in made
    assert "test_accuracy" not in made


def test_an_override_of_a_source_replaces_the_others():
    recipe = RECIPE.replace(data=DataConfig(tfrecords="a/{split}-*", num_classes=3))
    assert apply_overrides(recipe, ["data.name=cifar10"]).data.tfrecords is None
    assert apply_overrides(recipe, ["data.batch_size=3"]).data.tfrecords == "a/{split}-*"
    folder = apply_overrides(recipe, ["data.folder=x", "data.name=None"])
    assert (folder.data.folder, folder.data.name, folder.data.tfrecords) == ("x", None, None)


def test_an_override_of_the_optimizer_takes_away_what_it_has_not():
    muon = RECIPE.replace(optimizer=OptimizerConfig(name="muon", adam_lr_ratio=0.5, momentum=0.95, weight_decay=0.05))
    assert apply_overrides(muon, ["optimizer.name=adamw"]).optimizer == OptimizerConfig(weight_decay=0.05)
    assert apply_overrides(muon, ["optimizer.name=sgd"]).optimizer.momentum == 0.95
    with pytest.raises(ValueError, match="adam_lr_ratio is for muon"):
        apply_overrides(muon, ["optimizer.name=adamw", "optimizer.adam_lr_ratio=0.5"])


@pytest.mark.parametrize("assignment", ["freeze=5", "freeze=(1,)", "data.class_weights=5"])
def test_a_value_that_is_no_list_is_refused(assignment):
    with pytest.raises(ValueError, match=r"Received: (freeze|class_weights)="):
        apply_overrides(RECIPE, [assignment])


def test_one_pattern_is_a_list_of_one():
    assert apply_overrides(RECIPE, ["freeze=head"]).freeze == ("head",)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPE.name = "other"


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["data.tfrecords=a", "data.folder=b"], {"folder": "b"}),
        (["data.folder=b", "data.tfrecords=a"], {"tfrecords": "a"}),
        (["data.folder=a", "data.name=cifar10", "data.folder=b"], {"folder": "b"}),
        (["data.arrays=a", "data.arrays=none", "data.name=cifar10"], {"name": "cifar10"}),
        (["data.folder=a", "data.tfrecords=none"], {"folder": "a"}),
    ],
)
def test_of_several_sources_the_last_one_counts(assignments, expected):
    data = apply_overrides(RECIPE, assignments).data
    found = {name: getattr(data, name) for name in DataConfig.exclusive if getattr(data, name) is not None}
    assert found == expected


def test_of_a_group_that_is_taken_away_and_set_the_last_one_counts():
    set_again = apply_overrides(RECIPE, ["distillation=none", "distillation.teacher=a"])
    assert set_again.distillation.teacher == "a"
    assert apply_overrides(RECIPE, ["distillation.teacher=a", "distillation=none"]).distillation is None


def test_recipes_of_version_0_1_have_the_names_of_today():
    saved = {"name": "x", "data": {"name": "invented", "repeats": 3}, "augment": {"mixing": "elem"}}
    expected = {"name": "x", "data": {"name": "synthetic", "aug_repeats": 3}, "augment": {"mixup_mode": "elem"}}
    assert with_current_names(saved) == expected
