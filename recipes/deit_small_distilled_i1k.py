"""DeiT-S with a distillation token on ImageNet-1k, distilled from a convolutional network.

Paper: Touvron et al. (arXiv:2012.12877), section 4: hard distillation from a RegNetY-16GF of 82.9 % top-1,
which sees the same mixed images. Expected: 81.2 % top-1 with the mean of both heads. Hardware: 4 V100 GPUs, about three
days. Not measured here.

    keras_vit train recipes/deit_small_distilled_i1k.py --set distillation.teacher=teacher.keras

The teacher is any Keras model with the same classes (one from outside this library also needs
`distillation.teacher_mean` and `teacher_std`), or a name of `keras_vit list --pretrained`.

Source: facebookresearch/deit `main.py`, `losses.py`. For augmentation by keras-cv see deit_tiny_i1k.py.
"""

from deit_small_i1k import recipe as plain

from keras_vit.config import DistillationConfig
from keras_vit.models import VARIANTS

recipe = plain.replace(
    name="deit_small_distilled_i1k",
    model=VARIANTS["deit_small_distilled_patch16_224"].replace(drop_path_rate=0.1, drop_path_schedule="linear"),
    distillation=DistillationConfig(teacher="teacher.keras", kind="hard", alpha=0.5),
)
