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
        noteworthy: bool. Whether a note to the user reports it: of a choice, or of a prefix that is part of the keys.
    """

    prefix: str = ""
    others: tuple = ()
    outside: tuple = ()
    beside: tuple = ()
    noteworthy: bool = False

    def note(self, skipped, selection):
        """Returns a note to the user, or `None`.

        Args:
            skipped: keys outside that are named in `skip=`.
            selection: `KeySelection`, whose arguments the note advises.
        """
        if not self.noteworthy:
            return None
        note = f"the keys after {self.prefix!r} are read" if self.prefix else "the keys without a prefix are read"
        if self.others:
            note += f", not those after {' or '.join(map(repr, self.others))} ({selection.argument('prefix')} chooses)"
        beside = [key for key in self.beside if key not in skipped]
        return f"{note}; not read beside them: {_summary(beside, self.prefix)}" if beside else note


def _summary(keys, prefix):
    """Summarizes keys: one name for all that begin alike, after the part they share with a prefix."""
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
    """Strips the names of wrappers and the numbers of chunks from keys.

    Args:
        keys: of the file.

    Returns:
        Dict from plain key to key; from each key to itself where two would have one name.
    """
    plain = {key: _WRAPPER.sub("", key) for key in keys}
    chunked = {key: _CHUNKED.sub(r"\1", name) for key, name in plain.items()}
    unique = next((names for names in (chunked, plain) if len(set(names.values())) == len(names)), None)
    return {key: key for key in keys} if unique is None else {name: key for key, name in unique.items()}


def find_subtrees(shapes, detect):
    """Finds every part of a file that has a known layout.

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
    """Selects entries with a prefix, by the rest of their keys, without those of longer prefixes among `others`."""
    longer = tuple(other for other in others if other.startswith(prefix) and other != prefix)
    return {
        key.removeprefix(prefix): value
        for key, value in shapes.items()
        if key.startswith(prefix) and not (longer and key.startswith(longer))
    }


def choose_subtree(path, parts, selection):
    """Chooses the prefix of the model to read.

    Of a model and its running average this is the average; among different models the caller must choose.

    Args:
        path: of the file, for messages.
        parts: dict from prefix to the shapes behind it, by key.
        selection: `KeySelection`, whose prefix is that of the model or its beginning, or `None`.

    Raises:
        ValueError: if no model or several match, and none is the average of the others.
    """
    prefix, argument = selection.prefix, selection.argument("prefix")
    if prefix is not None:
        plain = _WRAPPER.sub("", prefix if prefix[-1:] in ("", ".", "/") else f"{prefix}.")
        within = [plain] if plain in parts else [p for p in parts if p.startswith((plain, f"{plain[:-1]}/"))]
        if plain == "" and "" not in parts:
            within = []
        if len(within) != 1:
            raise ValueError(
                f"{argument} must stand in front of one model's keys in the file, which has {sorted(parts)}. "
                f"Received: {argument}{prefix!r} for {str(path)!r}"
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
    """Describes the `Subtree` of a chosen prefix.

    Args:
        prefix: the chosen one.
        parts: as for `choose_subtree`.
        names: dict from all plain keys of the file to its own.
        containers: prefixes that are containers of their own in the file.
    """
    others = tuple(sorted(set(parts) - {prefix}))
    own = {prefix + key for key in parts[prefix]}
    outside = tuple(key for key in names if key not in own)
    container = max((name for name in containers if prefix.startswith(name)), key=len, default="")
    models = tuple(other for other in others if other)
    beside = [key for key in outside if key.startswith(container) and not (models and key.startswith(models))]
    # Containers inside the outermost one hold nothing that belongs to the model.
    inner = tuple(name for name in containers if name.startswith(container) and name != container)
    beside = tuple(key for key in beside if not (inner and key.startswith(inner)))
    shown = {names[prefix + key].removesuffix(key) for key in parts[prefix]}
    shown = shown.pop() if len(shown) == 1 else prefix
    return Subtree(shown, others, outside, beside, bool(others or beside) or shown != container)
