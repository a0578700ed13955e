"""Fine-tuning with AdamW and layer-wise learning-rate decay.

Papers: He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377), table 9; Bao et al., "BEiT"
(arXiv:2106.08254), appendix. Their settings, with the augmentation of DeiT, from AugReg's weights of ImageNet-21k,
whose pooling and normalization the model keeps. Expected: nothing is published for these weights; the papers start from
their own encoders and report 83.6 % for MAE's ViT-B. Hardware: 32 V100 GPUs, 7.2 hours. Not measured here.

    keras_vit train recipes/finetune_adamw.py

Source: facebookresearch/mae `FINETUNE.md`, `main_finetune.py`. Differences there: the mean of the tokens with a
norm of its own is classified (`global_pool`), pixels are normalized by ImageNet's mean and standard deviation, and the
new head is initialized with a standard deviation of 2e-5. For augmentation by keras-cv see deit_tiny_i1k.py.
"""

from deit_tiny_i1k import recipe as deit

from keras_vit.config import DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="finetune_adamw",
    weights="vit_base_patch16_224.augreg_in21k",
    model=vit_config("base", image_size=224, patch_size=16, drop_path_rate=0.1),
    input_spec=InputSpec(size=224, crop_fraction=0.875, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=1024),
    augment=deit.augment,
    optimizer=OptimizerConfig(
        learning_rate=5e-4,
        lr_base_size=256,
        warmup_epochs=5,
        final_learning_rate=1e-6,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        layer_decay=0.65,
    ),
    training=TrainingConfig(epochs=100, label_smoothing=0.1, head_zeroinit=True),
)
