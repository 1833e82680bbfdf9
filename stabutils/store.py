"""Runs on disk: one file a run, written once, verified at every reading, never unpickled.

A file holds named arrays and one JSON text, in safetensors format. The text carries a SHA-256 over itself and the
arrays; because the layout of a file is a function of its contents, reading checks *every* byte by laying the contents
out again. A damaged file is named, set aside as `<name>.damaged` and treated as missing, so the run is trained again.
"""
from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors import numpy as safetensors

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)")  # what Windows takes for devices, whatever the ending
FORMAT = 1
PACKED = ".safetensors.xz"  # of what is committed; the runs of a store are read often, and stay as they are
Arrays = dict[str, np.ndarray]


class DamagedFile(Exception):
    """A file of the store whose bytes are not the ones that were written."""


class DamagedRun(UserWarning):
    """A damaged run file was set aside and its run will be trained again."""


def slug(text: str, longest: int = 80) -> str:
    """Letters, digits, dots and dashes only: a part of a file name that is legal everywhere.

    >>> slug("LabelSmoothing(strength=0.1) seed 3")
    'labelsmoothing-strength-0.1-seed-3'
    """
    name = re.sub(r"[^a-z0-9.]+", "-", text.lower())[:longest].strip("-.") or "x"
    return f"x-{name}"[:longest].rstrip("-.") if RESERVED.match(name) else name


def canonical(value: object) -> str:
    """JSON text that equal values share: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(arrays: Arrays, record: dict) -> str:
    """SHA-256 (hex) of the arrays (name, type, shape, bytes) and the record, in an order of its own."""
    digest = hashlib.sha256(canonical(record).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")  # unlike ascontiguousarray, keeps () a shape
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def encode(arrays: Arrays, record: dict) -> bytes:
    """The bytes of a file. One metadata entry only: safetensors does not fix the order of several."""
    record = {**record, "format": FORMAT}
    text = canonical({**record, "sha256": content_hash(arrays, record)})
    return safetensors.save({name: np.asarray(a, order="C") for name, a in arrays.items()}, {"record": text})


def decode(blob: bytes) -> tuple[Arrays, dict]:
    """Arrays and record of `encode`. Raises DamagedFile unless every byte is as written."""
    try:
        arrays = safetensors.load(blob)
        (size,) = struct.unpack("<Q", blob[:8])
        record = json.loads(json.loads(blob[8:8 + size])["__metadata__"]["record"])
        found, _ = record.pop("format", None), record.pop("sha256")
        intact = encode(arrays, record) == blob  # its hash included
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"not a readable run file ({type(error).__name__})") from error
    if found != FORMAT:
        raise DamagedFile(f"format {found!r}; this version reads {FORMAT}")
    if not intact:
        raise DamagedFile("its bytes are not the ones that were written")
    return arrays, record


def write_file(path: Path, blob: bytes) -> None:
    """Write all of `blob` or nothing: a temporary name, flushed to the disk, then renamed over `path`.

    The temporary name is a function of `path`, so what a killed process left is overwritten by the next one.
    Raises OSError with the path: the system's own does not say which file found no room.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"{error.strerror}; what was finished before is kept", str(path)) from error
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def read_file(path: Path) -> tuple[Arrays, dict] | None:
    """Contents of a file of the store, or None where there is none; a damaged one is set aside with a warning."""
    try:
        blob = path.read_bytes()
        return decode(_unpacked(blob) if path.name.endswith(PACKED) else blob)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        aside = path.with_name(path.name + ".damaged")
        with suppress(OSError):  # another process was quicker, or nothing here can be changed
            os.replace(path, aside)
        warnings.warn(f"{path.name}: {error}; set aside as {aside.name}", DamagedRun, stacklevel=2)
        return None


def pack(blob: bytes) -> bytes:
    """The bytes of a committed file: equal ones for equal contents."""
    return lzma.compress(blob, preset=9 | lzma.PRESET_EXTREME)


def _unpacked(blob: bytes) -> bytes:
    try:
        return lzma.decompress(blob)
    except (EOFError, lzma.LZMAError) as error:
        raise DamagedFile(f"not an xz file ({type(error).__name__})") from error


class Store:
    """A folder of finished runs and, while they train, of where they stand.

    `name` of a run is a legal file name on every system. Several processes may share a store: `lock(name)` gives one
    of them at a time the right to train a run.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def partial(self, name: str) -> Path:
        """Where an unfinished training keeps its state."""
        return self.folder / "unfinished" / f"{name}.safetensors"

    def __contains__(self, name: str) -> bool:
        return self.path(name).is_file()

    def read(self, name: str) -> tuple[Arrays, dict] | None:
        found = read_file(self.path(name))
        if found is not None:
            self.forget(name)
        return found

    def write(self, name: str, arrays: Arrays, record: dict) -> None:
        """Keep a finished run."""
        write_file(self.path(name), encode(arrays, record))
        self.forget(name)

    def forget(self, name: str) -> None:
        """Remove the unfinished state of a finished run; at reading too, as the writer may have been killed here."""
        for path in (self.partial(name), _temporary(self.partial(name))):
            with suppress(OSError):  # a store that can only be read is one, too
                path.unlink(missing_ok=True)

    def lock(self, name: str) -> FileLock | None:
        """The held lock of a run, or None while another process holds it."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        # Not thread-local: joblib takes the next run, and so its lock, from whichever thread is free.
        lock = FileLock(locks / f"{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock
