"""ViT-Ti learns CIFAR-10 from scratch at 32 pixels.

A plain baseline: crops and mirror images, no stronger augmentation. Data from TensorFlow Datasets, or from a
folder `<folder>/{train,test}/<class>/<image>`:

    keras_vit train recipes/vit_tiny_cifar10.py
    keras_vit train recipes/vit_tiny_cifar10.py --set data.folder=path/to/cifar10

Model: ViT-Ti of Touvron et al. (arXiv:2012.12877, table 1) with patches of 4 pixels, 5.4 M parameters. The accuracy
after all 200 epochs has not been measured; two CPU cores need minutes for an epoch, so take a shorter run there:
--set training.epochs=5 --set optimizer.warmup_epochs=1.
"""

from keras_vit.models import vit_config
from keras_vit.preprocessing import InputSpec
from keras_vit.training import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig

recipe = Recipe(
    name="vit_tiny_cifar10",
    model=vit_config("tiny", image_size=32, patch_size=4, num_classes=10, drop_path_rate=0.1),
    input_spec=InputSpec(size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    data=DataConfig(name="cifar10", batch_size=128),
    augment=AugmentConfig(shift=4.0, flip=True),
    optimizer=OptimizerConfig(
        learning_rate=1e-3,
        warmup_epochs=10,
        weight_decay=0.05,
        clip_norm=1.0,
    ),
    training=TrainingConfig(epochs=200, label_smoothing=0.1),
)
