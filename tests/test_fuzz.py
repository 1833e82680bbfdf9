"""Anything in any file or knob ends in a valid result or in one line of ours. STABUTILS_CASES=2000
asks for more.

With `-s` each test prints how many inputs there were and how they ended.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from stabutils import __main__ as main
from stabutils.data.datasets import Dataset, load_dataset
from stabutils.errors import InputError
from stabutils.publishing import notebooks
from stabutils.reports.reading import read_predictions
from stabutils.reports.stability import Report, report
from stabutils.training import files

CASES = int(os.environ.get("STABUTILS_CASES", 60))
COUNTS: dict[str, Counter] = {}


def fuzz(share: float = 1.0):
    """So many cases, always the same ones."""
    return settings(
        max_examples=max(5, int(share * CASES)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def ending(what: str, kind: type, attempt) -> None:
    """Count how an attempt ended: a result of the kind, or one line of ours. Any other ending fails
    the test.
    """
    try:
        assert isinstance(attempt(), kind)
        COUNTS.setdefault(what, Counter())["valid"] += 1
    except InputError as error:
        assert "\n" not in str(error) and ": got " in str(error) and "; expected " in str(error)
        COUNTS.setdefault(what, Counter())["refused"] += 1


@pytest.fixture(scope="module", autouse=True)
def counts():
    COUNTS.clear()
    yield
    for what, endings in COUNTS.items():
        print(f"\n{what}: {dict(endings)}", end="")


# ---- files that were in order once

TOKENS = [
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"',
    b"'",
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"x" * 100_000,
    b"\\ud800",
    b"\xe2\x80\xa8",
    b"text",
    b"label",
    b"train",
    b"test",
    b"split",
    b"=1+1",
    b"<script>",
    b"[" * 2000,
    b"true",
    b"!!python/object/apply:os.system",
    b"&a",
    b"*a",
]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 60), st.sampled_from(TOKENS)), max_size=4
)
codecs = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "latin-1", "utf-8-sig"])


def edited(content: bytes, changes) -> bytes:
    """Some stretches of a file replaced: (where, how much of it, by what)."""
    for place, length, token in changes:
        start = int(place * len(content))
        content = content[:start] + token + content[start + length :]
    return content


def recoded(text: str, codec: str) -> bytes:
    return text.encode(codec, "replace")


@contextlib.contextmanager
def file(name: str, content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(content)
        yield Path(folder, name)


# ---- data sets

words = st.one_of(
    st.sampled_from(["yes", "no", "maybe", "NA", "", " ", "=1", "a,b", 'q"', "ü", "x" * 2000]),
    st.text(max_size=8),
)
splits = st.sampled_from(["train", "train", "test", "validation", "dev", "", "tset"])
orderly = st.tuples(
    words.filter(str.strip),
    st.sampled_from(["yes", "no"]),
    st.sampled_from(["train", "train", "test"]),
)
rows = st.one_of(
    st.lists(st.tuples(words, words, splits), max_size=9),
    st.lists(orderly, min_size=4, max_size=12),
)


def as_csv(table) -> str:
    table = [("text", "label", "split"), *table]
    quoted = [[f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in row] for row in table]
    return "\n".join(map(",".join, quoted))


def as_jsonl(table) -> str:
    return "\n".join(
        json.dumps(dict(zip(("text", "label", "split"), row, strict=True))) for row in table
    )


def as_json(table) -> str:
    return json.dumps(
        {
            split: [row[:2] for row in table if row[2] == split]
            for split in {row[2] for row in table}
        }
    )


FORMS = {".csv": as_csv, ".jsonl": as_jsonl, ".json": as_json}


@fuzz()
@given(rows, st.sampled_from(list(FORMS)), codecs, edits)
def test_data_sets(table, form, codec, changes):
    with file(f"mine{form}", edited(recoded(FORMS[form](table), codec), changes)) as path:
        ending(f"data sets {form}", Dataset, lambda: load_dataset(path))


@fuzz()
@given(rows, edits, edits)
def test_data_sets_of_two_files(table, ours, theirs):
    first = as_csv([(*row[:2], "train") for row in table]).encode("utf-8", "replace")
    with file("train.csv", edited(first, ours)) as path:
        content = as_jsonl([(*row[:2], "test") for row in table[:3]]).encode("utf-8", "replace")
        path.with_name("test.jsonl").write_bytes(edited(content, theirs))
        ending("data sets of two files", Dataset, lambda: load_dataset(path.parent))


# ---- predictions

LONG = "".join(
    f"{run},{example},{'ab'[(run + example) % 2]},a,text {example}\n"
    for run in range(3)
    for example in range(4)
)
WIDE = "".join(f"{example},a,b,{'ab'[example % 2]},a\n" for example in range(4))
LABELS = np.arange(12).reshape(3, 4) % 3


def as_npy(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


PREDICTIONS = {
    "long.csv": b"run,example,label,gold,text\n" + LONG.encode(),
    "wide.csv": b"example,run1,run2,run3,gold\n" + WIDE.encode(),
    "labels.npy": as_npy(LABELS),
    "probabilities.npy": as_npy(np.full((3, 4, 2), 0.5)),
    "arrays.safetensors": save({"labels": LABELS, "gold": LABELS[0], "weights": np.ones(4)}),
    "rated.safetensors": save({"probabilities": np.full((3, 4, 2), 0.5, np.float32)}),
}


def reported(path: Path) -> Report:
    read = read_predictions(path)
    return report(
        read.labels, read.gold, read.texts, read.probabilities, read.label_names, read.weights
    )


@pytest.mark.filterwarnings("ignore")  # of numbers that a damaged array may hold
@fuzz(2)
@given(st.sampled_from(list(PREDICTIONS)), edits)
def test_predictions(name, changes):
    with file(name, edited(PREDICTIONS[name], changes)) as path:
        ending(f"predictions {Path(name).suffix}", Report, lambda: reported(path))


@pytest.mark.filterwarnings("ignore")
@fuzz()
@given(
    st.sampled_from(
        ["int8", "uint64", "float16", "float64", "bool", "complex64", "<U3", "S2", "datetime64[s]"]
    ),
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from([0, 1, -1, 200]),
)
def test_arrays_of_any_type_and_shape(kind, shape, value):
    with file("any.npy", as_npy(np.full(shape, value).astype(kind))) as path:
        ending("arrays of any type", Report, lambda: reported(path))


# ---- parameters and presets

SCHEMA = functools.cache(notebooks.schema)
NAMES = [
    "dataset",
    "model",
    "runs",
    "seed",
    "epochs",
    "learning_rate",
    "max_length",
    "precision",
    "workers",
    "output",
    "sede",
    "",
    "runs ",
]
VALUES = st.one_of(
    st.sampled_from(
        [
            "1",
            "0",
            "-1",
            "2",
            "none",
            "None",
            "nan",
            "inf",
            "1e400",
            "9" * 400,
            "0x10",
            "1_0",
            "true",
            "fp32",
            "bf16",
            "assistant",
            "\0",
            "\udcff",
            "../..",
            '"\n',
            "١",
        ]
    ),
    st.text(max_size=12),
)


@pytest.fixture
def dry(monkeypatch):
    """The runner up to the point where a notebook would be run."""
    monkeypatch.setattr(main, "schema", SCHEMA)
    values_of(None, [])  # else all would be refused, for want of a notebook


def values_of(preset, given_) -> dict:
    (path,) = notebooks.notebooks(["01"])
    return notebooks.parameters([path], preset, given_)[path]


@fuzz(2)
@given(given_=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=3))
def test_parameters(dry, given_):
    ending("parameters", dict, lambda: values_of(None, [list(pair) for pair in given_]))


@fuzz()
@given(
    settings_=st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(
            VALUES, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers())
        ),
        max_size=3,
    ),
    codec=codecs,
    changes=edits,
)
def test_presets(dry, settings_, codec, changes):
    content = "".join(
        f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in settings_.items()
    )
    with file("mine.yaml", edited(recoded(content, codec), changes)[:3000]) as path:
        ending("presets", dict, lambda: values_of(str(path), []))


@fuzz(0.2)
@given(
    words_=st.lists(
        st.one_of(
            st.sampled_from(["run", "report", "verify", "01", "-p", "--preset", "runs", "1"]),
            VALUES,
        ),
        max_size=4,
    )
)
def test_command_lines(dry, words_):
    """argparse's own refusals are exits with status 2 and a usage line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "execute", lambda *_: None)
        patch.setattr("stabutils.publishing.pages.write", lambda path: path)
        patch.setattr("stabutils.study.verify.command", lambda _: 0)
        try:
            status = main.main(words_)
        except SystemExit as end:
            status = end.code
    assert status in (0, 1, 2) and "Traceback" not in said.getvalue()
    COUNTS.setdefault("command lines", Counter())[f"status {status}"] += 1


# ---- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from test_models import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.filterwarnings("ignore")  # of transformers, about what is missing
@fuzz(0.3)
@given(
    name=st.sampled_from(
        ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    ),
    changes=edits,
    cut=st.one_of(st.none(), st.none(), st.floats(0, 1)),
)
def test_checkpoints(checkpoint, name, changes, cut):
    import tiny

    from stabutils.training.preparation import prepare
    from stabutils.training.task import Task

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(checkpoint, Path(folder, "bert")))
        content = edited((copy / name).read_bytes(), changes)
        (copy / name).write_bytes(content if cut is None else content[: int(cut * len(content))])
        ending("checkpoints", Task, lambda: prepare(str(copy), tiny.dataset(), tiny.RECIPE))


# ---- run files


def test_run_files():
    """Every byte of a run's file, each flipped in its highest, its lowest and all of its bits;
    every length.
    """
    blob = files.encode({"labels": LABELS.astype(np.int16)}, {"label": "x", "seeds": {"init": 0}})
    caught = 0
    for place in range(len(blob)):
        for damaged in (
            blob[:place],
            *(
                blob[:place] + bytes([blob[place] ^ flip]) + blob[place + 1 :]
                for flip in (1, 128, 255)
            ),
        ):
            with pytest.raises(files.DamagedFile):
                files.decode(damaged)
            caught += 1
    COUNTS["run files"] = Counter({"bytes": len(blob), "damages caught": caught})
