"""Typed and checked overrides of a recipe, `--set a.b=value`."""

import ast
import dataclasses
import types
import typing

from keras_vit.validation import SYNONYMS, nearest


def apply_overrides(recipe, assignments):
    """Changes fields of nested dataclasses.

    Args:
        recipe: a `Recipe` or any frozen dataclass.
        assignments: iterable of `a.b=value` strings. Values are Python literals; what is none is a str. Of several
            for one field, and of several for fields that exclude each other, the last one counts.

    Returns:
        The changed copy.

    Raises:
        ValueError: on an unknown key, with the nearest one; on a value of the wrong type; on a value that the
            dataclass itself refuses.
    """
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ValueError(f"an override must look like a.b=value. Received: {assignment!r}")
        try:
            _add(changes, recipe, key.split("."), text, key)
        except UnknownField as error:
            raise ValueError(_misplaced(error, recipe, key, text)) from None
    if changes.get("weights") and changes["weights"] != getattr(recipe, "weights", None):
        choice = {name: value for name, value in changes.items() if name.startswith("weights_")}
        recipe = recipe.with_weights(changes["weights"], **choice)
    return _replace(recipe, changes)


class UnknownField(ValueError):
    """A field that a group does not have."""


def find_fields(config, name):
    """Finds the fields of nested dataclasses by the last part of their path.

    Args:
        config: a dataclass or the class of one, such as `Recipe`.
        name: str. `-` stands for `_`, case plays no part, and `keras_vit.validation.SYNONYMS` are known.

    Returns:
        A list of full paths, such as `["augment.mixup"]`; empty where no field has this name.
    """
    word = name.replace("-", "_").lower()
    paths = _paths(config)
    return next(
        (found for target in (word, SYNONYMS.get(word)) if (found := [p for p in paths if p.split(".")[-1] == target])),
        [],
    )


def _paths(config, prefix=""):
    """The full paths of all fields, those of groups that are not there yet included; each once."""
    kind = config if isinstance(config, type) else type(config)
    paths = {}
    for field in dataclasses.fields(kind):
        value, path = getattr(config, field.name, None), f"{prefix}{field.name}"
        groups = (
            [value] if dataclasses.is_dataclass(value) else filter(dataclasses.is_dataclass, _kinds(kind, field.name))
        )
        inside = [name for group in groups for name in _paths(group, f"{path}.")]
        paths |= dict.fromkeys(inside or [path])
    return list(paths)


def _misplaced(error, recipe, key, text):
    """The message about a field that is not where it was looked for: its full path, if another group has it."""
    elsewhere = find_fields(recipe, key.split(".")[-1])
    if not elsewhere:
        return str(error)
    typed = " or ".join(f"{path}={text}" for path in elsewhere)
    return f"a field is set by its full path, {typed}. Received: {key}={text}"


def _add(changes, config, path, text, key):
    """Puts the value of one assignment where it belongs in the nested dict `changes`.

    `config` is a dataclass, or the class of one that the recipe has not yet.
    """
    kind = config if isinstance(config, type) else type(config)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    name, *rest = path
    if name not in fields:
        raise UnknownField(
            f"unknown key of {kind.__name__}{nearest(name, fields)} Received: {key!r}, known: {sorted(fields)}"
        )
    kinds = _kinds(kind, name)
    value = getattr(config, name, None)
    if rest and dict in kinds and not dataclasses.is_dataclass(value):
        if len(rest) > 1:
            raise ValueError(f"{name}.{rest[0]!r} has no fields of its own. Received: {key!r}")
        changes.setdefault(name, {})[rest[0]] = _literal(text)
        return
    group = value if dataclasses.is_dataclass(value) else next(filter(dataclasses.is_dataclass, kinds), None)
    if rest:
        if group is None:
            raise ValueError(f"{name!r} has no fields of its own. Received: {key!r}")
        if changes.get(name) is None:  # Also after `name=none`, which a later field of it takes back.
            changes[name] = {}
        _add(changes[name], group, rest, text, key)
        return
    if group is not None and not (types.NoneType in kinds and text.lower() == "none"):
        known = sorted(field.name for field in dataclasses.fields(group))
        raise ValueError(f"{key!r} is a group; set one of its fields. Received: {key}={text!r}, known: {known}")
    value = _read(text, kinds, key)
    exclusive = getattr(kind, "exclusive", ())
    if name in exclusive and value is not None:
        for other in exclusive:
            changes.pop(other, None)
    changes[name] = value


def _kinds(kind, name):
    """Returns the types that a field of a dataclass allows."""
    hint = typing.get_type_hints(kind)[name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _replace(config, changes):
    """Applies all changes of a dataclass at once, so that fields that depend on each other are checked together."""
    values = {}
    for name, value in changes.items():
        if isinstance(value, dict):
            old = getattr(config, name)
            if not dataclasses.is_dataclass(old) and dict in _kinds(type(config), name):
                values[name] = {**(old or {}), **value}
                continue
            new = next(filter(dataclasses.is_dataclass, _kinds(type(config), name))) if old is None else None
            value = _make(new, value) if new else _replace(old, value)
        values[name] = value
    exclusive = getattr(config, "exclusive", ())
    if any(values.get(name) is not None for name in exclusive):
        values = {**dict.fromkeys(exclusive), **values}
    if "name" in values:
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        lost = [field for field, owners in getattr(config, "specific_to", {}).items() if values["name"] not in owners]
        values = {**{field: defaults[field] for field in lost}, **values}
    return dataclasses.replace(config, **values)


def _make(kind, values):
    """Creates a dataclass that the recipe does not have yet."""
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"a new {kind.__name__} needs {', '.join(missing)}. Received: {values}")
    return kind(**values)


def _literal(text):
    """Parses a Python literal; returns other text unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _read(text, kinds, key):
    """Parses `text` as one of the types that the field allows."""
    value = _literal(text)
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if value is None and origin is types.NoneType:
            return None
        if origin is tuple and isinstance(value, int | tuple | list) and not isinstance(value, bool):
            return value if isinstance(value, int) else tuple(value)
        if kind == tuple[str, ...] and isinstance(value, str):
            return (text.strip("'\""),)  # one pattern
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is str and not isinstance(value, bool | types.NoneType):
            return text.strip("'\"")
        if origin in (int, bool) and type(value) is origin:
            return value
    names = " or ".join("None" if k is types.NoneType else getattr(k, "__name__", str(k)) for k in kinds)
    raise ValueError(f"{key} must be {names}. Received: {key}={text!r}")
