"""`keras_vit list`: models, published weights and recipes by name."""

import difflib
import fnmatch
import json

from keras_vit.cli.console import say
from keras_vit.cli.info import counted_flops
from keras_vit.config.files import list_recipes, recipe_summary
from keras_vit.models import VARIANTS
from keras_vit.weights import catalog_entry
from keras_vit.zoo.create import list_models

# Minimum similarity of suggestions, and their maximum number.
_SIMILARITY, _SUGGESTIONS = 0.7, 3


def list(options):
    """Prints the names that match a pattern.

    Args:
        options: `pattern`, and `pretrained` or `recipes`.

    Raises:
        ValueError: if nothing matches, with the nearest names.
    """
    if options.recipes:
        _list_recipes(options.pattern, options.json)
    elif options.pretrained:
        _list_weights(options.pattern, options.json)
    else:
        _list_architectures(options.pattern, options.json)


def _print_json(rows):
    print(json.dumps(rows, indent=1, ensure_ascii=False))


def _list_recipes(pattern, as_json):
    names = fnmatch.filter(list_recipes(), pattern.lower())
    _check_matches(names, pattern, list_recipes(), "recipe", "keras_vit list --recipes")
    if as_json:
        _print_json([{"name": name, "summary": recipe_summary(name)} for name in names])
        return
    width = max(len(name) for name in names)
    for name in names:
        say(f"{name:<{width}}  {recipe_summary(name)}")


def _list_weights(pattern, as_json):
    names = list_models(pattern, pretrained=True)
    known = list_models(pretrained=True)
    _check_matches(names, pattern, known, "name of published weights", "keras_vit list --pretrained")
    if as_json:
        _print_json([_published(catalog_entry(name)) for name in names])
        return
    columns = "{:<60} {:>6} {:>7} {:>6}  {:<14} {}"
    say(columns.format("name", "MB", "pixels", "top-1", "license", "paper"))
    for name in names:
        entry = catalog_entry(name)
        top1 = "-" if entry.top1 is None else f"{entry.top1:.1f}"
        side = "x".join(str(s) for s in dict.fromkeys(entry.input_spec.size))
        say(columns.format(name, f"{entry.size / 1e6:.0f}", side, top1, entry.license, entry.paper))


def _published(entry):
    """Returns what is known of published weights as a dict of JSON types."""
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "source": entry.source,
        "parameters": entry.parameters,
        "bytes": entry.size,
        "image_size": [*entry.input_spec.size],
        "num_classes": entry.fields["num_classes"],
        "top1": entry.top1,
        "top1_source": entry.top1_source,
        "license": entry.license,
        "paper": entry.paper,
    }


def _list_architectures(pattern, as_json):
    names = list_models(pattern)
    if not names and (weights := list_models(pattern, pretrained=True)):
        raise ValueError(
            f"no architecture matches, but {len(weights)} {'name' if len(weights) == 1 else 'names'} of published "
            f"weights: `keras_vit list {_quoted(pattern)} --pretrained`. Received: {pattern!r}"
        )
    _check_matches(names, pattern, list_models(), "architecture", "keras_vit list")
    if as_json:
        _print_json([{"name": name, **_architecture(VARIANTS[name])} for name in names])
        return
    for name in names:
        say(name)


def _architecture(config):
    """Returns what is known of an architecture as a dict of JSON types."""
    return {
        "family": type(config).__name__,
        "image_size": [*config.image_size],
        "num_classes": config.num_classes,
        "flops": counted_flops(config),
    }


def _check_matches(names, pattern, known, what, command):
    """Raises a `ValueError` with suggestions unless there are names."""
    if names:
        return
    stem = pattern.strip("*?").lower()
    if stem and (containing := [name for name in known if stem in name]):
        count = f"{len(containing)} {'contains' if len(containing) == 1 else 'contain'} {stem!r}"
        # All of what `command` prints, or a part of it.
        words = command.split()
        words.insert(2, _quoted(f"*{stem}*"))
        advice = f"{count}: `{' '.join(words)}`"
    elif nearest := nearest_names(pattern, known):
        advice = f"did you mean {', '.join(nearest)}?"
    else:
        advice = f"see `{command}`"
    raise ValueError(f"no {what} matches; {advice} Received: {pattern!r}")


def nearest_names(pattern, known):
    """Finds the names whose beginning is most similar to a pattern: at most three, the best first.

    Args:
        pattern: str; `*` and `?` count as nothing.
        known: names.
    """
    stem = pattern.replace("*", "").replace("?", "").lower()
    ratios = {name: difflib.SequenceMatcher(None, stem, name[: len(stem)]).ratio() for name in known}
    likely = [name for name in sorted(known, key=lambda name: -ratios[name]) if ratios[name] >= _SIMILARITY]
    return likely[:_SUGGESTIONS]


def _quoted(pattern):
    """Quotes a pattern for a shell."""
    return f"'{pattern}'"
