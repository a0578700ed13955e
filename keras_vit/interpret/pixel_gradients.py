"""Attributions of single pixels: integrated gradients and SmoothGrad."""

import numpy as np
from keras import ops

from keras_vit.backend.gradients import gradients
from keras_vit.backend.runtime import to_numpy
from keras_vit.interpret.class_scores import ClassScores
from keras_vit.interpret.taps import inner_images
from keras_vit.validation import check_positive, is_number


def integrated_gradients(model, images, classes=None, baseline=0.0, steps=32, batch_size=8):
    """Attributions of the pixels to a class, which add up to how much its score exceeds that of a baseline.

    The gradient is averaged along the straight line from the baseline to the image, by the Gauss-Legendre rule, and
    multiplied with the difference of both.

    Args:
        model: a model of any family with a classifier, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them.
        classes: number or name of a class, or one for each image; `None` for the best one.
        baseline: float or array that broadcasts to the images, normalized as they enter the Vision Transformer, behind
            layers that normalize pixels. Default 0: the mean color of the training images.
        steps: int. Gradients an image. Default 32.
        batch_size: int. Gradients computed together. Default 8.

    Returns:
        float32 array of the shape of the images as they enter the Vision Transformer. `pixel_heat_map` makes one
        number of the channels of a pixel.

    Raises:
        ValueError: if the model has no classes; if `steps` is not positive.
        RuntimeError: on a backend without gradients.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (arXiv:1703.01365), section 3; the
        rule of integration is the default of captum.
    """
    check_positive(steps, "steps")
    scores, images, numbers = _prepare(model, images, classes)
    baseline = np.broadcast_to(np.asarray(baseline, "float32"), images.shape)
    points, weights = np.polynomial.legendre.leggauss(steps)
    points, weights = (points + 1) / 2, weights / 2
    found = []
    for image, start, number in zip(images, baseline, numbers, strict=True):
        path = start + points[:, None, None, None].astype("float32") * (image - start)
        slopes = _image_gradients(scores, path, np.full(steps, number), batch_size)
        found.append((image - start) * np.tensordot(weights.astype("float32"), slopes, 1))
    return np.stack(found)


def smooth_grad(model, images, classes=None, noise=0.15, steps=32, seed=0, batch_size=8):
    """Gradients of a class' score with respect to the pixels, averaged over noisy copies of the image.

    Args:
        model, images, classes: as for `integrated_gradients`.
        noise: float. Standard deviation of the noise, as a part of the range of the image's values. Default 0.15.
        steps: int. Noisy copies of an image. Default 32.
        seed: int. Of the noise, which is the same for every image. Default 0.
        batch_size: int. Gradients computed together. Default 8.

    Returns:
        float32 array of the shape of the images as they enter the Vision Transformer.

    Raises:
        ValueError: if the model has no classes; if `steps` is not positive, or `noise` is negative.
        RuntimeError: on a backend without gradients.

    Source: Smilkov et al., "SmoothGrad" (arXiv:1706.03825), section 2.
    """
    check_positive(steps, "steps")
    if not is_number(noise) or noise < 0:
        raise ValueError(f"noise must be a number of at least 0. Received: noise={noise!r}")
    scores, images, numbers = _prepare(model, images, classes)
    unit = np.random.default_rng(seed).standard_normal((steps, *images.shape[1:]), dtype="float32")
    found = []
    for image, number in zip(images, numbers, strict=True):
        copies = image + noise * (image.max() - image.min()) * unit
        found.append(_image_gradients(scores, copies, np.full(steps, number), batch_size).mean(axis=0))
    return np.stack(found)


def pixel_heat_map(attributions, grid_size=None):
    """Makes heat maps of attributions: the sum over channels of their absolute values.

    Args:
        attributions: float array `(batch, height, width, channels)`.
        grid_size: `(h, w)` of the patches, over each of which the map is averaged, or `None`: of every pixel. Rows and
            columns at the end that fill no patch are left out.

    Returns:
        float32 array `(batch, height, width)` or `(batch, h, w)`.
    """
    maps = np.abs(attributions).sum(axis=-1)
    if grid_size is None:
        return maps
    height, width = grid_size
    rows, columns = maps.shape[1] // height, maps.shape[2] // width
    maps = maps[:, : rows * height, : columns * width].reshape(-1, height, rows, width, columns)
    return maps.mean(axis=(2, 4))


def _prepare(model, images, classes):
    scores = ClassScores(model)
    images = inner_images(scores.parts, images)
    if not len(images):
        raise ValueError("there must be at least one image. Received: 0 images")
    return scores, images, scores.numbers(classes, images)


def _image_gradients(scores, images, numbers, batch_size):
    """float32 array `(batch, height, width, channels)`: the gradients of the scores of classes."""
    core = scores.core
    scale = scores.gradient_scale
    found = []
    for start in range(0, len(images), batch_size):
        score = scores.score(numbers[start : start + batch_size])

        def run(x, score=score):
            return scale * ops.sum(score(core(x, training=False))), []

        _, (gradient,) = gradients(run, [images[start : start + batch_size]])
        found.append(to_numpy(gradient).astype("float32") / scale)
    return np.concatenate(found)
