"""Checkpoints of any model: out and in again bit for bit, and one damaged key is an error that names it."""

import dataclasses
import functools
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from random_configs import SWINS, VITS, examples, swin, swin_configs, vit, vit_configs

import keras_vit
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.weights import LAYOUTS, from_checkpoint, load_weights, save_weights
from keras_vit.weights.detect import detect_layout, layout_to_write
from keras_vit.weights.files import open_checkpoint
from keras_vit.weights.layout import expand, weights_by_path
from keras_vit.weights.save import to_tensors

# Layouts whose files may have the keys of another one: where the model has nothing of what tells them apart.
SAME_KEYS = {"deit": {"timm"}, "dinov2": {"timm"}, "google": {"big_vision"}, "microsoft": {"timm"}}
# Fields that no layout tells.
UNTOLD = {
    "layer_norm_epsilon",
    "position_resize",
    "pre_logits_activation",
    "classifier_activation",
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
    "drop_path_schedule",
    "window_rule",
    "window_size",
}
# The constants of a Swin Transformer's graph, which are made anew.
BUFFERS = r"\.(relative_position_index|attn_mask|relative_coords_table)$"


def _inexact(config):
    first = _widths(config, config.mlp_ratio)[0] / config.embed_dim
    return _widths(config, first) != _widths(config, config.mlp_ratio)


# What does not come back yet: which configs, and one of them. The random ones stay clear of these.
DEFECTS = {
    "timm: a token behind which the norm comes is read as a mean": (
        lambda c: isinstance(c, ViTConfig) and c.pooling == "token" and c.pool_before_norm,
        vit(pool_before_norm=True),
    ),
    "timm: attention pooling with a norm behind it is read as a mean": (
        lambda c: isinstance(c, ViTConfig) and c.pooling == "map" and c.pool_before_norm,
        vit(pooling="map", pool_before_norm=True),
    ),
    "google, big_vision: a mean beside a class token is read as the class token": (
        lambda c: isinstance(c, ViTConfig) and c.pooling == "gap" and c.class_token and not c.pool_before_norm,
        vit(pooling="gap"),
    ),
    "huggingface: without a head token_gap is read as token": (
        lambda c: isinstance(c, ViTConfig) and c.pooling == "token_gap" and not c.num_classes,
        vit(pooling="token_gap", layer_scale_init=1.0, num_classes=0),
    ),
    "huggingface: with pre_logits token_gap is read as token": (
        lambda c: isinstance(c, ViTConfig) and c.pooling == "token_gap" and c.pre_logits_dim,
        vit(pooling="token_gap", layer_scale_init=1.0, pre_logits_dim=7),
    ),
    "swin: missing biases are not read off the file": (
        lambda c: isinstance(c, SwinConfig) and not c.qkv_bias,
        swin(qkv_bias=False),
    ),
    "swin: SwiGLU is not read off the file": (
        lambda c: isinstance(c, SwinConfig) and c.activation == "swiglu",
        swin(activation="swiglu"),
    ),
    "swin: an mlp_ratio that gives no whole number is read off the first stage": (
        lambda c: isinstance(c, SwinConfig) and _inexact(c),
        swin(mlp_ratio=1.7),
    ),
}


def _sound(config):
    return not any(concerns(config) for concerns, _ in DEFECTS.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


@functools.lru_cache(maxsize=64)
def _model(config):
    """A model and the random weights that belong in it, by path."""
    model, generator = build_model(config), np.random.default_rng(0)
    shapes = {path: variable.shape for path, variable in weights_by_path(model).items()}
    return model, {path: generator.normal(size=shape).astype("float32") for path, shape in shapes.items()}


def _fill(model, weights):
    for path, variable in weights_by_path(model).items():
        variable.assign(weights[path])


def _forget(model):
    for variable in weights_by_path(model).values():
        variable.assign(np.full(variable.shape, 7, "float32"))


def _assert_holds(model, weights):
    variables = weights_by_path(model)
    assert set(variables) == set(weights)
    for path, value in weights.items():
        assert np.asarray(variables[path]).tobytes() == value.tobytes(), path


def _error(function, *arguments, **keywords):
    """What a `ValueError` says, or `None` if there is none."""
    try:
        function(*arguments, **keywords)
    except ValueError as error:
        return str(error)
    return None


def _written(model, layout, folder):
    """The path of the model in a layout, or `None` where it is refused: with the reason, and nothing is written."""
    path = folder / f"{layout}.{'npz' if layout in ('google', 'big_vision') else 'safetensors'}"
    path.unlink(missing_ok=True)
    error = _error(save_weights, model, path, layout)
    if error is None:
        return path
    reason = r"cannot hold this model. Received: '\w+'; \w+|has no Swin Transformers|has Swin Transformers alone"
    assert re.search(reason, error)
    assert not path.exists()
    return None


def _arrays(path):
    checkpoint = open_checkpoint(path)
    return {key: checkpoint[key] for key in checkpoint}


def _told(config):
    """What keys and shapes tell of a config, as far as it changes the model."""
    fields = {name: value for name, value in config.get_config().items() if name not in UNTOLD}
    fields["activation"] = "swiglu" if config.activation == "swiglu" else "another"
    if isinstance(config, SwinConfig):
        # Windows are never larger than the grid, and widths are ints.
        fields["mlp_ratio"] = _widths(config, config.mlp_ratio)
        return fields | {"windows": config.windows, "shifts": config.shifts}
    fields["layer_scale_init"] = config.layer_scale_init is not None
    if config.position_embedding == "sincos2d" or not (config.class_token or config.distillation_token):
        fields["position_on_prefix"] = False  # no entry, or zeros
    return fields


def _widths(config, mlp_ratio):
    return [int(width * mlp_ratio) for width in config.hidden_dims]


def _hints(config, layout):
    """What a file in this layout cannot tell."""
    if isinstance(config, SwinConfig):
        names = ["image_size", "window_size", "window_rule", "pretrained_window_sizes"]
        return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    hints = {} if layout in ("google", "big_vision") else {"num_heads": config.num_heads}
    if config.grid_size[0] != config.grid_size[1] or config.position_embedding != "learned":
        hints["image_size"] = config.image_size
    return hints


def _check_round_trips(config, folder):
    model, weights = _model(config)
    _fill(model, weights)
    first = None
    for layout in LAYOUTS:
        path = _written(model, layout, folder)
        if path is None:
            continue
        found = detect_layout(open_checkpoint(path)).name
        assert found == layout or found in SAME_KEYS.get(layout, ())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _forget(model)
            report = load_weights(model, path)
            _assert_holds(model, weights)
            again = from_checkpoint(path, **_hints(config, layout))
        assert report.new == report.skipped == report.replaced == report.notes == ()
        assert all(re.search(BUFFERS, key) for key in report.unmodelled)
        _assert_holds(again, weights)
        assert _told(keras_vit.metadata(again).config) == _told(config), layout
        # Every further layout lies between two times of the first one.
        if first is None:
            first = layout, {key: value.tobytes() for key, value in _arrays(path).items()}
        else:
            back = _arrays(_written(again, first[0], folder))
            assert {key: value.tobytes() for key, value in back.items()} == first[1]


@given(vit_configs().filter(_sound))
@examples(40, 1500)
def test_a_vit_in_every_layout_comes_back_or_is_refused(folder, config):
    _check_round_trips(config, folder)


@given(swin_configs().filter(_sound))
@examples(25, 600)
def test_a_swin_in_every_layout_comes_back_or_is_refused(folder, config):
    _check_round_trips(config, folder)


@pytest.mark.parametrize("config", [pytest.param(c, id=name) for name, (_, c) in DEFECTS.items()])
@pytest.mark.xfail(strict=True, reason="known defects, see DEFECTS")
def test_what_does_not_come_back_yet(folder, config):
    _check_round_trips(config, folder)


taken_for_another = pytest.mark.xfail(strict=True, reason="without what tells it apart it is taken for another layout")


@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("deit", vit()),
        ("timm", vit()),
        ("microsoft", swin()),
        pytest.param("dinov2", vit(layer_scale_init=1.0), marks=taken_for_another),
        pytest.param("google", vit(**VITS["sincos2d"]), marks=taken_for_another),
        pytest.param(
            "microsoft", swin(depths=(2,), num_heads=(2,), num_classes=0, image_size=16), marks=taken_for_another
        ),
    ],
)
def test_a_file_is_taken_for_the_layout_that_wrote_it(layout, config, folder):
    model, weights = _model(config)
    _fill(model, weights)
    path = _written(model, layout, folder)
    _forget(model)
    load_weights(model, path, layout)
    _assert_holds(model, weights)


STACKED = "big_vision, stacked"  # all blocks in one array, as `nn.scan` leaves them


@functools.cache
def _files(layout):
    """`{family: (config, arrays by key, paths of ours by key)}` of all families that a layout holds."""
    found = {}
    for family, make in (*((name, vit) for name in VITS), *((name, swin) for name in SWINS)):
        config = make(**{**VITS, **SWINS}[family])
        model, weights = _model(config)
        _fill(model, weights)
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
# Tables of another grid and kernels of another number of channels are adapted, with a warning.
ADAPTED = ("patch_encoder/position_embedding", "patch_encoder/projection/kernel")


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


@pytest.mark.parametrize("layout", [*LAYOUTS, STACKED])
@given(data=st.data())
@examples(50, 1500)
def test_one_damaged_key_is_named(layout, folder, data):
    files = _files(layout)
    config, tensors, ours = files[data.draw(st.sampled_from(sorted(files)), "family")]
    key = data.draw(st.sampled_from(sorted(ours)), "key")
    damage = data.draw(st.sampled_from(list(_DAMAGES)), "damage")
    damaged = _damage(tensors, key, damage)
    if damaged is None:
        return
    path = _write(folder, damaged)
    model, _ = _model(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = _error(load_weights, model, path)
    if error is not None:
        undetected = key not in damaged and "the keys of a checkpoint must be of one of the layouts" in error
        assert undetected or _names(error, key, ours[key]), error
        return
    assert ours[key][0] in ADAPTED
    assert any(" of the grid " in str(w.message) or " channels are adapted" in str(w.message) for w in caught)


# Keys whose absence means another model: no file tells that they once were there.
OPTIONAL = {
    "patch_encoder/class_token",
    "patch_encoder/distillation_token",
    "patch_encoder/register_tokens",
    "patch_encoder/position_embedding",
    "patch_encoder/projection/bias",
}


@pytest.mark.parametrize("layout", [*LAYOUTS, STACKED])
@given(data=st.data())
@examples(15, 500)
def test_a_dropped_key_is_noticed_even_if_the_architecture_is_read_off_the_file(layout, folder, data):
    files = _files(layout)
    config, tensors, ours = files[data.draw(st.sampled_from(sorted(files)), "family")]
    keys = [key for key in ours if not OPTIONAL & set(ours[key]) and not _is_head(ours[key])]
    key = data.draw(st.sampled_from(sorted(keys)), "key")
    path = _write(folder, _damage(tensors, key, "dropped"))
    with pytest.raises(ValueError):
        from_checkpoint(path, **_hints(config, layout))


def _is_head(ours):
    return ours[0].startswith(("head/", "head_dist/"))


@pytest.mark.xfail(
    strict=True, reason="the number of classes is read off one half of a head; the other is then left away"
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_a_head_is_an_error(layout, folder):
    config, tensors, ours = next(found for found in _files(layout).values() if found[0].num_classes)
    for key in (key for key in ours if _is_head(ours[key])):
        error = _error(from_checkpoint, _write(folder, _damage(tensors, key, "dropped")), **_hints(config, layout))
        assert error is not None, key
        assert _names(error, key, ours[key])


@pytest.mark.parametrize("layout", ["microsoft", "huggingface"])
@pytest.mark.parametrize("family", ["swin", "swin v2"])
def test_constants_of_the_graph_may_be_missing(family, layout, folder):
    config, tensors, ours = _files(layout)[family]
    path = _write(folder, {key: value for key, value in tensors.items() if key in ours})
    assert set(tensors) - set(ours)
    assert all(re.search(BUFFERS, key) for key in set(tensors) - set(ours))
    model, weights = _model(config)
    _forget(model)
    assert load_weights(model, path).unmodelled == ()
    _assert_holds(model, weights)
