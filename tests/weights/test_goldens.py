"""Our models beside the outputs that the public implementations gave for the same weights.

The architecture is read off each checkpoint; of the case's `config.json` only what no file tells is used.
"""

import json
import re
import shutil

import numpy as np
import pytest
from golden import CASES, GOLDENS, config_of, load, read_case
from random_configs import vit
from run_goldens import compare, run, stages

from keras_vit import features, metadata
from keras_vit.interpret import attention_maps
from keras_vit.models import build_model

TOLERANCES = {"attention": 1e-5, "block": 5e-5, "tokens": 5e-5}


def _assert_close(name, actual, expected):
    tolerance = TOLERANCES.get(re.sub(r"_\d+$", "", name), 2e-5)
    np.testing.assert_allclose(actual, expected, atol=tolerance, rtol=1e-5, err_msg=name)


def test_the_goldens_are_there():
    assert len(CASES) == 22


@pytest.mark.parametrize("case", CASES)
def test_the_architecture_is_read_off_the_file(case):
    found = metadata(load(case)[0]).config.get_config()
    wanted = config_of(read_case(case)[0], case.split("/")[0]).get_config()
    # Initial values change no number.
    assert (found.pop("layer_scale_init") is None) == (wanted.pop("layer_scale_init") is None)
    assert found == wanted


@pytest.mark.parametrize("case", CASES)
def test_every_stage_equals_the_reference(case):
    model, images, expected = load(case)
    names = stages(metadata(model).config, read_case(case)[0])
    assert {"pre_logits", "tokens", "block_0"} <= set(names) & set(expected)
    outputs = features(model, sorted(set(names.values())))(images)
    for name, stage in names.items():
        if name in expected:
            _assert_close(name, outputs[stage], expected[name])


@pytest.mark.parametrize("case", CASES)
def test_the_model_itself_gives_the_answer(case):
    model, images, expected = load(case)
    name = "logits" if metadata(model).config.num_classes else "pre_logits"
    _assert_close(name, model(images), expected[name])


@pytest.mark.parametrize("case", [case for case in CASES if "attention_0" in np.load(GOLDENS / case / "io.npz")])
def test_attention_equals_the_reference(case):
    model, images, expected = load(case)
    maps = attention_maps(model, images)
    names = [name for name in expected if name.startswith("attention_")]
    assert len(names) == len(maps)
    for name in names:
        _assert_close(name, maps[name.replace("attention_", "encoder_block_")], expected[name])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_runner_asks_for_no_head_of_a_model_without_classes(num_classes):
    config = vit(distillation_token=True, num_classes=num_classes)
    names = stages(config, {"family": "vit"})
    assert {"logits", "logits_cls", "logits_dist"} & set(names) == (
        {"logits", "logits_cls", "logits_dist"} if num_classes else set()
    )
    assert features(build_model(config), sorted(set(names.values()))) is not None


@pytest.mark.parametrize(
    ("family", "difference", "expected"),
    [
        ("vit", 1e-5, ([], [])),
        ("vit", 4e-5, (["logits"], [])),
        ("swin_v2", 1e-5, ([], [])),
        ("swin_v2", 4e-5, ([], ["logits"])),
        ("swin_v2", 4e-4, (["logits"], [])),
    ],
)
def test_the_runner_says_where_the_limits_of_the_readme_are_not_met(family, difference, expected):
    logits = np.zeros((1, 2), "float32")
    assert compare({"logits": logits + difference}, {"logits": logits}, family)[1:] == expected


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (None, (["pre_logits"], ["block_1"])),
        (1e-5, ([], ["pre_logits"])),
        (1e-4, (["block_1 from its input"], ["pre_logits"])),
    ],
)
def test_a_chain_is_held_to_wider_limits_where_every_link_is_held_to_the_usual_ones(link, expected):
    zeros = np.zeros((1, 2), "float32")
    io = {"pre_logits": zeros, "block_1": zeros}
    links = link and {"block_1": zeros + np.float32(link), "pre_logits": zeros}
    ours = {name: zeros + np.float32(2e-4) for name in io}
    assert compare(ours, io, "swin_v2", links)[1:] == expected


@pytest.mark.parametrize(
    ("computed", "stored", "failed"),
    [
        (("logits", "tokens"), ("logits", "tokens", "patch_embedding"), []),
        (("pre_logits", "tokens"), ("logits", "tokens"), ["logits not computed"]),
        (("logits", "block_0"), ("logits", "block_0", "block_1"), ["block_1 not computed"]),
        (("logits",), ("logits", "attention_0"), ["attention_0 not computed"]),
        (("block_0", "logits"), ("block_0",), ["nothing to compare"]),
    ],
)
def test_the_runner_passes_over_nothing_that_a_case_holds(computed, stored, failed):
    ours, io = ({name: np.zeros((1, 2), "float32") for name in names} for names in (computed, stored))
    assert compare(ours, io)[1] == failed


@pytest.mark.parametrize("case", ["timm/vit_token_nonsquare", "microsoft/swin"])
def test_the_runner_compares_attention(case, tmp_path):
    lines = []
    shutil.copytree(GOLDENS / case, tmp_path / case)
    io = read_case(case)[1]
    last = max(name for name in io if name.startswith("attention_"))
    for change in (0, 1e-3):
        np.savez(tmp_path / case / "io.npz", **{**io, last: io[last] + np.float32(change)})
        assert run(tmp_path, log=lines.append) == int(change > 0)
    assert f"FAIL {last}" in lines[-2]


def test_the_runner_tells_good_from_bad_and_writes_what_it_computed(tmp_path):
    for name, case in (("good", "torchvision/vit_legacy_mlp_keys"), ("bad", "torchvision/vit_legacy_mlp_keys")):
        folder = tmp_path / "in" / "source" / name
        folder.mkdir(parents=True)
        for file in (GOLDENS / case).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    description = json.loads((tmp_path / "in/source/bad/config.json").read_text())
    (tmp_path / "in/source/bad/config.json").write_text(json.dumps(description | {"gelu": "tanh"}))
    (tmp_path / "in/source/broken").mkdir()
    (tmp_path / "in/source/broken/checkpoint.safetensors").write_bytes(b"no")
    (tmp_path / "in/source/broken/io.npz").write_bytes(b"no")
    (tmp_path / "in/beside").mkdir()
    lines = []
    assert run(tmp_path / "in", tmp_path / "out", lines.append) == 2
    text = "\n".join(lines)
    assert re.search(r"source/good .*logits \d\.\de-0\d.*pass", text)
    assert re.search(r"source/bad .*FAIL .*logits", text)
    assert re.search(r"source/broken .*FAIL", text)
    assert re.search(r"beside +other", text)
    with np.load(tmp_path / "out/source/good.npz") as arrays:
        assert set(arrays) == {"logits", "pre_logits", "tokens"}
