"""Arrays in memory: passed in, read from an `.npz` file, or scikit-learn's digits."""

import dataclasses
import pathlib

import numpy as np

from keras_vit.validation import nearest


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
        """Selects examples by a slice or an index array."""
        weights = None if self.weights is None else self.weights[examples]
        return Split(self.images[examples], self.labels[examples], weights)

    def example(self, input_spec):
        """Returns the first uint8 image and its label."""
        return self.images[0], self.labels[0]

    def divide(self, fraction):
        """Divides the split into `(rest, random subset)`, stratified by class; the same in every run.

        Raises:
            ValueError: if one of the two would be empty.
        """
        mask = stratified_mask(self.labels, fraction)
        return self[~mask], self[mask]


def stratified_mask(labels, fraction):
    """Marks a random `fraction` of the examples, stratified by class, with a constant seed.

    Args:
        labels: int array `(examples,)`, or multi-hot rows, which are not stratified.
        fraction: float in (0, 1).

    Returns:
        bool array `(examples,)`.

    Raises:
        ValueError: if all examples or none are marked.
    """
    count = round(len(labels) * fraction)
    if not 0 < count < len(labels):
        raise ValueError(
            f"both parts of a divided split need an image. Received: fraction={fraction} of {len(labels)} images"
        )
    generator = np.random.default_rng(0)
    order = generator.permutation(len(labels))
    if labels.ndim == 1:
        # Rank every example within its class, as a fraction, and take the lowest ranks: each class gives its share.
        ranks = np.empty(len(labels))
        for label in np.unique(labels):
            members = order[labels[order] == label]
            ranks[members] = (np.arange(len(members)) + generator.random()) / len(members)
        order = np.argsort(ranks, kind="stable")
    mask = np.zeros(len(labels), bool)
    mask[order[:count]] = True
    return mask


def read_npz(path):
    """Reads the splits of an `.npz` file, whose arrays are named as in Keras' own data sets.

    Args:
        path: path. `x_<split>` are the images, `y_<split>` the labels, `w_<split>` the optional weights.

    Returns:
        dict from the split's name to a tuple of arrays, as `array_source` expects it.

    Raises:
        ValueError: if there is no such file, or no split in it.
    """
    path = pathlib.Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ValueError(f"arrays must be a readable .npz file. Received: {str(path)!r} ({error})") from error
    names = [key[2:] for key in arrays if key.startswith("x_") and f"y_{key[2:]}" in arrays]
    if not names:
        raise ValueError(f"an .npz file must have x_<split> and y_<split>. Received: {str(path)!r} with {[*arrays]}")
    return {name: tuple(arrays[f"{k}_{name}"] for k in "xyw" if f"{k}_{name}" in arrays) for name in names}


def array_splits(splits, num_classes, source):
    """Checks arrays and makes a reader of their splits.

    Args:
        splits, num_classes: as for `array_source`.
        source: str, for errors.

    Returns:
        `(read, number of classes, number of channels)`, where `read` is that of a `Source`.

    Raises:
        ValueError: if the arrays do not fit each other.
    """
    checked = {name: _checked(name, *arrays) for name, arrays in splits.items()}
    if num_classes is None:
        labels = [split.labels for split in checked.values() if len(split)]
        num_classes = max(int(y.shape[1] if y.ndim > 1 else y.max() + 1) for y in labels)

    def read(name, input_spec):
        if name not in checked:
            raise ValueError(f"unknown split of {source!r}{nearest(name, checked)} Received: split={name!r}")
        split = checked[name]
        if split.images.shape[1:] == (*input_spec.size, input_spec.num_channels):
            return split
        images = [input_spec.resize(image) for image in split.images]
        shape = (-1, *input_spec.size, input_spec.num_channels)
        return Split(np.array(images, "uint8").reshape(shape), split.labels, split.weights)

    return read, num_classes, next(iter(checked.values())).images.shape[-1]


def _checked(name, images, labels, weights=None):
    """Converts arrays to a `Split`; raises a `ValueError` if they do not fit each other."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype == np.uint16:  # as `InputSpec.resize`
        images = (images >> 8).astype("uint8")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            "images must be uint8 or uint16 (examples, height, width[, channels]); scale others to 0..255. "
            f"Received: {images.dtype} {images.shape} in split {name!r}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column, as in Keras' CIFAR-10
        labels = labels[:, 0]
    if len(labels) != len(images) or labels.ndim not in (1, 2):
        raise ValueError(
            "labels must be (examples,), or multi-hot rows (examples, classes). "
            f"Received: {labels.shape} for {len(images)} images in split {name!r}"
        )
    if labels.ndim == 1 and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, or multi-hot rows. Received: {labels.dtype} in split {name!r}")
    if weights is not None:
        weights = np.asarray(weights, "float32")
        if weights.shape != (len(images),):
            raise ValueError(f"weights must be (examples,). Received: {weights.shape} for {len(images)} images")
    kind = "int64" if labels.ndim == 1 else "float32"
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(kind), weights)


def digit_splits():
    """Loads 1,797 handwritten digits of 8 x 8 pixels, split in halves as in scikit-learn's example."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            "the data set 'digits' needs scikit-learn: pip install 'keras-vit-zoo[data] @ git+<this repository>'"
        ) from error
    digits = load_digits()
    half = len(digits.target) // 2
    pixels = np.round(digits.images * (255 / 16)).astype("uint8")
    return {"train": (pixels[:half], digits.target[:half]), "test": (pixels[half:], digits.target[half:])}
