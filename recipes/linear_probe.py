"""A linear classifier on frozen features.

Measures the quality of a representation: all layers but the head are frozen. Expected: nothing is published with these
settings. Hardware: one GPU. Not measured here.

    keras_vit train recipes/linear_probe.py
    keras_vit train recipes/linear_probe.py --set weights=vit_base_patch16_224.augreg2_in21k_ft_in1k

With other weights the model and the preprocessing follow them, but for the crop and its interpolation.
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="linear_probe",
    weights="vit_base_patch16_224.augreg_in21k",
    freeze=("(?!head).*",),
    model=vit_config("base", image_size=224, patch_size=16, num_classes=10),
    input_spec=InputSpec(size=224, crop_fraction=0.875, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
    data=DataConfig(name="cifar10", batch_size=512),
    augment=AugmentConfig(crop_scale=(0.2, 1.0), flip=True),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, lr_base_size=256, momentum=0.9, warmup_epochs=1),
    training=TrainingConfig(epochs=10, head_zeroinit=True),
)
