"""Data efficiency of a convolutional network, a ViT and a distilled ViT on CIFAR-10.

The three models have about the same number of FLOPs, see the same number of images, and are trained on 1, 3, 10, 30 and
100 % of CIFAR-10's training images. Every point of the curve is a recipe:

    keras_vit train recipes/cnn_vs_vit.py:model=vit,percent=10 --set data.folder=path/to/cifar10 --record

Expected: convolutions help more with less data. Hardware: two CPU cores. To run all points, in about 45 minutes, and
plot all records:

    python recipes/cnn_vs_vit.py --folder path/to/cifar10

The distilled ViT has a distillation token, and its teacher is the network that was trained on the same images (as in
Touvron et al., arXiv:2012.12877), so that point needs the network's run. An interrupted run resumes; a point with a
record is not run again. The plot is `recipes/results/cnn_vs_vit.png`.
"""

import argparse
import dataclasses
import json
import subprocess
import sys

from keras_vit.config import AugmentConfig, DataConfig, DistillationConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import ConvNetConfig, ViTConfig
from keras_vit.preprocessing import InputSpec
from keras_vit.training.reports.run_record import RESULTS
from keras_vit.validation import check_choice

PERCENTS = (1, 3, 10, 30, 100)
NAMES = {"cnn": "convolutional network", "vit": "ViT", "deit": "ViT, distilled from the network"}
# Images of the training set of CIFAR-10, and images that every point sees, whatever its fraction: two epochs.
TRAINING_IMAGES, SEEN_IMAGES, BATCH = 50_000, 100_000, 100

_VIT = ViTConfig(
    image_size=32,
    patch_size=4,
    hidden_dim=96,
    num_layers=6,
    num_heads=3,
    mlp_dim=192,
    num_classes=10,
    class_token=False,
    pooling="gap",
)
MODELS = {
    # 32 to 35 million multiply-adds, see `keras_vit.models.forward_flops`.
    "cnn": ConvNetConfig(image_size=32, widths=(16, 32, 96), depths=(1, 1, 1), num_classes=10),
    "vit": _VIT,
    "deit": _VIT.replace(class_token=True, pooling="token", distillation_token=True),
}
_OPTIMIZERS = {
    "cnn": OptimizerConfig(
        name="sgd",
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        schedule="linear",
        # 5e-4 in PyTorch, whose SGD adds it to the gradient before a momentum of 0.9: multiplied by ten.
        weight_decay=5e-3,
    ),
    "vit": OptimizerConfig(learning_rate=1e-3, weight_decay=0.05, global_clipnorm=1.0),
}


def make_recipe(model="vit", percent="100", seed="0"):
    """Makes the recipe of one point: `model` is a key of `MODELS`, `percent` the fraction of the training set."""
    check_choice(model, MODELS, "model")
    percent, seed = int(percent), int(seed)
    steps = max(1, TRAINING_IMAGES * percent // 100 // BATCH)
    epochs = max(2, SEEN_IMAGES // BATCH // steps)
    teacher = f"runs/{_name('cnn', percent)}/seed{seed}"
    optimizer = _OPTIMIZERS["cnn" if model == "cnn" else "vit"]
    return Recipe(
        name=_name(model, percent),
        model=MODELS[model],
        input_spec=InputSpec(size=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        data=DataConfig(name="cifar10", batch_size=BATCH, train_fraction=percent / 100),
        augment=AugmentConfig(padding=4, padding_mode="reflect", flip=True),
        # The warm-up is a tenth of the run, however many epochs that is.
        optimizer=dataclasses.replace(optimizer, warmup_epochs=epochs / 10),
        training=TrainingConfig(epochs=epochs, label_smoothing=0.1, seed=seed),
        distillation=DistillationConfig(teacher=teacher) if model == "deit" else None,
    )


def _name(model, percent):
    return f"cnn_vs_vit_{model}_{percent}"


recipe = make_recipe()


def main():
    """Runs the points that have no record yet, then draws the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", help="folder with train/<class>/* and test/<class>/*; else TFDS' cifar10")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    for percent in PERCENTS:
        for model in MODELS:
            if list((RESULTS / _name(model, percent)).glob(f"*-seed{arguments.seed}.json")):
                continue
            print(f"{NAMES[model]}, {percent} %", flush=True)
            # One process per point, so that its record has the seconds of that point alone.
            point = f"{__file__}:model={model},percent={percent},seed={arguments.seed}"
            command = [sys.executable, "-m", "keras_vit_cli", "train", point, "--record", "--no-export"]
            folder = ["--set", f"data.folder={arguments.folder}"] if arguments.folder else []
            subprocess.run([*command, *folder], check=True)
    draw(RESULTS, RESULTS / "cnn_vs_vit.png")


def draw(results, path):
    """Plots the accuracy of all records over the fraction of the training set: points of seeds, a line of means."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), constrained_layout=True)
    for model, name in NAMES.items():
        accuracies = {p: _accuracies(results / _name(model, p)) for p in PERCENTS}
        accuracies = {percent: values for percent, values in accuracies.items() if values}
        if not accuracies:
            continue
        (line,) = axes.plot(list(accuracies), [sum(v) / len(v) for v in accuracies.values()], label=name)
        for percent, values in accuracies.items():
            axes.plot([percent] * len(values), values, "o", markersize=3, color=line.get_color())
    axes.set(xscale="log", xlabel="fraction of the training set, %", ylabel="test accuracy", title="CIFAR-10-JPEG")
    axes.set_xticks(PERCENTS, [str(percent) for percent in PERCENTS])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _accuracies(folder):
    return [json.loads(path.read_text())["test_accuracy"] for path in sorted(folder.glob("*.json"))]


if __name__ == "__main__":
    main()
