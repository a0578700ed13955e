"""Builds the model that a run starts from: initial weights, heads, frozen layers."""

import pathlib
import re
import tempfile
import warnings

import keras
from keras import ops

from keras_vit.config.from_weights import complete_from_weights, weights_metadata
from keras_vit.metadata import metadata, update_metadata
from keras_vit.models import add_lora, add_segmentation_head, build_model
from keras_vit.models.heads import HEADS
from keras_vit.origin import portable_origin
from keras_vit.training.initialization.schemes import initialize
from keras_vit.weights import catalog_entry, load_weights, save_weights
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.load import Source
from keras_vit.zoo.create import describe_model, model_file

# Fields of a Vision Transformer that the shapes of its weights do not determine.
_NOT_IN_WEIGHTS = ("num_heads", "activation", "norm_placement", "layer_norm_epsilon")


def load_initial_weights(model, source, selection):
    """Loads the weights of another model into a model.

    Position embeddings of another grid are resized, and a head with another number of classes keeps its initial values;
    otherwise the architectures must agree, see `keras_vit.load_weights`. If the source is a `.keras` file with fixed
    position embeddings and the model learns its own, these start from the fixed ones.

    Args:
        model: a model of this library.
        source: str, a name of the catalog (`architecture.tag`), a `.keras` file, the directory of a run, or anything
            else that `load_weights` takes.
        selection: `KeySelection` of the keys that are loaded.

    Returns:
        `model`.

    Raises:
        ValueError, OSError: as `load_weights`.
    """
    file = model_file(source)
    if file is None:
        is_in_catalog = str(source) in catalog() and not pathlib.Path(source).exists()
        entry = catalog_entry(str(source)) if is_in_catalog else None
        file_and_layout = (entry.source, entry.layout) if entry else (source, "auto")
        Source(*file_and_layout, selection, preprocessing=False).fill(model)
        return model
    configs = describe_model(file).config, metadata(model).config
    source_positions, model_positions = (getattr(config, "position_embedding", "learned") for config in configs)
    if source_positions == "learned" or selection:
        Source(file, selection=selection, preprocessing=False).fill(model)
        return model
    trained = keras.models.load_model(file, compile=False)
    if model_positions == source_positions:
        _copy_weights(model, trained, file)
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.safetensors"
        save_weights(_with_learned_positions(trained), path)
        load_weights(model, path)
    return model


def _warn_input_mismatch(recipe, weights_spec):
    """Warns if the weights were trained with another normalization of pixels."""
    expected, actual = ((spec.mean, spec.std) for spec in (weights_spec, recipe.input_spec))
    if recipe.input_spec.num_channels == weights_spec.num_channels and actual != expected:
        warnings.warn(
            f"{recipe.weights}: the weights were trained with images normalized by mean and std {expected}; the recipe "
            f"has {actual}. Leave input_spec out of the recipe to use the normalization of the weights",
            stacklevel=4,
        )


def _copy_weights(model, trained, file):
    """Copies the weights of a model with the same fixed position embeddings; its heads may differ."""
    heads = {layer.name for layer in model.layers if layer.name in HEADS}
    new = {v.path: v for v in model.weights}
    old = {v.path: v for v in trained.weights}
    different = [
        path for path in {*new, *old} if path not in new or path not in old or new[path].shape != old[path].shape
    ]
    configs = metadata(model).config, metadata(trained).config
    different += [name for name in _NOT_IN_WEIGHTS if len({getattr(config, name) for config in configs}) > 1]
    new_layers = {path.split("/")[0] for path in different}
    if not new_layers <= {*HEADS}:
        raise ValueError(
            f"the weights must be of the same architecture. Received: {str(file)!r}, different: {sorted(different)}"
        )
    for name in sorted(new_layers & heads):
        warnings.warn(f"{file}: the {name} is new", stacklevel=4)
    for path, variable in new.items():
        if path.split("/")[0] not in new_layers:
            variable.assign(old[path])


def _with_learned_positions(model):
    """Builds a model with the same weights whose position embeddings, fixed in `model`, are a variable."""
    content = metadata(model)
    learned = build_model(content.config.replace(position_embedding="learned"), content.input_spec, content.labels)
    old = {v.path: v for v in model.weights}
    for variable in learned.weights:
        is_table = variable.name == "position_embedding"
        variable.assign(model.get_layer("patch_encoder").positions if is_table else old[variable.path])
    return learned


def initialize_heads(model, bias=0.0, zero=False):
    """Sets the initial kernels and biases of the heads.

    Args:
        model: a model of this library with a classifier.
        bias: float. Initial biases (big_vision `init_head_bias`); with -10 every sigmoid starts near 0. Default 0,
            which leaves the biases unchanged.
        zero: bool. Sets the kernels to zero (big_vision `head_zeroinit`), and the biases to `bias`. Default False.

    Raises:
        ValueError: if `bias` is set and a head has no bias.

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
    """Freezes layers.

    Args:
        model: a `keras.Model`, before `compile`.
        patterns: regular expressions of whole layer names.

    Raises:
        ValueError: if a pattern matches no layer with weights, or no variable is left to train.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for pattern in patterns:
        frozen = [layer for layer in layers if re.fullmatch(pattern, layer.name)]
        if not frozen:
            raise ValueError(
                f"freeze must match names of layers of the model. Received: {pattern!r}, layers with weights: "
                f"{[layer.name for layer in layers]}"
            )
        for layer in frozen:
            layer.trainable = False
    if not model.trainable_variables:
        raise ValueError(f"freeze must leave a layer to train. Received: freeze={tuple(patterns)!r}")


def remat_scope(config, enabled=True):
    """Returns a context in which encoder blocks are built with gradient checkpointing.

    Only the inputs of a block are kept; its activations are computed again in the backward pass.

    Training ViT-Ti/4 with 128 images of 32 pixels on a CPU takes 1.1 GB instead of 2.3 in float32 and 1.1 instead of
    1.6 in bfloat16, at 0.86 and 0.88 of the images a second (`benchmarks/results/train_loop-vit_tiny.json`).

    Args:
        config: config of the model that is built in the context.
        enabled: bool. If False the context has no effect. Default True.

    Raises:
        ValueError: if the model has no encoder blocks.
    """
    if not enabled:
        return keras.RematScope(None)
    if not config.stage_depths:
        raise ValueError(f"gradient_checkpointing needs encoder blocks. Received: {type(config).__name__}")
    return keras.RematScope(
        "list_of_layers", layer_names=[f"encoder_block_{i}" for i in range(sum(config.stage_depths))]
    )


def initial_model(recipe, labels=None, dtype=None, selection=None):
    """Builds the model that a run starts from.

    Args:
        recipe: `Recipe`, fitted to its data. With weights, the model gets their origin and license.
        labels: class names in the order of the logits, or `None`.
        dtype: dtype policy, or `None` for the global one.
        selection: `KeySelection` of the recipe, with the names that its fields have for the caller; `None` for the
            names of the recipe.

    Returns:
        A functional `keras.Model`, not compiled.
    """
    recipe = complete_from_weights(recipe)
    is_headless = recipe.masking or recipe.segmentation
    config = recipe.model.replace(num_classes=0) if is_headless else recipe.model
    labels = labels if config.num_classes or recipe.segmentation else None
    source = weights_metadata(recipe) if recipe.weights else None
    # A trained model is for others, who have no use for the folders of this machine.
    origin = portable_origin(source.origin) if source else None
    with remat_scope(config, recipe.training.gradient_checkpointing):
        model = build_model(config, recipe.input_spec, labels, origin, dtype=dtype, name=recipe.name)
    if source:
        if recipe.input_spec is not None:
            _warn_input_mismatch(recipe, source.input_spec)
        load_initial_weights(model, recipe.weights, selection or recipe.weights_selection)
        update_metadata(model, license=source.license)
    else:
        initialize(model, recipe.training.initialization, recipe.training.seed)
    if metadata(model).config.num_classes:
        initialize_heads(model, recipe.training.init_head_bias, recipe.training.head_zeroinit)
    if recipe.segmentation:
        settings = recipe.segmentation
        model = add_segmentation_head(model, recipe.model.num_classes, settings.indices, settings.batch_norm)
    freeze(model, recipe.freeze)
    if recipe.lora:
        add_lora(model, recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets, recipe.training.seed)
    return model
