"""ViT-Lite-7/4 on CIFAR-10, from scratch.

Paper: Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers" (arXiv:2104.05704), table 2. Expected:
91.38 % after 200 epochs, 3.7 M parameters, 15 PFLOP. Hardware: one GPU; the time is not published. Only
its first epoch was measured here, recipes/results/vit_lite_cifar10_first_epochs.json.

    keras_vit train recipes/vit_lite_cifar10.py
    keras_vit train recipes/vit_lite_cifar10.py --set data.folder=path/to/cifar10

Source: SHI-Labs/Compact-Transformers `configs/datasets/cifar10.yml`, `src/vit.py`, `src/utils/transformers.py`.
Differences there: 300 epochs, where the paper's table has 200; mixup and cutmix end after 175 of them, ten more at the
last learning rate follow, queries, keys and values have no bias, positions begin with a deviation of 0.2 and the class
token at 0, the epsilon of the norms is 1e-5, and the second norm of a block is applied to the residual stream too.

RandAugment, mixup and CutMix are those of this library. The layers of keras-cv have other operations, magnitudes and
weights (see `keras_vit.data.augment.policies`); to use them:

    --set augment.policy='keras_cv("RandAugment")' --set augment.mixup_mode=keras_cv
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="vit_lite_cifar10",
    model=ViTConfig(
        image_size=32,
        patch_size=4,
        hidden_dim=256,
        num_layers=7,
        num_heads=4,
        mlp_dim=512,
        num_classes=10,
        attention_dropout_rate=0.1,
        drop_path_rate=0.1,
    ),
    input_spec=InputSpec(size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    data=DataConfig(name="cifar10", batch_size=128),
    augment=AugmentConfig(
        crop_scale=(0.8, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        crop_interpolation="random",
        flip=True,
        policy="rand-m9-mstd0.5-inc1",
        random_erasing_prob=0.25,
        mixup=0.8,
        cutmix=1.0,
        mixup_mode="batch",
        mixup_switch_prob=0.5,
    ),
    optimizer=OptimizerConfig(
        learning_rate=5.5e-4,
        schedule="epoch_cosine",
        warmup_epochs=10,
        warmup_learning_rate=1e-5,
        final_learning_rate=1e-5,
        weight_decay=0.06,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
    ),
    training=TrainingConfig(epochs=200, label_smoothing=0.1, initialization="truncated_normal"),
)
