"""Texts with intent labels, in train, validation and test splits.

Published corpora, the embedded `assistant` corpus and a user's own files take the same way: file ->
rows that know where they stand -> splits -> Dataset. Whatever is wrong is one InputError with file
and line.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from stabutils.data.downloads import find
from stabutils.data.rows import FORMS, Row, one_spelling, read_folder, read_rows
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
    "clinc150/data_imbalanced.json": (
        "4886730b20c51eece26aa392ecae2717bfe9908680419e96255351c6148eb4cc"
    ),
    "banking77/train.csv": "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    "banking77/test.csv": "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
}
NAMES = ("assistant", *CORPORA)


@dataclass(frozen=True, eq=False)
class Split:
    """Texts and their labels.

    Parameters
    ----------
    texts
        One string for each example.
    labels
        (examples,), indices into the dataset's `label_names`; kept as int64, read-only.
    tags
        If known, a tag for each example.

    Raises
    ------
    InputError
        The lengths differ.

    Examples
    --------
    >>> Split(("lights on", "play jazz"), [1, 0]).labels
    array([1, 0])
    """

    texts: tuple[str, ...]
    labels: np.ndarray
    tags: tuple[str, ...] = ()

    def __post_init__(self):
        texts, tags = tuple(self.texts), tuple(self.tags)
        labels = np.array(self.labels, dtype=np.int64)
        labels.setflags(write=False)
        if labels.shape != (len(texts),) or len(tags) not in (0, len(texts)):
            lengths = f"{len(texts)} texts, labels of shape {labels.shape}, {len(tags)} tags"
            allowed = "one label for each text, and one tag for each or none"
            raise InputError("split", lengths, allowed)
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "tags", tags)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({len(self):,} examples)"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits over the same label names; texts outside every intent, if any, are kept apart.

    Parameters
    ----------
    name
        What the dataset is called.
    train, validation, test
        The splits.
    label_names
        The labels of train, sorted by code point.
    out_of_scope
        Name of a split -> its texts that belong to no intent.

    Examples
    --------
    >>> data = Dataset("tiny", Split(("Lights on!", "play jazz"), [1, 0]), Split(("jazz",), [0]),
    ...                Split(("lights on", "stop"), [1, 0]), ("music", "lights"))
    >>> data
    tiny: 2 train, 1 validation, 2 test examples of 2 intents
    """

    name: str
    train: Split
    validation: Split
    test: Split
    label_names: tuple[str, ...]
    out_of_scope: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of texts, labels and label names: what can change answers.

        The dataset's name, tags and out-of-scope texts do not count.
        """
        splits = [
            (split.texts, split.labels.tolist())
            for split in (self.train, self.validation, self.test)
        ]
        return hashlib.sha256(json.dumps([self.label_names, splits]).encode("ascii")).hexdigest()

    def __repr__(self) -> str:
        sizes = (
            f"{len(self.train):,} train, {len(self.validation):,} validation, "
            f"{len(self.test):,} test"
        )
        return f"{self.name}: {sizes} examples of {len(self.label_names)} intents"


def load_dataset(name_or_path: str | os.PathLike, seed: int = 0) -> Dataset:
    """Dataset of a published corpus, of the embedded one, or of a user's own texts and labels.

    Parameters
    ----------
    name_or_path
        A name: `assistant` (`assistant:3` is the one of seed 3), `massive` (en-US), `clinc150`,
        `clinc150_small`, `clinc150_imbalanced`, `banking77`. A published file is looked for in the
        folder that the environment variable STABUTILS_DATA names, then in the user's cache, then at
        the publisher's address, and its checksum is verified in each place.

        Or a path: a folder with a `train` and a `test` file, perhaps `validation`, or one file:
        .csv, .tsv, .jsonl, .json or .parquet, in UTF-8, perhaps compressed (.gz). Columns or keys:
        text, label and perhaps split, or their aliases (`rows.COLUMNS`); a .json file may also hold
        an object of splits, each a list of [text, label] pairs. Names win over paths: `./massive`
        is a path.
    seed
        Draws the embedded corpus and the cuts in a user's data. Published corpora ignore it, so
        that everybody's BANKING77 has the same validation split.

    Returns
    -------
    Dataset
        Whitespace around texts and labels is stripped and nothing else touched: "NA" and "None" are
        words. Labels that differ in nothing that can be seen are one. A file without splits is cut
        70 / 10 / 20 into train / validation / test, and a missing validation split is a tenth of
        train, cut so that each class gives its share and keeps at least one row in train.

    Raises
    ------
    InputError
        A bad file, with its line, or a download that failed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = "text,label\\n" + "lights on,lamp\\nplay jazz,music\\n" * 10
    ...     size = Path(folder, "mine.csv").write_text(rows, encoding="utf-8")
    ...     load_dataset(Path(folder, "mine.csv"))
    mine: 14 train, 2 validation, 4 test examples of 2 intents
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise InputError("dataset seed", seed, "an integer of at least 0")
    if isinstance(name_or_path, str):
        if name_or_path in CORPORA:
            return _dataset(name_or_path, _published(name_or_path), 0)
        if name_or_path.partition(":")[0] == "assistant":
            return _assistant(name_or_path, int(seed))
    elif not isinstance(name_or_path, os.PathLike):
        raise InputError("dataset", name_or_path, f"a path or one of {', '.join(NAMES)}")
    if not os.path.exists(name_or_path):
        name, known = os.fspath(name_or_path), ", ".join(NAMES)
        allowed = f"{known}, or a folder or {FORMS} file that exists{_hint(name, NAMES)}"
        raise InputError("dataset", name, allowed)
    path = Path(name_or_path)
    if path.is_dir():
        return _dataset(path.resolve().name, read_folder(path), int(seed))
    return _dataset(_stem(path), read_rows(path), int(seed))


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _hint(word: str, words) -> str:
    close = difflib.get_close_matches(word[:100].lower(), words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# ---- rows -> dataset


def _dataset(name: str, rows: list[Row], seed: int) -> Dataset:
    groups = _groups(name, one_spelling(rows))
    labels = sorted({row.label for row in groups["train"]})
    if len(labels) < 2:
        only = f"only {labels[0]!r}"
        raise InputError(f"{name}: labels of train", only, "at least two different labels")
    code = {label: i for i, label in enumerate(labels)}
    for row in (*groups.get("validation", ()), *groups.get("test", ())):
        if row.label not in code:
            allowed = f"one of the {len(code)} labels of train{_hint(row.label, code)}"
            raise InputError(f"{row.where}: label", row.label, allowed)
    rng = np.random.default_rng(seed)
    whole = len(groups["train"])
    for split, share in (("test", 0.2), ("validation", 0.1)):
        if split not in groups:
            held = _hold_out(name, groups["train"], round(share * whole), rng)
            groups[split] = [groups["train"][i] for i in sorted(held)]
            groups["train"] = [row for i, row in enumerate(groups["train"]) if i not in held]
    names = ("train", "validation", "test")
    train, validation, test = (_split(groups[split], code) for split in names)
    outside = {
        split.removeprefix("oos_"): tuple(row.text for row in own)
        for split, own in groups.items()
        if split.startswith("oos_")
    }
    return Dataset(name, train, validation, test, tuple(labels), outside)


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
    """Indices of about `size` rows, each class in proportion; one drawn row of each stays."""
    drawn, spare = set(), []
    for i in rng.permutation(len(rows)):
        if rows[i].label in drawn:
            spare.append(int(i))
        drawn.add(rows[i].label)
    if not spare:
        raise InputError(f"{name}: rows of each class", 1, "more rows, or splits of your own")
    spare.sort(key=lambda i: rows[i].label)
    size = min(max(size, 1), len(spare))
    offset = int(rng.integers(len(spare)))
    # Every so-many-th row in order of class: stratified, whatever the sizes of the classes.
    return {spare[(k * len(spare) + offset) // size] for k in range(size)}


def _split(rows: list[Row], code: dict[str, int]) -> Split:
    texts = tuple(row.text for row in rows)
    labels = np.array([code[row.label] for row in rows], int)
    tags = tuple(row.tag for row in rows)
    if not any(tags):
        tags = ()
    return Split(texts, labels, tags)


# ---- names -> rows


def _published(name: str) -> list[Row]:
    rows = []
    for file, split in CORPORA[name].items():
        publisher = file.partition("/")[0]
        path = find(file, SHA256[file], PUBLISHERS[publisher], MASSIVE_MEMBER)
        rows += read_rows(path, split)
    return rows


def _assistant(name: str, seed: int) -> Dataset:
    from stabutils.data.assistant import generate

    asked = re.fullmatch("assistant(:([0-9]{1,9}))?", name)
    if not asked:
        raise InputError("dataset", name, "assistant or assistant:<seed>, as in assistant:3")
    seed = int(asked[2] or seed)
    rows = [
        Row(text, intent, f"assistant: {split}", split, tag)
        for split, examples in generate(seed).items()
        for text, intent, tag in examples
    ]
    name = f"assistant:{seed}" if seed else "assistant"
    return _dataset(name, rows, seed)
