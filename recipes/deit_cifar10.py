"""A ViT of CIFAR-10 learns from a convolutional teacher, as DeiT does on ImageNet.

Paper: Touvron et al. (arXiv:2012.12877), section 4: hard distillation on a token of its own. The student is that of
vit_tiny_cifar10.py with that token beside the mean of its patches. Expected: more than without a teacher at the same
length. Hardware: two CPU cores, half an hour. First the teacher, then the student:

    keras_vit train recipes/convnet_cifar10.py --set data.folder=path/to/cifar10
    keras_vit train recipes/deit_cifar10.py --set data.folder=path/to/cifar10
"""

from vit_tiny_cifar10 import EPOCHS
from vit_tiny_cifar10 import make_recipe as make_plain

from keras_vit.training import DistillationConfig


def make_recipe(epochs=EPOCHS):
    """The recipe at another length."""
    plain = make_plain(epochs)
    return plain.replace(
        name=plain.name.replace("vit_tiny", "deit"),
        model=plain.model.replace(distillation_token=True),
        distillation=DistillationConfig(teacher="runs/convnet_cifar10/seed0", kind="hard", alpha=0.5),
    )


recipe = make_recipe()
