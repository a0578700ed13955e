"""Vision Transformers on ImageNet-1k from scratch, with the regularization of AugReg.

Paper: Steiner et al., "How to train your ViT? Data, Augmentation, and Regularization in Vision Transformers"
(arXiv:2106.10270). Expected: the config states no accuracy, and the paper shows it as figure 4, where the best
augmentation differs from size to size. Hardware: TPUv3 cores; hours are in the paper's figures. Not measured here.

    keras_vit train recipes/vit_augreg_i1k.py
    keras_vit train recipes/vit_augreg_i1k.py:size=base,level=strong1

`size` is tiny, small or base; `level` one of `LEVELS`.

Source: google-research/big_vision `configs/vit_i1k.py` of 2022, with its softmax (later versions have a sigmoid loss
and a head bias of -6.9), and `models/vit.py`, which adds positions before the class token: that has none of its own
(`position_on_prefix`). The checkpoints of the paper are of an older code, where it has one; models for these have
`position_on_prefix=True`. What is otherwise there: `train[:99%]` leaves a part to choose by, here
`data.validation_fraction` does; and what vit_s16_i1k.py names.

RandAugment and mixup are those of this library. The layers of keras-cv have other operations, magnitudes and weights
(see `keras_vit.data.augment.policies`); to use them:

    --set augment.policy='keras_cv("RandAugment")' --set augment.mixup_mode=keras_cv
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import check_choice

# The level of each size, a compromise between short and long runs.
LEVEL_OF_SIZE = {"tiny": "light1", "small": "medium2", "base": "medium2"}
# The paper's levels of augmentation: mixup's alpha, and the magnitude of RandAugment's two operations.
LEVELS = {
    "none": (0.0, None),
    "light1": (0.0, 0),
    "light2": (0.2, 10),
    "medium1": (0.2, 15),
    "medium2": (0.5, 15),
    "strong1": (0.5, 20),
    "strong2": (0.8, 20),
}


def augmentation(level):
    """The `AugmentConfig` of a level."""
    mixup, magnitude = LEVELS[check_choice(level, LEVELS, "level")]
    policy = None if magnitude is None else f"randaugment(2, {magnitude})"
    return AugmentConfig(
        crop_scale=(0.05, 1.0),
        crop_ratio=(0.75, 1.33),
        crop_interpolation="bilinear",
        crop_sampling="inception",
        crop_antialias=False,
        flip=True,
        policy=policy,
        mixup=mixup,
        mixup_mode="big_vision",
    )


def make_recipe(size="small", level=None):
    """Makes the recipe of a size and a level of augmentation; `None` selects the default level of the size."""
    level = level or LEVEL_OF_SIZE[check_choice(size, LEVEL_OF_SIZE, "size")]
    model = vit_config(size, image_size=224, patch_size=16, activation="gelu_tanh", position_on_prefix=False)
    return Recipe(
        name=f"vit_augreg_i1k_{size}_{level}",
        model=model.replace(pre_logits_dim=model.hidden_dim),
        input_spec=InputSpec(size=224, crop_fraction=0.875, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
        data=DataConfig(name="imagenet2012", test_split="validation", batch_size=4096),
        augment=augmentation(level),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            warmup_steps=10_000,
            beta_1=0.9,
            beta_2=0.999,
            weight_decay=1e-4,
            independent_weight_decay=True,
            global_clipnorm=1.0,
        ),
        training=TrainingConfig(epochs=300, head_zeroinit=True, initialization="big_vision"),
    )


recipe = make_recipe()
