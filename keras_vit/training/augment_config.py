"""How the training images of a recipe are changed."""

import dataclasses

from keras_vit.training.augment_policy import read_policy
from keras_vit.validation import check_choice, check_count, check_rate, is_number

_MIXING = ("batch", "sample", "big_vision", "keras_cv")
_INTERPOLATIONS = (None, "nearest", "bilinear", "bicubic", "lanczos", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images. All off by default.

    In this order: crop, padded crop, mirroring, policy, colour jitter, (normalisation), affine change, erasing, mixing.

    Args:
        crop_scale: pair of floats in (0, 1] or `None`. Area of the random crop as fractions of the image; `None` for no
            random crop: the image is prepared as in evaluation.
        crop_ratio: pair of floats. Width over height of the random crop.
        crop_interpolation: `nearest`, `bilinear`, `bicubic`, `lanczos`, `random` (bilinear or bicubic, a coin for
            every use, as in timm) or `None`, that of the input spec. Of the crop and of timm's RandAugment, which
            knows no `nearest` and `lanczos`.
        crop_sampling: `timm` or `inception`, TensorFlow's, as big_vision; see `keras_vit.data.decode.crop_window`.
            Default `timm`.
        crop_antialias: bool. Whether a crop that shrinks is antialiased, as by Pillow; big_vision's is not. Default
            True.
        padding: int, pixels. Pads every side and crops the size back at a random place.
        padding_mode: `constant` (the colour `fill`) or `reflect`.
        flip: bool. Mirror left and right, every second image.
        policy: str or `None`. Changes of single images, as read by `keras_vit.training.augment_policy`:
            `rand-m9-mstd0.5-inc1` (timm's RandAugment), `randaugment(2, 10)` (big_vision's), `three_augment`
            (DeiT-III's) or `keras_cv("RandAugment", magnitude=0.5)`.
        color_jitter: float. Brightness, contrast and saturation by factors from 1 +- this. Inactive beside
            RandAugment, as in timm and DeiT.
        shift: float, pixels. Each axis moves by up to this; fractions of a pixel are interpolated.
        rotation: float, degrees. Up to this in both directions.
        zoom: float in [0, 1). Each axis is scaled by a factor between `1 - zoom` and `1 + zoom`.
        shear: float. Up to this many pixels sideways for each pixel down.
        fill: int, 0 to 255. The pixel that moves in from outside in padding and affine changes. Default 0.
        erasing: float in [0, 1]. How many images have a rectangle replaced by noise.
        mixup: float. Alpha of the Beta distribution of mixup's weight; 0 is off.
        cutmix: float. The same of cutmix.
        mixing: `batch` (timm: one weight a batch, the partner from the reversed batch), `sample` (one weight an image),
            `big_vision` (mixup only: the larger part stays, the partner is the neighbour) or `keras_cv`.
        mixing_rate: float in [0, 1]. How many batches (or images, by `mixing`) are mixed; `big_vision` mixes all.
            Default 1.
        cutmix_rate: float in [0, 1]. With mixup and cutmix both on, how many of the mixed get cutmix. Default 0.5.
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
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing: str = "big_vision"
    mixing_rate: float = 1.0
    cutmix_rate: float = 0.5

    def __post_init__(self):
        check_rate(self.zoom, "zoom")
        check_count(self.padding, "padding")
        for name in ("shift", "rotation", "shear", "mixup", "cutmix", "color_jitter"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative or infinite. Received: {name}={getattr(self, name)!r}")
        for name in ("erasing", "mixing_rate", "cutmix_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1]. Received: {name}={getattr(self, name)!r}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill must be a pixel, 0 to 255. Received: fill={self.fill!r}")
        check_choice(self.padding_mode, ("constant", "reflect"), "padding_mode")
        check_choice(self.crop_interpolation, _INTERPOLATIONS, "crop_interpolation")
        check_choice(self.crop_sampling, ("timm", "inception"), "crop_sampling")
        check_choice(self.mixing, _MIXING, "mixing")
        if self.cutmix and self.mixing == "big_vision":
            raise ValueError(
                "mixing='big_vision' is mixup alone; cutmix needs 'batch', 'sample' or 'keras_cv'. "
                f"Received: mixing={self.mixing!r}, cutmix={self.cutmix!r}"
            )
        self._check_crop()
        if self.policy is not None:
            read_policy(self.policy)

    def _check_crop(self):
        scale, ratio = self.crop_scale, self.crop_ratio
        if scale is not None and not (_is_range(scale) and scale[1] <= 1):
            raise ValueError(f"crop_scale must be two rising fractions of the area. Received: crop_scale={scale!r}")
        if not _is_range(ratio):
            raise ValueError(f"crop_ratio must be two rising ratios. Received: crop_ratio={ratio!r}")


def _is_range(pair):
    """Whether `pair` is two positive numbers, the second not below the first."""
    return (
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and all(is_number(value) for value in pair)
        and 0 < pair[0] <= pair[1]
    )
