"""A recipe: everything that decides a training run, as frozen dataclasses."""

import dataclasses

from keras_vit.models import SwinConfig, ViTConfig
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import check_choice, check_positive, check_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from and how they are batched.

    Args:
        name: str or `None`. `digits` (scikit-learn's, bundled) or the name of a TFDS data set.
        folder: str or `None`. A folder with `train/<class>/*` and `test/<class>/*` instead of `name`.
        data_dir: str or `None`. TFDS's directory; `None` for its default.
        download: bool. Whether TFDS may download and prepare a missing data set. Default True.
        train_split, test_split: str. Names of the splits, or folders.
        batch_size: int. The global batch. Training drops the remainder of an epoch, evaluation does not.
        validation_fraction: float in [0, 1). The end of the training split that is evaluated on instead of
            the test split, for choosing settings. Default 0.
        skip_unreadable: bool. Leave unreadable images of a folder away instead of stopping. Default False.
    """

    name: str | None = None
    folder: str | None = None
    data_dir: str | None = None
    download: bool = True
    train_split: str = "train"
    test_split: str = "test"
    batch_size: int = 128
    validation_fraction: float = 0.0
    skip_unreadable: bool = False

    def __post_init__(self):
        check_positive(self.batch_size, "batch_size")
        check_rate(self.validation_fraction, "validation_fraction")
        if not self.name and not self.folder:
            raise ValueError("data needs a name or a folder. Received: name=None, folder=None")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images, drawn uniformly for every image. All off by default.

    Args:
        shift: float, pixels. Each axis moves by up to this; fractions of a pixel are interpolated.
        rotation: float, degrees. Up to this in both directions.
        zoom: float in [0, 1). Each axis is scaled by a factor between `1 - zoom` and `1 + zoom`.
        shear: float. Up to this many pixels sideways for each pixel down.
        flip: bool. Mirror left and right, every second image.
        fill: int, 0 to 255. The pixel that moves in from outside. Default 0.
        mixup: float. Alpha of the Beta distribution from which each batch draws its weight; 0 is off.
    """

    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    flip: bool = False
    fill: int = 0
    mixup: float = 0.0

    def __post_init__(self):
        check_rate(self.zoom, "zoom")
        for name in ("shift", "rotation", "shear", "mixup"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative. Received: {name}={getattr(self, name)!r}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill must be a pixel, 0 to 255. Received: fill={self.fill!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, a step at a time.

    Args:
        learning_rate: float. The peak.
        final_learning_rate: float. Where the cosine ends. Default 0.
        warmup_epochs: float. Epochs of linear warm-up from 0. Default 0.
        weight_decay: float. In Keras' and PyTorch's convention, multiplied by the learning rate; never on
            biases, norms, tokens, positions. Default 0.
        beta_1, beta_2, epsilon: floats, Adam's. Defaults 0.9, 0.999, 1e-8.
        clip_norm: float or `None`. Largest global norm of the gradient. Default `None`.
        ema_momentum: float or `None`. Momentum of an average of the weights, which the run ends with.
    """

    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = None
    ema_momentum: float | None = None

    def __post_init__(self):
        for name in ("learning_rate", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive. Received: {name}={getattr(self, name)!r}")
        for name in ("final_learning_rate", "warmup_epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative. Received: {name}={getattr(self, name)!r}")
        if self.ema_momentum is not None:
            check_rate(self.ema_momentum, "ema_momentum")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive or None. Received: clip_norm={self.clip_norm!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how exactly and how the steps are compiled.

    Args:
        epochs: int.
        steps_per_epoch: int or `None`. Cuts an epoch short; `None` for all of it.
        evaluation_steps: int or `None`. Cuts the evaluation short; `None` for every example.
        label_smoothing: float in [0, 1).
        precision: `auto`, `float32` or `mixed_bfloat16`. `auto` is `mixed_bfloat16` on GPUs and TPUs and
            `float32` on CPUs.
        compiler: `auto`, `xla` (the whole step), `fused` (element-wise parts only, see `keras_vit.training`'s
            `fused_training`) or `plain`. `auto` decides by the hardware and the strategy.
        seed: int. Of the weights, the order of the data, augmentation and dropout.
    """

    epochs: int = 10
    steps_per_epoch: int | None = None
    evaluation_steps: int | None = None
    label_smoothing: float = 0.0
    precision: str = "auto"
    compiler: str = "auto"
    seed: int = 0

    def __post_init__(self):
        check_positive(self.epochs, "epochs")
        check_rate(self.label_smoothing, "label_smoothing")
        check_choice(self.precision, ("auto", "float32", "mixed_bfloat16"), "precision")
        check_choice(self.compiler, ("auto", "xla", "fused", "plain"), "compiler")
        for name in ("steps_per_epoch", "evaluation_steps"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Which tf.distribute strategy the run uses.

    Args:
        name: as for `keras_vit.distribution.strategy`: `one`, `mirrored` or `cpu:<n>`. Default `one`.
    """

    name: str = "one"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole experiment.

    Args:
        name: str. Names the run's folders.
        model: `ViTConfig` or `SwinConfig`. Its `num_classes` and `num_channels` follow the data set.
        data, augment, optimizer, training, distribution: the configs above.
        input_spec: `InputSpec` or `None` (pixels to -1 .. 1, bicubic); its size follows the model.
    """

    name: str
    model: ViTConfig | SwinConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    distribution: DistributionConfig = DistributionConfig()
    input_spec: InputSpec | None = None

    def replace(self, **changes):
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def smoke(self):
        """The same recipe shrunk to two small training steps and two evaluation steps."""
        training = dataclasses.replace(self.training, epochs=1, steps_per_epoch=2, evaluation_steps=2)
        data = dataclasses.replace(self.data, batch_size=min(self.data.batch_size, 8))
        return self.replace(name=f"{self.name}-smoke", training=training, data=data)

    def for_data(self, num_classes, num_channels):
        """The recipe with model and preprocessing fitted to a data set."""
        model = self.model.replace(num_classes=num_classes, num_channels=num_channels)
        spec = self.input_spec
        if spec is None or spec.num_channels != num_channels:
            fields = {} if spec is None else {"interpolation": spec.interpolation, "crop_fraction": spec.crop_fraction}
            spec = InputSpec.symmetric(model.image_size, num_channels, **fields)
        return self.replace(model=model, input_spec=spec.replace(size=model.image_size))

    def to_dict(self):
        """The recipe as nested JSON types, for records and for comparing runs."""
        return _plain(dataclasses.asdict(self))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
