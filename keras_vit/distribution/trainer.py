"""`fit`, `evaluate` and `predict` of Keras, mended for several replicas. What is private to Keras is in this file.

Each function says what Keras 3.15 does, and what `prepare` does instead. The tests of `keras_3_15` in
`tests/distribution` fail when a later version of Keras does one of these things right, so that it can be removed here.
"""

import types
import weakref

import keras
import tensorflow as tf

from keras_vit.distribution.datasets import MultiWorkerStrategy
from keras_vit.distribution.replica_step import count_rows, on_replicas, summed

_prepared = weakref.WeakSet()
_MEANS = ("sum_over_batch_size", "mean")
_LOCAL = (
    "_backend_update_step",
    "_backend_increment_gradient_accumulators",
    "_apply_weight_decay",
    "_overwrite_model_variables_with_average_value",
)


def prepare(model):
    """Makes `fit`, `evaluate`, `predict` and their `..._on_batch` right on several replicas, for this model.

    Afterwards a step on several replicas, of this machine or of several workers, is one on a single device with the
    whole batch: gradients are summed up, then clipped; every example counts alike, also where replicas have different
    numbers of them, as in a short last batch; losses and metrics are those of all examples, and `predict` gives the
    rows of all workers, in order, to each of them.

    Call it before `fit`; it may be before or after `compile`, and `compile` may be called again. A model without a
    strategy stays as it is. Saving and loading know nothing of it: prepare a loaded model again.

    Args:
        model: a `keras.Model` made within the scope of its strategy, changed in place. Its `train_step`, `compute_loss`
            and the like may be its own, if losses are averaged over the examples.

    Returns:
        `model`.

    Raises:
        ValueError: if it was made outside the scope it is prepared in, or under a multi-worker strategy that is not
            `keras_vit.distribution.strategy`'s. When a step is made: if a loss is no mean over the examples, as its sum
            or weighted mean cannot be told from those of the replicas; if XLA is to compile a step of several replicas.
    """
    strategy = model._distribute_strategy
    if strategy is None:
        if tf.distribute.has_strategy():
            raise ValueError("a model must be made within the scope of its strategy. Received: one that was not")
        return model
    workers = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if workers and not isinstance(strategy, MultiWorkerStrategy) and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "several workers need the strategy of keras_vit.distribution.strategy('multi_worker'), which divides the "
            f"batches among them. Received: {type(strategy).__name__}"
        )
    model._maybe_symbolic_build = lambda iterator=None, data_batch=None: _build(model, iterator, data_batch)
    for name, make in (("train", _step_function), ("test", _step_function), ("predict", _predict_function)):
        setattr(model, f"{name}_function", None)
        setattr(model, f"make_{name}_function", _maker(model, name, make))
    return model


def _maker(model, name, make):
    """What stands for `make_train_function` and the like, which Keras lets a model define."""

    def make_function(force=False):
        if getattr(model, f"{name}_function") is None or force:
            _check(model)
            if model.run_eagerly and model.compiled:
                _reduce_nothing(model._compile_loss)
            if model.optimizer is not None:
                _reduce_first(model.optimizer)
            setattr(model, f"{name}_function", make(model, getattr(model, f"{name}_step")))
        return getattr(model, f"{name}_function")

    return make_function


def _check(model):
    losses = [loss for loss in keras.tree.flatten(model.loss) if isinstance(loss, keras.losses.Loss)]
    if wrong := [loss.reduction for loss in losses if loss.reduction not in _MEANS]:
        raise ValueError(
            f"on several replicas a loss must be reduced by one of {list(_MEANS)}. Received: reduction={wrong[0]!r}"
        )
    if model.jit_compile and model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "a step on several replicas holds their all-reduce, which XLA does not compile. Received: jit_compile=True"
        )


def _reduce_nothing(compiled_loss):
    """Lets the loss of a replica without rows be a number, also eagerly.

    Keras does not reduce a loss of shape `(0,)`, and cannot add it to those of regularisers.
    """
    if compiled_loss is None or compiled_loss in _prepared:
        return
    _prepared.add(compiled_loss)
    call = compiled_loss.call
    compiled_loss.call = lambda *arguments, **options: keras.ops.sum(call(*arguments, **options))


def _build(model, iterator, data_batch):
    """`_maybe_symbolic_build`: makes the variables of optimizer, loss and metrics in front of the first step.

    Keras draws a batch for it and averages it over the replicas, in which it fails for several workers: their
    `reduce` takes no nest. The shapes of the data set say as much.
    """
    strategy = model.distribute_strategy
    if data_batch is None:
        spec = iterator.data_adapter.get_tf_dataset().element_spec
        local = len(tf.nest.flatten(spec, expand_composites=True)) // len(tf.nest.flatten(spec))
        data_batch = tf.nest.pack_sequence_as(spec, tf.nest.flatten(spec, expand_composites=True)[::local])
    with strategy.scope():
        model._symbolic_build(data_batch=data_batch)


def _step_function(model, step):
    """The function of `fit` and `evaluate`: from an iterator to the logs of one execution."""
    strategy = model.distribute_strategy
    names = set(model.get_metrics_result())

    def one_step(batch):
        logs = on_replicas(strategy, step, batch)
        # Metrics are the same on every replica: their variables are summed up in every update.
        if isinstance(logs, dict) and set(logs) == names:
            return keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], logs)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), logs)

    one_step = _by_xla(model, one_step)

    def steps(iterator):
        logs = one_step(iterator.get_next())
        if model.steps_per_execution == 1:
            return logs

        def goes_on(number, going, logs):
            return going & (number < model.steps_per_execution)

        def next_step(number, going, logs):
            following = iterator.get_next_as_optional()
            going = following.has_value()
            return number + 1, going, tf.cond(going, lambda: one_step(following.get_value()), lambda: logs)

        return tf.while_loop(goes_on, next_step, (1, True, logs))[2]

    on_iterator, on_batch = _compiled(model, steps), _compiled(model, one_step)

    def function(iterator):
        if isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            return on_iterator(iterator)
        return on_batch(next(iterator))  # of train_on_batch: the same rows on every replica

    return function


def _predict_function(model, step):
    """The function of `predict`: from a list of batches to the outputs of their rows, of all replicas, in order.

    Keras takes the replicas of several workers to have got their rows by turns, and of `predict_on_batch`, whose rows
    every replica gets, returns them as often. Here every row is told by its replica.
    """
    strategy, step = model.distribute_strategy, _by_xla(model, step)

    def numbered(batch):
        outputs = step(batch)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return outputs, tf.fill([count_rows(batch)], replica)

    def of_all(batch):
        outputs, replicas = on_replicas(strategy, numbered, batch)
        order = tf.argsort(strategy.gather(replicas, axis=0), stable=True)
        return keras.tree.map_structure(lambda rows: tf.gather(strategy.gather(rows, axis=0), order), outputs)

    def of_one(batch):
        outputs = on_replicas(strategy, step, batch)
        return keras.tree.map_structure(lambda rows: strategy.experimental_local_results(rows)[0], outputs)

    of_all, of_one = _compiled(model, of_all), _compiled(model, of_one)

    def function(batches):
        is_divided = any(isinstance(x, tf.distribute.DistributedValues) for x in keras.tree.flatten(batches))
        outputs = [(of_all if is_divided else of_one)(batch) for batch in batches]
        return keras.tree.map_structure(lambda *parts: tf.concat(parts, axis=0), *outputs)

    return function


def _compiled(model, function):
    """A function as a graph, where the model is not to run eagerly."""
    function = tf.autograph.experimental.do_not_convert(function)
    return function if model.run_eagerly else tf.function(function, reduce_retracing=True)


def _by_xla(model, function):
    """A step as one XLA program, where the model asks for it."""
    return tf.function(function, jit_compile=True, autograph=False) if model.jit_compile else function


def _reduce_first(optimizer):
    """Lets an optimizer sum the gradients of the replicas first, and then do what it does on one device.

    Keras clips, accumulates and averages on every replica before the sum, by which clipping is another one.
    After the sum all replicas have the same gradients: each updates its own copies of the variables, and they stay
    the same. What accumulates is the sum as well, so that a state that is saved between two updates is whole.
    """
    if optimizer in _prepared:
        return
    _prepared.add(optimizer)
    apply = optimizer.apply

    def apply_sum(grads, trainable_variables=None):
        return apply(summed(grads), trainable_variables)

    optimizer.apply = apply_sum
    _update_locally(optimizer)
    if hasattr(optimizer, "inner_optimizer"):  # of LossScaleOptimizer
        _update_locally(optimizer.inner_optimizer)


def _update_locally(optimizer):
    """Lets every replica update its own copies, as optimizers of Keras do where there is no `tf.distribute`.

    What its TensorFlow backend puts in the place of that sums the gradients up once more, and goes through all replicas
    at once (`merge_call`), which fails where gradients are accumulated: within a `cond`.
    """
    kinds = {kind.__name__: kind for kind in type(optimizer).__mro__}
    for name in _LOCAL:
        if getattr(type(optimizer), name) is getattr(kinds["TFOptimizer"], name):
            setattr(optimizer, name, types.MethodType(getattr(kinds["BaseOptimizer"], name), optimizer))
