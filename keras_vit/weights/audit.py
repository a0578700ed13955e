"""The strict audit of a load: every key used, every variable filled, or one error with the whole difference."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Args:
        layout: str. The file's layout.
        used: tuple of keys that filled a variable.
        skipped: tuple of keys that `skip=` named.
        unmodelled: tuple of keys that belong to something the model is not, such as a text tower.
        replaced: tuple of keys of a head with another number of classes.
        new: tuple of paths of variables that keep their initial values.
        notes: tuple of str: what was resized or adapted.
    """

    layout: str
    used: tuple
    skipped: tuple = ()
    unmodelled: tuple = ()
    replaced: tuple = ()
    new: tuple = ()
    notes: tuple = ()


def matching(keys, patterns):
    """The keys in which one of the regular expressions is found."""
    return {key for key in keys if any(re.search(pattern, key) for pattern in patterns)}


def check_skips(keys, patterns):
    """Raises a `ValueError` for a pattern that matches no key: it would hide a misspelling."""
    for pattern in patterns:
        if not matching(keys, [pattern]):
            raise ValueError(f"skip= must match a key of the file. Received: {pattern!r}")


def raise_difference(path, layout, unused, unfilled, misshapen):
    """Raises a `ValueError` that lists all of it, if there is any.

    Args:
        path: of the file.
        layout: str.
        unused: keys that nothing takes.
        unfilled: dict from path of a variable to the keys that are missing.
        misshapen: dict from key or path to a pair of shapes, the file's and the model's.
    """
    if not unused and not unfilled and not misshapen:
        return
    lines = [f"  - {key}  (in the file, no variable takes it)" for key in sorted(unused)]
    lines += [f"  + {ours}  (in the model, needs {', '.join(keys)})" for ours, keys in sorted(unfilled.items())]
    lines += [f"  ~ {name}  (file {theirs}, model {ours})" for name, (theirs, ours) in sorted(misshapen.items())]
    raise ValueError(
        f"a checkpoint must fit the model, key by key; skip=[...] leaves keys out. Received: {str(path)!r}, read as "
        f"layout {layout!r}:\n" + "\n".join(lines)
    )
