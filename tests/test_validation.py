"""The shared checks."""

import pytest

from keras_vit.validation import as_pair, nearest


@pytest.mark.parametrize(("value", "pair"), [(3, (3, 3)), ((2, 5), (2, 5)), ([4, 1], (4, 1))])
def test_as_pair(value, pair):
    assert as_pair(value, "size") == pair


@pytest.mark.parametrize("value", [0, -2, True, 1.0, "ab", None, (1,), (1, 2, 3), (1, 0), (1, 2.0), (True, 2)])
def test_as_pair_refuses_the_rest(value):
    with pytest.raises(ValueError, match=r"size must be a positive int or a pair .* Received: size="):
        as_pair(value, "size")


def test_nearest_keeps_quiet_when_nothing_is_near():
    assert nearest("tokn", ["token", "gap"]) == ". Did you mean 'token'?"
    assert nearest("zzz", ["token", "gap"]) == "."


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("adamW", ["adam", "adamw"], "adamw"),
        ("IMAGE_SIZE", ["image_size"], "image_size"),
        ("img_size", ["image_size", "max_size"], "image_size"),
        ("lr", ["learning_rate", "layer_decay"], "learning_rate"),
        ("embed_dim", ["embed_dims", "hidden_dim"], "hidden_dim"),
        ("pretrained", ["drop_remainder"], None),
        ("swiglu", ["tanh", "relu"], None),
        ("vit_tiny", ["vit_small_patch16_224", "vit_tiny_patch16_224"], "vit_tiny_patch16_224"),
        ("v", ["vit_tiny_patch16_224"], None),
    ],
)
def test_nearest_knows_aliases_and_is_silent_below_a_likeness(name, known, expected):
    assert nearest(name, known) == ("." if expected is None else f". Did you mean {expected!r}?")
