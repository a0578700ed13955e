"""A small Swin Transformer on CIFAR-10, from scratch.

Paper: Liu et al. (arXiv:2103.14030). Patches of 2 pixels, windows of 4 by 4 tokens, stages of 16, 8 and 4 tokens a
side; data, augmentation and optimizer as in vit_tiny_cifar10.py. Expected: 70.9 % after five epochs, the record in
recipes/results/swin_cifar10_5_epochs; nothing is published for this size. Hardware: two CPU cores, half an hour.

    keras_vit train recipes/swin_cifar10.py --set data.folder=path/to/cifar10
"""

import dataclasses

from vit_tiny_cifar10 import EPOCHS
from vit_tiny_cifar10 import make_recipe as make_vit

from keras_vit.models import SwinConfig


def make_recipe(epochs=EPOCHS):
    """Makes the recipe for a number of epochs."""
    vit = make_vit(epochs)
    return vit.replace(
        name=vit.name.replace("vit_tiny", "swin"),
        model=SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=48,
            depths=(2, 2, 2),
            num_heads=(2, 4, 8),
            window_size=4,
            mlp_ratio=2.0,
            num_classes=10,
        ),
        training=dataclasses.replace(vit.training, initialization="layers"),
    )


recipe = make_recipe()
