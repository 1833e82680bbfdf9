"""A folder of trained runs that several processes may share."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stabutils.training.files import (
    Arrays,
    encode,
    read_file,
    read_header,
    temporary_name,
    write_file,
)


class Store:
    """Finished runs, one file each, and the state of those that are being trained.

    A run's name is a legal file name on every system. `lock(name)` gives one process at a time the
    right to train a run. Reading changes nothing, except that a damaged file is set aside.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def partial(self, name: str) -> Path:
        """Where an unfinished training keeps its state."""
        return self.folder / "unfinished" / f"{name}.safetensors"

    def header(self, name: str) -> tuple[set[str], dict] | None:
        """Names of the arrays of a run and its record, without reading or verifying the arrays."""
        return read_header(self.path(name))

    def read(self, name: str) -> tuple[Arrays, dict] | None:
        """Arrays and record of a run, every byte verified; None where there is no such run."""
        return read_file(self.path(name))

    def write(self, name: str, arrays: Arrays, record: dict) -> None:
        """Keep a finished run."""
        write_file(self.path(name), encode(arrays, record))
        self.forget(name)

    def forget(self, name: str) -> None:
        """Remove the unfinished state of a finished run."""
        partial = self.partial(name)
        for path in (partial, temporary_name(partial)):
            with suppress(OSError):  # a folder that can only be read has none to remove
                path.unlink(missing_ok=True)

    def lock(self, name: str) -> FileLock | None:
        """The held lock of a run, or None while another process holds it."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        # Not thread-local: joblib takes the next run, and so its lock, from whichever thread is
        # free.
        lock = FileLock(locks / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock
