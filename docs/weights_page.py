"""Fills the tables and examples of docs/weights.md by asking the library; no direction gets there by hand.

python docs/weights_page.py           rewrite docs/weights.md
python docs/weights_page.py --check   exit with 1 if it is not what the library does
"""

import collections
import pathlib
import re
import sys
import tempfile
import warnings

import numpy as np
from tables import rewrite

from keras_vit.metadata import metadata
from keras_vit.models import HybridConfig, SwinConfig, ViTConfig, build_model
from keras_vit.weights import LAYOUTS, from_checkpoint, load_weights, save_weights
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint

PAGE = pathlib.Path(__file__).with_name("weights.md")
PARTS = ("directions", "defaults", "audit")
_BARE = {"class_token": False, "position_on_prefix": False}
_DINO = {"layer_scale_init": 1.0, "num_classes": 0}
FAMILIES = {
    "ViT, class token": {},
    "ViT with `pre_logits` (in21k)": {"pre_logits_dim": 8},
    "ViT with `pre_logits`, without a head": {"pre_logits_dim": 8, "num_classes": 0},
    "ViT, mean then `fc_norm` (timm)": {"pooling": "gap", "pool_before_norm": True},
    "ViT, norm then mean (big_vision GAP)": {"pooling": "gap", **_BARE},
    "ViT, attention pooling (big_vision MAP)": {"pooling": "map", **_BARE},
    "ViT, fixed positions (sincos2d)": {"pooling": "gap", **_BARE, "position_embedding": "sincos2d"},
    "DeiT": {},
    "DeiT, distilled": {"distillation_token": True},
    "DeiT-III": {"layer_scale_init": 1e-4, "position_on_prefix": False},
    "DINOv2": _DINO,
    "DINOv2 with registers": {**_DINO, "num_registers": 4},
    "DINOv2, SwiGLU": {**_DINO, "activation": "swiglu"},
    "DINOv2 classifier (Hugging Face)": {"layer_scale_init": 1.0, "pooling": "token_gap"},
    "SigLIP": {"pooling": "map", **_BARE, "num_classes": 0},
    "CLIP, image tower": {"embedding_norm": True, "patch_bias": False, "num_classes": 0},
    "CLIP with its projection": {"embedding_norm": True, "patch_bias": False, "head_bias": False},
    "Hybrid with a ResNet": {"patch_size": 1, "stem_depths": (1,), "stem_width": 32},
    "Swin": {"version": 1},
    "Swin V2": {"version": 2},
}
# Fields that no file states: the default of the layout, listed in its own table.
DEFAULTS = ("activation", "layer_norm_epsilon", "position_resize", "layer_scale_init", "window_rule", "stem_rule")


def _config(fields):
    if "version" in fields:
        sizes = {"image_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_size": 4}
        return SwinConfig(**sizes, num_classes=3, **fields)
    sizes = {"image_size": 16, "patch_size": 4, "hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 12}
    make = HybridConfig if "stem_depths" in fields else ViTConfig
    return make(**{**sizes, "num_classes": 3, **fields})


def _read(path, config):
    """The config that a file is read as, and the fields that had to be passed, as the errors ask for them."""
    asked = {}
    while True:
        try:
            return metadata(from_checkpoint(path, **asked)).config, tuple(asked)
        except ValueError as error:
            wanted = re.search(r"pass (\w+)=", str(error))
            if not wanted or wanted[1] in asked:
                raise
            asked[wanted[1]] = getattr(config, wanted[1])


def _ask(model, layout, path):
    """Writes and reads a model in a layout; returns a dict: `refused`, or `found`, `differs`, `asked`, `defaults`.

    `differs`, `asked` and `defaults` are those of the arrays alone, as in other programs' files.
    """
    config = metadata(model).config
    try:
        save_weights(model, path, layout)
    except ValueError as error:
        reason = re.sub(r"^.* Received: 'model'; |\. Received: .*$", "", str(error))
        return {"refused": reason.replace(f"layout {layout!r}", "this layout")}
    if metadata(from_checkpoint(path)).config != config:
        raise AssertionError(f"{layout}: {config} was written, but another config is read")
    write_checkpoint(path, dict(open_checkpoint(path)))
    found, asked = _read(path, config)
    theirs, ours = found.get_config(), config.get_config()
    differing = [name for name in ours if name not in DEFAULTS and theirs[name] != ours[name]]
    return {
        "found": load_weights(model, path).layout,
        "differs": [f"`{name}={getattr(found, name)!r}`" for name in differing],
        "asked": ", ".join(f"`{name}`" for name in asked),
        "defaults": tuple(str(theirs.get(name, "")) for name in DEFAULTS[:3]),
    }


def ask_all(folder):
    """Writes and reads every family in every layout; returns a dict by both."""
    models = {family: build_model(_config(fields)) for family, fields in FAMILIES.items()}
    path = folder / "model.safetensors"
    return {(family, layout): _ask(model, layout, path) for family, model in models.items() for layout in LAYOUTS}


def directions(answers):
    """Tabulates families by layouts: `yes` where a model is written and read back unchanged, with numbers of notes."""
    notes = {}

    def cell(layout, answer):
        if "refused" in answer:
            notes_of_cell = [answer["refused"]]
        else:
            notes_of_cell = [f"by its arrays alone it is read as {field}" for field in answer["differs"]]
            if answer["found"] != layout:
                notes_of_cell.append(f"the keys are those of `{answer['found']}`, as which it is read")
        numbers = ", ".join(str(notes.setdefault(text, len(notes) + 1)) for text in notes_of_cell)
        return ("no" if "refused" in answer else "yes") + (f" ({numbers})" if numbers else "")

    lines = [f"| | {' | '.join(LAYOUTS)} |", "|---" * (len(LAYOUTS) + 1) + "|"]
    for family in FAMILIES:
        lines.append(f"| {family} | {' | '.join(cell(layout, answers[family, layout]) for layout in LAYOUTS)} |")
    return "\n".join([*lines, "", *(f"{number}. {text}" for text, number in notes.items())])


def defaults(answers):
    """Lists the defaults and the fields to pass: a row for layouts and families that agree."""
    rows = collections.defaultdict(list)
    for (family, layout), answer in answers.items():
        if answer.get("found") == layout:
            rows[layout, answer["defaults"], answer["asked"]].append(family)
    lines = ["| layout | families | GELU | epsilon | positions resized | to be passed |", "|---|---|---|---|---|---|"]
    for (layout, values, asked), families in sorted(rows.items()):
        lines.append(f"| {layout} | {'; '.join(families)} | {' | '.join(values)} | {asked} |")
    return "\n".join(lines)


def audit(folder):
    """The error of a file that does not fit, and the report of one that does with `skip=`."""
    model, path = build_model(_config({})), folder / "model.safetensors"
    save_weights(model, path)
    tensors = {**open_checkpoint(path), "ema_step": np.zeros(1, "float32")}
    damaged = {**tensors, "norm.scale": tensors["norm.weight"], "head.weight": tensors["head.weight"][:, 1:]}
    del damaged["norm.weight"]
    write_checkpoint(path, damaged)
    try:
        load_weights(model, path)
    except ValueError as error:
        text = str(error).replace(f"{folder}/", "")
    write_checkpoint(path, tensors)
    report = load_weights(model, path, skip=["ema_step", r"^norm\."])
    shown = [f"{name}: {getattr(report, name)}" for name in ("layout", "skipped", "new", "notes")]
    introduction = 'A file with `ema_step` alone too many, read with `skip=["ema_step", r"^norm\\."]`, gives the report'
    return "\n".join(["```", f"ValueError: {text}", "```", "", introduction, "", "```", *shown, "```"])


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = ask_all(pathlib.Path(folder))
        parts = directions(answers), defaults(answers), audit(pathlib.Path(folder))
    return rewrite(PAGE, dict(zip(PARTS, parts, strict=True)), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
