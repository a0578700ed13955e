"""All that decides what a published recipe does, written down from its source: no setting hides in a default.

A field of a config that is neither here nor among `EXECUTION` fails the comparison, and so does a default that changed.
"""

import dataclasses
import json
import pathlib
import re

import pytest

from keras_vit.config.files import list_recipes, load_recipe
from keras_vit.config.recipe import with_current_names
from keras_vit.training import make_schedule

# How a run is carried out, and where its data lie: no source decides these.
EXECUTION = {
    "data": {
        *("data_dir", "download", "image_key", "label_key", "in_memory", "cache", "shuffle_buffer", "deterministic"),
        "service",
    },
    "training": {
        *("precision", "compiler", "gradient_checkpointing", "save_minutes", "save_steps", "tensorboard", "seed"),
    },
}
# Of our own design; their settings are compared with their records.
OWN = {
    "cnn_vs_vit",
    "convnet_cifar10",
    "deit_cifar10",
    "segment_linear",
    "swin_cifar10",
    "vit_digits",
    "vit_tiny_cifar10",
}

# What nothing is said of: off, or of no effect on the recipe.
VIT = {
    "image_size": (224, 224),
    "patch_size": (16, 16),
    "drop_remainder": False,
    "dynamic_image_size": False,
    "num_channels": 3,
    "num_layers": 12,
    "num_classes": 1000,
    "head_bias": True,
    "class_token": True,
    "distillation_token": False,
    "num_registers": 0,
    "pooling": "token",
    "pool_before_norm": False,
    "pre_logits_dim": None,
    "pre_logits_activation": "tanh",
    "classifier_activation": None,
    "activation": "gelu",
    "norm_placement": "pre",
    "patch_bias": True,
    "embedding_norm": False,
    "qkv_bias": True,
    "qk_norm": False,
    "layer_norm_epsilon": 1e-6,
    "layer_scale_init": None,
    "position_embedding": "learned",
    "position_on_prefix": True,
    "position_resize": "bicubic_antialias",
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "drop_path_rate": 0.0,
    "drop_path_schedule": "linear",
}
DATA = {
    "name": "imagenet2012",
    "folder": None,
    "tfrecords": None,
    "arrays": None,
    "train_split": "train",
    "test_split": "validation",
    "num_classes": None,
    "multi_label": False,
    "label_offset": 0,
    "validation_fraction": 0.0,
    "validation_split": None,
    "train_fraction": 1.0,
    "skip_unreadable": False,
    "aug_repeats": 1,
    "class_weights": None,
}
AUGMENT = {
    "crop_sampling": "timm",
    "crop_antialias": True,
    "padding": 0,
    "padding_mode": "constant",
    "flip": True,
    "policy": None,
    "color_jitter": 0.0,
    "shift": 0.0,
    "rotation": 0.0,
    "zoom": 0.0,
    "shear": 0.0,
    "fill": 0,
    "random_erasing_prob": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mixup_mode": "big_vision",
    "mixup_prob": 1.0,
    "mixup_switch_prob": 0.5,
}
OPTIMIZER = {
    "lr_base_size": None,
    "schedule": "cosine",
    "final_learning_rate": 0.0,
    "warmup_epochs": 0.0,
    "warmup_steps": None,
    "warmup_learning_rate": 0.0,
    "lag_one_epoch": False,
    "timescale": 10_000,
    "cooldown_steps": 0,
    "weight_decay": 0.0,
    "independent_weight_decay": False,
    "layer_decay": None,
    "momentum": 0.9,
    "nesterov": False,
    "adam_lr_ratio": 1.0,
    "global_clipnorm": None,
    "gradient_accumulation_steps": 1,
    "ema_momentum": None,
    "ema_evaluate": True,
}
# The defaults of torch.optim.AdamW and optax.scale_by_adam alike.
ADAM = {**OPTIMIZER, "name": "adamw", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
SGD = {**OPTIMIZER, "name": "sgd", "beta_1": 0.9, "beta_2": None, "epsilon": 1e-8}
TRAINING = {
    "steps_per_epoch": None,
    "evaluation_steps": None,
    "loss": "softmax",
    "label_smoothing": 0.0,
    "initialization": "layers",
    "init_head_bias": 0.0,
    "head_zeroinit": False,
    "early_stopping": None,
}
ALONE = {
    "distillation": None,
    "masking": None,
    "weights": None,
    "weights_skip": (),
    "weights_new": (),
    "weights_prefix": None,
    "freeze": (),
}
# arXiv:2010.11929, table 1; arXiv:2012.12877, table 1.
TI = {**VIT, "hidden_dim": 192, "num_heads": 3, "mlp_dim": 768}
S = {**VIT, "hidden_dim": 384, "num_heads": 6, "mlp_dim": 1536}
B = {**VIT, "hidden_dim": 768, "num_heads": 12, "mlp_dim": 3072}

# big_vision `configs/vit_s16_i1k.py`, `configs/vit_i1k.py`: decode_jpeg_and_inception_crop(224), of 5 to 100 % and a
# ratio of 0.75 to 1.33 (`pp/ops_image.py`), value_range(-1, 1), resize_small(256), central_crop(224).
BIG_VISION_INPUT = {
    "size": (224, 224),
    "crop_fraction": 224 / 256,
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
INCEPTION = {
    **AUGMENT,
    "crop_scale": (0.05, 1.0),
    "crop_ratio": (0.75, 1.33),
    "crop_interpolation": "bilinear",
    "crop_sampling": "inception",
    "crop_antialias": False,
}
# lr 0.001, wd 0.0001 beside it, 10,000 warm-up steps, cosine, grad_clip_norm 1.
BIG_VISION_OPTIMIZER = {
    **ADAM,
    "learning_rate": 1e-3,
    "warmup_steps": 10_000,
    "weight_decay": 1e-4,
    "independent_weight_decay": True,
    "global_clipnorm": 1.0,
}
VIT_S16 = {
    **ALONE,
    "model": {
        **S,
        "class_token": False,
        "pooling": "gap",
        "position_embedding": "sincos2d",
        "pre_logits_dim": 384,
        "activation": "gelu_tanh",
    },
    "input_spec": BIG_VISION_INPUT,
    "data": {**DATA, "batch_size": 1024},
    "augment": {**INCEPTION, "policy": "randaugment(2, 10)", "mixup": 0.2},
    "optimizer": BIG_VISION_OPTIMIZER,
    "training": {**TRAINING, "epochs": 90, "head_zeroinit": True},
}


def augreg(size, policy, mixup):
    """`configs/vit_i1k.py`: pool_type 'tok', rep_size; `models/vit.py`: positions of the patches alone."""
    return {
        **ALONE,
        "model": {
            **size,
            "pre_logits_dim": size["hidden_dim"],
            "position_on_prefix": False,
            "activation": "gelu_tanh",
        },
        "input_spec": BIG_VISION_INPUT,
        "data": {**DATA, "batch_size": 4096},
        "augment": {**INCEPTION, "policy": policy, "mixup": mixup},
        "optimizer": BIG_VISION_OPTIMIZER,
        "training": {**TRAINING, "epochs": 300, "head_zeroinit": True, "initialization": "big_vision"},
    }


def augreg_i21k(size, policy, mixup):
    """`configs/vit_i21k.py`: 21,843 classes, sigmoid_xent, init_head_bias -10, pool_type 'gap', posemb 'learn'."""
    recipe = augreg(size, policy, mixup)
    data = {"name": None, "tfrecords": "imagenet21k/{split}-*", "num_classes": 21843, "multi_label": True}
    model = {"num_classes": 21843, "class_token": False, "pooling": "gap", "pre_logits_dim": None}
    return {
        **recipe,
        "model": {**recipe["model"], **model},
        "data": {**recipe["data"], **data},
        "training": {**recipe["training"], "loss": "sigmoid", "init_head_bias": -10.0},
    }


# deit `main.py`: the defaults of its parser; `datasets.py`: resized to 256, cropped to 224, ImageNet's mean.
IMAGENET_INPUT = {
    "size": (224, 224),
    "crop_fraction": 224 / 256,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
DEIT_AUGMENT = {
    **AUGMENT,
    "crop_scale": (0.08, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "crop_interpolation": "bicubic",
    "policy": "rand-m9-mstd0.5-inc1",
    "random_erasing_prob": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mixup_mode": "batch",
    "mixup_prob": 1.0,
    "mixup_switch_prob": 0.5,
}
DEIT_SCHEDULE = {
    "schedule": "epoch_cosine",
    "lag_one_epoch": True,
    "warmup_epochs": 5,
    "warmup_learning_rate": 1e-6,
    "final_learning_rate": 1e-5,
    "weight_decay": 0.05,
    "ema_momentum": 0.99996,
    "ema_evaluate": False,
}


def deit(size):
    """`main.py`: AdamW 5e-4 of 512 images, 5 epochs of warm-up, repeated augmentation, smoothing and drop path 0.1."""
    return {
        **ALONE,
        "model": {**size, "drop_path_rate": 0.1, "drop_path_schedule": "linear"},
        "input_spec": IMAGENET_INPUT,
        "data": {**DATA, "batch_size": 1024, "aug_repeats": 3},
        "augment": DEIT_AUGMENT,
        "optimizer": {**ADAM, **DEIT_SCHEDULE, "learning_rate": 5e-4, "lr_base_size": 512},
        "training": {**TRAINING, "epochs": 300, "label_smoothing": 0.1, "initialization": "truncated_normal"},
    }


def distilled(size):
    """`main.py` with `--distillation-type hard`, and the defaults alpha 0.5 and tau 1."""
    recipe = deit(size)
    teacher = {"teacher": "teacher.keras", "kind": "hard", "alpha": 0.5, "temperature": 1.0}
    return {
        **recipe,
        "model": {**recipe["model"], "distillation_token": True},
        "distillation": {**teacher, "teacher_mean": None, "teacher_std": None},
    }


def deit3(size, image_size, learning_rate, drop_path_rate):
    """The commands of `README_revenge.md`, `augment.py`; fusedlamb of apex clips to a norm of 1."""
    model = {"image_size": (image_size,) * 2, "position_on_prefix": False, "layer_scale_init": 1e-4}
    drop_path = {"drop_path_rate": drop_path_rate, "drop_path_schedule": "constant"}
    return {
        **deit(size),
        "model": {**size, **model, **drop_path},
        "input_spec": {**IMAGENET_INPUT, "size": (image_size,) * 2, "crop_fraction": 1.0},
        "data": {**DATA, "batch_size": 2048, "aug_repeats": 3},
        "augment": {**DEIT_AUGMENT, "policy": "three_augment", "color_jitter": 0.3, "random_erasing_prob": 0.0},
        "optimizer": {**ADAM, **DEIT_SCHEDULE, "name": "lamb", "learning_rate": learning_rate, "global_clipnorm": 1.0},
        "training": {**TRAINING, "epochs": 800, "loss": "binary", "initialization": "truncated_normal"},
    }


# Swin-Transformer `config.py`, `configs/swin/swin_tiny_patch4_window7_224.yaml`; 1024 images double its rates.
SWIN_T = {
    "image_size": (224, 224),
    "patch_size": (4, 4),
    "num_channels": 3,
    "embed_dim": 96,
    "depths": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "window_size": (7, 7),
    "mlp_ratio": 4.0,
    "num_classes": 1000,
    "version": 1,
    "pretrained_window_sizes": None,
    "qkv_bias": True,
    "activation": "gelu",
    "layer_norm_epsilon": 1e-5,
    "window_rule": "timm",
    "position_resize": "geometric",
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "drop_path_rate": 0.2,
    "classifier_activation": None,
}
SWIN = {
    **deit(TI),
    "model": SWIN_T,
    "data": {**DATA, "batch_size": 1024, "aug_repeats": 1},
    "optimizer": {
        **ADAM,
        "learning_rate": 5e-4,
        "lr_base_size": 512,
        "weight_decay": 0.05,
        "global_clipnorm": 5.0,
        "warmup_epochs": 20,
        "warmup_learning_rate": 2 * 5e-7,
        "final_learning_rate": 2 * 5e-6,
    },
}
# vision_transformer `configs/common.py`, `input_pipeline.py` (a squash to 384), `checkpoint.py` (zoom of order 1).
IN21K = "vit_base_patch16_224.augreg_in21k"
FINETUNE = {
    **ALONE,
    "weights": IN21K,
    "model": {**B, "image_size": (384, 384), "num_classes": 10, "position_resize": "bilinear_corners"},
    "input_spec": {**BIG_VISION_INPUT, "size": (384, 384), "crop_fraction": None},
    "data": {**DATA, "name": "cifar10", "test_split": "test", "batch_size": 512},
    "augment": INCEPTION,
    "optimizer": {**SGD, "learning_rate": 0.03, "momentum": 0.9, "warmup_steps": 500, "global_clipnorm": 1.0},
    # 10,000 steps of 97 an epoch.
    "training": {**TRAINING, "epochs": 103, "head_zeroinit": True},
}
# mae `FINETUNE.md`, `main_finetune.py`; the pooling and normalization of the weights.
FINETUNE_ADAMW = {
    **ALONE,
    "weights": IN21K,
    "model": {**B, "drop_path_rate": 0.1},
    "input_spec": {**BIG_VISION_INPUT, "interpolation": "bicubic"},
    "data": {**DATA, "batch_size": 1024},
    "augment": DEIT_AUGMENT,
    "optimizer": {
        **ADAM,
        "learning_rate": 5e-4,
        "lr_base_size": 256,
        "weight_decay": 0.05,
        "layer_decay": 0.65,
        "warmup_epochs": 5,
        "final_learning_rate": 1e-6,
    },
    "training": {**TRAINING, "epochs": 100, "label_smoothing": 0.1, "head_zeroinit": True},
}
# mae `PRETRAIN.md`, `main_pretrain.py`, `models_mae.py`, `util/pos_embed.py`.
MAE = {
    **ALONE,
    "masking": {
        "ratio": 0.75,
        "decoder_dim": 512,
        "decoder_layers": 8,
        "decoder_heads": 16,
        "normalize_targets": True,
    },
    "model": {**B, "position_embedding": "sincos2d_moco"},
    "input_spec": IMAGENET_INPUT,
    "data": {**DATA, "batch_size": 4096},
    "augment": {**AUGMENT, "crop_scale": (0.2, 1.0), "crop_ratio": (3 / 4, 4 / 3), "crop_interpolation": "bicubic"},
    "optimizer": {
        **ADAM,
        "learning_rate": 1.5e-4,
        "lr_base_size": 256,
        "beta_2": 0.95,
        "weight_decay": 0.05,
        "warmup_epochs": 40,
    },
    "training": {**TRAINING, "epochs": 800},
}
# Compact-Transformers `configs/datasets/cifar10.yml`, `src/vit.py`; the epochs of the paper's table 2.
VIT_LITE = {
    **ALONE,
    "model": {
        **VIT,
        "image_size": (32, 32),
        "patch_size": (4, 4),
        "hidden_dim": 256,
        "num_layers": 7,
        "num_heads": 4,
        "mlp_dim": 512,
        "num_classes": 10,
        "attention_dropout_rate": 0.1,
        "drop_path_rate": 0.1,
    },
    "input_spec": {
        "size": (32, 32),
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
    },
    "data": {**DATA, "name": "cifar10", "test_split": "test", "batch_size": 128},
    "augment": {**DEIT_AUGMENT, "crop_scale": (0.8, 1.0), "crop_interpolation": "random"},
    "optimizer": {
        **ADAM,
        "learning_rate": 5.5e-4,
        "weight_decay": 0.06,
        "schedule": "epoch_cosine",
        "warmup_epochs": 10,
        "warmup_learning_rate": 1e-5,
        "final_learning_rate": 1e-5,
    },
    "training": {**TRAINING, "epochs": 200, "label_smoothing": 0.1, "initialization": "truncated_normal"},
}
# Of no source: as its file has it.
LINEAR_PROBE = {
    **ALONE,
    "weights": IN21K,
    "freeze": ("(?!head).*",),
    "model": {**B, "num_classes": 10},
    "input_spec": BIG_VISION_INPUT,
    "data": {**DATA, "name": "cifar10", "test_split": "test", "batch_size": 512},
    "augment": {**AUGMENT, "crop_scale": (0.2, 1.0), "crop_ratio": (3 / 4, 4 / 3), "crop_interpolation": None},
    "optimizer": {**SGD, "learning_rate": 0.1, "lr_base_size": 256, "momentum": 0.9, "warmup_epochs": 1},
    "training": {**TRAINING, "epochs": 10, "head_zeroinit": True},
}

PUBLISHED = {
    "vit_s16_i1k": VIT_S16,
    "vit_augreg_i1k": augreg(S, "randaugment(2, 15)", 0.5),
    "vit_augreg_i1k:size=tiny": augreg(TI, "randaugment(2, 0)", 0.0),
    "vit_augreg_i1k:size=base": augreg(B, "randaugment(2, 15)", 0.5),
    "vit_augreg_i1k:level=none": augreg(S, None, 0.0),
    "vit_augreg_i1k:level=light1": augreg(S, "randaugment(2, 0)", 0.0),
    "vit_augreg_i1k:level=light2": augreg(S, "randaugment(2, 10)", 0.2),
    "vit_augreg_i1k:level=medium1": augreg(S, "randaugment(2, 15)", 0.2),
    "vit_augreg_i1k:level=strong1": augreg(S, "randaugment(2, 20)", 0.5),
    "vit_augreg_i1k:level=strong2": augreg(S, "randaugment(2, 20)", 0.8),
    "vit_augreg_i21k": augreg_i21k(S, "randaugment(2, 0)", 0.0),
    "vit_augreg_i21k:size=tiny": augreg_i21k(TI, None, 0.0),
    "vit_augreg_i21k:size=base": augreg_i21k(B, "randaugment(2, 10)", 0.2),
    "deit_tiny_i1k": deit(TI),
    "deit_small_i1k": deit(S),
    "deit_base_i1k": deit(B),
    "deit_tiny_distilled_i1k": distilled(TI),
    "deit_small_distilled_i1k": distilled(S),
    "deit_base_distilled_i1k": distilled(B),
    "deit3_small_i1k": deit3(S, 224, 4e-3, 0.05),
    "deit3_base_i1k": deit3(B, 192, 3e-3, 0.2),
    "swin_tiny_i1k": SWIN,
    "finetune": FINETUNE,
    "finetune_adamw": FINETUNE_ADAMW,
    "mae_pretrain": MAE,
    "vit_lite_cifar10": VIT_LITE,
    "linear_probe": LINEAR_PROBE,
}


def test_every_recipe_is_written_down():
    assert {name.partition(":")[0] for name in PUBLISHED} == set(list_recipes()) - OWN


def _fields(config, section):
    """The fields of a part of a recipe that decide what it does."""
    if not dataclasses.is_dataclass(config):
        return config
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in EXECUTION.get(section, ())
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_settings_of_its_source(name):
    recipe = load_recipe(name)
    sections = {field.name for field in dataclasses.fields(recipe)} - {"name", "distribution", "lora", "segmentation"}
    assert sections == set(PUBLISHED[name])
    assert recipe.lora is None
    assert recipe.segmentation is None
    for section, expected in PUBLISHED[name].items():
        assert _fields(getattr(recipe, section), section) == expected, section


RESULTS = pathlib.Path(__file__).parents[2] / "recipes" / "results"


def _recipe_of(folder):
    """The name and arguments of the recipe whose records lie in a folder."""
    name = re.sub(r"^cnn_vs_vit_(\w+)_(\d+)$", r"cnn_vs_vit:model=\1,percent=\2", folder)
    name = re.sub(r"^(\w+)_patch(\d+)_(\d+)_epochs$", r"\1:patch_size=\2,epochs=\3", name)
    name = re.sub(r"^(\w+)_hard_(\d+)_epochs$", r"\1:kind=hard,epochs=\2", name)
    return re.sub(r"^(\w+)_(\d+)_epochs$", r"\1:epochs=\2", name)


@pytest.mark.parametrize("folder", sorted(path.name for path in RESULTS.iterdir() if path.is_dir()))
def test_a_recipe_has_the_settings_of_its_records(folder):
    """Fields that are younger than a record have no say."""
    recipe = load_recipe(_recipe_of(folder))
    records = [with_current_names(json.loads(path.read_text())["config"]) for path in (RESULTS / folder).glob("*.json")]
    assert records
    for config in records:
        for section in ("model", "input_spec", "augment", "optimizer", "training", "distillation"):
            recorded, found = config[section], recipe.to_dict()[section]
            assert (recorded is None) == (found is None)
            left_out = EXECUTION.get(section, ())
            kept = {name: value for name, value in (recorded or {}).items() if name not in left_out}
            assert {name: found[name] for name in kept} == kept, section
        assert config["data"]["batch_size"] == recipe.data.batch_size
        assert config["data"]["train_fraction"] == recipe.data.train_fraction


IMAGENET, IMAGENET_21K, CIFAR = 1_281_167, 14_197_122, 50_000
# Images, the peak of the learning rate, the first and the last one.
RATES = {
    "vit_s16_i1k": (IMAGENET, 1e-3, 0, 0),
    "vit_augreg_i1k": (IMAGENET, 1e-3, 0, 0),
    "vit_augreg_i21k": (IMAGENET_21K, 1e-3, 0, 0),
    "deit_base_distilled_i1k": (IMAGENET, 1e-3, 1e-6, 1e-5),
    "deit3_small_i1k": (IMAGENET, 4e-3, 1e-6, 1e-5),
    "deit3_base_i1k": (IMAGENET, 3e-3, 1e-6, 1e-5),
    "swin_tiny_i1k": (IMAGENET, 1e-3, 1e-6, 1e-5),
    "finetune": (CIFAR, 0.03, 0, 0),
    "finetune_adamw": (IMAGENET, 2e-3, 0, 1e-6),
    "mae_pretrain": (IMAGENET, 2.4e-3, 0, 0),
    "vit_lite_cifar10": (CIFAR, 5.5e-4, 1e-5, 1e-5),
}


@pytest.mark.parametrize("name", RATES)
def test_the_learning_rate_goes_as_published(name):
    recipe, (images, peak, first, last) = load_recipe(name), RATES[name]
    epochs, batch, steps = recipe.training.epochs, recipe.data.batch_size, images // recipe.data.batch_size
    schedule, found = make_schedule(recipe.optimizer, steps, epochs, batch)
    assert found == pytest.approx(peak)
    assert float(schedule(0)) == pytest.approx(first, abs=1e-9)
    # The last step of a cosine is one step before its end, and DeiT's last epoch has the rate of the one before.
    assert float(schedule(steps * epochs - 1)) == pytest.approx(last, abs=1e-7 + 2e-4 * peak)
    warmup = recipe.optimizer.warmup_steps or round(recipe.optimizer.warmup_epochs * steps)
    assert float(schedule(warmup + steps)) == pytest.approx(peak, rel=2e-2)
    assert float(schedule(warmup // 2)) < 0.6 * peak
