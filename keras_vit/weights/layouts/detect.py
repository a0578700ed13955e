"""Detects the layout of a file by its keys, and selects the layout object that writes a model."""

from keras_vit.validation import check_choice
from keras_vit.weights.key_selection import ALL_KEYS
from keras_vit.weights.layouts.flax import BIG_VISION, GOOGLE, detect_flax
from keras_vit.weights.layouts.huggingface import HuggingFace, HuggingFaceTower, detect_huggingface
from keras_vit.weights.layouts.keras_layout import select_model
from keras_vit.weights.layouts.subtrees import behind, choose_subtree, find_subtrees, make_subtree, plain_keys
from keras_vit.weights.layouts.swin import detect_swin, swin_to_write
from keras_vit.weights.layouts.timm import DEIT, DINOV2, MAE, TIMM
from keras_vit.weights.layouts.torchvision import TORCHVISION, TORCHVISION_OLD

LAYOUTS = ("big_vision", "deit", "dinov2", "google", "huggingface", "microsoft", "timm", "torchvision")


def _detect_timm(shapes):
    if not {"patch_embed.proj.weight", "blocks.0.norm1.weight"} <= set(shapes):
        return None
    if "decoder_embed.weight" in shapes:
        return MAE
    if "blocks.0.gamma_1" in shapes:
        return DEIT
    if {"mask_token", "register_tokens", "blocks.0.mlp.w12.weight"} & set(shapes):
        return DINOV2
    return TIMM


def _detect_torchvision(shapes):
    if "conv_proj.weight" not in shapes:
        return None
    old = any(".mlp.linear_" in key for key in shapes)
    return TORCHVISION_OLD if old else TORCHVISION


def _detect(shapes):
    detected = [
        detect(shapes) for detect in (detect_flax, detect_swin, _detect_timm, _detect_torchvision, detect_huggingface)
    ]
    return next((layout for layout in detected if layout is not None), None)


def detect_layout(checkpoint, requested="auto"):
    """Detects the layout of a checkpoint, as `find_model` does."""
    return find_model(checkpoint, requested)[1]


def find_model(checkpoint, requested="auto", selection=ALL_KEYS):
    """Finds the model in a checkpoint, and its layout.

    Args:
        checkpoint: `Checkpoint` of a file.
        requested: `auto`, or the name that the layout must have.
        selection: `KeySelection`, whose prefix selects one of several models.

    Returns:
        `(checkpoint, layout)`, with the keys of the layout.

    Raises:
        ValueError: if the keys are of no known layout or not of the requested one; if there are several models; if an
            array of the model cannot be read.
    """
    check_choice(requested, ("auto", *LAYOUTS), "layout")
    content = checkpoint.content
    names = {key: key for key in checkpoint} if content.kind == "keras" else plain_keys(checkpoint)
    shapes = {name: checkpoint.shapes[key] for name, key in names.items()}
    layouts = dict.fromkeys(content.roots) if content.kind == "keras" else find_subtrees(shapes, _detect)
    if not layouts and not checkpoint:
        inside = f", whose arrays cannot be read, such as {_first_refused(content)}" if content.refused else ""
        raise ValueError(
            "a checkpoint must hold arrays of weights; save the model's state dict or weights again, after it was "
            f"built. Received: {str(checkpoint.path)!r} without any{inside}"
        )
    if not layouts:
        some = ", ".join(sorted(checkpoint)[:3]) + (", ..." if len(checkpoint) > 3 else "")
        raise ValueError(
            f"the keys of a checkpoint must be of one of the layouts {', '.join(LAYOUTS)}. "
            f"Received: {str(checkpoint.path)!r} with {len(checkpoint)} keys: {some}"
        )
    subtrees = {prefix: behind(shapes, prefix, layouts) for prefix in layouts}
    prefix = choose_subtree(checkpoint.path, subtrees, selection)
    layout = layouts[prefix]
    if content.kind == "keras":
        subtrees[prefix], layout = select_model(checkpoint, prefix)
    _check_plain(checkpoint.path, content, prefix)
    subtree = make_subtree(prefix, subtrees, names, content.containers)
    checkpoint = checkpoint.derive(subtrees[prefix], lambda key: content.read(names[prefix + key]), subtree=subtree)
    _check_layout(checkpoint, layout, requested)
    return checkpoint, layout


def _check_plain(path, content, prefix):
    """Raises a `ValueError` for tensors of the selected model that are not plain numbers."""
    names = plain_keys(content.refused)
    inner = tuple(other for other in content.containers if other.startswith(prefix) and other != prefix)
    wrong = [key for key in names if key.startswith(prefix) and not (inner and key.startswith(inner))]
    if wrong:
        key, kind = wrong[0], content.refused[names[wrong[0]]]
        raise ValueError(
            f"weights must be plain, dense arrays; save the model in floating point. Received: {str(path)!r} with "
            f"{len(wrong)} others, such as {key!r}, {kind}"
        )


def _first_refused(content):
    return next(f"{key!r}, {kind}" for key, kind in content.refused.items())


def _check_layout(checkpoint, layout, requested):
    """Raises a `ValueError` if a layout is not the requested one."""
    # The first DeiT and its distilled models were published with the keys that timm has.
    if requested not in ("auto", layout.name) and (requested, layout.name) != ("deit", "timm"):
        raise ValueError(
            f"the keys of a checkpoint must be of its layout. Received: layout={requested!r} for "
            f"{str(checkpoint.path)!r}, whose keys are those of {layout.name!r}"
        )


def layout_to_write(name, config):
    """Selects the layout object that writes a model.

    Args:
        name: one of `LAYOUTS`.
        config: of the model.

    Raises:
        ValueError: on an unknown layout, or one that does not hold models of this family.
    """
    check_choice(name, LAYOUTS, "layout")
    if config.family not in _WRITERS:
        raise ValueError(
            f"no layout holds models with a {type(config).__name__}; use model.save. Received: layout={name!r}"
        )
    names, select = _WRITERS[config.family]
    if name not in names:
        raise ValueError(
            f"models with a {type(config).__name__} can be written as {', '.join(names)}. Received: layout={name!r}"
        )
    return select(name, config)


def _vit_to_write(name, config):
    if name == "huggingface":
        return _huggingface(config)
    if name == "deit" and config.layer_scale_init is None:
        return TIMM
    fixed = (BIG_VISION, GOOGLE, DEIT, DINOV2, TIMM, TORCHVISION)
    return next(layout for layout in fixed if layout.name == name)


def _huggingface(config):
    classifies = config.pooling == "gap" and not config.class_token and config.num_classes > 0
    if config.embedding_norm or config.pooling == "map" or classifies:
        return HuggingFaceTower(config.embedding_norm, classifies=classifies and not config.embedding_norm)
    dino = config.layer_scale_init is not None
    if not config.num_classes:
        return HuggingFace("", dino)
    if dino:
        return HuggingFace("dinov2_with_registers." if config.num_registers else "dinov2.", dino)
    return HuggingFace("deit." if config.distillation_token else "vit.")


# The layouts that hold a family, and the function that selects the layout object: a row for each family.
_WRITERS = {
    "vit": (tuple(name for name in LAYOUTS if name != "microsoft"), _vit_to_write),
    "hybrid": (("google", "timm"), _vit_to_write),
    "swin": (("huggingface", "microsoft", "timm"), swin_to_write),
}
