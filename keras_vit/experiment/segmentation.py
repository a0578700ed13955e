"""Evaluates a trained segmentation on whole images, and saves its report and a figure of masks."""

import itertools

from keras_vit.data.sources.masks import checked_examples
from keras_vit.evaluation.segmentation import Segmenter, evaluate_segmentation, mask_figure
from keras_vit.training.reports import run_record as record

REPORT_FILE, FIGURE_FILE = "report.json", "masks.png"
_NUM_SHOWN = 6


def evaluate_masks(model, recipe, split):
    """Measures a segmentation model over every image of a split, at the resolution of the images.

    Every worker of several computes the same.

    Args:
        model: the trained `keras.Model`.
        recipe: `Recipe` with `segmentation`. Its `training.evaluation_steps` batches are evaluated, or all.
        split: split of images and masks.

    Returns:
        A dict, as `keras_vit.evaluation.evaluate_segmentation`.

    Raises:
        ValueError: as there, and if an image or a mask is unreadable and not skipped.
    """
    steps, settings = recipe.training.evaluation_steps, recipe.segmentation
    limit = steps and steps * recipe.data.batch_size
    pairs = ((image, mask) for _, image, mask in itertools.islice(_examples(recipe, split), limit))
    return evaluate_segmentation(model, pairs, settings.ignore_label, settings.window_stride)


def _examples(recipe, split):
    return checked_examples(split, recipe.model.num_classes, recipe.data, recipe.segmentation, recipe.input_spec)


def save_masks(model, recipe, splits, evaluation, context):
    """Saves `report.json`, and `masks.png` with some images, their masks and the predicted ones.

    Args:
        model: the trained `keras.Model`.
        recipe: `Recipe` with `segmentation`.
        splits: `keras_vit.experiment.datasets.Splits`.
        evaluation: dict of `evaluate_masks` with the `split`.
        context: `RunContext`.
    """
    settings = recipe.segmentation
    segmenter = Segmenter(model, settings.window_stride)
    majority = max(row["pixels"] for row in evaluation["classes"]) / max(evaluation["pixels"], 1)
    # What a model that always gives the most frequent class reaches, which has the IoU of that class and no other.
    occurring = sum(row["pixels"] > 0 for row in evaluation["classes"])
    baseline = {"name": "most frequent class", "accuracy": majority, "mean_iou": majority / max(occurring, 1)}
    report = {**evaluation, "baseline": baseline}
    record.write_json(context.directory / REPORT_FILE, report)
    for row in evaluation["classes"]:
        if row["iou"] is not None:
            context.log(f"{row['name']}: IoU {row['iou']:.4f}, {row['pixels']:,} pixels")
    rows = [
        (image, mask, segmenter(image))
        for _, image, mask in itertools.islice(_examples(recipe, splits.evaluation), _NUM_SHOWN)
    ]
    try:
        figure = mask_figure(rows, segmenter.class_names, settings.ignore_label)
    except ImportError as error:
        context.log(f"no figure of masks: {error}")
        return
    figure.savefig(context.directory / FIGURE_FILE, dpi=100)
