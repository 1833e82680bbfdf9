"""Texts with intent labels, in train, validation and test splits.

Published corpora, the embedded `assistant` corpus and a user's own files take the same way: file -> rows
that know where they stand -> splits -> Dataset. Whatever is wrong is one InputError with file and line.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stabutils.errors import InputError

PUBLISHERS = {
    "massive": "https://amazon-massive-nlu-dataset.s3.amazonaws.com/amazon-massive-dataset-1.1.tar.gz",
    "clinc150": "https://raw.githubusercontent.com/clinc/oos-eval/"
    "828f8093932c8fe6ca7936c3d2e52903b1c523de/data/",
    "banking77": "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
    "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data/",
}
MASSIVE_MEMBER = "1.1/data/en-US.jsonl"
CORPORA = {  # files of each, with the split of a file whose rows do not name theirs
    "massive": {"massive/en-US.jsonl": ""},
    "clinc150": {"clinc150/data_full.json": ""},
    "clinc150_small": {"clinc150/data_small.json": ""},
    "clinc150_imbalanced": {"clinc150/data_imbalanced.json": ""},
    "banking77": {"banking77/train.csv": "train", "banking77/test.csv": "test"},
}
SHA256 = {
    "massive/en-US.jsonl": "c70f75c6a543a26e249ec383df67733ad9b1066f6c0406c2e04a3f03356e407e",
    "clinc150/data_full.json": "36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
    "clinc150/data_small.json": "050e17476e6b4fa88f8518edaf09921c8f5e3a86dc8b63615361102a20b2ac01",
    "clinc150/data_imbalanced.json": "4886730b20c51eece26aa392ecae2717bfe9908680419e96255351c6148eb4cc",
    "banking77/train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "banking77/test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}
NAMES = ("assistant", *CORPORA)
COLUMNS = {
    "text": ("text", "utterance", "utt", "sentence", "query"),
    "label": ("label", "intent", "category"),
    "split": ("split", "partition"),
}
SPLITS = {
    "": "",
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "oos_train": "oos_train",
    "oos_test": "oos_test",
    "oos_validation": "oos_validation",
    "oos_val": "oos_validation",
}
SUFFIXES = (".csv", ".jsonl", ".json")
LONGEST = 1_000_000  # characters in a field; more is an unclosed quote, not an utterance

_ROLES = {alias: role for role, aliases in COLUMNS.items() for alias in aliases}
_UNUSABLE = re.compile(
    "[\0\ud800-\udfff]"
)  # NUL, and half a surrogate pair, which UTF-8 cannot hold


@dataclass(frozen=True, eq=False)
class Split:
    """Texts, their labels `(examples,)` as int64 (read-only) and, if known, a tag for each.

    A label is an index into the dataset's `label_names`. InputError if the lengths differ.

    >>> Split(("lights on", "play jazz"), [1, 0]).labels
    array([1, 0])
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    tags: tuple[str, ...] = ()

    def __post_init__(self):
        labels = np.array(self.labels, dtype=np.int64)
        labels.setflags(write=False)
        for name, value in (
            ("texts", tuple(self.texts)),
            ("labels", labels),
            ("tags", tuple(self.tags)),
        ):
            object.__setattr__(self, name, value)
        if labels.shape != (len(self.texts),) or len(self.tags) not in (0, len(self.texts)):
            lengths = (
                f"{len(self.texts)} texts, labels of shape {labels.shape}, {len(self.tags)} tags"
            )
            raise InputError(
                "split", lengths, "one label for each text, and one tag for each or none"
            )

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({len(self):,} examples)"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits over the same `label_names`; texts outside every intent, if any, are kept apart.

    `label_names` are those of train, sorted by code point. `out_of_scope` maps split names to texts.

    >>> data = Dataset("tiny", Split(("Lights on!", "play jazz"), [1, 0]), Split(("jazz",), [0]),
    ...                Split(("lights on", "stop"), [1, 0]), ("music", "lights"))
    >>> data
    tiny: 2 train, 1 validation, 2 test examples of 2 intents
    >>> data.seen_in_train
    array([ True, False])
    """

    name: str
    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    out_of_scope: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of texts, labels and label names: what can change a run's answers.

        The dataset's name, tags and out-of-scope texts do not count.
        """
        splits = [
            (split.texts, split.labels.tolist())
            for split in (self.train, self.validation, self.test)
        ]
        return hashlib.sha256(json.dumps([self.label_names, splits]).encode("ascii")).hexdigest()

    @cached_property
    def seen_in_train(self) -> np.ndarray:
        """Whether a test text, reduced to lower-case letters and digits, is in train: `(examples,)` bool."""
        known = {_loose(text) for text in self.train.texts}
        seen = np.array([_loose(text) in known for text in self.test.texts], dtype=bool)
        seen.setflags(write=False)
        return seen

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} train, {len(self.validation):,} validation, {len(self.test):,} test"
        return f"{self.name}: {sizes} examples of {len(self.label_names)} intents"


def load_dataset(name_or_path: str | os.PathLike, seed: int = 0) -> Dataset:
    """Dataset of a published corpus, of the embedded one, or of a user's own texts and labels.

    Names: `assistant` (`assistant:3` is the one of seed 3), `massive` (en-US), `clinc150`,
    `clinc150_small`, `clinc150_imbalanced`, `banking77`. A published file is looked for in the folder
    that the environment variable STABUTILS_DATA names, then in the user's cache, then at the publisher's
    address, and its checksum is verified in each place. Names win over paths: `./massive` is a path.

    A path is a folder with a `train` and a `test` file, perhaps `validation`, or a single file: .csv,
    .jsonl or .json, in UTF-8. Columns or keys: text, label and perhaps split, or their aliases (COLUMNS);
    a .json file may also hold an object of splits, each a list of [text, label] pairs. Whitespace around
    texts and labels is stripped and nothing else touched: "NA" and "None" are words. A file without
    splits is cut 70 / 10 / 20 into train / validation / test, and a missing validation split is a tenth of
    train, cut so that each class gives its share and keeps at least one row in train.

    `seed` draws the embedded corpus and the cuts in a user's data. Published corpora ignore it, so that
    everybody's BANKING77 has the same validation split. InputError for bad files and failed downloads.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = "text,label\\n" + "lights on,lamp\\nplay jazz,music\\n" * 10
    ...     size = Path(folder, "mine.csv").write_text(rows, encoding="utf-8")
    ...     load_dataset(Path(folder, "mine.csv"))
    mine: 14 train, 2 validation, 4 test examples of 2 intents
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise InputError("dataset seed", seed, "an integer of at least 0")
    named = isinstance(name_or_path, str)
    if not named and not isinstance(name_or_path, os.PathLike):
        raise InputError("dataset", name_or_path, f"a path or one of {', '.join(NAMES)}")
    if named and name_or_path in CORPORA:
        files = CORPORA[name_or_path].items()
        return _dataset(
            name_or_path, [row for file, split in files for row in _read(_find(file), split)], 0
        )
    if named and name_or_path.partition(":")[0] == "assistant":
        return _assistant(name_or_path, int(seed))
    if not os.path.exists(name_or_path):
        raise InputError("dataset", os.fspath(name_or_path), _allowed(os.fspath(name_or_path)))
    path = Path(name_or_path)
    if path.is_dir():
        return _dataset(path.resolve().name, _read_folder(path), int(seed))
    return _dataset(path.stem, _read(path), int(seed))


def _allowed(name: str) -> str:
    return f"{', '.join(NAMES)}, or a folder or {', '.join(SUFFIXES)} file that exists{_hint(name, NAMES)}"


def _hint(word: str, words) -> str:
    close = difflib.get_close_matches(word[:100].lower(), words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# Rows -> Dataset


class Row(NamedTuple):
    """One example, the place it was read from, and its split where that is named."""

    text: str
    label: str
    where: str
    split: str = ""
    tag: str = ""


def _dataset(name: str, rows: list[Row], seed: int) -> Dataset:
    groups = _groups(name, rows)
    labels = sorted({row.label for row in groups["train"]})
    if len(labels) < 2:
        raise InputError(
            f"{name}: labels of train", f"only {labels[0]!r}", "at least two different labels"
        )
    code = {label: i for i, label in enumerate(labels)}
    for row in (*groups.get("validation", ()), *groups.get("test", ())):
        if row.label not in code:
            allowed = f"one of the {len(code)} labels of train{_hint(row.label, code)}"
            raise InputError(f"{row.where}: label", row.label, allowed)
    rng, whole = np.random.default_rng(seed), len(groups["train"])
    for split, share in (("test", 0.2), ("validation", 0.1)):
        if split not in groups:
            held = _hold_out(name, groups["train"], round(share * whole), rng)
            groups[split] = [groups["train"][i] for i in sorted(held)]
            groups["train"] = [row for i, row in enumerate(groups["train"]) if i not in held]
    splits = (_split(groups[split], code) for split in ("train", "validation", "test"))
    outside = {
        split.removeprefix("oos_"): tuple(row.text for row in groups[split])
        for split in groups
        if split.startswith("oos_")
    }
    return Dataset(name, *splits, tuple(labels), outside)


def _groups(name: str, rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by split; only "train" where no row names a split."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.split, []).append(row)
    if set(groups) == {""}:
        return {"train": groups[""]}
    if "" in groups:
        raise InputError(f"{groups[''][0].where}: split", "", "a split in every row or in none")
    for split in ("train", "test"):
        if split not in groups:
            raise InputError(f"{name}: {split} split", "no rows", "at least one row")
    return groups


def _hold_out(name: str, rows: list[Row], size: int, rng: np.random.Generator) -> set[int]:
    """Indices of about `size` rows, each class in proportion; one drawn row of each class is left out."""
    kept, spare = set(), []
    for i in rng.permutation(len(rows)):
        if rows[i].label in kept:
            spare.append(int(i))
        kept.add(rows[i].label)
    if not spare:
        raise InputError(f"{name}: rows of each class", 1, "more rows, or splits of your own")
    spare.sort(key=lambda i: rows[i].label)
    size, offset = min(max(size, 1), len(spare)), int(rng.integers(len(spare)))
    # Every so-many-th row of a list in order of class: stratified, whatever the sizes of the classes.
    return {spare[(k * len(spare) + offset) // size] for k in range(size)}


def _split(rows: list[Row], code: dict[str, int]) -> Split:
    tags = [row.tag for row in rows]
    return Split(
        [row.text for row in rows], [code[row.label] for row in rows], tags if any(tags) else ()
    )


def _loose(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower()) or text


def _assistant(name: str, seed: int) -> Dataset:
    from stabutils.data.assistant import generate

    number = name.partition(":")[2]
    if ":" in name and not (number.isascii() and number.isdigit() and len(number) < 10):
        raise InputError("dataset", name, "assistant or assistant:<seed>, as in assistant:3")
    seed = int(number or seed)
    rows = [
        Row(text, intent, f"assistant: {split}", split, tag)
        for split, examples in generate(seed).items()
        for text, intent, tag in examples
    ]
    return _dataset(f"assistant:{seed}" if seed else "assistant", rows, seed)


# Files -> rows


def _read_folder(folder: Path) -> list[Row]:
    """Rows of train, test and perhaps validation; a file is named after its split."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(str(folder), error.strerror, "a readable folder") from None
    files: dict[str, Path] = {}
    for path in entries:
        split = SPLITS.get(path.stem.lower()) if path.suffix.lower() in SUFFIXES else None
        if split in files:
            raise InputError(
                f"{folder}: {split} files", f"{files[split].name}, {path.name}", "one of them"
            )
        files |= {split: path} if split else {}
    for split in ("train", "test"):
        if split not in files:
            found = ", ".join(path.name for path in entries) or "an empty folder"
            raise InputError(
                f"{folder}: {split} file", found, " or ".join(split + end for end in SUFFIXES)
            )
    return [row for split, path in files.items() for row in _read(path, split)]


def _read(path: Path, split: str = "") -> list[Row]:
    """Checked rows of one file, at least one; `split`, if given, is that of all of them."""
    reader = {".csv": _csv, ".jsonl": _jsonl, ".json": _json}.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise InputError(
            "dataset file", str(path), f"a regular file that ends in {', '.join(SUFFIXES)}"
        )
    rows = list(reader(path, read_text(path)))
    if not rows:
        raise InputError(str(path), "no rows", "at least one text with its label")
    for row in rows:
        if split and row.split not in ("", split):
            raise InputError(f"{row.where}: split", row.split, f"{split}, as the file is named")
    return [row._replace(split=split) for row in rows] if split else rows


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), error.strerror, "a readable file") from None


def read_text(path: Path, name: str = "") -> str:
    """What a file of UTF-8 says, without the mark that some programs put first. Raises InputError with the line that is
    none; `name` stands there for the path."""
    raw = _bytes(path).removeprefix(codecs.BOM_UTF8)
    try:
        text, bad = raw.decode("utf-8"), raw.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        where = f"{name or path}, line {raw.count(10, 0, bad) + 1}"
        raise InputError(where, f"byte 0x{raw[bad]:02x}", "text saved as UTF-8, without NUL bytes")
    return text


def _csv(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit(LONGEST)  # csv keeps one limit for the process: put back below
    try:
        header, end = next(reader, []), reader.line_num
        _pick(header, header, f"{path}, line 1")
        for fields in reader:
            where, end = f"{path}, line {end + 1}", reader.line_num
            if fields and len(fields) != len(header):
                allowed = f"{len(header)} as in the header (texts with commas need quotes)"
                raise InputError(where, f"{len(fields)} fields", allowed)
            if fields:
                yield _row(header, fields, where)
    except csv.Error as error:
        allowed = f"closed quotes, commas between fields, at most {LONGEST:,} characters a field"
        raise InputError(f"{path}, line {reader.line_num}", str(error), allowed) from None
    finally:
        csv.field_size_limit(before)


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # splitlines would cut at U+2028 in a text
        if line.strip():
            yield _item(_parse(path, line, number), f"{path}, line {number}")


def _json(path: Path, text: str) -> Iterator[Row]:
    content = _parse(path, text)
    for key, items in content.items() if isinstance(content, dict) else [("", content)]:
        where = f"{path}, {key}".removesuffix(", ")
        split = _split_name(key, path)
        if not isinstance(items, list):
            raise InputError(where, _shown(items), "a list of texts with labels")
        for number, item in enumerate(items, start=1):
            row = _item(item, f"{where}, item {number}")
            yield row._replace(split=split or row.split)


def _parse(path: Path, text: str, line: int = 1) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line, problem = line + error.lineno - 1, f"{error.msg} at column {error.colno}"
    except (
        ValueError,
        RecursionError,
    ) as error:  # a key twice, an integer of 5,000 digits, deep nesting
        problem = str(error)
    raise InputError(f"{path}, line {line}", problem, "well-formed JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key that stands twice in one object")
    return record


def _item(item: object, where: str) -> Row:
    if isinstance(item, dict):
        return _row(item.keys(), item.values(), where)
    if isinstance(item, list) and len(item) == 2:
        return _row(("text", "label"), item, where)
    raise InputError(where, _shown(item), "an object with text and label, or a list of these two")


def _row(names, values, where: str) -> Row:
    found = _pick(names, values, where)
    text, label = (_word(found[role], role, where) for role in ("text", "label"))
    return Row(text, label, where, _split_name(found.get("split", ""), where))


def _pick(names, values, where: str) -> dict[str, object]:
    """Values by role (text, label, split), found by the names of their columns."""
    found = {}
    for name, value in zip(names, values, strict=True):
        role = _ROLES.get(name.strip().lower())
        if role in found:
            raise InputError(
                f"{where}: columns", ", ".join(names), f"one column of {role}s, not two"
            )
        if role:
            found[role] = value
    for role in ("text", "label"):
        if role not in found:
            raise InputError(
                f"{where}: columns", ", ".join(names), f"a column {' or '.join(COLUMNS[role])}"
            )
    return found


def _word(value: object, role: str, where: str) -> str:
    if type(value) is int and role == "label":  # JSON holds numbered classes as numbers
        value = str(value)
    word = value.strip() if isinstance(value, str) else ""
    if not word or len(word) > LONGEST or _UNUSABLE.search(word):
        allowed = (
            f"a {role} of 1 to {LONGEST:,} characters, none of them NUL or half a surrogate pair"
        )
        raise InputError(f"{where}: {role}", _shown(value), allowed)
    return word


def _split_name(value: object, where: object) -> str:
    split = SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise InputError(f"{where}: split", _shown(value), ", ".join(filter(None, SPLITS)))
    return split


def _shown(value: object) -> object:
    return (
        value
        if isinstance(value, (str, bool, float, type(None)))
        else f"{type(value).__name__} value"
    )


# Published files: local folder, then cache, then publisher


def _find(file: str) -> Path:
    """Path of a published file with the right checksum."""
    folder = os.environ.get("STABUTILS_DATA")
    if folder and not os.path.isdir(folder):
        raise InputError("STABUTILS_DATA", folder, "a folder that exists")
    if not folder or not os.path.isfile(os.path.join(folder, file)):
        return _download(file)
    path = Path(folder, file)
    if hashlib.sha256(_bytes(path)).hexdigest() != SHA256[file]:
        allowed = f"the published file, SHA-256 {SHA256[file]}; without one here it is downloaded"
        raise InputError(str(path), "another content", allowed)
    return path


def _download(file: str) -> Path:
    """Path in the user's cache; pooch moves a file there only once its checksum was found right."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    corpus, _, name = file.partition("/")
    archived = PUBLISHERS[corpus].endswith(".tar.gz")
    address = PUBLISHERS[corpus] if archived else PUBLISHERS[corpus] + name
    http = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16)
    fetch = _from_archive(http) if archived else http
    try:
        cache = pooch.os_cache("stabutils") / corpus
        return Path(
            pooch.retrieve(address, f"sha256:{SHA256[file]}", name, cache, downloader=fetch)
        )
    except (OSError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
        allowed = (
            f"the published file; try again, or set STABUTILS_DATA to a folder with {file} in it"
        )
        raise InputError(address, _reason(error), allowed) from None


def _from_archive(http):
    """Downloader of one member of a tar.gz: asked for by name, copied as bytes, its path never used."""

    def fetch(url: str, output_file: str, pooch) -> None:
        with tempfile.TemporaryFile() as archive, open(output_file, "wb") as out:
            http(url, archive, pooch)
            archive.seek(0)
            with tarfile.open(fileobj=archive, mode="r|gz") as members:
                for member in members:
                    if member.isfile() and member.name == MASSIVE_MEMBER:
                        return shutil.copyfileobj(members.extractfile(member), out)
        raise tarfile.ReadError(f"no file {MASSIVE_MEMBER}")

    return fetch


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return f"no complete answer ({type(error).__name__})"
    if isinstance(error, (EOFError, tarfile.TarError, zlib.error)):
        return f"a damaged archive ({error})"
    return str(error) if isinstance(error, OSError) else "a file with another checksum"
