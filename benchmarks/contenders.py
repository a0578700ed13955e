"""The contenders as plain data, so that listing them imports no framework."""

import dataclasses
import importlib.util

GEMM_SIZE = 2048


@dataclasses.dataclass(frozen=True)
class Contender:
    """One program to measure.

    Args:
        name: str. What the table shows.
        packages: names of the packages it needs, in the order of their import.
        factory: `module:function` in this folder. The function gets the task and `options` and returns a pair:
            a callable that does one step, and the number of weights.
        options: dict of keyword arguments of the function.
        processes: int. How many do each step together, as the workers that `TF_CONFIG` tells each of. Default 1.
    """

    name: str
    packages: tuple
    factory: str
    options: dict = dataclasses.field(default_factory=dict)
    processes: int = 1


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of every contender.

    Args:
        label: str. The model's name in the table.
        config: dict, the JSON form of `keras_vit.ViTConfig`.
        batch: int, images a step.
        precision: `float32` or `bfloat16`.
        training: bool.
    """

    label: str
    config: dict
    batch: int
    precision: str
    training: bool


# What the loops of training do to images in memory: pixels of padding, with a random crop and mirror images behind it.
PADDING = 4


def _keras(library, how, jit=False):
    packages = ("tensorflow", "keras", {"keras_vit": "keras_vit", "kerashub": "keras_hub"}[library])
    options = {"library": library, "jit": jit}
    return Contender(f"{library} {how}{' jit' if jit else ''}", packages, f"keras_contenders:{how}", options)


def _timm(how, compiled=False):
    name = "timm compiled" if compiled else "timm"
    return Contender(name, ("torch", "timm"), f"torch_contenders:{how}", {"compiled": compiled})


_RECIPE = Contender("keras_vit train", ("tensorflow", "keras", "keras_vit"), "keras_contenders:recipe")
TRAINING = (
    _RECIPE,
    _keras("keras_vit", "fit"),
    _keras("keras_vit", "fit", jit=True),
    _keras("kerashub", "fit"),
    _keras("kerashub", "fit", jit=True),
    _timm("fit"),
    _timm("fit", compiled=True),
)
# The same with data: shuffled, cropped and mirrored anew in every step.
LOOPS = (
    dataclasses.replace(_RECIPE, options={"padding": PADDING}),
    # The step alone: what the loop above is slower by is spent waiting for data.
    dataclasses.replace(_RECIPE, name="keras_vit train, one batch", options={"repeated": True}),
    dataclasses.replace(
        _RECIPE, name="keras_vit train, gradient checkpointing", options={"padding": PADDING, "checkpointed": True}
    ),
    Contender(
        "keras_vit fit",
        ("tensorflow", "keras", "keras_vit"),
        "keras_contenders:fit",
        {"library": "keras_vit", "jit": False, "padding": PADDING},
    ),
    Contender(
        "kerashub fit",
        ("tensorflow", "keras", "keras_hub", "keras_vit"),
        "keras_contenders:fit",
        {"library": "kerashub", "jit": False, "padding": PADDING},
    ),
    Contender("timm", ("torch", "timm"), "torch_contenders:fit", {"compiled": False, "padding": PADDING}),
)
INFERENCE = (
    _keras("keras_vit", "predict"),
    _keras("keras_vit", "predict", jit=True),
    _keras("keras_vit", "function"),
    _keras("kerashub", "predict"),
    _keras("kerashub", "predict", jit=True),
    _keras("kerashub", "function"),
    _timm("predict"),
    _timm("predict", compiled=True),
)
# Large matrix products in both frameworks: the ceiling that the table's fractions refer to.
PEAKS = (
    Contender("tensorflow", ("tensorflow",), "keras_contenders:gemm", {"size": GEMM_SIZE}),
    Contender("torch", ("torch",), "torch_contenders:gemm", {"size": GEMM_SIZE}),
)


def choose(contenders, names):
    """The contenders with these names, in the order of the names; all of them where `names` is empty.

    Raises:
        ValueError: on an unknown name.
    """
    known = {contender.name: contender for contender in contenders}
    for name in names:
        if name not in known:
            raise ValueError(f"a contender must be one of {sorted(known)}. Received: {name!r}")
    return [known[name] for name in names] if names else list(contenders)


def missing_packages(contender):
    """Names of the packages of a contender that are not installed."""
    return [package for package in contender.packages if importlib.util.find_spec(package) is None]
