"""Layer-wise learning rates beside timm's, and AdamW with them beside one written out in NumPy."""

import contextlib
import gzip
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from golden import GOLDENS

from keras_vit.models import HybridConfig, SwinConfig, ViTConfig, build_model
from keras_vit.training import AdamW, decayed_paths, fused_training, layer_decay_scales
from keras_vit.weights.layouts.base import expand, weights_by_path
from keras_vit.weights.layouts.swin import TIMM as TIMM_SWIN
from keras_vit.weights.layouts.timm import TIMM

with gzip.open(GOLDENS / "training" / "layer_decay.json.gz", "rt") as _file:
    TIMMS = json.load(_file)

VIT = ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=4, num_heads=2, mlp_dim=8, num_classes=3)
SWIN = SwinConfig(
    image_size=32, patch_size=1, embed_dim=4, depths=(2, 2, 4, 2), num_heads=(1, 1, 1, 1), window_size=4, num_classes=3
)
CASES = {
    "vit": (VIT, TIMM),
    "vit_gap_fc_norm_registers_layer_scale": (
        VIT.replace(pooling="gap", pool_before_norm=True, num_registers=2, layer_scale_init=0.1),
        TIMM,
    ),
    "vit_map": (VIT.replace(pooling="map", class_token=False), TIMM),
    "deit_distilled": (VIT.replace(distillation_token=True), TIMM),
    "swin": (SWIN, TIMM_SWIN),
}


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_timms_scale_and_weight_decay(case):
    config, layout = CASES[case]
    golden, model = TIMMS[case], build_model(config)
    scales, decayed = layer_decay_scales(model, golden["layer_decay"]), decayed_paths(model)
    theirs = {}
    for rule in expand(layout.table(config), config, weights_by_path(model)):
        (ours,), (name,) = rule.ours, rule.theirs
        theirs[name] = {"lr_scale": pytest.approx(scales.pop(ours)), "weight_decay": 0.05 * (ours in decayed)}
    assert theirs == golden["parameters"]
    assert not scales


def test_what_no_golden_holds():
    """As timm's `group_matcher` has it: the norm of the tokens with the stem, pre-logits with the head."""
    model = build_model(VIT.replace(num_layers=2, embedding_norm=True, pre_logits_dim=4))
    scales = layer_decay_scales(model, 0.5)
    assert scales["embedding_norm/gamma"] == scales["patch_encoder/projection/kernel"] == 0.125
    assert scales["encoder_norm/gamma"] == scales["encoder_block_1/mlp/dense_1/kernel"] == 0.5
    assert scales["pre_logits/kernel"] == scales["head/bias"] == 1
    images = keras.Input((8, 8, 3))
    around = keras.Model(images, keras.layers.Dense(2, name="encoder")(model(images)))
    assert layer_decay_scales(around, 0.5) == {**scales, "encoder/kernel": 1, "encoder/bias": 1}


def test_the_stem_of_a_hybrid_goes_with_the_patches():
    config = HybridConfig(
        image_size=32,
        patch_size=1,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=8,
        stem_depths=(1, 1),
        stem_width=32,
    )
    scales = layer_decay_scales(build_model(config), 0.5)
    stem = {scale for path, scale in scales.items() if path.startswith(("stem_", "patch"))}
    assert stem == {0.25}


@pytest.mark.parametrize("decay", [0, -0.1, 1.1, None])
def test_a_decay_must_be_a_rate(decay):
    with pytest.raises(ValueError, match="decay must be in"):
        layer_decay_scales(build_model(VIT.replace(num_layers=1)), decay)


SCALES = {"block/kernel": 0.25, "block/bias": 0.25, "head/kernel": 1.0, "frozen/kernel": 0.1}
START = {path: np.random.default_rng(i).normal(size=(3, 2)) for i, path in enumerate(list(SCALES)[:3])}
SETTINGS = {"weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6, "learning_rate_scales": SCALES}
STEPS = 5


def _rate(step):
    return 0.1 / (step + 1)


@keras.saving.register_keras_serializable(package="tests")
class _Falling(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that every step changes, so that one taken from another step shows."""

    def __call__(self, step):
        return 0.1 / (keras.ops.cast(step, "float32") + 1.0)

    def get_config(self):
        return {}


def _gradients(step):
    return [np.random.default_rng(10 * step + i).normal(size=(3, 2)) for i in range(len(START))]


def _by_hand():
    """Weights after the steps: PyTorch's AdamW in groups with `lr * lr_scale`, as timm runs it."""
    beta_1, beta_2, epsilon = SETTINGS["beta_1"], SETTINGS["beta_2"], SETTINGS["epsilon"]
    weights = {path: value.copy() for path, value in START.items()}
    first, second = ({path: np.zeros((3, 2)) for path in START} for _ in range(2))
    for step in range(STEPS):
        for (path, weight), gradient in zip(weights.items(), _gradients(step), strict=True):
            rate = _rate(step) * SCALES[path]
            if path.endswith("kernel"):
                weight *= 1 - rate * SETTINGS["weight_decay"]
            first[path] = beta_1 * first[path] + (1 - beta_1) * gradient
            second[path] = beta_2 * second[path] + (1 - beta_2) * gradient**2
            # Keras adds epsilon before the correction of the second moment, PyTorch behind it.
            correction = np.sqrt(1 - beta_2 ** (step + 1)) / (1 - beta_1 ** (step + 1))
            weight -= rate * correction * first[path] / (np.sqrt(second[path]) + epsilon)
    return weights


def _variables():
    variables = []
    for path, value in START.items():
        layer, name = path.split("/")
        with keras.name_scope(layer):
            variables.append(keras.Variable(value.astype("float32"), name=name))
    return variables


@pytest.mark.parametrize("kind", ["plain", "fused", "reloaded"])
def test_adamw_is_that_of_timm(kind):
    optimizer = AdamW(_Falling(), **SETTINGS)
    variables = _variables()
    for step in range(STEPS):
        if kind == "reloaded" and step == 2:
            state = [variable.numpy() for variable in optimizer.variables]
            config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
            optimizer = keras.optimizers.deserialize(config)
            optimizer.build(variables)
            optimizer.set_weights(state)
        with fused_training() if kind == "fused" else contextlib.nullcontext():
            gradients = [keras.ops.convert_to_tensor(g, "float32") for g in _gradients(step)]
            optimizer.apply(gradients, variables)
    for variable, expected in zip(variables, _by_hand().values(), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, atol=2e-6)


_MIRRORED = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from test_layer_decay import AdamW, SETTINGS, STEPS, _Falling, _by_hand, _gradients, _variables
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    optimizer, variables = AdamW(_Falling(), **SETTINGS), _variables()
    optimizer.build(variables)

@tf.function
def step(gradients):
    # Keras sums the gradients of the replicas.
    strategy.run(lambda g: optimizer.apply([x / 2 for x in g], variables), (gradients,))

for i in range(STEPS):
    step([tf.constant(g, "float32") for g in _gradients(i)])
for variable, expected in zip(variables, _by_hand().values(), strict=True):
    for replica in variable.value.values:
        np.testing.assert_allclose(replica.numpy(), expected, atol=2e-6)
print("names", [v.name for v in variables[0].value.values])
"""


@pytest.mark.long
def test_adamw_is_that_of_timm_on_two_replicas(request):
    answer = subprocess.run([sys.executable, "-c", _MIRRORED], capture_output=True, text=True, cwd=request.path.parent)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "replica_1" in answer.stdout


def test_a_fit_with_scales_survives_saving(tmp_path):
    """At a scale of 0 the patches keep still, before and after a reload."""
    model = build_model(VIT.replace(num_layers=1))
    scales = {path: 0.0 if path.startswith("patch_encoder") else 1.0 for path in layer_decay_scales(model, 1)}
    images, labels = np.random.default_rng(0).normal(size=(4, 8, 8, 3)), np.arange(4) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(AdamW(0.1, learning_rate_scales=scales), loss, run_eagerly=True)
    for _ in range(2):
        before = {variable.path: variable.numpy() for variable in model.trainable_variables}
        model.fit(images, labels, verbose=0)
        still = {v.path for v in model.trainable_variables if np.array_equal(v.numpy(), before[v.path])}
        assert still == {path for path in before if path.startswith("patch_encoder")}
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")


def test_a_variable_without_a_scale_is_named():
    optimizer = AdamW(0.1, learning_rate_scales={"block/kernel": 0.5, "block/bias": 0.5})
    with pytest.raises(ValueError, match=r"learning_rate_scales.*missing \['head/kernel'\]"):
        optimizer.build(_variables())
