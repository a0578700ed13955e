"""A ViT of CIFAR-10 learns from a convolutional teacher, as DeiT does on ImageNet.

Paper: Touvron et al. (arXiv:2012.12877), section 4: hard distillation on a token of its own. First the teacher, then
the student.

    keras_vit train recipes/convnet_cifar10.py --set data.folder=path/to/cifar10
    keras_vit train recipes/deit_cifar10.py --set data.folder=path/to/cifar10
"""

from vit_tiny_cifar10 import recipe as plain

from keras_vit.training import DistillationConfig

recipe = plain.replace(
    name="deit_cifar10",
    model=plain.model.replace(class_token=True, pooling="token", distillation_token=True),
    distillation=DistillationConfig(teacher="runs/convnet_cifar10/seed0", kind="hard", alpha=0.5),
)
