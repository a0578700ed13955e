"""Selects the keys of a checkpoint that fill a model: keys to skip, variables that stay new, a prefix."""

import collections.abc
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class KeySelection:
    """Chooses the keys of a checkpoint that fill a model; checked when it is made.

    Args:
        skip: sequence of regular expressions of keys to leave out.
        new: sequence of regular expressions of paths of variables that stay as they are.
        prefix: str in front of the keys of the model that is read, or `None`: the only one, or the average of two.
        argument_prefix: str in front of the names of these arguments where the caller knows them by longer ones, such
            as `weights_` in a recipe. Errors name them so.

    Raises:
        ValueError: on a single string, on what is no regular expression, or on a prefix that is no string.
    """

    skip: tuple = ()
    new: tuple = ()
    prefix: str | None = None
    argument_prefix: str = ""

    def __post_init__(self):
        for name in ("skip", "new"):
            patterns, argument = getattr(self, name), self.argument(name)
            is_list = isinstance(patterns, collections.abc.Iterable) and not isinstance(patterns, str | bytes)
            patterns = tuple(patterns) if is_list else patterns
            if not is_list or not all(isinstance(pattern, str) for pattern in patterns):
                raise ValueError(f"{argument} must be a list of regular expressions. Received: {argument}{patterns!r}")
            for pattern in patterns:
                _check_expression(argument, pattern)
            object.__setattr__(self, name, patterns)
        if self.prefix is not None and not isinstance(self.prefix, str):
            argument = self.argument("prefix")
            raise ValueError(f"{argument} must be a str or None. Received: {argument}{self.prefix!r}")

    def __bool__(self):
        return bool(self.skip or self.new or self.prefix is not None)

    def argument(self, name):
        """The name of an argument as the caller passes it, such as `skip=`."""
        return f"{self.argument_prefix}{name}="

    def check_matches(self, name, names, description):
        """Raises a `ValueError` for a pattern that matches nothing: it would hide a misspelling.

        Args:
            name: str, `skip` or `new`.
            names: what the patterns are to match.
            description: str. What the names are.
        """
        for pattern in getattr(self, name):
            if not matching(names, [pattern]):
                raise ValueError(f"{self.argument(name)} must match {description}. Received: {pattern!r}")


ALL_KEYS = KeySelection()


def matching(keys, patterns):
    """The keys in which one of the regular expressions is found."""
    return {key for key in keys if any(re.search(pattern, key) for pattern in patterns)}


def _check_expression(argument, pattern):
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{argument} must be a list of regular expressions. Received: {pattern!r} ({error})"
        ) from error
