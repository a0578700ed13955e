"""What fewer bits cost: a servable beside the same model in float32."""

import numpy as np
import tensorflow as tf
from PIL import Image

_COUNT = 16
_BATCH = 8


def fixed_pixels(input_spec, count=_COUNT):
    """Smooth random images, the same in every run: they tell how far outputs move, not how accurate a model is.

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


def measure_difference(servable, reference, pixels):
    """How the outputs of a servable differ from those of a model in float32.

    Args:
        servable: `Servable`.
        reference: `keras.Model` of the same classes.
        pixels: uint8 array `(n, *input_spec.size, channels)`.

    Returns:
        Dict: `images`, their number; `outputs_max` and `outputs_mean`, the largest and the mean absolute difference, as
        parts of the largest output of the reference; of classifiers also `probabilities_max` and `top1_agreement`, the
        part of the images with the same best class.
    """
    run, normalised = servable.runner(servable.model), servable.input_spec.normalize(pixels)
    batches = [normalised[i : i + _BATCH] for i in range(0, len(normalised), _BATCH)]
    ours = np.concatenate([run(batch).numpy() for batch in batches])
    theirs = np.concatenate([np.asarray(reference(batch, training=False), "float32") for batch in batches])
    difference = np.abs(ours - theirs) / np.abs(theirs).max()
    found = {
        "images": len(pixels),
        "outputs_max": float(difference.max()),
        "outputs_mean": float(difference.mean()),
    }
    if servable.is_classifier:
        probabilities = [servable.class_probabilities(tf.constant(outputs)).numpy() for outputs in (ours, theirs)]
        found["probabilities_max"] = float(np.abs(probabilities[0] - probabilities[1]).max())
        found["top1_agreement"] = float(np.mean(np.equal(*(p.argmax(1) for p in probabilities))))
    return found
