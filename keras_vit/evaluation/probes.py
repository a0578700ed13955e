"""Linear classifiers on embeddings: ridge regression, logistic regression, SGD, and few-shot evaluation."""

import dataclasses

import numpy as np

from keras_vit.evaluation.embeddings import check_features, check_labels
from keras_vit.evaluation.neighbors import check_classes, check_labeled_pair
from keras_vit.metadata import composition, update_metadata
from keras_vit.models import build_model
from keras_vit.models.heads import HEADS
from keras_vit.validation import check_choice

METHODS = ("logistic", "ridge", "sgd")
# Inverse penalties of the logistic regression, penalties of the ridge regression, and learning rates for 256 images.
SWEEPS = {
    "logistic": tuple(10.0**i for i in range(-6, 7)),
    "ridge": tuple(10.0**i for i in range(-3, 6)),
    "sgd": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5),
}
SHOTS = (1, 5, 10, 25)
_STEPS, _BATCH, _MOMENTUM = 2000, 256, 0.9
_BIAS = 100.0  # of the constant feature of few-shot evaluation, so large that its weight is hardly penalized


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier on embeddings.

    Args:
        kernel: float32 array `(dim, classes)`, for the features as they are: standardization is part of it.
        bias: float32 array `(classes,)`.
        method: str, one of `METHODS`.
        setting: float. The chosen C, alpha or learning rate.
        sweep: dict from each setting that was tried to its accuracy on the validation part; empty if one was given.
    """

    kernel: np.ndarray
    bias: np.ndarray
    method: str
    setting: float
    sweep: dict

    def logits(self, features):
        """Computes the scores `(images, classes)` of features `(images, dim)`."""
        check_features(features, "features")
        if features.shape[1] != len(self.kernel):
            raise ValueError(f"features must have the width {len(self.kernel)}. Received: {features.shape[1]}")
        return features @ self.kernel + self.bias

    def score(self, features, labels):
        """Measures the accuracy, a float."""
        return float(np.mean(self.logits(features).argmax(axis=1) == labels))

    def to_model(self, model, class_names=None, features="representation", name=None):
        """Builds the classifier of images: the model up to its embedding, and this probe as its head.

        Args:
            model: the `keras.Model` that made the embeddings.
            class_names: sequence of str in the order of the labels, or `None`.
            features: as they were embedded with.
            name: str or `None`.

        Returns:
            A `keras.Model` of the same family to logits `(batch, classes)`, with weights of its own.

        Raises:
            ValueError: if layers stand in front of the model, or no model of its family pools as `features` does.
        """
        parts = composition(model)
        content = parts.marker.content
        if parts.front is not None:
            raise ValueError(
                "a probe is saved with the model of keras_vit itself: pass the model inside, and embed with that. "
                f"Received: model={model.name!r}, with layers in front of {parts.inner.name!r}"
            )
        config = content.config.with_pooling(features).replace(num_classes=len(self.bias))
        built = build_model(config, content.input_spec, class_names, content.origin, name=name or model.name)
        update_metadata(built, license=content.license)
        values = {weight.path: weight for weight in parts.inner.weights}
        for weight in built.weights:
            if weight.path.partition("/")[0] not in HEADS:
                weight.assign(values[weight.path])
        heads = [layer for layer in built.layers if layer.name in HEADS]
        for layer in heads:
            # The logits of a distilled model are the mean of two heads, of which the probe is the first.
            share = len(heads) if layer.name == "head" else 0
            layer.kernel.assign(share * self.kernel)
            layer.bias.assign(share * self.bias)
        return built


def linear_probe(features, labels, method="logistic", settings=None, validation_fraction=0.2, seed=0):
    """Fits a linear classifier on embeddings.

    The setting is chosen on a validation part of the training images, with as many of each class as there are; then the
    classifier is fitted on all of them.

    Args:
        features: float array `(images, dim)`.
        labels: int array `(images,)`.
        method: `logistic`, scikit-learn's `LogisticRegression` on standardized features, by C; `ridge`, the closed form
            of scikit-learn's `RidgeClassifier` on them, by alpha; `sgd`, softmax regression by SGD with momentum and a
            cosine schedule, by learning rate for a batch of 256, as DINOv2 does.
        settings: float, or sequence of floats to choose from. Default: `SWEEPS[method]`.
        validation_fraction: float. Default 0.2.
        seed: int. Of the validation part and of the batches. Default 0.

    Returns:
        A `LinearProbe`.

    Raises:
        ValueError: if features and labels do not fit, if there is a single class, or a class with a single image and
            several settings to choose from.
        ImportError: for `logistic`, without scikit-learn.

    Source: logistic regression: Radford et al., arXiv:2103.00020, appendix A.3; SGD: Oquab et al., arXiv:2304.07193.
    """
    check_choice(method, METHODS, "method")
    check_features(features, "features")
    labels = check_labels(labels, len(features), "labels")
    check_classes(labels)
    settings = SWEEPS[method] if settings is None else settings
    settings = (float(settings),) if isinstance(settings, int | float) else tuple(float(value) for value in settings)
    if not settings or min(settings) <= 0:
        raise ValueError(f"settings must be positive. Received: settings={settings}")
    features = np.asarray(features, "float32")
    sweep, chosen = {}, settings[0]
    if len(settings) > 1:
        train, validation = split_by_class(labels, validation_fraction, seed)
        fits = _fit(method, features[train], labels[train], settings, seed)
        for setting, (kernel, bias) in zip(settings, fits, strict=True):
            predicted = (features[validation] @ kernel + bias).argmax(axis=1)
            sweep[setting] = float(np.mean(predicted == labels[validation]))
        # Of equally good ones the middle, rather than an end of the range.
        best = [setting for setting in settings if sweep[setting] == max(sweep.values())]
        chosen = best[len(best) // 2]
    ((kernel, bias),) = _fit(method, features, labels, (chosen,), seed)
    return LinearProbe(kernel.astype("float32"), bias.astype("float32"), method, chosen, sweep)


def split_by_class(labels, fraction, seed=0):
    """Divides images into two parts with the same share of every class.

    Args:
        labels: int array `(images,)`.
        fraction: float in (0, 1), of the second part; at least one image of every class is in each part.
        seed: int.

    Returns:
        Two sorted int arrays of positions.

    Raises:
        ValueError: if a class has a single image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction of the second part must be in (0, 1). Received: {fraction}")
    random, second = np.random.default_rng(seed), []
    for name, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < 2:
            raise ValueError(
                f"every class needs two images, one of them to validate with. Received: one image of class {name}"
            )
        size = min(max(round(count * fraction), 1), count - 1)
        second.append(random.permutation(np.flatnonzero(labels == name))[:size])
    second = np.sort(np.concatenate(second))
    return np.setdiff1d(np.arange(len(labels)), second), second


def _fit(method, features, labels, settings, seed):
    """Fits one classifier for each setting; a list of `(kernel, bias)` for the features as they are."""
    mean, std = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64")
    std = np.where(std > 1e-12, std, 1.0)
    standardized = (features - mean) / std
    classes = int(labels.max()) + 1
    fit = {"logistic": _logistic, "ridge": _ridge, "sgd": _sgd}[method]
    results = []
    for kernel, bias in fit(standardized, labels, classes, settings, seed):
        kernel = kernel / std[:, None]
        results.append((kernel, bias - mean @ kernel))
    return results


def _logistic(x, labels, classes, settings, seed):
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("the method 'logistic' needs scikit-learn: pip install scikit-learn") from error
    for setting in settings:
        found = LogisticRegression(C=setting, max_iter=1000).fit(x, labels)
        # Labels without images have no column in scikit-learn; of two classes it has the second alone.
        kernel, bias = np.zeros((x.shape[1], classes)), np.full(classes, -np.inf)
        if len(found.classes_) == 2:
            kernel[:, found.classes_[1]], bias[found.classes_] = found.coef_[0], (0.0, found.intercept_[0])
        else:
            kernel[:, found.classes_], bias[found.classes_] = found.coef_.T, found.intercept_
        yield kernel, np.where(np.isfinite(bias), bias, -1e9)


def _targets(labels, classes):
    """Targets of least squares: 1 for the class, -1 for the others."""
    return 2.0 * (labels[:, None] == np.arange(classes)) - 1.0


def _ridge(x, labels, classes, settings, seed):
    targets = _targets(labels, classes)
    mean, center = targets.mean(axis=0), x.mean(axis=0)
    x, targets = x - center, targets - mean
    # One decomposition serves all penalties; the smaller of the two Gram matrices.
    is_tall = len(x) >= x.shape[1]
    values, vectors = np.linalg.eigh(x.T @ x if is_tall else x @ x.T)
    left, right = (vectors, vectors.T @ (x.T @ targets)) if is_tall else (x.T @ vectors, vectors.T @ targets)
    for setting in settings:
        kernel = (left / (np.maximum(values, 0) + setting)) @ right
        yield kernel, mean - center @ kernel


def _sgd(x, labels, classes, settings, seed):
    """SGD for all learning rates at once, as DINOv2's grid does."""
    random = np.random.default_rng(seed)
    batch = min(_BATCH, len(x))
    rates = np.array(settings)[:, None, None] * batch / _BATCH
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype("float32")
    kernels = (0.01 * random.standard_normal((1, x.shape[1], classes))).astype("float32")
    kernels = np.repeat(kernels, len(settings), axis=0)
    momentum, targets = np.zeros_like(kernels), np.eye(classes, dtype="float32")[labels]
    for step in range(_STEPS):
        rows = random.choice(len(x), batch, replace=False)
        logits = x[rows] @ kernels
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        slope = x[rows].T @ (exponents / exponents.sum(axis=-1, keepdims=True) - targets[rows]) / batch
        momentum = _MOMENTUM * momentum + slope
        kernels -= (rates * 0.5 * (1 + np.cos(np.pi * step / _STEPS)) * momentum).astype("float32")
    for kernel in kernels:
        yield kernel[:-1].astype("float64"), kernel[-1].astype("float64")


def few_shot(train_features, train_labels, test_features, test_labels, shots=SHOTS, l2=2.0**10, seeds=3):
    """Measures regularized least squares on a few images of each class.

    Features are whitened by the mean and standard deviation of the chosen images.

    Args:
        train_features: float array `(images, dim)`.
        train_labels: int array `(images,)`.
        test_features, test_labels: the same of the images to classify.
        shots: int or sequence of ints. Images of each class. Default 1, 5, 10 and 25.
        l2: float. The penalty. Default 1024.
        seeds: int. How often images are chosen. Default 3.

    Returns:
        A dict from each number of shots to the list of accuracies, one a seed.

    Raises:
        ValueError: if a class has fewer images than shots, or features and labels do not fit.

    Source: big_vision, `evaluators/fewshot_lsr.py` (commit 1475d53).
    """
    train_labels, test_labels = check_labeled_pair(train_features, train_labels, test_features, test_labels)
    shots = (shots,) if isinstance(shots, int) else tuple(shots)
    classes = int(train_labels.max()) + 1
    counts = np.bincount(train_labels, minlength=classes)
    fewest = int(counts[counts > 0].min())
    if not shots or min(shots) < 1 or max(shots) > fewest:
        raise ValueError(f"shots must be from 1 to the images of the smallest class, {fewest}. Received: shots={shots}")
    results = {count: [] for count in shots}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        chosen = [random.permutation(np.flatnonzero(train_labels == label)) for label in range(classes)]
        for count in shots:
            rows = np.concatenate([indices[:count] for indices in chosen])
            predicted = _least_squares(train_features[rows], train_labels[rows], classes, test_features, l2)
            results[count].append(float(np.mean(predicted == test_labels)))
    return results


def _least_squares(x, labels, classes, x_test, l2):
    """Predicts the classes of test features by ridge regression on whitened features."""
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
    x, x_test = (np.pad((part - mean) / std, ((0, 0), (0, 1)), constant_values=_BIAS) for part in (x, x_test))
    x = x.astype("float64")
    targets = _targets(labels, classes)
    if len(x) >= x.shape[1]:
        kernel = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets)
    else:
        kernel = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), targets)
    return (x_test @ kernel).argmax(axis=1)
