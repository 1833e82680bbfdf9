"""Arrays on disk: written whole or not at all, verified at every reading, never unpickled.

A file holds named arrays and one JSON text, in safetensors format. The text carries a SHA-256 over
itself and the arrays. The layout of a file is a function of its contents, so reading checks *every*
byte by laying the contents out again.
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
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from stabutils.errors import InputError

# What Windows takes for devices, whatever the ending.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
FORMAT = 1
LARGEST_HEADER = 2**24  # bytes; a longer one is no file of ours
UNREADABLE = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# of what is committed; the runs of a store are read often, and stay as they are
PACKED = ".safetensors.xz"
Arrays = dict[str, np.ndarray]


class DamagedFile(Exception):
    """A file of the store whose bytes are not the ones that were written."""


class OtherFormat(DamagedFile):
    """A file that another version of this package wrote."""

    def __init__(self, version: object):
        super().__init__(f"format {version!r}")
        self.version = version


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
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """SHA-256 (hex) that equal values share."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def content_hash(arrays: Arrays, record: dict) -> str:
    """SHA-256 (hex) of the arrays (name, type, shape, bytes) and the record, in an order of its
    own.
    """
    digest = hashlib.sha256(canonical(record).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")  # unlike ascontiguousarray, keeps () a shape
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def encode(arrays: Arrays, record: dict) -> bytes:
    """The bytes of a file. One metadata entry only: safetensors does not fix the order of
    several.
    """
    record = {**record, "format": FORMAT}
    text = canonical({**record, "sha256": content_hash(arrays, record)})
    in_order = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return safetensors.save(in_order, {"record": text})


def decode(blob: bytes) -> tuple[Arrays, dict]:
    """Arrays and record of `encode`.

    Raises DamagedFile unless every byte is as written, OtherFormat for a file of another version.
    """
    try:
        arrays = safetensors.load(blob)
        (size,) = struct.unpack("<Q", blob[:8])
        record = _record(blob[8 : 8 + size])
        version, _ = record.pop("format", None), record.pop("sha256")
        intact = encode(arrays, record) == blob  # its hash included
    except UNREADABLE as error:
        raise DamagedFile(f"not a readable run file ({type(error).__name__})") from error
    if version != FORMAT:
        raise OtherFormat(version)
    if not intact:
        raise DamagedFile("its bytes are not the ones that were written")
    return arrays, record


def _record(header: bytes) -> dict:
    return json.loads(json.loads(header)["__metadata__"]["record"])


def write_file(path: Path, blob: bytes) -> None:
    """Write all of `blob` or nothing: a temporary name, flushed to the disk, then renamed.

    The temporary name is a function of `path`, so the next writer overwrites what a killed process
    left. Raises OSError with the path: the system's own does not say which file found no room.
    """
    temporary = temporary_name(path)
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
            reason = f"{error.strerror}; what was finished before is kept"
            raise OSError(error.errno, reason, str(path)) from error
        raise


def temporary_name(path: Path) -> Path:
    """What `write_file` calls a file until it is whole."""
    return path.with_name(f".{path.name}.tmp")


def read_file(path: Path, set_aside: bool = True) -> tuple[Arrays, dict] | None:
    """Arrays and record of a file, every byte verified, or None where there is none.

    A damaged file counts as none, with a warning. It is renamed to `<name>.damaged`, unless it is
    packed, which is published, or `set_aside` is False, as for files of users. Raises InputError
    for a file of another version, which is left alone.
    """
    packed = path.name.endswith(PACKED)
    try:
        blob = path.read_bytes()
        return decode(_unpacked(blob) if packed else blob)
    except FileNotFoundError:
        return None
    except OtherFormat as error:
        raise _refused(path, error) from None
    except DamagedFile as error:
        message = f"{path.name}: {error}"
    if set_aside and not packed:
        aside = path.with_name(path.name + ".damaged")
        with suppress(OSError):  # another process was quicker, or nothing here can be changed
            os.replace(path, aside)
        message += f"; set aside as {aside.name}"
    warnings.warn(message, DamagedRun, stacklevel=2)
    return None


def read_header(path: Path) -> tuple[set[str], dict] | None:
    """Names of the arrays of a file and its record; the arrays are neither read nor verified.

    None where there is no file, or none that can be read. Raises InputError for another version.
    """
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = file.read(min(size, LARGEST_HEADER))
        record = _record(header)
        names = json.loads(header).keys() - {"__metadata__"}
    except (OSError, struct.error, *UNREADABLE):
        return None
    if record.get("format") != FORMAT:
        raise _refused(path, OtherFormat(record.get("format")))
    return set(names), record


def _refused(path: Path, error: OtherFormat) -> InputError:
    allowed = f"format {FORMAT}; another version of this package wrote it, and it is left alone"
    return InputError(f"format of {path.name}", error.version, allowed)


def pack(blob: bytes) -> bytes:
    """The bytes of a published file: equal ones for equal contents."""
    return lzma.compress(blob, preset=9 | lzma.PRESET_EXTREME)


def _unpacked(blob: bytes) -> bytes:
    try:
        return lzma.decompress(blob)
    except (EOFError, lzma.LZMAError) as error:
        raise DamagedFile(f"not an xz file ({type(error).__name__})") from error
