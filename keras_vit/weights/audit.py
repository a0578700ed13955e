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
        prefix: str. What stands in the file in front of the keys that were read.
        outside: tuple of keys of the file that are not behind it: of other models, of an optimizer, of other layers.
    """

    layout: str
    used: tuple
    skipped: tuple = ()
    unmodelled: tuple = ()
    replaced: tuple = ()
    new: tuple = ()
    notes: tuple = ()
    prefix: str = ""
    outside: tuple = ()


def matching(keys, patterns):
    """The keys in which one of the regular expressions is found."""
    return {key for key in keys if any(re.search(pattern, key) for pattern in patterns)}


def check_patterns(name, patterns, names, of_what):
    """Raises a `ValueError` for a pattern that matches nothing: it would hide a misspelling.

    Args:
        name: str, of the argument.
        patterns: sequence of regular expressions.
        names: what they are to match.
        of_what: str. What the names are.
    """
    if isinstance(patterns, str):
        raise ValueError(f"{name}= must be a list of regular expressions. Received: {name}={patterns!r}")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{name}= must be a list of regular expressions. Received: {pattern!r} ({error})"
            ) from error
        if not matching(names, [pattern]):
            raise ValueError(f"{name}= must match {of_what}. Received: {pattern!r}")


def raise_difference(path, layout, unused, unfilled, misshapen, prefix=""):
    """Raises a `ValueError` that lists all of it, if there is any.

    Args:
        path: of the file.
        layout: str.
        unused: keys that nothing takes.
        unfilled: dict from path of a variable to the keys that are missing.
        misshapen: dict from key or path to a pair of shapes, the file's and the model's.
        prefix: str in front of the keys in the file.
    """
    if not unused and not unfilled and not misshapen:
        return
    lines = [f"  - {key}  (in the file, no variable takes it)" for key in sorted(unused)]
    lines += [f"  + {ours}  (in the model, needs {', '.join(keys)})" for ours, keys in sorted(unfilled.items())]
    lines += [f"  ~ {name}  (file {theirs}, model {ours})" for name, (theirs, ours) in sorted(misshapen.items())]
    raise ValueError(
        "a checkpoint must fit the model, key by key; skip=[...] leaves out keys of the file, new=[...] variables of "
        f"the model. Received: {str(path)!r}, read as layout {layout!r}{f' behind {prefix!r}' if prefix else ''}:\n"
        + "\n".join(lines)
    )
