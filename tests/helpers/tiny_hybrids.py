"""Tiny hybrids with random weights."""

from tiny import randomize

from keras_vit import HybridConfig
from keras_vit.models import build_model

CONFIG = HybridConfig(
    image_size=(22, 36),
    stem_depths=(2, 1),
    stem_width=32,
    hidden_dim=16,
    num_layers=2,
    num_heads=2,
    mlp_dim=24,
    num_classes=3,
)

OPTIONS = [
    {},
    {"stem_depths": (), "image_size": (32, 48), "patch_size": (4, 2)},
    {"stem_rule": "google", "num_channels": 1, "pooling": "gap", "stem_depths": (1,)},
]


def tiny_hybrid(*, dtype=None, **fields):
    """A tiny hybrid whose every weight is random."""
    model = build_model(CONFIG.replace(**fields), dtype=dtype)
    randomize(model)
    return model
