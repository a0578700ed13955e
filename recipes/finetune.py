"""Fine-tuning at a higher resolution, as in the first papers of the Vision Transformer.

Papers: Dosovitskiy et al. (arXiv:2010.11929), section 4.1 and appendix B.1.1; Steiner et al. (arXiv:2106.10270),
section 3. Expected from B/16 of ImageNet-21k: CIFAR-10 98.8 to 99.0 %, CIFAR-100 91.9 to 92.1 %, ImageNet-1k 86.0 %
at 384 pixels (ImageNet-1k by timm's evaluation of the published weights, 85.5 % by Google's). Hardware: 8 V100 GPUs, 7
to 8 hours on CIFAR, 18 on ImageNet-1k. Not measured here.

    keras_vit train recipes/finetune.py
    keras_vit train recipes/finetune.py --set data.name=imagenet2012 --set data.test_split=validation \\
        --set training.epochs=8

Position embeddings are resized to the new grid, and the new head starts at zero. The papers choose the learning rate
from 0.003, 0.01 and 0.03 for each data set, and 10,000 steps for CIFAR (103 epochs of 512 images), 20,000 for
ImageNet-1k (8).

Source: google-research/vision_transformer `vit_jax/configs/common.py`, `vit_jax/checkpoint.py` (positions are resized
from corner to corner), the `vit_jax/input_pipeline.py` of 2020, and for the hours its `README.md` of that year. There,
as in the checkpoints, positions are added behind the class token, which has one. Differences there: the momentum
is a bfloat16, GELU is the one with tanh (here exact, as timm keeps these weights), training leaves out the last 2 %
(CIFAR) or 1 % (ImageNet-1k) of the split, resized crops stay fractions of pixels instead of whole ones, and evaluation
resizes without antialiasing. big_vision's `configs/transfer.py` resizes the shorter side to 448 pixels instead, by
areas, and for CIFAR crops 384 of them at random.
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="finetune",
    weights="vit_base_patch16_224.augreg_in21k",
    model=vit_config("base", image_size=384, patch_size=16, num_classes=10, position_resize="bilinear_corners"),
    input_spec=InputSpec(size=384, crop_fraction=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
    data=DataConfig(name="cifar10", batch_size=512),
    augment=AugmentConfig(
        crop_scale=(0.05, 1.0),
        crop_ratio=(0.75, 1.33),
        crop_interpolation="bilinear",
        crop_sampling="inception",
        crop_antialias=False,
        flip=True,
    ),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.03, momentum=0.9, warmup_steps=500, global_clipnorm=1.0),
    training=TrainingConfig(epochs=103, head_zeroinit=True),
)
