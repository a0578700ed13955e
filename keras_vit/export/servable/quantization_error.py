"""Output error of a reduced-precision export."""

import numpy as np
import tensorflow as tf
from PIL import Image

_IMAGES = 16
_BATCH_SIZE = 8


def synthetic_pixels(input_spec, count=_IMAGES):
    """Makes smooth random images, the same in every run: they measure changes of outputs, not accuracy.

    Args:
        input_spec: `InputSpec`.
        count: int. Default 16.

    Returns:
        uint8 array `(count, *input_spec.size, channels)`.
    """
    (height, width), rng = input_spec.size, np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, input_spec.num_channels, 7, 7), dtype="uint8")
    smooth = [[Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC) for c in image] for image in coarse]
    return np.stack([np.stack([np.asarray(c) for c in image], -1) for image in smooth])


def quantization_error(servable, reference, pixels):
    """Measures how the outputs of a servable differ from those of a float32 model.

    Args:
        servable: `Servable`.
        reference: `keras.Model` of the same classes.
        pixels: uint8 array `(n, *input_spec.size, channels)`.

    Returns:
        Dict: `images`, their number; `outputs_max` and `outputs_mean`, the largest and the mean absolute difference,
        relative to the largest output of the reference; for classifiers also `probabilities_max` and
        `top1_agreement`, the fraction of images with the same best class.
    """
    run, images = servable.runner(servable.model), servable.options.input_spec.normalize(pixels)
    batches = [images[i : i + _BATCH_SIZE] for i in range(0, len(images), _BATCH_SIZE)]
    outputs = np.concatenate([run(batch).numpy() for batch in batches])
    expected = np.concatenate([np.asarray(reference(batch, training=False), "float32") for batch in batches])
    difference = np.abs(outputs - expected) / np.abs(expected).max()
    errors = {
        "images": len(pixels),
        "outputs_max": float(difference.max()),
        "outputs_mean": float(difference.mean()),
    }
    if servable.is_classifier:
        probabilities = [servable.class_probabilities(tf.constant(logits)).numpy() for logits in (outputs, expected)]
        errors["probabilities_max"] = float(np.abs(probabilities[0] - probabilities[1]).max())
        errors["top1_agreement"] = float(np.mean(np.equal(*(p.argmax(1) for p in probabilities))))
    return errors
