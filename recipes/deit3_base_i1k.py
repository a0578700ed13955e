"""DeiT-III B on ImageNet-1k at 192 pixels, with the settings of deit3_small_i1k.py.

Paper: Touvron, Cord and Jegou (arXiv:2204.07118), table 11. Expected: 83.8 % top-1 after 800 epochs at 192 pixels and
20 of fine-tuning at 224 (AdamW, learning rate 1e-5 per 512 images, weight decay 0.1, rand-m9-mstd0.5-inc1, label
smoothing 0.1, no repeated augmentation). Hardware: 8 GPUs; the time is not published. Not measured here.

    keras_vit train recipes/deit3_base_i1k.py --set distribution.name=mirrored

For augmentation by keras-cv see deit_tiny_i1k.py.
"""

import dataclasses

from deit3_small_i1k import recipe as small

from keras_vit.models import VARIANTS

recipe = small.replace(
    name="deit3_base_i1k",
    model=VARIANTS["deit3_base_patch16_224"].replace(
        image_size=192, drop_path_rate=0.2, drop_path_schedule="constant", layer_scale_init=1e-4
    ),
    input_spec=small.input_spec.replace(size=192),
    optimizer=dataclasses.replace(small.optimizer, learning_rate=3e-3),
)
