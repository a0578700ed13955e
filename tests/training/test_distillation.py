"""DeiT's distillation: its loss and gradients, and a student that learns from a teacher."""

import gzip
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import GOLDENS
from tiny import tiny_vit

from keras_vit import features
from keras_vit.training import AdamW, DistillationLoss, Distiller

with gzip.open(GOLDENS / "training" / "distillation.json.gz", "rt") as _file:
    VALUES = json.load(_file)["values"]
INPUTS = dict(np.load(GOLDENS / "training" / "distillation.npz"))
CLASSES = INPUTS["logits_cls"].shape[1]
RNG = np.random.default_rng(0)


def _one_hot(labels):
    return np.eye(CLASSES, dtype="float32")[labels]


# The losses of the labels in the golden, and the labels each wants.
BASES = {
    "cross_entropy (integer labels)": (keras.losses.SparseCategoricalCrossentropy(from_logits=True), INPUTS["labels"]),
    "label_smoothing_0.1 (integer labels)": (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        _one_hot(INPUTS["labels"]),
    ),
    "soft_target_cross_entropy (soft_labels)": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        INPUTS["soft_labels"],
    ),
    "binary_cross_entropy_with_logits, mean (soft_labels)": (
        keras.losses.BinaryCrossentropy(from_logits=True),
        INPUTS["soft_labels"],
    ),
}


@pytest.fixture(scope="module")
def part_readers():
    """A student and a teacher whose logits are parts of their input, and that input."""
    logits = np.concatenate([INPUTS[name] for name in ("logits_cls", "logits_dist", "teacher_logits")], axis=-1)
    names = ("head", "head_dist", "teacher")
    x = keras.Input((3 * CLASSES,))
    parts = {name: keras.layers.Dense(CLASSES, use_bias=False, name=name) for name in names}
    outputs = {name: layer(x) for name, layer in parts.items()}
    for kernel, layer in zip(np.split(np.eye(3 * CLASSES), 3, axis=-1), parts.values(), strict=True):
        layer.set_weights([kernel])
    student = keras.Model(x, keras.layers.Average(name="logits")([outputs["head"], outputs["head_dist"]]))
    return student, keras.Model(x, outputs["teacher"]), tf.constant(logits)


@pytest.mark.parametrize("case", VALUES, ids=lambda c: f"{c['base'].split()[0]}-{c['type']}-{c['tau']}")
def test_deits_loss_and_gradients(case, part_readers):
    student, teacher, x = part_readers
    base, labels = BASES[case["base"]]
    kind, alpha = ("hard", 0.0) if case["type"] == "none" else (case["type"], case["alpha"])
    distiller = Distiller(student, teacher, DistillationLoss(kind, case["tau"]), alpha)
    distiller.compile(loss=base)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = distiller.compute_loss(x, labels, distiller(x, training=True))
    gradient = np.split(tape.gradient(loss, x).numpy(), 3, axis=-1)
    assert float(loss) == pytest.approx(case["loss"], rel=1e-6)
    norms = [np.linalg.norm(part) for part in gradient]
    assert norms == pytest.approx([case["grad_norm_cls"], case["grad_norm_dist"], 0.0], rel=1e-5, abs=1e-9)


def _numpy(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def _same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_a_student_learns_from_its_teacher(tmp_path):
    student, teacher = tiny_vit(num_layers=1, distillation_token=True), tiny_vit(num_layers=1, dropout_rate=0.5)
    images, labels = RNG.normal(size=(8, 16, 24, 3)).astype("float32"), RNG.integers(3, size=8)
    distiller = Distiller(student, teacher, DistillationLoss("soft", 2.0), alpha=0.7)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(AdamW(1e-2), loss, metrics=["accuracy"], run_eagerly=True)
    teachers, students = _numpy(teacher), _numpy(student)
    history = distiller.fit(images, labels, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert _same(_numpy(teacher), teachers)
    assert not any(np.array_equal(a, b) for a, b in zip(_numpy(student), students, strict=True))

    logits, heads = student(images).numpy(), features(student, ["head", "head_dist"])(images)
    np.testing.assert_allclose(logits, (heads["head"] + heads["head_dist"]) / 2, atol=1e-6)
    result = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx((logits.argmax(-1) == labels).mean())

    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    assert _same(_numpy(again.teacher), teachers)
    assert _same(_numpy(again.student), _numpy(student))
    assert len(again.trainable_variables) == len(student.trainable_variables)
    assert again.evaluate(images, labels, verbose=0, return_dict=True) == pytest.approx(result, rel=1e-5)
    assert (again.alpha, again.distillation_loss.kind, again.distillation_loss.temperature) == (0.7, "soft", 2.0)
    student.save(tmp_path / "student.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "student.keras")(images), student(images))


def test_the_second_head_alone_follows_the_teacher(part_readers):
    """With alpha 1 and a teacher that is sure of a wrong class, the labels have no say."""
    student, teacher, x = part_readers
    distiller = Distiller(student, teacher, alpha=1)
    distiller.compile(loss="mse")
    loss = distiller.compute_loss(x, INPUTS["soft_labels"], distiller(x))
    chosen = INPUTS["teacher_logits"].argmax(-1)
    expected = keras.losses.CategoricalCrossentropy(from_logits=True)(_one_hot(chosen), INPUTS["logits_dist"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert distiller.evaluate(x, INPUTS["soft_labels"], verbose=0) == pytest.approx(float(expected), rel=1e-6)
    weights = np.array([1, 0, 0, 0, 0, 0])
    alone = distiller.compute_loss(x, INPUTS["soft_labels"], distiller(x), sample_weight=weights)
    each = DistillationLoss(reduction=None)(INPUTS["teacher_logits"], INPUTS["logits_dist"])
    assert float(alone) == pytest.approx(float(each[0]) / 6, rel=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_the_teacher_of_a_fit_is_as_in_inference(part_readers, jit):
    """Nine tenths of what it sees would be dropped in training."""
    student, sure, x = part_readers
    teacher = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dropout(0.9), sure.layers[-1]])
    distiller = Distiller(student, teacher, DistillationLoss("soft", 2.0), alpha=0.7)
    base = keras.losses.CategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), base, jit_compile=jit)
    history = distiller.fit(x, INPUTS["soft_labels"], batch_size=len(x), verbose=0).history
    theirs, ours = (keras.ops.softmax(INPUTS[name] / 2).numpy() for name in ("teacher_logits", "logits_dist"))
    divergence = 2**2 * np.mean(theirs * np.log(theirs / ours))
    expected = 0.3 * float(base(INPUTS["soft_labels"], INPUTS["logits_cls"])) + 0.7 * divergence
    assert history["loss"] == [pytest.approx(expected, rel=1e-5)]
    dropped = keras.ops.softmax(teacher(x, training=True) / 2).numpy()
    assert np.abs(dropped - theirs).max() > 0.05


def test_keras_own_distiller_refuses_two_heads(part_readers):
    """Why there is one of ours. Should this fail, Keras has learnt it."""
    student, teacher, _ = part_readers
    with pytest.raises(ValueError, match="mismatch"):
        keras.distillation.Distiller(
            teacher, features(student, ["head", "head_dist"]), keras.distillation.LogitsDistillation()
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda student, teacher: Distiller(teacher, student), "unknown stage .*'head'"),
        (lambda student, teacher: Distiller(student, teacher, alpha=1.5), "alpha must be in"),
        (lambda *_: DistillationLoss("harder"), "Did you mean 'hard'"),
        (lambda *_: DistillationLoss(temperature=0), "temperature must be positive"),
        (lambda *_: DistillationLoss()(np.zeros((2, 5)), np.zeros((2, 4))), r"classes.*\(2, 5\).*\(2, 4\)"),
    ],
)
def test_a_bad_argument_raises(make, message, part_readers):
    with pytest.raises(ValueError, match=message):
        make(*part_readers[:2])
