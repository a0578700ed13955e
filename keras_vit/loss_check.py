"""Warns of losses of probabilities on models that give logits.

Keras' `"categorical_crossentropy"` takes probabilities. Of logits it makes a number too, with which a model hardly
learns.
"""

import functools
import warnings
import weakref

import keras

_FUNCTIONS = (
    keras.losses.categorical_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.kl_divergence,
)
_CLASSES = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.KLDivergence,
)
# Layers that hand on what they get: logits stay logits.
_PASSING = (
    keras.layers.Average,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.Reshape,
    keras.layers.Flatten,
)
_warned = weakref.WeakSet()


def check_loss(model):
    """Warns, once a model, if it gives logits and is compiled with a loss of probabilities.

    Args:
        model: a compiled `keras.Model` that is, or holds, a model of keras_vit. A subclassed model, whose outputs are
            not known, is passed over.
    """
    if model in _warned:
        return
    for layer, loss in _outputs_and_losses(model):
        if loss is not None and _expects_probabilities(loss) and _gives_logits(layer):
            _warned.add(model)
            warnings.warn(
                f"model {model.name!r} gives logits, but {_describe(loss)} is a loss of probabilities, with which it "
                "hardly learns. Compile it with loss=keras.losses.CategoricalCrossentropy(from_logits=True), of "
                "integer labels SparseCategoricalCrossentropy, of several labels an image BinaryCrossentropy; or "
                "build it with classifier_activation='softmax' or 'sigmoid'.",
                UserWarning,
                stacklevel=3,
            )
            return


def check_loss_at_compile(model):
    """Makes `compile` of one model check its loss at once; otherwise the first training step does.

    The model stays a plain functional `keras.Model`. Copies, loaded models and models around it are checked when they
    are trained.

    Returns:
        `model`.
    """
    # Not a method: a reference to the model from itself would keep it until the garbage collector runs.
    reference, compile_plainly = weakref.ref(model), type(model).compile

    @functools.wraps(compile_plainly)
    def compile_and_check(*args, **kwargs):
        compile_plainly(reference(), *args, **kwargs)
        check_loss(reference())

    model.compile = compile_and_check
    return model


def _outputs_and_losses(model):
    """Pairs of the layer that gives an output and the loss of this output."""
    loss = getattr(model, "loss", None)
    if loss is None or not getattr(model, "outputs", None):
        return []
    if len(model.outputs) == 1:
        flat = [value for value in keras.tree.flatten(loss) if value is not None]
        return [(model.layers[-1], value) for value in flat[:1]]
    layers = {layer.name: layer for layer in model.layers}
    if isinstance(loss, dict):
        named = loss.items()
    else:
        losses = loss if isinstance(loss, list | tuple) else [loss] * len(model.outputs)
        named = zip(model.output_names, losses, strict=False)
    return [(layers.get(name), value) for name, value in named]


def _expects_probabilities(loss):
    """Returns whether a loss as `compile` takes it, a name, a function or an object, is one of probabilities."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return False
    options = {}
    if isinstance(loss, functools.partial):
        loss, options = loss.func, loss.keywords
    if isinstance(loss, keras.losses.Loss):
        return isinstance(loss, _CLASSES) and not loss.get_config().get("from_logits", False)
    return loss in _FUNCTIONS and not options.get("from_logits", False)


def _gives_logits(layer):
    """Returns whether a layer ends without an activation; `False` if that is unknown."""
    if isinstance(layer, keras.Model):
        return len(layer.outputs or []) == 1 and _gives_logits(layer.layers[-1])
    if isinstance(layer, _PASSING):
        sources = keras.tree.flatten(layer.input)
        return all(_gives_logits(source) for source in _sources(sources))
    return isinstance(layer, keras.layers.Dense) and layer.activation in (None, keras.activations.linear)


def _sources(tensors):
    """The layers that symbolic tensors come from."""
    return [tensor._keras_history.operation for tensor in tensors]


def _describe(loss):
    return repr(loss) if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
