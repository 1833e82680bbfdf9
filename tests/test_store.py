from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from safetensors import numpy as safetensors

from stabutils.errors import InputError
from stabutils.study.store import Store
from stabutils.training import files
from stabutils.training.files import (
    PACKED,
    DamagedFile,
    DamagedRun,
    decode,
    encode,
    pack,
    read_file,
    write_file,
)

ARRAYS = {
    "labels": np.array([3, 1, 2]),
    "probabilities": np.array([[0.25, 0.75]], np.float32),
    "cost": np.array(1.5),
}
RECORD = {"label": "ein Läufer", "seeds": {"init": 0, "order": 1}, "list": [1, 2.5, None, True]}


def test_what_is_read_is_what_was_written():
    arrays, record = decode(encode(ARRAYS, RECORD))
    assert record == RECORD
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (
            arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        )  # a single number stays one
        assert np.array_equal(arrays[name], array)


def test_equal_contents_are_equal_bytes():
    shuffled = {name: np.array(ARRAYS[name], order="F") for name in reversed(ARRAYS)}
    assert encode(shuffled, dict(reversed(RECORD.items()))) == encode(ARRAYS, RECORD)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([3, 1, 9])},
        {"labels": np.array([3, 1, 2], np.int32)},
        {"labels": np.array([[3, 1, 2]])},
    ],
)
def test_the_hash_sees_values_types_and_shapes(change):
    assert files.content_hash(ARRAYS | change, RECORD) != files.content_hash(ARRAYS, RECORD)


def test_every_flipped_byte_is_detected():
    blob = encode({"labels": np.array([3, 1], np.int16)}, {"a": 1})
    assert len(blob) < 300
    for position in range(len(blob)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(blob)
            damaged[position] ^= flip
            with pytest.raises(DamagedFile):
                decode(bytes(damaged))


def test_every_truncation_and_every_tail_is_detected():
    blob = encode(ARRAYS, RECORD)
    for length in range(len(blob)):
        with pytest.raises(DamagedFile):
            decode(blob[:length])
    with pytest.raises(DamagedFile):
        decode(blob + b"\0")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "{}",
        '{"sha256": "", "a": NaN}',
        '{"sha256": "", "a": "\\ud800"}',
        "{",
        '{"sha256": [], "format": 1}',
        "[" * 100_000,
    ],
)
def test_a_foreign_safetensors_file_is_damaged_not_a_crash(text):
    with pytest.raises(DamagedFile):
        decode(safetensors.save({"x": np.zeros(2)}, {"record": text}))


def test_another_format_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(files, "FORMAT", 7)
    later = encode(ARRAYS, RECORD)
    monkeypatch.undo()
    with pytest.raises(DamagedFile, match="format 7"):
        decode(later)


@pytest.mark.parametrize("ending", [".safetensors", PACKED])
def test_a_file_of_another_version_is_left_alone_and_said(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FORMAT", 7)
    later = encode(ARRAYS, RECORD)
    monkeypatch.undo()
    path = tmp_path / f"run{ending}"
    write_file(path, pack(later) if ending == PACKED else later)
    readers = [files.read_file] + [files.read_header] * (ending != PACKED)
    for read in readers:
        with pytest.raises(InputError, match=f"format of run{ending}: got 7; expected format 1"):
            read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_header_tells_names_and_record_without_the_arrays(tmp_path):
    path = tmp_path / "run.safetensors"
    write_file(path, encode(ARRAYS, RECORD))
    names, record = files.read_header(path)
    assert names == ARRAYS.keys() and record.items() >= RECORD.items()
    path.write_bytes(path.read_bytes()[:-1])  # damage that only reading the arrays finds
    assert files.read_header(path)[0] == ARRAYS.keys()
    path.write_bytes(b"no header at all")
    assert files.read_header(path) is None and files.read_header(tmp_path / "none") is None


def test_a_damaged_file_is_named_and_set_aside(tmp_path):
    kept = Store(tmp_path)
    kept.write("run", ARRAYS, RECORD)
    blob = bytearray(kept.path("run").read_bytes())
    blob[-1] ^= 1
    kept.path("run").write_bytes(blob)
    with pytest.warns(DamagedRun, match="run.safetensors: .*set aside as run.safetensors.damaged"):
        assert kept.read("run") is None
    assert not kept.path("run").exists()
    assert (tmp_path / "run.safetensors.damaged").read_bytes() == blob  # evidence, not lost
    kept.write("run", ARRAYS, RECORD)
    assert kept.read("run")[1] == RECORD


def test_a_packed_file_holds_the_same_and_a_damaged_one_is_left_where_it_is(tmp_path):
    path, blob = tmp_path / f"arm{PACKED}", encode(ARRAYS, RECORD)
    write_file(path, pack(blob))
    arrays, record = read_file(path)
    assert record == RECORD and arrays.keys() == ARRAYS.keys() and pack(blob) == path.read_bytes()
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    for broken in (blob, pack(blob)[:-9], pack(blob[:-1]), pack(blob).replace(b"\x00", b"\x01")):
        path.write_bytes(broken)
        with pytest.warns(DamagedRun, match="arm.safetensors.xz: "):
            assert read_file(path) is None
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_damaged_file_that_another_process_sets_aside_first(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"nonsense")

    def quicker(blob):
        path.unlink()
        raise DamagedFile("nonsense")

    monkeypatch.setattr(files, "decode", quicker)
    with pytest.warns(DamagedRun):
        assert read_file(path) is None


def test_missing_is_none(tmp_path):
    assert Store(tmp_path / "nowhere").read("run") is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "run.safetensors"
    write_file(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_file_size_limit_half_way_through_a_write(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "run.safetensors"
    write_file(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError):
            write_file(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    kept = Store(tmp_path)
    write_file(kept.partial("run"), b"state")
    for path in (kept.path("run"), kept.partial("run")):
        files.temporary_name(path).write_bytes(b"half")
    kept.write("run", ARRAYS, RECORD)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["run.safetensors"]
    write_file(kept.partial("run"), b"state")  # killed between the run's file and the tidying up
    assert kept.read("run") is not None and kept.partial("run").exists()  # reading deletes nothing
    kept.write("run", ARRAYS, RECORD)
    assert not kept.partial("run").exists()


def test_one_process_at_a_time_holds_a_run_and_a_dead_one_none(tmp_path):
    script = textwrap.dedent("""
        import sys
        from stabutils.study.store import Store
        lock = Store(sys.argv[1]).lock("run")
        print(lock is not None, flush=True)
        sys.stdin.read()
    """)
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline().strip() == "True"
        assert Store(tmp_path).lock("run") is None
        other = Store(tmp_path).lock("another run")
        assert other is not None
        other.release()
        holder.kill()
    lock = Store(tmp_path).lock("run")
    assert lock is not None
    lock.release()


def test_nothing_in_the_package_unpickles():
    words = (
        "pickle.load",
        "torch.load",
        "joblib.load",
        "allow_pickle=True",
        "trust_remote_code=True",
        "read_pickle",
    )
    package = os.path.dirname(os.path.dirname(files.__file__))
    for folder, _, names in os.walk(package):
        for file in names:
            if file.endswith(".py"):
                with open(os.path.join(folder, file), encoding="utf-8") as text:
                    content = text.read()
                assert not [word for word in words if word in content], file


def test_canonical_text_has_no_not_a_number():
    assert files.canonical({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'
    with pytest.raises(ValueError):
        files.canonical({"a": float("nan")})


def test_a_record_lies_in_the_file_as_readable_text():
    blob = encode(ARRAYS, RECORD)
    size = int.from_bytes(blob[:8], "little")
    text = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["record"])
    assert (
        text["label"] == "ein Läufer"
        and text["format"] == files.FORMAT
        and len(text["sha256"]) == 64
    )


def test_reading_an_intact_file_warns_of_nothing(tmp_path):
    write_file(tmp_path / "x", encode(ARRAYS, RECORD))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_file(tmp_path / "x") is not None
