"""Recipes that follow their weights: model, preprocessing, origin and license."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy
from tiny import CONFIG, tiny_vit

import keras_vit
from keras_vit.config import DataConfig, Recipe, apply_overrides
from keras_vit.config.files import load_recipe
from keras_vit.config.from_weights import complete_from_weights
from keras_vit.models import build_model, vit_config
from keras_vit.preprocessing import InputSpec
from keras_vit.training import initial_model
from keras_vit.weights.publish.push import license_of
from keras_vit.zoo.create import describe_model

SPEC = InputSpec((16, 24), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
DATA = DataConfig(name="synthetic", num_classes=5, batch_size=2)
BASE = "vit_base_patch16_224.augreg_in21k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint, its description and its license, and a `.keras` file of the same model."""
    folder = tmp_path_factory.mktemp("weights")
    model = build_model(CONFIG.replace(num_classes=3), SPEC, ("a", "b", "c"), name="tiny")
    keras_vit.save_pretrained(model, folder, license_id="cc-by-nc-4.0")
    keras_vit.load_model(folder).save(folder / "tiny.keras")
    return folder


@pytest.mark.parametrize("name", ["", "model.safetensors", "tiny.keras"])
def test_model_preprocessing_origin_and_license_follow_the_weights(folder, name):
    recipe = complete_from_weights(Recipe(name="mine", weights=str(folder / name), data=DATA)).for_data(5, 3)
    assert recipe.model == CONFIG.replace(num_classes=5)
    assert recipe.input_spec == SPEC
    with pytest.warns(UserWarning, match="the head is new"):
        content = keras_vit.metadata(initial_model(recipe, list("vwxyz")))
    assert (content.labels, content.license) == (tuple("vwxyz"), "cc-by-nc-4.0")
    assert content.origin is not None


def test_fields_of_a_recipe_win_over_the_weights(folder):
    settings = ["model.image_size=32", "model.drop_path_rate=0.1", "input_spec.mean=(0,0,0)"]
    recipe = apply_overrides(Recipe(name="mine", weights=str(folder), data=DATA), settings)
    assert recipe.model == {"image_size": 32, "drop_path_rate": 0.1}
    recipe = complete_from_weights(recipe)
    assert recipe.model == CONFIG.replace(image_size=32, drop_path_rate=0.1)
    assert recipe.input_spec == SPEC.replace(size=32, mean=(0, 0, 0))
    with pytest.raises(ValueError, match=r"Did you mean 'drop_path_rate'\?.*drop_path=0.1"):
        complete_from_weights(
            apply_overrides(Recipe(name="mine", weights=str(folder), data=DATA), ["model.drop_path=0.1"])
        )


def test_a_mean_of_the_channels_is_that_of_gray_images(folder):
    recipe = complete_from_weights(Recipe(name="mine", weights=str(folder), data=DATA)).for_data(5, 1)
    assert (recipe.input_spec.mean, recipe.input_spec.std) == (pytest.approx((0.5,)), pytest.approx((0.3,)))


@pytest.mark.parametrize("name", ["finetune", "finetune_adamw", "linear_probe"])
def test_recipes_follow_other_weights_but_where_they_differ_from_their_own(folder, name):
    recipe = load_recipe(name)
    assert complete_from_weights(recipe) == recipe
    other = "vit_small_patch16_224.augreg_in21k_ft_in1k"
    followed = complete_from_weights(apply_overrides(recipe, [f"weights={other}"]))
    kept = ("image_size", "drop_path_rate", "position_resize", "patch_size")
    assert (followed.model.hidden_dim, followed.model.num_heads) == (384, 6)
    assert [getattr(followed.model, field) for field in kept] == [getattr(recipe.model, field) for field in kept]
    assert (followed.input_spec.crop_fraction, followed.input_spec.interpolation) == (
        recipe.input_spec.crop_fraction,
        recipe.input_spec.interpolation,
    )
    spec = complete_from_weights(apply_overrides(recipe, [f"weights={folder}", "model.image_size=(16,24)"])).input_spec
    assert (spec.mean, spec.std) == (SPEC.mean, SPEC.std)


def test_an_image_size_is_cut_to_the_patches_of_other_weights():
    recipe = load_recipe("finetune")
    with pytest.warns(UserWarning, match=r"\(378, 378\) instead of \(384, 384\)"):
        recipe = apply_overrides(recipe, ["weights=vit_base_patch14_dinov2.lvd142m"])
    assert complete_from_weights(recipe).model.image_size == (378, 378)


def test_weights_of_another_architecture_are_one_line_that_names_the_fields(folder):
    recipe = Recipe(name="mine", model=vit_config("tiny"), weights=BASE, data=DATA)
    for attempt in (complete_from_weights, Recipe.smoke, initial_model):
        with pytest.raises(ValueError, match=r"Set model.hidden_dim=768 \(is 192\), model.num_heads=12") as raised:
            attempt(recipe)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 400
    with pytest.raises(ValueError, match=r"a ViTConfig for a SwinConfig"):
        complete_from_weights(load_recipe("swin_cifar10").replace(weights=str(folder)))


def test_weights_whose_meaning_differs_are_warned_of(folder):
    recipe = Recipe(name="mine", weights=str(folder), data=DATA, input_spec=InputSpec((16, 24)), model={})
    with pytest.warns(UserWarning, match=r"\(0.4, 0.5, 0.6\).*the recipe has \(\(0.5"):
        initial_model(recipe)


def test_a_recipe_without_weights_needs_a_model():
    for model in (None, {"image_size": 32}):
        with pytest.raises(ValueError, match=r"model must be a config.*weights=None"):
            Recipe(name="mine", model=model, data=DATA)


def test_smoke_loads_files_and_fails_where_there_are_none(folder, tmp_path):
    recipe = Recipe(name="mine", weights=str(folder), data=DATA).smoke()
    assert recipe.weights == str(folder)
    assert recipe.model == CONFIG.replace(num_classes=3)
    # Published weights would have to be downloaded: they must fit, that is all.
    assert Recipe(name="mine", weights=BASE, data=DATA).smoke().weights is None
    with pytest.raises(ValueError, match=r"weights must be.*nowhere"):
        Recipe(name="mine", weights=str(tmp_path / "nowhere"), data=DATA).smoke()


def test_published_weights_are_described_without_a_download():
    content = describe_model(BASE)
    assert (content.origin, content.license) == (BASE, "apache-2.0")
    assert content.config.hidden_dim == 768


@pytest.mark.parametrize("origin", ["vit_base_patch16_224.mae", None])
def test_the_license_of_the_weights_travels_with_the_model(origin, tmp_path):
    """Through `.keras`, a checkpoint and a card, which exports ask too; published weights are looked up."""
    model = tiny_vit(origin=origin)
    if origin is None:
        keras_vit.update_metadata(model, license="cc-by-nc-4.0")
    model.save(tmp_path / "model.keras")
    loaded = keras_vit.load_model(tmp_path)
    keras_vit.save_pretrained(loaded, tmp_path / "pretrained")
    assert "license: cc-by-nc-4.0" in (tmp_path / "pretrained" / "README.md").read_text()
    again = keras_vit.from_checkpoint(tmp_path / "pretrained")
    assert keras_vit.metadata(again).license == "cc-by-nc-4.0"
    keras_vit.save_weights(again, tmp_path / "alone" / "x.safetensors")
    alone = keras_vit.from_checkpoint(tmp_path / "alone" / "x.safetensors")
    assert keras_vit.metadata(alone).license == "cc-by-nc-4.0"
    assert license_of(keras_vit.metadata(alone)) == "cc-by-nc-4.0"


def test_the_license_is_read_off_the_card_beside_a_checkpoint(tmp_path):
    keras_vit.save_pretrained(tiny_vit(), tmp_path)
    assert keras_vit.metadata(keras_vit.from_checkpoint(tmp_path)).license is None
    (tmp_path / "README.md").write_text("---\nlibrary_name: x\nlicense: 'cc-by-nc-4.0'\n---\nlicense: none\n")
    assert keras_vit.metadata(keras_vit.from_checkpoint(tmp_path)).license == "cc-by-nc-4.0"
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "license": "mit"}))
    keras_vit.save_weights(tiny_vit(), tmp_path / "model.npz", layout="google")
    assert keras_vit.metadata(keras_vit.from_checkpoint(tmp_path / "model.npz", num_heads=2)).license == "mit"


def test_a_validation_split_is_trained_to_and_the_test_set_is_not(tmp_path):
    from keras_vit.data import load_source, train_and_evaluation

    images = np.zeros((12, 8, 8, 3), "uint8")
    splits = {
        f"{axis}_{name}": (images if axis == "x" else np.arange(12) % 2)[:count]
        for name, count in (("train", 12), ("val", 6), ("test", 4))
        for axis in "xy"
    }
    np.savez(tmp_path / "set.npz", **splits)
    config = DataConfig(arrays=str(tmp_path / "set.npz"), validation_split="val")
    train, judge, name = train_and_evaluation(load_source(config), config, InputSpec(8))
    assert (len(train), len(judge), name) == (12, 6, "validation")
    with pytest.raises(ValueError, match=r"validation_fraction=0\.1"):
        DataConfig(name="digits", validation_split="val", validation_fraction=0.1)


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """A checkpoint of two models that differ, with a key too many and without the final norm."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.safetensors"
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    one = {f"first.{key}": value for key, value in tensors.items() if not key.startswith("norm.")}
    two = {f"second.{key}": value[..., :1] for key, value in tensors.items() if not key.startswith("head.")}
    safetensors.numpy.save_file({**one, **two, "first.ema_step": np.zeros(1, "float32")}, path)
    (path.parent / "config.json").write_text((folder / "config.json").read_text())
    return path


CHOICE = {"weights_skip": ("ema_step",), "weights_new": ("^encoder_norm/",), "weights_prefix": "first"}


def test_a_recipe_chooses_what_is_taken_of_a_file(folder, mixed):
    recipe = Recipe(name="mine", weights=str(mixed), data=DATA, **CHOICE)
    recipe = complete_from_weights(recipe).for_data(3, 3)
    with pytest.warns(UserWarning, match="left as in the model, by weights_new=: encoder_norm/beta, encoder_norm/"):
        model = initial_model(recipe)
    expected = keras_vit.load_model(folder)
    ours, theirs = (m.get_layer("encoder_block_0").weights for m in (model, expected))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_choice_of_keys_can_be_set(mixed):
    base = Recipe(name="mine", model=CONFIG, data=DATA)
    settings = [f"weights={mixed}", "weights_skip=ema_step", "weights_new=('^encoder_norm/',)", "weights_prefix=first"]
    recipe = apply_overrides(base, settings)
    assert {name: getattr(recipe, name) for name in CHOICE} == CHOICE
    # It is of this file and no other.
    again = recipe.with_weights(BASE)
    assert (again.weights_skip, again.weights_new, again.weights_prefix) == ((), (), None)
    assert complete_from_weights(recipe).smoke().weights_prefix == "first"
    smoke = again.smoke()
    assert (smoke.weights, smoke.weights_prefix) == (None, None)


@pytest.mark.parametrize("left_out", ["weights_skip", "weights_new", "weights_prefix"])
def test_errors_of_a_recipe_advise_its_own_fields(mixed, left_out):
    choice = {name: value for name, value in CHOICE.items() if name != left_out}
    with pytest.raises(ValueError, match=rf"{left_out}=") as error:
        initial_model(
            complete_from_weights(Recipe(name="mine", weights=str(mixed), data=DATA, **choice)).for_data(3, 3)
        )
    assert not re.search(r"(?<![_\w])(skip|new|prefix)=", str(error.value))


@pytest.mark.parametrize("choice", [{"weights_skip": "a"}, {"weights_skip": ["("]}, {"weights_new": (1,)}])
def test_a_choice_of_keys_is_of_patterns(choice):
    with pytest.raises(ValueError, match=f"{next(iter(choice))}= must be a list of regular expressions"):
        Recipe(name="mine", weights="x.safetensors", data=DATA, **choice)
    with pytest.raises(ValueError, match="weights_skip, weights_new and weights_prefix"):
        Recipe(name="mine", model=CONFIG, data=DATA, weights_prefix="first")


def test_weights_of_a_keras_file_are_those_of_its_model(folder):
    weights = str(folder / "tiny.keras")
    recipe = apply_overrides(Recipe(name="mine", weights=weights, data=DATA), ["model.image_size=32"])
    with pytest.warns(UserWarning, match=r"^tiny\.keras: positions of the grid"):
        model = initial_model(complete_from_weights(recipe).for_data(3, 3))
    with pytest.warns(UserWarning, match="positions of the grid"):
        expected = keras_vit.load_model(folder, image_size=32)
    assert all(np.array_equal(a, b) for a, b in zip(model.weights, expected.weights, strict=True))


def test_a_trained_model_names_no_folder_of_this_machine(mixed):
    recipe = Recipe(name="mine", weights=str(mixed), data=DATA, **CHOICE)
    with pytest.warns(UserWarning, match="new="):
        model = initial_model(complete_from_weights(recipe).for_data(3, 3))
    assert keras_vit.metadata(model).origin == "mixed.safetensors"
