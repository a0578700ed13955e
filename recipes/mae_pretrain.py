"""Masked autoencoder (MAE) on ImageNet-1k: self-supervised pretraining of ViT-B/16.

Paper: He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377), table 8. Expected: nothing is
published for this run alone; the paper reports 83.6 % of ViT-B after 1,600 epochs and fine-tuning as in
finetune_adamw.py. Hardware: 64 V100 GPUs, 42 hours for 800 epochs of a ViT-L. Not measured here.

    keras_vit train recipes/mae_pretrain.py
    keras_vit train recipes/finetune_adamw.py --set weights=runs/mae_pretrain/seed0 --set model.pooling=gap \
        --set 'input_spec.mean=(0.485,0.456,0.406)' --set 'input_spec.std=(0.229,0.224,0.225)'

Source: facebookresearch/mae `PRETRAIN.md`, `main_pretrain.py`, `models_mae.py`. Differences there: the class token has
weight decay, as the mask token has here too, and queries, keys and values are initialized as one matrix, with values
smaller by the square root of 2. Its fine-tuning drops the encoder's norm and classifies the mean of the tokens after a
new one; here the encoder's norm stays.
"""

from keras_vit.config import AugmentConfig, DataConfig, MaskingConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="mae_pretrain",
    model=vit_config("base", image_size=224, patch_size=16, position_embedding="sincos2d_moco"),
    input_spec=InputSpec(
        size=224,
        crop_fraction=0.875,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=4096),
    augment=AugmentConfig(crop_scale=(0.2, 1.0), crop_interpolation="bicubic", flip=True),
    optimizer=OptimizerConfig(
        learning_rate=1.5e-4,
        lr_base_size=256,
        warmup_epochs=40,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.95,
        epsilon=1e-8,
    ),
    training=TrainingConfig(epochs=800),
    masking=MaskingConfig(ratio=0.75, decoder_dim=512, decoder_layers=8, decoder_heads=16, normalize_targets=True),
)
