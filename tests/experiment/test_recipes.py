"""Every recipe, with a tiny model and synthetic data, from the file to the evaluation."""

import numpy as np
import pytest
from PIL import Image

from keras_vit.config import apply_overrides
from keras_vit.config.files import list_recipes, load_recipe, load_recipe_module
from keras_vit.experiment import runner as experiment
from keras_vit.models import ConvNetConfig, SwinConfig, forward_flops
from keras_vit.training import write_json

tfds = pytest.importorskip("tensorflow_datasets")

# One of every kind in the fast suite: fused crops of large files with a teacher, and small images in memory.
FAST = ("deit_tiny_distilled_i1k", "linear_probe")
# Nothing but the size of the model, which `tiny` replaces, tells them from another recipe.


def tiny(recipe):
    """The smoke recipe with a model that compiles quickly."""
    recipe = recipe.smoke()
    if isinstance(recipe.model, SwinConfig):
        model = ["depths=(1,1)", "num_heads=(2,2)", "embed_dim=16"]
    elif isinstance(recipe.model, ConvNetConfig):
        model = ["widths=(8,8)", "depths=(0,1)"]
    else:
        model = ["num_layers=1", "hidden_dim=32", "num_heads=2", "mlp_dim=32"]
        model += ["pre_logits_dim=32"] if recipe.model.pre_logits_dim else []
    masking = ["masking.decoder_dim=16", "masking.decoder_layers=1", "masking.decoder_heads=2"] * bool(recipe.masking)
    data = []
    if recipe.data.tfrecords:  # There is no mock of such files.
        data = ["tfrecords=None", "name=imagenet2012", "num_classes=None", "multi_label=false"]
    if recipe.segmentation:  # The masks of a mock are noise, whose labels are no classes.
        data = ["name=synthetic"]
    settings = [f"model.{setting}" for setting in model] + [f"data.{setting}" for setting in data] + masking
    return apply_overrides(recipe, settings)


def _marks(name):
    return [] if name in FAST else [pytest.mark.long]


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in list_recipes()])
def test_a_recipe_runs_from_its_file_to_its_evaluation(name, tmp_path):
    recipe = tiny(load_recipe(name))
    with tfds.testing.mock_data(num_examples=16):
        finished = experiment.run(recipe, tmp_path, log=lambda text: None)
    (epoch,) = finished.record["epochs"]
    assert 0 < epoch["loss"] < 20
    assert finished.record["config"]["augment"] == recipe.to_dict()["augment"]
    assert finished.evaluation["examples"] == 16
    assert (tmp_path / "model.keras").exists()


def test_the_networks_of_the_comparison_have_the_same_arithmetic():
    flops = {name: forward_flops(config) for name, config in load_recipe_module("cnn_vs_vit").MODELS.items()}
    assert max(flops.values()) < 1.08 * min(flops.values())


@pytest.mark.parametrize("percent", [1, 3, 10, 30, 100])
def test_every_point_of_the_comparison_sees_the_same_images(percent):
    module = load_recipe_module(f"cnn_vs_vit:model=cnn,percent={percent},seed=3")
    recipe, steps = module.recipe, 50_000 * percent // 100 // 100
    assert (recipe.name, recipe.training.seed) == (f"cnn_vs_vit_cnn_{percent}", 3)
    assert recipe.data.train_fraction == percent / 100
    assert recipe.training.epochs * steps * recipe.data.batch_size == pytest.approx(module.SEEN_IMAGES, rel=0.1)
    taught = load_recipe(f"cnn_vs_vit:model=deit,percent={percent},seed=3")
    assert taught.distillation.teacher == f"runs/{recipe.name}/seed3"


def test_the_comparison_is_drawn_from_its_records(tmp_path):
    for percent, accuracy in ((1, 0.3), (100, 0.7)):
        write_json(tmp_path / f"cnn_vs_vit_vit_{percent}" / "2026-01-01-seed0.json", {"test_accuracy": accuracy})
    load_recipe_module("cnn_vs_vit").draw(tmp_path, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50
