"""A user's files of texts and labels -> rows that know where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stabutils.data.labels import plain, spellings
from stabutils.data.tables import (
    Nested,
    Table,
    form_of,
    parse_json,
    parse_json_lines,
    read_table,
    read_text,
    swallowed,
    unreadable,
)
from stabutils.errors import InputError

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
SUFFIXES = (".csv", ".jsonl", ".json", ".tsv", ".parquet")
FORMS = f"{', '.join(SUFFIXES)} (perhaps with .gz)"

_ROLES = {alias: role for role, aliases in COLUMNS.items() for alias in aliases}


class Row(NamedTuple):
    """One example, the place it was read from, and its split where that is named."""

    text: str
    label: str
    where: str
    split: str = ""
    tag: str = ""


def read_folder(folder: Path) -> list[Row]:
    """Rows of train, test and perhaps validation; a file is named after its split."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(str(folder), error.strerror, "a readable folder") from None
    files: dict[str, Path] = {}
    for path in entries:
        form = form_of(path)
        split = SPLITS.get(path.name.lower().partition(".")[0]) if form in SUFFIXES else None
        if split in files:
            names = f"{files[split].name}, {path.name}"
            raise InputError(f"{folder}: {split} files", names, "one of them")
        if split:
            files[split] = path
    for split in ("train", "test"):
        if split not in files:
            names = ", ".join(path.name for path in entries) or "an empty folder"
            allowed = " or ".join(split + end for end in SUFFIXES)
            raise InputError(f"{folder}: {split} file", names, allowed)
    return [row for split, path in files.items() for row in read_rows(path, split)]


def read_rows(path: Path, split: str = "") -> list[Row]:
    """Checked rows of one file, at least one; `split`, if given, is that of all of them."""
    form = form_of(path)
    if form not in SUFFIXES or not path.is_file():
        raise InputError("dataset file", str(path), f"a regular file that ends in {FORMS}")
    if form == ".json":
        rows = list(_json(path))
    elif form == ".jsonl":
        items = parse_json_lines(read_text(path), str(path))
        rows = [_item(item, where) for where, item in items]
    else:
        rows = _of_table(read_table(path))
    if not rows:
        raise InputError(str(path), "no rows", "at least one text with its label")
    if not split:
        return rows
    for row in rows:
        if row.split not in ("", split):
            raise InputError(f"{row.where}: split", row.split, f"{split}, as the file is named")
    return [row._replace(split=split) for row in rows]


def one_spelling(rows: list[Row]) -> list[Row]:
    """Rows with one spelling for each label. InputError where two may be one, with their lines."""
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(row.label, row.where)
    try:
        chosen = spellings(first)
    except InputError as error:
        other, name = error.value
        allowed = f"{other!r} as in {first[other]}, or a name that differs in more than spelling"
        raise InputError(f"{first[name]}: label", name, allowed) from None
    return [row._replace(label=chosen[row.label]) for row in rows]


# ---- tables


def _of_table(table: Table) -> list[Row]:
    heading = f"{table.name}, line 1" if table.separator else table.name
    _pick(table.header, table.header, heading)
    records = [cells for chunk in table.chunks for cells in chunk]
    places = zip(records, table.places(), strict=True)
    rows = [_row(table.header, cells, where) for cells, where in places]
    _refuse_cut(rows, table)
    return rows


def _refuse_cut(rows: list[Row], table: Table) -> None:
    """Refuse what a quote that was never closed, or a file that was cut off, leaves behind."""
    if not rows or not table.separator:
        return
    labels = [row.label for row in rows]
    words = {"label": set(labels), "split": {row.split for row in rows}}
    roles = [_ROLES.get(name.lower()) for name in table.header]
    known = {place: words[role] for place, role in enumerate(roles) if role in words}
    for row in rows:
        if "\n" in row.text and swallowed(row.text, table.separator, len(roles), known):
            allowed = "one text; this one holds rows of the file, as after an unclosed quote"
            raise InputError(f"{row.where}: text", row.text, allowed)
    is_last = table.open_ended and roles[-1] == "label"
    allowed = cut_off(labels[-1], labels[:-1]) if is_last else ""
    if allowed:
        raise InputError(f"{rows[-1].where}: label", labels[-1], allowed)


def cut_off(last: str, others: Iterable[str]) -> str:
    """What is expected of a file whose last label is the beginning of one; "" where it is in order.

    It is so where no other label is the same.

    >>> cut_off("mus", ["lamp", "music"]), cut_off("lamp", ["lamp", "lampshade"])
    ("a complete last line, such as 'music'; a line break ends it", '')
    """
    others = set(others)
    longer = [label for label in others if label.startswith(last)]
    if last in others or not longer:
        return ""
    return f"a complete last line, such as {min(longer)!r}; a line break ends it"


# ---- JSON


def _json(path: Path) -> Iterator[Row]:
    content = parse_json(read_text(path), str(path))
    groups = content.items() if isinstance(content, dict) else [("", content)]
    for key, items in groups:
        where = f"{path}, {key}".removesuffix(", ")
        split = _split_name(key, str(path))
        if not isinstance(items, list):
            raise InputError(where, _shown(items), "a list of texts with labels")
        for number, item in enumerate(items, start=1):
            row = _item(item, f"{where}, item {number}")
            yield row._replace(split=split or row.split)


def _item(item: object, where: str) -> Row:
    if isinstance(item, dict):
        return _row(item.keys(), item.values(), where)
    if isinstance(item, list) and len(item) == 2:
        return _row(("text", "label"), item, where)
    raise InputError(where, _shown(item), "an object with text and label, or a list of these two")


# ---- one row


def _row(names, cells, where: str) -> Row:
    values = _pick(names, cells, where)
    text, label = (_word(values[role], role, where) for role in ("text", "label"))
    return Row(text, label, where, _split_name(values.get("split", ""), where))


def _pick(names, values, where: str) -> dict[str, object]:
    """Values by role (text, label, split), by the names of their columns."""
    picked = {}
    for name, value in zip(names, values, strict=True):
        role = _ROLES.get(plain(name).lower())
        if role in picked:
            allowed = f"one column of {role}s, not two"
            raise InputError(f"{where}: columns", ", ".join(names), allowed)
        if role:
            picked[role] = value
    for role in ("text", "label"):
        if role not in picked:
            allowed = f"a column {' or '.join(COLUMNS[role])}"
            raise InputError(f"{where}: columns", ", ".join(names), allowed)
    return picked


def _word(value: object, role: str, where: str) -> str:
    """A text or label as it is read: without whitespace around it, otherwise untouched."""
    if type(value) is int and role == "label":  # JSON holds numbered classes as numbers
        value = str(value)
    if not isinstance(value, str) or isinstance(value, Nested):
        allowed = "a text" if role == "text" else "a text or a whole number"
        raise InputError(f"{where}: {role}", _shown(value), allowed)
    word = value.strip()
    problem = unreadable(word)
    if problem:
        raise InputError(f"{where}: {role}", _shown(value), f"a {role} {problem}")
    return word


def _split_name(value: object, where: str) -> str:
    split = SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise InputError(f"{where}: split", _shown(value), ", ".join(filter(None, SPLITS)))
    return split


def _shown(value: object) -> object:
    kinds = {int: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), value)
