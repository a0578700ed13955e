"""The catalog of published weights, and models by its names."""

import dataclasses

import numpy as np
import pytest
from huggingface_hub import constants
from parameter_counts import GOLDEN, count, count_swin
from tiny import randomize
from weight_server import serving

import keras_vit
from keras_vit.models import VARIANTS, SwinConfig, build_model
from keras_vit.weights import LAYOUTS, catalog_entry, find_entries
from keras_vit.weights.hub.catalog import catalog, imagenet_ids, read_labels
from keras_vit.weights.layouts.detect import layout_to_write

NAME = "deit_tiny_distilled_patch16_224.fb_in1k"
# The families that a user of the library comes for.
PATTERNS = (
    *("vit_tiny_patch16_224.augreg_in21k*", "vit_small_patch16_384.augreg_in21k_ft_in1k"),
    *("vit_large_patch16_224.augreg_in21k", "vit_base_patch16_224.orig_in21k*", "vit_base_r50_s16_384.orig_*"),
    *("deit_base_distilled_patch16_384.fb_in1k", "deit3_huge_patch14_224.fb_in22k_ft_in1k"),
    *("swin_base_patch4_window12_384.ms_in22k_ft_in1k", "swinv2_large_window12to24_192to384.ms_in22k_ft_in1k"),
    *("vit_giant_patch14_reg4_dinov2.lvd142m", "vit_small_patch14_dinov2.lvd142m_lc_in1k"),
    *("vit_so400m_patch14_siglip_384.webli", "vit_large_patch16_siglip_512.v2_webli"),
    *("vit_large_patch14_clip_quickgelu_336.openai", "vit_base_patch16_clip_224.laion2b"),
    *("vit_small_patch16_224.bv_in1k_90ep", "vit_base_patch16_224.mae", "vit_small_patch8_224.dino"),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_main_checkpoints_are_there(pattern):
    assert find_entries(pattern)


@pytest.mark.parametrize("name", find_entries())
def test_an_entry_agrees_with_itself(name):
    entry = catalog_entry(name)
    config = entry.config()
    assert entry.architecture in VARIANTS
    assert entry.parameters == (count_swin if isinstance(config, SwinConfig) else count)(config)
    assert entry.size == 4 * entry.parameters
    assert entry.input_spec.size == config.image_size
    labels = entry.labels_for(config)
    assert labels is None or len(labels) == config.num_classes
    assert (labels is None) == (entry.labels is None)
    assert entry.layout in LAYOUTS
    assert layout_to_write(entry.layout, config).refuses(config) is None
    assert (entry.top1 is None) == (entry.top1_source is None)
    assert entry.top1 is None or (50 < entry.top1 < 90 and config.num_classes == 1000)
    assert entry.license
    assert entry.paper.startswith("arXiv:")
    assert entry.source.startswith(("hub:", "https://"))


def test_entries_of_unchanged_architectures_have_their_golden_count():
    same = [e for e in catalog().values() if e.config() == VARIANTS[e.architecture]]
    assert len(same) > 80
    assert all(entry.parameters == GOLDEN[entry.architecture] for entry in same)


def test_labels():
    names, ids = read_labels("imagenet1k"), imagenet_ids()
    assert (len(names), len(ids), ids[0], names[0]) == (1000, 1000, "n01440764", "tench, Tinca tinca")
    assert list(ids) == sorted(ids)
    google, microsoft = read_labels("imagenet21k"), read_labels("imagenet22k")
    assert (len(google), len(microsoft)) == (21843, 21841)
    assert set(microsoft) < set(google)
    assert set(ids) - set(google) == {"n04399382"}  # the teddy, which has another id in the large set


def test_unknown_names_help():
    with pytest.raises(ValueError, match=r"Its tags: fb_in1k. Received: name='deit_tiny_patch16_224.x'"):
        catalog_entry("deit_tiny_patch16_224.x")
    with pytest.raises(ValueError, match=r"Did you mean 'deit_tiny_patch16_224.fb_in1k'"):
        catalog_entry("deit_tini_patch16_224.fb_in1k")


def test_other_channels_have_the_mean_of_the_colors():
    entry = catalog_entry(NAME)
    spec = entry.input_spec_for(entry.config(num_channels=1, image_size=(32, 64)))
    assert spec.size == (32, 64)
    np.testing.assert_allclose((spec.mean[0], spec.std[0]), (0.449, 0.226), atol=1e-9)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file with random weights where the published one would be, on a server, and the model that it holds."""
    folder = tmp_path_factory.mktemp("published")
    model = keras_vit.create_model(NAME.split(".")[0])
    randomize(model)
    keras_vit.save_weights(model, folder / "model.safetensors", layout="timm")
    content = (folder / "model.safetensors").read_bytes()
    with serving({f"timm/{NAME}/model.safetensors": content}) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setenv("HF_ENDPOINT", server.url)
        yield model, folder / "model.safetensors"


def test_a_name_with_a_tag_has_the_published_weights(published):
    images = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype("float32")
    model = keras_vit.create_model(NAME)
    content = keras_vit.metadata(model)
    np.testing.assert_array_equal(model(images), published[0](images))
    assert (content.origin, model.name) == (NAME, NAME.split(".")[0])
    assert (content.input_spec.mean, content.input_spec.crop_fraction) == ((0.485, 0.456, 0.406), 0.9)
    assert content.labels == read_labels("imagenet1k")


def test_a_tag_as_weights_and_another_head(published):
    with pytest.warns(UserWarning, match=r"positions of the grid .* the head is new: 3 classes"):
        model = keras_vit.DeiTTiny(weights="fb_in1k", num_classes=3, image_size=(64, 96))
    content = keras_vit.metadata(model)
    assert (content.labels, content.input_spec.size, model.output_shape) == (None, (64, 96), (None, 3))
    kernel = "encoder_block_3/mlp/dense_1/kernel"
    values = [next(w for w in m.weights if w.path == kernel) for m in (model, published[0])]
    np.testing.assert_array_equal(*values)


def test_a_file_of_ones_own_instead_of_the_download(published):
    model = keras_vit.create_model(NAME, weights=published[1], num_layers=12)
    np.testing.assert_array_equal(model.weights[0], published[0].weights[0])
    assert keras_vit.metadata(model).origin == f"{published[1]}, taken for {NAME}"


def test_functions_keep_what_the_weights_have(published):
    assert keras_vit.DeiTTiny(weights="fb_in1k").name == NAME.split(".")[0]
    model = keras_vit.DeiTTiny(weights=published[1].parent)  # a folder with a model.safetensors
    assert keras_vit.metadata(model).config == VARIANTS[NAME.split(".")[0]]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("vit_tiny_patch16_224", "augreg_in21"), r"Its tags: augreg_in21k, augreg_in21k_ft_in1k"),
        (("vit_tiny_patch16_224", "vit_tiny_patch16_224.x"), r"Its tags: .*Received: name='vit_tiny_patch16_224.x'"),
        ((NAME, "fb_in1k"), r"a name has one tag"),
        ((None,), r"name must be a str. Received: name=None"),
    ],
)
def test_misspelt_tags_name_those_that_there_are(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        keras_vit.create_model(*arguments)


def test_from_checkpoint_points_to_create_model():
    with pytest.raises(ValueError, match=r"loaded by name: keras_vit.create_model\('deit_tiny_distilled"):
        keras_vit.from_checkpoint(NAME)


def test_a_name_insists_on_its_distillation_token(published):
    with pytest.raises(ValueError, match=r"distillation_token=True for False"):
        keras_vit.create_model("deit_tiny_patch16_224", weights=published[1])


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2.lvd142m_lc_in1k", "vit_small_patch16_224.bv_in1k_90ep"])
def test_parameters_are_those_of_the_model(name):
    entry = catalog_entry(name)
    assert build_model(entry.config()).count_params() == entry.parameters


def test_an_entry_cannot_be_changed():
    with pytest.raises(TypeError):
        catalog_entry(NAME).fields["num_classes"] = 7


def test_the_revision_of_a_source():
    entry = catalog_entry(NAME)
    assert entry.revision == "main"
    pinned = dataclasses.replace(entry, source="hub:timm/a_model@0123abc/model.safetensors")
    assert pinned.revision == "0123abc"
    urls = [row for row in catalog().values() if not row.source.startswith("hub:")]
    assert urls
    assert all(row.revision is None for row in urls)
