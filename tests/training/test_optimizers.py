"""Every optimizer of a recipe: its rules, its schedule, accumulation and averages."""

import contextlib
import json

import keras
import numpy as np
import pytest

from keras_vit.config import OptimizerConfig
from keras_vit.config.optimizer import NAMES
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training import Lamb, Muon, decayed_paths, layer_decay_scales, make_optimizer, make_schedule
from keras_vit.training.loop.callbacks import averaged_weights

PATHS = ("encoder_block_0/mlp/dense_1/kernel", "encoder_block_0/mlp/dense_1/bias", "head/kernel")
RNG = np.random.default_rng(0)
START = [RNG.normal(size=(4, 3)), RNG.normal(size=3), RNG.normal(size=(4, 3))]
GRADIENTS = [[RNG.normal(size=value.shape) for value in START] for _ in range(8)]
DECAYING = [name for name in NAMES if name != "adam"]


def _variables():
    variables = []
    for path, value in zip(PATHS, START, strict=True):
        *scopes, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            variables.append(keras.Variable(value.astype("float32"), name=name))
    return variables


def _numpy(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _steps(optimizer, gradients):
    variables = _variables()
    for values in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in values], variables)
    return _numpy(variables)


def _optimizer(steps=8, **fields):
    return make_optimizer(OptimizerConfig(**{"learning_rate": 0.05, **fields}), steps, 1)


def _again(optimizer):
    return keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_and_its_reloaded_self_take_the_same_steps(name):
    decay = {} if name == "adam" else {"weight_decay": 0.3, "independent_weight_decay": True}
    optimizer = _optimizer(name=name, warmup_steps=2, global_clipnorm=1.0, ema_momentum=0.5, **decay)
    again = _again(optimizer)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    moved = _steps(optimizer, GRADIENTS)
    for a, b, start in zip(_steps(again, GRADIENTS), moved, START, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.abs(a - start).max() > 1e-3


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("name", DECAYING)
def test_weight_decay_is_decoupled_and_spares_biases(name, independent):
    """At a gradient of zero nothing moves but what is decayed: by the rate, or by the rate over its peak."""
    fields = {"name": name, "schedule": "linear", "weight_decay": 0.1, "independent_weight_decay": independent}
    optimizer = _again(_optimizer(steps=2, **fields))
    moved = _steps(optimizer, 2 * [[np.zeros_like(value) for value in START]])
    factors = [1.0, 0.5] if independent else [0.05, 0.025]
    if name == "lamb" and not independent:  # Its step is as long as the weights, and along them.
        shrunk = np.prod([1 - f for f in factors])
    else:
        shrunk = np.prod([1 - 0.1 * f for f in factors])
    for value, start, factor in zip(moved, START, [shrunk, 1.0, shrunk], strict=True):
        np.testing.assert_allclose(value, factor * start, rtol=1e-5)


def test_a_scale_slows_the_update_but_not_an_independent_decay():
    scales = dict.fromkeys(PATHS, 0.0)
    optimizer = make_optimizer(
        OptimizerConfig(schedule="constant", weight_decay=0.1, independent_weight_decay=True), 8, 1
    )
    optimizer.learning_rate_scales = scales
    moved = _steps(optimizer, GRADIENTS[:1])
    for value, start, factor in zip(moved, START, [0.9, 1, 0.9], strict=True):
        np.testing.assert_allclose(value, factor * start, rtol=1e-6)


def test_sgd_has_momentum_and_nesterov():
    for nesterov in (False, True):
        moved = _steps(_optimizer(name="sgd", schedule="constant", momentum=0.5, nesterov=nesterov), GRADIENTS[:3])
        velocity, expected = 0, START[0]
        for gradients in GRADIENTS[:3]:
            velocity = 0.5 * velocity - 0.05 * gradients[0]
            expected = expected + (0.5 * velocity - 0.05 * gradients[0] if nesterov else velocity)
        np.testing.assert_allclose(moved[0], expected, rtol=1e-5)


def test_muon_is_for_hidden_kernels_alone():
    vit = ViTConfig(
        image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16, num_classes=3, pooling="map"
    )
    swin = SwinConfig(
        image_size=16, patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 1), window_size=4, num_classes=3
    )
    for config in (vit, swin):
        variables = build_model(config).trainable_variables
        optimizer = _again(_optimizer(name="muon"))
        optimizer.build(variables)
        muons = {v.path for v, adam in zip(variables, optimizer.adam_velocities, strict=True) if adam is None}
        hidden = ("encoder_block_", "patch_merging_", "representation/")
        assert muons == {v.path for v in variables if v.path.startswith(hidden) and v.name == "kernel"}
        assert len(muons) > 3


def test_muon_makes_updates_orthogonal():
    optimizer = Muon(0.1, momentum=0.0, weight_decay=0.0, rms_rate=None, ns_steps=10)
    moved = _steps(optimizer, GRADIENTS[:1])
    singular = np.linalg.svd((START[0] - moved[0]) / 0.1, compute_uv=False)
    assert np.all((singular > 0.6) & (singular < 1.3))
    assert np.linalg.svd(GRADIENTS[0][0], compute_uv=False)[[0, -1]].tolist() != pytest.approx([1, 1], abs=0.4)


def test_lamb_scales_what_it_decays():
    """Written out: the ratio of norms where there is weight decay, Adam's step where there is none."""
    optimizer = Lamb(0.1, weight_decay=0.2, beta_1=0.8, beta_2=0.9, epsilon=1e-6)
    moved = _steps(optimizer, GRADIENTS[:3])
    for i, decay in ((0, 0.2), (1, 0.0)):
        weight, first, second = START[i], 0, 0
        for t, gradients in enumerate(GRADIENTS[:3], 1):
            first, second = 0.8 * first + 0.2 * gradients[i], 0.9 * second + 0.1 * gradients[i] ** 2
            step = first / (1 - 0.8**t) / (np.sqrt(second / (1 - 0.9**t)) + 1e-6) + decay * weight
            ratio = np.linalg.norm(weight) / np.linalg.norm(step) if decay else 1.0
            weight = weight - 0.1 * ratio * step
        np.testing.assert_allclose(moved[i], weight, rtol=2e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_accumulated_batches_are_one_large_batch(name):
    """Weights and averages after two updates of four batches each, under a schedule, clipping and decay."""
    fields = {"name": name, "warmup_steps": 1, "global_clipnorm": 0.5, "ema_momentum": 0.7, "weight_decay": 0.1}
    small = _optimizer(steps=8, gradient_accumulation_steps=4, **fields)
    large = _optimizer(steps=2, **fields)
    means = [[np.mean(parts, axis=0) for parts in zip(*GRADIENTS[i : i + 4], strict=True)] for i in (0, 4)]
    for a, b in zip(_steps(_again(small), GRADIENTS), _steps(large, means), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    _steps(small, GRADIENTS)
    for (_, a), (_, b) in zip(small.moving_averages(), large.moving_averages(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_averages_are_swapped_in_and_out_bit_by_bit():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(_optimizer(ema_momentum=0.9), "mse", run_eagerly=True)
    model.train_on_batch(RNG.normal(size=(8, 4)), RNG.normal(size=(8, 3)))
    model.train_on_batch(RNG.normal(size=(8, 4)), RNG.normal(size=(8, 3)))
    before, averages = (_numpy(side) for side in zip(*model.optimizer.moving_averages(), strict=True))
    with averaged_weights(model):
        inside = _numpy(model.weights)
    for a, b, c, d in zip(before, _numpy(model.weights), averages, inside, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(c, d)
        assert not np.array_equal(a, c)
    for (_, now), then in zip(model.optimizer.moving_averages(), averages, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("fields", "step", "rate"),
    [
        ({"schedule": "constant"}, 99, 1.0),
        ({"schedule": "linear", "final_learning_rate": 0.2}, 50, 0.6),
        ({"schedule": "cosine", "final_learning_rate": 0.2}, 50, 0.6),
        ({"schedule": "rsqrt", "timescale": 25, "warmup_steps": 10}, 35, 2**-0.5),
        ({"schedule": "rsqrt", "cooldown_steps": 10, "timescale": 10**9}, 95, 0.5),
        ({"schedule": "cosine", "warmup_epochs": 1.0}, 5, 0.5),
        ({"schedule": "linear", "warmup_epochs": 0.5, "warmup_learning_rate": 0.4}, 3, 0.76),
        ({"schedule": "cosine", "warmup_steps": 10, "warmup_learning_rate": 0.4}, 5, 0.7),
        ({"schedule": "epoch_cosine", "warmup_epochs": 2.0, "warmup_learning_rate": 0.4}, 19, 0.7),
        (
            {"schedule": "epoch_cosine", "warmup_epochs": 2.0, "warmup_learning_rate": 0.4, "lag_one_epoch": True},
            19,
            0.4,
        ),
        ({"schedule": "epoch_cosine", "gradient_accumulation_steps": 5}, 59, 0.5),
        ({"schedule": "linear", "gradient_accumulation_steps": 5}, 54, 0.5),
        ({"lr_base_size": 256, "schedule": "constant"}, 0, 0.25),
        ({"lr_base_size": 256, "schedule": "constant", "gradient_accumulation_steps": 2}, 0, 0.5),
    ],
)
def test_a_schedule_of_ten_epochs_with_ten_steps(fields, step, rate):
    """Each rate by hand."""
    schedule, _ = make_schedule(OptimizerConfig(learning_rate=1.0, **fields), 10, 10, batch_size=64)
    assert float(schedule(keras.ops.convert_to_tensor(step))) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adamwx"}, "Did you mean 'adamw'"),
        ({"name": "adam", "weight_decay": 0.1}, "adam has no weight decay"),
        ({"warmup_steps": 5, "warmup_epochs": 1.0}, "either warmup_epochs or warmup_steps"),
        ({"schedule": "epoch_cosine", "warmup_epochs": 1.5}, "integer number of warmup_epochs"),
        ({"lag_one_epoch": True}, "lag_one_epoch is for epoch_cosine"),
        ({"cooldown_steps": 5}, "cooldown_steps is for"),
        ({"momentum": 0.5}, "momentum is for sgd, muon"),
        ({"name": "lion", "nesterov": True}, "nesterov is for sgd, muon"),
        ({"name": "sgd", "adam_lr_ratio": 0.5}, "adam_lr_ratio is for muon"),
        ({"name": "sgd", "beta_1": 0.5}, "beta_1 is for adamw"),
        ({"name": "lion", "epsilon": 1e-6}, "epsilon is for adamw"),
        ({"timescale": 5}, "timescale is for rsqrt"),
        ({"warmup_learning_rate": 1e-6}, "warmup_learning_rate needs warmup_epochs"),
        ({"schedule": "constant", "final_learning_rate": 0.1}, "final_learning_rate is for"),
        ({"gradient_accumulation_steps": 0}, "must be a positive int"),
        ({"layer_decay": 0.0}, r"must be in \(0, 1\] or None"),
        ({"beta_2": 1.0}, "must be a rate"),
    ],
)
def test_settings_without_effect_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**fields)


def test_lr_base_size_needs_a_batch_size():
    with pytest.raises(ValueError, match="lr_base_size needs"):
        make_schedule(OptimizerConfig(lr_base_size=512), 10, 10)


def test_layer_decay_comes_from_the_config():
    config = ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3)
    model = build_model(config)
    optimizer = make_optimizer(OptimizerConfig(layer_decay=0.5), 10, 10, model=model)
    assert optimizer.learning_rate_scales == layer_decay_scales(model, 0.5)
    assert decayed_paths(model) < set(optimizer.learning_rate_scales)
