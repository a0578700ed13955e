"""Corrects `fit`, `evaluate` and `predict` of Keras on several replicas; the private names of Keras are used here.

Each function states the behavior of Keras 3.15 and the correction of `prepare`. The tests of `keras_3_15` in
`tests/distribution` fail when a later version of Keras is correct, so that the correction can be removed.

A training loop of our own could not replace this: the optimizers of Keras can be applied within a replica only, where
they clip before they sum; and a model's own `train_step` applies its optimizer itself.
"""

import types
import weakref

import keras
import tensorflow as tf

from keras_vit.distribution.datasets import MultiWorkerStrategy
from keras_vit.distribution.replica_step import all_reduce_gradients, count_rows, run_on_replicas

# The optimizers and losses that are already patched.
_patched = weakref.WeakSet()
_MEAN_REDUCTIONS = ("sum_over_batch_size", "mean")
# The methods of Keras' TensorFlow optimizer that communicate between replicas.
_DISTRIBUTED_METHODS = (
    "_backend_update_step",
    "_backend_increment_gradient_accumulators",
    "_apply_weight_decay",
    "_overwrite_model_variables_with_average_value",
)


def prepare(model):
    """Corrects `fit`, `evaluate`, `predict` and their `..._on_batch` methods of a model on several replicas.

    Afterwards a step on several replicas, of this machine or of several workers, equals one on a single device with the
    whole batch: gradients are summed and then clipped; every example has the same weight, even if replicas have
    different numbers of them, as in a short last batch; losses and metrics are those of all examples, and `predict`
    returns the rows of all workers, in order, to each of them.

    Call it before `fit`, before or after `compile`; `compile` may be called again. A model without a strategy is not
    changed. A saved model does not contain the corrections: prepare a loaded model again.

    Args:
        model: a `keras.Model` made within the scope of its strategy, changed in place. It may have its own `train_step`
            or `compute_loss`, if losses are averaged over the examples.

    Returns:
        `model`.

    Raises:
        ValueError: if it was made outside the scope in which it is prepared, or under a multi-worker strategy that
            `keras_vit.distribution.strategy` has not made. When the first step is traced: if a loss is not a mean over
            the examples, as sums and weighted means do not follow from those of the replicas; if `jit_compile=True` on
            several replicas.
    """
    strategy = model._distribute_strategy
    if strategy is None:
        if tf.distribute.has_strategy():
            raise ValueError("a model must be made within the scope of its strategy. Received: one made outside of it")
        return model
    has_workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if has_workers and not isinstance(strategy, MultiWorkerStrategy) and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "several workers need the strategy of keras_vit.distribution.strategy('multi_worker'), which divides the "
            f"batches among them. Received: {type(strategy).__name__}"
        )
    model._maybe_symbolic_build = lambda iterator=None, data_batch=None: _build_variables(model, iterator, data_batch)
    for name, make in (("train", _make_step_function), ("test", _make_step_function), ("predict", _make_predict)):
        setattr(model, f"{name}_function", None)
        setattr(model, f"make_{name}_function", _replace_make_function(model, name, make))
    return model


def _replace_make_function(model, name, make):
    """Makes the replacement of `make_train_function` and the like, which Keras lets a model define."""

    def make_function(force=False):
        if getattr(model, f"{name}_function") is None or force:
            _check_compiled(model)
            if model.run_eagerly and model.compiled:
                _reduce_empty_loss(model._compile_loss)
            if model.optimizer is not None:
                _sum_gradients_first(model.optimizer)
            setattr(model, f"{name}_function", make(model, getattr(model, f"{name}_step")))
        return getattr(model, f"{name}_function")

    return make_function


def _check_compiled(model):
    losses = [loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, keras.losses.Loss)]
    if invalid := [loss.reduction for loss in losses if loss.reduction not in _MEAN_REDUCTIONS]:
        raise ValueError(
            "on several replicas the reduction of a loss must be one of "
            f"{list(_MEAN_REDUCTIONS)}. Received: reduction={invalid[0]!r}"
        )
    if model.jit_compile and model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "a step on several replicas contains an all-reduce, which XLA does not compile. Received: jit_compile=True"
        )


def _reduce_empty_loss(compiled_loss):
    """Makes the loss of a replica without rows a scalar in eager execution.

    Keras does not reduce a loss of shape `(0,)`, and cannot add it to those of regularizers.
    """
    if compiled_loss is None or compiled_loss in _patched:
        return
    _patched.add(compiled_loss)
    call = compiled_loss.call
    compiled_loss.call = lambda *args, **kwargs: keras.ops.sum(call(*args, **kwargs))


def _build_variables(model, iterator, data_batch):
    """Replaces `_maybe_symbolic_build`: creates the variables of optimizer, loss and metrics before the first step.

    Keras takes a batch of the data and averages it over the replicas, which fails with several workers, because their
    `reduce` does not accept nested tensors. The shapes of the dataset's specification suffice.
    """
    strategy = model.distribute_strategy
    if data_batch is None:
        spec = iterator.data_adapter.get_tf_dataset().element_spec
        local_replicas = len(tf.nest.flatten(spec, expand_composites=True)) // len(tf.nest.flatten(spec))
        data_batch = tf.nest.pack_sequence_as(spec, tf.nest.flatten(spec, expand_composites=True)[::local_replicas])
    with strategy.scope():
        model._symbolic_build(data_batch=data_batch)


def _make_step_function(model, step):
    """Makes the function of `fit` and `evaluate`, from an iterator to the logs of one execution."""
    strategy = model.distribute_strategy
    names = set(model.get_metrics_result())

    def one_step(batch):
        logs = run_on_replicas(strategy, step, batch)
        # Metrics are equal on all replicas: every update sums their variables.
        if isinstance(logs, dict) and set(logs) == names:
            return keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], logs)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), logs)

    one_step = _compile_xla(model, one_step)

    def several_steps(iterator):
        logs = one_step(iterator.get_next())
        if model.steps_per_execution == 1:
            return logs

        def has_next(count, has_data, logs):
            return has_data & (count < model.steps_per_execution)

        def next_step(count, has_data, logs):
            batch = iterator.get_next_as_optional()
            has_data = batch.has_value()
            return count + 1, has_data, tf.cond(has_data, lambda: one_step(batch.get_value()), lambda: logs)

        return tf.while_loop(has_next, next_step, (1, True, logs))[2]

    on_iterator, on_batch = _compile_graph(model, several_steps), _compile_graph(model, one_step)

    def function(iterator):
        if isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            return on_iterator(iterator)
        return on_batch(next(iterator))  # From `train_on_batch`: the same rows on every replica.

    return function


def _make_predict(model, step):
    """Makes the function of `predict`, from a list of batches to the outputs of all replicas in the order of the rows.

    Keras assumes that rows were dealt to the replicas of several workers in turn, and repeats the outputs of
    `predict_on_batch`, whose rows every replica gets. Here every row carries the number of its replica.
    """
    strategy, step = model.distribute_strategy, _compile_xla(model, step)

    def numbered_step(batch):
        outputs = step(batch)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return outputs, tf.fill([count_rows(batch)], replica)

    def predict_divided(batch):
        outputs, replicas = run_on_replicas(strategy, numbered_step, batch)
        order = tf.argsort(strategy.gather(replicas, axis=0), stable=True)
        return keras.tree.map_structure(lambda rows: tf.gather(strategy.gather(rows, axis=0), order), outputs)

    def predict_repeated(batch):
        outputs = run_on_replicas(strategy, step, batch)
        return keras.tree.map_structure(lambda rows: strategy.experimental_local_results(rows)[0], outputs)

    predict_divided, predict_repeated = _compile_graph(model, predict_divided), _compile_graph(model, predict_repeated)

    def function(batches):
        is_divided = any(isinstance(x, tf.distribute.DistributedValues) for x in keras.tree.flatten(batches))
        outputs = [(predict_divided if is_divided else predict_repeated)(batch) for batch in batches]
        return keras.tree.map_structure(lambda *parts: tf.concat(parts, axis=0), *outputs)

    return function


def _compile_graph(model, function):
    """Compiles a function to a graph, unless the model runs eagerly."""
    function = tf.autograph.experimental.do_not_convert(function)
    return function if model.run_eagerly else tf.function(function, reduce_retracing=True)


def _compile_xla(model, function):
    """Compiles a step to one XLA program, if the model has `jit_compile=True`."""
    return tf.function(function, jit_compile=True, autograph=False) if model.jit_compile else function


def _sum_gradients_first(optimizer):
    """Makes an optimizer sum the gradients of the replicas first, and then work as on one device.

    Keras clips and accumulates on every replica before the sum, so that the clipped gradients differ from those of one
    device. After the sum all replicas have the same gradients: each updates its own copies of the variables, which stay
    equal. Accumulated gradients are sums too, so that a checkpoint between two updates is complete.
    """
    if optimizer in _patched:
        return
    _patched.add(optimizer)
    apply = optimizer.apply

    def apply_sum(grads, trainable_variables=None):
        return apply(all_reduce_gradients(grads), trainable_variables)

    optimizer.apply = apply_sum
    _update_locally(optimizer)
    if hasattr(optimizer, "inner_optimizer"):  # A `LossScaleOptimizer`.
        _update_locally(optimizer.inner_optimizer)


def _update_locally(optimizer):
    """Makes every replica update its own copies of the variables, as Keras' optimizers do without `tf.distribute`.

    The methods of Keras' TensorFlow optimizer sum the gradients again and update all replicas in one `merge_call`,
    which fails within the `cond` of gradient accumulation.
    """
    classes = {base.__name__: base for base in type(optimizer).__mro__}
    for name in _DISTRIBUTED_METHODS:
        if getattr(type(optimizer), name) is getattr(classes["TFOptimizer"], name):
            setattr(optimizer, name, types.MethodType(getattr(classes["BaseOptimizer"], name), optimizer))
