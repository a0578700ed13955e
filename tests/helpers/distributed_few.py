"""Two cases of `distributed_small.py`, for `tests/distribution/test_two_devices.py`."""

import functools

from distributed_small import small

FEW = ("clipnorm", "overwritten")  # the clip after the sum; averages, sample weights and several steps a call


def cases(kind, folder):
    """Functions from a strategy to a dict of arrays, by name."""
    return {name: functools.partial(small, name) for name in FEW}
