"""One training at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import warnings
from pathlib import Path

from adaptau_ext.errors import TrainingError


class Lock:
    """Of a folder, until `release`, or until the process ends, by whatever end.

    Held on the file `.lock`, which stays. On a file system that has no locks there is a warning.

    Raises:
        TrainingError: if another process, or another lock of this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise TrainingError(
                f"{folder}: another training is going on there; wait for it, or choose another output"
            ) from None
        except OSError as problem:
            warnings.warn(
                f"{folder} is on a file system without locks ({problem.strerror}): nothing stops two "
                "trainings from writing there at a time",
                stacklevel=2,
            )

    def release(self) -> None:
        """Lets others in; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.release()
