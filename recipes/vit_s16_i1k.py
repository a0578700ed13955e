"""ViT-S/16 on ImageNet-1k, the plain baseline of big_vision.

Paper: Beyer, Zhai and Kolesnikov, "Better plain ViT baselines for ImageNet-1k" (arXiv:2205.01580).
Expected: 76.5 % top-1 after 90 epochs, 78.5 % after 150, 80.0 % after 300. Hardware: a TPUv3-8, 6 to 7 hours for 90
epochs. Not measured here.

    keras_vit train recipes/vit_s16_i1k.py --set distribution.name=mirrored
    keras_vit train recipes/vit_s16_i1k.py --set training.epochs=300

Source: google-research/big_vision `configs/vit_s16_i1k.py`, `models/vit.py`, `pp/ops_image.py`. Differences
there:

- Adam's first moment is a bfloat16 (`mu_dtype`), here a float32; biases of the MLP begin with a deviation of 1e-6, here
  at 0; the partners of mixup are of the same device, here of the whole batch.
- JPEGs are decoded with TensorFlow's own choice of a DCT, here with the accurate one. Crops that were resized are
  truncated to whole pixels (`get_resize`), here rounded.
- Evaluation resizes the shorter side to 256 by areas without antialiasing (`resize_small`), here bilinear with it.
- The shuffle buffer has 250,000 images per host, here `data.shuffle_buffer`, 16,384.
- The published models were trained on `train[:99%]` and selected on the rest. Here all images are used;
  set `data.train_split='train[:99%]'` to train as published.

RandAugment and mixup are those of this library. The layers of keras-cv have other operations, magnitudes and weights
(see `keras_vit.data.augment.policies`); to use them:

    --set augment.policy='keras_cv("RandAugment")' --set augment.mixup_mode=keras_cv
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="vit_s16_i1k",
    model=vit_config(
        "small",
        image_size=224,
        patch_size=16,
        class_token=False,
        pooling="gap",
        position_embedding="sincos2d",
        pre_logits_dim=384,
        activation="gelu_tanh",
    ),
    input_spec=InputSpec(size=224, crop_fraction=0.875, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3),
    data=DataConfig(name="imagenet2012", test_split="validation", batch_size=1024),
    augment=AugmentConfig(
        crop_scale=(0.05, 1.0),
        crop_ratio=(0.75, 1.33),
        crop_interpolation="bilinear",
        crop_sampling="inception",
        crop_antialias=False,
        flip=True,
        policy="randaugment(2, 10)",
        mixup=0.2,
        mixup_mode="big_vision",
    ),
    optimizer=OptimizerConfig(
        learning_rate=1e-3,
        warmup_steps=10_000,
        beta_1=0.9,
        beta_2=0.999,
        # 0.1 in the convention of Keras and PyTorch, which multiply it by the learning rate.
        weight_decay=1e-4,
        independent_weight_decay=True,
        global_clipnorm=1.0,
    ),
    training=TrainingConfig(epochs=90, head_zeroinit=True),
)
