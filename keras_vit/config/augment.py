"""Augmentation settings of a recipe, and the parser of augmentation policies."""

import ast
import dataclasses
import re

from keras_vit.validation import check_choice, check_count, check_rate, is_number, nearest

_TIMM_KEYS = {
    "m": ("magnitude", float),
    "n": ("layers", int),
    "p": ("rate", float),
    "mstd": ("deviation", float),
    "mmax": ("maximum", float),
    "inc": ("increasing", lambda text: bool(int(text))),
}


def parse_policy(text):
    """Parses an augmentation policy.

    Args:
        text: str. One of

            - `rand-m9-mstd0.5-inc1`, RandAugment of timm: `m` magnitude, `n` number of operations, `p` probability,
              `mstd` standard deviation of the magnitude, `mmax` largest magnitude, `inc1` severity that increases with
              the magnitude;
            - `randaugment(2, 10)`, of big_vision: number of operations and magnitude;
            - `three_augment`, of DeiT-III;
            - `keras_cv("RandAugment", magnitude=0.5)`: a layer of keras-cv with its arguments.

    Returns:
        `rand`, `randaugment`, `three_augment` or `keras_cv`, and a dict of the fields of its class.

    Raises:
        ValueError: if `text` is none of these.
    """
    if text.split("-")[0] == "rand":
        return "rand", _read_timm(text)
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        name = call.func.id
        arguments = [ast.literal_eval(value) for value in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return name, _CALLS[name](*arguments, **keywords)
    except (SyntaxError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"policy must be rand-<options> or one of {sorted(_CALLS)} with arguments in parentheses"
            f"{nearest(text.partition('(')[0], _CALLS)} Received: {text!r}"
        ) from error


def _read_timm(text):
    fields = {}
    for part in text.split("-")[1:]:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        try:
            name, read = _TIMM_KEYS[match[1]]
            fields[name] = read(match[2])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"an option of a rand- policy must be one of {sorted(_TIMM_KEYS)} and a number. "
                f"Received: {part!r} in {text!r}"
            ) from error
    return fields


def _randaugment(layers=2, magnitude=10.0):
    if not is_number(magnitude) or magnitude < 0:
        raise ValueError("magnitude must be a number of at least 0")
    return {"layers": check_count(layers, "layers"), "magnitude": magnitude}


def _three_augment():
    return {}


def _keras_cv(name="RandAugment", **arguments):
    return {"name": name, "arguments": tuple(sorted(arguments.items()))}


_CALLS = {"randaugment": _randaugment, "three_augment": _three_augment, "keras_cv": _keras_cv}


_MIXUP_MODES = ("batch", "sample", "big_vision", "keras_cv")
_INTERPOLATIONS = (None, "nearest", "bilinear", "bicubic", "lanczos", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training images; everything is off by default.

    Applied in this order: crop, padded crop, flip, policy, color jitter, normalization, affine change, random erasing,
    mixup or CutMix.

    Args:
        crop_scale: pair of floats in (0, 1] or `None`. Area of the random crop as fractions of the image (timm
            `scale`). `None` disables the crop: the image is prepared as in evaluation.
        crop_ratio: pair of floats. Aspect ratio, width over height, of the random crop (timm `ratio`).
        crop_interpolation: `nearest`, `bilinear`, `bicubic`, `lanczos`, `random` (bilinear or bicubic at random, as in
            timm) or `None` for that of the input spec (timm `train_interpolation`). Used by the crop and by timm's
            RandAugment, which does not support `nearest` and `lanczos`.
        crop_sampling: `timm`, or `inception` for that of TensorFlow and big_vision; see
            `keras_vit.data.augment.random_crop.crop_window`. Default `timm`.
        crop_antialias: bool. Antialiases crops that are shrunk, as Pillow does; big_vision does not. Default True.
        padding: int, pixels. Pads every side, then crops the original size at a random position.
        padding_mode: `constant` (with `fill`) or `reflect`.
        flip: bool. Flips images left to right with probability 0.5 (timm `hflip`).
        policy: str or `None`. Augmentation policy of single images (timm `auto_augment`), see `parse_policy`:
            `rand-m9-mstd0.5-inc1` (RandAugment of timm), `randaugment(2, 10)` (of big_vision), `three_augment` (of
            DeiT-III) or `keras_cv("RandAugment", magnitude=0.5)`.
        color_jitter: float. Multiplies brightness, contrast and saturation by random factors of 1 +- this. Ignored
            with RandAugment, as in timm and DeiT.
        shift: float, pixels. Largest translation along each axis; fractions of a pixel are interpolated.
        rotation: float, degrees. Largest rotation in both directions.
        zoom: float in [0, 1). Each axis is scaled by a factor between `1 - zoom` and `1 + zoom`.
        shear: float. Largest horizontal shear, pixels per pixel of height.
        fill: int, 0 to 255. Value of pixels outside the image in padding and affine changes. Default 0.
        random_erasing_prob: float in [0, 1]. Probability that a rectangle of an image is replaced by noise (timm
            `reprob`).
        mixup: float. Alpha of mixup's Beta distribution (timm `mixup`); 0 disables mixup.
        cutmix: float. Alpha of CutMix's Beta distribution (timm `cutmix`); 0 disables CutMix.
        mixup_mode: str, the sampling of weights and partners (timm `mixup_mode`). `batch`: one weight per batch,
            the partner from the reversed batch; `sample`: one weight per image (timm's `elem`); `big_vision`: mixup
            only, the partner is the neighbor and keeps the smaller weight; `keras_cv`: keras-cv's layers.
        mixup_prob: float in [0, 1]. Probability that a batch (`batch`) or an image (`sample`) is mixed (timm
            `mixup_prob`). `big_vision` mixes every image. Default 1.
        mixup_switch_prob: float in [0, 1]. Probability of CutMix instead of mixup when both are enabled (timm
            `mixup_switch_prob`). Default 0.5.
    """

    crop_scale: tuple | None = None
    crop_ratio: tuple = (3 / 4, 4 / 3)
    crop_interpolation: str | None = None
    crop_sampling: str = "timm"
    crop_antialias: bool = True
    padding: int = 0
    padding_mode: str = "constant"
    flip: bool = False
    policy: str | None = None
    color_jitter: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    fill: int = 0
    random_erasing_prob: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_mode: str = "big_vision"
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5

    def __post_init__(self):
        check_rate(self.zoom, "zoom")
        check_count(self.padding, "padding")
        for name in ("shift", "rotation", "shear", "mixup", "cutmix", "color_jitter"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be finite and not negative. Received: {name}={getattr(self, name)!r}")
        for name in ("random_erasing_prob", "mixup_prob", "mixup_switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1]. Received: {name}={getattr(self, name)!r}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill must be a pixel value from 0 to 255. Received: fill={self.fill!r}")
        check_choice(self.padding_mode, ("constant", "reflect"), "padding_mode")
        check_choice(self.crop_interpolation, _INTERPOLATIONS, "crop_interpolation")
        check_choice(self.crop_sampling, ("timm", "inception"), "crop_sampling")
        check_choice(self.mixup_mode, _MIXUP_MODES, "mixup_mode")
        if self.cutmix and self.mixup_mode == "big_vision":
            raise ValueError(
                "mixup_mode='big_vision' has no cutmix; choose 'batch', 'sample' or 'keras_cv'. "
                f"Received: mixup_mode={self.mixup_mode!r}, cutmix={self.cutmix!r}"
            )
        self._check_crop()
        if self.policy is not None:
            parse_policy(self.policy)

    def _check_crop(self):
        scale, ratio = self.crop_scale, self.crop_ratio
        if scale is not None and not (_is_range(scale) and scale[1] <= 1):
            raise ValueError(f"crop_scale must be two increasing fractions of the area. Received: crop_scale={scale!r}")
        if not _is_range(ratio):
            raise ValueError(f"crop_ratio must be two increasing ratios. Received: crop_ratio={ratio!r}")


def _is_range(pair):
    """Returns whether `pair` holds two positive numbers in increasing order."""
    return (
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and all(is_number(value) for value in pair)
        and 0 < pair[0] <= pair[1]
    )
