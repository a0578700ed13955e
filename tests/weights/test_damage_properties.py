"""Checkpoints with one damaged key: an error that names it, whichever key of whichever layout it is."""

import dataclasses
import functools
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from random_configs import SWINS, VITS, examples, swin, vit
from random_models import BUFFERS, assert_holds, error_of, fill, forget, known_fields_of, model_and_weights, read

from keras_vit.weights import LAYOUTS, load_weights
from keras_vit.weights.layouts.base import expand
from keras_vit.weights.layouts.detect import layout_to_write
from keras_vit.weights.save import to_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


STACKED = "big_vision, stacked"  # all blocks in one array, as `nn.scan` leaves them


@functools.cache
def _files(layout):
    """`{family: (config, arrays by key, paths of ours by key)}` of all families that a layout holds."""
    found = {}
    for family, make in (*((name, vit) for name in VITS), *((name, swin) for name in SWINS)):
        config = make(**{**VITS, **SWINS}[family])
        model, weights = model_and_weights(config)
        fill(model, weights)
        try:
            writer = layout_to_write(layout.partition(",")[0], config)
            writer = dataclasses.replace(writer, stacked=True) if layout == STACKED else writer
            tensors = to_tensors(model, writer)
        except ValueError:
            continue
        ours = {}
        for item in expand(writer.table(config), config, weights):
            for key in item.theirs:
                stack = re.sub(r"encoderblock_\d+", "encoderblock", key)
                ours.setdefault(stack if layout == STACKED else key, []).extend(item.ours)
        found[family] = config, tensors, ours
    return found


# What each damage makes of an array; a change that leaves shape and values as they were is no damage.
_DAMAGES = {
    "dropped": lambda array: None,
    "renamed": lambda array: None,
    "transposed": lambda array: array.T,
    "rolled": lambda array: np.moveaxis(array, 0, -1) if array.ndim else array,
    "extra axis in front": lambda array: array[None],
    "extra axis behind": lambda array: array[..., None],
    "flat": lambda array: array.reshape(-1),
    "scalar": lambda array: np.array(array.reshape(-1)[0]),
    "one row more": lambda array: np.concatenate([array, array[:1]]) if array.ndim else array,
    "one column more": lambda array: np.concatenate([array, array[..., :1]], axis=-1) if array.ndim else array,
    "one row less": lambda array: array[1:] if array.ndim else array,
    "NaN": lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, np.float32("nan"), array),
    "infinite": lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, np.float32("inf"), array),
    "integers": lambda array: array.astype("int32"),
}
# Tables of another grid and kernels of another size or number of channels are adapted, with a warning.
ADAPTED = ("patch_encoder/position_embedding", "patch_encoder/projection/kernel", "stem_root/convolution/kernel")


def _damage(tensors, key, damage):
    """The tensors with one key damaged, or `None` where this damage would change nothing."""
    array = tensors[key]
    broken = _DAMAGES[damage](array)
    rest = {name: value for name, value in tensors.items() if name != key}
    if broken is None:
        return rest | ({f"{key}_of_another": array} if damage == "renamed" else {})
    if broken.shape == array.shape and broken.dtype == array.dtype and np.isfinite(broken).all():
        return None
    return rest | {key: broken}


def _write(folder, tensors):
    path = folder / "damaged.safetensors"
    safetensors.numpy.save_file({key: np.array(value, order="C") for key, value in tensors.items()}, path)
    return path


def _names(text, key, ours):
    """Whether a text has the key, the key of one of its blocks, or one of our paths."""
    names = [re.escape(name) for name in (key, *ours)]
    names = [name.replace("encoderblock/", r"encoderblock(_\d+)?/") for name in names]
    return any(re.search(rf"(?<![\w./]){name}(?![\w/]|\.\w)", text) for name in names)


def _is_head(ours):
    return ours[0].startswith(("head/", "head_dist/"))


@pytest.mark.parametrize("layout", ["timm", STACKED])
def test_scalars_are_an_error_that_names_them(layout, folder):
    config, tensors, ours = _files(layout)["map"]
    for key in (key for key in ours if _is_head(ours[key]) or "/encoderblock/" in key):
        error = error_of(load_weights, model_and_weights(config)[0], _write(folder, _damage(tensors, key, "scalar")))
        assert error is not None
        assert _names(error, key, ours[key]), error


@pytest.mark.parametrize("layout", [*LAYOUTS, STACKED])
@given(data=st.data())
@examples(50, 300)
def test_one_damaged_key_is_named(layout, folder, data):
    files = _files(layout)
    config, tensors, ours = files[data.draw(st.sampled_from(sorted(files)), "family")]
    key = data.draw(st.sampled_from(sorted(ours)), "key")
    damage = data.draw(st.sampled_from(list(_DAMAGES)), "damage")
    damaged = _damage(tensors, key, damage)
    if damaged is None:
        return
    path = _write(folder, damaged)
    model, _ = model_and_weights(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = error_of(load_weights, model, path)
    if error is not None:
        undetected = key not in damaged and "the keys of a checkpoint must be of one of the layouts" in error
        assert undetected or _names(error, key, ours[key]), error
        return
    said = " ".join(str(w.message) for w in caught)
    if damage == "flat" and re.search(r"(^|/)gn", key):  # as newer versions of Flax write them
        assert tensors[key].shape[:3] == (1, 1, 1)
        return
    if [key] == [name for name in ours if _is_head(ours[name])]:  # all that there is of a head: another one, or none
        assert "the head is new" in said
        return
    assert ours[key][0] in ADAPTED
    assert re.search(" of the grid | are resampled to | channels are adapted", said)


# Keys whose absence means another model: no file tells that they once were there.
OPTIONAL = {
    "patch_encoder/class_token",
    "patch_encoder/distillation_token",
    "patch_encoder/register_tokens",
}


@pytest.mark.parametrize("layout", [*LAYOUTS, STACKED])
@given(data=st.data())
@examples(10, 60)
def test_a_dropped_key_is_noticed_even_if_the_architecture_is_read_off_the_file(layout, folder, data):
    files = _files(layout)
    config, tensors, ours = files[data.draw(st.sampled_from(sorted(files)), "family")]
    keys = [key for key in ours if not OPTIONAL & set(ours[key]) and not _is_head(ours[key])]
    key = data.draw(st.sampled_from(sorted(keys)), "key")
    path = _write(folder, _damage(tensors, key, "dropped"))
    with pytest.raises(ValueError, match="Received: "):
        read(path, **known_fields_of(config, layout))


HEADS = [(layout, "swin" if layout == "microsoft" else "token") for layout in LAYOUTS if layout != "big_vision"]
HEADS += [("big_vision", "gap"), ("timm", "distilled"), ("huggingface", "distilled"), ("huggingface", "swin")]


@pytest.mark.parametrize(("layout", "family"), [*HEADS, ("huggingface", "dinov2, classifier"), ("timm", "swin v2")])
def test_half_a_head_is_an_error(layout, family, folder):
    config, tensors, ours = _files(layout)[family]
    heads = [key for key in ours if _is_head(ours[key])]
    assert len(heads) == (4 if family == "distilled" else 2)
    for key in heads:
        error = error_of(read, _write(folder, _damage(tensors, key, "dropped")), **known_fields_of(config, layout))
        assert error is not None, key
        assert _names(error, key, ours[key])


@pytest.mark.parametrize(
    ("layout", "key", "damage"),
    [
        ("timm", "patch_embed.proj.weight", "flat"),
        ("timm", "patch_embed.proj.weight", "extra axis in front"),
        ("timm", "pos_embed", "flat"),
        ("timm", "blocks.0.mlp.fc2.weight", "flat"),
        ("timm", "head.weight", "scalar"),
        ("timm", "patch_embed.proj.bias", "dropped"),
        ("google", "head/bias", "extra axis in front"),
        ("google", "embedding/kernel", "flat"),
        ("google", "Transformer/posembed_input/pos_embedding", "dropped"),
        ("torchvision", "encoder.pos_embedding", "scalar"),
        ("huggingface", "vit.embeddings.position_embeddings", "flat"),
        ("huggingface", "vit.encoder.layer.0.output.dense.weight", "scalar"),
    ],
)
def test_what_the_architecture_is_read_off_is_named_where_it_is_wrong(layout, key, damage, folder):
    config, tensors, ours = _files(layout)["token"]
    error = error_of(read, _write(folder, _damage(tensors, key, damage)), **known_fields_of(config, layout))
    assert error is not None
    assert _names(error, key, ours[key]), error


@pytest.mark.parametrize(
    ("layout", "family"),
    [*((layout, family) for layout in ("microsoft", "huggingface") for family in SWINS), ("dinov2", "dinov2")],
)
def test_constants_of_the_graph_may_be_missing(layout, family, folder):
    config, tensors, ours = _files(layout)[family]
    path = _write(folder, {key: value for key, value in tensors.items() if key in ours})
    assert set(tensors) - set(ours)
    assert all(re.search(BUFFERS, key) for key in set(tensors) - set(ours))
    model, weights = model_and_weights(config)
    forget(model)
    assert load_weights(model, path).ignored == ()
    assert_holds(model, weights)
