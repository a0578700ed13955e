"""The whole state of a run: read from a model, so that it goes on at the very step where it was, and filled in.

More than Keras' `BackupAndRestore`: the place in the data, the state of dropout's random numbers, the metrics of the
begun epoch and the history are in it, and a run directory refuses to go on with another recipe.
"""

import keras
from keras import ops

from keras_vit.training.distillation import trained_model
from keras_vit.training.saved_state import load

FILE_NAME = "checkpoint.npz"


def _variables(model):
    """Every variable that training changes, in a fixed order: weights, random seeds, optimizer; of no teacher."""
    return [*getattr(model, "changing_variables", model.variables), *model.optimizer.variables]


def values_of(model):
    """Copies of the values of every variable that training changes, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in _variables(model)]


def metrics_of(model):
    """Copies of the values of every variable of the model's metrics, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in model.metrics_variables]


def _sync(model):
    """On JAX the variables are elsewhere while `fit` runs."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def restore(path, model):
    """Fills a compiled model from a checkpoint.

    Args:
        path: of the `.npz` file.
        model: the same architecture and optimizer; under the same strategy's scope.

    Returns:
        The `state` that was saved with it, a dict.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file cannot be read or is of another model or optimizer.
    """
    saved = load(path)
    if saved is None:
        raise FileNotFoundError(f"there must be a checkpoint. Received: {str(path)!r}, which does not exist")
    fill(model, saved)
    return saved.state


def fill(model, saved):
    """Fills a compiled model from a `Saved`; see `restore`."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    _assign(_variables(model), saved.values, saved.path, "model and optimizer")


def fill_metrics(model, saved):
    """Fills the metrics of a compiled model from a `Saved`."""
    if len(model.metrics_variables) != len(saved.metrics):
        _build_metrics(model)
    _assign(model.metrics_variables, saved.metrics, saved.path, "metrics")


def _assign(variables, values, path, what):
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            f"a checkpoint must be of the same {what}. "
            f"Received: {str(path)!r} with {len(values)} arrays for {len(variables)} variables, or other shapes"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _build_metrics(model):
    """Makes the variables of compiled metrics, which Keras on TensorFlow only does in the first step."""
    images = keras.KerasTensor((1, *trained_model(model).input_shape[1:]))
    outputs = keras.tree.map_structure(lambda output: ops.zeros(output.shape), model.compute_output_spec(images))
    # Targets are rows of one number a class, as logits are.
    model.compute_metrics(None, keras.tree.flatten(outputs)[0], outputs)
    model.reset_metrics()
