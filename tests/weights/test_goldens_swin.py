"""Our Swin Transformers beside the outputs that other implementations gave for the same weights."""

import functools
import pathlib
import re

import numpy as np
import pytest
from golden import GOLDENS, cases, read_case, swin_config
from run_goldens import blocks_from_reference

from keras_vit import features
from keras_vit.weights import from_checkpoint

CASES = cases(swin=True)
TOLERANCES = {"attention": 1e-5, "block": 5e-5, "patch_embedding": 5e-5, "stage": 5e-5, "tokens": 5e-5}
# Random weights of version 2 have nearly one-hot attention at a scale of 100 and norms of almost equal numbers:
# rounding grows from block to block. timm in float32 is 1e-3 from itself in float64 after block 1. So the chain has
# a wider limit, and each block by itself, from the reference's input, the usual one.
TOLERANCE_OF_CHAIN_V2 = 3e-4
STAGES = {
    "patch_embedding": "patch_encoder",
    "tokens": "encoder_norm",
    "pre_logits": "representation",
    "logits": "head",
}


@functools.cache
def _load(case):
    """The model of a case with its weights, the images, and everything the reference gave for them."""
    description, io = read_case(case)
    config = swin_config(description, pathlib.PurePath(case).parts[-2])
    model = from_checkpoint(GOLDENS / case / "checkpoint.safetensors", config)
    return model, config, description, io


def _assert_close(name, actual, expected, least=0.0):
    tolerance = max(TOLERANCES.get(re.sub(r"_\d+$", "", name), 2e-5), least)
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=1e-5, err_msg=name)


def _pairs(values):
    """`4` as `[4, 4]`, at any depth of lists that end in pairs or in numbers."""
    return [v if isinstance(v, list) else [v, v] for v in values]


def test_the_goldens_are_there():
    assert len(CASES) == 4
    assert {case.split("/")[0] for case in CASES} == {"huggingface", "microsoft", "timm"}


def _stages(expected):
    """`{name in the golden: name of our stage}` of all but images and attention."""
    names = [name for name in expected if name != "images" and not name.startswith("attention_")]
    return {name: STAGES.get(name, name.replace("block", "encoder_block")) for name in names}


@pytest.mark.parametrize("case", CASES)
def test_every_stage_equals_the_reference(case):
    model, config, _, expected = _load(case)
    stages = _stages(expected)
    assert {"logits", "pre_logits", "tokens", "block_0"} <= set(stages)
    outputs = features(model, sorted(set(stages.values())))(expected["images"])
    for name, stage in stages.items():
        _assert_close(name, outputs[stage], expected[name], TOLERANCE_OF_CHAIN_V2 if config.version == 2 else 0)


@pytest.mark.parametrize("case", CASES)
def test_the_model_itself_gives_the_logits(case):
    model, _, _, expected = _load(case)
    _assert_close("logits", model(expected["images"]), expected["logits"])


@pytest.mark.parametrize("case", CASES)
def test_every_block_equals_the_reference_from_its_input(case):
    model, config, _, expected = _load(case)
    for i, block, x in blocks_from_reference(model, config, expected):
        outputs, attention = block(x, return_attention=True)
        _assert_close(f"block_{i}", outputs, expected[f"block_{i}"])
        np.testing.assert_array_equal(outputs, block(x))
        if f"attention_{i}" in expected:
            _assert_close(f"attention_{i}", attention, expected[f"attention_{i}"])
    x = expected[f"block_{i}"]
    for stage in ("tokens", "pre_logits", "logits"):
        _assert_close(stage, x := model.get_layer(STAGES[stage])(x), expected[stage])


@pytest.mark.parametrize(("sizes", "expected"), [([0] * 4, None), ([6, 3, 2, 2], (6, 3, 2)), (None, None)])
def test_windows_of_training_beyond_the_last_stage_are_left_out(sizes, expected):
    description, _ = read_case("timm/swinv2_pretrained_window")
    three = {"depths": [1, 1, 1], "num_heads": [1, 2, 4], "pretrained_window_sizes": sizes}
    assert swin_config(description | three, "timm").pretrained_window_sizes == expected


def test_attention_of_a_case_was_compared():
    assert any("attention_7" in np.load(GOLDENS / case / "io.npz") for case in CASES)


@pytest.mark.parametrize("case", CASES)
def test_windows_and_shifts_are_those_of_the_reference(case):
    model, config, description, _ = _load(case)
    assert list(map(list, config.windows)) == _pairs(description["stage_windows"])
    assert list(map(list, config.resolutions)) == description["stage_resolutions"]
    shifts = [list(model.get_layer(f"encoder_block_{i}").shift) for i in range(sum(config.depths))]
    assert shifts == [pair for stage in description["block_shifts"] for pair in _pairs(stage)]
