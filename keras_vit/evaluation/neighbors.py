"""k-NN classification and retrieval on embeddings."""

import concurrent.futures
import os

import numpy as np

from keras_vit.evaluation.embeddings import check_features, check_labels

KS = (10, 20, 100, 200)
_QUERIES, _ROWS = 1024, 16384  # of a block of similarities, 64 MB
_THREADS = min(os.cpu_count() or 1, 8)


def knn(train_features, train_labels, test_features, test_labels, k=KS, temperature=0.07):
    """Measures a weighted k-NN classifier on embeddings.

    Each of the k nearest neighbors by cosine similarity votes for its class with `exp(similarity / temperature)`.

    Args:
        train_features: float array `(images, dim)`.
        train_labels: int array `(images,)`.
        test_features, test_labels: the same of the images to classify.
        k: int, or sequence of ints. Numbers of neighbors. Default 10, 20, 100 and 200.
        temperature: float. Default 0.07.

    Returns:
        A dict from each k to `{"top-1": accuracy, "top-5": accuracy}`; `top-5` with more than five classes alone.

    Raises:
        ValueError: if k is above the number of training images, if there is one class, or if features and labels do not
            fit.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (arXiv:2104.14294), section 4.1
    and `eval_knn.py`.
    """
    train_labels, test_labels = check_labeled_pair(train_features, train_labels, test_features, test_labels)
    ks = check_neighbors(k, len(train_features))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    hits = {count: np.zeros(2) for count in ks}
    for queries, similarities, indices in _nearest_blocks(train_features, test_features, max(ks)):
        weights, votes = np.exp(similarities / temperature), train_labels[indices]
        for count in ks:
            scores = np.zeros((len(indices), classes))
            np.add.at(scores, (np.arange(len(indices))[:, None], votes[:, :count]), weights[:, :count])
            ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
            right = ranked == test_labels[queries, None]
            hits[count] += right[:, 0].sum(), right.any(axis=1).sum()
    names = ("top-1", "top-5") if classes > 5 else ("top-1",)
    return {count: dict(zip(names, (hits[count] / len(test_features)).tolist(), strict=False)) for count in ks}


def nearest(features, queries, k=5):
    """Finds the nearest embeddings by cosine similarity.

    Args:
        features: float array `(images, dim)`, in which is searched.
        queries: float array `(queries, dim)`.
        k: int. Default 5.

    Returns:
        `(indices, similarities)`, arrays `(queries, k)`, nearest first.

    Raises:
        ValueError: if k is above the number of images, or the features do not fit.
    """
    check_pair(features, queries)
    (k,) = check_neighbors(k, len(features))
    blocks = list(_nearest_blocks(features, queries, k))
    return np.concatenate([block[2] for block in blocks]), np.concatenate([block[1] for block in blocks])


def check_neighbors(k, count):
    """Returns k as a tuple; raises a `ValueError` unless each is an int from 1 to the number of images."""
    ks = (k,) if isinstance(k, int | np.integer) else tuple(k)
    if not ks or any(not isinstance(n, int | np.integer) or isinstance(n, bool) or not 0 < n <= count for n in ks):
        raise ValueError(f"k must be from 1 to the number of images, {count}. Received: k={k!r}")
    return tuple(int(n) for n in ks)


def check_pair(features, queries):
    """Raises a `ValueError` unless two arrays of features are valid and of one width."""
    check_features(features, "features")
    check_features(queries, "queries")
    if features.shape[1] != queries.shape[1]:
        raise ValueError(f"features must have the same width. Received: {features.shape[1]} and {queries.shape[1]}")


def check_labeled_pair(train_features, train_labels, test_features, test_labels):
    """Returns labels of both parts; raises a `ValueError` unless features and labels fit."""
    check_pair(train_features, test_features)
    train_labels = check_labels(train_labels, len(train_features), "train_labels")
    test_labels = check_labels(test_labels, len(test_features), "test_labels")
    check_classes(train_labels, test_labels)
    return train_labels, test_labels


def check_classes(train_labels, test_labels=None):
    """Raises a `ValueError` unless there are two classes, and test images of no other ones."""
    known = np.unique(train_labels)
    if len(known) < 2:
        raise ValueError(f"the training images must be of two classes or more. Received: {known.tolist()}")
    if test_labels is not None and len(unknown := np.setdiff1d(test_labels, known)):
        raise ValueError(
            "classes of the test images must have training images. "
            f"Received: no training image of {unknown.tolist()[:10]}"
        )


def _normalized(features):
    features = np.asarray(features, "float32")
    squares = np.einsum("ij,ij->i", features, features)  # in one pass; `np.linalg.norm` makes copies
    return features * (1 / np.maximum(np.sqrt(squares), 1e-12))[:, None]


def _nearest_blocks(features, queries, k):
    """Yields `(positions of queries, similarities, indices)`, both `(queries, k)`, nearest first.

    The features are passed in blocks. After the first of them only what is nearer than the k-th so far is looked at.
    """
    starts = range(0, len(features), _ROWS)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for begin in range(0, len(queries), _QUERIES):
            asked = _normalized(queries[begin : begin + _QUERIES])
            best = np.full((len(asked), k), -np.inf, "float32")
            where = np.zeros((len(asked), k), "int64")
            parts = np.array_split(np.arange(len(asked)), _THREADS)
            slices = [slice(part[0], part[-1] + 1) for part in parts if len(part)]
            following = pool.submit(_normalized, features[:_ROWS])
            for start in starts:
                block = following.result()
                following = pool.submit(_normalized, features[start + _ROWS : start + 2 * _ROWS])
                similarities = asked @ block.T
                list(pool.map(lambda rows: _merge(best[rows], where[rows], similarities[rows], start), slices))  # noqa: B023
            order = np.argsort(-best, axis=1, kind="stable")
            positions = np.arange(begin, begin + len(asked))
            yield positions, np.take_along_axis(best, order, 1), np.take_along_axis(where, order, 1)


def _merge(best, where, similarities, start):
    """Puts what is nearer into `best` and `where`, in place."""
    k, width = best.shape[1], similarities.shape[1]
    if start == 0 and width >= k:
        indices = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        best[:], where[:] = np.take_along_axis(similarities, indices, 1), indices
        return
    rows, columns = np.divmod(np.flatnonzero(similarities > best.min(axis=1)[:, None]), width)
    if not len(rows):
        return
    # What is nearer, side by side for each row, behind what is known.
    counts = np.bincount(rows, minlength=len(best))
    places = k + np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = np.full((len(best), k + counts.max()), -np.inf, "float32")
    indices = np.zeros(values.shape, "int64")
    values[:, :k], indices[:, :k] = best, where
    values[rows, places], indices[rows, places] = similarities[rows, columns], columns + start
    kept = np.argpartition(-values, k - 1, axis=1)[:, :k]
    best[:], where[:] = np.take_along_axis(values, kept, 1), np.take_along_axis(indices, kept, 1)
