"""States that go to the disk while training goes on."""

import concurrent.futures
import pathlib
import warnings

import numpy as np

from keras_vit.training import saved_state


class Writer:
    """Saves one state at a time in a thread.

    A disk that is full does not end a run: there is a warning, the last good state stays, and the next save may find
    room. Only `insist` raises.

    Args:
        path: of the file, as for `saved_state.save`.

    Attributes:
        saved: str. What is on the disk, in words.
    """

    def __init__(self, path):
        self.path, self.saved = pathlib.Path(path), "nothing new is saved"
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "keras_vit-save")
        self._job, self._wanted = None, ()

    def is_busy(self):
        """Whether a state is on its way."""
        return self._job is not None and not self._job.done()

    def write(self, values, state, metrics=()):
        """Saves a state if it is made of numbers; waits for the one before it. Arguments as for `saved_state.save`."""
        try:
            self._wait()
        except OSError as error:
            warnings.warn(f"{error}; training goes on", stacklevel=2)
        self._wanted = (values, state, metrics)
        self._job = self._pool.submit(self._save, *self._wanted)

    def insist(self):
        """Waits for what is on its way, and tries once more where it could not be written.

        Raises:
            OSError: if it cannot be written.
        """
        try:
            self._wait()
        except OSError:
            self._save(*self._wanted)

    def close(self):
        """Lets the thread go, when what is on its way is written."""
        self._pool.shutdown()

    def _wait(self):
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def _save(self, values, state, metrics):
        if not all_finite([*values, *metrics]):
            self._wanted = ()
            return
        place = saved_state.describe(state["epoch"], state["step"])
        try:
            saved_state.save(self.path, values, state, metrics)
        except OSError as error:
            raise OSError(
                f"the state {place} could not be saved; {self.saved}. Received: {error} for {str(self.path)!r}"
            ) from error
        self.saved, self._wanted = f"it is saved {place}", ()


def all_finite(arrays):
    """Whether arrays hold numbers alone, no infinity and no NaN."""
    return all(np.isfinite(array).all() for array in arrays)
