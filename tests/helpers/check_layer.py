"""One generic check of what every layer of the library promises."""

import inspect
import json

import keras
import numpy as np
import tensorflow as tf

POLICIES = ("mixed_bfloat16", "mixed_float16")


def check_layer(make, input_shape, expected_weights, tmp_path, zero_gradients=()):
    """Asserts everything a layer promises.

    Args:
        make: function from keyword arguments of `keras.layers.Layer` (`dtype=`) to a new layer with non-default
            arguments and every rate above zero.
        input_shape: tuple without the batch.
        expected_weights: int. Number of weight arrays.
        tmp_path: folder for the saved model.
        zero_gradients: endings of the paths of weights whose gradient is zero by mathematics.
    """
    check_config(make())
    layer, images = make(), np.random.default_rng(0).normal(size=(3, *input_shape)).astype("float32")
    model = _model(layer, input_shape)
    assert len(layer.weights) == expected_weights
    _perturb(layer)
    outputs = check_shapes(layer, images)
    check_gradients(layer, images, zero_gradients)
    check_dynamic_batch_and_xla(layer, images)
    check_saving(model, images, outputs, tmp_path)
    if expected_weights:
        check_fit(model, images, outputs)
    for policy in POLICIES:
        check_policy(make(dtype=policy), policy, images)


def _model(layer, input_shape):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, layer(inputs))


def _perturb(layer):
    """Moves weights away from zeros and ones, where a swapped or dropped weight would not be seen."""
    for seed, weight in enumerate(layer.weights):
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.1, seed=seed))


def check_config(layer):
    """The config is JSON, complete, and gives an equal layer."""
    config = layer.get_config()
    arguments = inspect.signature(type(layer).__init__).parameters.values()
    assert {a.name for a in arguments if a.kind is not a.VAR_KEYWORD} - {"self"} <= set(config)
    again = type(layer).from_config(json.loads(json.dumps(config)))
    assert json.dumps(again.get_config()) == json.dumps(config)


def check_shapes(layer, images):
    """Symbolic, eager and computed shapes agree; returns the eager outputs."""
    outputs = keras.ops.convert_to_numpy(layer(images, **_inference(layer)))
    symbolic = layer(keras.KerasTensor((None, *images.shape[1:])))
    assert symbolic.shape == (None, *outputs.shape[1:])
    assert tuple(layer.compute_output_shape((None, *images.shape[1:]))) == symbolic.shape
    assert tuple(layer.compute_output_shape(images.shape)) == outputs.shape
    assert np.isfinite(outputs).all()
    return outputs


def check_gradients(layer, images, zero_gradients):
    """At `training=True` every weight and the input receive a finite gradient that is not zero."""
    inputs = tf.Variable(images)
    with tf.GradientTape() as tape:
        outputs = layer(inputs, **_training(layer))
        loss = tf.reduce_mean(tf.square(outputs - tf.random.stateless_normal(outputs.shape, (1, 2))))
    variables = [inputs, *(w.value for w in layer.trainable_weights)]
    paths = ["inputs", *(w.path for w in layer.trainable_weights)]
    for path, gradient in zip(paths, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, f"{path} has no gradient"
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all(), f"the gradient of {path} is not finite"
        if path.endswith(tuple(zero_gradients)):
            np.testing.assert_allclose(gradient, 0, atol=1e-6, err_msg=path)
        else:
            assert np.abs(gradient).max() > 1e-6, f"the gradient of {path} is zero"


def check_dynamic_batch_and_xla(layer, images):
    """A function traced once for any batch agrees with the eager layer, and so does XLA."""
    signature = [tf.TensorSpec((None, *images.shape[1:]), "float32")]
    dynamic = tf.function(lambda x: layer(x, **_inference(layer)), input_signature=signature)
    for batch in (1, 3):
        expected = layer(images[:batch], **_inference(layer))
        np.testing.assert_allclose(dynamic(images[:batch]), expected, atol=1e-5)
    compiled = tf.function(lambda x: layer(x, **_inference(layer)), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(images)), expected, atol=1e-5)


def check_saving(model, images, outputs, tmp_path):
    """A `.keras` file gives the same layer without `custom_objects`."""
    model.save(tmp_path / "layer.keras")
    loaded = keras.models.load_model(tmp_path / "layer.keras")
    assert type(loaded.layers[-1]) is type(model.layers[-1])
    assert json.dumps(loaded.layers[-1].get_config()) == json.dumps(model.layers[-1].get_config())
    np.testing.assert_array_equal(loaded(images, training=False), outputs)


def check_fit(model, images, outputs):
    """A step of `model.fit` has a finite loss and moves the weights."""
    before = [w.numpy() for w in model.trainable_weights]
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(images, outputs + 1, batch_size=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
    assert any((w.numpy() != b).any() for w, b in zip(model.trainable_weights, before, strict=True))


def check_policy(layer, policy, images):
    """Outputs in the compute dtype and finite, variables in the variable dtype."""
    compute = policy.removeprefix("mixed_")
    for arguments in (_inference(layer), _training(layer)):
        outputs = layer(images, **arguments)
        assert keras.backend.standardize_dtype(outputs.dtype) == compute
        assert np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))).all()
    assert layer(keras.KerasTensor((None, *images.shape[1:]))).dtype == compute
    assert {w.dtype for w in layer.weights} <= {"float32"}


def _takes_training(layer):
    return "training" in inspect.signature(layer.call).parameters


def _inference(layer):
    return {"training": False} if _takes_training(layer) else {}


def _training(layer):
    return {"training": True} if _takes_training(layer) else {}
