"""Runs the library over a folder of golden cases and compares (`make test-goldens GOLDENS=DIR [OUT=DIR2]`).

A case is a folder with a `checkpoint.*` and an `io.npz`; of it only its `config.json` is known. One line a case:
name, largest absolute difference of logits, pre_logits and tokens, pass or fail. Blocks, stages and attention are
compared too, where a case holds them. With an output folder the arrays are written as `<source>/<case>.npz`. Ends
with 1 if a case fails or cannot be read.
"""

import argparse
import json
import pathlib
import re
import sys

import numpy as np

import keras_vit
from keras_vit.interpret import attention_maps
from keras_vit.weights import from_checkpoint

sys.path.append(str(pathlib.Path(__file__).with_name("helpers")))
from golden import config_of

# Swin V2 on random weights has nearly one-hot attention at a scale of 100 and norms of almost equal numbers: rounding
# grows until no float32 implementation is within the usual limits end to end, the reference neither. On a processor
# with AVX2 timm is 5.0e-4 from its own golden (timm/swinv2, block_1), which is 1.2e-3 from timm in float64; and how a
# norm spells its root moves our pre_logits between 5e-5 and 1.4e-4 (microsoft/swinv2), 3e-5 with products in float64.
# A case that only these wider limits hold is said to be `beyond README`. Where a case has all blocks, every link of
# the chain is held to the usual limits from the reference's input to it; then the pre_logits have the tokens' limit.
TOLERANCES_SWIN_V2 = {"logits": 1e-4, "pre_logits": 1e-4, "representation": 1e-4, "attention": 1e-4}
DEFAULT_SWIN_V2 = 3e-4
# Those that the goldens' README recommends.
DEFAULT = 5e-5
RESULTS = ("logits", "pre_logits", "tokens")
_HEADS = ("logits", "logits_cls", "logits_dist", "pre_logits", "representation")
TOLERANCES = {**dict.fromkeys(_HEADS, 2e-5), "attention": 1e-5}
# What follows the last block of a Swin Transformer, in order.
_LAST = {"tokens": "encoder_norm", "pre_logits": "representation", "logits": "head"}


def cases(folder):
    """Folders that are a case, and those that are not but lie beside one, as sorted relative names."""
    folders = sorted(path for path in pathlib.Path(folder).glob("**") if path.is_dir() and path != pathlib.Path(folder))
    found = [p for p in folders if list(p.glob("checkpoint.*")) and (p / "io.npz").exists()]
    other = [p for p in folders if p not in found and not any(p in case.parents for case in found)]
    return [[str(p.relative_to(folder)) for p in group] for group in (found, other)]


def stages(config, description):
    """`{name in the golden: name of our stage}`."""
    if description["family"].startswith("swin"):
        names = {"tokens": "encoder_norm", "pre_logits": "representation", "patch_embedding": "patch_encoder"}
        names |= {"representation": "representation"} | {f"stage_{s}": f"stage_{s}" for s in range(len(config.depths))}
        names |= {f"block_{i}": f"encoder_block_{i}" for i in range(sum(config.depths))}
        return names | ({"logits": "head"} if config.num_classes else {})
    last = f"encoder_block_{config.num_layers - 1}"
    pooled = "encoder_norm" if config.pool_before_norm else "representation"
    unnormed = config.pool_before_norm or "class token only" in description.get("final_norm", "")
    names = {
        "tokens": last if unnormed else "encoder_norm",
        "pre_logits": "pre_logits" if config.pre_logits_dim else pooled,
        "representation": pooled,
    }
    if config.distillation_token and config.num_classes:
        names |= {"logits_cls": "head", "logits_dist": "head_dist"}
    if config.num_classes:
        names["logits"] = "logits" if config.distillation_token else "head"
    return names | {f"block_{i}": f"encoder_block_{i}" for i in range(config.num_layers)}


def blocks_from_reference(model, config, io):
    """`(number, block, the reference's input to it)` of every block of a Swin Transformer."""
    firsts = {sum(config.depths[:stage]): stage for stage in range(1, len(config.depths))}
    x = model.get_layer("patch_encoder")(model.get_layer("patches")(io["images"]))
    for i in range(sum(config.depths)):
        if i in firsts:
            x = model.get_layer(f"patch_merging_{firsts[i]}")(x)
        block = model.get_layer(f"encoder_block_{i}")
        yield i, block, x
        x = io[f"block_{i}"] if f"block_{i}" in io else block(x)


def links_of(model, config, io):
    """What each part of a Swin Transformer makes of the reference's input to it, by the golden's names."""
    found = {}
    for i, block, x in blocks_from_reference(model, config, io):
        found[f"block_{i}"], found[f"attention_{i}"] = block(x, return_attention=True)
    for stage in range(len(config.depths)):
        found[f"stage_{stage}"] = found[f"block_{sum(config.depths[: stage + 1]) - 1}"]
    x = io.get(f"block_{sum(config.depths) - 1}", found[f"stage_{len(config.depths) - 1}"])
    for name in [name for name in _LAST if name in io]:
        found[name] = x = model.get_layer(_LAST[name])(x)
    return {name: np.asarray(value) for name, value in found.items()}


def outputs_of(folder):
    """What our model gives for a case and what the reference gave, two dicts of arrays; the family, and the links.

    The links are those of `compare`: of a Swin V2 whose case has all blocks; else `None`.
    """
    folder = pathlib.Path(folder)
    description = json.loads((folder / "config.json").read_text())
    config = config_of(description, folder.parent.name)
    (path,) = folder.glob("checkpoint.*")
    model = from_checkpoint(path, config=config)
    with np.load(folder / "io.npz") as file:
        io = dict(file)
    wanted = stages(config, description)
    got = keras_vit.features(model, sorted(set(wanted.values())))(io["images"])
    ours = {name: np.asarray(got[stage]) for name, stage in wanted.items()}
    links, has_attention = None, any(name.startswith("attention_") for name in io)
    if description["family"].startswith("swin"):
        is_whole = config.version == 2 and all(f"block_{i}" in io for i in range(sum(config.depths)))
        found = links_of(model, config, io) if is_whole or has_attention else {}
        ours |= {name: value for name, value in found.items() if name.startswith("attention_")}
        links = found if is_whole else None
    elif has_attention:
        maps = attention_maps(model, io["images"])
        ours |= {name.replace("encoder_block", "attention"): np.asarray(value) for name, value in maps.items()}
    if "tokens_note" in description and "tokens" in io:
        # The reference may leave the class token out of what it returns.
        ours["tokens"] = ours["tokens"][:, -io["tokens"].shape[1] :]
    return ours, io, description["family"], links


def _kind(name):
    return re.sub(r"_\d+$", "", name)


def _is_close(name, value, expected):
    """Whether an array is within the README's limit."""
    return np.allclose(value, expected, atol=TOLERANCES.get(_kind(name), DEFAULT), rtol=1e-5)


def compare(ours, io, family="vit", links=None):
    """The largest absolute difference of each array, and the names beyond the tolerance and beyond the README's.

    Args:
        ours, io: as from `outputs_of`.
        family: str.
        links: dict by the names of `io`, what each part makes of the reference's input, instead of the blocks and
            stages of `ours`; or `None`.
    """
    wide = family == "swin_v2"
    differences, beyond = {}, []
    # An array that is there to be compared must be: all results, and the attention, blocks and stages of all layers.
    listed = [name for name in io if name in (*_HEADS, "tokens") or re.fullmatch(r"(attention|block|stage)_\d+", name)]
    failed = [f"{name} not computed" for name in listed if name not in ours]
    linked = [name for name in links or () if name in io and not name.startswith("attention_")]
    failed += [f"{name} from its input" for name in linked if not _is_close(name, links[name], io[name])]
    for name, value in ours.items():
        if name not in io:
            continue
        if value.shape != io[name].shape:
            failed.append(f"{name} {value.shape} instead of {io[name].shape}")
            continue
        differences[name] = float(np.abs(value - io[name]).max()) if value.size else 0.0
        kind = _kind(name)
        if _is_close(name, value, io[name]) or (name in linked and kind in ("block", "stage")):
            continue
        limit = TOLERANCES_SWIN_V2.get(kind, DEFAULT_SWIN_V2)
        if links and kind == "pre_logits":
            limit = DEFAULT_SWIN_V2
        wider = wide and np.allclose(value, io[name], atol=limit, rtol=1e-5)
        (beyond if wider else failed).append(name)
    if not set(differences) & set(RESULTS):
        failed.append("nothing to compare")
    return differences, failed, beyond


def run(folder, out=None, log=print):
    """The number of cases that fail."""
    found, other = cases(folder)
    failures = 0
    for case in found:
        try:
            ours, io, *rest = outputs_of(pathlib.Path(folder) / case)
            differences, failed, beyond = compare(ours, io, *rest)
        except Exception as error:  # a case that cannot be read is a failed one, and the next is run
            failures += 1
            log(f"{case:45s} FAIL  {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        if out:
            target = pathlib.Path(out) / f"{case}.npz"
            target.parent.mkdir(parents=True, exist_ok=True)
            np.savez(target, **{name: ours[name] for name in RESULTS if name in ours})
        failures += bool(failed)
        numbers = "  ".join(
            f"{name} {differences[name]:.1e}" if name in differences else f"{name} -" for name in RESULTS
        )
        verdict = f"FAIL {', '.join(failed)}" if failed else "pass"
        noted = f" (beyond README: {', '.join(beyond)})" if beyond else ""
        log(f"{case:45s} {numbers}  {verdict}{noted}")
    for name in other:
        log(f"{name:45s} other")
    log(f"{len(found)} cases, {failures} failed")
    return failures if found else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("goldens", help="folder of cases")
    parser.add_argument("--out", help="folder for the computed arrays")
    arguments = parser.parse_args()
    sys.exit(bool(run(arguments.goldens, arguments.out)))


if __name__ == "__main__":
    main()
