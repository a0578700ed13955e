"""Settings of linear segmentation, and the fields of a recipe that it excludes."""

import dataclasses

from keras_vit.config.augment import AugmentConfig
from keras_vit.validation import check_positive, is_number

_AUGMENTATION = ("flip", "fill")  # What is done to images and masks together.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Settings of a linear segmentation head on a backbone, see `keras_vit.models.add_segmentation_head`.

    Args:
        indices: ints. The feature maps that the head takes; negative ones count from the last. Default the last.
        batch_norm: bool. Batch normalization in front of the linear layer, as in DINOv2. Default True.
        ignore_label: int. Value of the pixels of a mask that count neither in the loss nor in the mean IoU. Default
            255.
        scale_range: pair of floats. Training images are resized at random by such a factor beyond the size at which
            they cover the model's input, then cropped at a random place and, where they are too small, padded.
            Default (0.5, 2), as in DINOv2 and mmsegmentation.
        window_stride: float in (0, 1]. Distance of the windows in the evaluation at full resolution, in sizes of the
            model's input. Default 2 / 3, as in DINOv2.
        class_names: tuple of str or `None`. Names of the classes; `None` for those of the data set, or numbers.
    """

    indices: tuple = (-1,)
    batch_norm: bool = True
    ignore_label: int = 255
    scale_range: tuple = (0.5, 2.0)
    window_stride: float = 2 / 3
    class_names: tuple | None = None

    def __post_init__(self):
        for name in ("indices", "scale_range"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, tuple | list) else (value,))
        if not self.indices or any(isinstance(i, bool) or not isinstance(i, int) for i in self.indices):
            raise ValueError(f"indices must be ints, at least one. Received: indices={self.indices!r}")
        if isinstance(self.ignore_label, bool) or not isinstance(self.ignore_label, int):
            raise ValueError(f"ignore_label must be an int. Received: ignore_label={self.ignore_label!r}")
        low_high = self.scale_range
        if len(low_high) != 2 or not all(map(is_number, low_high)) or not 0 < low_high[0] <= low_high[1]:
            raise ValueError(f"scale_range must be two increasing factors. Received: scale_range={low_high!r}")
        if not is_number(self.window_stride) or not 0 < self.window_stride <= 1:
            raise ValueError(f"window_stride must be in (0, 1]. Received: window_stride={self.window_stride!r}")
        if self.class_names is not None:
            if isinstance(self.class_names, str) or not all(isinstance(name, str) for name in self.class_names):
                raise ValueError(f"class_names must be names. Received: class_names={self.class_names!r}")
            object.__setattr__(self, "class_names", tuple(self.class_names))
            check_positive(len(self.class_names), "the number of class_names")


def check_segmentation(recipe):
    """Checks that a `Recipe` with a `SegmentationConfig` has no settings of labels of whole images.

    Raises:
        ValueError: with the names of such fields.
    """
    training, data, augment = recipe.training, recipe.data, recipe.augment
    conflicts = {
        "masking": recipe.masking,
        "lora": recipe.lora,
        "distillation": recipe.distillation,
        "training.loss": training.loss != "softmax",
        "training.label_smoothing": training.label_smoothing,
        "training.init_head_bias": training.init_head_bias,
        "training.head_zeroinit": training.head_zeroinit,
        "data.tfrecords": data.tfrecords,
        "data.arrays": data.arrays,
        "data.multi_label": data.multi_label,
        "data.class_weights": data.class_weights,
        "data.cache": data.cache,
        "data.service": data.service,
        "data.aug_repeats": data.aug_repeats != 1,
        "distribution.sharding": recipe.distribution.sharding == "file",
    }
    default = AugmentConfig()
    fields = [field.name for field in dataclasses.fields(AugmentConfig) if field.name not in _AUGMENTATION]
    conflicts |= {f"augment.{name}": getattr(augment, name) != getattr(default, name) for name in fields}
    if wrong := [name for name, value in conflicts.items() if value]:
        raise ValueError(
            "segmentation trains on masks: images are scaled, cropped and flipped together with them, and settings of "
            f"labels of whole images have no meaning; leave them out. Received: {', '.join(wrong)}"
        )
