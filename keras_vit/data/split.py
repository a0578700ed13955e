"""What a source gives: decoded images in memory."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels in memory.

    Args:
        images: uint8 array `(examples, height, width, channels)`.
        labels: int64 array `(examples,)`, or float32 multi-hot rows `(examples, classes)`.
        weights: float32 array `(examples,)`, the weight of every example in the loss, or `None`.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, examples):
        """A part of the split, by a slice or an index array."""
        weights = None if self.weights is None else self.weights[examples]
        return Split(self.images[examples], self.labels[examples], weights)

    def example(self, input_spec):
        """The first uint8 image, and its label."""
        return self.images[0], self.labels[0]

    def divide(self, fraction):
        """`(the rest, a part drawn at random)`, every class as far as possible with its share.

        The draw is the same in every run. Multi-hot rows are drawn without regard to their classes.

        Raises:
            ValueError: if one of the two would be empty.
        """
        part = drawn_part(self.labels, fraction)
        return self[~part], self[part]


def drawn_part(labels, fraction):
    """A bool array that marks `fraction` of the examples, drawn at random with a constant seed, class by class.

    Args:
        labels: int array `(examples,)`, or rows, which are drawn without regard to classes.
        fraction: float in (0, 1).

    Returns:
        bool array `(examples,)`.

    Raises:
        ValueError: if all examples or none are drawn.
    """
    count = round(len(labels) * fraction)
    if not 0 < count < len(labels):
        raise ValueError(
            f"a part and its rest must both hold an image. Received: fraction={fraction} of {len(labels)} images"
        )
    generator = np.random.default_rng(0)
    order = generator.permutation(len(labels))
    if labels.ndim == 1:
        # Every example's place within its class, as a share, then the smallest shares: each class gives its part.
        shares = np.empty(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            shares[members] = (np.arange(len(members)) + generator.random()) / len(members)
        order = np.argsort(shares, kind="stable")
    part = np.zeros(len(labels), bool)
    part[order[:count]] = True
    return part
