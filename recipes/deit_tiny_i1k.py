"""DeiT-Ti on ImageNet-1k without distillation.

Paper: Touvron et al., "Training data-efficient image transformers & distillation through attention"
(arXiv:2012.12877), table 9. Expected: 72.2 % top-1, seeds within 0.2. Hardware: 4 V100
GPUs, less than three days. Not measured here.

    keras_vit train recipes/deit_tiny_i1k.py --set distribution.name=mirrored

Source: facebookresearch/deit `main.py`, `README_deit.md`. As there, color jitter is off with RandAugment,
the first two epochs have the first learning rate of the warm-up, and the moving average of the weights is saved in
`average.weights.h5` but not evaluated; `--set optimizer.ema_evaluate=true` evaluates it and saves it as the model.

RandAugment, mixup and CutMix are those of this library. The layers of keras-cv have other operations, magnitudes and
weights (see `keras_vit.data.augment.policies`); to use them:

    --set augment.policy='keras_cv("RandAugment")' --set augment.mixup_mode=keras_cv
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import VARIANTS
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="deit_tiny_i1k",
    model=VARIANTS["deit_tiny_patch16_224"].replace(drop_path_rate=0.1, drop_path_schedule="linear"),
    input_spec=InputSpec(
        size=224, crop_fraction=0.875, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=1024, aug_repeats=3),
    augment=AugmentConfig(
        crop_scale=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        crop_interpolation="bicubic",
        flip=True,
        policy="rand-m9-mstd0.5-inc1",
        random_erasing_prob=0.25,
        mixup=0.8,
        cutmix=1.0,
        mixup_mode="batch",
        mixup_switch_prob=0.5,
    ),
    optimizer=OptimizerConfig(
        learning_rate=5e-4,
        lr_base_size=512,
        schedule="epoch_cosine",
        lag_one_epoch=True,
        warmup_epochs=5,
        warmup_learning_rate=1e-6,
        final_learning_rate=1e-5,
        weight_decay=0.05,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        ema_momentum=0.99996,
        ema_evaluate=False,
    ),
    training=TrainingConfig(epochs=300, label_smoothing=0.1, initialization="truncated_normal"),
)
