"""Gradients with respect to tensors that are no weights, on every backend of Keras that has gradients."""

import keras


def gradients(function, tensors):
    """Computes a scalar's gradients with respect to some tensors, without those of any weight.

    Args:
        function: callable from the tensors to a scalar tensor and further results, tensors in any nesting. It is called
            once.
        tensors: list of float tensors or arrays.

    Returns:
        The further results, and a list of gradients, each of the shape of its tensor; zeros where the scalar does not
        depend on one.

    Raises:
        RuntimeError: on a backend without gradients.
    """
    backend = keras.backend.backend()
    implementations = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    if backend not in implementations:
        raise RuntimeError(f"gradients need KERAS_BACKEND=tensorflow, jax or torch. Received: KERAS_BACKEND={backend}")
    return implementations[backend](function, [keras.ops.convert_to_tensor(tensor) for tensor in tensors])


def _tensorflow(function, tensors):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for tensor in tensors:
            tape.watch(tensor)
        scalar, results = function(*tensors)
    return results, tape.gradient(scalar, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _jax(function, tensors):
    import jax

    numbers = tuple(range(len(tensors)))
    found, results = jax.grad(function, argnums=numbers, has_aux=True)(*tensors)
    return results, list(found)


def _torch(function, tensors):
    import torch

    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        scalar, results = function(*tensors)
        found = torch.autograd.grad(scalar, tensors, allow_unused=True)
    zeros = [torch.zeros_like(x) if grad is None else grad for x, grad in zip(tensors, found, strict=True)]
    return keras.tree.map_structure(lambda x: x.detach(), results), zeros
