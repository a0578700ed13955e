"""Cases for `tests/distribution/test_two_devices.py`: two of `distributed_small.py`, and LoRA."""

import functools

import keras
from distributed_case import CLASSES, batches, compiled, fit
from distributed_small import small

from keras_vit.models import ViTConfig, add_lora, build_model

_SMALL = ("clipnorm", "overwritten")  # the clip after the sum; averages, sample weights and several steps a call
FEW = (*_SMALL, "lora")


def cases(kind, folder):
    """Functions from a strategy to a dict of arrays, by name."""
    return {**{name: functools.partial(small, name) for name in _SMALL}, "lora": lora}


def lora(strategy):
    """Trains adapters and a head, with weight decay and an average of the weights."""
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=CLASSES
    )

    def make():
        model = build_model(config)
        add_lora(model, rank=2)
        return compiled(model, keras.optimizers.SGD(0.1, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3))

    return fit(strategy, make, batches(), validates=True)[1]
