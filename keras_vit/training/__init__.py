"""Training in plain Keras: optimizers, checkpoints, run records.

Imports no TensorFlow: data sets and strategies are handed in.
"""

from keras_vit.backend.xla_kernels import fused_training
from keras_vit.training.initialization.warm_start import freeze, initial_model, initialize_heads
from keras_vit.training.loop.checkpoint import restore
from keras_vit.training.loop.checkpoint_callback import CheckpointCallback
from keras_vit.training.loop.fit import compile_model, fit
from keras_vit.training.loop.run_context import RunContext
from keras_vit.training.optimizers.build import make_optimizer, make_schedule
from keras_vit.training.optimizers.layer_decay import decayed_paths, layer_decay_scales
from keras_vit.training.optimizers.optimizers import SGD, AdamW, Lamb, Lion, Muon
from keras_vit.training.optimizers.schedules import BigVisionSchedule, EpochCosine, EveryNth, warmup_cosine
from keras_vit.training.reports.run_record import run_record, write_json
from keras_vit.training.tasks.distillation import DistillationLoss, Distiller, trained_model
from keras_vit.training.tasks.losses import SigmoidCrossEntropy, make_loss
from keras_vit.training.tasks.masked_autoencoder import MaskedAutoencoder, make_autoencoder
from keras_vit.training.tasks.teacher import adapt_teacher, make_distiller

__all__ = [
    "SGD",
    "AdamW",
    "BigVisionSchedule",
    "CheckpointCallback",
    "DistillationLoss",
    "Distiller",
    "EpochCosine",
    "EveryNth",
    "Lamb",
    "Lion",
    "MaskedAutoencoder",
    "Muon",
    "RunContext",
    "SigmoidCrossEntropy",
    "adapt_teacher",
    "compile_model",
    "decayed_paths",
    "fit",
    "freeze",
    "fused_training",
    "initial_model",
    "initialize_heads",
    "layer_decay_scales",
    "make_autoencoder",
    "make_distiller",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "restore",
    "run_record",
    "trained_model",
    "warmup_cosine",
    "write_json",
]
