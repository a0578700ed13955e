"""Models built around another one: where it is, what stands in front of it and what follows.

A model of one's own may hold a model of this library as a layer (functional, `Sequential`, nested, an attribute of a
subclass of `keras.Model`) or go on from its tensors. Here such a model is taken apart without being changed: layers and
weights are shared. Nothing here knows what the inner model is; `keras_vit.metadata` marks it by a layer.
"""

import concurrent.futures
import dataclasses
import functools
import inspect

import keras
import numpy as np

_RESIZES = (keras.layers.Resizing, keras.layers.CenterCrop)
_PROBES = 6
_ANY_SIDE = 64  # pixels, where neither the layers in front nor the model say it
# Of what the layers in front make of pixels, as a part of its range.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2


@dataclasses.dataclass(frozen=True)
class Front:
    """The effect of layers in front of a model at inference: `scale * image + offset`, for each channel.

    Args:
        scale, offset: tuples of floats.
        size: `(h, w)` of the images that they take; `None` for those of any size.
        resize: the layer that changes the size, `Resizing` or `CenterCrop`, or `None`.
    """

    scale: tuple
    offset: tuple
    size: tuple | None
    resize: keras.layers.Layer | None

    @property
    def is_identity(self):
        """bool. Whether images reach the model as they are, as behind augmentation at inference."""
        return self.resize is None and set(self.scale) == {1.0} and set(self.offset) == {0.0}


@dataclasses.dataclass(frozen=True)
class Composition:
    """A model taken apart.

    Args:
        model: `keras.Model` that was asked about.
        inner: functional `keras.Model` that holds the marker.
        marker: layer, the first of the inner model.
        images: `keras.KerasTensor`, the input of the inner model.
        outputs: what `model` returns, as tensors of the graph from `images` on.
        tensors: dict from the name of a layer, outside of `inner` too, to its output in that graph.
        fronts: tuple of `keras.Model`, outermost first: together they make of the images of `model` those of `inner`.
        mixes: bool. Whether something takes both the images in front of `fronts` and what follows.
    """

    model: keras.Model
    inner: keras.Model
    marker: keras.layers.Layer
    images: keras.KerasTensor
    outputs: object
    tensors: dict
    fronts: tuple
    mixes: bool

    @property
    def front_layers(self):
        """list of layers. Those in front of the inner model, the outermost first."""
        return [layer for part in self.fronts for layer in _leaves(part)]

    @functools.cached_property
    def front(self):
        """`Front`, or `None` where nothing changes the images.

        Raises:
            ValueError: if it is not the same for every pixel, or nothing that is known.
        """
        if not self.fronts:
            return None
        # A thread of its own computes eagerly also where the caller is being traced, as in a `tf.data.Dataset.map`.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            front = pool.submit(_examine, self).result()
        if front.is_identity:
            return None
        if self.mixes:
            raise front_error(self, "they change images that also go around the inner model")
        return front

    def core(self, outputs=None, name=None):
        """A functional `keras.Model` from the images of the inner model to `outputs`; `None` for all of them."""
        outputs = self.outputs if outputs is None else outputs
        return keras.Model(self.images, outputs, name=name or self.model.name)

    def with_front(self, outputs, name):
        """A functional `keras.Model` from the images of the whole model to tensors of the graph."""
        core = self.core(outputs, name)
        if self.front is None:
            return core
        tensor = images = keras.Input(batch_shape=self.fronts[0].inputs[0].shape, dtype=self.fronts[0].inputs[0].dtype)
        for part in self.fronts:
            # Keras' layers of augmentation are at work unless they are told.
            tensor = part(tensor, training=False)
        return keras.Model(images, core(tensor), name=name)


def sublayers(layer):
    """The layers directly inside a model or a layer."""
    if isinstance(layer, keras.Model):
        return layer.layers
    found = {}
    for value in vars(layer).values():
        items = value if isinstance(value, list | tuple) else [value]
        found |= {id(item): item for item in items if isinstance(item, keras.layers.Layer)}
    return list(found.values())


def find_layers(layer, kind):
    """Every layer of a class inside a model or a layer, however deep."""
    found, seen, pending = [], set(), [layer]
    while pending:
        for item in sublayers(pending.pop()):
            if id(item) not in seen:
                seen.add(id(item))
                pending.append(item)
                if isinstance(item, kind):
                    found.append(item)
    return found


def compose(model, kind):
    """Takes a model apart at the model inside it whose first layer is of a class.

    Args:
        model: `keras.Model` that is, or holds, exactly one such model.
        kind: class of a layer, the marker.

    Returns:
        A `Composition`.

    Raises:
        ValueError: if the model cannot be taken apart, with what to do instead.
    """
    functional = _as_functional(model, kind)
    images, outputs, inner, fronts, tensors, mixes = _expand(functional, kind, model)
    (marker,) = [layer for layer in inner.layers if isinstance(layer, kind)]
    return Composition(model, inner, marker, images, outputs, tensors, tuple(fronts), mixes)


def _is_functional(model):
    return hasattr(model, "operations") and not isinstance(model, keras.Sequential)


def _holds(layer, kind):
    return isinstance(layer, kind) or bool(find_layers(layer, kind))


def _as_functional(model, kind):
    """A functional model of the same layers, for a `Sequential` or a subclass of `keras.Model`."""
    if _is_functional(model):
        if len(model.inputs) != 1:
            raise ValueError(
                "a model built around another one must have one input, the images. "
                f"Received: model={model.name!r} with {len(model.inputs)}"
            )
        return model
    if isinstance(model, keras.Sequential):
        if not model.built or not model.inputs:
            layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
            model = keras.Sequential([_input(model, kind), *layers], name=model.name)
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    images = _input(model, kind)
    options = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    try:
        outputs = model.call(images, **options)
        return keras.Model(images, outputs, name=model.name)
    except Exception as error:  # whatever the code of a stranger raises
        raise ValueError(
            "the `call` of a model built around another one must be made of Keras layers and `keras.ops`, from one "
            f"tensor of images. Received: model={model.name!r}, a {type(model).__name__} ({_first_line(error)})"
        ) from error


def _input(model, kind):
    """A symbolic input of the size of the innermost model."""
    holder = model
    while not any(isinstance(layer, kind) for layer in holder.layers):
        holder = next(layer for layer in holder.layers if _holds(layer, kind))
        if not isinstance(holder, keras.Model):
            raise _inside_layer(model, holder)
    return keras.Input(holder.inputs[0].shape[1:])


def _inside_layer(model, layer):
    return ValueError(
        "a model of keras_vit must be called by the model around it, not by a layer that wraps it; use the inner model "
        f"(`.layer` of a wrapper) for one image. Received: model={model.name!r}, where it is inside "
        f"{layer.name!r}, a {type(layer).__name__}"
    )


def _expand(model, kind, whole):
    """`images`, `outputs`, `inner`, `fronts`, `tensors` and `mixes` of a functional model, see `Composition`."""
    if marker := next((layer for layer in model.layers if isinstance(layer, kind)), None):
        if marker.input is not model.inputs[0]:
            raise ValueError(
                "the layers of a model of keras_vit must stay together; call it as one layer: "
                f"keras.Model(x, vit(front(x))). Received: model={whole.name!r}, whose input does not go straight to "
                f"{marker.name!r}"
            )
        return model.inputs[0], model.output, model, [], {layer.name: layer.output for layer in model.layers}, False
    holder = next(layer for layer in model.layers if _holds(layer, kind))
    if not isinstance(holder, keras.Model):
        raise _inside_layer(whole, holder)
    images, outputs, inner, fronts, tensors, mixes = _expand(_as_functional(holder, kind), kind, whole)
    spliced = _Splice(holder, images, outputs, tensors)
    # Without what it was compiled with, which a clone would take over.
    plain = keras.Model(model.inputs[0], model.output, name=model.name)
    try:
        outputs = keras.models.clone_model(plain, images, lambda layer: layer, spliced).output
    except Exception as error:  # of layers that take no images of this shape
        raise ValueError(
            "layers in front of a model of keras_vit must keep the shape of its images, `Resizing` and `CenterCrop` "
            f"aside. {_way_out(holder, plain)} Received: model={whole.name!r} ({_first_line(error)})"
        ) from error
    if spliced.fed is not images:
        fronts = [_front_model(plain, holder), *fronts]
    return images, outputs, inner, fronts, spliced.tensors, mixes or spliced.mixes


class _Splice:
    """Calls the layers of an outer model, and takes the graph that is there for the inner one.

    Args:
        holder: layer, the inner model.
        images, outputs: tensors. Its input and outputs in that graph.
        tensors: dict from names of layers to their outputs in that graph.
    """

    def __init__(self, holder, images, outputs, tensors):
        self.holder, self.outputs, self.tensors = holder, outputs, dict(tensors)
        self.fed, self.mixes, self._in_front = None, False, {id(images)}

    def __call__(self, layer, *args, **kwargs):
        if layer is self.holder:
            self.fed = args[0] if args else next(iter(kwargs.values()))
            self.tensors[layer.name] = self.outputs
            return self.outputs
        outputs = layer(*args, **kwargs)
        given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        in_front = [id(x) in self._in_front for x in given]
        if all(in_front):
            self._in_front |= {id(x) for x in keras.tree.flatten(outputs)}
        else:
            self.mixes = self.mixes or any(in_front)
            # The inner model's own layers keep their names.
            self.tensors.setdefault(layer.name, outputs)
        return outputs


def _front_model(model, holder):
    """A model from the images of `model` to what enters a layer of it."""
    fed = []

    def call(layer, *args, **kwargs):
        if layer is holder:
            fed.append(args[0] if args else next(iter(kwargs.values())))
        return layer(*args, **kwargs)

    clone = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(clone.inputs[0], fed[0])


def _examine(composition):
    """The `Front` of a composition, found by what its layers make of constant and of random images."""
    height, width, channels = composition.images.shape[1:]
    sides = composition.fronts[0].inputs[0].shape[1:3]
    size = (sides[0] or height or _ANY_SIDE, sides[1] or width or _ANY_SIDE)
    resizes = [layer for layer in composition.front_layers if isinstance(layer, _RESIZES)]
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (_PROBES, 1, 1, channels))
    levels[0], levels[1] = 0, 255
    constant = np.broadcast_to(levels, (_PROBES, *size, channels)).astype("float32")
    made = _run(composition, constant)
    # A model of any size takes what it is given.
    height, width = height or made.shape[1], width or made.shape[2]
    if made.shape[1:] != (height, width, channels):
        raise front_error(composition, f"they make images of {made.shape[1:]} of those of {constant.shape[1:]}")
    offset = made[0].mean((0, 1))
    scale = (made[1].mean((0, 1)) - offset) / 255
    _check_is_affine(composition, constant[:, :1, :1], made, scale, offset)
    if not resizes:
        noise = random.integers(0, 256, (2, *size, channels)).astype("float32")
        if size != (height, width):
            raise front_error(composition, f"they change the size from {size} to {(height, width)}")
        _check_is_affine(composition, noise, _run(composition, noise), scale, offset)
    elif len(resizes) > 1:
        raise front_error(composition, f"{len(resizes)} of them change the size")
    # Half precision, and what rounding leaves of nothing.
    if np.allclose(scale, 1, atol=1e-3) and np.allclose(offset, 0, atol=1e-3):
        scale, offset = np.ones(channels), np.zeros(channels)
    scale, offset = (tuple(float(value) for value in values) for values in (scale, offset))
    static = tuple(sides) if None not in sides else None
    return Front(scale, offset, static, resizes[0] if resizes else None)


def _run(composition, images):
    """Applies the layers in front to images, as at inference; returns a float32 array."""
    for part in composition.fronts:
        images = part(images, training=False)
    return keras.ops.convert_to_numpy(keras.ops.cast(images, "float32"))


def _check_is_affine(composition, images, made, scale, offset):
    expected = scale * images + offset
    width = 255 * np.abs(scale).max()
    half = any(layer.compute_dtype != "float32" for layer in composition.front_layers)
    # Written so that NaN does not pass.
    if not np.abs(made - expected).max() <= (_HALF_TOLERANCE if half else _TOLERANCE) * max(width, 1e-6):
        raise front_error(composition, "they do more than to scale and shift the values of each channel")


def _leaves(model):
    """The layers of a model and of models inside it, but for inputs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield from _leaves_of_pipeline(layer)


def _leaves_of_pipeline(layer):
    if isinstance(layer, keras.layers.Pipeline):
        yield from layer.layers
    else:
        yield layer


def front_error(composition, reason):
    """The error of layers in front of a model that nobody can account for.

    Args:
        composition: `Composition`.
        reason: str.
    """
    names = [layer.name for layer in composition.front_layers] or ["operations without a layer"]
    return ValueError(
        "a model must take its images as keras_vit prepares them, or as pixels that layers in front augment or "
        "normalize. "
        f"{_way_out(composition.inner, composition.model)} "
        f"Received: model={composition.model.name!r} with {', '.join(names)} in front; {reason}"
    )


def _way_out(inner, model):
    """Advice for layers in front that cannot be seen through; it keeps the head."""
    names = [layer.name for layer in model.layers]
    behind = names[names.index(inner.name) + 1 :] if inner.name in names else []
    layers = ", ".join(f"model.get_layer({name!r})" for name in [inner.name, *behind])
    return (
        "Apply the others to the images before the model, and use or export the inner model with what follows, which "
        "keeps its weights: "
        f"keras.Sequential([{layers}])."
    )


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]
