"""The cluster of workers in the environment variable `TF_CONFIG`."""

import dataclasses
import json
import os
import re

VARIABLE = "TF_CONFIG"
_TASK_TYPES = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and the one that this process is.

    Args:
        workers: tuple of str, `host:port`, the chief first.
        index: int. The position of this process in `workers`.
    """

    workers: tuple = ("localhost",)
    index: int = 0

    @property
    def is_chief(self):
        """bool. Whether this process writes the files of a run."""
        return self.index == 0


def read_tf_config(text=None):
    """Reads and checks `TF_CONFIG`, before TensorFlow waits for machines that do not exist.

    Args:
        text: str, JSON such as `{"cluster": {"worker": ["a:1234", "b:1234"]}, "task": {"type": "worker", "index": 0}}`;
            the cluster may also have one `chief`. `None` reads the environment variable.

    Returns:
        A `Cluster`; of this machine alone if there is no `TF_CONFIG` or no cluster in it.

    Raises:
        ValueError: if the text is not such JSON, has other types of tasks, invalid addresses, or a task that is not in
            the cluster. Only a cluster of one machine may omit the task.

    Source: `tf.distribute.cluster_resolver.TFConfigClusterResolver`.
    """
    text = os.environ.get(VARIABLE, "") if text is None else text
    if not text.strip():
        return Cluster()
    cluster, task = _parse(text)
    if not cluster:
        return Cluster()
    if set(cluster) - set(_TASK_TYPES) or len(cluster.get("chief", ())) > 1:
        raise ValueError(
            f"a cluster of {VARIABLE} must consist of `worker` tasks and at most one `chief`. Received: {cluster}"
        )
    machines = [address for addresses in cluster.values() for address in addresses]
    if invalid := [address for address in machines if not _is_address(address)]:
        raise ValueError(f"a task of {VARIABLE} must have an address like host:port. Received: {invalid[0]!r}")
    if len(machines) == 1 and not task:
        task = {"type": next(kind for kind in cluster if cluster[kind]), "index": 0}
    kind, index = task.get("type"), task.get("index")
    is_known = isinstance(kind, str) and kind in cluster and type(index) is int
    if not is_known or not 0 <= index < len(cluster[kind]):
        raise ValueError(
            f"the task of {VARIABLE} must be one of its cluster. Received: type={kind!r}, index={index!r}, {cluster}"
        )
    chiefs = cluster.get("chief", [])
    workers = (*chiefs, *cluster.get("worker", ()))
    if len(set(workers)) < len(workers):
        raise ValueError(f"tasks of {VARIABLE} must have different addresses. Received: {list(workers)}")
    return Cluster(workers, index + (len(chiefs) if kind == "worker" else 0))


def _parse(text):
    """The dict from types of tasks to lists of addresses, and the task."""
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        if not isinstance(task, dict) or not all(isinstance(addresses, list) for addresses in cluster.values()):
            raise TypeError("each type of tasks must be a list, the task an object")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{VARIABLE} must be JSON with a cluster and a task ({error}). Received: {text!r}") from None
    return cluster, task


def _is_address(address):
    match = re.fullmatch(r"[^/\s]+:(\d{1,5})", address) if isinstance(address, str) else None
    return bool(match) and 0 < int(match[1]) < 2**16
