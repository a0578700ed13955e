"""Base of the clients of both protocols: batches, retries, deadlines, types."""

import abc
import os
import pathlib
import random
import time

import numpy as np

from keras_vit_client.values import ServerError, column

# Seconds before the first repetition, doubled at each, and the longest pause; a random part of it is slept, so that
# the clients of a server that was away do not come back all at once.
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 2.0
_POLL_SECONDS = 0.2
_NOT_YET = ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED")


class Client(abc.ABC):
    """A model on a server. Threads may share a client; it is a context manager, which closes its connections.

    Args:
        model: str, the model's name on the server.
        version: int or `None`: that version. Default: what the server serves, which is its highest.
        label: str or `None`: the version with that label, for example `stable`.
        timeout: float. Seconds that a request may take with its retries; a long call makes several. Default 30.
        retries: int. How often a request is repeated after an UNAVAILABLE, HTTP 502 or 503, or a lost connection, and
            after nothing else: a request that the server refused would be refused again. Default 4.
        max_batch_size: int. Rows in a request, at most, as in the server's `batching.config`; longer calls are
            split. Default 8.
    """

    def __init__(self, model, version=None, label=None, timeout=30.0, retries=4, max_batch_size=8):
        if version is not None and label is not None:
            raise ValueError(f"a model has a version or a label. Received: version={version!r}, label={label!r}")
        if max_batch_size < 1 or retries < 0 or not timeout > 0:
            raise ValueError(
                "max_batch_size must be at least 1, retries at least 0, timeout positive. "
                f"Received: max_batch_size={max_batch_size!r}, retries={retries!r}, timeout={timeout!r}"
            )
        self.model, self.version, self.label = model, version, label
        self.timeout, self.retries, self.max_batch_size = timeout, retries, max_batch_size
        self._signatures = None

    def classify(self, images, signature="serving_default"):
        """Classifies encoded images.

        Args:
            images: iterable of paths and of `bytes`; files are read a batch at a time.
            signature: str. `serving_default`, or `strict`, for which one unreadable image is an error.

        Returns:
            A list with, for each image, a list of `(class name, score)`, best first, or `None` for an image that the
            server could not read. Of a regression they are `(number, value)`.

        Raises:
            ServerError: what the server answered.
            OSError: if a file cannot be read.
            ValueError: if `images` is one image.
        """
        if isinstance(images, str | bytes | os.PathLike):
            raise ValueError(f"images must be a list of paths or bytes. Received: {type(images)}")
        images, answers = list(images), []
        for start in range(0, len(images), self.max_batch_size):
            data = [_bytes(image) for image in images[start : start + self.max_batch_size]]
            outputs = self.predict(signature, {"image_bytes": data})
            valid = outputs.get("valid", [True] * len(data))
            if "values" in outputs:
                for row, is_valid in zip(outputs["values"].tolist(), valid, strict=True):
                    answers.append([(str(number), value) for number, value in enumerate(row)] if is_valid else None)
                continue
            for names, scores, is_valid in zip(outputs["classes"], outputs["scores"], valid, strict=True):
                row = list(zip(names.tolist(), scores.tolist(), strict=True))
                answers.append(row if is_valid else None)
        return answers

    def predict(self, signature, inputs):
        """Runs a signature.

        Args:
            signature: str, its name.
            inputs: dict of arrays or (nested) lists by input, all with the same leading dimension; a list of `bytes`
                or `str` for a string input.

        Returns:
            A dict of `np.ndarray` by output, in the types of the signature; strings are `str`, and `bytes` for
            outputs whose name ends in `_bytes`.

        Raises:
            ServerError: what the server answered.
            ValueError: if the inputs are not those of the signature.
        """
        known = self.signature(signature)
        if set(inputs) != set(known.inputs):
            raise ValueError(
                f"the inputs of the signature {signature!r} are {sorted(known.inputs)}. Received: {sorted(inputs)}"
            )
        columns = {name: column(value, known.inputs[name], name) for name, value in inputs.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        (rows, *others) = set(lengths.values())
        if others or not rows:
            raise ValueError(f"inputs must have one leading dimension of at least 1. Received: {lengths}")
        parts = []
        for start in range(0, rows, self.max_batch_size):
            chunk = {name: values[start : start + self.max_batch_size] for name, values in columns.items()}
            outputs = self._retried(lambda left, chunk=chunk: self._predict(signature, chunk, known, left))
            parts.append({name: np.asarray(value, known.outputs.get(name)) for name, value in outputs.items()})
        return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def signature(self, name):
        """The inputs and outputs of a signature; the server is asked for its signatures once.

        Args:
            name: str.

        Returns:
            A `Signature`.

        Raises:
            ServerError: what the server answered.
            ValueError: if the model has no such signature.
        """
        signatures = self._signatures
        if signatures is None or name not in signatures:
            # A version that came since may have it.
            signatures = self._signatures = self._retried(self._metadata)
        if name not in signatures:
            raise ValueError(f"the model's signatures are {sorted(signatures)}. Received: {name!r}")
        return signatures[name]

    def status(self):
        """The versions of the model that the server knows.

        Returns:
            A list of `VersionStatus`, highest version first.

        Raises:
            ServerError: what the server answered, for example NOT_FOUND.
        """
        versions = self._retried(self._status)
        return sorted(versions, reverse=True)

    def wait_until_ready(self, timeout=60.0):
        """Waits until a version is available; a server that does not listen yet, or knows no such model, may come.

        Args:
            timeout: float. Seconds. Default 60.

        Returns:
            The `VersionStatus` of the highest available version.

        Raises:
            ServerError: DEADLINE_EXCEEDED after the time, with what came last; at once where every version has ended
                with an error.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                versions = sorted(self._status(max(deadline - time.monotonic(), 0.01)), reverse=True)
                for found in versions:
                    if found.state == "AVAILABLE":
                        return found
                if versions and all(found.state == "END" and found.error for found in versions):
                    raise ServerError("FAILED_PRECONDITION", versions[0].error, f"loading {self.model}")
                last = ", ".join(f"version {found.version} {found.state}" for found in versions) or "no version"
            except ServerError as error:
                if error.code not in _NOT_YET:
                    raise
                last = str(error)
            if time.monotonic() + _POLL_SECONDS > deadline:
                raise ServerError("DEADLINE_EXCEEDED", f"after {timeout:g} s: {last}", f"waiting for {self.model}")
            time.sleep(_POLL_SECONDS)

    def _retried(self, attempt):
        """`attempt(seconds left)`, repeated while the server is unavailable and there is time."""
        deadline = time.monotonic() + self.timeout
        for repetition in range(self.retries + 1):
            try:
                return attempt(max(deadline - time.monotonic(), 0.001))
            except ServerError as error:
                pause = random.uniform(0, min(_MAX_PAUSE, _FIRST_PAUSE * 2**repetition))
                last = repetition == self.retries or time.monotonic() + pause >= deadline
                if error.code != "UNAVAILABLE" or last:
                    raise
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    @abc.abstractmethod
    def _predict(self, signature, columns, known, seconds):
        """One request; a dict of outputs."""

    @abc.abstractmethod
    def _metadata(self, seconds):
        """A dict of `Signature` by name."""

    @abc.abstractmethod
    def _status(self, seconds):
        """A list of `VersionStatus`."""

    @abc.abstractmethod
    def close(self):
        """Closes the connections."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _bytes(image):
    return bytes(image) if isinstance(image, bytes | bytearray | memoryview) else pathlib.Path(image).read_bytes()
