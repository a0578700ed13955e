"""DeiT-III S on ImageNet-1k.

Paper: Touvron, Cord and Jegou, "DeiT III: Revenge of the ViT" (arXiv:2204.07118), table 11. Expected: 81.4 % top-1
after 800 epochs; 53.6 % after 50, 63.1 % after 100, 67.9 % after 200, 74.4 % after 400. Hardware: 8 V100
GPUs; the time is not published. Not measured here.

    keras_vit train recipes/deit3_small_i1k.py --set distribution.name=mirrored

Source: facebookresearch/deit `README_revenge.md`, `augment.py`, `main.py`. For augmentation by keras-cv see
deit_tiny_i1k.py; it has no 3-augment.
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import VARIANTS
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="deit3_small_i1k",
    model=VARIANTS["deit3_small_patch16_224"].replace(
        drop_path_rate=0.05, drop_path_schedule="constant", layer_scale_init=1e-4
    ),
    input_spec=InputSpec(
        size=224, crop_fraction=1.0, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=2048, aug_repeats=3),
    augment=AugmentConfig(
        crop_scale=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        crop_interpolation="bicubic",
        flip=True,
        policy="three_augment",
        color_jitter=0.3,
        mixup=0.8,
        cutmix=1.0,
        mixup_mode="batch",
        mixup_switch_prob=0.5,
    ),
    optimizer=OptimizerConfig(
        name="lamb",
        learning_rate=4e-3,
        schedule="epoch_cosine",
        lag_one_epoch=True,
        warmup_epochs=5,
        warmup_learning_rate=1e-6,
        final_learning_rate=1e-5,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        ema_momentum=0.99996,  # saved beside the model, as in DeiT
        ema_evaluate=False,
        global_clipnorm=1.0,  # built into the fused LAMB of the original code
    ),
    training=TrainingConfig(epochs=800, loss="binary", initialization="truncated_normal"),
)
