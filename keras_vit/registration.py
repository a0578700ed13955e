"""Lets Keras find classes of modules that `import keras_vit` leaves out.

Keras looks a saved class up by its registered name, `keras_vit>AdamW`. Modules for training are imported when somebody
asks for them, so in a fresh process their names are registered here with a stand-in, which imports the class as soon as
Keras makes an object of it. The module registers the class itself over it.
"""

import importlib

import keras

PACKAGE = "keras_vit"
# Registered names of classes by the module that defines them.
LAZY_CLASSES = {
    "keras_vit.training.tasks.distillation": ("DistillationLoss", "Distiller"),
    "keras_vit.training.tasks.losses": ("BinaryLoss",),
    "keras_vit.training.tasks.masked_autoencoder": ("MaskedAutoencoder",),
    "keras_vit.training.tasks.segmentation": ("PixelAccuracy", "SegmentationLoss", "SegmentationMeanIoU"),
    "keras_vit.training.optimizers.optimizers": ("AdamW", "Lamb", "Lion", "Muon", "SGD"),
    "keras_vit.training.optimizers.schedules": ("BigVisionSchedule", "EpochCosine", "EveryNth"),
}


class _LazyClass(type):
    """A class that stands for another one, which it imports when it is used."""

    def _load(cls):
        importlib.import_module(cls.__module__)
        return keras.saving.get_custom_objects()[f"{PACKAGE}>{cls.__name__}"]

    def __call__(cls, *args, **kwargs):
        return cls._load()(*args, **kwargs)

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._load(), name)

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls._load())

    def __subclasscheck__(cls, subclass):
        return issubclass(subclass, cls._load())


def register_lazy_classes():
    """Registers a stand-in for every class of `LAZY_CLASSES` that is not imported yet."""
    registered = keras.saving.get_custom_objects()
    for module, names in LAZY_CLASSES.items():
        for name in names:
            registered.setdefault(f"{PACKAGE}>{name}", _LazyClass(name, (), {"__module__": module}))
