"""Tables in files: a header, rows of texts below it, and the line on which each row stands.

One reader serves corpora and predictions, so that both have the same limits and refuse the same
things: CSV and TSV in UTF-8, JSON lines, and Parquet where pyarrow is installed, each of them as it
is or compressed with gzip.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pandas as pd

from stabutils.data.labels import plain
from stabutils.errors import InputError

LONGEST = 1_000_000  # characters in a cell; more is an unclosed quote, not a text
SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHERS = ";\t|,"  # read where the header holds one of them, and not that of its ending
TABLES = (*SEPARATORS, ".jsonl", ".parquet")
CHUNK = 10_000  # rows; a step of Python for each row would cost more than all the rest


_INVALID = re.compile("[\0\ud800-\udfff]")  # NUL and halves of surrogate pairs


class Nested(str):
    """The JSON text of a cell that holds a list or an object, which no text or label is."""


@dataclass(frozen=True, eq=False)
class Table:
    """What a file holds, read once from top to bottom.

    Parameters
    ----------
    name
        What messages call the file.
    header
        Names of the columns, without whitespace and zero-width characters around them.
    chunks
        Rows in lists of some thousands; every row has as many cells as the header.
    places
        File and line of each data row, as messages name it; asked for when something is wrong.
    open_ended
        Whether the last row has no line break behind it, as in a file that was cut off.
    separator
        What stands between two cells, "" where the form has no separator.
    numbered
        Whether its last column is one of row numbers that the file did not have.
    """

    name: str
    header: list[str]
    chunks: Iterator[Sequence[Sequence[str]]]
    places: Callable[[], Sequence[str]]
    open_ended: bool = False
    separator: str = ""
    numbered: bool = False

    def where(self, row: int) -> str:
        """File and line of a data row (counted from 0), as messages name it."""
        return self.places()[row]


def form_of(path: Path) -> str:
    """The ending that says how a file is written, lower-case; that of gzip does not count.

    >>> form_of(Path("answers.CSV.gz"))
    '.csv'
    """
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def read_table(path: Path, name: str = "") -> Table:
    """The table in a file.

    Parameters
    ----------
    path
        A file that ends in one of `TABLES`, perhaps followed by `.gz`.
    name
        What messages call it; the path unless given.

    Raises
    ------
    InputError
        At once or while the chunks are read: names the file and the line of what is wrong.
    """
    name = name or str(path)
    form = form_of(path)
    if form == ".parquet":
        table = _parquet(path, name)
    elif form == ".jsonl":
        table = _json_lines(read_text(path, name), name)
    else:
        table = _separated(read_text(path, name), name, SEPARATORS[form])
    return replace(table, chunks=_checked_chunks(table))


def read_bytes(path: Path, name: str = "") -> bytes:
    """What a file holds, decompressed where its name ends in .gz; else an InputError."""
    name = name or str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(name, error.strerror, "a readable file") from None
    if path.suffix.lower() != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(name, str(error), "a complete file compressed with gzip") from None


def read_text(path: Path, name: str = "") -> str:
    """What a file of UTF-8 says, without the byte order mark that some programs put first.

    Raises InputError with the line that is not UTF-8; `name` stands there for the path.
    """
    name = name or str(path)
    content = read_bytes(path, name).removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
        bad = content.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        line = content.count(b"\n", 0, bad) + 1
        byte = f"byte 0x{content[bad]:02x}"
        raise InputError(f"{name}, line {line}", byte, "text saved as UTF-8, without NUL bytes")
    return text


def parse_json(text: str, name: str, line: int = 1) -> object:
    """The value that a JSON text stands for. InputError with the line of what is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        problem = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a key twice, 5,000 digits, deep nesting
        problem = str(error)
    raise InputError(f"{name}, line {line}", problem, "well-formed JSON")


def parse_json_lines(text: str, name: str) -> Iterator[tuple[str, object]]:
    """The value in each line that is not blank, behind the place of the line."""
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would cut at U+2028
        if line.strip():
            yield f"{name}, line {number}", parse_json(line, name, number)


def unreadable(word: str) -> str:
    """What is wrong with a text or label, as a message has it; "" for one in order.

    >>> unreadable("on"), unreadable("\u200b")
    ('', 'that is not empty')
    """
    if not plain(word):
        return "that is not empty"
    if len(word) > LONGEST:
        return f"of at most {LONGEST:,} characters"
    if _INVALID.search(word):
        return "of valid Unicode, without NUL characters"
    return ""


def swallowed(cell: str, separator: str, width: int, known: Mapping[int, Container[str]]) -> bool:
    """Whether a cell holds a row of its own, as where a quote is opened and never closed.

    A line of it is a row when it has as many cells as the header, and one of them is known in its
    column: `known` has the words of some columns, by their places.

    >>> swallowed("turn it on,on\\nstop", ",", width=2, known={1: {"on", "off"}})
    True
    """
    for line in cell.split("\n")[:-1]:
        cells = line.rstrip("\r").split(separator)
        if len(cells) == width and any(cells[place] in words for place, words in known.items()):
            return True
    return False


# ---- CSV and TSV


@contextmanager
def _long_cells():
    """csv keeps one limit for the whole process: ours while a chunk is read, then what it was."""
    before = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separated(text: str, name: str, usual: str) -> Table:
    first_line = re.search(r"[^\r\n]+", text) or [""]
    separator = next((mark for mark in (usual, *OTHERS) if mark in first_line[0]), usual)

    def reader():
        return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)

    rows = _chunks(reader, name, separator)
    first: Sequence[str] = next(rows, [])
    header = list(map(plain, first))

    def places() -> list[str]:
        return [f"{name}, line {line}" for line in _lines(reader())[1:]]

    open_ended = not text.endswith(("\n", "\r"))
    return Table(name, header, rows, places, open_ended, separator)


def _chunks(reader, name: str, separator: str):
    """The first row, then lists of rows; blank lines are no rows."""
    rows = filter(None, reader())
    size = 1
    while True:
        try:
            with _long_cells():
                chunk = list(islice(rows, size))
        except csv.Error as error:
            raise _not_separated(error, name, _lines(reader())[-1], separator) from None
        if not chunk:
            return
        yield chunk[0] if size == 1 else chunk
        size = CHUNK


def _lines(reader) -> list[int]:
    """The line on which each row begins, the header's first; the last is that of a broken row."""
    begins, end = [], 0
    with _long_cells():
        try:
            for cells in reader:
                if cells:
                    begins.append(end + 1)
                end = reader.line_num
        except csv.Error:
            begins.append(end + 1)
    return begins


def _not_separated(error: csv.Error, name: str, line: int, separator: str) -> InputError:
    allowed = f"closed quotes, {separator!r} between cells, at most {LONGEST:,} characters a cell"
    problem = str(error)
    if problem == "unexpected end of data":
        problem = "a quote that opens in this row and never closes"
    elif "field limit" in problem:
        problem = f"a cell of more than {LONGEST:,} characters, perhaps an unclosed quote"
    return InputError(f"{name}, line {line}", problem, allowed)


# ---- JSON lines


def _json_lines(text: str, name: str) -> Table:
    records, places = [], []
    for where, record in parse_json_lines(text, name):
        if not isinstance(record, dict):
            raise InputError(where, type(record).__name__, "an object with named values")
        records.append(record)
        places.append(where)
    names = list(dict.fromkeys(key for record in records for key in record))
    rows = [[_text(record.get(key)) for key in names] for record in records]
    return _in_memory(name, names, rows, places)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key that stands twice in one object")
    return record


def _text(value: object) -> str:
    """A cell as a CSV file would hold it; what is missing is empty."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return Nested(json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, str) else json.dumps(value)


# ---- Parquet


def _parquet(path: Path, name: str) -> Table:
    if find_spec("pyarrow") is None:
        raise InputError(name, "a Parquet file", "CSV or JSON lines, or pyarrow to be installed")
    content = io.BytesIO(read_bytes(path, name))
    try:
        frame = pd.read_parquet(content)
        if any(frame.index.names) or not isinstance(frame.index, pd.RangeIndex):
            frame = frame.reset_index()  # a named index is a column like the others
    except Exception as error:  # pyarrow's own errors are of many kinds
        raise InputError(name, str(error)[:80], "a Parquet file") from None
    columns = []
    for _, column in frame.items():
        cells = zip(column, column.isna(), strict=True)
        columns.append(["" if missing else _of_frame(cell) for cell, missing in cells])
    rows = list(zip(*columns, strict=True))
    places = [f"{name}, row {number}" for number in range(1, len(rows) + 1)]
    return _in_memory(name, frame.columns, rows, places)


def _of_frame(cell: object) -> str:
    nested = not isinstance(cell, (str, bytes)) and hasattr(cell, "__len__")
    return Nested(cell) if nested else str(cell)


# ---- what holds for all of them


def _in_memory(name: str, names, rows: Sequence[Sequence[str]], places: Sequence[str]) -> Table:
    header = [plain(str(column)) for column in names]
    chunks = iter([rows] if rows else [])
    return Table(name, header, chunks, lambda: places)


def _checked_chunks(table: Table):
    """The chunks, once every row was found to have the header's width and not to repeat it."""
    width = len(table.header)
    names = set(table.header) - {""}
    first_cells = names | {"\ufeff" + column for column in names}
    start = 0
    for chunk in table.chunks:
        for row, cells in enumerate(chunk, start):
            if len(cells) != width:
                allowed = f"{width} as in the header (texts with commas need quotes)"
                raise InputError(table.where(row), f"{len(cells)} cells", allowed)
            if cells[0] in first_cells and _repeats(cells, names):
                allowed = "rows; here the header is repeated, as where files were joined"
                raise InputError(table.where(row), ", ".join(cells), allowed)
        yield chunk
        start += len(chunk)


def _repeats(cells: Sequence[str], names: set[str]) -> bool:
    """Whether a row is a header: at least two of its cells, and at least half, name columns."""
    hits = sum(plain(cell) in names for cell in cells)
    return hits >= 2 and 2 * hits >= len(cells)
