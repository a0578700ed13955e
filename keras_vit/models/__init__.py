"""Configs and the functional models that are built from them."""

from keras_vit.models.config import ViTConfig
from keras_vit.models.features import features
from keras_vit.models.variants import SIZES, VARIANTS, vit_config
from keras_vit.models.vit import build_vit

__all__ = ["SIZES", "VARIANTS", "ViTConfig", "build_vit", "features", "vit_config"]
