"""A ViT of CIFAR-10 learns from a convolutional teacher.

The student and all of its settings are those of vit_tiny_cifar10.py. Beside the labels its head learns the teacher's
probabilities (Hinton et al., arXiv:1503.02531), softened by a temperature of 2. `kind=hard` is DeiT's way (Touvron et
al., arXiv:2012.12877, section 4): a distillation token learns the teacher's likeliest class. In a run this short a
token of its own comes too late, and a likeliest class says little that a label does not; chosen on a part of the
training set, records in recipes/results. Expected: after four epochs 79.9 %, the mean of three seeds in
recipes/results/deit_cifar10_4_epochs, where it is 77.5 % without a teacher; after three with patches of 8 pixels 71.0
and 68.9 %; of ten epochs there is no record. Hardware: two CPU cores, half an hour. First the teacher, then the
student:

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
    """The recipe at another length, with other patches, or with another kind of distillation."""
    check_choice(kind, KINDS, "kind")
    plain = make_plain(epochs, patch_size)
    return plain.replace(
        name=plain.name.replace("vit_tiny_cifar10", "deit_cifar10" if kind == "soft" else f"deit_cifar10_{kind}"),
        model=plain.model.replace(distillation_token=kind == "hard"),
        distillation=KINDS[kind],
    )


recipe = make_recipe()
