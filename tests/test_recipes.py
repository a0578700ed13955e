"""Every recipe, with a tiny model and invented data, from the file to the evaluation."""

import numpy as np
import pytest
from PIL import Image

from keras_vit import experiment
from keras_vit.models import ConvNetConfig, SwinConfig, forward_flops
from keras_vit.recipe_files import list_recipes, load_recipe
from keras_vit.training import apply_overrides, make_schedule, write_json

tfds = pytest.importorskip("tensorflow_datasets")

# One of every kind in the fast suite: fused crops of large files with a teacher, and small images in memory.
FAST = ("deit_tiny_distilled_i1k", "vit_lite_cifar10")
# Nothing but the size of the model, which `tiny` replaces, tells them from another recipe.
SIZES = ("deit3_base_i1k", "deit_base_i1k", "deit_base_distilled_i1k", "deit_small_i1k", "deit_small_distilled_i1k")


def tiny(recipe):
    """The smoke recipe with a model that compiles quickly."""
    if isinstance(recipe.model, SwinConfig):
        model = ["depths=(1,1)", "num_heads=(2,2)", "embed_dim=16"]
    elif isinstance(recipe.model, ConvNetConfig):
        model = ["widths=(8,8)", "depths=(0,1)"]
    else:
        model = ["num_layers=1", "hidden_dim=32", "num_heads=2", "mlp_dim=32"]
        model += ["pre_logits_dim=32"] if recipe.model.pre_logits_dim else []
    data = []
    if recipe.data.tfrecords:  # There is no mock of such files.
        data = ["tfrecords=None", "name=imagenet2012", "num_classes=None", "multi_label=false"]
    settings = [f"model.{setting}" for setting in model] + [f"data.{setting}" for setting in data]
    return apply_overrides(recipe.smoke(), settings)


def _marks(name):
    return [] if name in FAST else [pytest.mark.long] if name in SIZES else [pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in list_recipes()])
def test_a_recipe_runs_from_its_file_to_its_evaluation(name, tmp_path):
    recipe = tiny(load_recipe(name).recipe)
    with tfds.testing.mock_data(num_examples=16):
        finished = experiment.run(recipe, tmp_path, log=lambda text: None)
    (epoch,) = finished.record["epochs"]
    assert 0 < epoch["loss"] < 20
    assert finished.record["config"]["augment"] == recipe.to_dict()["augment"]
    assert finished.evaluation["examples"] == 16
    assert (tmp_path / "model.keras").exists()


def test_the_networks_of_the_comparison_have_the_same_arithmetic():
    flops = {name: forward_flops(config) for name, config in load_recipe("cnn_vs_vit").MODELS.items()}
    assert max(flops.values()) < 1.08 * min(flops.values())


@pytest.mark.parametrize("percent", [1, 3, 10, 30, 100])
def test_every_point_of_the_comparison_sees_the_same_images(percent):
    module = load_recipe(f"cnn_vs_vit:model=cnn,percent={percent},seed=3")
    recipe, steps = module.recipe, 50_000 * percent // 100 // 100
    assert (recipe.name, recipe.training.seed) == (f"cnn_vs_vit_cnn_{percent}", 3)
    assert recipe.data.train_fraction == percent / 100
    assert recipe.training.epochs * steps * recipe.data.batch_size == pytest.approx(module.SEEN_IMAGES, rel=0.1)
    taught = load_recipe(f"cnn_vs_vit:model=deit,percent={percent},seed=3").recipe
    assert taught.distillation.teacher == f"runs/{recipe.name}/seed3"


def test_the_comparison_is_drawn_from_its_records(tmp_path):
    for percent, accuracy in ((1, 0.3), (100, 0.7)):
        write_json(tmp_path / f"cnn_vs_vit_vit_{percent}" / "2026-01-01-seed0.json", {"test_accuracy": accuracy})
    load_recipe("cnn_vs_vit").draw(tmp_path, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 50


IMAGENET = 1_281_167
# recipe: epochs, batch, peak, first and last learning rate, decay, whether it is independent, clipping, drop path.
PUBLISHED = {
    "vit_s16_i1k": (90, 1024, 1e-3, 0, 0, 1e-4, True, 1.0, 0),
    "vit_augreg_i1k": (300, 4096, 1e-3, 0, 0, 1e-4, True, 1.0, 0),
    "deit_tiny_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit_small_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit_base_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit_tiny_distilled_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit_small_distilled_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit_base_distilled_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, None, 0.1),
    "deit3_small_i1k": (800, 2048, 4e-3, 1e-6, 1e-5, 0.05, False, 1.0, 0.05),
    "deit3_base_i1k": (800, 2048, 3e-3, 1e-6, 1e-5, 0.05, False, 1.0, 0.2),
    "swin_tiny_i1k": (300, 1024, 1e-3, 1e-6, 1e-5, 0.05, False, 5.0, 0.2),
    "finetune_adamw": (100, 1024, 2e-3, 0, 1e-6, 0.05, False, None, 0.1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_settings(name):
    """As in docs: big_vision's and AugReg's configs, DeiT's and Swin's `main.py`, MAE's `FINETUNE.md`."""
    epochs, batch, peak, first, last, decay, independent, clip, drop_path = PUBLISHED[name]
    recipe = load_recipe(name).recipe
    settings, steps = recipe.optimizer, IMAGENET // batch
    assert (recipe.training.epochs, recipe.data.batch_size) == (epochs, batch)
    assert (settings.weight_decay, settings.independent_decay, settings.clip_norm) == (decay, independent, clip)
    assert recipe.model.drop_path_rate == drop_path
    schedule, found = make_schedule(settings, steps, epochs, batch)
    assert found == pytest.approx(peak)
    assert float(schedule(0)) == pytest.approx(first, abs=1e-9)
    # The last step of a cosine is one step before its end, and DeiT's last epoch has the rate of the one before.
    assert float(schedule(steps * epochs - 1)) == pytest.approx(last, abs=1e-7 + 2e-4 * peak)
    warmup = settings.warmup_steps or round(settings.warmup_epochs * steps)
    assert float(schedule(warmup + steps)) == pytest.approx(peak, rel=2e-2)
    assert float(schedule(warmup // 2)) < 0.6 * peak


@pytest.mark.parametrize(
    ("name", "mixing"),
    [
        ("vit_s16_i1k", (0.2, 0, "randaugment(2, 10)", 0)),
        ("vit_augreg_i1k:size=small,level=strong2", (0.8, 0, "randaugment(2, 20)", 0)),
        ("deit_base_i1k", (0.8, 1.0, "rand-m9-mstd0.5-inc1", 0.25)),
        ("swin_tiny_i1k", (0.8, 1.0, "rand-m9-mstd0.5-inc1", 0.25)),
        ("deit3_base_i1k", (0.8, 1.0, "three_augment", 0)),
    ],
)
def test_a_recipe_changes_images_as_published(name, mixing):
    augment = load_recipe(name).recipe.augment
    assert (augment.mixup, augment.cutmix, augment.policy, augment.erasing) == mixing
