"""Datasets: published corpora, a user's own files, downloads from a local server, bad input of
every kind.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import threading
import types
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabutils.data import datasets
from stabutils.data import rows as rows_of
from stabutils.data.datasets import CORPORA, SHA256, Dataset, Split, load_dataset
from stabutils.errors import InputError

REAL = Path(os.environ.get("STABUTILS_DATA") or "no folder")
real = pytest.mark.skipif(
    not (REAL / "massive/en-US.jsonl").is_file(),
    reason="STABUTILS_DATA names no folder with the published corpora",
)

FINGERPRINTS = {
    "massive": "e74fa02522f6a933e7fbfe69706c82043e0a94b804becfb89fbec49fa7186ed6",
    "clinc150": "d6511028636ba47e2a6f1dbb807608135f1e8892b98d293143febf7dbce8b288",
    "banking77": "d97f1d1ea6dee5b6dde927ff13ee17bc36d28f8cb7659c84cbf2313954662e34",
}
TWENTY = [
    (f"{word} number {i}", label)
    for word, label in (("lamp", "lamp"), ("song", "music"))
    for i in range(10)
]


def write_csv(path: Path, rows, header=("text", "label")) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(path: Path, rows, header=("text", "label")) -> Path:
    lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rows]
    path.write_bytes("\n".join(lines).encode("utf-8"))
    return path


def pairs(data: Dataset, split: str) -> list[tuple[str, str]]:
    part = getattr(data, split)
    return [
        (text, data.label_names[label]) for text, label in zip(part.texts, part.labels, strict=True)
    ]


def everything(data: Dataset) -> list[tuple[str, str]]:
    return sorted(pairs(data, "train") + pairs(data, "validation") + pairs(data, "test"))


# Published corpora


@real
@pytest.mark.parametrize(
    "name, sizes, classes, first",
    [
        (
            "massive",
            (11_514, 2_033, 2_974),
            60,
            ("wake me up at nine am on friday", "alarm_set"),
        ),
        (
            "clinc150",
            (15_000, 3_000, 4_500),
            150,
            ("what expression would i use to say i love you if i were an italian", "translate"),
        ),
        (
            "clinc150_small",
            (7_500, 3_000, 4_500),
            150,
            (
                "can you walk me through setting up direct deposits to my bank of internet "
                "savings account",
                "direct_deposit",
            ),
        ),
        (
            "clinc150_imbalanced",
            (10_525, 3_000, 4_500),
            150,
            ("what are the steps for setting up direct deposit for my paycheck", "direct_deposit"),
        ),
        (
            "banking77",
            (9_003, 1_000, 3_080),
            77,
            ("I am still waiting on my card?", "card_arrival"),
        ),
    ],
)
def test_published_corpora(name, sizes, classes, first):
    data = load_dataset(name)
    assert data.name == name
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert len(data.label_names) == classes and list(data.label_names) == sorted(data.label_names)
    assert pairs(data, "train")[0] == first
    assert len(np.unique(data.train.labels)) == classes


@real
@pytest.mark.parametrize("name", ["massive", "clinc150", "banking77"])
def test_published_fingerprints_never_change(name):
    assert load_dataset(name, seed=5).fingerprint == FINGERPRINTS[name]


@real
def test_clinc_keeps_out_of_scope_apart():
    data = load_dataset("clinc150")
    assert {split: len(texts) for split, texts in data.out_of_scope.items()} == {
        "train": 100,
        "validation": 100,
        "test": 1000,
    }
    assert "oos" not in data.label_names
    assert not set(data.out_of_scope["test"]) & set(data.train.texts)


@real
def test_banking_validation_is_a_stratified_tenth_of_train():
    data = load_dataset("banking77")
    whole = np.bincount(data.train.labels) + np.bincount(data.validation.labels, minlength=77)
    share = np.bincount(data.validation.labels, minlength=77) / whole
    assert (whole.min(), whole.max()) == (35, 187)
    assert share.min() > 0.08 and share.max() < 0.12


@real
def test_a_users_copy_of_a_published_file_is_the_same_data(tmp_path):
    copy = shutil.copy(REAL / "massive/en-US.jsonl", tmp_path / "mine.jsonl")
    assert load_dataset(copy).fingerprint == load_dataset("massive").fingerprint


def test_local_files_are_verified_too(tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_DATA", str(tmp_path))
    (tmp_path / "banking77").mkdir()
    write_csv(tmp_path / "banking77/train.csv", TWENTY)
    with pytest.raises(InputError, match=r"banking77.train\.csv: got 'another content'"):
        load_dataset("banking77")
    monkeypatch.setenv("STABUTILS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="STABUTILS_DATA: got .*a folder that exists"):
        load_dataset("banking77")


# Downloads, from a server on this machine


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; paths under /truncated/ promise more bytes than they send, /flipped/ lie in
    one.
    """

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        mode, _, name = self.path.lstrip("/").partition("/")
        self.server.asked.append(name)
        try:
            body = Path(self.directory, name).read_bytes()
        except OSError:
            return self.send_error(404)
        sent = {
            "good": body,
            "truncated": body[:-1000],
            "short": body[:-1000],
            "flipped": bytes([body[0] ^ 1]) + body[1:],
        }[mode]
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent if mode == "short" else body)))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = True


def archive(path: Path, members: dict[str, bytes | None]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "../../../outside"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_csv(folder / "train.csv", TWENTY)
    write_csv(folder / "test.csv", TWENTY[:5])
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    httpd.asked = []
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    if (REAL / "massive/en-US.jsonl").is_file():
        copy_published(folder / "real")
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def copy_published(folder: Path) -> None:
    folder.mkdir()
    for name in ("banking77/train.csv", "banking77/test.csv", "clinc150/data_full.json"):
        shutil.copy(REAL / name, folder)
    english = (REAL / "massive/en-US.jsonl").read_bytes()
    archive(
        folder / "good.tar.gz",
        {
            "1.1/LICENSE": b"x",
            "../../escaped": b"x",
            "/escaped": b"x",
            datasets.MASSIVE_MEMBER: english,
            "1.1/data/fr-FR.jsonl": b"x",
        },
    )
    archive(
        folder / "other.tar.gz", {datasets.MASSIVE_MEMBER: english.replace(b"friday", b"sunday", 1)}
    )
    archive(folder / "without.tar.gz", {"1.1/data/fr-FR.jsonl": b"x"})
    archive(folder / "link.tar.gz", {datasets.MASSIVE_MEMBER: None})
    (folder / "nonsense.tar.gz").write_bytes(b"not an archive" * 100)
    (folder / "half.tar.gz").write_bytes((folder / "good.tar.gz").read_bytes()[:100_000])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Empty cache folder in place of the user's, and no local corpora."""
    monkeypatch.delenv("STABUTILS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "stabutils"


def cached(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def publish(server, monkeypatch):
    """publish("flipped", "massive", "good.tar.gz") makes the server the publisher of massive."""

    def at(mode: str, corpus: str, name: str = "", folder: str = "real/") -> str:
        address = f"http://127.0.0.1:{server.server_port}/{mode}/{folder}{name}"
        monkeypatch.setitem(datasets.PUBLISHERS, corpus, address)
        return address

    return at


@real
@pytest.mark.parametrize(
    "corpus, name", [("banking77", ""), ("clinc150", ""), ("massive", "good.tar.gz")]
)
def test_download_once_then_from_the_cache(cache, publish, server, tmp_path, corpus, name):
    publish("good", corpus, name)
    assert load_dataset(corpus).fingerprint == FINGERPRINTS[corpus]
    assert cached(tmp_path) == [f"cache/stabutils/{file}" for file in sorted(CORPORA[corpus])]
    server.asked.clear()
    assert load_dataset(corpus).fingerprint == FINGERPRINTS[corpus]
    assert server.asked == []


@real
@pytest.mark.parametrize(
    "mode, reason",
    [
        ("flipped", "a file with another checksum"),
        ("short", "a file with another checksum"),
        ("truncated", "no complete answer"),
        ("good/missing", "HTTP status 404"),
    ],
)
def test_bad_download_leaves_nothing_and_the_next_one_heals(cache, publish, mode, reason):
    address = publish(mode, "clinc150")
    with pytest.raises(InputError, match=reason) as caught:
        load_dataset("clinc150")
    assert str(caught.value).startswith(address) and "set STABUTILS_DATA" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.__suppress_context__
    assert cached(cache) == []
    publish("good", "clinc150")
    assert len(load_dataset("clinc150").train) == 15_000


@real
@pytest.mark.parametrize(
    "mode, name, reason",
    [
        ("good", "without.tar.gz", "no file 1.1/data/en-US.jsonl"),
        ("good", "link.tar.gz", "no file"),
        ("good", "nonsense.tar.gz", "a damaged archive"),
        ("good", "half.tar.gz", "a damaged archive"),
        ("good", "other.tar.gz", "another checksum"),
        ("truncated", "good.tar.gz", "no complete answer"),
    ],
)
def test_bad_archives(cache, publish, mode, name, reason):
    publish(mode, "massive", name)
    with pytest.raises(InputError, match=reason):
        load_dataset("massive")
    assert cached(cache) == []


@real
def test_damaged_cache_is_downloaded_again(cache, publish):
    publish("good", "banking77")
    fingerprint = load_dataset("banking77").fingerprint
    (cache / "banking77/test.csv").write_bytes(b"text,category\n")
    assert load_dataset("banking77").fingerprint == fingerprint


def test_download_of_small_files(cache, publish, monkeypatch, tmp_path):
    for name, rows in (("train.csv", TWENTY), ("test.csv", TWENTY[:5])):
        digest = hashlib.sha256(write_csv(tmp_path / name, rows).read_bytes()).hexdigest()
        monkeypatch.setitem(SHA256, f"banking77/{name}", digest)
    publish("flipped", "banking77", folder="")
    with pytest.raises(InputError, match="another checksum"):
        load_dataset("banking77")
    assert cached(cache) == []
    publish("good", "banking77", folder="")
    assert pairs(load_dataset("banking77"), "test") == TWENTY[:5]


def test_server_down(cache, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    monkeypatch.setitem(datasets.PUBLISHERS, "clinc150", f"http://127.0.0.1:{port}/")
    with pytest.raises(
        InputError, match="no complete answer .ConnectionError.*clinc150/data_small.json"
    ):
        load_dataset("clinc150_small")
    assert cached(cache) == []


def test_cache_that_cannot_be_written(cache, monkeypatch):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setitem(datasets.PUBLISHERS, "clinc150", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match="cache"):
        load_dataset("clinc150")


def test_addresses_are_pinned_and_every_file_has_a_checksum():
    assert {file for files in CORPORA.values() for file in files} == set(SHA256)
    assert all(len(digest) == 64 for digest in SHA256.values())
    assert "828f8093932c8fe6ca7936c3d2e52903b1c523de" in datasets.PUBLISHERS["clinc150"]
    assert "57ec275d8078af65b7731c2a98be812d844a6d6b" in datasets.PUBLISHERS["banking77"]


# The embedded corpus


def test_assistant_is_embedded():
    data = load_dataset("assistant")
    assert 1_500 <= len(data.train) <= 3_000 and 600 <= len(data.test) <= 1_000
    assert len(data.test.tags) == len(data.test) and all(data.test.tags)


def test_assistant_comes_through_its_generator(monkeypatch):
    def generate(seed=0):
        return {
            split: [(f"text {seed} {i}", f"intent {i % 3}", "clear") for i in range(9)]
            for split in ("train", "validation", "test")
        }

    monkeypatch.setitem(
        sys.modules, "stabutils.data.assistant", types.SimpleNamespace(generate=generate)
    )
    data = load_dataset("assistant")
    assert data.name == "assistant" and data.train.texts[2] == "text 0 2"
    assert data.label_names == ("intent 0", "intent 1", "intent 2")
    assert data.test.tags == ("clear",) * 9
    other = load_dataset("assistant:3")
    assert other.name == "assistant:3" and other.fingerprint != data.fingerprint
    assert other.fingerprint == load_dataset("assistant", seed=3).fingerprint


@pytest.mark.parametrize("name", ["assistant:", "assistant:-1", "assistant:x", "assistant:²"])
def test_assistant_seed_is_a_number(name):
    with pytest.raises(InputError, match="assistant:<seed>"):
        load_dataset(name)


# A user's own files


@pytest.mark.parametrize("write, end", [(write_csv, ".csv"), (write_jsonl, ".jsonl")])
@pytest.mark.parametrize(
    "header", [("text", "label"), ("Utterance", " Intent"), ("query", "category")]
)
def test_single_file_is_cut_70_10_20(tmp_path, write, end, header):
    data = load_dataset(write(tmp_path / f"mine{end}", TWENTY, header))
    assert data.name == "mine"
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.bincount(data.validation.labels).tolist() == [1, 1]
    assert everything(data) == sorted(TWENTY)


def test_seed_draws_the_cut_and_nothing_else(tmp_path):
    path = write_csv(tmp_path / "mine.csv", TWENTY)
    assert (
        load_dataset(path, seed=1).fingerprint
        == load_dataset(str(path), seed=np.int64(1)).fingerprint
    )
    assert len({load_dataset(path, seed=seed).fingerprint for seed in range(5)}) == 5


def test_split_column_and_aliases(tmp_path):
    rows = [("a", "x", "train"), ("b", "y", " Train "), ("c", "y", "dev"), ("d", "x", "test")]
    data = load_dataset(write_csv(tmp_path / "mine.csv", rows, ("text", "label", "partition")))
    assert pairs(data, "train") == [("a", "x"), ("b", "y")]
    assert pairs(data, "validation") == [("c", "y")] and pairs(data, "test") == [("d", "x")]


def test_json_of_three_shapes(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps([{"text": text, "label": label} for text, label in TWENTY]), encoding="utf-8"
    )
    assert everything(load_dataset(path)) == sorted(TWENTY)
    path.write_text(json.dumps(TWENTY), encoding="utf-8")
    assert everything(load_dataset(path)) == sorted(TWENTY)
    shape = {
        "train": TWENTY,
        "val": [["v", "lamp"]],
        "test": [{"text": "t", "label": "music"}],
        "oos_val": [["o", "oos"]],
    }
    path.write_text(json.dumps(shape), encoding="utf-8")
    data = load_dataset(path)
    assert pairs(data, "train") == TWENTY and pairs(data, "test") == [("t", "music")]
    assert data.out_of_scope == {"validation": ("o",)}


def test_folder_with_and_without_validation(tmp_path):
    write_csv(tmp_path / "train.csv", TWENTY)
    write_jsonl(tmp_path / "test.jsonl", [("a lamp", "lamp")])
    (tmp_path / "notes.txt").write_text("ignored", encoding="utf-8")
    data = load_dataset(tmp_path)
    assert data.name == tmp_path.name
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 1)
    write_csv(tmp_path / "dev.csv", [("another lamp", "lamp")])
    assert len(load_dataset(tmp_path).train) == 20


def test_words_that_other_readers_take_for_missing_survive(tmp_path):
    rows = [("NA", "None"), ("null", "nan"), ("NaN", "None"), ("None", "nan")]
    assert everything(load_dataset(write_csv(tmp_path / "mine.csv", rows))) == sorted(rows)


def test_byte_order_mark_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "mine.csv"
    text = 'text,label\r\n"one, ""two""\r\nthree",x\r\n\r\n  padded ,x\r\na,y\r\nb,y\r\nc,y\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    assert everything(load_dataset(path)) == [
        ("a", "y"),
        ("b", "y"),
        ("c", "y"),
        ('one, "two"\r\nthree', "x"),
        ("padded", "x"),
    ]


def test_numbered_labels_of_json(tmp_path):
    path = write_jsonl(tmp_path / "mine.jsonl", [(f"text {i}", i % 2) for i in range(8)])
    assert load_dataset(path).label_names == ("0", "1")


def test_rare_classes_stay_in_train(tmp_path):
    rows = TWENTY + [("only one", "rare"), ("of two", "pair"), ("two of", "pair")]
    for seed in range(20):
        data = load_dataset(write_csv(tmp_path / "mine.csv", rows), seed)
        assert len(np.unique(data.train.labels)) == 4 == len(data.label_names)


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "a.csv",
            "text,intention\nx,y\n",
            "a.csv, line 1: columns: got 'text, intention'; expected a column label or intent",
        ),
        ("a.csv", "text/label\nx/y\n", "line 1: columns: got 'text/label'"),
        ("a.csv", "text,text,label\nx,y,z\n", "one column of texts, not two"),
        ("a.csv", "text,label,intent\nx,y,z\n", "one column of labels, not two"),
        ("a.csv", "", "line 1: columns: got ''"),
        ("a.csv", "text,label\n", "a.csv: got 'no rows'"),
        ("a.csv", "text,label\nx,y\n  ,y\n", "a.csv, line 3: text: got '  '"),
        ("a.csv", "text,label\nx,y\nz,\n", "a.csv, line 3: label: got ''"),
        (
            "a.csv",
            "text,label\nx,y\nz,y\n",
            r"labels of train: got \"only 'y'\"; expected at least two",
        ),
        ("a.csv", "text,label\nx,y\nz,w\n", "rows of each class: got 1; expected more rows"),
        ("a.csv", "text,label\nx,y\na, b,y\n", "line 3: got '3 cells'; expected 2"),
        ("a.csv", 'text,label\n"two\nlines",y\nz\n', "line 4: got '1 cells'"),
        (
            "a.csv",
            'text,label\nx,y\n"never closed,y\nz,w\n',
            "a.csv, line 3: got 'a quote that opens in this row and never closes'",
        ),
        (
            "a.csv",
            "text,label\n" + "x" * 1_000_001 + ",y\n",
            "line 2: got 'a cell of more than 1,000,000 characters, perhaps an unclosed quote'",
        ),
        (
            "a.csv",
            "text,label\nx\0,y\n",
            "a.csv, line 2: got 'byte 0x00'; expected text saved as UTF-8",
        ),
        ("a.csv", "text,label\nx,y\nétude,z\n".encode("latin-1"), "a.csv, line 3: got 'byte 0xe9'"),
        ("a.csv", "text,label\nx,y\n".encode("utf-16"), "line 1: got 'byte 0xff'"),
        (
            "a.csv",
            "text,label,split\nx,y,train\nz,w,tset\n",
            "line 3: split: got 'tset'; expected train, test",
        ),
        (
            "a.csv",
            "text,label,split\nx,y,train\nz,w,\n",
            "line 3: split: got ''; expected a split in every row",
        ),
        ("a.csv", "text,label,split\nx,y,train\nz,w,train\n", "test split: got 'no rows'"),
        ("a.csv", "text,label,split\nx,y,test\nz,w,test\n", "train split: got 'no rows'"),
        (
            "a.csv",
            "text,label,split\nx,lamp,train\nz,w,train\nv,lamps,test\n",
            r"line 4: label: got 'lamps'; expected one of the 2 labels of train \(did you mean 'lamp'\?\)",
        ),
        (
            "a.csv",
            "text,label,split\nx,y,train\nz,w,train\nv,q,dev\nu,y,test\n",
            "line 4: label: got 'q'",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": "y"}\n{"text": "x", \n',
            "a.jsonl, line 2: got 'Expecting",
        ),
        ("a.jsonl", '{"text": "x", "label": "y"}\n\n{"text": "x"}', "line 3: columns: got 'text'"),
        ("a.jsonl", '{"text": "x", "label": null}', "line 1: label: got None"),
        ("a.jsonl", '{"text": "x", "label": NaN}', "line 1: label: got nan"),
        (
            "a.jsonl",
            '{"text": "x", "label": true}',
            "line 1: label: got True; expected a text or a whole number$",
        ),
        ("a.jsonl", '{"text": 7, "label": "y"}', "line 1: text: got 'a number'; expected a text$"),
        (
            "a.jsonl",
            '{"text": "x\\u0000", "label": "y"}',
            "line 1: text: got .* without NUL characters",
        ),
        (
            "a.jsonl",
            '{"text": "\\ud83d", "label": "y"}',
            "line 1: text: got .* a text of valid Unicode",
        ),
        (
            "a.jsonl",
            '{"text": "x", "label": "y", "text": "z"}',
            "line 1: got 'a key that stands twice",
        ),
        ("a.jsonl", '{"text": "x", "label": "y", "split": 3}', "line 1: split: got 'a number'"),
        ("a.jsonl", '["x", "y", "z"]', "line 1: got 'a list'"),
        ("a.jsonl", "[" * 100_000, "line 1: got 'maximum recursion"),
        ("a.jsonl", '{"text": "x", "label": ' + "9" * 5000 + "}", "line 1: got 'Exceeds the limit"),
        ("a.json", '[\n["x", "y"],\n["x" "y"]]', "a.json, line 3: got .Expecting"),
        ("a.json", '[["x", "y"], ["x", ""]]', "a.json, item 2: label: got ''"),
        ("a.json", '{"data": []}', "a.json: split: got 'data'"),
        ("a.json", '{"train": {}}', "a.json, train: got 'an object'; expected a list"),
        ("a.json", '"text"', "a.json: got 'text'; expected a list"),
        ("a.json", '{"train": [["x", "y"], ["z"]]}', "a.json, train, item 2: got 'a list'"),
        (
            "a.txt",
            "text,label\n",
            "dataset file: got .*a regular file that ends in .csv, .jsonl, .json, .tsv, .parquet",
        ),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    limit = csv.field_size_limit()
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)
    assert csv.field_size_limit() == limit


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="train file: got 'an empty folder'"):
        load_dataset(tmp_path)
    write_csv(tmp_path / "train.csv", TWENTY)
    with pytest.raises(
        InputError, match=r"test file: got 'train\.csv'; expected test\.csv or test\.jsonl"
    ):
        load_dataset(tmp_path)
    write_csv(tmp_path / "test.csv", [])
    with pytest.raises(InputError, match=r"test\.csv: got 'no rows'"):
        load_dataset(tmp_path)
    write_csv(tmp_path / "test.csv", [("x", "lamp", "train")], ("text", "label", "split"))
    with pytest.raises(InputError, match=r"test\.csv, line 2: split: got 'train'; expected test"):
        load_dataset(tmp_path)
    write_jsonl(tmp_path / "test.jsonl", TWENTY)
    with pytest.raises(
        InputError, match=r"test files: got 'test\.csv, test\.jsonl'; expected one of them"
    ):
        load_dataset(tmp_path)


def test_unreadable_file(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    path = write_csv(tmp_path / "mine.csv", TWENTY)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match=r"mine\.csv: got 'Permission denied'; expected a readable file"
    ):
        load_dataset(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="a regular file"):
        load_dataset(tmp_path / "pipe.csv")


@pytest.mark.parametrize(
    "name, message",
    [
        ("masive", r"got 'masive'; expected assistant, massive, .*\(did you mean 'massive'\?\)"),
        ("CLINC150", "did you mean 'clinc150'"),
        ("qqqq", "file that exists$"),
        ("", "expected assistant"),
        ("no\0path", "expected assistant"),
        ("x" * 5000, "expected assistant"),
        (None, "dataset: got None; expected a path or one of assistant"),
        (3, "got 3"),
        (["massive"], "a path"),
        (Path("massive"), "file that exists"),
    ],
)
def test_unknown_names(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_dataset(name)


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
def test_bad_seeds(seed):
    with pytest.raises(InputError, match="dataset seed: got .*at least 0"):
        load_dataset("massive", seed)


# Split and Dataset


def test_labels_cannot_be_changed():
    labels = np.array([0, 1])
    split = Split(["a", "b"], labels)
    labels[0] = 1
    assert split.labels.tolist() == [0, 1] and split.labels.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 1


@pytest.mark.parametrize("labels, tags", [([0], ()), ([[0, 1]], ()), ([0, 1], ("only one",))])
def test_lengths_have_to_agree(labels, tags):
    with pytest.raises(InputError, match="one label for each text"):
        Split(("a", "b"), labels, tags)


def tiny(
    name="tiny", texts=("a", "b"), labels=(0, 1), names=("x", "y"), validation=("c",), tags=()
):
    return Dataset(
        name, Split(texts, labels, tags), Split(validation, [0]), Split(("d",), [1]), names
    )


def test_fingerprint_sees_what_changes_answers_and_nothing_else():
    same = tiny().fingerprint
    assert same == tiny("other name").fingerprint == tiny(tags=("p", "q")).fingerprint
    changed = [
        tiny(texts=("a", "B")),
        tiny(labels=(1, 0)),
        tiny(names=("x", "z")),
        tiny(validation=("e",)),
        tiny(texts=("b", "a"), labels=(1, 0)),
    ]
    assert len({same, *(data.fingerprint for data in changed)}) == 6
    assert same == "2d7faba892de41867c8444e0a4b827ed7b472060383580baabbe57a8db43e0e6"


# Properties

nasty = st.sampled_from("\",\n\r\t \u2028\x85\x1c{}[]\\'=<é🙂")
words = st.one_of(
    st.text(nasty, min_size=1, max_size=6),
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(["NA", "null", "=1+1", "<script>", "a\r\nb"]),
)
words = words.filter(lambda word: word.strip() and "\0" not in word)
labels = st.sampled_from(["x", "y", "None", "a,b", 'q"'])
corpora = st.lists(st.tuples(words, labels), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=corpora, seed=st.integers(0, 5))
def test_files_come_back_word_for_word(rows, seed):
    rows = [*rows, ("one", "x"), ("two", "y"), ("three", "x"), ("four", "x")]
    expected = sorted((text.strip(), label) for text, label in rows)
    with tempfile.TemporaryDirectory() as folder:
        table = load_dataset(write_csv(Path(folder, "mine.csv"), rows), seed)
        lines = load_dataset(write_jsonl(Path(folder, "mine.jsonl"), rows), seed)
    assert everything(table) == expected
    assert table.fingerprint == lines.fingerprint
    assert set(table.train.labels) == set(range(len(table.label_names)))
    assert len(table.validation) >= 1 and len(table.test) >= 1


tokens = st.sampled_from(
    [
        b"text",
        b"label",
        b"split",
        b"train",
        b"test",
        b"x",
        b" ",
        b",",
        b"\n",
        b"\r",
        b'"',
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"\\ud800",
        b"NaN",
        b"1e999",
        b'{"text":"a","label":"b"}',
        b'["a","b"]',
        b"text,label\n",
        b"a,b\n",
        b"c,d\n",
    ]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.one_of(st.binary(max_size=60), st.lists(tokens, max_size=25).map(b"".join)))
def test_any_bytes_give_a_dataset_or_one_clear_error(content):
    with tempfile.TemporaryDirectory() as folder:
        for end in rows_of.SUFFIXES:
            path = Path(folder, f"any{end}")
            path.write_bytes(content)
            try:
                assert isinstance(load_dataset(path), Dataset)
            except InputError as error:
                assert "\n" not in str(error)
