"""Finds the Vision Transformer in a file that holds more: behind prefixes, in containers, beside copies of itself.

What training programs write has the keys of a known layout somewhere inside, as `state_dict.model._orig_mod.blocks.0`,
`teacher.backbone.blocks.0` or `visual.trunk.blocks.0`. Here every key with which a layout begins is tried as the end of
a longer one; the shortest prefix behind which a layout is known is the model's.
"""

import dataclasses
import re

# Keys that every file of a layout has one of.
ANCHORS = (
    "patch_embed.proj.weight",
    "conv_proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embedding.weight",
    "embedding/kernel",
)
# Words in the name of a copy whose weights are the running average of another's. timm, DINO and DINOv2 evaluate those.
AVERAGED = {"ema", "averaged", "average", "avg", "swa", "teacher", "target"}
# torch.compile, activation checkpoints and FSDP wrap modules under names like `_orig_mod`; so do pickled modules.
_WRAPPER = re.compile(r"(?<![^./])_[^./]*[./]")
# DINOv2 puts its blocks into chunks: blocks.<chunk>.<block>.
_CHUNKED = re.compile(r"((?:^|[./])blocks\.)\d+\.(?=\d+\.)")


@dataclasses.dataclass(frozen=True)
class Subtree:
    """The part of a file that a model is read from.

    Args:
        prefix: str in front of its keys, as it stands in the file where it is the same for all.
        others: tuple of prefixes of other models in the file.
        outside: tuple of all keys that are left out.
        beside: tuple of those among them that lie in the same container, and are no other model's.
        tells: bool. Whether a user must hear of it: of a choice, or of a prefix that is part of the keys.
    """

    prefix: str = ""
    others: tuple = ()
    outside: tuple = ()
    beside: tuple = ()
    tells: bool = False

    def note(self, skipped, selection):
        """Message for the user, or `None`.

        Args:
            skipped: keys outside that are named in `skip=`.
            selection: `KeySelection`, whose arguments the note advises.
        """
        if not self.tells:
            return None
        note = f"read are the keys behind {self.prefix!r}" if self.prefix else "read are the keys without a prefix"
        if self.others:
            note += f", not those behind {' or '.join(map(repr, self.others))} ({selection.argument('prefix')} chooses)"
        beside = [key for key in self.beside if key not in skipped]
        return f"{note}; left out beside them: {_summary(beside, self.prefix)}" if beside else note


def _summary(keys, prefix):
    """Keys in few words: one name for all that begin alike, behind what they share with a prefix."""
    groups = {}
    for key in sorted(keys):
        parts, shared = re.split(r"(?<=[./])", key), 0
        for mine, theirs in zip(parts[:-1], re.split(r"(?<=[./])", prefix), strict=False):
            if mine != theirs:
                break
            shared += 1
        groups.setdefault("".join(parts[: shared + 1]), []).append(key)
    texts = [f"{name}* ({len(group)})" if name[-1:] in ("/", ".") else name for name, group in groups.items()]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def plain_keys(keys):
    """The keys of a file by plain ones: without the names of wrappers and the numbers of chunks.

    Args:
        keys: of the file.

    Returns:
        Dict from plain key to key; from each key to itself where two would have one name.
    """
    plain = {key: _WRAPPER.sub("", key) for key in keys}
    chunked = {key: _CHUNKED.sub(r"\1", name) for key, name in plain.items()}
    found = next((names for names in (chunked, plain) if len(set(names.values())) == len(names)), None)
    return {key: key for key in keys} if found is None else {name: key for key, name in found.items()}


def find_subtrees(shapes, detect):
    """Every part of a file in which a layout is known.

    Args:
        shapes: dict from plain key to shape.
        detect: callable of such a dict that gives a layout or `None`.

    Returns:
        Dict from prefix to layout.
    """
    found, tried = {}, set()
    for key in shapes:
        for anchor in ANCHORS:
            start = key.removesuffix(anchor)
            if start == key or start[-1:] not in ("", ".", "/"):
                continue
            for prefix in _parents(start):
                if prefix in found:
                    break
                if prefix not in tried:
                    tried.add(prefix)
                    layout = detect(behind(shapes, prefix))
                    if layout is not None:
                        found[prefix] = layout
                        break
    return found


def _parents(prefix):
    parts = re.split(r"(?<=[./])", prefix)
    return ["".join(parts[:count]) for count in range(len(parts))]


def behind(shapes, prefix, others=()):
    """Entries under a prefix, by the rest of their keys; without those under longer prefixes among `others`."""
    longer = tuple(other for other in others if other.startswith(prefix) and other != prefix)
    return {
        key.removeprefix(prefix): value
        for key, value in shapes.items()
        if key.startswith(prefix) and not (longer and key.startswith(longer))
    }


def choose_subtree(path, parts, selection):
    """The prefix of the model that is read.

    Of one model and its running average the average is taken; models that differ are for the caller to choose from.

    Args:
        path: of the file, for messages.
        parts: dict from prefix to the shapes behind it, by key.
        selection: `KeySelection`, whose prefix is the one that is asked for, or one that begins it, or `None`.

    Raises:
        ValueError: if there is none, or several of which none is an average of the others.
    """
    wanted, argument = selection.prefix, selection.argument("prefix")
    if wanted is not None:
        asked = _WRAPPER.sub("", wanted if wanted[-1:] in ("", ".", "/") else f"{wanted}.")
        within = [asked] if asked in parts else [p for p in parts if p.startswith((asked, f"{asked[:-1]}/"))]
        if asked == "" and "" not in parts:
            within = []
        if len(within) != 1:
            raise ValueError(
                f"{argument} must stand in front of one model's keys in the file, which has {sorted(parts)}. "
                f"Received: {argument}{wanted!r} for {str(path)!r}"
            )
        return within[0]
    if len(parts) == 1:
        return next(iter(parts))
    averages = [prefix for prefix in parts if AVERAGED & set(re.split(r"[^a-z]+", prefix.lower()))]
    if len(averages) == 1 and all(shapes == parts[averages[0]] for shapes in parts.values()):
        return averages[0]
    raise ValueError(
        f"{argument} must choose one of the models in the file: {', '.join(map(repr, sorted(parts)))}. "
        f"Received: {str(path)!r}"
    )


def make_subtree(prefix, parts, names, containers):
    """The `Subtree` of a chosen prefix.

    Args:
        prefix: the chosen one.
        parts: as for `choose_subtree`.
        names: dict from all plain keys of the file to its own.
        containers: prefixes that are containers of their own in the file.
    """
    others = tuple(sorted(set(parts) - {prefix}))
    own = {prefix + key for key in parts[prefix]}
    outside = tuple(key for key in names if key not in own)
    container = max((place for place in containers if prefix.startswith(place)), key=len, default="")
    models = tuple(other for other in others if other)
    beside = [key for key in outside if key.startswith(container) and not (models and key.startswith(models))]
    # The container of all holds others; what lies in those is beside nothing.
    inner = tuple(place for place in containers if place.startswith(container) and place != container)
    beside = tuple(key for key in beside if not (inner and key.startswith(inner)))
    shown = {names[prefix + key].removesuffix(key) for key in parts[prefix]}
    shown = shown.pop() if len(shown) == 1 else prefix
    return Subtree(shown, others, outside, beside, bool(others or beside) or shown != container)
