"""Vision Transformers on ImageNet-21k, the pretraining of AugReg.

Paper: Steiner et al., "How to train your ViT? Data, Augmentation, and Regularization in Vision Transformers"
(arXiv:2106.10270). Expected after fine-tuning with finetune.py to ImageNet-1k at 384 pixels: Ti/16 78.2 %, S/16 83.7 %,
B/16 86.0 % (that of B/16 is timm's evaluation of the published weights, Google's is 85.5 %). Hardware: TPUv3 cores;
hours are in the paper's figures. Not measured here.

    keras_vit train recipes/vit_augreg_i21k.py:size=base,level=medium1 --set data.tfrecords='i21k/{split}-*'

The data set has no public TFDS builder for downloads: prepare TFRecords of its 21,843 classes, an image's labels as a
list. `size` is tiny, small or base; `level` one of `LEVELS` in vit_augreg_i1k.py.

Source: google-research/big_vision `configs/vit_i21k.py`, which trains on `full[51200:]`; what is prepared as `train` is
up to you. What else is otherwise there is named in vit_s16_i1k.py. For augmentation by keras-cv see vit_augreg_i1k.py.
"""

from vit_augreg_i1k import augmentation
from vit_augreg_i1k import make_recipe as on_i1k

from keras_vit.config import DataConfig, TrainingConfig
from keras_vit.validation import check_choice

LEVEL_OF_SIZE = {"tiny": "none", "small": "light1", "base": "light2"}


def make_recipe(size="small", level=None):
    """Makes the recipe of a size and a level of augmentation; `None` selects the default level of the size."""
    level = level or LEVEL_OF_SIZE[check_choice(size, LEVEL_OF_SIZE, "size")]
    recipe = on_i1k(size)
    # The mean of the tokens, as in the config; the published checkpoints have a class token with a position.
    pooling = {"class_token": False, "pooling": "gap", "pre_logits_dim": None}
    return recipe.replace(
        name=f"vit_augreg_i21k_{size}_{level}",
        model=recipe.model.replace(num_classes=21843, **pooling),
        data=DataConfig(
            tfrecords="imagenet21k/{split}-*",
            train_split="train",
            test_split="validation",
            num_classes=21843,
            multi_label=True,
            batch_size=4096,
        ),
        augment=augmentation(level),
        training=TrainingConfig(
            epochs=300, loss="sigmoid", init_head_bias=-10.0, head_zeroinit=True, initialization="big_vision"
        ),
    )


recipe = make_recipe()
