"""Measures how faithful explanations are, on photographs with a shape pasted into them.

    python benchmarks/faithfulness.py --photographs FOLDER --backbone FOLDER_OR_NAME --to faithfulness.json

A pretrained backbone gets a linear head, on the class token and the mean of the patches, that tells which of four
shapes is in a photograph. Other photographs than those of its training are explained with each method; the deletion
and insertion curves and the pointing game tell whether the maps show what the model uses.
"""

import argparse
import json
import pathlib
import platform
import time

import keras
import numpy as np
from PIL import Image, ImageDraw

import keras_vit
from keras_vit import interpret
from keras_vit.interpret import plots

SHAPES = ("circle", "square", "triangle", "cross")
_COLORS = ((230, 60, 40), (40, 90, 230), (250, 210, 40), (60, 180, 80))


def draw_shape(picture, name, center, radius, color):
    """Draws a shape and returns its mask, a bool array `(height, width)`."""
    x, y = center
    mask = Image.new("L", picture.size)
    third = radius / 3
    outlines = {
        "square": [
            [(x - radius, y - radius), (x + radius, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        ],
        "triangle": [[(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]],
        "cross": [
            [(x - third, y - radius), (x + third, y - radius), (x + third, y + radius), (x - third, y + radius)],
            [(x - radius, y - third), (x + radius, y - third), (x + radius, y + third), (x - radius, y + third)],
        ],
    }
    for target, fill in ((ImageDraw.Draw(picture), color), (ImageDraw.Draw(mask), 255)):
        if name == "circle":
            target.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        for outline in outlines.get(name, ()):
            target.polygon(outline, fill=fill)
    return np.asarray(mask) > 0


def paste(photographs, count, size, random):
    """Pastes one random shape into each of `count` crops of photographs.

    Returns:
        uint8 images `(count, size, size, 3)`, labels `(count,)` and masks `(count, size, size)`.
    """
    images, labels, masks = [], [], []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        side = min(photograph.size)
        left, top = (random.integers(0, whole - side + 1) for whole in photograph.size)
        picture = photograph.crop((left, top, left + side, top + side)).resize((size, size), Image.BICUBIC)
        if random.random() < 0.5:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        label = int(random.integers(len(SHAPES)))
        radius = random.uniform(0.11, 0.17) * size
        center = tuple(random.uniform(radius, size - radius, 2))
        color = _COLORS[random.integers(len(_COLORS))]
        masks.append(draw_shape(picture, SHAPES[label], center, radius, color))
        images.append(np.asarray(picture))
        labels.append(label)
    return np.stack(images), np.array(labels), np.stack(masks)


def add_head(backbone, images, labels, holdout):
    """Trains a linear head on a frozen backbone.

    Returns:
        The classifier, and the part of the images from `holdout` on that it gets right.
    """
    from sklearn.linear_model import LogisticRegression

    representation = backbone.predict(images, batch_size=16, verbose=0)
    probe = LogisticRegression(C=1.0, max_iter=2000).fit(representation[:holdout], labels[:holdout])
    accuracy = float(probe.score(representation[holdout:], labels[holdout:]))
    head = keras.layers.Dense(len(SHAPES), name="shapes")
    model = keras.Model(backbone.input, head(backbone.output), name="shapes")
    head.set_weights([probe.coef_.T, probe.intercept_])
    return model, accuracy


def methods(steps):
    """Dict from names of methods to functions from a model, images, classes and a grid to maps on that grid."""
    return {
        "relevance": lambda model, x, classes, grid: interpret.relevance(model, x, classes),
        "grad_cam": lambda model, x, classes, grid: interpret.grad_cam(model, x, classes),
        "integrated_gradients": lambda model, x, classes, grid: interpret.pixel_heat_map(
            interpret.integrated_gradients(model, x, classes, steps=steps), grid
        ),
        "smooth_grad": lambda model, x, classes, grid: interpret.pixel_heat_map(
            interpret.smooth_grad(model, x, classes, steps=steps), grid
        ),
        "rollout": lambda model, x, classes, grid: interpret.rollout(model, x),
        "random": lambda model, x, classes, grid: np.random.default_rng(0).random((len(x), *grid)),
    }


def measure(model, images, labels, masks, steps):
    """Rows of the table: for each method the areas below both curves, the pointing game and the time of an image.

    Times are those of batches of eight images, as the library explains them, after one that is not counted; the first
    of them also builds what the method needs.
    """
    grid = keras_vit.metadata(model).config.grid_size
    forward = _seconds(lambda: [model(images[i : i + 8], training=False) for i in range(0, len(images), 8)]) / len(
        images
    )
    rows = {}
    for name, explain in methods(steps).items():
        explain(model, images[:8], labels[:8], grid)
        seconds = _seconds(lambda explain=explain: explain(model, images, labels, grid)) / len(images)
        maps = explain(model, images, labels, grid)
        curves = [
            function(model, images, maps, labels, steps=10)["auc"].mean()
            for function in (interpret.deletion_curve, interpret.insertion_curve)
        ]
        rows[name] = {
            "deletion_auc": round(float(curves[0]), 4),
            "insertion_auc": round(float(curves[1]), 4),
            "pointing_game": round(float(interpret.pointing_game(maps, masks).mean()), 4),
            "seconds_an_image": round(seconds, 4),
            "forward_passes": round(seconds / forward, 1),
        }
        print(name, rows[name], flush=True)
    return rows, forward


def draw(model, pixels, labels, folder, steps):
    """Draws each image with its heat maps, and the views of the model, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    content = keras_vit.metadata(model)
    images, grid = content.input_spec.normalize(pixels), content.config.grid_size
    maps = {name: explain(model, images, labels, grid) for name, explain in methods(steps).items()}
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        shown = {name.replace("_", " "): heat_maps[i] for name, heat_maps in maps.items()}
        plots.heat_map_figure(image, shown, SHAPES[label]).savefig(folder / f"explained_{i}.png", dpi=80)
    (last,) = interpret.attention_maps(model, images, blocks=-1).values()
    figures = {
        "heads": plots.attention_heads_figure(pixels[0], last[0], grid, title="heads of the last block"),
        "positions": plots.positions_figure(interpret.position_similarity(model)),
        "filters": plots.filters_figure(interpret.patch_filters(model)),
        "distance": plots.distance_figure(interpret.attention_distance(model, images)),
        "pca": plots.pca_figure(pixels, interpret.token_pca(model, images)),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)


def _seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main(arguments=None):
    """Trains the head, measures all methods and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", required=True, help="folder of JPEG files")
    parser.add_argument("--backbone", required=True, help="name, file or folder of a Vision Transformer")
    parser.add_argument("--size", type=int, default=140, help="pixels (default 140)")
    parser.add_argument("--train", type=int, default=640, help="images with shapes to train the head on")
    parser.add_argument("--images", type=int, default=32, help="images to explain")
    parser.add_argument("--steps", type=int, default=16, help="steps of the gradients of pixels (default 16)")
    parser.add_argument(
        "--figures", type=pathlib.Path, metavar="DIR", help="also draw four of the images, and the model"
    )
    parser.add_argument("--to", help="JSON file")
    options = parser.parse_args(arguments)
    files = sorted(
        path for path in pathlib.Path(options.photographs).iterdir() if path.suffix.lower() in (".jpg", ".jpeg")
    )
    photographs = [Image.open(path).convert("RGB") for path in files]
    random, split = np.random.default_rng(0), len(photographs) * 3 // 5
    train = paste(photographs[:split], options.train, options.size, random)
    test = paste(photographs[split:], 4 * options.images, options.size, random)
    backbone = keras_vit.load_model(options.backbone, image_size=options.size, num_classes=0, pooling="token_gap")
    spec = keras_vit.metadata(backbone).input_spec
    images, labels = (np.concatenate(pair) for pair in zip(train[:2], test[:2], strict=True))
    model, accuracy = add_head(backbone, spec.normalize(images), labels, options.train)
    print(f"accuracy of the head on {4 * options.images} held-out images: {accuracy:.3f}", flush=True)
    held_out = spec.normalize(test[0])
    is_right = model.predict(held_out, batch_size=16, verbose=0).argmax(axis=1) == test[1]
    chosen = np.flatnonzero(is_right)[: options.images]
    if options.figures:
        draw(model, test[0][chosen[:4]], test[1][chosen[:4]], options.figures, options.steps)
    rows, forward = measure(model, np.asarray(held_out)[chosen], test[1][chosen], test[2][chosen], options.steps)
    record = {
        "program": "benchmarks/faithfulness.py",
        "backbone": pathlib.Path(options.backbone).name,
        "image_size": options.size,
        "classes": list(SHAPES),
        "images": len(chosen),
        "training_images": options.train,
        "accuracy": round(accuracy, 4),
        "object_area": round(float(test[2][chosen].mean()), 4),
        "seconds_a_forward_pass": round(forward, 4),
        "steps_of_pixel_gradients": options.steps,
        "methods": rows,
        "versions": {
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "keras_vit": keras_vit.__version__,
        },
        "hardware": platform.processor() or platform.machine(),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.to:
        pathlib.Path(options.to).write_text(text + "\n")


if __name__ == "__main__":
    main()
