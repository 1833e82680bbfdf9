"""What people's tools do to a right file gives the same result, or one error that names it.

One generator makes right inputs, one table holds what tools do to them, one oracle judges: a third
outcome (another result, another exception, an error about something else) is a fault. The table is
made of public bug reports. STABUTILS_CASES=200 asks for more of each than 16.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from stabutils.data.datasets import load_dataset
from stabutils.errors import InputError
from stabutils.reports.comparison import compare
from stabutils.reports.reading import read_predictions
from stabutils.reports.recorder import class_names, read_answers, read_gold

CASES = int(os.environ.get("STABUTILS_CASES", 16))
POOLS = (
    ("refund", "track order", "cancel", "opening hours", "other"),
    ("café", "thé glacé", "jus", "eau", "été"),
    ("退货 / 退款", "物流", "其他", "你好", "再见"),
    ("0", "1", "2", "3", "4"),
    ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4"),
)


# ---- right inputs


@dataclass(frozen=True)
class Sheet:
    """A table as somebody's tool holds it, before it is written; the truth beside it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    seed: int
    ending: str = ".csv"

    def draw(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def column(self, name: str) -> list[str]:
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def has(self, name: str) -> bool:
        return name in self.header

    def with_column(self, name: str, cells, at: int | None = None) -> Sheet:
        at = len(self.header) if at is None else at
        rows = (
            (*row[:at], str(cell), *row[at:]) for row, cell in zip(self.rows, cells, strict=True)
        )
        return replace(self, header=(*self.header[:at], name, *self.header[at:]), rows=tuple(rows))

    def mapped(self, name: str, change: Callable, where: Callable = lambda row: True) -> Sheet:
        """One column changed cell by cell, in the rows that fit."""
        place = self.header.index(name)
        rows = tuple(
            (*row[:place], change(row[place]), *row[place + 1 :])
            if where(dict(zip(self.header, row, strict=True)))
            else row
            for row in self.rows
        )
        return replace(self, rows=rows)

    def renamed(self, old: str, new: str) -> Sheet:
        return replace(self, header=tuple(new if name == old else name for name in self.header))

    def ordered(self, order) -> Sheet:
        return replace(self, rows=tuple(self.rows[i] for i in order))

    def answer_columns(self) -> list[str]:
        return [name for name in self.header if re.fullmatch(r"label|run\d+", name)]


def answers(runs: int, examples: int, classes: int, seed: int, noise: float = 0.15):
    """Gold, every class at least twice, and runs that are mostly right."""
    rng = np.random.default_rng(seed)
    gold = rng.permutation(np.resize(np.arange(classes), examples))
    wrong = rng.random((runs, examples)) < noise
    return gold, np.where(wrong, rng.integers(classes, size=(runs, examples)), gold)


def sheet_of(labels, gold, pool, seed, form, beside, first_run=1) -> Sheet:
    """Answers in long or wide form, with what stands beside them."""
    runs, examples = labels.shape
    texts = [f"what about thing {i}, please" for i in range(examples)]
    shared = [[str(i), texts[i], pool[gold[i]]] for i in range(examples)]
    names = ["example", "text", "gold"]
    kept = [i for i, name in enumerate(names) if name in beside]
    if form == "wide":
        header = [names[i] for i in kept] + [f"run{first_run + r}" for r in range(runs)]
        rows = [
            [*(shared[e][i] for i in kept), *(pool[labels[r, e]] for r in range(runs))]
            for e in range(examples)
        ]
    else:
        header = ["run", *(names[i] for i in kept), "label"]
        rows = [
            [str(first_run + r), *(shared[e][i] for i in kept), pool[labels[r, e]]]
            for r in range(runs)
            for e in range(examples)
        ]
    return Sheet(tuple(header), tuple(map(tuple, rows)), seed)


@st.composite
def predictions(draw, largest=24, noise=0.15, forms=("long", "wide"), beside=None):
    """A right file of predictions."""
    form = draw(st.sampled_from(forms))
    optional = draw(st.sets(st.sampled_from(["text", "gold"])))
    if form == "long" or draw(st.booleans()):
        optional |= {"example"}
    classes = draw(st.integers(2, 5))
    runs, examples = draw(st.integers(2, 4)), draw(st.integers(max(12, largest // 2), largest))
    seed, pool = draw(st.integers(0, 9999)), draw(st.sampled_from(POOLS))
    gold, labels = answers(runs, examples, classes, seed, noise)
    return sheet_of(labels, gold, pool, seed, form, optional | set(beside or ()))


@st.composite
def corpora(draw):
    """A right file of texts and labels, with a split in every row."""
    classes, seed, pool = (
        draw(st.integers(2, 5)),
        draw(st.integers(0, 999)),
        draw(st.sampled_from(POOLS)),
    )
    rng = np.random.default_rng(seed)
    labels = [*range(classes), *rng.integers(classes, size=12)]
    splits = ["train"] * (classes + 4) + ["test"] * 4 + ["validation"] * 4
    rows = tuple(
        (f"what about thing {i}, please", pool[label], split)
        for i, (label, split) in enumerate(zip(labels, splits, strict=True))
    )
    return Sheet(("text", "label", "split"), rows, seed)


# ---- written by some tool


def as_text(sheet: Sheet, separator=",", quoting=csv.QUOTE_MINIMAL, end="\n", header=True) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([*([sheet.header] if header else []), *sheet.rows])
    return text.getvalue()


def as_json_lines(sheet: Sheet) -> str:
    records = (dict(zip(sheet.header, row, strict=True)) for row in sheet.rows)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@dataclass(frozen=True)
class File:
    """What lies on the disk: a name's ending, and bytes."""

    content: bytes
    ending: str = ".csv"


def file_of(sheet: Sheet | File | str) -> File:
    if isinstance(sheet, Sheet):
        sheet = as_text(sheet)
    return File(sheet.encode("utf-8")) if isinstance(sheet, str) else sheet


# ---- what tools do: name -> (the change, what an error has to say; "" for none, and whether the
# same result is right)

SAME = (True, "")
A_LINE = r"mine\S*, (line|row) \d+"


def refused(says: str) -> tuple[bool, str]:
    return False, says


def either(says: str) -> tuple[bool, str]:
    return True, says


def shuffled(sheet):
    return sheet.ordered(sheet.draw().permutation(len(sheet.rows)))


def columns_shuffled(sheet):
    order = sheet.draw().permutation(len(sheet.header))
    rows = tuple(tuple(row[i] for i in order) for row in sheet.rows)
    return replace(sheet, header=tuple(sheet.header[i] for i in order), rows=rows)


def synonym(role: str, *names: str):
    def change(sheet):
        name = names[sheet.seed % len(names)]
        return sheet.renamed(role, name)

    return change


def recoded(change: Callable, share=1):
    """Every run, every second one or one of several writes its labels in another way."""

    def recode(sheet):
        if "label" in sheet.header:
            runs = sorted(set(sheet.column("run")))[:: 1 + share]
            return sheet.mapped(
                "label", lambda cell: change(cell, sheet), lambda row: row["run"] in runs
            )
        changed = sheet
        for name in sheet.answer_columns()[:: 1 + share]:
            changed = changed.mapped(name, lambda cell: change(cell, sheet))
        return changed

    return recode


def codes(sheet) -> dict[str, int]:
    words = {cell for name in sheet.answer_columns() for cell in sheet.column(name)}
    return {word: i for i, word in enumerate(sorted(words, reverse=True))}


def other_order(cell, sheet):
    """The label behind it, as where another list of classes gave the numbers."""
    names = sorted({cell for name in sheet.answer_columns() for cell in sheet.column(name)})
    return names[(names.index(cell) + 1) % len(names)]


def as_word(cell, sheet):
    """A code of another kind than the pool's."""
    return f"class {'abcde'[codes(sheet)[cell]]}"


def joined(second_header=lambda header: header, mark=""):
    """Two halves of a file, each with its header, one behind the other."""

    def change(sheet):
        half = len(sheet.rows) // 2
        first, second = (
            replace(sheet, rows=rows) for rows in (sheet.rows[:half], sheet.rows[half:])
        )
        second = replace(second, header=second_header(second.header))
        return as_text(first) + mark + as_text(second)

    return change


def cut_off(sheet):
    """The file ends in the middle of its last line."""
    text = as_text(sheet).rstrip("\n")
    last = text.rpartition("\n")[2]
    return text[: len(text) - int(sheet.draw().integers(1, len(last)))]


def last_column(name: str):
    """The same with a column at the end."""

    def change(sheet):
        place = sheet.header.index(name)
        cells = sheet.column(name)
        rows = tuple((*row[:place], *row[place + 1 :]) for row in sheet.rows)
        header = (*sheet.header[:place], *sheet.header[place + 1 :])
        return replace(sheet, header=header, rows=rows).with_column(name, cells)

    return change


def without_commas(sheet):
    if not sheet.has("text"):
        return sheet
    return sheet.mapped("text", lambda cell: cell.replace(",", ""))


def quoted(lines, number, place, template):
    cells = lines[number].split(",")
    cells[place] = template.format(cells[place])
    lines[number] = ",".join(cells)


def unclosed(sheet):
    """A quote opens before some cell and closes nowhere."""
    lines = as_text(without_commas(sheet)).split("\n")
    rng = sheet.draw()
    number, place = 1 + rng.integers(len(sheet.rows)), rng.integers(len(sheet.header))
    quoted(lines, number, place, '"{}')
    return "\n".join(lines)


def closed_rows_later(sheet):
    """A quote opens before one text and closes behind that of a later row."""
    place = sheet.header.index("text")
    lines = as_text(without_commas(sheet)).split("\n")
    quoted(lines, 2, place, '"{}')
    quoted(lines, 4, place, '{}"')
    return "\n".join(lines)


def encoded(codec: str, ending=".csv"):
    return lambda sheet: File(as_text(sheet).encode(codec, "replace"), ending)


def old_codec(sheet):
    text = as_text(sheet)
    latin = all(ord(sign) < 256 for sign in text)
    return File(text.encode("latin-1" if latin else "gb18030"))


def written(ending: str, **how):
    return lambda sheet: File(as_text(sheet, **how).encode("utf-8"), ending)


def json_lines(sheet):
    return File(as_json_lines(sheet).encode("utf-8"), ".jsonl")


def nested(sheet):
    """The first label as a list of one, as pipelines of Hugging Face give it."""
    first, *others = as_json_lines(sheet).splitlines()
    record = json.loads(first)
    record["label"] = [{"label": record["label"], "score": 0.9}]
    return File("\n".join([json.dumps(record), *others]).encode("utf-8"), ".jsonl")


def zipped(inner: Callable):
    def change(sheet):
        file = file_of(inner(sheet))
        return File(gzip.compress(file.content), f"{file.ending}.gz")

    return change


def zipped_and_cut(sheet):
    content = gzip.compress(as_text(sheet).encode("utf-8"))
    return File(content[: len(content) // 2], ".csv.gz")


def extra(name: str, cell: Callable, front=False):
    def change(sheet):
        rng = sheet.draw()
        cells = [cell(i, rng, sheet) for i in range(len(sheet.rows))]
        return sheet.with_column(name, cells, 0 if front else None)

    return change


def like_a_label(i, rng, sheet):
    names = sorted(codes(sheet))
    return names[int(rng.integers(len(names)))]


def like_the_answer(i, rng, sheet):
    return (
        sheet.column(sheet.answer_columns()[0])[i]
        if rng.random() < 0.9
        else like_a_label(i, rng, sheet)
    )


def doubled(sheet):
    return replace(
        sheet, rows=(*sheet.rows, sheet.rows[int(sheet.draw().integers(len(sheet.rows)))])
    )


def without_a_row(sheet):
    return sheet.ordered([i for i in range(len(sheet.rows)) if i != sheet.seed % len(sheet.rows)])


def emptied(name: str, empty=""):
    def change(sheet):
        target = sheet.seed % len(sheet.rows)
        rows = iter(range(len(sheet.rows)))
        return sheet.mapped(name, lambda cell: empty, lambda row: next(rows) == target)

    return change


def class_scores(decimals: int, stem: str, scale=1.0, sign=""):
    """Columns for classes, named as runs are, in place of the answers."""

    def change(sheet):
        rng = sheet.draw()
        shares = rng.dirichlet([0.4] * 3, size=len(sheet.rows)) * scale
        for name in sheet.answer_columns():
            sheet = without_column(sheet, name)
        for k in range(3):
            sheet = sheet.with_column(
                f"{stem}{k}", [f"{x:.{decimals}f}{sign}" for x in shares[:, k]]
            )
        return sheet

    return change


def without_column(sheet, name):
    place = sheet.header.index(name)
    rows = tuple((*row[:place], *row[place + 1 :]) for row in sheet.rows)
    return replace(sheet, header=(*sheet.header[:place], *sheet.header[place + 1 :]), rows=rows)


def rated(right: bool, decimals: int):
    """Probabilities beside the labels: of the label the highest, or of another one."""

    def change(sheet):
        names = sorted(
            codes(sheet) | {cell: 0 for cell in sheet.column("gold")}
            if sheet.has("gold")
            else codes(sheet)
        )
        rng = sheet.draw()
        scores = rng.dirichlet([1.0] * len(names), size=len(sheet.rows))
        place = {name: i for i, name in enumerate(names)}
        for row, label in zip(scores, sheet.column("label"), strict=True):
            best, wanted = int(row.argmax()), place[label]
            if not right:
                wanted = (wanted + 1) % len(names)
            row[best], row[wanted] = row[wanted], row[best]
        for name in names:
            cells = [f"{x:.{decimals}f}" for x in scores[:, place[name]]]
            sheet = sheet.with_column(f"p_{name}", cells)
        return sheet

    return change


def the_truth_is_called_label(answer: str):
    def change(sheet):
        return sheet.renamed("label", answer).renamed("gold", "label")

    return change


def with_two_ids(sheet):
    """Beside the examples, which one run numbers from another start, ids that stay."""
    ids = [f"q{cell}" for cell in sheet.column("example")]
    size = len(set(ids))
    turned = sheet.with_column("query_id", ids)
    return turned.mapped(
        "example", lambda cell: str((int(cell) + 1) % size), lambda row: row["run"] == "2"
    )


def in_another_code(i, rng, sheet):
    """Mostly the answer, written as a letter."""
    return "VWXYZ"[codes(sheet)[like_the_answer(i, rng, sheet)]]


def pivoted(sheet):
    """Long form as wide."""
    shared = [name for name in sheet.header if name not in ("run", "label")]
    runs = sorted(set(sheet.column("run")), key=int)
    table: dict[tuple, dict] = {}
    for row in sheet.rows:
        cells = dict(zip(sheet.header, row, strict=True))
        key = tuple(cells[name] for name in shared)
        table.setdefault(key, {})[cells["run"]] = cells["label"]
    rows = tuple((*key, *(given[run] for run in runs)) for key, given in table.items())
    return replace(sheet, header=(*shared, *(f"run{run}" for run in runs)), rows=rows)


def decomposed(cell, *_):
    return unicodedata.normalize("NFD", cell)


def hidden(cell, *_):
    return f"\u200b{cell[:1]}\u2060{cell[1:]}\ufeff"


TO_TABLES = {  # of predictions and of corpora
    "rows shuffled": (shuffled, SAME),
    "columns shuffled": (columns_shuffled, SAME),
    "byte order mark": (encoded("utf-8-sig"), SAME),
    "UTF-16": (encoded("utf-16"), refused(r"line 1: .*UTF-8")),
    "semicolons": (written(".csv", separator=";"), SAME),
    "tabs in a .csv": (written(".csv", separator="\t"), SAME),
    "tabs in a .tsv": (written(".tsv", separator="\t"), SAME),
    "CRLF": (written(".csv", end="\r\n"), SAME),
    "CR": (written(".csv", end="\r"), SAME),
    "everything in quotes": (written(".csv", quoting=csv.QUOTE_ALL), SAME),
    "blank lines": (lambda sheet: as_text(sheet).replace("\n", "\n\n"), SAME),
    "no line break at the end": (lambda sheet: as_text(sheet).rstrip("\n"), SAME),
    "ending in capitals": (written(".CSV"), SAME),
    "JSON lines": (json_lines, SAME),
    "gzip": (zipped(as_text), SAME),
    "gzip of JSON lines": (zipped(json_lines), SAME),
    "gzip cut off": (zipped_and_cut, refused("complete file compressed with gzip")),
    "two files joined with their headers": (joined(), refused(A_LINE + ".*header")),
    "two files joined, the second with a mark": (
        joined(mark="\ufeff"),
        refused(A_LINE + ".*header"),
    ),
    "two files joined, columns in another order": (
        joined(lambda header: header[::-1]),
        refused(A_LINE + ".*header"),
    ),
    "a quote that never closes": (unclosed, refused(A_LINE)),
    "a column twice": (
        lambda sheet: sheet.with_column(sheet.header[0], sheet.column(sheet.header[0])),
        refused("header|columns"),
    ),
    "a line for Excel above the header": (
        lambda sheet: "sep=,\n" + as_text(sheet),
        refused(r"line \d|columns"),
    ),
    "no header": (lambda sheet: as_text(sheet, header=False), refused("columns|header|line")),
    "only a header": (lambda sheet: replace(sheet, rows=()), refused("rows|no rows")),
    "header in capitals": (
        lambda sheet: replace(sheet, header=tuple(name.upper() for name in sheet.header)),
        SAME,
    ),
    "spaces around the header": (
        lambda sheet: replace(sheet, header=tuple(f" {name} " for name in sheet.header)),
        SAME,
    ),
    "an unnamed index in front": (extra("", lambda i, *_: i, front=True), SAME),
    "an index of pandas in front": (extra("Unnamed: 0", lambda i, *_: i, front=True), SAME),
    "an index at the end": (extra("index", lambda i, *_: i), SAME),
    "a column of integers": (extra("length", lambda i, rng, _: rng.integers(100)), SAME),
    "a column of decimals": (extra("seconds", lambda i, rng, _: round(rng.random(), 3)), SAME),
    "a column of truth values": (extra("is_new", lambda i, rng, _: rng.random() < 0.5), SAME),
    "a column of dates": (extra("day", lambda i, *_: f"2026-11-{1 + i % 28:02d}"), SAME),
    "a column of texts": (extra("note", lambda i, *_: f"see, ticket\nnumber {i}"), SAME),
    "a column of JSON": (extra("meta", lambda i, *_: json.dumps({"id": i, "x": [1]})), SAME),
    "an empty column": (extra("comment", lambda *_: ""), SAME),
}
LONG_ONLY = {
    "as wide form": (pivoted, SAME),
    "runs as decimals": (lambda s: s.mapped("run", lambda cell: f"{cell}.0"), SAME),
    "runs called seed": (synonym("run", "seed", "Seed", "version"), SAME),
    "runs called otherwise": (
        synonym("run", "trial", "run_id", "fold"),
        refused("trial|run_id|fold"),
    ),
    "a label beside which an answer stands unused": (
        extra("pred", like_a_label),
        refused("pred.*told apart"),
    ),
    "answers of many names beside a label": (
        lambda s: extra(
            ("predicted_label", "y_pred", "predictions", "pred_label", "modelOutput", "Y Hat")[
                s.seed % 6
            ],
            like_the_answer,
        )(s),
        refused("told apart: which are answers"),
    ),
    "answers of a name that nobody knows beside a label": (
        extra("bot says", like_the_answer),
        refused("bot says.*told apart"),
    ),
    "answers in another code beside a label": (
        extra("bot says", in_another_code),
        either("bot says.*told apart"),  # of few answers nobody can tell
    ),
    "a code of the label beside it": (
        extra("label_code", lambda i, rng, s: codes(s)[s.column("label")[i]]),
        either("label_code"),
    ),
    "two ids that contradict each other": (with_two_ids, refused("(query_id|text|gold) of exa")),
    "a column of random labels": (extra("topic", like_a_label), either("topic")),
    "probabilities": (rated(True, 6), SAME),
    "probabilities of two digits": (rated(True, 2), SAME),
    "probabilities that contradict the labels": (
        rated(False, 6),
        refused("probabilities in .*labels of the highest probability"),
    ),
    "a row less": (without_a_row, refused("example '")),
    "class scores as columns": (class_scores(3, "LABEL_"), refused("LABEL_0")),
    "a score as label": (
        lambda s: without_column(
            extra("prediction", lambda i, rng, _: f"{rng.random():.6f}")(s), "label"
        ),
        refused("columns .*decimals"),
    ),
    "a list as label": (
        nested,
        refused(A_LINE + ": label"),
    ),
}
WIDE_ONLY = {
    "class scores as columns": (class_scores(3, "prediction_"), refused("prediction_0.*sum to 1")),
    "class scores of two digits": (class_scores(2, "LABEL_"), refused("LABEL_0.*sum to 1")),
    "percentages as columns": (class_scores(0, "LABEL_", 100), refused("LABEL_0")),
    "percentages with their sign": (class_scores(1, "LABEL_", 100, "%"), refused("LABEL_0")),
    "runs of two kinds of names": (
        lambda s: s.renamed("run1", "model_1"),
        refused("model_1.*told apart"),
    ),
    "a label beside the runs": (
        lambda s: s.renamed("gold", "label") if s.has("gold") else extra("label", like_a_label)(s),
        refused("label.*told apart"),
    ),
    "runs called seed": (
        lambda s: replace(s, header=tuple(name.replace("run", "seed ") for name in s.header)),
        SAME,
    ),
    "a constant model beside the runs": (extra("model", lambda *_: "bert"), SAME),
}
TO_LABELS = {  # of one run, or of every second one
    "one run in capitals": (recoded(lambda c, s: c.upper(), 3), either("labels")),
    "one run decomposed": (recoded(decomposed, 3), SAME),
    "one run with signs that cannot be seen": (recoded(hidden, 3), SAME),
    "every second run in capitals": (recoded(lambda c, s: c.upper()), either("labels")),
    "every second run with underscores": (
        recoded(lambda c, s: c.replace(" ", "_")),
        either("labels"),
    ),
    "one run as other words": (recoded(as_word, 3), refused("labels of")),
    "every second run as other words": (recoded(as_word), refused("labels of")),
    "every second run as LABEL_k": (
        recoded(lambda c, s: f"LABEL_{codes(s)[c]}" if c[0] not in "01234L" else f"{c} "),
        either("labels"),
    ),
    "every second run as numbers": (
        recoded(lambda c, s: str(codes(s)[c]) if c[0] not in "01234L" else f" {c}"),
        either("labels of"),
    ),
    "numbers as decimals in one run": (
        recoded(lambda c, s: f"{c}.0" if c.isdecimal() else c, 3),
        either("labels"),
    ),
    "some cells in capitals": (
        lambda s: s.mapped(s.answer_columns()[0], str.upper, lambda row: "1" in str(row)),
        either("labels"),
    ),
    "spaces around labels": (recoded(lambda c, s: f"  {c}\t"), SAME),
    "the codec of another time": (old_codec, either(A_LINE + r".*UTF-8|labels|code|probab")),
}
TO_EXAMPLES = {
    "ids as decimals": (lambda s: s.mapped("example", lambda cell: f"{cell}.0"), SAME),
    "ids with zeros": (lambda s: s.mapped("example", lambda cell: cell.zfill(4)), SAME),
    "ids called otherwise": (
        synonym("example", "id", "example_id", "query_id", "uid", "Example ID"),
        SAME,
    ),
    "a number of the row called id": (extra("id", lambda i, *_: i), either("example|id")),
    "a row twice": (doubled, refused("example '.*2 rows")),
    "no id in one row": (emptied("example"), refused(A_LINE + ": example: got ''")),
    "the header's name as an id": (emptied("example", "example"), refused(A_LINE)),
}
TO_ANSWERS = {
    "no answer in one cell": (
        lambda s: emptied(s.answer_columns()[0])(s),
        refused("an empty cell"),
    ),
    "nothing to see in one cell": (
        lambda s: emptied(s.answer_columns()[0], "\u200b")(s),
        refused("an empty cell"),
    ),
}
TO_GOLD = {
    "gold called otherwise": (
        synonym("gold", "y_true", "target", "true_label", "ground truth", "expected"),
        SAME,
    ),
    "gold in one cell only": (emptied("gold"), refused("gold")),
    "gold in another order of labels": (
        lambda s: s.mapped("gold", lambda c: other_order(c, s)),
        either("labels of gold"),
    ),
    "gold as other words": (
        lambda s: s.mapped("gold", lambda c: f"class {c}x"),
        refused("labels of gold|probab"),
    ),
    "two columns of gold": (
        extra("y_true", like_a_label),
        refused("y_true.*which one is the truth"),
    ),
}


def fits(name: str, sheet: Sheet) -> bool:
    """Whether a change can be made to a sheet at all."""
    needs = {"TO_EXAMPLES": "example", "TO_GOLD": "gold"}
    return all(sheet.has(column) for table, column in needs.items() if name in globals()[table])


# ---- the oracle


def plain(name: str) -> str:
    """The name of a run or an example, however a tool writes numbers."""
    name = re.sub(r"^(run|seed)\s*", "", name.lower())
    name = re.sub(r"\.0$", "", name)
    return name.lstrip("0") or "0"


def said(label: str) -> str:
    """A label as it sounds: what stays of it whatever tool wrote it."""
    seen = "".join(sign for sign in label if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", seen).casefold().replace("_", " ")


def content(read) -> list:
    """What was read, whatever the order of rows: for each example its text, gold and answers."""
    names = list(map(said, read.label_names))
    assert len(set(names)) == len(names)
    runs = sorted(range(len(read.runs)), key=lambda r: plain(read.runs[r]))
    found = []
    for e, example in enumerate(read.examples):
        text = read.texts[e] if read.texts else ""
        gold = names[read.gold[e]] if read.gold is not None else ""
        key = text or ("" if read.numbered else plain(example))
        found.append((key, gold, *((plain(read.runs[r]), names[read.labels[r, e]]) for r in runs)))
    return sorted(found)


def without_keys(found: list) -> list:
    return sorted(("", *row[1:]) for row in found)


def judge(what: str, right, verdict: tuple[bool, str], attempt: Callable) -> None:
    """The same result, or one error that names the thing; anything else fails."""
    same, says = verdict
    try:
        found = attempt()
    except InputError as error:
        message = str(error)
        assert says and re.search(says, message, re.S), f"{what}: refused for {message}"
        assert "\n" not in message and message.count(": got ") >= 1, message
        return
    assert same, f"{what}: read without a word"
    assert found == right, f"{what}: another result"


def read_file(sheet, read: Callable):
    file = file_of(sheet)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"mine{file.ending}")
        path.write_bytes(file.content)
        return read(path)


def many(cases: int = CASES):
    return settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def read_content(path):
    return content(read_predictions(path))


def hold(what: str, table: dict, sheet: Sheet) -> None:
    change, verdict = table[what]
    right = read_file(sheet, read_content)
    nameless = not any(row[0] for row in right)  # an index may give the examples names

    def attempt():
        found = read_file(change(sheet), read_content)
        return without_keys(found) if nameless else found

    judge(what, right, verdict, attempt)


# ---- predictions


@pytest.mark.parametrize("what", TO_TABLES)
@many()
@given(sheet=predictions())
def test_predictions_written_by_any_tool(what, sheet):
    hold(what, TO_TABLES, sheet)


@pytest.mark.parametrize("what", LONG_ONLY)
@many()
@given(sheet=predictions(forms=("long",)))
def test_predictions_in_long_form(what, sheet):
    hold(what, LONG_ONLY, sheet)


@pytest.mark.parametrize("what", WIDE_ONLY)
@many()
@given(sheet=predictions(forms=("wide",)))
def test_predictions_in_wide_form(what, sheet):
    hold(what, WIDE_ONLY, sheet)


@pytest.mark.parametrize("what", [*TO_LABELS, *TO_ANSWERS])
@many()
@given(sheet=predictions())
def test_labels_of_predictions(what, sheet):
    hold(what, TO_LABELS | TO_ANSWERS, sheet)


@pytest.mark.parametrize("what", TO_EXAMPLES)
@many()
@given(sheet=predictions(beside=["example"]))
def test_examples_of_predictions(what, sheet):
    hold(what, TO_EXAMPLES, sheet)


@pytest.mark.parametrize("what", TO_GOLD)
@many()
@given(sheet=predictions(largest=160, noise=0.05, beside=["gold"]))
def test_gold_of_predictions(what, sheet):
    hold(what, TO_GOLD, sheet)


@many()
@given(sheet=predictions(largest=200, noise=0.05))
def test_a_run_whose_labels_are_in_another_order(sheet):
    """Two encoders of labels, each fitted on a file of its own."""
    hold("x", {"x": (recoded(other_order, 3), refused("labels of run"))}, sheet)


@pytest.mark.parametrize("name", ["pred", "predicted_label", "y_pred", "answer", "modelOutput"])
@many()
@given(sheet=predictions(forms=("long",), beside=["gold"]))
def test_the_truth_called_label_is_not_taken_for_the_answers(name, sheet):
    verdict = refused("told apart: which are answers, and which the truth")
    hold("x", {"x": (the_truth_is_called_label(name), verdict)}, sheet)
    told = f"label={name}, gold=label"
    right = read_file(sheet, read_content)
    changed = the_truth_is_called_label(name)(sheet)
    assert read_file(changed, lambda path: content(read_predictions(path, told))) == right


@pytest.mark.parametrize("name", ["label", "gold", "example"])
@many()
@given(sheet=predictions(forms=("long",), beside=["gold", "example"]))
def test_a_file_that_ends_in_the_middle_of_a_line(name, sheet):
    says = A_LINE + "|example '|labels|gold"
    change = last_column(name)
    hold(name, {name: (lambda s: cut_off(change(s)), either(says))}, sheet)


@many()
@given(sheet=predictions(beside=["text"]))
def test_a_quote_that_closes_rows_later(sheet):
    hold("x", {"x": (closed_rows_later, refused(A_LINE + "|example '|text of"))}, sheet)


# ---- comparisons


def numbers(comparison) -> dict:
    found = comparison.difference | {f"between {k}": v for k, v in comparison.between.items()}
    return {name: round(interval.value, 9) for name, interval in found.items()}


def with_other_ids(sheet, change=lambda number: number):
    """Ids called query_id in place of the text, so that they alone tell what is what."""
    ids = [f"q{change(int(cell))}" for cell in sheet.column("example")]
    return without_column(sheet, "text").with_column("query_id", ids, 0)


TO_AFTER = {
    "rows shuffled": (shuffled, SAME),
    "columns shuffled": (columns_shuffled, SAME),
    "JSON lines": (json_lines, SAME),
    "all runs decomposed": (recoded(decomposed, 0), SAME),
    "all runs with signs that cannot be seen": (recoded(hidden, 0), SAME),
    "all runs as other words": (recoded(as_word, 0), refused("labels of")),
    "all runs in capitals": (recoded(lambda c, s: c.upper(), 0), either("labels")),
    "all runs as LABEL_k": (
        recoded(lambda c, s: f"LABEL_{codes(s)[c]}" if c[0] not in "01234L" else c, 0),
        either("labels"),
    ),
    "all runs as decimals": (
        recoded(lambda c, s: f"{float(codes(s)[c])}" if c[0] != "L" else c, 0),
        either("labels"),
    ),
    "ids as decimals": (
        lambda s: s.mapped("example", lambda c: f"{c}.0"),
        refused("examples of before and after"),
    ),
    "an example less": (
        lambda s: replace(s, rows=tuple(r for r in s.rows if r[s.header.index("example")] != "3")),
        refused("examples of before and after"),
    ),
    "other texts": (
        lambda s: s.mapped("text", lambda c: c.replace("thing 4,", "thing 5,")),
        refused("text of example 4"),
    ),
    "numbered anew in another order": (
        lambda s: s.mapped("example", lambda c: str((int(c) + 1) % len(set(s.column("example"))))),
        refused("text of example|gold"),
    ),
    "no ids": (lambda s: without_column(s, "example"), refused("example|column")),
    "other ids of another name": (
        lambda s: with_other_ids(s, lambda c: (c + 1) % 12 if c < 12 else c),
        refused("query_id of example 0"),
    ),
    "another truth": (
        lambda s: s.mapped("gold", lambda c: other_order(c, s), lambda row: row["example"] == "3"),
        refused("gold"),
    ),
}


@st.composite
def pairs(draw, beside=("example", "text", "gold"), largest=24):
    """Files from before and after a change, on the same examples."""
    form, pool = draw(st.sampled_from(["long", "wide"])), draw(st.sampled_from(POOLS))
    classes, seed = draw(st.integers(2, 5)), draw(st.integers(0, 9999))
    runs, examples = draw(st.integers(2, 3)), draw(st.integers(12, largest))
    gold, labels = answers(2 * runs, examples, classes, seed, 0.1)
    before, after = labels[:runs], labels[runs:]
    return tuple(
        sheet_of(part, gold, pool, seed, form, beside, first)
        for part, first in ((before, 1), (after, 1 + runs))
    )


def compared(before, after) -> dict:
    return numbers(compare(*(read_file(sheet, read_predictions) for sheet in (before, after))))


@pytest.mark.parametrize("what", TO_AFTER)
@many()
@given(sheets=pairs())
def test_comparisons(what, sheets):
    before, after = sheets
    change, verdict = TO_AFTER[what]
    if what == "other ids of another name":
        before = with_other_ids(before)
    right = compared(before, after)
    judge(what, right, verdict, lambda: compared(before, change(after)))


@many()
@given(sheets=pairs(beside=("text",)))
def test_rows_without_ids_are_not_joined_where_texts_differ(sheets):
    before, after = (pivoted(sheet) if sheet.has("run") else sheet for sheet in sheets)
    right = compared(before, after)
    turned = after.ordered(range(len(after.rows))[::-1])
    judge("rows turned", right, refused("text of example 0"), lambda: compared(before, turned))


@many()
@given(sheets=pairs(beside=("example",), largest=200))
def test_comparisons_of_labels_in_another_order(sheets):
    before, after = sheets
    if len(set(before.column("example"))) < 120:
        return
    change = recoded(other_order, 0)
    judge("x", None, refused("labels of run"), lambda: compared(before, change(after)))


# ---- corpora


def texts_and_labels(path) -> list:
    data = load_dataset(path)
    names = list(map(said, data.label_names))
    return sorted(
        (split, text, names[label])
        for split in ("train", "validation", "test")
        for text, label in zip(getattr(data, split).texts, getattr(data, split).labels, strict=True)
    )


def some(change: Callable):
    """Every third label is written in another way."""

    def recode(sheet):
        count = iter(range(len(sheet.rows)))
        return sheet.mapped("label", lambda c: change(c, sheet), lambda row: next(count) % 3 == 0)

    return recode


def json_of_splits(sheet):
    groups: dict[str, list] = {}
    for text, label, split in sheet.rows:
        groups.setdefault(split, []).append([text, label])
    return File(json.dumps(groups).encode("utf-8"), ".json")


TO_CORPORA = {
    **TO_TABLES,
    "JSON of splits": (json_of_splits, SAME),
    "texts called otherwise": (synonym("text", "utterance", "Sentence", "query"), SAME),
    "texts of a name that nobody knows": (
        synonym("text", "content", "input"),
        refused("columns: got .*(content|input)"),
    ),
    "labels called otherwise": (synonym("label", "intent", "category"), SAME),
    "two columns of labels": (
        extra("intent", lambda i, rng, s: s.rows[i][1]),
        refused("intent.*one column of labels, not two"),
    ),
    "splits called otherwise": (synonym("split", "partition"), SAME),
    "splits of other names": (
        lambda s: s.mapped("split", lambda c: {"validation": "dev"}.get(c, c.title())),
        SAME,
    ),
    "a split that there is not": (emptied("split", "tset"), refused(A_LINE + ": split.*tset")),
    "no split in one row": (emptied("split"), refused(A_LINE + ": split")),
    "no label in one row": (emptied("label"), refused(A_LINE + ": label: got ''")),
    "no text in one row": (emptied("text", " "), refused(A_LINE + ": text")),
    "nothing to see in one label": (emptied("label", "\u200b"), refused(A_LINE + ": label")),
    "some labels decomposed": (some(decomposed), SAME),
    "some labels with signs that cannot be seen": (some(hidden), SAME),
    "some labels in capitals": (
        some(lambda c, s: c.upper()),
        either(A_LINE + ": label|labels of tr"),
    ),
    "some numbers as decimals": (
        some(lambda c, s: f"{c}.0" if c.isdecimal() else c),
        either(A_LINE + ": label"),
    ),
    "some labels with underscores": (
        some(lambda c, s: c.replace(" ", "_")),
        either(A_LINE + ": label|labels of train"),
    ),
    "cut off": (lambda s: cut_off(last_column("label")(s)), either(A_LINE)),
    "a quote that closes rows later": (
        lambda s: closed_rows_later(last_column("label")(s)),
        refused(A_LINE),
    ),
    "the codec of another time": (old_codec, either(A_LINE + r".*UTF-8|labels of train|: label")),
    "a truth value as label": (
        lambda s: File(
            re.sub('"label": "[^"]*"', '"label": true', as_json_lines(s), count=1).encode(),
            ".jsonl",
        ),
        refused("line 1: label: got True; expected a text or a whole number$"),
    ),
    "a number as text": (
        lambda s: File(
            re.sub('"text": "[^"]*"', '"text": 7', as_json_lines(s), count=1).encode(), ".jsonl"
        ),
        refused("line 1: text: got 'a number'; expected a text$"),
    ),
}


@pytest.mark.parametrize("what", TO_CORPORA)
@many()
@given(sheet=corpora())
def test_corpora(what, sheet):
    change, verdict = TO_CORPORA[what]
    right = read_file(sheet, texts_and_labels)
    judge(what, right, verdict, lambda: read_file(change(sheet), texts_and_labels))


# ---- what a Trainer predicts

SCORES = "scores .*or labels"
TO_PREDICTIONS = {
    "softmaxed": (lambda x: softmax(x, axis=1), SAME),
    "softmaxed in half precision": (lambda x: softmax(x, axis=1).astype(np.float16), SAME),
    "logarithms of the softmax": (lambda x: log_softmax(x, axis=1), SAME),
    "argmaxed": (lambda x: x.argmax(axis=1), SAME),
    "argmaxed, the axis kept": (lambda x: x.argmax(axis=1)[:, None], SAME),
    "with hidden states": (lambda x: (x, tuple(np.zeros((len(x), 3, 8)) for _ in range(2))), SAME),
    "behind hidden states": (lambda x: (np.zeros((len(x), 3, 8)), x), SAME),
    "in a list": (lambda x: [x], SAME),
    "behind a wider array": (lambda x: (np.zeros((len(x), 99)), x), SAME),
    "two heads": (lambda x: (x, -x), SAME),
    "missing": (lambda x: None, refused("got None.*only a loss")),
    "a row less": (lambda x: x[:-1], refused(SCORES)),
    "a row more": (lambda x: np.vstack([x, x[:1]]), refused(SCORES)),
    "turned": (lambda x: x.T, refused(SCORES)),
    "a class less": (lambda x: x[:, :-1], refused(SCORES)),
    "one score": (lambda x: x[:, :1], refused(SCORES)),
    "one score, no axis": (lambda x: x[:, 0], refused(SCORES)),
    "an axis more": (lambda x: x[:, None], refused(SCORES)),
    "not finite": (lambda x: np.where(x == x.max(), np.nan, x), refused("not finite")),
    "labels below 0": (lambda x: x.argmax(axis=1) - 5, refused("labels of at least 0")),
}


@st.composite
def scores(draw):
    examples, classes = draw(st.integers(7, 30)), draw(st.integers(3, 6))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    return rng.permuted(np.arange(examples * classes) % 17, axis=0).reshape(examples, classes) / (
        1 + rng.random((examples, 1))
    )


@pytest.mark.parametrize("what", TO_PREDICTIONS)
@many()
@given(logits=scores())
def test_predictions_of_a_trainer(what, logits):
    change, verdict = TO_PREDICTIONS[what]
    examples, classes = logits.shape
    best = softmax(logits, axis=1)
    top = best.max(axis=1, keepdims=True)

    def attempt():
        read = read_answers(change(logits), examples, classes)
        assert (np.take_along_axis(best, read.labels[:, None], axis=1) > top - 1e-3).all()
        return read.probabilities is None or np.abs(read.probabilities - best).max() < 2e-3

    judge(what, True, verdict, attempt)


TO_CONFIG = {
    "keys as texts": (lambda d, rng: {str(k): v for k, v in d.items()}, SAME),
    "in order of texts": (lambda d, rng: {k: d[int(k)] for k in sorted(map(str, d))}, SAME),
    "in any order": (lambda d, rng: {int(k): d[k] for k in rng.permutation(list(d))}, SAME),
    "a class less": (lambda d, rng: {k: v for k, v in d.items() if k != 1}, refused("id2label")),
    "counted from 1": (lambda d, rng: {k + 1: v for k, v in d.items()}, refused("id2label")),
    "a name twice": (lambda d, rng: d | {0: d[2]}, refused("id2label.*name of its own")),
    "a name in capitals, too": (lambda d, rng: d | {0: d[2].upper()}, either("id2label")),
    "a name decomposed, too": (
        lambda d, rng: {k: "é" if k == 0 else "e\u0301" if k == 1 else v for k, v in d.items()},
        refused("id2label.*name of its own"),
    ),
    "a name that is empty": (lambda d, rng: d | {0: " "}, refused("id2label.*not empty")),
}


@pytest.mark.parametrize("what", TO_CONFIG)
@many()
@given(classes=st.integers(3, 14), seed=st.integers(0, 999))
def test_names_of_classes(what, classes, seed):
    change, verdict = TO_CONFIG[what]
    names = {k: f"intent {chr(97 + k)}" for k in range(classes)}

    class Config:
        id2label = change(names, np.random.default_rng(seed))

    judge(what, tuple(names.values()), verdict, lambda: class_names(Config, None))


TO_GOLD_LABELS = {
    "as decimals": (lambda g, rng: g.astype(float), SAME),
    "an axis more": (lambda g, rng: g[:, None], SAME),
    "small integers": (lambda g, rng: g.astype(np.int8), SAME),
    "one of them -100": (lambda g, rng: np.where(np.arange(len(g)) == 2, -100, g), (True, "")),
    "one of them -1": (lambda g, rng: np.where(np.arange(len(g)) == 2, -1, g), (True, "")),
    "all of them -100": (lambda g, rng: np.full_like(g, -100), (True, "")),
    "fractions": (lambda g, rng: g + 0.5, refused("labels of the Recorder's dataset")),
    "one for each class": (lambda g, rng: np.eye(9)[g], refused("labels of the Recorder's")),
    "two arrays": (lambda g, rng: (g, g), refused("labels of the Recorder's dataset: got '2 arr")),
    "below -1": (lambda g, rng: np.where(np.arange(len(g)) == 2, -7, g), refused("got -7")),
    "one less": (lambda g, rng: g[1:], refused("labels of the Recorder's dataset")),
}


@pytest.mark.parametrize("what", TO_GOLD_LABELS)
@many()
@given(size=st.integers(4, 20), seed=st.integers(0, 999))
def test_gold_of_a_trainer(what, size, seed):
    change, verdict = TO_GOLD_LABELS[what]
    rng = np.random.default_rng(seed)
    gold = rng.integers(9, size=size)
    right = None if "-1" in what and "below" not in what else tuple(gold.tolist())

    def attempt():
        read = read_gold(change(gold, rng), size)
        return None if read is None else tuple(read.tolist())

    judge(what, right, verdict, attempt)


def test_there_are_three_thousand_inputs_at_least():
    tables = (TO_TABLES, LONG_ONLY, WIDE_ONLY, TO_LABELS, TO_ANSWERS, TO_EXAMPLES, TO_GOLD)
    beside = (TO_AFTER, TO_CORPORA, TO_PREDICTIONS, TO_CONFIG, TO_GOLD_LABELS)
    assert CASES * sum(map(len, (*tables, *beside))) >= 3_000
