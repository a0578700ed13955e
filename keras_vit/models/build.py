"""Builds the model of any config."""

from keras_vit.models.config import ViTConfig
from keras_vit.models.convnet import ConvNetConfig, build_convnet
from keras_vit.models.hybrid import HybridConfig, build_hybrid
from keras_vit.models.swin import SwinConfig, build_swin
from keras_vit.models.vit import build_vit

BUILDERS = {
    ConvNetConfig: build_convnet,
    HybridConfig: build_hybrid,
    SwinConfig: build_swin,
    ViTConfig: build_vit,
}


def build_model(config, input_spec=None, labels=None, origin=None, dtype=None, name="model"):
    """Builds the model of a config, whichever family it is of.

    Args:
        config: `ViTConfig`, `HybridConfig`, `SwinConfig` or `ConvNetConfig`.
        input_spec, labels, origin, dtype, name: as for `build_vit`.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: if `config` is none of these.
    """
    if type(config) not in BUILDERS:
        known = ", ".join(sorted(family.__name__ for family in BUILDERS))
        raise ValueError(f"config must be one of {known}. Received: config={config!r}")
    return BUILDERS[type(config)](config, input_spec, labels, origin, dtype, name)
