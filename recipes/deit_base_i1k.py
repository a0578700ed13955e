"""DeiT-B on ImageNet-1k without distillation, with the settings of deit_tiny_i1k.py.

Paper: Touvron et al. (arXiv:2012.12877), table 9. Expected: 81.8 % top-1. Hardware: 8 V100 GPUs, 53
hours. Not measured here.

    keras_vit train recipes/deit_base_i1k.py --set distribution.name=mirrored

For augmentation by keras-cv see deit_tiny_i1k.py.
"""

from deit_tiny_i1k import recipe as tiny

from keras_vit.models import VARIANTS

recipe = tiny.replace(
    name="deit_base_i1k",
    model=VARIANTS["deit_base_patch16_224"].replace(drop_path_rate=0.1, drop_path_schedule="linear"),
)
