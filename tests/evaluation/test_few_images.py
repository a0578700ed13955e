"""Embeddings, k-NN, retrieval and linear probes, beside scikit-learn and the formulas."""

import json
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from tiny import IMAGES, tiny_vit

import keras_vit
from keras_vit import evaluation
from keras_vit.data import read_images
from keras_vit.evaluation import extract, neighbors
from keras_vit.evaluation.embeddings import FEATURES, describe_source, feature_model
from keras_vit.evaluation.probes import METHODS, split_by_class
from keras_vit.models import build_model


def _clusters(count, classes=7, dim=12, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(1).normal(size=(classes, dim))
    labels = np.arange(count) % classes
    return (centers[labels] + noise * random.normal(size=(count, dim))).astype("float32"), labels


TRAIN, TRAIN_LABELS = _clusters(210)
TEST, TEST_LABELS = _clusters(105, seed=2)


@pytest.mark.parametrize("k", [1, 10, 37, 210])
def test_knn_equals_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(neighbors, "_ROWS", 32)
    monkeypatch.setattr(neighbors, "_QUERIES", 50)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (TRAIN, TEST)]
    # The squared distance of unit vectors is 2 - 2 * similarity.
    reference = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
    reference.fit(unit[0], TRAIN_LABELS)
    found = evaluation.knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, k=k)
    assert found[k]["top-1"] == pytest.approx(reference.score(unit[1], TEST_LABELS), abs=1e-9)
    best = np.argsort(-reference.predict_proba(unit[1]), axis=1, kind="stable")[:, :5]
    assert found[k]["top-5"] == pytest.approx(np.mean((best == TEST_LABELS[:, None]).any(axis=1)), abs=0.02)


def test_several_k_are_the_single_ones():
    found = evaluation.knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, k=(5, 50))
    assert found == {k: evaluation.knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, k=k)[k] for k in (5, 50)}
    assert list(evaluation.knn(*_clusters(20, 2), *_clusters(20, 2, seed=3), k=5)[5]) == ["top-1"]


def test_the_nearest_are_those_of_all_similarities(monkeypatch):
    monkeypatch.setattr(neighbors, "_ROWS", 17)
    indices, similarities = evaluation.nearest(TRAIN, TEST, 8)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (TRAIN, TEST)]
    expected = unit[1] @ unit[0].T
    np.testing.assert_array_equal(indices, np.argsort(-expected, axis=1)[:, :8])
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, indices, 1), atol=1e-6)


def test_ridge_equals_scikit_learn():
    mean, std = TRAIN.mean(0), TRAIN.std(0)
    for rows in (slice(None), slice(0, 10)):  # more images than features, and fewer
        labels = TRAIN_LABELS[rows] % 4
        probe = evaluation.linear_probe(TRAIN[rows], labels, "ridge", settings=3.0)
        mean, std = TRAIN[rows].mean(0), TRAIN[rows].std(0)
        reference = RidgeClassifier(alpha=3.0).fit((TRAIN[rows] - mean) / std, labels)
        scores = reference.decision_function((TEST - mean) / std)
        np.testing.assert_allclose(probe.logits(TEST), scores, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 7])
def test_logistic_regression_equals_scikit_learn(classes):
    labels = TRAIN_LABELS % classes
    probe = evaluation.linear_probe(TRAIN, labels, settings=0.1)
    mean, std = TRAIN.mean(0), TRAIN.std(0)
    reference = LogisticRegression(C=0.1, max_iter=1000).fit((TRAIN - mean) / std, labels)
    logits = probe.logits(TEST)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, reference.predict_proba((TEST - mean) / std), atol=1e-4)


def test_the_setting_is_the_best_on_the_validation_part():
    train, validation = split_by_class(TRAIN_LABELS, 0.2, seed=5)
    assert np.bincount(TRAIN_LABELS[validation]).tolist() == [6] * 7
    assert sorted([*train, *validation]) == list(range(len(TRAIN)))
    settings = (1e-4, 1.0, 1e4)
    probe = evaluation.linear_probe(TRAIN, TRAIN_LABELS, "ridge", settings, seed=5)
    for setting in settings:
        part = evaluation.linear_probe(TRAIN[train], TRAIN_LABELS[train], "ridge", setting)
        assert probe.sweep[setting] == part.score(TRAIN[validation], TRAIN_LABELS[validation])
    assert probe.sweep[probe.setting] == max(probe.sweep.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_what_is_linear(method):
    probe = evaluation.linear_probe(*_clusters(140, noise=0.1), method)
    assert probe.score(*_clusters(70, seed=2, noise=0.1)) > 0.98
    assert len(probe.sweep) > 3


def test_few_shot_is_the_ridge_regression_of_big_vision():
    found = evaluation.few_shot(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, shots=(1, 25), seeds=2)
    for shots, dim in ((1, 7), (25, 175)):
        for seed in range(2):
            random = np.random.default_rng(seed)
            chosen = [random.permutation(np.flatnonzero(np.equal(TRAIN_LABELS, label))) for label in range(7)]
            rows = np.concatenate([indices[:shots] for indices in chosen])
            assert len(rows) == dim
            mean, std = TRAIN[rows].mean(0), TRAIN[rows].std(0) + 1e-5
            x, test = (np.c_[(part - mean) / std, np.full(len(part), 100.0)] for part in (TRAIN[rows], TEST))
            targets = 2 * np.eye(7)[TRAIN_LABELS[rows]] - 1
            predicted = Ridge(1024.0, fit_intercept=False, solver="svd").fit(x, targets).predict(test).argmax(1)
            assert found[shots][seed] == pytest.approx(np.mean(predicted == TEST_LABELS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, k=211), "210.*Received: k=211"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, k=()), "k must"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS * 0, TEST, TEST_LABELS * 0, k=1), "two classes"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS % 6, TEST, TEST_LABELS, k=1), r"no training image of \[6\]"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS[:-1], TEST, TEST_LABELS, k=1), "train_labels.*one for each image"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS - 1, TEST, TEST_LABELS, k=1), "train_labels"),
        (lambda: evaluation.knn(TRAIN, TRAIN_LABELS / 2, TEST, TEST_LABELS, k=1), "float64"),
        (lambda: evaluation.nearest(TRAIN, TEST[:, :5]), "width.*12 and 5"),
        (lambda: evaluation.nearest(np.where(TRAIN > 2, np.nan, TRAIN), TEST), "finite"),
        (lambda: evaluation.nearest(TRAIN[:0], TEST), "at least one image"),
        (lambda: evaluation.linear_probe(TRAIN[:7], TRAIN_LABELS[:7]), "one image of class 0"),
        (lambda: evaluation.linear_probe(TRAIN, TRAIN_LABELS, "svm"), "method"),
        (lambda: evaluation.linear_probe(TRAIN, TRAIN_LABELS, settings=()), "settings"),
        (lambda: evaluation.few_shot(TRAIN, TRAIN_LABELS, TEST, TEST_LABELS, shots=31), "30. Received: shots="),
    ],
)
def test_what_does_not_fit_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("features", FEATURES)
def test_features_are_those_of_the_stages(features):
    model = tiny_vit(num_registers=1)
    tokens = np.array(keras_vit.features(model, "encoder_norm")(IMAGES)["encoder_norm"])
    token, mean = tokens[:, 0], tokens[:, 2:].mean(1)
    expected = {"class_token": token, "mean": mean, "class_token+mean": np.c_[token, mean]}
    found = feature_model(model, features)(IMAGES)
    np.testing.assert_allclose(found, expected.get(features, token), atol=1e-6)


@pytest.mark.parametrize("pooling", [{"pooling": "gap", "pool_before_norm": True}, {"pooling": "map"}, {}])
def test_the_representation_is_what_the_head_sees(pooling):
    model = tiny_vit(**pooling)
    head = model.get_layer("head")
    np.testing.assert_allclose(head(feature_model(model)(IMAGES)), model(IMAGES), atol=1e-6)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of 2 classes, 4 images each, one of them unreadable."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(8):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 100, (20, 30, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype("uint8")).save(path)
    return folder


def test_arrays_data_sets_and_folders_are_embedded_alike(photographs):
    model = tiny_vit()
    folder = evaluation.embed(model, photographs)
    assert (folder.class_names, folder.labels.tolist()) == (("a", "b"), [0] * 4 + [1] * 4)
    assert [pathlib.Path(path).stem for path in folder.paths] == ["0", "2", "4", "6", "1", "3", "5", "7"]
    spec = keras_vit.metadata(model).input_spec
    pixels = np.stack([*read_images(folder.paths, spec)])
    for data in (pixels, (pixels, folder.labels), [(spec.normalize(pixels), np.eye(2)[folder.labels])]):
        found = evaluation.embed(model, data, batch_size=3)
        np.testing.assert_allclose(found.features, folder.features, atol=1e-5)
        assert found.labels is None or found.labels.tolist() == folder.labels.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_files_come_back(suffix, photographs, tmp_path):
    found = evaluation.embed(tiny_vit(), photographs)
    found.save(tmp_path / f"x{suffix}")
    loaded = evaluation.load_embeddings(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(loaded.features, found.features)
    np.testing.assert_array_equal(loaded.labels, found.labels)
    assert (loaded.paths, loaded.class_names, loaded.source) == (found.paths, found.class_names, found.source)
    (tmp_path / f"y{suffix}").write_bytes((tmp_path / f"x{suffix}").read_bytes()[:300])
    with pytest.raises(ValueError, match=f"y{suffix}"):
        evaluation.load_embeddings(tmp_path / f"y{suffix}")


def test_an_interrupted_file_is_continued(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "PART", 3)
    model, files = tiny_vit(), sorted(photographs.glob("*/*.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    files.insert(4, tmp_path / "broken.png")
    labels = np.array([0] * 4 + [0] + [1] * 4)
    counts, embedded = [], []

    def stop(count):
        counts.append(count)
        if sum(counts) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.embed_to_file(model, files, tmp_path / "x.npz", labels, ("a", "b"), batch_size=2, advance=stop)
    assert not (tmp_path / "x.npz").exists()
    original = extract._embed_files
    monkeypatch.setattr(extract, "_embed_files", lambda *a: (embedded.append(len(a[2])), original(*a))[1])
    progress = []
    unreadable = evaluation.embed_to_file(model, files, tmp_path / "x.npz", labels, ("a", "b"), advance=progress.append)
    assert sum(embedded) < 9  # what was there is not computed again
    assert sum(progress) == 9
    assert [pathlib.Path(path).name for path, _ in unreadable] == ["broken.png"]
    found = evaluation.load_embeddings(tmp_path / "x.npz")
    expected = evaluation.embed(model, photographs)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-6)
    assert (found.paths, found.labels.tolist()) == (expected.paths, expected.labels.tolist())
    assert not list(tmp_path.glob("*.parts"))
    with pytest.raises(ValueError, match="exists already; pass overwrite"):
        evaluation.embed_to_file(model, files, tmp_path / "x.npz")


def test_parts_of_another_model_are_refused(photographs, tmp_path, monkeypatch):
    files = sorted(photographs.glob("*/*.png"))

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.embed_to_file(tiny_vit(), files, tmp_path / "x.npz", advance=stop)
    with pytest.raises(ValueError, match="the model has changed"):
        evaluation.embed_to_file(tiny_vit(hidden_dim=24), files, tmp_path / "x.npz")
    evaluation.embed_to_file(tiny_vit(hidden_dim=24), files, tmp_path / "x.npz", overwrite=True)
    assert evaluation.load_embeddings(tmp_path / "x.npz").features.shape == (8, 24)


def test_embeddings_of_two_models_do_not_mix(photographs):
    one, other = tiny_vit(), tiny_vit()
    other.get_layer("encoder_norm").beta.assign_add(np.ones(16))
    assert describe_source(one) == describe_source(tiny_vit())
    assert json.loads(json.dumps(describe_source(one))) == describe_source(one)
    found = [evaluation.embed(model, photographs) for model in (one, other)]
    from keras_vit.evaluation.embeddings import check_same_source

    with pytest.raises(ValueError, match="weights="):
        check_same_source(*found)


@pytest.mark.parametrize("distilled", [False, True])
def test_a_probe_becomes_a_model(distilled, photographs, tmp_path):
    model = tiny_vit(pre_logits_dim=5, distillation_token=distilled)
    found = evaluation.embed(model, photographs)
    probe = evaluation.linear_probe(found.features, found.labels, "ridge", settings=1.0)
    whole = probe.to_model(model, found.class_names)
    whole.save(tmp_path / "probe.keras")
    loaded = keras.models.load_model(tmp_path / "probe.keras")
    assert keras_vit.metadata(loaded).labels == ("a", "b")
    spec = keras_vit.metadata(loaded).input_spec
    images = np.stack([spec.load(path) for path in found.paths])
    np.testing.assert_allclose(loaded(images), probe.logits(found.features), atol=1e-4)


@pytest.mark.parametrize("features", FEATURES[1:])
def test_a_probe_of_other_features_becomes_a_model_that_pools_so(features, photographs):
    model = tiny_vit()
    found = evaluation.embed(model, photographs, features)
    probe = evaluation.linear_probe(found.features, found.labels, "ridge", settings=1.0)
    whole = probe.to_model(model, found.class_names, features)
    spec = keras_vit.metadata(whole).input_spec
    images = np.stack([spec.load(path) for path in found.paths])
    np.testing.assert_allclose(whole(images), probe.logits(found.features), atol=1e-4)


def test_a_model_without_a_class_token_has_no_features_of_it():
    config = keras_vit.SwinConfig(image_size=32, embed_dim=8, depths=(1,), num_heads=(2,), window_size=4)
    with pytest.raises(ValueError, match="class token"):
        feature_model(build_model(config), "class_token")
    assert feature_model(build_model(config), "mean").output_shape == (None, 8)
