"""Learning rates beside those of big_vision and timm."""

import gzip
import json

import keras
import numpy as np
import pytest
from golden import GOLDENS

from keras_vit.training import BigVisionSchedule, EpochCosine, warmup_cosine


def _cases(name):
    with gzip.open(GOLDENS / "training" / f"{name}.json.gz", "rt") as file:
        return json.load(file)["cases"]


BIG_VISION, TIMM = _cases("schedule_big_vision"), _cases("cosine_schedule_timm")


def _rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def _big_vision(case):
    base = case["base"] * (case["batch_size"] / 256 if case.get("scale_with_batchsize") else 1)
    names = {"decay_type": "decay", "linear_end": "final", "timescale": "timescale", "cooldown_steps": "cooldown_steps"}
    options = {ours: case[name] for name, ours in names.items() if name in case}
    return BigVisionSchedule(base, case["total_steps"], case["warmup_steps"], **options)


def _timm(case, **options):
    return EpochCosine(
        case["lr"],
        case["t_initial"],
        warmup_epochs=case["warmup_t"],
        initial=case["warmup_lr_init"],
        final=case["lr_min"],
        warmup_prefix=case.get("warmup_prefix", False),
        **options,
    )


@pytest.mark.parametrize("case", BIG_VISION, ids=lambda c: f"{c['decay_type']}-{c['total_steps']}")
def test_big_visions_rate(case):
    rates = _rates(_big_vision(case), case["steps"])
    np.testing.assert_allclose(rates, case["values"], rtol=2e-6, atol=1e-7 * max(case["values"]))


def test_a_peak_of_one_gives_the_curve_that_big_vision_multiplies_rate_and_decay_with():
    case = BIG_VISION[0]
    curve = BigVisionSchedule(1, case["total_steps"], case["warmup_steps"])
    np.testing.assert_allclose(_rates(curve, case["steps"]) * case["base"], case["values"], rtol=2e-6, atol=1e-10)


@pytest.mark.parametrize("case", TIMM, ids=lambda c: c["name"])
def test_timms_rate_of_every_epoch(case):
    epochs = np.arange(case["epochs_listed"])
    np.testing.assert_allclose(_rates(_timm(case, steps_per_epoch=1), epochs), case["values"], rtol=1e-6)


def test_deits_rate_of_every_step():
    """Constant within an epoch; the first two epochs share a rate, later ones have that of the epoch before."""
    case = TIMM[0]
    schedule = _timm(case, steps_per_epoch=1251, late=True)
    for epoch in (0, 1, 2, 5, 6, 150, 299):
        expected = case["values"][max(epoch - 1, 0)]
        ends = _rates(schedule, (epoch * 1251, epoch * 1251 + 1250))
        np.testing.assert_allclose(ends, expected, rtol=1e-6)


def test_epochs_end_where_they_should_in_long_runs():
    """In float32 the last step of an epoch would round up to the next."""
    schedule = EpochCosine(1.0, epochs=300, steps_per_epoch=10_000_000)
    step = np.int32(200 * 10_000_000 - 1)
    assert float(schedule(step)) == float(schedule(199 * 10_000_000)) != float(schedule(step + np.int32(1)))


SCHEDULES = [
    BigVisionSchedule(0.1, 50, 5, "rsqrt", timescale=7, cooldown_steps=3),
    BigVisionSchedule(0.1, 50, 5, "linear", final=0.01),
    EpochCosine(0.1, 6, 8, 2, 0.001, 0.0001, warmup_prefix=True, late=True),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", ["int", "int64", "float", "variable"])
def test_a_step_is_an_int_or_a_tensor(schedule, kind):
    steps = [0, 3, 16, 49, 1000]
    make = {
        "int": int,
        "int64": lambda step: keras.ops.convert_to_tensor(step, "int64"),
        "float": lambda step: keras.ops.convert_to_tensor(step, "float32"),
        "variable": lambda step: keras.Variable(step, dtype="int32", trainable=False),
    }[kind]
    rates = [schedule(make(step)) for step in steps]
    assert {keras.backend.standardize_dtype(rate.dtype) for rate in rates} == {"float32"}
    np.testing.assert_allclose([float(rate) for rate in rates], _rates(schedule, np.array(steps)), rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_schedule_survives_saving(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    again = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
    assert again._learning_rate.get_config() == schedule.get_config()
    assert type(again._learning_rate) is type(schedule)


def test_a_compiled_step_takes_the_rate_of_its_number():
    """Inside `tf.function`, from the optimizer's own counter: gradient 1, so a weight falls by the rates' sum."""
    schedule = SCHEDULES[2]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(schedule), loss=lambda y, y_pred: y_pred)
    model.fit(np.ones((24, 1)), np.ones(24), batch_size=1, verbose=0)
    np.testing.assert_allclose(model.weights[0].numpy().item(), -_rates(schedule, range(24)).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BigVisionSchedule(0.1, 10, 10), "must be shorter than the run"),
        (lambda: BigVisionSchedule(0.1, 10, decay="cosin"), "Did you mean 'cosine'"),
        (lambda: BigVisionSchedule(0.1, 10, timescale=0), "timescale must be positive"),
        (lambda: BigVisionSchedule(-0.1, 10), "peak must be a number of at least 0"),
        (lambda: EpochCosine(0.1, 5, 10, warmup_epochs=5), "must be shorter than the run"),
        (lambda: EpochCosine(0.1, 5, 0), "steps_per_epoch must be a positive int"),
        (lambda: EpochCosine(0.1, 5, 10, initial=None), "initial must be a number"),
        (lambda: warmup_cosine(0.0, 10, final=0.1), "final must be 0"),
    ],
)
def test_a_bad_number_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_a_peak_of_zero_is_a_rate_of_zero(warmup_steps):
    assert not _rates(warmup_cosine(0.0, 10, warmup_steps), range(12)).any()
    assert not _rates(BigVisionSchedule(0, 10, warmup_steps), range(12)).any()
