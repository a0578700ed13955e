"""The attention probabilities of chosen blocks."""

import numbers

import keras

from keras_vit.composition import find_layers
from keras_vit.layers import TransformerEncoder
from keras_vit.metadata import Metadata, composition
from keras_vit.validation import nearest


@keras.saving.register_keras_serializable(package="keras_vit")
class BlockWithAttention(keras.layers.Layer):
    """An encoder block that also returns its attention probabilities, with the weights of that block.

    A wrapper, because Keras lets a layer in a functional graph return as many tensors as at its first call.

    Args:
        block: `TransformerEncoder`.

    Call arguments:
        tokens: tensor `(batch, tokens, hidden_dim)`.
        training: bool.

    Returns:
        The block's output and the probabilities `(batch, heads, tokens, tokens)`.
    """

    def __init__(self, block, **kwargs):
        super().__init__(**kwargs)
        self.block = block
        self.built = True

    def call(self, tokens, training=False):
        return self.block(tokens, training=training, return_attention=True)

    def compute_output_spec(self, tokens, training=False):
        return self.block.compute_output_spec(tokens, return_attention=True)

    def get_config(self):
        return {**super().get_config(), "block": keras.saving.serialize_keras_object(self.block)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "block": keras.saving.deserialize_keras_object(config["block"])})


def _encoder_blocks(model):
    return [layer.name for layer in model.layers if isinstance(layer, TransformerEncoder)]


def _chosen(model, blocks):
    """Names of blocks from `None` (all), names, or indices; negative ones count from the end."""
    known = _encoder_blocks(model)
    if blocks is None:
        blocks = known
    blocks = [blocks] if isinstance(blocks, str | numbers.Integral) else list(blocks)
    chosen = []
    for block in blocks:
        if isinstance(block, numbers.Integral) and -len(known) <= block < len(known):
            chosen.append(known[block])
        elif block in known:
            chosen.append(block)
        else:
            raise ValueError(
                f"unknown block of model {model.name!r}{nearest(block, known)} "
                f"Received: block={block!r}, known: {known}"
            )
    if not chosen:
        raise ValueError(
            f"at least one block must be chosen. Received: model={model.name!r}, blocks={blocks}, known: {known}"
        )
    return chosen


def attention_model(model, blocks=None):
    """A model that returns the attention probabilities of chosen blocks.

    It shares the layers and weights of `model`, which itself is unchanged and as fast as before: only the
    chosen blocks are asked, in the new graph, for what they otherwise keep to themselves.

    Args:
        model: a Vision Transformer, or any model built around one.
        blocks: names or indices of encoder blocks; `None` for all. One block of a large model at a time
            saves memory: a block holds `heads * tokens ** 2` numbers an image.

    Returns:
        A `keras.Model` from images to a dict `{block name: (batch, heads, tokens, tokens)}`; the rows of each
        matrix (queries) sum to one. Prefix tokens come first.

    Raises:
        ValueError: on an unknown block, with the nearest one.
    """
    parts = composition(model) if find_layers(model, Metadata) else None
    inner = parts.inner if parts else model
    chosen = _chosen(inner, blocks)
    names = _encoder_blocks(inner)
    first, last = (min(map(names.index, chosen)), max(map(names.index, chosen)))
    tokens = inner.get_layer(names[first]).input
    maps = {}
    for name in names[first : last + 1]:
        block = inner.get_layer(name)
        if name in chosen:
            tokens, maps[name] = BlockWithAttention(block, dtype=block.dtype_policy, name=name)(tokens)
        else:
            tokens = block(tokens)
    outputs, name = {name: maps[name] for name in chosen}, f"{model.name}_attention"
    return parts.with_front(outputs, name) if parts else keras.Model(model.input, outputs, name=name)


def attention_maps(model, images, blocks=None, batch_size=32):
    """The attention probabilities of chosen blocks for some images.

    Args:
        model: as for `attention_model`.
        images: array `(batch, height, width, channels)`, as the model takes them.
        blocks: as for `attention_model`.
        batch_size: int. Default 32.

    Returns:
        Dict `{block name: float array (batch, heads, tokens, tokens)}`.
    """
    return attention_model(model, blocks).predict(images, batch_size=batch_size, verbose=0)
