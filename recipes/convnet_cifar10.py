"""A small residual network on CIFAR-10: the teacher of deit_cifar10.py.

Data from TensorFlow Datasets, or from a folder `<folder>/{train,test}/<class>/<image>`:

    keras_vit train recipes/convnet_cifar10.py --set data.folder=path/to/cifar10

The settings follow "How to train your ResNet" (D. Page, 2018): SGD with Nesterov momentum, a linear warm-up and decay
of the learning rate, crops, flips and label smoothing. Expected: 83.4 %, the record in recipes/results/convnet_cifar10.
Hardware: two CPU cores, twelve minutes.
"""

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import ConvNetConfig
from keras_vit.preprocessing import InputSpec

recipe = Recipe(
    name="convnet_cifar10",
    model=ConvNetConfig(image_size=32, widths=(32, 64, 128), depths=(0, 1, 1), num_classes=10),
    input_spec=InputSpec(size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    data=DataConfig(name="cifar10", batch_size=256),
    augment=AugmentConfig(padding=4, padding_mode="reflect", flip=True),
    optimizer=OptimizerConfig(
        name="sgd",
        learning_rate=0.4,
        momentum=0.9,
        nesterov=True,
        schedule="linear",
        warmup_epochs=2,
        # 5e-4 in PyTorch, whose SGD adds it to the gradient before a momentum of 0.9: multiplied by ten.
        weight_decay=5e-3,
    ),
    training=TrainingConfig(epochs=6, label_smoothing=0.1),
)
