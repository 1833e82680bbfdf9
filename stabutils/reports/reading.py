"""Predictions of any system, read from a file: which label each run gave each example.

A table (.csv, .tsv, .jsonl, .parquet, perhaps with .gz) in long form has a row for each run and
example (and checkpoint, where a column says what a run answered at several points of its training);
in wide form a row for each example and a column for each run. An array (.npy, .safetensors) holds
labels (runs, examples) or probabilities (runs, examples, classes). Whatever is wrong with a file is
one InputError that says where.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain
from itertools import count as count_from
from pathlib import Path

import numpy as np
from numpy import ndarray

from stabutils.data.labels import plain, spellings
from stabutils.data.rows import cut_off
from stabutils.data.tables import (
    TABLES,
    Nested,
    Table,
    form_of,
    read_table,
    swallowed,
    unreadable,
)
from stabutils.errors import InputError
from stabutils.provenance import project_root
from stabutils.reports.codes import encode, ordered, same_code
from stabutils.reports.columns import (
    COLUMNS,
    MORE_RUNS,
    answers_elsewhere,
    assign,
    identities,
    question,
    row_names,
    told,
    unused,
)

SAMPLE = project_root() / "examples" / "predictions.csv"
ARRAYS = (".npy", ".safetensors")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What runs answered.

    Parameters
    ----------
    labels
        (runs, examples), places in `label_names`.
    label_names, runs, examples
        The names of labels, runs and examples; runs and examples in order of their names.
    layout
        What was read as what, and what was left unused, in one line.
    gold
        (examples,), places in `label_names`.
    texts
        (examples,).
    probabilities
        (runs, examples, classes), 0 .. 1.
    confidence
        (runs, examples), 0 .. 1: the probability of each answer, where there is no other.
    weights
        (examples,).
    checkpoints
        (runs, checkpoints, examples): what each run answered at points of its training, the last
        of them being its labels.
    numbered
        Whether examples are the numbers of their rows, for want of a column that names them.
    identity
        What other columns call each example: column -> (examples,).
    """

    labels: ndarray
    label_names: tuple[str, ...]
    runs: tuple[str, ...]
    examples: tuple[str, ...]
    layout: str
    gold: ndarray | None = None
    texts: tuple[str, ...] | None = None
    probabilities: ndarray | None = None
    weights: ndarray | None = None
    checkpoints: ndarray | None = None
    numbered: bool = False
    identity: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: ndarray | None = None

    def __post_init__(self):
        if self.probabilities is None:
            return
        probabilities, allowed = np.asarray(self.probabilities), "numbers of 0 .. 1 (not logits)"
        if probabilities.dtype.kind != "f":
            raise InputError("type of probabilities", str(probabilities.dtype), allowed)
        if probabilities.ndim != 3 or probabilities.shape[:2] != np.shape(self.labels):
            fitting = f"{np.shape(self.labels)}, that of labels, and the number of classes"
            raise InputError("shape of probabilities", probabilities.shape, fitting)
        low, high = float(probabilities.min()), float(probabilities.max())
        if not (low >= 0 and high <= 1 + ROUNDED):  # nan too
            raise InputError("probabilities", high if low >= 0 else low, allowed)

    def __repr__(self) -> str:
        names = f"{len(self.label_names)} label names"
        return f"Predictions(labels of shape {self.labels.shape}, {names}; {self.layout})"


def read_predictions(
    path: str | Path | Sequence[str | Path],
    columns: Mapping[str, str | Sequence[str]] | str | None = None,
    least: int = 2,
) -> Predictions:
    """Predictions in a .csv, .tsv, .jsonl, .parquet (each perhaps .gz), .npy or .safetensors file.

    Parameters
    ----------
    path
        The file, or several tables of one run each, which is named after its file (or by a column
        run) and answers the same examples as the others: matched by the column that names them, an
        index included, else by position; text in UTF-8. Arrays in a .safetensors
        file: labels or probabilities, and perhaps gold and weights.
    columns
        Role -> column, for roles run, example, label, gold, text, weight, checkpoint, confidence
        and probabilities (`columns.COLUMNS` has names known anyway), or the same as text,
        "label=answer, gold=truth"; two or more columns as "label" are the runs of the wide form.
    least
        Runs that there must be, where there are no checkpoints: 2, or 1.

    Returns
    -------
    Predictions
        A long form may have a probability column p_<label> for each label, and checkpoints of each
        run: at least two, as many for each run, the last one (by number) being its answer. Words
        such as NA, None and null are labels like any other; labels that differ in nothing that can
        be seen are one.

    Raises
    ------
    InputError
        What is wrong, with its line; or a question where a column, a label or a row could be meant
        in two ways.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = "example,run1,run2\\n7,a,a\\n8,a,b\\n"
    ...     size = Path(folder, "mine.csv").write_text(text, encoding="utf-8")
    ...     read_predictions(Path(folder, "mine.csv")).labels.tolist()
    [[0, 0], [0, 1]]
    """
    if isinstance(path, (list, tuple)) and path:
        if len(path) > 1:
            return _from_table(*_joined(path, told(columns)), least)
        path = path[0]
    if not isinstance(path, (str, os.PathLike)):
        raise InputError("predictions", path, "the path of a file")
    path, said = Path(path), told(columns)
    form = path.suffix.lower()
    if form not in ARRAYS and form_of(path) not in TABLES:
        endings = ", ".join((*TABLES, *ARRAYS))
        raise InputError("predictions", str(path), f"a file of {endings}; others saved as CSV")
    if not path.is_file():
        allowed = "a file, not a folder" if path.is_dir() else "a file that exists"
        raise InputError("predictions", str(path), allowed)
    if form not in ARRAYS:
        return _from_table(read_table(path, path.name), said, least)
    if said:
        raise InputError("columns", said, f"none, {path.name} holds arrays")
    arrays = _npy(path) if form == ".npy" else _safetensors(path)
    return _from_arrays(arrays, path.name, least)


# ---- tables


def _joined(paths: Sequence, said: dict[str, list[str]]) -> tuple[Table, dict[str, list[str]]]:
    """One table of several files, and its roles: each file a run, where no column names runs."""
    for path in paths:
        read_predictions(path, said, least=1)  # refuses what is wrong in one of them
    files = [Path(path) for path in paths]
    names = [Path(file.name.removesuffix(".gz")).stem for file in files]
    if len(set(names)) < len(names) or not all(form_of(file) in TABLES for file in files):
        allowed = f"{', '.join(TABLES)}, and of different names, as each is one run"
        raise InputError("several files", [file.name for file in files], allowed)
    parts = [read_table(file, file.name) for file in files]
    header = parts[0].header
    for part in parts:
        if part.header != header:
            allowed = f"those of {parts[0].name}: {', '.join(header)}"
            raise InputError(f"columns of {part.name}", ", ".join(part.header), allowed)
    roles = assign(header, said, parts[0].name, 1)
    if len(roles.get("label", ())) > 1:
        allowed = f"one column of labels in each file, as each is one run, or {parts[0].name} alone"
        raise InputError(f"labels in {parts[0].name}", roles["label"], allowed)
    found, added = dict(said), []
    naming = None if "example" in roles else _naming_column(files, unused(header, roles))
    if naming is not None:
        found["example"] = [naming]
    if "run" not in roles:
        added = ["file name"] + ["row number"] * ("example" not in roles and naming is None)
    table = Table(
        " + ".join(part.name for part in parts),
        [*header, *added],
        _with_columns(parts, names, len(added)),
        lambda: [place for part in parts for place in part.places()],
        separator=parts[0].separator,
        numbered="row number" in added,
    )
    return table, found | {
        role: [column] for role, column in zip(("run", "example"), added, strict=False)
    }


def _naming_column(files: Sequence[Path], columns: Sequence[str]) -> str | None:
    """The column that names the same examples in all files, each once, as an index does.

    None where there is none, or where numbers go on from file to file, as in a table that was cut
    into runs. InputError where files have other names, or some of them only.
    """
    for column in row_names(columns):
        named = []
        for file in files:
            table = read_table(file, file.name)
            place = table.header.index(column)
            named.append([_row_name(row[place]) for rows in table.chunks for row in rows])
        if any(len(set(names)) < len(names) for names in named):
            continue
        first, *others = map(set, named)
        if all(names == first for names in others):
            return column
        for file, names in zip(files[1:], others, strict=True):
            goes_on = not names & first and all(name.isdecimal() for name in names | first)
            if names != first and not goes_on:
                strange = sorted(names ^ first)[0]
                allowed = "the same rows in all files"
                raise InputError(f"{column!r} of {files[0].name} or {file.name}", strange, allowed)
    return None


def _row_name(cell: str) -> str:
    """A cell as the name of a row, whole numbers alike however they are written: 7, 7.0, 07."""
    number = _number(cell)
    return str(int(number)) if number.is_integer() else plain(cell)


def _with_columns(parts: Sequence[Table], names: Sequence[str], count: int):
    """The rows of each part with its name and their numbers, or the first of these, at the end."""
    for part, name in zip(parts, names, strict=True):
        numbers = map(str, count_from(0))
        for rows in part.chunks:
            yield [[*row, *(name, next(numbers))[:count]] for row in rows]


class _Words(dict):
    """Word -> whole number, in order of appearance; `words` have no whitespace around them."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.nested: set[str] = set()

    def __missing__(self, word):
        clean = word.strip()
        if type(word) is Nested:
            self.nested.add(clean)
        if clean == word:
            self[word] = len(self.words)
            self.words.append(clean)
        else:
            self[word] = self[clean]
        return self[word]


@dataclass(frozen=True, eq=False)
class _Cells:
    """The columns that play a role, as whole numbers, and the words behind them.

    codes: role -> (columns, rows); words: role -> list; labels and gold share one code.
    """

    table: Table
    roles: dict[str, list[str]]
    codes: dict[str, ndarray]
    words: dict[str, list[str]]

    @property
    def wide(self) -> bool:
        """Whether each run has a column of its own."""
        return len(self.roles.get("label", ())) > 1

    def first_row(self, role: str, code: int) -> str:
        """Where a word stands first, as messages name it."""
        rows = (self.codes[role] == code).any(axis=0)
        return self.table.where(int(rows.argmax()))

    def of_run(self, row: int) -> str:
        """Of which run a row is, as messages name it; "" where that is not said by rows."""
        if "run" not in self.codes:
            return ""
        return f" of run {self.words['run'][self.codes['run'][0][row]]!r}"

    def empty(self, role: str) -> ndarray:
        """Where the cells of a role are empty: (columns, rows)."""
        codes = [code for code, word in enumerate(self.words[role]) if not plain(word)]
        return np.isin(self.codes[role], codes)

    def numbers(self, role: str, lowest=-np.inf, highest=np.inf, allowed="a number") -> ndarray:
        """The words of a role as numbers. InputError with the line of one that is not allowed."""
        numbers = np.array(list(map(_number, self.words[role])))
        right = np.isfinite(numbers) & (numbers >= lowest) & (numbers <= highest)
        if not right.all():
            wrong = int(right.argmin())
            where = self.first_row(role, wrong)
            raise InputError(f"{where}: {role}", self.words[role][wrong], allowed)
        return numbers


def _number(word: str) -> float:
    """The number that a word stands for; nan where it stands for none."""
    try:
        return float(word)
    except ValueError:
        return np.nan


def _from_table(table: Table, said: dict[str, list[str]], least: int) -> Predictions:
    roles = assign(table.header, said, table.name, least)
    first = next(table.chunks, None)
    if first is None:
        raise InputError("predictions", table.name, "rows below the header")
    wide = len(roles.get("label", ())) > 1
    alone = not wide and not {"run", "checkpoint"} & set(roles)  # a row an example, of one run
    if not wide and "label" in roles and "label" not in said:
        suspects = answers_elsewhere(table.header, first, roles)
        if suspects:
            label = roles["label"][0]
            example = f"label={suspects[0]}, gold={label}"
            raise question(table.name, [label, *suspects], example)
    rated = [] if wide else _rated_columns(table.header, roles)
    wanted = {role: columns for role, columns in roles.items() if role != "probabilities"}
    not_beside = {*rated, *COLUMNS}  # one named like a role would be read as that role
    others = [column for column in unused(table.header, roles) if column not in not_beside]
    unnamed = (wide or alone) and "example" not in roles
    names = row_names(others) if unnamed else []
    callers = others if unnamed and not names else identities(others)
    beside = dict.fromkeys([*rated, *names, *callers])
    cells = _read(table, first, wanted | {column: [column] for column in beside})
    cells = _with_row_names(cells, names)
    if "label" not in roles:
        cells = _labels_of(rated, cells)
    _refuse_what_is_no_table(cells)
    _refuse_scores(cells)
    return _predictions(_one_spelling(cells, rated), rated, callers, least)


def _rated_columns(header: list[str], roles: dict[str, list[str]]) -> list[str]:
    """The columns of probabilities, by their names unless they are said."""
    by_name = [column for column in header if column.startswith("p_")]
    return roles.get("probabilities", by_name)


def _class_of(column: str) -> str:
    """The label that a column of probabilities is about."""
    return column.removeprefix("p_")


def _read(table: Table, first, wanted: dict[str, list[str]]) -> _Cells:
    """Wanted columns, each word replaced by a whole number."""
    books = {role: _Words() for role in wanted}
    if "label" in wanted:
        books["gold"] = books["label"]  # one code for both
    places = [
        (table.header.index(column), books[role], array("q"))
        for role, columns in wanted.items()
        for column in columns
    ]
    for chunk in chain([first], table.chunks):
        columns = list(zip(*chunk, strict=True))
        for place, book, read in places:
            read.extend(map(book.__getitem__, columns[place]))
    arrays = (np.frombuffer(read, np.int64) for _, _, read in places)
    codes = {role: np.stack([next(arrays) for _ in columns]) for role, columns in wanted.items()}
    cells = _Cells(table, wanted, codes, {role: books[role].words for role in wanted})
    for role in wanted:
        for code in np.unique(codes[role]):
            word = cells.words[role][code]
            problem = "that is not a list or an object" if word in books[role].nested else ""
            if plain(word) and not problem:
                problem = unreadable(word)
            if problem:
                allowed = f"a text {problem}"
                raise InputError(f"{cells.first_row(role, code)}: {role}", word, allowed)
    return cells


def _with_row_names(cells: _Cells, columns: list[str]) -> _Cells:
    """The cells of a wide form, its rows named by the first column that tells all of them apart."""
    for column in columns:
        if len(cells.words[column]) == cells.codes[column].shape[1]:
            return replace(
                cells,
                roles=cells.roles | {"example": [column]},
                codes=cells.codes | {"example": cells.codes[column]},
                words=cells.words | {"example": cells.words[column]},
            )
    return cells


def _labels_of(rated: list[str], cells: _Cells) -> _Cells:
    """Labels where there are only probabilities: the class of the highest."""
    scores = np.stack([cells.numbers(column)[cells.codes[column][0]] for column in rated])
    names = list(map(_class_of, rated))
    labels = {"label": scores.argmax(axis=0)[None]}
    words = {"label": names}
    if "gold" in cells.codes:
        both = list(dict.fromkeys([*names, *cells.words["gold"]]))
        place = np.array([both.index(word) for word in cells.words["gold"]])
        labels["gold"] = place[cells.codes["gold"]]
        words = {"label": both, "gold": both}
    return replace(cells, codes=cells.codes | labels, words=cells.words | words)


def _refuse_what_is_no_table(cells: _Cells) -> None:
    """Refuse what files that were joined, cut off or badly quoted hold beside their rows."""
    _refuse_headers(cells)
    if cells.table.separator and "label" in cells.roles:
        _refuse_swallowed_rows(cells)
        _refuse_last_line(cells)


def _refuse_headers(cells: _Cells) -> None:
    """Refuse a header among the rows, rows without a name, and a row in place of the header."""
    for role in ("run", "example", "checkpoint"):
        for column in cells.roles.get(role, ()):
            for word, allowed in (
                ("", f"the name of a {role}"),
                (column, "rows; here a header is repeated, as where files were joined"),
            ):
                if word in cells.words[role]:
                    where = cells.first_row(role, cells.words[role].index(word))
                    raise InputError(f"{where}: {role}", word, allowed)
    if not cells.wide:
        return
    answers = {cells.words["label"][code] for code in np.unique(cells.codes["label"])}
    labels = sorted(answers.intersection(cells.roles["label"]))
    if labels:
        allowed = "names of columns; these are labels of rows below, as where no header is given"
        raise InputError(f"header of {cells.table.name}", ", ".join(labels), allowed)


def _refuse_swallowed_rows(cells: _Cells) -> None:
    """Refuse a cell that holds rows, as after a quote that was never closed."""
    table = cells.table
    known = {
        table.header.index(column): set(cells.words[role])
        for role in ("run", "label", "gold", "checkpoint")
        for column in cells.roles.get(role, ())
    }
    for role in ("example", "text", "label"):
        for code, word in enumerate(cells.words.get(role, ())):
            if "\n" in word and swallowed(word, table.separator, len(table.header), known):
                where = f"{cells.first_row(role, code)}: {role}"
                allowed = "one cell; this one holds rows of the file, as after an unclosed quote"
                raise InputError(where, word, allowed)


def _refuse_last_line(cells: _Cells) -> None:
    """Refuse a label at the end of a file that is the beginning of one, and stands nowhere else."""
    table, last_column = cells.table, cells.table.header[-1]
    role = next((r for r in ("label", "gold") if last_column in cells.roles.get(r, ())), "")
    if not table.open_ended or not role:
        return
    last = cells.codes[role][cells.roles[role].index(last_column), -1]
    together = [cells.codes[r].ravel() for r in ("label", "gold") if r in cells.codes]
    counts = np.bincount(np.concatenate(together))
    counts[last] -= 1
    words = cells.words["label"]
    allowed = cut_off(words[last], [words[code] for code in np.flatnonzero(counts)])
    if allowed:
        where = table.where(cells.codes["label"].shape[1] - 1)
        raise InputError(f"{where}: {role}", words[last], allowed)


NUMBER = re.compile(r"[-+]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)(e[-+]?[0-9]+)? ?%?", re.IGNORECASE)


def _refuse_scores(cells: _Cells) -> None:
    """Refuse numbers that are no codes of labels: probabilities, percentages, scores."""
    if "label" not in cells.roles:
        return
    columns, codes = cells.roles["label"], cells.codes["label"]
    distinct = np.unique(codes)
    words = [cells.words["label"][code] for code in distinct]
    if not all(map(NUMBER.fullmatch, words)):
        return
    numbers = np.array([float(word.rstrip(" %").replace(",", ".")) for word in words])
    values = numbers[np.searchsorted(distinct, codes)]
    whole = bool((numbers % 1 == 0).all())
    shares = numbers.min() >= 0 and numbers.max() <= 1
    listed = ", ".join(columns)
    if cells.wide and _sum_to_one(values, whole):
        allowed = (
            "labels, one column for each run; these hold numbers of 0 .. 1 that sum to 1 in every "
            "row, as the probabilities that one run gives the classes do. Long form, with a column "
            f'for the run, takes them: --columns "probabilities={" ".join(columns)}"'
        )
        raise InputError(f"columns of {cells.table.name}", listed, allowed)
    many = len(numbers) > 5 and shares or len(numbers) > 10 and 4 * len(numbers) > codes.size
    if not whole and (many or 2 * len(numbers) > codes.size):
        allowed = f"labels; these are {len(numbers)} different decimals, as scores are"
        raise InputError(f"columns of {cells.table.name}", listed, allowed)


def _sum_to_one(values: ndarray, whole: bool) -> bool:
    """Whether every row of (columns, rows) sums to 1, or to 100 %, but for what was rounded."""
    columns, rows = values.shape
    for total in (1, 100):
        inside = values.min() >= 0 and values.max() <= total
        off = np.abs(values.sum(axis=0) - total).max()
        enough = rows >= 10 if whole else rows > 1
        if inside and enough and off <= 0.01 * total * columns and np.ptp(values, axis=1).any():
            return True
    return False


def _one_spelling(cells: _Cells, rated: list[str]) -> _Cells:
    """The cells with one code for labels that look the same."""
    words = cells.words["label"]
    chosen = spellings([*words, *map(_class_of, rated)], f"labels in {cells.table.name}")
    names = list(dict.fromkeys(chosen[word] for word in words))
    place = {name: i for i, name in enumerate(names)}
    recode = np.array([place[chosen[word]] for word in words])
    both = [role for role in ("label", "gold") if role in cells.codes]
    codes = {role: recode[cells.codes[role]] for role in both}
    return replace(cells, codes=cells.codes | codes, words=cells.words | {r: names for r in both})


@dataclass(frozen=True, eq=False)
class _Grid:
    """Where in the table each example of each run at each checkpoint stands.

    rows: (runs * checkpoints, examples), the last checkpoint of each run being its answer.
    """

    runs: tuple[str, ...]
    points: list[str]
    examples: tuple[str, ...]
    rows: ndarray

    @property
    def answers(self) -> ndarray:
        """The rows of answers, run by run."""
        return self.rows[len(self.points) - 1 :: len(self.points)].ravel()


def _grid(cells: _Cells, least: int) -> _Grid:
    """The rows in order. InputError for an example that a run answers twice, or not at all."""
    examples, example = _ids("example", cells)
    _refuse_silence(cells, examples, example)
    runs: tuple[str, ...] = ("1",)
    run = np.zeros(1, int)
    if cells.wide:
        runs = tuple(cells.roles["label"])
    elif "run" in cells.roles:
        runs, run = _ids("run", cells)
    points, point = _moments(cells) if "checkpoint" in cells.codes else ([""], 0)
    if len(runs) < least and len(points) < 2:
        raise InputError(f"runs in {cells.table.name}", len(runs), MORE_RUNS)
    times = ("",) if cells.wide else _times(runs, points)
    order = _order(run * len(points) + point, example, times, examples)
    return _Grid(runs, points, examples, order.reshape(len(times), len(examples)))


def _predictions(cells: _Cells, rated: list[str], beside: list[str], least: int) -> Predictions:
    """Every run's answers side by side."""
    codes, words = cells.codes, cells.words
    grid = _grid(cells, least)
    runs, examples = grid.runs, grid.examples
    fixed = {
        role: _fixed(role, cells, grid) for role in ("gold", "text", "weight") if role in codes
    }
    texts = None
    if "text" in fixed:
        texts = tuple(words["text"][code] for code in fixed["text"])
    weights = cells.numbers("weight")[fixed["weight"]] if "weight" in fixed else None
    identity = {column: _identity(column, cells, grid) for column in beside}
    classes = _spelled(map(_class_of, rated), words["label"])
    if not set(classes) & set(words["label"]):
        rated, classes = [], []
    names, rank = ordered(dict.fromkeys([*words["label"], *classes]))
    labels = rank[codes["label"][:, grid.answers].reshape(len(runs), -1)]
    gold = rank[fixed["gold"]] if "gold" in fixed else None
    checkpoints = None
    if len(grid.points) > 1:
        shape = (len(runs), len(grid.points), len(examples))
        checkpoints = rank[codes["label"][0, grid.rows].reshape(shape)]
    same_code(labels, gold, names, [f"run {run!r}" for run in runs])
    probabilities = None
    if rated:
        shares = _probabilities(rated, names, cells, grid.answers)
        probabilities = shares.reshape(*labels.shape, -1)
    read = Predictions(
        labels,
        names,
        runs,
        examples,
        _layout(cells, rated, labels.shape),
        gold,
        texts,
        probabilities,
        weights,
        checkpoints,
        numbered="example" not in cells.roles or cells.table.numbered,
        identity={column: called for column, called in identity.items() if called},
    )
    _refuse_contradictions(read, cells.table.name)
    if "confidence" in codes:
        return replace(read, confidence=_confidence(cells, grid, probabilities))
    return read


def _ids(role: str, cells: _Cells):
    """Names of the examples (or runs) in order, and which of them each row has."""
    if role not in cells.codes:
        rows = cells.codes["label"].shape[1]
        return tuple(map(str, range(rows))), np.arange(rows)
    names, rank = ordered(cells.words[role])
    return names, rank[cells.codes[role][0]]


def _refuse_silence(cells: _Cells, examples, example) -> None:
    """Refuse an empty label: no answer is an answer that needs a name."""
    silent = cells.empty("label")
    if silent.any():
        row, run = np.argwhere(silent.T)[0]
        of_run = cells.of_run(row)
        if cells.wide:
            of_run = f" of run {cells.roles['label'][run]!r}"
        what = f"label of example {examples[example[row]]!r}{of_run}"
        allowed = "an answer (any word, such as none, for no answer)"
        raise _empty(f"{cells.table.where(row)}: {what}", allowed, silent.sum())


def _empty(where: str, allowed: str, count: int) -> InputError:
    more = f"; {count} cells are empty" if count > 1 else ""
    return InputError(where, "an empty cell", allowed + more)


def _moments(cells: _Cells):
    """The checkpoints in order of their numbers, and which of them each row has."""
    order = np.argsort(cells.numbers("checkpoint"), kind="stable")
    names = [cells.words["checkpoint"][code] for code in order]
    return names, np.argsort(order)[cells.codes["checkpoint"][0]]


def _times(runs, points) -> tuple[str, ...]:
    """What messages call each run at each of its checkpoints."""
    if points == [""]:
        return runs
    return tuple(f"{run}, checkpoint {point}" for run in runs for point in points)


def _order(time, example, times, examples) -> ndarray:
    """Which row holds each (time, example), time by time: every pair once, else InputError."""
    pair = time * len(examples) + example
    present, counts = np.unique(pair, return_counts=True)
    twice = np.flatnonzero(counts > 1)
    lacking = len(times) * len(examples) - len(present)
    if len(twice) or lacking:
        gaps = np.flatnonzero(present != np.arange(len(present)))
        first, value, wrong = (gaps[0] if len(gaps) else len(present)), "no row", lacking
        if len(twice):
            first, value, wrong = present[twice[0]], f"{counts[twice[0]]} rows", len(twice)
        who = times[first // len(examples)]
        where = f"example {examples[first % len(examples)]!r}"
        where += f" of run {who!r}" if who else ""
        allowed = "one row for each run and example"
        allowed += f"; so it is for {wrong} such pairs" if wrong > 1 else ""
        if len(twice):
            allowed += ". If a query is asked several times, number the rows of each run in a "
            allowed += "column, and say --columns example=<that column>"
        raise InputError(where, value, allowed)
    return np.argsort(pair)


def _fixed(role: str, cells: _Cells, grid: _Grid) -> ndarray:
    """What belongs to an example must not differ by run: (examples,)."""
    codes, words = cells.codes[role][0][grid.rows], cells.words[role]
    empty, differ = cells.empty(role)[0][grid.rows], codes != codes[0]
    lacking = empty & ((role == "gold") | differ.any(axis=0))
    for wrong in (lacking, differ):
        if not wrong.any():
            continue
        example, time = np.argwhere(wrong.T)[0]
        row = grid.rows[time, example]
        what = f"{role} of example {grid.examples[example]!r}{cells.of_run(row)}"
        where = f"{cells.table.where(row)}: {what}"
        if empty[time, example]:
            allowed = f"a {role} in every row: fill it in, leave the example out of all runs, or "
            raise _empty(where, f"{allowed}delete the column", empty.sum())
        value = words[codes[time, example]]
        raise InputError(where, value, f"{words[codes[0, example]]!r}, as in the first run")
    return codes[0]


def _identity(column: str, cells: _Cells, grid: _Grid) -> tuple[str, ...]:
    """What another column calls each example; () for one that does not tell examples apart.

    Refuses one that tells the same examples apart in every run, but in another order.
    """
    codes, words = cells.codes[column][0][grid.rows], cells.words[column]
    everything = np.sort(codes, axis=1)
    if (everything != everything[0]).any() or (np.diff(everything[0]) == 0).any():
        return ()
    _fixed(column, cells, grid)
    return tuple(words[code] for code in codes[0])


# ---- probabilities


def _spelled(classes: Iterable[str], labels: Iterable[str]) -> list[str]:
    """Classes as the labels spell them."""
    spelling = {plain(label): label for label in labels}
    return [spelling.get(plain(name), name) for name in classes]


def _probabilities(rated, names, cells: _Cells, answers) -> ndarray:
    """A row for each run and example, classes in the order of the label names."""
    column_of = dict(zip(_spelled(map(_class_of, rated), names), rated, strict=True))
    missing = sorted(f"p_{label}" for label in names if label not in column_of)
    if missing:
        raise InputError(
            "probability columns", rated, f"one for each label; there is no {missing[0]}"
        )
    columns = [column_of[label] for label in names]
    return np.stack(
        [cells.numbers(column)[cells.codes[column][0]][answers] for column in columns], axis=1
    )


ROUNDED = 0.01  # two numbers of two decimals, or one of them in per cent, differ by no more


def _confidence(cells: _Cells, grid: _Grid, probabilities: ndarray | None) -> ndarray:
    """The probability of each answer (runs, examples). InputError where probabilities differ."""
    allowed = "a number of 0 .. 1 (--columns confidence=none leaves the column out)"
    numbers = cells.numbers("confidence", 0, 1, allowed)
    rows = cells.codes["confidence"][:, grid.answers]
    confidence = numbers[rows].reshape(len(grid.runs), -1)
    if probabilities is not None:
        off = np.abs(confidence - probabilities.max(axis=2)) > ROUNDED
        if off.any():
            run, example = np.argwhere(off)[0]
            where = f"confidence of example {grid.examples[example]!r} of run {grid.runs[run]!r}"
            highest = probabilities[run, example].max()
            allowed = f"{highest:g}, the highest probability beside it, or only one of the two "
            allowed += "(--columns confidence=none)"
            raise InputError(where, float(confidence[run, example]), allowed)
    return confidence


def _refuse_contradictions(read: Predictions, name: str) -> None:
    """Refuse labels that have not the highest probability; equal ones are all the highest."""
    labels, probabilities, names = read.labels, read.probabilities, read.label_names
    if probabilities is None:
        return
    highest = probabilities.max(axis=2)
    of_label = np.take_along_axis(probabilities, labels[..., None], axis=2)[..., 0]
    differ = of_label < highest
    if differ.any():
        run, example = np.argwhere(differ)[0]
        best = names[probabilities[run, example].argmax()]
        value = (
            f"label {names[labels[run, example]]} of example {read.examples[example]} of run "
            f"{read.runs[run]}, where {best} has the highest"
        )
        allowed = (
            f"labels of the highest probability; {differ.sum()} of {differ.size} are not. Where "
            "they were chosen in another way, leave probabilities out: --columns probabilities=none"
        )
        raise InputError(f"probabilities in {name}", value, allowed)


def _layout(cells: _Cells, rated: list[str], shape: tuple[int, int]) -> str:
    """What was read as what, and what was left unused, in one line."""
    parts = {role: cells.roles[role] for role in COLUMNS if role in cells.roles}
    left = unused(cells.table.header, {**parts, "probabilities": rated})
    parts.setdefault("example", ["rows in their order"])
    parts["probabilities"] = rated
    parts["not used"] = [column + _meant(column, cells.roles) for column in left]
    named = "; ".join(f"{role}: {', '.join(columns)}" for role, columns in parts.items() if columns)
    runs, examples = shape
    form = "wide" if cells.wide else "long"
    return f"{form} form, {runs} run{'s' * (runs > 1)} x {examples} examples ({named})"


def _meant(column: str, roles: Collection[str]) -> str:
    """A question where a column that is left unused is called almost like a role that is not
    there.

    >>> _meant("glod", ["label"]), _meant("glod", ["gold"]), _meant("note", [])
    (' (gold? --columns gold=glod)', '', '')
    """
    absent = [role for role in COLUMNS if role not in roles and role != "probabilities"]
    near = get_close_matches(column.lower(), absent, 1, cutoff=0.75)
    return f" ({near[0]}? --columns {near[0]}={column})" if near else ""


# ---- arrays


def _npy(path: Path) -> dict[str, ndarray]:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which fails in many ways
        reason = " ".join(str(error).split())[:80]
        allowed = f"an array without pickled objects ({reason})"
        raise InputError("predictions", path.name, allowed) from None
    return _by_shape(array)


def _safetensors(path: Path) -> dict[str, ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        allowed = f"a safetensors file of integers or floats ({str(error)[:80]})"
        raise InputError("predictions", path.name, allowed) from None
    if len(arrays) == 1 and not {"labels", "probabilities"} & set(arrays):
        return _by_shape(*arrays.values())
    return arrays


def _by_shape(array) -> dict[str, ndarray]:
    return {"probabilities" if np.ndim(array) == 3 else "labels": array}


def _from_arrays(arrays: dict[str, ndarray], name: str, least: int) -> Predictions:
    labels, probabilities, classes = arrays.get("labels"), arrays.get("probabilities"), None
    if probabilities is not None:
        kind, shape = probabilities.dtype.kind, probabilities.shape
        if len(shape) != 3 or kind != "f" or not probabilities.size:
            value = f"{probabilities.dtype} of shape {shape}"
            allowed = "floats of shape (runs, examples, classes)"
            raise InputError(f"probabilities in {name}", value, allowed)
        classes = shape[2]
        labels = probabilities.argmax(axis=2) if labels is None else labels
    if labels is None:
        allowed = "labels (runs, examples) or probabilities of three axes"
        raise InputError(f"arrays in {name}", sorted(arrays), allowed)
    labels, gold, names = encode(labels, arrays.get("gold"), classes=classes)
    if len(labels) < least:
        raise InputError(f"runs in {name}", len(labels), MORE_RUNS)
    runs, examples = (tuple(map(str, range(size))) for size in labels.shape)
    same_code(labels, gold, names, [f"run {run}" for run in runs])
    layout = f"array, {len(labels)} runs x {labels.shape[1]} examples ({', '.join(sorted(arrays))})"
    weights = arrays.get("weights")
    read = Predictions(
        labels, names, runs, examples, layout, gold, None, probabilities, weights, numbered=True
    )
    _refuse_contradictions(read, name)
    return read
