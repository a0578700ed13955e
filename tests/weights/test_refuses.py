"""Layouts refuse configs with fields that they do not know."""

import dataclasses

import pytest

from keras_vit.models import VARIANTS
from keras_vit.weights.layouts.detect import layout_to_write

_VIT, _SWIN, _HYBRID = "vit_base_patch16_224", "swin_tiny_patch4_window7_224", "vit_base_r50_s16_224"


def with_new_field(config):
    """The same config, of a class with one more field."""
    kind = type(config)
    fields = [("made_up", int, dataclasses.field(default=0))]
    larger = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True, kw_only=True)
    return larger(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


@pytest.mark.parametrize(
    ("name", "layout", "changes"),
    [
        (_VIT, "timm", {}),
        (_VIT, "google", {}),
        (_VIT, "big_vision", {"class_token": False, "pooling": "gap"}),
        (_VIT, "torchvision", {}),
        (_VIT, "huggingface", {}),
        (_VIT, "huggingface", {"class_token": False, "pooling": "map", "num_classes": 0}),
        (_SWIN, "timm", {}),
        (_SWIN, "microsoft", {}),
        (_SWIN, "huggingface", {}),
        (_HYBRID, "timm", {}),
    ],
)
def test_a_field_that_a_layout_does_not_name_is_refused(name, layout, changes):
    config = VARIANTS[name].replace(**changes)
    writer = layout_to_write(layout, config)
    assert writer.refuses(config) is None
    assert "made_up=0" in writer.refuses(with_new_field(config))
