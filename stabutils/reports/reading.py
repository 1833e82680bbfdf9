"""Predictions of any system, read from a file: which label each run gave each example.

A table (.csv, .parquet) in long form has a row for each run and example (and checkpoint, where a column says what a run
answered at several points of its training); in wide form a row for each example and a column for each run. An array
(.npy, .safetensors) holds labels (runs, examples) or probabilities (runs, examples, classes). Whatever is wrong with a
file is one InputError that says where.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils.data.datasets import read_text
from stabutils.errors import InputError
from stabutils.provenance import project_root

SAMPLE = project_root() / "examples" / "predictions.csv"
COLUMNS = {  # what a column may be called when nobody says
    "run": ("run", "seed", "model", "version"),
    "example": ("example", "example_id", "id"),
    "label": ("label", "prediction", "predicted", "answer"),
    "gold": ("gold", "target", "true_label"),
    "text": ("text", "utterance", "query", "sentence"),
    "weight": ("weight", "traffic"),
    "checkpoint": ("checkpoint",),
}
A_RUN = re.compile(r"(run|seed|model|version|label|prediction)[ _-]?\d+", re.IGNORECASE)
FORMS = (
    "columns run, example and label (long form; of one run: checkpoint, example and label), or example and one "
    "column for each run, such as run1, run2 (wide form); columns of other names are mapped, as in --label answer "
    "or --label release_a release_b"
)
MORE_RUNS = (
    "at least 2: one alone has nothing to differ from; train again with another seed, ask the system again, "
    "put one run of each of two releases into one file, or bring a column checkpoint with what the one run "
    "answered at several points of its training"
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """labels (runs, examples) and gold (examples,) are places in label_names; layout says how a file was read.

    checkpoints (runs, checkpoints, examples): what each run answered at points of its training, the last of them being
    its labels.
    """

    labels: np.ndarray
    label_names: tuple[str, ...]
    runs: tuple[str, ...]
    examples: tuple[str, ...]
    layout: str
    gold: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    probabilities: np.ndarray | None = None
    weights: np.ndarray | None = None
    checkpoints: np.ndarray | None = None


def read_predictions(
    path: str | Path, columns: Mapping[str, str | Sequence[str]] | str | None = None
) -> Predictions:
    """Predictions in a .csv (UTF-8), .parquet, .npy or .safetensors file.

    columns: role -> column, for roles run, example, label, gold, text, weight, checkpoint (COLUMNS has the names known
    anyway), or the same as text, "label=answer, gold=truth"; two or more columns as "label" are the runs of the wide
    form. A long form may have a probability column p_<label> for each label, and checkpoints of each run: at least two,
    as many for each run, the last one (by number) being its answer. One run alone is read only with checkpoints.
    Words such as NA, None and null are labels like any other. Arrays in a .safetensors file: labels or probabilities,
    and perhaps gold and weights. Runs and examples are put in order of their names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = Path(folder, "mine.csv").write_text("example,run1,run2\\n7,a,a\\n8,a,b\\n", encoding="utf-8")
    ...     read_predictions(Path(folder, "mine.csv")).labels.tolist()
    [[0, 0], [0, 1]]
    """
    path = Path(path)
    readers = {".csv": _csv, ".parquet": _parquet, ".npy": _npy, ".safetensors": _safetensors}
    if path.suffix.lower() not in readers:
        raise InputError(
            "predictions", str(path), f"a file of {', '.join(readers)}; others can be saved as CSV"
        )
    if not path.is_file():
        raise InputError(
            "predictions",
            str(path),
            "a file, not a folder" if path.is_dir() else "a file that exists",
        )
    content = readers[path.suffix.lower()](path)
    if isinstance(columns, str):
        columns = _mapped(columns)
    if not isinstance(content, dict):
        return _from_table(*content, columns or {}, path.name)
    if columns:
        raise InputError("columns", dict(columns), f"none, {path.name} holds arrays")
    return _from_arrays(content, path.name)


def _mapped(text):
    """Role -> columns out of "label=old new, gold=truth"."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(middle and columns.strip() for _, middle, columns in pairs):
        raise InputError(
            "columns",
            text,
            "role=column pairs separated by commas, such as label=answer, gold=truth",
        )
    return {role.strip(): columns.split() for role, _, columns in pairs}


def encode(labels, gold=None, label_names=None, classes=None):
    """Labels (runs, examples) and gold (examples,), integers or strings, as places in label names: all three.

    Without label_names the labels that occur are named, in order; with `classes` integers stay as they are.

    >>> encode([["no", "yes"], ["no", "no"]])[0].tolist()
    [[0, 1], [0, 0]]
    """
    labels = _integers_or_strings(labels, "labels", ("runs", "examples"))
    every = labels.ravel()
    if gold is not None:
        gold = _integers_or_strings(gold, "gold", ("examples",))
        if len(gold) != labels.shape[1] or gold.dtype.kind != labels.dtype.kind:
            allowed = f"{labels.shape[1]} of the kind that labels are, one for each example"
            raise InputError("gold", f"{len(gold)} of type {gold.dtype}", allowed)
        every = np.concatenate([every, gold])
    every, names = _places(every, label_names, classes)
    return (
        every[: labels.size].reshape(labels.shape),
        None if gold is None else every[labels.size :],
        names,
    )


def _places(every, label_names, classes):
    if label_names is None and (classes is None or every.dtype == object):
        codes, found = pd.factorize(every)
        names, rank = _ordered(map(str, found))
        return rank[codes], names
    names = tuple(map(str, range(classes) if label_names is None else label_names))
    if every.dtype == object:
        place = {name: i for i, name in enumerate(names)}
        codes, found = pd.factorize(every)
        unknown = [name for name in found if name not in place]
        if unknown:
            raise InputError(
                "labels", unknown[0], f"one of the label names ({', '.join(names[:10])} ...)"
            )
        return np.array([place[name] for name in found])[codes], names
    if every.max() >= len(names):
        raise InputError(
            "labels", int(every.max()), f"class ids below {len(names)}, the number of classes"
        )
    return every, names


def _integers_or_strings(values, thing, axes):
    allowed = f"integers of at least 0, or strings, of shape ({', '.join(axes)})"
    try:
        values = np.asarray(values)
    except ValueError:
        raise InputError(thing, "rows of different length", allowed) from None
    if values.ndim != len(axes) or values.size == 0:
        raise InputError(
            f"shape of {thing}", values.shape, f"({', '.join(axes)}), none of them empty"
        )
    if values.dtype.kind in "OUT":
        values = values.astype(object)
        if (kind := pd.api.types.infer_dtype(values.ravel(), skipna=False)) != "string":
            raise InputError(f"type of {thing}", kind, allowed)
    elif values.dtype.kind not in "iu":
        raise InputError(f"type of {thing}", str(values.dtype), allowed)
    elif values.min() < 0:
        raise InputError(thing, int(values.min()), allowed)
    return values


def _ordered(names: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names sorted, numbers inside them by size (run2 before run10), and the place of each."""
    names = list(names)
    parts = [re.split("([0-9]{1,18})", name) for name in names]
    keys = [[int(part) if i % 2 else part for i, part in enumerate(split)] for split in parts]
    order = sorted(range(len(names)), key=lambda i: (keys[i], names[i]))
    return tuple(names[i] for i in order), np.argsort(order)


def _csv(path: Path) -> tuple[list[str], Iterator[list[Sequence[str]]]]:
    text = read_text(path, path.name)
    chunks = _chunks(csv.reader(io.StringIO(text, newline=""), strict=True), path.name)
    return [name.strip() for name in next(chunks)], chunks


def _chunks(reader, name):
    """The first row, then lists of some thousand rows, for a step of Python a row would cost more than all the rest."""
    rows = filter(None, reader)
    try:
        yield next(rows, [])
        while chunk := list(islice(rows, 10_000)):
            yield chunk
    except csv.Error as error:
        raise InputError(
            f"{name}, line {reader.line_num}", str(error), "comma-separated values"
        ) from None


def _parquet(path: Path) -> tuple[list[str], Iterator[list[Sequence[str]]]]:
    if find_spec("pyarrow") is None:
        raise InputError(
            "predictions", path.name, "a .csv file, or pyarrow installed to read Parquet"
        )
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise InputError("predictions", path.name, f"a Parquet file ({str(error)[:80]})") from None
    columns = [
        [
            "" if gone else str(cell)
            for cell, gone in zip(frame[name], frame[name].isna(), strict=True)
        ]
        for name in frame.columns
    ]
    return list(map(str, frame.columns)), iter(
        [list(zip(*columns, strict=True))] if len(frame) else []
    )


def _from_table(header, chunks, columns, name):
    if len(set(header)) < len(header):
        raise InputError(f"header of {name}", header, "columns of different names")
    roles = _roles(header, columns, name)
    wide = not {"run", "checkpoint"} & set(roles)
    rated = [] if wide else [column for column in header if column.startswith("p_")]
    codes, words = _read(chunks, {**roles, **{column: [column] for column in rated}}, header, name)
    examples, example = _ids("example", codes, words)
    if "" in words["label"] and (silent := codes["label"] == words["label"].index("")).any():
        lacking = np.unique(example[silent.any(axis=0)])
        raise InputError(
            f"labels in {name}",
            _none_for(examples[lacking[0]], len(lacking)),
            "an answer in every row (any word, such as none, for no answer)",
        )
    runs, run = (tuple(roles["label"]) if wide else ("1",), np.zeros(1, int))
    if "run" in roles:
        runs, run = _ids("run", codes, words)
    points, point = _moments(codes, words) if "checkpoint" in codes else (("",), 0)
    if len(runs) < 2 and len(points) < 2:
        raise InputError(f"runs in {name}", len(runs), MORE_RUNS)
    times = (
        ("",)
        if wide
        else tuple(f"{own}, checkpoint {each}" if each else own for own in runs for each in points)
    )
    every = _cells(
        run * len(points) + point, example, times, examples
    )  # rows in order of run, checkpoint, example
    place = every.reshape(-1, len(points), len(examples))[:, -1].ravel()  # of them, the answers
    fixed = {
        role: _fixed(codes[role][0][every].reshape(-1, len(examples)), words[role], role, examples)
        for role in ("gold", "text", "weight")
        if role in roles
    }
    rated = rated if {column[2:] for column in rated} & set(words["label"]) else []
    names, rank = _ordered(dict.fromkeys([*words["label"], *(column[2:] for column in rated)]))
    labels = rank[codes["label"][:, place].reshape(len(runs), -1)]
    checkpoints = (
        rank[codes["label"][0, every].reshape(len(runs), len(points), -1)]
        if len(points) > 1
        else None
    )
    gold = rank[fixed["gold"]] if "gold" in fixed else None
    _same_encoding(labels, gold, names, runs)
    used = {column for named in roles.values() for column in named} | set(rated)
    layout = _layout(
        wide,
        labels,
        {**roles, "probabilities": rated, "not used": [c for c in header if c not in used]},
    )
    return Predictions(
        labels,
        names,
        runs,
        examples,
        layout,
        gold,
        tuple(words["text"][code] for code in fixed["text"]) if "text" in fixed else None,
        _rated(rated, names, codes, words, place).reshape(*labels.shape, -1) if rated else None,
        _numbers("weight", words)[fixed["weight"]] if "weight" in fixed else None,
        checkpoints,
    )


def _ids(role, codes, words):
    """Names of the examples (or runs) in order, and which of them each row has; without a column the rows count."""
    if role not in codes:
        rows = codes["label"].shape[1]
        return tuple(map(str, range(rows))), np.arange(rows)
    names, rank = _ordered(words[role])
    return names, rank[codes[role][0]]


def _moments(codes, words):
    """The checkpoints in order of their numbers, and which of them each row has."""
    order = np.argsort(_numbers("checkpoint", words), kind="stable")
    return [words["checkpoint"][code] for code in order], np.argsort(order)[codes["checkpoint"][0]]


def _rated(rated, names, codes, words, place):
    """Probabilities, a row for each run and example, classes in the order of the label names."""
    missing = sorted({f"p_{label}" for label in names} - set(rated))
    if missing:
        raise InputError(
            "probability columns", rated, f"one for each label; there is no {missing[0]}"
        )
    columns = [f"p_{label}" for label in names]
    return np.stack(
        [_numbers(column, words)[codes[column][0]][place] for column in columns], axis=1
    )


def _roles(header, columns, name):
    """Which columns play which role: role -> columns. In wide form there is neither run nor checkpoint, and the labels
    are the runs; checkpoints without a run are those of one."""
    if not header:
        raise InputError(
            "predictions", name, "a file that is not empty, its first row naming the columns"
        )
    for role in columns:
        if role not in COLUMNS:
            raise InputError("role of a column", role, f"one of {', '.join(COLUMNS)}")
    asked = {
        role: [names] if isinstance(names, str) else list(names)
        for role, names in columns.items()
        if names
    }
    for role, names in asked.items():
        for column in names:
            if column not in header:
                raise InputError(
                    f"column for {role}", column, f"a column of {name}: {', '.join(header)}"
                )
    taken = {column for names in asked.values() for column in names}
    free = {column.lower(): column for column in reversed(header) if column not in taken}
    known = {
        role: [free[alias]]
        for role, names in COLUMNS.items()
        for alias in reversed(names)
        if alias in free
    }
    roles = {**known, **asked}
    of_runs = [column for column in header if A_RUN.fullmatch(column) and column not in taken]
    said = [free[alias] for alias in COLUMNS["label"] if alias in free]
    beside = [] if "run" in roles else of_runs
    if "label" not in asked and (
        len(said) > 1 or said and beside and "gold" not in roles
    ):  # which is the truth?
        raise InputError(
            f"columns of {name}",
            ", ".join([*said, *beside]),
            "told apart: which are answers, and which the truth, as in --label prediction --gold label",
        )
    if len(asked.get("label", ())) > 1 or "run" not in roles and "label" not in asked and of_runs:
        kept = {role: roles[role] for role in roles if role not in ("run", "checkpoint")}
        return {**kept, "label": asked.get("label", of_runs)}
    if not {"example", "label"} <= set(roles) or not {"run", "checkpoint"} & set(roles):
        if {"example", "label"} <= set(roles):
            raise InputError(
                f"runs in {name}", f"no column of them: {', '.join(header)}", MORE_RUNS
            )
        apart = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
        expected = f"commas between them, not {apart!r}" if apart else FORMS
        raise InputError(f"columns of {name}", ", ".join(header), expected)
    return roles


class _Codes(dict):
    """Word -> whole number, in order of appearance; `words` are those without whitespace around them."""

    def __init__(self):
        self.words = []

    def __missing__(self, word):
        clean = word.strip()
        if clean == word:
            self[word] = len(self.words)
            self.words.append(word)
        else:
            self[word] = self[clean]
        return self[word]


def _read(chunks, wanted, header, name):
    """Wanted columns as whole numbers, role -> (columns, rows), and the words behind them, role -> list."""
    books = {role: _Codes() for role in wanted}
    books["gold"] = books["label"]  # one code for both
    places = [
        (header.index(column), books[role], array("q"))
        for role, columns in wanted.items()
        for column in columns
    ]
    count = 0
    for chunk in chunks:
        if set(map(len, chunk)) != {len(header)}:
            row, cells = next(
                (row, cells) for row, cells in enumerate(chunk) if len(cells) != len(header)
            )
            found = f"{len(cells)} cells"
            raise InputError(
                f"{name}, data row {count + row + 1}", found, f"{len(header)}, as in the header"
            )
        columns = list(zip(*chunk, strict=True))
        for place, book, codes in places:
            codes.extend(map(book.__getitem__, columns[place]))
        count += len(chunk)
    if not count:
        raise InputError("predictions", name, "rows below the header")
    read = (np.frombuffer(codes, np.int64) for _, _, codes in places)
    return {role: np.stack([next(read) for _ in columns]) for role, columns in wanted.items()}, {
        role: book.words for role, book in books.items()
    }


def _cells(run, example, runs, examples):
    """Which row holds each (run, example), run by run: every pair once, else InputError."""
    cell = run * len(examples) + example
    times = np.bincount(cell, minlength=len(runs) * len(examples))
    for wrong, count in ((times > 1, "{} rows"), (times == 0, "no row")):
        if wrong.any():
            first = int(wrong.argmax())
            who = runs[first // len(examples)]
            where = f"example {examples[first % len(examples)]!r}" + f" of run {who!r}" * bool(who)
            more = f"; so it is for {wrong.sum()} such pairs" if wrong.sum() > 1 else ""
            raise InputError(
                where, count.format(times[first]), f"one row for each run and example{more}"
            )
    return np.argsort(cell)


def _fixed(codes, words, role, examples):
    """What belongs to an example must not differ by run: codes (runs, examples) -> (examples,)."""
    differ = (codes != codes[0]).any(axis=0)
    if differ.any():
        first = int(differ.argmax())
        found = sorted({words[code] for code in codes[:, first]})
        raise InputError(f"{role} of example {examples[first]!r}", found, "the same in every run")
    if role == "gold" and "" in words and (lacking := codes[0] == words.index("")).any():
        raise InputError(
            "gold",
            _none_for(examples[int(lacking.argmax())], lacking.sum()),
            "a label for every example, or no gold column",
        )
    return codes[0]


def _none_for(example, count):
    return f"none for example {example!r}" + f" and {count - 1} more" * bool(count > 1)


def _same_encoding(labels, gold, names, runs):
    """No run may answer in another code than the rest: numbers beside names, or not one label in common."""
    every = [*labels, *([] if gold is None else [gold])]
    given = np.array([np.bincount(row, minlength=len(names)) > 0 for row in every])
    number = np.array([name.lstrip("-").isdecimal() for name in names])
    elsewhere = given.sum(axis=0) > given
    for who, own, others in zip(
        [*(f"run {run!r}" for run in runs), "gold"], given, elsewhere, strict=False
    ):
        mine, rest = number[own], number[others]
        other_kind = mine.all() and not rest.any() or rest.all() and not mine.any()
        if others.any() and not (own & others).any() and (other_kind or labels.shape[1] >= 20):
            some, usual = ([names[i] for i in np.flatnonzero(which)[:3]] for which in (own, others))
            raise InputError(
                f"labels of {who}", some, f"the encoding of the others, such as {usual}"
            )


def _numbers(column, words):
    try:
        return np.array(list(map(float, words[column])))
    except ValueError as error:
        raise InputError(f"column {column}", str(error).rpartition(": ")[2], "numbers") from None


def _layout(wide, labels, columns):
    named = "; ".join(f"{role}: {', '.join(names)}" for role, names in columns.items() if names)
    runs = f"{len(labels)} run{'s' * (len(labels) > 1)}"
    return f"{'wide' if wide else 'long'} form, {runs} x {labels.shape[1]} examples ({named})"


def _npy(path: Path) -> dict[str, np.ndarray]:
    try:
        found = np.load(path, allow_pickle=False)
    except (
        Exception
    ) as error:  # numpy parses the header as a literal of Python, which fails in as many ways
        reason = " ".join(str(error).split())[:80]
        raise InputError(
            "predictions", path.name, f"an array without pickled objects ({reason})"
        ) from None
    return _by_shape(found)


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        allowed = f"a safetensors file of integers or floats ({str(error)[:80]})"
        raise InputError("predictions", path.name, allowed) from None
    return (
        found
        if {"labels", "probabilities"} & set(found) or len(found) != 1
        else _by_shape(*found.values())
    )


def _by_shape(found) -> dict[str, np.ndarray]:
    return {"probabilities" if np.ndim(found) == 3 else "labels": found}


def _from_arrays(arrays, name):
    if not {"labels", "probabilities"} & set(arrays):
        raise InputError(
            f"arrays in {name}",
            sorted(arrays),
            "labels (runs, examples) or probabilities of three axes",
        )
    probabilities = arrays.get("probabilities")
    rated = probabilities is not None
    if rated and (
        probabilities.ndim != 3 or probabilities.dtype.kind != "f" or not probabilities.size
    ):
        found = f"{probabilities.dtype} of shape {probabilities.shape}"
        raise InputError(
            f"probabilities in {name}", found, "floats of shape (runs, examples, classes)"
        )
    labels = arrays["labels"] if "labels" in arrays else probabilities.argmax(axis=2)
    classes = probabilities.shape[2] if rated else None
    labels, gold, names = encode(labels, arrays.get("gold"), classes=classes)
    if len(labels) < 2:
        raise InputError(f"runs in {name}", len(labels), MORE_RUNS)
    layout = f"array, {len(labels)} runs x {labels.shape[1]} examples ({', '.join(sorted(arrays))})"
    runs, examples = (tuple(map(str, range(size))) for size in labels.shape)
    return Predictions(
        labels, names, runs, examples, layout, gold, None, probabilities, arrays.get("weights")
    )
