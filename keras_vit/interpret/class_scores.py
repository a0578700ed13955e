"""The class of an image that is explained: by number, by name, or the one that the model finds best."""

import functools
import numbers

import keras
import numpy as np
from keras import ops

from keras_vit.backend.runtime import to_numpy
from keras_vit.metadata import composed_metadata, composition
from keras_vit.outputs import class_names, describe_output
from keras_vit.validation import nearest

_BATCH = 32
_FLOAT16_SCALE = 1024.0


class ClassScores:
    """The scores of a classifier, by class.

    Args:
        model: a model of keras_vit with a classifier, or one built around such a model.

    Raises:
        ValueError: if the model has no classes.
    """

    def __init__(self, model):
        self.parts = composition(model)
        content = composed_metadata(self.parts)
        self.config = content.config
        self.config.check_one_size("explanations")
        found = describe_output(self.parts, self.config)
        if not found.has_head or found.units is None:
            raise ValueError(
                "an explanation of a class needs a model with a classifier; rollout, token_pca and cosine_map explain "
                f"the others. Received: model={model.name!r}"
            )
        self.units = found.units
        self.activation = found.activation
        self.names = [str(name) for name in class_names(content.labels, found.units)]
        self.has_labels = content.labels is not None

    @functools.cached_property
    def core(self):
        """`keras.Model` from the images that enter the inner model to one tensor `(batch, units)`."""
        (outputs,) = keras.tree.flatten(self.parts.outputs)
        return self.parts.core(outputs)

    @property
    def gradient_scale(self):
        """float. What scores are multiplied with, so that small gradients in float16 do not become zero."""
        policies = {getattr(layer, "compute_dtype", "float32") for layer in self.core.layers}
        return _FLOAT16_SCALE if "float16" in policies else 1.0

    def numbers(self, classes, images):
        """Numbers of the classes to explain, one an image.

        Args:
            classes: int or str for all images, a sequence with one of them for each, or `None`: the best class.
            images: array `(batch, height, width, channels)`, as they enter the inner model.

        Returns:
            int array `(batch,)`.

        Raises:
            ValueError: on an unknown class, with the nearest name; if there is not one for each image.
        """
        if classes is None:
            return self.best(images)
        single = isinstance(classes, str | numbers.Integral)
        classes = [classes] * len(images) if single else list(classes)
        if len(classes) != len(images):
            raise ValueError(
                f"classes must be one for all images or one an image. Received: {len(classes)} for {len(images)} images"
            )
        return np.array([self.number(name) for name in classes], "int64")

    def number(self, name):
        """The number of a class by its name, whatever the case, or its number, checked."""
        if isinstance(name, numbers.Integral) and not isinstance(name, bool):
            if 0 <= name < len(self.names):
                return int(name)
            raise ValueError(f"a class must be a number from 0 to {len(self.names) - 1}. Received: class={name!r}")
        if name in self.names:
            return self.names.index(name)
        folded = [known.lower() for known in self.names]
        if str(name).lower() in folded:
            return folded.index(str(name).lower())
        if not self.has_labels:
            raise ValueError(
                f"a model without labels knows its classes by number, 0 to {len(self.names) - 1}; name them with "
                f"keras_vit.update_metadata(model, labels=[...]). Received: class={name!r}"
            )
        raise ValueError(f"unknown class{nearest(name, self.names)} Received: class={name!r}")

    def outputs(self, images):
        """float32 array `(batch, units)`, the outputs for images as they enter the inner model."""
        outputs = [self.core(images[i : i + _BATCH], training=False) for i in range(0, len(images), _BATCH)]
        return np.concatenate([to_numpy(part).astype("float32") for part in outputs])

    def probabilities(self, images):
        """float32 array `(batch, classes)`: softmax of the outputs, of a single output both classes' probabilities."""
        outputs = self.outputs(images)
        if self.units == 1:
            second = outputs if self.activation else 1 / (1 + np.exp(-outputs))
            return np.concatenate([1 - second, second], axis=1)
        if self.activation:
            return outputs
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return outputs / outputs.sum(axis=1, keepdims=True)

    def best(self, images):
        """The number of the best class of each image."""
        outputs = self.outputs(images)
        if self.units > 1:
            return outputs.argmax(axis=1)
        return (outputs[:, 0] > (0.5 if self.activation else 0.0)).astype("int64")

    def score(self, classes):
        """The function whose gradient explains classes.

        Args:
            classes: int array `(batch,)`, or `None` for the best class of each image.

        Returns:
            A callable from outputs `(batch, units)` to the scores `(batch,)` of these classes. Of two classes with a
            single output the first one has its negative.
        """
        if classes is None:
            return self._best_score
        weights = np.zeros((len(classes), self.units), "float32")
        if self.units > 1:
            weights[np.arange(len(classes)), classes] = 1
        else:
            weights[:, 0] = np.where(np.asarray(classes) == 1, 1, -1)
        weights = ops.convert_to_tensor(weights)
        return lambda outputs: ops.sum(ops.cast(outputs, "float32") * weights, axis=-1)

    def _best_score(self, outputs):
        """The score of the best class of each image: saves the pass that would find it first."""
        outputs = ops.cast(outputs, "float32")
        if self.units > 1:
            return ops.sum(outputs * ops.one_hot(ops.argmax(outputs, axis=-1), self.units), axis=-1)
        is_second = outputs[:, 0] > (0.5 if self.activation else 0.0)
        return ops.where(is_second, outputs[:, 0], -outputs[:, 0])
