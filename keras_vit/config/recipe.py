"""Recipe of a training run as frozen dataclasses, and recipes that earlier versions saved."""

import dataclasses
import re

from keras_vit.config.augment import AugmentConfig
from keras_vit.config.data import DataConfig
from keras_vit.config.from_weights import complete_from_weights, differences_from_weights, is_local
from keras_vit.config.lora import LoraConfig
from keras_vit.config.masking import MaskingConfig, check_masking
from keras_vit.config.optimizer import OptimizerConfig
from keras_vit.config.segmentation import SegmentationConfig, check_segmentation
from keras_vit.models import ConvNetConfig, HybridConfig, ModelConfig, SwinConfig, ViTConfig
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import check_choice, check_positive, check_rate, check_strategy, is_number
from keras_vit.weights.key_selection import KeySelection

LOSSES = ("softmax", "sigmoid", "binary")
INITIALIZATIONS = ("layers", "big_vision", "truncated_normal", "mimetic", "local")
DISTILLATION_KINDS = ("hard", "soft")

# Fields of recipes that were saved by version 0.1, and their names of today.
RENAMED_FIELDS = {
    "data": {"repeats": "aug_repeats"},
    "augment": {
        "erasing": "random_erasing_prob",
        "mixing": "mixup_mode",
        "mixing_rate": "mixup_prob",
        "cutmix_rate": "mixup_switch_prob",
    },
    "optimizer": {
        "accumulation_steps": "gradient_accumulation_steps",
        "adam_ratio": "adam_lr_ratio",
        "clip_norm": "global_clipnorm",
        "independent_decay": "independent_weight_decay",
        "late": "lag_one_epoch",
        "reference_batch": "lr_base_size",
    },
    "training": {"head_bias": "init_head_bias", "zero_head": "head_zeroinit"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of the training loop: length, loss, precision, compilation and checkpoints.

    Args:
        epochs: int.
        steps_per_epoch: int or `None`. Steps of an epoch; `None` for the whole training split.
        evaluation_steps: int or `None`. Steps of an evaluation or validation; `None` for the whole split.
        loss: `softmax`, `sigmoid` or `binary`, see `make_loss`. Default `softmax`.
        label_smoothing: float in [0, 1).
        initialization: `layers`, `big_vision`, `truncated_normal`, `mimetic` or `local`, see
            `keras_vit.training.initialization.schemes`. Of no effect on a recipe with `weights`. Default `layers`.
        init_head_bias: float. Initial biases of the head (big_vision); -10 in AugReg's `sigmoid` training on
            ImageNet-21k, where every class starts out improbable. Default 0.
        head_zeroinit: bool. Initializes the kernel of the head to zero (big_vision), as in AugReg. Default False.
        early_stopping: int or `None`. Number of epochs without a better validation accuracy after which training stops
            and restores the best weights (Keras `patience`); needs `validation_fraction` or `validation_split`. Default
            `None`.
        precision: `auto`, `float32` or `mixed_bfloat16`. `auto` decides by the hardware, see `choose_precision`.
        compiler: `auto`, `xla` (the whole step), `fused` (element-wise parts only, see `keras_vit.training`'s
            `fused_training`) or `plain`. `auto` decides by the hardware and the strategy.
        gradient_checkpointing: bool. Keeps only the inputs of every encoder block and recomputes its activations in the
            backward pass: less memory, more time. Default False.
        save_minutes: float or `None`. Largest time between two checkpoints within an epoch; there is always one after
            every epoch. The file is written in the background; training only waits for a copy of the weights and the
            optimizer in memory. Default 5.
        save_steps: int or `None`. Largest number of steps between two checkpoints. Default `None`.
        tensorboard: bool. Writes event files for TensorBoard to the run's directory; needs that package. Default False.
        seed: int. Seed of the weights, the order of the data, augmentation and dropout.
    """

    epochs: int = 10
    steps_per_epoch: int | None = None
    evaluation_steps: int | None = None
    loss: str = "softmax"
    label_smoothing: float = 0.0
    initialization: str = "layers"
    init_head_bias: float = 0.0
    head_zeroinit: bool = False
    early_stopping: int | None = None
    precision: str = "auto"
    compiler: str = "auto"
    gradient_checkpointing: bool = False
    save_minutes: float | None = 5.0
    save_steps: int | None = None
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self):
        check_positive(self.epochs, "epochs")
        check_rate(self.label_smoothing, "label_smoothing")
        check_choice(self.loss, LOSSES, "loss")
        check_choice(self.initialization, INITIALIZATIONS, "initialization")
        check_choice(self.precision, ("auto", "float32", "mixed_bfloat16"), "precision")
        check_choice(self.compiler, ("auto", "xla", "fused", "plain"), "compiler")
        if not is_number(self.init_head_bias):
            raise ValueError(
                f"init_head_bias must be a finite number. Received: init_head_bias={self.init_head_bias!r}"
            )
        if not is_number(self.seed) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in 0..2**31 - 1. Received: seed={self.seed!r}")
        if self.save_minutes is not None and not (is_number(self.save_minutes) and self.save_minutes > 0):
            raise ValueError(f"save_minutes must be positive or None. Received: save_minutes={self.save_minutes!r}")
        for name in ("steps_per_epoch", "evaluation_steps", "early_stopping", "save_steps"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Settings of knowledge distillation.

    A student with a distillation token learns from the teacher with its second head, as in DeiT; any other student with
    its only head, as in Hinton et al. (arXiv:1503.02531).

    Args:
        teacher: str: a `.keras` file, the directory of another run, a checkpoint, or a name of
            `keras_vit list --pretrained`. It gets the student's images in its own size and normalization. `None`
            stands for an untrained model like the student, which only a smoke run can want.
        teacher_mean, teacher_std: tuple of floats, one for all channels or one a channel, of pixels from 0 to 1. Asked
            of a `.keras` file that is not of this library: 0 and 1 / 255 where it takes pixels from 0 to 255.
        kind: `hard` (the teacher's top-1 class) or `soft` (its probabilities), DeiT `distillation_type`. Default
            `hard`.
        alpha: float in [0, 1]. Weight of the teacher's loss (DeiT `distillation_alpha`). Default 0.5.
        temperature: float, for `soft` only. Divides the logits of both (DeiT `distillation_tau`). Default 1.
    """

    teacher: str | None
    kind: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0
    teacher_mean: tuple | None = None
    teacher_std: tuple | None = None

    def __post_init__(self):
        check_choice(self.kind, DISTILLATION_KINDS, "kind")
        if not is_number(self.alpha) or not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1]. Received: alpha={self.alpha!r}")
        if not is_number(self.temperature) or self.temperature <= 0:
            raise ValueError(f"temperature must be positive. Received: temperature={self.temperature!r}")
        if self.kind == "hard" and self.temperature != 1:
            raise ValueError(f"temperature is for kind='soft'. Received: kind='hard', temperature={self.temperature!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Settings of distributed training.

    Args:
        name: as for `keras_vit.distribution.strategy`: `auto`, `one`, `mirrored`, `multi_worker`, `tpu` or `cpu:<n>`.
            Default `auto`: all devices.
        sharding: how several workers divide the training data. `data`: each makes its rows of every batch of one
            device; of a stream (TFRecords, TFDS) it reads all records. `file`: each reads other files of a stream, and
            makes batches of its own of them. `auto`, the default: `file` for a stream of as many files as workers at
            least, else `data`.
    """

    name: str = "auto"
    sharding: str = "auto"

    def __post_init__(self):
        check_strategy(self.name)
        check_choice(self.sharding, ("auto", "data", "file"), "sharding")


# Defaults of the fields that select keys from the file of a recipe's weights.
NO_SELECTION = {"weights_skip": (), "weights_new": (), "weights_prefix": None}
# Fields that a saved recipe lacks where nothing is chosen, as runs from before there was a choice do.
_OPTIONAL = {**NO_SELECTION, "lora": None, "segmentation": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a whole experiment.

    Args:
        name: str. Names the run's folders.
        model: config of any family, whose `num_classes` and `num_channels` follow the data set. With `weights` it may
            also be `None`, the model of the weights, or a dict of the fields that differ from it.
        data, augment, optimizer, training, distribution: the configs above.
        input_spec: `InputSpec`, or `None` for that of the weights (without any: pixels to -1 .. 1, bicubic), or a dict
            of the fields that differ from it. Its size follows the model.
        weights: str or `None`. What the run begins with: whatever `keras_vit.load_model` takes that has weights.
            Positions are resized, a head of other classes is new; else they must be of the architecture of `model`.
            The model keeps their origin and license. Default `None`: random.
        weights_skip, weights_new: tuples of regular expressions of keys of that file that are left out, and of paths of
            variables that stay new, as `skip` and `new` of `keras_vit.load_weights`. Default none.
        weights_prefix: str or `None`. Which of several models in the file, as `prefix` there. Default `None`.
        freeze: regular expressions of the names of layers that are not trained; each must match one whole name.
            `("(?!head).*",)` leaves a linear probe. Default none.
        lora: `LoraConfig` or `None`. With one, adapters and heads are trained and all else is frozen; the trained model
            has the adapters merged into its weights, and the run's folder a file with them, `lora.safetensors`.
        distillation: `DistillationConfig` or `None`.
        masking: `MaskingConfig` or `None`. With one the run has no use for labels and leaves a model without a head.
        segmentation: `SegmentationConfig` or `None`. With one the data are images with masks, and a linear head
            classifies every pixel.
    """

    name: str
    model: ViTConfig | HybridConfig | SwinConfig | ConvNetConfig | dict | None = None
    data: DataConfig
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = TrainingConfig()
    distribution: DistributionConfig = DistributionConfig()
    input_spec: InputSpec | dict | None = None
    weights: str | None = None
    weights_skip: tuple[str, ...] = ()
    weights_new: tuple[str, ...] = ()
    weights_prefix: str | None = None
    freeze: tuple[str, ...] = ()
    lora: LoraConfig | None = None
    distillation: DistillationConfig | None = None
    masking: MaskingConfig | None = None
    segmentation: SegmentationConfig | None = None

    def __post_init__(self):
        if not re.fullmatch(r"[^./\\][^/\\]*", self.name):
            raise ValueError(
                f"name must be a folder name without slashes or a leading dot. Received: name={self.name!r}"
            )
        if self.training.early_stopping and not self.data.has_validation:
            raise ValueError(
                "early_stopping needs validation_fraction or validation_split, as the test split must not select. "
                f"Received: early_stopping={self.training.early_stopping}, validation_fraction=0"
            )
        if self.data.multi_label and self.training.loss == "softmax":
            raise ValueError(
                "multi_label needs the loss sigmoid or binary. Received: loss='softmax', data.multi_label=True"
            )
        is_whole = isinstance(self.model, ModelConfig)
        if not is_whole and not self.weights:
            raise ValueError(
                "model must be a config, such as keras_vit.models.vit_config('small', ...), unless weights= gives one. "
                f"Received: model={self.model!r}, weights=None"
            )
        if self.masking and is_whole:
            check_masking(self)
        if self.segmentation:
            check_segmentation(self)
        if not isinstance(self.freeze, tuple | list) or not all(isinstance(name, str) for name in self.freeze):
            raise ValueError(f"freeze must be a tuple of patterns. Received: freeze={self.freeze!r}")
        if self.lora and (self.masking or self.freeze):
            raise ValueError(
                "lora freezes all but its adapters and the heads, and needs labels: leave freeze and masking out. "
                f"Received: freeze={self.freeze!r}, masking={self.masking!r}"
            )
        if self.weights_selection and not self.weights:
            choice = {name: getattr(self, name) for name in NO_SELECTION}
            raise ValueError(f"weights_skip, weights_new and weights_prefix need weights. Received: {choice}")

    @property
    def weights_selection(self):
        """The `KeySelection` of what is taken of the file of the weights."""
        return KeySelection(self.weights_skip, self.weights_new, self.weights_prefix, argument_prefix="weights_")

    def replace(self, **changes):
        """Returns a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def smoke(self):
        """Shrinks the recipe to two small training steps and two evaluation steps.

        It needs no download: published weights must fit, but are not loaded, and a teacher is an untrained model. Files
        of weights are loaded.

        Raises:
            ValueError, FileNotFoundError: if the weights do not fit the model, or there are none.
        """
        recipe = complete_from_weights(self)
        weights = recipe.weights if recipe.weights and is_local(recipe.weights) else None
        training = dataclasses.replace(self.training, epochs=1, steps_per_epoch=2, evaluation_steps=2)
        data = dataclasses.replace(self.data, batch_size=min(self.data.batch_size, 8))
        optimizer = dataclasses.replace(
            self.optimizer,
            gradient_accumulation_steps=min(self.optimizer.gradient_accumulation_steps, 2),
            warmup_epochs=0.0,
            warmup_steps=None,
            warmup_learning_rate=0.0,
            cooldown_steps=0,
        )
        teacher = self.distillation and dataclasses.replace(self.distillation, teacher=None)
        changes = {"training": training, "data": data, "optimizer": optimizer, "distillation": teacher}
        # Without the weights their selection of keys has no meaning.
        recipe = recipe if weights else recipe.replace(weights=None, **NO_SELECTION)
        return recipe.replace(name=f"{self.name}-smoke", weights=weights, **changes)

    def with_weights(self, weights, **choice):
        """Replaces the weights; model and preprocessing follow the new ones.

        Fields in which the recipe differs from its present weights stay as they are; without weights so far, or with
        some that cannot be found, the whole model does.

        Args:
            weights: str, as the field.
            **choice: `weights_skip`, `weights_new` and `weights_prefix`, as the fields.

        Raises:
            ValueError, OSError: if there are no such weights.
        """
        choice = {**NO_SELECTION, **choice}
        options = {name.removeprefix("weights_"): value for name, value in choice.items()}
        selection = KeySelection(**options, argument_prefix="weights_")
        return self.replace(weights=weights, **choice, **differences_from_weights(self, weights, selection))

    def for_data(self, num_classes, num_channels):
        """Adapts the model, which must be a config, and the preprocessing to a data set."""
        model = self.model.replace(num_classes=num_classes, num_channels=num_channels)
        spec = self.input_spec
        if not isinstance(spec, InputSpec):
            spec = InputSpec.symmetric(model.image_size, num_channels, **(spec or {}))
        elif spec.num_channels != num_channels and self.weights:
            mean, std = (sum(values) / len(values) for values in (spec.mean, spec.std))
            spec = spec.replace(mean=(mean,) * num_channels, std=(std,) * num_channels)
        elif spec.num_channels != num_channels:
            fields = {"interpolation": spec.interpolation, "crop_fraction": spec.crop_fraction}
            spec = InputSpec.symmetric(model.image_size, num_channels, **fields)
        return self.replace(model=model, input_spec=spec.replace(size=model.image_size))

    def to_dict(self):
        """Converts the recipe to nested JSON types, for records and for comparing runs."""
        content = dataclasses.asdict(self)
        return _plain({k: v for k, v in content.items() if k not in _OPTIONAL or v != _OPTIONAL[k]})


def with_current_names(saved):
    """Renames the fields of a saved recipe that had other names in version 0.1.

    Args:
        saved: dict, as `Recipe.to_dict` of this or an earlier version returned it.

    Returns:
        A dict with the names of today.
    """
    renamed = {}
    for section, fields in saved.items():
        names = RENAMED_FIELDS.get(section, {})
        renamed[section] = {names.get(k, k): v for k, v in fields.items()} if isinstance(fields, dict) else fields
    if isinstance(renamed.get("data"), dict) and renamed["data"].get("name") == "invented":
        renamed["data"]["name"] = "synthetic"
    return renamed


def upgrade_saved(saved, recipe):
    """Brings a recipe that an earlier version saved up to date, so that it can be compared with one of today.

    Args:
        saved: as for `with_current_names`.
        recipe: the `Recipe` of today, whose classes say which fields there are.

    Returns:
        A dict like `Recipe.to_dict`: renamed fields have their names of today, and fields that are missing their
        defaults.
    """
    upgraded = with_current_names(saved)
    for section, fields in upgraded.items():
        config = getattr(recipe, section, None)
        if isinstance(fields, dict) and dataclasses.is_dataclass(config):
            known = {field.name: field.default for field in dataclasses.fields(config)}
            defaults = {name: value for name, value in known.items() if value is not dataclasses.MISSING}
            upgraded[section] = {**_plain(defaults), **fields}
    return upgraded


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
