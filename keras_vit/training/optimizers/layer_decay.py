"""Layer-wise learning-rate decay for fine-tuning: layers closer to the input learn more slowly.

Sources: Clark et al., "ELECTRA" (arXiv:2003.10555); Bao et al., "BEiT" (arXiv:2106.08254); timm
`optim/_param_groups.py`, `param_groups_layer_decay`, and the `group_matcher` of its models.
"""

from keras_vit.metadata import metadata
from keras_vit.training.optimizers.optimizers import NO_DECAY
from keras_vit.validation import is_number


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
    if not config.stage_depths:
        raise ValueError(f"layer-wise decay is for Transformers. Received: {type(config).__name__}")
    num_blocks = sum(config.stage_depths)
    return {
        variable.path: decay ** (num_blocks + 1 - config.variable_depth(variable.path))
        for variable in model.weights
        if "seed_generator" not in variable.path
    }


def decayed_paths(model, no_decay=NO_DECAY):
    """Lists the variables that weight decay applies to: kernels, and the query of attention pooling.

    Args:
        model: any Keras model.
        no_decay: names of excluded variables, as for `AdamW`. Default `NO_DECAY`.

    Returns:
        A set of str, the paths of the variables.
    """
    return {variable.path for variable in model.trainable_variables if variable.name not in no_decay}
