"""Vision Transformers for Keras 3.

Importing this package registers its classes with Keras, so that `keras.models.load_model` reads every saved model,
compiled ones included. Packages that need TensorFlow or optional dependencies are imported on first use.
"""

import importlib
import pathlib
import warnings

from keras_vit_cli import REINSTALL  # isort: skip  # first, as it silences TensorFlow for `python -m keras_vit`
from keras_vit import interpret, layers, models, preprocessing, weights
from keras_vit.metadata import metadata, update_metadata
from keras_vit.models import HybridConfig, SwinConfig, ViTConfig, add_lora, features, merge_lora, simple_feature_pyramid
from keras_vit.preprocessing import InputSpec
from keras_vit.registration import register_lazy_classes
from keras_vit.version import __version__
from keras_vit.weights import (
    from_checkpoint,
    load_lora,
    load_weights,
    push_to_hub,
    save_lora,
    save_pretrained,
    save_weights,
)
from keras_vit.zoo.applications import (
    DeiTBase,
    DeiTSmall,
    DeiTTiny,
    SwinBase,
    SwinLarge,
    SwinSmall,
    SwinTiny,
    SwinV2Base,
    SwinV2Large,
    SwinV2Small,
    SwinV2Tiny,
    ViTBase,
    ViTHuge,
    ViTLarge,
    ViTSmall,
    ViTTiny,
    decode_predictions,
    preprocess_input,
)
from keras_vit.zoo.create import backbone, create_model, list_models, load_model

__all__ = [
    "DeiTBase",
    "DeiTSmall",
    "DeiTTiny",
    "HybridConfig",
    "InputSpec",
    "SwinBase",
    "SwinConfig",
    "SwinLarge",
    "SwinSmall",
    "SwinTiny",
    "SwinV2Base",
    "SwinV2Large",
    "SwinV2Small",
    "SwinV2Tiny",
    "ViTBase",
    "ViTConfig",
    "ViTHuge",
    "ViTLarge",
    "ViTSmall",
    "ViTTiny",
    "__version__",
    "add_lora",
    "backbone",
    "create_model",
    "decode_predictions",
    "features",
    "from_checkpoint",
    "interpret",
    "layers",
    "list_models",
    "load_lora",
    "load_model",
    "load_weights",
    "merge_lora",
    "metadata",
    "models",
    "preprocess_input",
    "preprocessing",
    "push_to_hub",
    "save_lora",
    "save_pretrained",
    "save_weights",
    "simple_feature_pyramid",
    "update_metadata",
    "weights",
]

register_lazy_classes()

# Packages, and names in them, that are imported on first use.
_ON_DEMAND = ("config", "data", "distribution", "evaluation", "experiment", "export", "sharding", "training")
_ON_DEMAND_NAMES = {"fine_tune": "experiment", "list_recipes": "config", "load_recipe": "config"}


def __getattr__(name):
    """Imports a package on first use: `keras_vit.export` needs TensorFlow, `keras_vit.data` may need more."""
    if name in _ON_DEMAND:
        return importlib.import_module(f"keras_vit.{name}")
    if name in _ON_DEMAND_NAMES:
        return getattr(importlib.import_module(f"keras_vit.{_ON_DEMAND_NAMES[name]}"), name)
    raise AttributeError(f"module 'keras_vit' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_ON_DEMAND, *_ON_DEMAND_NAMES])


def _warn_of_namesake():
    """Warns if another project, `keras-vit`, is installed into the same folder: it shares the name of this package."""
    folder = pathlib.Path(__file__).parent
    if any(folder.parent.glob("keras_vit-*.dist-info")) and any(folder.parent.glob("keras_vit_zoo-*.dist-info")):
        warnings.warn(
            f"the package keras-vit, another project, shares the folder {str(folder)!r}; uninstalling it removes files "
            f"of this one. Reinstall: {REINSTALL}",
            stacklevel=3,
        )


_warn_of_namesake()
