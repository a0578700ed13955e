"""Training as readable data and plain Keras: recipes, optimizers, checkpoints, run records.

Imports no TensorFlow: data sets and strategies are handed in.
"""

from keras_vit.backend import fused_training
from keras_vit.training.checkpoint import CheckpointCallback, restore
from keras_vit.training.config import (
    AugmentConfig,
    DataConfig,
    DistributionConfig,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
)
from keras_vit.training.distillation import DistillationLoss, Distiller
from keras_vit.training.layer_decay import decayed_paths, layer_scales
from keras_vit.training.optimizers import AdamW, adamw
from keras_vit.training.overrides import apply_overrides
from keras_vit.training.record import run_record, write_json
from keras_vit.training.run import compile_model, fit
from keras_vit.training.schedules import BigVisionSchedule, EpochCosine, warmup_cosine

__all__ = [
    "AdamW",
    "AugmentConfig",
    "BigVisionSchedule",
    "CheckpointCallback",
    "DataConfig",
    "DistillationLoss",
    "Distiller",
    "DistributionConfig",
    "EpochCosine",
    "OptimizerConfig",
    "Recipe",
    "TrainingConfig",
    "adamw",
    "apply_overrides",
    "compile_model",
    "decayed_paths",
    "fit",
    "fused_training",
    "layer_scales",
    "restore",
    "run_record",
    "warmup_cosine",
    "write_json",
]
