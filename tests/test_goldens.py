"""Our models beside the outputs that timm, Google's ViT and big_vision gave for the same weights."""

import functools
import re

import numpy as np
import pytest
from flax_layout import from_flax
from golden import GOLDENS, cases, fill, read_case, vit_config
from timm_layout import from_timm

from keras_vit import features
from keras_vit.interpret import attention_maps
from keras_vit.models import build_vit

CASES = cases(swin=False)
TOLERANCES = {"attention": 1e-5, "block": 5e-5, "tokens": 5e-5}


@functools.cache
def _load(case):
    """The model of a case with its weights, the images, and everything the reference gave for them."""
    description, checkpoint, io = read_case(case)
    config = vit_config(description)
    model = build_vit(config)
    fill(model, from_timm(checkpoint, config) if case.startswith("timm/") else from_flax(checkpoint))
    return model, io.pop("images"), io


def _stages(model, names):
    """`{name in the golden: name of our stage}` of all but attention."""
    config = next(layer.content.config for layer in model.layers if layer.name == "metadata")
    last = f"encoder_block_{config.num_layers - 1}"
    pooled = "encoder_norm" if config.pool_before_norm else "representation"
    stages = {
        "tokens": last if config.pool_before_norm else "encoder_norm",
        "representation": pooled,
        "pre_logits": "pre_logits" if config.pre_logits_dim else pooled,
        "pre_logits_dist": "representation_dist",
        "logits_cls": "head",
        "logits_dist": "head_dist",
        "logits": "logits" if config.distillation_token else "head",
    }
    blocks = {name: f"encoder_{name}" for name in names if name.startswith("block_")}
    return {name: {**stages, **blocks}[name] for name in names if not name.startswith("attention_")}


def _assert_close(name, actual, expected):
    tolerance = TOLERANCES.get(re.sub(r"_\d+$", "", name), 2e-5)
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=1e-5, err_msg=name)


def test_the_goldens_are_there():
    assert len(CASES) == 16


@pytest.mark.parametrize("case", CASES)
def test_every_stage_equals_the_reference(case):
    model, images, expected = _load(case)
    stages = _stages(model, expected)
    assert {"logits", "pre_logits", "tokens", "block_0"} <= set(stages)
    outputs = features(model, sorted(set(stages.values())))(images)
    for name, stage in stages.items():
        _assert_close(name, outputs[stage], expected[name])


@pytest.mark.parametrize("case", CASES)
def test_the_model_itself_gives_the_logits(case):
    model, images, expected = _load(case)
    _assert_close("logits", model(images), expected["logits"])


@pytest.mark.parametrize("case", [case for case in CASES if "attention_0" in np.load(GOLDENS / case / "io.npz")])
def test_attention_equals_the_reference(case):
    model, images, expected = _load(case)
    maps = attention_maps(model, images)
    names = [name for name in expected if name.startswith("attention_")]
    assert len(names) == len(maps)
    for name in names:
        _assert_close(name, maps[name.replace("attention_", "encoder_block_")], expected[name])
