"""A small ViT on CIFAR-10, distilled from a convolutional network.

The student and its settings are those of vit_tiny_cifar10.py. Its head learns from the labels and from the teacher's
probabilities (Hinton et al., arXiv:1503.02531) with a temperature of 2. `kind=hard` is the method of DeiT (Touvron et
al., arXiv:2012.12877, section 4): a distillation token learns the teacher's top-1 class. In a run this short, a
separate token learns too slowly, and a top-1 class adds little to a label; this was chosen on a part of the training
set, with records in recipes/results. Expected: 79.9 % after four epochs, the mean of three seeds in
recipes/results/deit_cifar10_4_epochs, compared with 77.5 % without a teacher; 71.0 and 68.9 % after three epochs with
patches of 8 pixels; there is no record of ten epochs. Hardware: two CPU cores, half an hour. Train the teacher, then
the student:

    keras_vit train recipes/convnet_cifar10.py --set data.folder=path/to/cifar10
    keras_vit train recipes/deit_cifar10.py --set data.folder=path/to/cifar10
    keras_vit train recipes/deit_cifar10.py:kind=hard,epochs=4 --set data.folder=path/to/cifar10
"""

from vit_tiny_cifar10 import EPOCHS, PATCH_SIZE
from vit_tiny_cifar10 import make_recipe as make_plain

from keras_vit.config import DistillationConfig
from keras_vit.validation import check_choice

TEACHER = "runs/convnet_cifar10/seed0"
KINDS = {
    # DeiT's soft loss is a mean over the classes: of ten, 0.95 of it weighs twice as much as 0.05 of the labels' loss.
    "soft": DistillationConfig(teacher=TEACHER, kind="soft", temperature=2.0, alpha=0.95),
    "hard": DistillationConfig(teacher=TEACHER, kind="hard", alpha=0.5),
}


def make_recipe(epochs=EPOCHS, patch_size=PATCH_SIZE, kind="soft"):
    """Makes the recipe for a number of epochs, a patch size and a kind of distillation."""
    check_choice(kind, KINDS, "kind")
    plain = make_plain(epochs, patch_size)
    return plain.replace(
        name=plain.name.replace("vit_tiny_cifar10", "deit_cifar10" if kind == "soft" else f"deit_cifar10_{kind}"),
        model=plain.model.replace(distillation_token=kind == "hard"),
        distillation=KINDS[kind],
    )


recipe = make_recipe()
