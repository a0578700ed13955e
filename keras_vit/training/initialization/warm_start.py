"""What a run begins with: weights, heads, frozen layers."""

import pathlib
import re
import tempfile
import warnings

import keras
from keras import ops

from keras_vit.config.from_weights import described_weights, follow_weights
from keras_vit.metadata import metadata, update_metadata
from keras_vit.models import build_model
from keras_vit.origin import portable_origin
from keras_vit.training.initialization.schemes import initialize
from keras_vit.weights import catalog_entry, load_weights, save_weights
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.load import Source
from keras_vit.zoo.create import describe_model, model_file

HEADS = ("head", "head_dist")
# What shapes do not tell of a Vision Transformer.
_NOT_IN_WEIGHTS = ("num_heads", "activation", "norm_placement", "layer_norm_epsilon")


def load_initial_weights(model, source, selection):
    """Fills a model with the weights of another one.

    Positions of another grid are resized, the head of another number of classes stays new; else the architectures must
    agree, see `keras_vit.weights.load_weights`. Fixed positions of a `.keras` file are what learned ones begin with.

    Args:
        model: a model of this library.
        source: str: a name of the catalog (`architecture.tag`), a `.keras` file, the directory of a run, or what
            `load_weights` takes.
        selection: `KeySelection` of what is taken of its file.

    Returns:
        `model`.

    Raises:
        ValueError, OSError: as `load_weights`.
    """
    file = model_file(source)
    if file is None:
        known = str(source) in catalog() and not pathlib.Path(source).exists()
        entry = catalog_entry(str(source)) if known else None
        where = (entry.source, entry.layout) if entry else (source, "auto")
        Source(*where, selection, preprocessing=False).fill(model)
        return model
    configs = describe_model(file).config, metadata(model).config
    theirs, ours = (getattr(config, "position_embedding", "learned") for config in configs)
    if theirs == "learned" or selection:
        Source(file, selection=selection, preprocessing=False).fill(model)
        return model
    trained = keras.models.load_model(file, compile=False)
    if ours == theirs:
        _copy_weights(model, trained, file)
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.safetensors"
        save_weights(_with_learned_positions(trained), path)
        load_weights(model, path)
    return model


def _warn_input_mismatch(recipe, weights_spec):
    """Warns where the weights have learned from pixels of another normalization."""
    ours, theirs = ((spec.mean, spec.std) for spec in (recipe.input_spec, weights_spec))
    if recipe.input_spec.num_channels == weights_spec.num_channels and ours != theirs:
        warnings.warn(
            f"{recipe.weights}: the weights have learned from images of mean and std {theirs}; those of the recipe are "
            f"{ours}. Leave input_spec out of the recipe to follow the weights",
            stacklevel=4,
        )


def _copy_weights(model, trained, file):
    """Assigns the weights of a model with the same fixed positions, which no checkpoint has; heads may be new."""
    heads = {layer.name for layer in model.layers if layer.name in HEADS}
    new = {v.path: v for v in model.weights}
    old = {v.path: v for v in trained.weights}
    wrong = [path for path in {*new, *old} if path not in new or path not in old or new[path].shape != old[path].shape]
    configs = metadata(model).config, metadata(trained).config
    wrong += [name for name in _NOT_IN_WEIGHTS if len({getattr(config, name) for config in configs}) > 1]
    is_new = {path.split("/")[0] for path in wrong}
    if not is_new <= {*HEADS}:
        raise ValueError(
            f"the weights must be of the same architecture. Received: {str(file)!r}, other: {sorted(wrong)}"
        )
    for name in sorted(is_new & heads):
        warnings.warn(f"{file}: the {name} is new", stacklevel=4)
    for path, variable in new.items():
        if path.split("/")[0] not in is_new:
            variable.assign(old[path])


def _with_learned_positions(model):
    """A model of the same weights whose table of positions, here fixed, is one of them."""
    content = metadata(model)
    learned = build_model(content.config.replace(position_embedding="learned"), content.input_spec, content.labels)
    old = {v.path: v for v in model.weights}
    for variable in learned.weights:
        is_table = variable.name == "position_embedding"
        variable.assign(model.get_layer("patch_encoder").positions if is_table else old[variable.path])
    return learned


def initialize_heads(model, bias=0.0, zero=False):
    """Gives the heads of a model another beginning.

    Args:
        model: a model of this library, with a classifier.
        bias: float. What biases begin with; -10 starts a sigmoid with no class. Default 0: as they are.
        zero: bool. Whether kernels begin at zero, and biases at `bias`. Default False.

    Raises:
        ValueError: if a head has no bias to give that to.

    Source: big_vision `configs/vit_i21k.py`, `init_head_bias`, and `models/vit.py`, `head_zeroinit`.
    """
    for name in HEADS:
        layer = next((layer for layer in model.layers if layer.name == name), None)
        if layer is None:
            continue
        if bias and layer.bias is None:
            raise ValueError(
                f"init_head_bias needs a head with a bias. Received: init_head_bias={bias}, model.head_bias=False"
            )
        if zero:
            layer.kernel.assign(ops.zeros_like(layer.kernel))
        if layer.bias is not None and (bias or zero):
            layer.bias.assign(ops.full_like(layer.bias, bias))


def freeze(model, patterns):
    """Takes layers out of training.

    Args:
        model: a `keras.Model`, before `compile`.
        patterns: regular expressions; a layer whose whole name one of them matches is frozen.

    Raises:
        ValueError: if one of them matches no layer with weights, or nothing is left to train.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for pattern in patterns:
        frozen = [layer for layer in layers if re.fullmatch(pattern, layer.name)]
        if not frozen:
            raise ValueError(
                f"freeze must name layers of the model. Received: {pattern!r}, layers with weights: "
                f"{[layer.name for layer in layers]}"
            )
        for layer in frozen:
            layer.trainable = False
    if not model.trainable_variables:
        raise ValueError(f"something must be left to train. Received: freeze={tuple(patterns)!r}")


def checkpointed_blocks(config, wanted=True):
    """A context in which encoder blocks are built that compute their inside again on the way back.

    Training ViT-Ti/4 with 128 images of 32 pixels on a CPU takes 1.1 GB instead of 2.3 in float32 and 1.1 instead of
    1.6 in bfloat16, at 0.86 and 0.88 of the images a second (`benchmarks/results/train_loop-vit_tiny.json`).

    Args:
        config: of the model that is built in it.
        wanted: bool. Else the context does nothing. Default True.

    Raises:
        ValueError: where there are no encoder blocks.
    """
    if not wanted:
        return keras.RematScope(None)
    if not hasattr(config, "drop_path_rates"):
        raise ValueError(f"gradient_checkpointing needs encoder blocks. Received: {type(config).__name__}")
    count = len(config.drop_path_rates())
    return keras.RematScope("list_of_layers", layer_names=[f"encoder_block_{i}" for i in range(count)])


def initial_model(recipe, labels=None, dtype=None):
    """The model that a run begins with.

    Args:
        recipe: `Recipe`, fitted to its data. With weights, the model has their origin and license.
        labels: class names in the order of the logits, or `None`.
        dtype: dtype policy or `None`: the global one.

    Returns:
        A functional `keras.Model`, not compiled.
    """
    recipe = follow_weights(recipe)
    config = recipe.model.replace(num_classes=0) if recipe.masking else recipe.model
    labels = labels if config.num_classes else None
    source = described_weights(recipe) if recipe.weights else None
    # A trained model is for others, who have no use for the folders of this machine.
    origin = portable_origin(source.origin) if source else None
    with checkpointed_blocks(config, recipe.training.gradient_checkpointing):
        model = build_model(config, recipe.input_spec, labels, origin, dtype=dtype, name=recipe.name)
    if source:
        if recipe.input_spec is not None:
            _warn_input_mismatch(recipe, source.input_spec)
        load_initial_weights(model, recipe.weights, recipe.weights_selection)
        update_metadata(model, license=source.license)
    else:
        initialize(model, recipe.training.initialization, recipe.training.seed)
    if metadata(model).config.num_classes:
        initialize_heads(model, recipe.training.init_head_bias, recipe.training.head_zeroinit)
    freeze(model, recipe.freeze)
    return model
