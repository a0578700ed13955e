"""Swin-T on ImageNet-1k.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv:2103.14030), section
4.1. Expected: 81.2 % top-1. Hardware: 8 V100 GPUs; the time is not published. Not
measured here.

    keras_vit train recipes/swin_tiny_i1k.py --set distribution.name=mirrored

Source: microsoft/Swin-Transformer `config.py`, `configs/swin/swin_tiny_patch4_window7_224.yaml`, `optimizer.py`. The
cosine starts after the warm-up, the default of that code (`WARMUP_PREFIX`).

RandAugment, mixup and CutMix are those of this library. The layers of keras-cv have other operations, magnitudes and
weights (see `keras_vit.data.augment.policies`); to use them:

    --set augment.policy='keras_cv("RandAugment")' --set augment.mixup_mode=keras_cv
"""

from deit_tiny_i1k import recipe as deit

from keras_vit.config import DataConfig, OptimizerConfig, TrainingConfig
from keras_vit.models import VARIANTS

recipe = deit.replace(
    name="swin_tiny_i1k",
    model=VARIANTS["swin_tiny_patch4_window7_224"].replace(drop_path_rate=0.2),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=1024),
    optimizer=OptimizerConfig(
        learning_rate=5e-4,
        lr_base_size=512,
        schedule="cosine",
        warmup_epochs=20,
        # Scaled by the batch size there, as the peak is: 5e-7 and 5e-6 for 512 images.
        warmup_learning_rate=1e-6,
        final_learning_rate=1e-5,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        global_clipnorm=5.0,
    ),
    training=TrainingConfig(epochs=300, label_smoothing=0.1, initialization="truncated_normal"),
)
