"""The machines of a run, as the environment variable `TF_CONFIG` names them."""

import dataclasses
import json
import os
import re

VARIABLE = "TF_CONFIG"
_KINDS = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Args:
        workers: tuple of str, `host:port`, the chief first.
        index: int. The place of this process among them.
    """

    workers: tuple = ("localhost",)
    index: int = 0

    @property
    def is_chief(self):
        """bool. Whether this process is the one that writes what a run leaves behind."""
        return self.index == 0


def read_tf_config(text=None):
    """What `TF_CONFIG` says, checked before TensorFlow waits for machines that will never come.

    Args:
        text: str, JSON such as `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`;
            beside `worker` there may be a `chief`, one machine. `None` reads the environment.

    Returns:
        A `Cluster`; one of this machine alone where there is no `TF_CONFIG` or no cluster in it.

    Raises:
        ValueError: if it is no such JSON, names other kinds of tasks, addresses that are none, or no task of this
            process, without which only a single machine can do.

    Source: `tf.distribute.cluster_resolver.TFConfigClusterResolver`.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    if not text.strip():
        return Cluster()
    counts, task = _read(text)
    if not counts:
        return Cluster()
    if set(counts) - set(_KINDS) or len(counts.get("chief", ())) > 1:
        raise ValueError(
            f"a cluster of {VARIABLE} must be made of `worker` tasks, and of one `chief` at most. Received: {counts}"
        )
    machines = [address for addresses in counts.values() for address in addresses]
    if wrong := [address for address in machines if not _is_address(address)]:
        raise ValueError(f"a task of {VARIABLE} must have an address like host:port. Received: {wrong[0]!r}")
    if len(machines) == 1 and not task:
        task = {"type": next(kind for kind in counts if counts[kind]), "index": 0}
    kind, index = task.get("type"), task.get("index")
    is_known = isinstance(kind, str) and kind in counts and type(index) is int
    if not is_known or not 0 <= index < len(counts[kind]):
        raise ValueError(
            f"the task of {VARIABLE} must be one of its cluster. Received: type={kind!r}, index={index!r}, {counts}"
        )
    chiefs = counts.get("chief", [])
    workers = (*chiefs, *counts.get("worker", ()))
    if len(set(workers)) < len(workers):
        raise ValueError(f"every task of {VARIABLE} needs an address of its own. Received: {list(workers)}")
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


def _read(text):
    """The lists of addresses by kind, and the task."""
    try:
        config = json.loads(text)
        machines, task = config.get("cluster") or {}, config.get("task") or {}
        if not isinstance(task, dict) or not all(isinstance(addresses, list) for addresses in machines.values()):
            raise TypeError("a kind of tasks is a list, the task an object")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{VARIABLE} must be JSON with a cluster and a task ({error}). Received: {text!r}") from None
    return machines, task


def _is_address(address):
    match = re.fullmatch(r"[^/\s]+:(\d{1,5})", address) if isinstance(address, str) else None
    return bool(match) and 0 < int(match[1]) < 2**16
