"""Recipes as frozen dataclasses: the data, augmentation, optimizer and training of a run."""

from keras_vit.config.augment import AugmentConfig
from keras_vit.config.data import DataConfig
from keras_vit.config.files import list_recipes, load_recipe
from keras_vit.config.lora import LoraConfig
from keras_vit.config.masking import MaskingConfig
from keras_vit.config.optimizer import OptimizerConfig
from keras_vit.config.overrides import apply_overrides
from keras_vit.config.recipe import DistillationConfig, DistributionConfig, Recipe, TrainingConfig
from keras_vit.config.segmentation import SegmentationConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "DistillationConfig",
    "DistributionConfig",
    "LoraConfig",
    "MaskingConfig",
    "OptimizerConfig",
    "Recipe",
    "SegmentationConfig",
    "TrainingConfig",
    "apply_overrides",
    "list_recipes",
    "load_recipe",
]
