"""The machines of a run, as the environment variable `TF_CONFIG` names them."""

import dataclasses
import json
import os

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


def read_cluster(text=None):
    """What `TF_CONFIG` says, checked before TensorFlow waits for machines that will never come.

    Args:
        text: str, JSON such as `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`;
            beside `worker` there may be a `chief`, one machine. `None` reads the environment.

    Returns:
        A `Cluster`; one of this machine alone where there is no `TF_CONFIG` or no cluster in it.

    Raises:
        ValueError: if it is no such JSON, names other kinds of tasks, or no task of this process.

    Source: `tf.distribute.cluster_resolver.TFConfigClusterResolver`.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    if not text.strip():
        return Cluster()
    try:
        config = json.loads(text)
        machines, task = config.get("cluster") or {}, config.get("task") or {}
        counts = {kind: [str(address) for address in addresses] for kind, addresses in machines.items()}
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{VARIABLE} must be JSON with a cluster and a task ({error}). Received: {text!r}") from None
    if not counts:
        return Cluster()
    if set(counts) - set(_KINDS) or len(counts.get("chief", ())) > 1:
        raise ValueError(
            f"a cluster of {VARIABLE} must be made of `worker` tasks, and of one `chief` at most. Received: {counts}"
        )
    if kind not in counts or not 0 <= index < len(counts[kind]):
        raise ValueError(
            f"the task of {VARIABLE} must be one of its cluster. Received: type={kind!r}, index={index}, {counts}"
        )
    chiefs = counts.get("chief", [])
    workers = (*chiefs, *counts.get("worker", ()))
    if len(set(workers)) < len(workers):
        raise ValueError(f"every task of {VARIABLE} needs an address of its own. Received: {list(workers)}")
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))
