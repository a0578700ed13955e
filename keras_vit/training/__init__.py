"""Training as readable data and plain Keras: recipes, optimizers, checkpoints, run records.

Imports no TensorFlow: data sets and strategies are handed in.
"""

from keras_vit.fused import fused_training
from keras_vit.training.augment_config import AugmentConfig
from keras_vit.training.checkpoint import restore
from keras_vit.training.config import DistillationConfig, DistributionConfig, Recipe, TrainingConfig
from keras_vit.training.data_config import DataConfig
from keras_vit.training.distillation import DistillationLoss, Distiller, trained_model
from keras_vit.training.fine_tune import freeze, initial_model, initialize_heads
from keras_vit.training.layer_decay import decayed_paths, layer_scales
from keras_vit.training.losses import BinaryLoss, make_loss
from keras_vit.training.make_optimizer import make_optimizer, make_schedule
from keras_vit.training.masked_autoencoder import MaskedAutoencoder, make_autoencoder
from keras_vit.training.masking_config import MaskingConfig
from keras_vit.training.optimizer_config import OptimizerConfig
from keras_vit.training.optimizers import SGD, AdamW, Lamb, Lion, Muon
from keras_vit.training.overrides import apply_overrides
from keras_vit.training.record import run_record, write_json
from keras_vit.training.run import compile_model, fit
from keras_vit.training.saver import CheckpointCallback
from keras_vit.training.schedules import BigVisionSchedule, EpochCosine, EveryNth, warmup_cosine
from keras_vit.training.teachers import make_distiller, teacher_for

__all__ = [
    "SGD",
    "AdamW",
    "AugmentConfig",
    "BigVisionSchedule",
    "BinaryLoss",
    "CheckpointCallback",
    "DataConfig",
    "DistillationConfig",
    "DistillationLoss",
    "Distiller",
    "DistributionConfig",
    "EpochCosine",
    "EveryNth",
    "Lamb",
    "Lion",
    "MaskedAutoencoder",
    "MaskingConfig",
    "Muon",
    "OptimizerConfig",
    "Recipe",
    "TrainingConfig",
    "apply_overrides",
    "compile_model",
    "decayed_paths",
    "fit",
    "freeze",
    "fused_training",
    "initial_model",
    "initialize_heads",
    "layer_scales",
    "make_autoencoder",
    "make_distiller",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "restore",
    "run_record",
    "teacher_for",
    "trained_model",
    "warmup_cosine",
    "write_json",
]
