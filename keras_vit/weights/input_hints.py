"""What the files beside a checkpoint tell of its preprocessing and its classes, as Hugging Face and timm write them."""

import warnings

from keras_vit.preprocessing import InputSpec

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pillow's numbers.
_RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def timm_input_spec(content):
    """The `InputSpec` of timm's `config.json`, or `None` where it tells none or one that an `InputSpec` cannot hold.

    Source: timm `data/config.py` `resolve_data_config`, whose defaults hold for what is not told, and
    `data/transforms_factory.py` `transforms_imagenet_eval`.
    """
    told = content.get("pretrained_cfg")
    if not told:
        return None
    mode, fraction = told.get("crop_mode") or "center", told.get("crop_pct") or 0.875
    if mode == "squash" and fraction == 1:
        fraction = None
    # With 'border' an image is filled up instead of cut where nothing is cropped.
    elif mode != "center":
        warnings.warn(
            f"crop_mode={mode!r} with crop_pct={fraction} of the config.json has no InputSpec; pass input_spec=",
            stacklevel=5,
        )
        return None
    interpolation = told.get("interpolation") or "bicubic"
    return InputSpec(
        tuple(told.get("input_size") or (3, 224, 224))[1:],
        crop_fraction=fraction,
        interpolation="bicubic" if interpolation == "random" else interpolation,
        mean=tuple(told.get("mean") or _IMAGENET_MEAN),
        std=tuple(told.get("std") or _IMAGENET_STD),
    )


def timm_content(content):
    """What OpenCLIP's `open_clip_config.json` tells of a tower of timm, in the words of timm's `config.json`.

    Returns:
        A dict; an empty one for an empty object, and for a tower of OpenCLIP's own.

    Source: OpenCLIP `factory.py`, `transform.py`.
    """
    tower = content.get("model_cfg", {}).get("vision_cfg", {})
    if "timm_model_name" not in tower:
        return {}
    told, size = content.get("preprocess_cfg", {}), tower.get("image_size", 224)
    height, width = size if isinstance(size, list) else (size, size)
    squashed = told.get("resize_mode", "shortest") == "squash"
    config = {
        "input_size": [3, height, width],
        "mean": told.get("mean") or _CLIP_MEAN,
        "std": told.get("std") or _CLIP_STD,
        "interpolation": told.get("interpolation") or "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash" if squashed else "center",
    }
    pooling = {"map": "map", "token": "token", "avg": "avg"}.get(tower.get("timm_pool"))
    return {"architecture": tower["timm_model_name"], "global_pool": pooling, "pretrained_cfg": config}


def transformers_input_spec(content):
    """The `InputSpec` of Hugging Face's `preprocessor_config.json`, or `None` for an empty object.

    Where Hugging Face squashes an image before it cuts the centre out, as for DeiT, proportions are kept here, as
    in DeiT's own evaluation; of square images both make the same.

    Source: transformers 4.x `image_processing_{vit,deit,clip,siglip,bit}.py`.
    """
    if not content:
        return None
    size, crop = _side(content.get("size", 224)), _side(content.get("crop_size", 224))
    if not content.get("do_center_crop"):
        # A shortest edge alone leaves images of any proportion.
        shortest = isinstance(content.get("size"), dict) and "shortest_edge" in content["size"]
        crop, fraction = size, 1.0 if shortest else None
    else:
        fraction = min(crop[0] / size[0], 1.0)
    # (pixel * factor - mean) / std, of pixels to 255
    scale = 255 * content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 255
    normalized = content.get("do_normalize", True)
    mean = content.get("image_mean") or (0.5,) * 3 if normalized else (0.0,) * 3
    std = content.get("image_std") or (0.5,) * 3 if normalized else (1.0,) * 3
    resample = content.get("resample", 2)
    if resample not in _RESAMPLES:
        raise ValueError(f"resample must be one of {sorted(_RESAMPLES)}. Received: resample={resample!r}")
    return InputSpec(
        crop,
        crop_fraction=fraction,
        interpolation=_RESAMPLES[resample],
        mean=tuple(m / scale for m in mean),
        std=tuple(s / scale for s in std),
    )


def _side(size):
    """`(h, w)` of what Hugging Face calls a size: an int, or an object of sides."""
    if not isinstance(size, dict):
        return (size, size) if isinstance(size, int) else tuple(size)
    if "shortest_edge" in size:
        return (size["shortest_edge"],) * 2
    return size["height"], size["width"]


def labels(content):
    """The class names in a `config.json`, a tuple; `None` where there are none but placeholders."""
    names = content.get("label_names") or content.get("id2label")
    if isinstance(names, dict):
        numbered = {int(number): name for number, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            return None
        names = [numbered[number] for number in range(len(numbered))]
    if not names or all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class names must be strings. Received: {names[:3]!r}")
    return tuple(names)
