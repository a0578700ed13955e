"""Layer-wise learning-rate decay for fine-tuning: layers closer to the input learn more slowly.

Sources: Clark et al., "ELECTRA" (arXiv:2003.10555); Bao et al., "BEiT" (arXiv:2106.08254); timm
`optim/_param_groups.py`, `param_groups_layer_decay`, and the `group_matcher` of its models.
"""

import re

from keras_vit.metadata import metadata
from keras_vit.models import SwinConfig
from keras_vit.training.optimizers.optimizers import NO_DECAY
from keras_vit.validation import is_number

_STEM = re.compile(r"(stem_\w+|patches|patch_encoder|embedding_norm)/")
_BLOCK = re.compile(r"encoder_block_(\d+)/")
_MERGING = re.compile(r"patch_merging_(\d+)/")


def layer_decay_scales(model, decay):
    """Computes the learning-rate factor of every variable for layer-wise decay.

    The head has 1, the last block `decay`, the block before it `decay` squared, and so on down to the stem: patch
    projection, position embeddings, class and register tokens, the ResNet of a hybrid. A norm after the blocks has the
    factor of the last block; attention pooling, pre-logits and a norm after pooling have that of the head; Swin's patch
    merging has that of the following block.

    Args:
        model: a model of this library, or one that contains it; other variables have a factor of 1.
        decay: float in (0, 1]. Published: 0.65 and 0.75.

    Returns:
        A dict from the path of every variable to its factor, for `AdamW(learning_rate_scales=...)`.

    Raises:
        ValueError: if `decay` is out of range or the model is not a Transformer.

    Source: timm `optim/_param_groups.py`, `param_groups_layer_decay`.
    """
    if not is_number(decay) or not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1]. Received: decay={decay!r}")
    config = metadata(model).config
    if not hasattr(config, "num_heads"):
        raise ValueError(f"layer-wise decay is for Transformers. Received: {type(config).__name__}")
    depths = config.depths if isinstance(config, SwinConfig) else (config.num_layers,)
    norm_is_of_the_blocks = isinstance(config, SwinConfig) or not config.pool_before_norm
    return {
        variable.path: decay ** (sum(depths) + 1 - _group(variable.path, depths, norm_is_of_the_blocks))
        for variable in model.weights
        if "seed_generator" not in variable.path
    }


def _group(path, depths, norm_is_of_the_blocks):
    """0 for the stem, 1 to the number of blocks for these, one more for the rest."""
    if _STEM.match(path):
        return 0
    if block := _BLOCK.match(path):
        return int(block[1]) + 1
    if merging := _MERGING.match(path):
        return sum(depths[: int(merging[1])]) + 1
    return sum(depths) + (0 if path.startswith("encoder_norm/") and norm_is_of_the_blocks else 1)


def decayed_paths(model, no_decay=NO_DECAY):
    """Lists the variables that weight decay applies to: kernels, and the query of attention pooling.

    Args:
        model: any Keras model.
        no_decay: names of excluded variables, as for `AdamW`. Default `NO_DECAY`.

    Returns:
        A set of str, the paths of the variables.
    """
    return {variable.path for variable in model.trainable_variables if variable.name not in no_decay}
