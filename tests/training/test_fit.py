"""What users of `fit` expect of our models, and what of a model's training state survives saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import CONFIG, tiny_vit

from keras_vit.models import SwinConfig, build_model
from keras_vit.training import AdamW, SigmoidCrossEntropy, freeze, initialize_heads, make_loss
from keras_vit.training.initialization.warm_start import remat_scope

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(12, 16, 24, 3)).astype("float32")
LABELS = np.arange(12) % 3
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SWIN = SwinConfig(image_size=16, patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 1), window_size=4)


def _compiled(loss=SPARSE, **fields):
    model = tiny_vit(num_layers=1, **fields)
    model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=["accuracy"], run_eagerly=True)
    return model


def _numpy(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def _trained(**arguments):
    """The weights after an epoch, and its loss."""
    model = _compiled()
    history = model.fit(IMAGES, LABELS, batch_size=12, verbose=0, shuffle=False, **arguments)
    return _numpy(model), history.history["loss"][0]


def test_class_weights_are_sample_weights():
    """And a class of weight 0 is as good as absent."""
    by_class, loss = _trained(class_weight={0: 2.0, 1: 1.0, 2: 0.0})
    by_sample, same_loss = _trained(sample_weight=np.array([2.0, 1.0, 0.0])[LABELS])
    assert loss == pytest.approx(same_loss, rel=1e-6)
    for a, b, plain in zip(by_class, by_sample, _trained()[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert not np.array_equal(a, plain)
    logits = tiny_vit(num_layers=1)(IMAGES)
    each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)(LABELS, logits)
    assert loss == pytest.approx(float(np.mean(each * np.array([2, 1, 0])[LABELS])), rel=1e-5)


def test_several_labels_an_image():
    targets = (RNG.random((12, 3)) < 0.5).astype("float32")
    model = _compiled(SigmoidCrossEntropy())
    history = model.fit(IMAGES, targets, batch_size=12, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    expected = keras.losses.BinaryCrossentropy(from_logits=True)(targets, model(IMAGES))
    assert model.evaluate(IMAGES, targets, verbose=0)[0] == pytest.approx(float(expected), rel=1e-5)
    with_sigmoid = _compiled("binary_crossentropy", classifier_activation="sigmoid")
    with_sigmoid.set_weights(model.get_weights())
    assert with_sigmoid.evaluate(IMAGES, targets, verbose=0)[0] == pytest.approx(float(expected), rel=1e-4)


def test_a_validation_split_and_early_stopping():
    model = _compiled()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10, restore_best_weights=True)
    history = model.fit(IMAGES, LABELS, validation_split=0.25, epochs=9, callbacks=[stop], verbose=0).history
    assert len(history["val_loss"]) == 2
    best = model.evaluate(IMAGES[-3:], LABELS[-3:], verbose=0)[0]
    assert best == pytest.approx(history["val_loss"][0], rel=1e-5)


def test_freeze_then_unfreeze():
    """The first fit moves the head alone, the second everything; a new `compile` makes it so."""
    model = _compiled()
    freeze(model, ["(?!head).*"])
    for moving in ({"head"}, {layer.name for layer in model.layers if layer.weights}):
        model.compile(AdamW(1e-2, weight_decay=0.1), SPARSE, run_eagerly=True)
        before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
        model.fit(IMAGES, LABELS, verbose=0)
        moved = {w.path.split("/")[0] for w in model.weights if not np.array_equal(w.numpy(), before[w.path])}
        assert moved == moving
        for layer in model.layers:
            layer.trainable = True


@pytest.mark.parametrize("patterns", [["encoder_blok_0"], [".*"]])
def test_freeze_refuses_what_it_cannot_do(patterns):
    with pytest.raises(ValueError, match="freeze must"):
        freeze(tiny_vit(num_layers=1), patterns)


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(pooling="map"), SWIN], ids=["vit", "map", "swin"])
def test_frozen_layers_stay_frozen_when_saved_and_cloned(config, tmp_path):
    model = build_model(config)
    names = ("patch_encoder", "encoder_block_0", "representation")
    for name in names:
        model.get_layer(name).trainable = False
    trained = [weight.path for weight in model.trainable_weights]
    model.save(tmp_path / "model.keras")
    for again in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert [weight.path for weight in again.trainable_weights] == trained
        for name in names:
            again.get_layer(name).trainable = True
        assert len(again.trainable_weights) == len(model.weights)
    assert len(trained) < len(model.weights)


def test_heads_begin_where_they_are_told():
    model = tiny_vit(distillation_token=True)
    kernel = model.get_layer("head").kernel.numpy()
    initialize_heads(model, bias=-10)
    assert np.array_equal(model.get_layer("head").kernel.numpy(), kernel)
    assert np.all(model.get_layer("head_dist").bias.numpy() == -10)
    initialize_heads(model, bias=-7, zero=True)
    assert np.all(model(IMAGES).numpy() == -7)
    initialize_heads(model, zero=True)
    assert not model(IMAGES).numpy().any()
    with pytest.raises(ValueError, match="needs a head with a bias"):
        initialize_heads(tiny_vit(head_bias=False), bias=-10)


def test_the_losses_by_hand():
    targets = np.array([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]], "float32")
    logits = RNG.normal(size=(2, 3)).astype("float32")
    p = 1 / (1 + np.exp(-logits))

    def binary(t):
        return -(t * np.log(p) + (1 - t) * np.log(1 - p))

    assert float(make_loss("sigmoid")(targets, logits)) == pytest.approx(binary(targets).sum(-1).mean(), rel=1e-5)
    whole = (targets > 0).astype("float32")
    assert float(make_loss("binary")(targets, logits)) == pytest.approx(binary(whole).mean(), rel=1e-5)
    smooth = 0.9 * whole + 0.1 / 3
    loss = make_loss("binary", 0.1)
    loss = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(loss(targets, logits)) == pytest.approx(binary(smooth).mean(), rel=1e-5)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    softmax = -((0.9 * targets + 0.1 / 3) * np.log(shares)).sum(-1).mean()
    assert float(make_loss("softmax", 0.1)(targets, logits)) == pytest.approx(softmax, rel=1e-5)


@pytest.mark.parametrize("config", [CONFIG, SWIN], ids=["vit", "swin"])
def test_checkpointed_blocks_learn_the_same(config):
    images = RNG.normal(size=(4, *config.image_size, 3)).astype("float32")
    weights = []
    for wanted in (False, True):
        keras.utils.set_random_seed(0)
        with remat_scope(config, wanted):
            model = build_model(config)
        model.compile(keras.optimizers.SGD(0.1), SPARSE, jit_compile=False)
        model.fit(images, np.arange(4) % 3, verbose=0)
        weights.append(_numpy(model))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def _products(model):
    """How many products of matrices the gradient of a model takes."""

    @tf.function(autograph=False)
    def gradient(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    graph = gradient.get_concrete_function(tf.TensorSpec((2, *model.input_shape[1:]))).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sum("MatMul" in node.op for node in nodes)


@pytest.mark.parametrize("config", [CONFIG, SWIN], ids=["vit", "swin"])
def test_checkpointed_blocks_are_computed_again(config):
    plain = _products(build_model(config))
    with remat_scope(config):
        model = build_model(config)
    # At least the projections and products of the attention and the MLP of every block.
    assert _products(model) >= plain + 5 * len(config.drop_path_rates())


def test_checkpointed_blocks_draw_their_masks_once():
    """The gradient is that of the loss with the masks of the way there, by finite differences."""
    config = CONFIG.replace(
        dropout_rate=0.3, attention_dropout_rate=0.2, drop_path_rate=0.3, drop_path_schedule="constant"
    )
    with remat_scope(config):
        model = build_model(config)
    kernel = model.get_layer("encoder_block_0").mlp.dense_1.kernel
    states = [variable for variable in model.variables if "seed_generator" in variable.path]
    start = [state.numpy() for state in states]

    @tf.function
    def loss_and_gradient():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(10 * model(IMAGES, training=True) - 1))
        return loss, tape.gradient(loss, kernel.value)

    def evaluate(value):
        kernel.assign(value)
        for state, old in zip(states, start, strict=True):
            state.assign(old)
        return [result.numpy() for result in loss_and_gradient()]

    value = kernel.numpy()
    loss, gradient = evaluate(value)
    step = 1e-2 * gradient / np.linalg.norm(gradient)
    slope = (evaluate(value + step)[0] - evaluate(value - step)[0]) / 2e-2
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=1e-2)
    assert evaluate(value)[0] == pytest.approx(loss, rel=1e-6)
    assert float(loss_and_gradient()[0]) != pytest.approx(loss, rel=1e-4), "the next step has the same masks"
    assert not any(np.array_equal(state.numpy(), old) for state, old in zip(states, start, strict=True))
