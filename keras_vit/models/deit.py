"""DeiT: the heads of a distillation token, and the published models.

Sources: Touvron et al., "Training data-efficient image transformers & distillation through attention"
(arXiv:2012.12877), section 4; "DeiT III: Revenge of the ViT" (arXiv:2204.07118): LayerScale, positions on the patches
alone.
"""

import keras

from keras_vit.layers import TokenPooling
from keras_vit.models.heads import classifier
from keras_vit.models.sizes import vit_config


def distilled_logits(config, tokens, representation, policy):
    """The logits of a model with a distillation token: the mean of two heads.

    Both are stages of the model: `keras_vit.features(model, ["head", "head_dist"])` gives them apart, as training
    with a teacher wants them.

    Args:
        config: `ViTConfig` with `distillation_token`.
        tokens: tensor `(batch, tokens, hidden_dim)` behind the last norm.
        representation: tensor `(batch, hidden_dim)`, what the first head classifies.
        policy: dtype policy.

    Returns:
        Tensor `(batch, num_classes)`.
    """
    index = int(config.class_token)
    distilled = TokenPooling("token", index=index, dtype=policy, name="representation_dist")(tokens)
    logits = [
        classifier(config, policy, "head", config.head_bias)(representation),
        classifier(config, policy, "head_dist", config.head_bias)(distilled),
    ]
    return keras.layers.Average(dtype=policy.variable_dtype, name="logits")(logits)


# size, patch_size, image sizes
_DEIT = (("tiny", 16, (224,)), ("small", 16, (224,)), ("base", 16, (224, 384)))
_DEIT_3 = (
    ("small", 16, (224, 384)),
    ("medium", 16, (224,)),
    ("base", 16, (224, 384)),
    ("large", 16, (224, 384)),
    ("huge", 14, (224,)),
)


def _variants():
    """Every published model under timm's name."""
    for middle, distilled in (("", False), ("_distilled", True)):
        for size, patch, image_sizes in _DEIT:
            for image_size in image_sizes:
                config = vit_config(size, image_size=image_size, patch_size=patch, distillation_token=distilled)
                yield f"deit_{size}{middle}_patch{patch}_{image_size}", config
    for size, patch, image_sizes in _DEIT_3:
        for image_size in image_sizes:
            config = vit_config(
                size, image_size=image_size, patch_size=patch, layer_scale_init=1e-6, position_on_prefix=False
            )
            yield f"deit3_{size}_patch{patch}_{image_size}", config


DEIT_VARIANTS = dict(_variants())
