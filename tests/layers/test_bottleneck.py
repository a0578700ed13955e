"""Standardized convolutions, group norm and the units of the ResNet, against NumPy."""

import keras
import numpy as np
import pytest

from keras_vit.layers import Bottleneck, GroupNormalization, ResNetRoot, ResNetStage, StandardizedConv2D

RNG = np.random.default_rng(0)


def _random(layer, shape):
    layer.build(shape)
    for seed, weight in enumerate(layer.weights):
        mean = 1.0 if weight.path.endswith("gamma") else 0.0
        weight.assign(keras.random.normal(weight.shape, mean, stddev=0.4, seed=seed))
    return layer


def _windows(images, size, strides, fill):
    """The inputs of each output of a `SAME` convolution or pooling, `(batch, rows, columns, h, w, channels)`."""
    pads = []
    for side, window, stride in zip(images.shape[1:3], size, strides, strict=True):
        missing = max((-(-side // stride) - 1) * stride + window - side, 0)
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(images, ((0, 0), *pads, (0, 0)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
    return views[:, :: strides[0], :: strides[1]].transpose(0, 1, 2, 4, 5, 3)


def _standardize(kernel, rule):
    mean, std = kernel.mean(axis=(0, 1, 2)), kernel.std(axis=(0, 1, 2))
    return (kernel - mean) / (std + 1e-5 if rule == "google" else np.sqrt(std**2 + 1e-8))


def _convolve(layer, images):
    kernel = _standardize(np.array(layer.kernel, "float64"), layer.rule)
    return np.einsum("brchwi,hwio->brco", _windows(images, layer.kernel_size, layer.strides, 0), kernel)


def _normalize(layer, images):
    groups = images.astype("float64").reshape(len(images), -1, layer.groups, images.shape[-1] // layer.groups)
    mean, variance = (f(groups, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    normed = ((groups - mean) / np.sqrt(variance + layer.epsilon)).reshape(images.shape)
    return normed * np.array(layer.gamma) + np.array(layer.beta)


def _relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("side", "kernel_size", "strides"), [((6, 7), 3, 2), ((8, 8), 7, 2), ((5, 6), 1, 2), ((4, 9), (3, 2), (1, 3))]
)
def test_padding_depends_on_the_size_of_the_image(side, kernel_size, strides):
    layer = _random(StandardizedConv2D(4, kernel_size, strides), (None, *side, 3))
    images = RNG.normal(size=(2, *side, 3)).astype("float32")
    np.testing.assert_allclose(layer(images), _convolve(layer, images), atol=1e-5)


@pytest.mark.parametrize("rule", ["timm", "google"])
def test_kernels_are_standardized_as_the_source_does(rule):
    layer = _random(StandardizedConv2D(5, 3, rule=rule), (None, 4, 4, 8))
    kernel = np.array(layer.kernel) * 10.0 ** -(np.arange(5, dtype="float32") ** 2) + 0.5  # from large to negligible
    kernel = np.concatenate([kernel[..., :2], (kernel - 0.5)[..., 2:]], axis=-1)
    layer.kernel.assign(kernel)
    expected = _standardize(kernel.astype("float64"), rule)
    np.testing.assert_allclose(layer.standardized_kernel(), expected, rtol=1e-4, atol=1e-6)
    other = _standardize(kernel.astype("float64"), {"timm": "google", "google": "timm"}[rule])
    assert np.abs(other - expected).max() > 0.1


def test_kernels_are_standardized_in_float32_under_mixed_precision():
    layer = _random(StandardizedConv2D(4, 3, dtype="mixed_bfloat16"), (None, 4, 4, 8))
    layer.kernel.assign(layer.kernel + 300)  # bfloat16 rounds the rest away
    full = _standardize(np.array(layer.kernel, "float64"), "timm")
    np.testing.assert_allclose(layer.standardized_kernel(), full, atol=1e-3)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_norm(groups):
    layer = _random(GroupNormalization(groups, epsilon=0.01), (None, 3, 5, 8))
    images = RNG.normal(2, 0.1, size=(2, 3, 5, 8)).astype("float32")
    np.testing.assert_allclose(layer(images), _normalize(layer, images), atol=1e-5)
    plain = keras.layers.GroupNormalization(groups, epsilon=0.01)
    plain.build(images.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(images), plain(images), atol=1e-5)


@pytest.mark.parametrize("side", [(8, 12), (9, 7), (6, 5)])
def test_the_root_pools_what_is_normalized(side):
    layer = _random(ResNetRoot(32), (None, *side, 3))
    images = RNG.normal(size=(2, *side, 3)).astype("float32")
    x = _relu(_normalize(layer.norm, _convolve(layer.convolution, images)))
    expected = _windows(x, (3, 3), (2, 2), -np.inf).max(axis=(3, 4))
    np.testing.assert_allclose(layer(images), expected, atol=1e-4)


@pytest.mark.parametrize(("channels", "strides", "projects"), [(128, 1, False), (128, 2, True), (64, 1, True)])
def test_the_bottleneck_is_a_residual_unit(channels, strides, projects):
    layer = _random(Bottleneck(32, strides), (None, 5, 4, channels))
    images = RNG.normal(size=(2, 5, 4, channels)).astype("float32")
    x = images
    for convolution, norm in zip(layer.convolutions, layer.norms, strict=True):
        x = _normalize(norm, _convolve(convolution, x))
        x = _relu(x) if norm is not layer.norms[-1] else x
    assert (layer.projection is not None) == projects
    shortcut = _normalize(layer.projection_norm, _convolve(layer.projection, images)) if projects else images
    np.testing.assert_allclose(layer(images), _relu(x + shortcut), atol=1e-4)


def test_a_new_unit_is_its_shortcut():
    images = RNG.normal(size=(2, 5, 4, 128)).astype("float32")
    np.testing.assert_allclose(Bottleneck(32)(images), _relu(images), atol=1e-6)


def test_only_the_first_unit_of_a_stage_has_the_strides():
    layer = ResNetStage(32, 3, 2, "google")
    layer.build((None, 8, 8, 64))
    assert [unit.strides for unit in layer.units] == [2, 1, 1]
    assert [unit.projection is None for unit in layer.units] == [False, True, True]
    assert layer.compute_output_shape((None, 7, 8, 64)) == (None, 4, 4, 128)


@pytest.mark.parametrize(("rule", "epsilon"), [("timm", 1e-5), ("google", 1e-6)])
def test_epsilons_are_those_of_the_source(rule, epsilon):
    unit = Bottleneck(32, 2, rule)
    unit.build((None, 4, 4, 32))
    norms = [*unit.norms, unit.projection_norm, ResNetRoot(32, rule).norm]
    convolutions = [*unit.convolutions, unit.projection, ResNetRoot(32, rule).convolution]
    assert {norm.epsilon for norm in norms} == {epsilon}
    assert {convolution.rule for convolution in convolutions} == {rule}


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: StandardizedConv2D(4, 3, rule="goggle"), "'google'.*rule='goggle'"),
        (lambda: StandardizedConv2D(0, 3), "filters=0"),
        (lambda: ResNetRoot(32, "flax"), "Received: rule='flax'"),
        (lambda: ResNetStage(32, 0), "depth=0"),
        (lambda: Bottleneck(32, 0), "strides=0"),
        (lambda: GroupNormalization(axis=1), "axis=1"),
    ],
)
def test_errors_state_the_rule(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
