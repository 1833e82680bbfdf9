"""Numbers in prose: the places of README, docs and notebooks that quote the published study.

A number stands between two comments, which name its record, its key and the unit that readers see:
`<!--massive/01_measuring_instability: churn in %-->` and `<!--end-->`. What is between them is
written from the record, and a test fails when the two disagree. What `make benchmark` measured is
quoted as `<!--cost: frozen_ratio Frozen(3) to 2 places-->`, whole tables as
`<!--table: corpora-->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from stabutils import records
from stabutils.analysis.board import LINEAR, WORDS_ALONE, is_method, linear_alone
from stabutils.metrics.intervals import Interval, verdict
from stabutils.publishing import results

QUOTE = re.compile(r"<!--(?P<what>[^>]+)-->(?:(?!<!--).)*<!--end-->", re.DOTALL)
NUMBER = re.compile(r"(?P<record>\S+): (?P<key>.+?)(?: in (?P<unit>%|points))?(?P<bare> \(bare\))?")
COST = re.compile(r"cost: (?P<key>.+?)(?P<percent> in %)?(?: to (?P<places>\d) places)?")
TABLE = re.compile(r"table: (?P<name>\w+)(?P<arguments>( \S+)*)")


def quote(text: str, root: Path) -> str:
    """The text with every quote as the records have it; InputError for one that no record has."""
    return QUOTE.sub(
        lambda match: f"<!--{match['what']}-->{_quoted(match['what'], root)}<!--end-->", text
    )


def _quoted(what: str, root: Path) -> str:
    if match := TABLE.fullmatch(what):
        return TABLES[match["name"]](root, *match["arguments"].split())
    if match := COST.fullmatch(what):
        return _cost(results.costs(root), match)
    match = NUMBER.fullmatch(what)
    if match is None:
        allowed = "'record: key in unit', 'cost: key' or 'table: name'"
        raise ValueError(f"quote: got {what!r}; expected {allowed}")
    number = _record(root / "records" / f"{match['record']}.json")[match["key"]]
    shown = records.shown(number, match["unit"] or "")
    return shown if match["bare"] else f"{shown} ({number.sample})"


def _cost(costs: dict[str, dict], match: re.Match[str]) -> str:
    """A measured cost with its ends, which are those of its interval or its lowest and highest."""
    if match["key"] not in costs:
        raise ValueError(f"quote: got 'cost: {match['key']}'; expected a key of benchmark.json")
    cost = costs[match["key"]]
    scale, unit, places = (100, " %", 1) if match["percent"] else (1, "", 2)
    places = int(match["places"] or places)
    value, low, high = (f"{scale * cost[end]:.{places}f}" for end in ("value", "low", "high"))
    return f"{value}{unit}" if low == high else f"{value}{unit} [{low}, {high}]"


@cache
def _record(path: Path) -> records.Record:
    return records.read(path)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, with a line break before and after.

    Examples
    --------
    >>> table(["a", "b"], [[1, 2]])
    '\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n'
    """
    lines = [f"| {' | '.join(map(str, line))} |" for line in [header, *rows]]
    return "\n".join(["", lines[0], "|" + "---|" * len(header), *lines[1:], ""])


def in_words(metric: str, interval: Interval | None) -> str:
    """A number as people read its metric, with its interval unless it is exact; "" for none.

    Examples
    --------
    >>> in_words("churn", Interval(0.1234, 0.1, 0.15, runs=5))
    '12.3 % [10.0, 15.0]'
    """
    if interval is None:
        return ""
    words = records.shown(records.number(metric, interval))
    return words.partition(" [")[0] if interval.se == 0 else words


# ---- tables


def _corpora(root: Path) -> str:
    """One row a corpus and model: what notebook 01 found."""
    columns = {
        "accuracy": "accuracy",
        "churn": "churn",
        "queries that change in 10 runs": "share_unstable",
        "LE@5 (nats)": "label_entropy",
    }
    rows = []
    for folder in results.published(root):
        for record in results.records_of(folder, "01"):
            cells = [records.shown(record[key]) for key in columns.values()]
            runs = record["churn"].runs
            linear = [number for number in record.of("accuracy") if number.arm.startswith(LINEAR)]
            best = max((number.value for number in linear), default=None)
            accuracy = "" if best is None else f"{100 * best:.1f} %"
            corpus, model = results.corpus_and_model(folder)
            rows.append([corpus, model, runs, *cells, accuracy])
    header = ["corpus", "model", "runs", *columns, "best linear model's accuracy"]
    return table(header, rows)


def _recipes(root: Path) -> str:
    """One row a corpus and model: how control was trained."""
    columns = {
        "epochs": "epochs",
        "batch_size": "texts a step",
        "learning_rate": "peak rate",
        "head_rate": "of the head, times",
        "warmup": "warm-up",
        "weight_decay": "weight decay",
        "precision": "precision",
    }
    rows = []
    for folder in results.published(root):
        _, record = results.control(folder)
        recipe = dict(record["recipe"], learning_rate=f"{record['recipe']['learning_rate']:.2g}")
        cells = [recipe[name] for name in columns]
        rows.append([record["dataset"], record["model"], *cells])
    return table(["corpus", "model", *columns.values()], rows)


def _executed(root: Path) -> str:
    """Where the executed notebooks of each corpus lie, and what they found as data."""
    rows = []
    for folder in results.published(root):
        cells = []
        for kind in ("[0-9]*.ipynb", "[0-9]*.json"):
            paths = sorted(folder.glob(kind))
            links = [f"[{path.stem[:2]}](../{path.relative_to(root).as_posix()})" for path in paths]
            cells.append(" · ".join(links))
        rows.append([folder.name, *cells])
    return table(["corpus", "executed notebooks", "numbers"], rows)


def _benchmark(root: Path) -> str:
    rows = []
    for name, ratio in results.benchmark(root).items():
        words, goal = results.RATIOS[name]
        shown = f"{ratio.value:.2g} [{ratio.low:.2g}, {ratio.high:.2g}] ({ratio.runs})"
        rows.append([words, shown, goal or "", verdict(ratio, goal) if goal else ""])
    return table(["times as fast", "measured (rounds or seeds)", "goal", "reached"], rows)


def _board(root: Path, corpus: str) -> str:
    """What the board of a corpus and network says, in a sentence and a table."""
    boards = {folder.name: results.board(folder) for folder in results.published(root)}
    boards = {name: board for name, board in boards.items() if len(board)}
    if corpus not in boards:
        return f"No board is published for {corpus} yet."
    board, n = results.by_strength(boards)[corpus], boards[corpus].attrs["n"]
    alone = linear_alone(board)
    methods = board[board.arm.map(is_method) & ~alone]
    better = methods[methods.better == "holds"]
    rows = [
        _row(row, n, is_linear)
        for row, is_linear in zip(board.itertuples(), alone, strict=True)
        if row.arm != "control"
    ]
    sentence = (
        f"\nLinear models apart, {len(better)} of {len(methods)} methods are significantly more "
        "stable than control and keep its accuracy to half a point."
    )
    for best in methods.head(1).itertuples():
        sentence += (
            f" {best.arm} gives the largest reduction of label entropy: "
            f"{in_words('reduction', best.reduction)} ({best.behind})."
        )
    header = ["method", f"reduction of LE@{n}", "churn", "accuracy, points"]
    return f"{sentence}\n" + table([*header, "trainings", "passes", "measured on"], rows)


def _row(row, n: int, alone: bool) -> list[str]:
    """Of a board of LE@n; bold where it says that the method is better."""
    reduction = in_words("reduction", row.reduction)
    if alone:
        reduction += ", the linear model alone"
    elif row.better == "holds":
        reduction = f"**{reduction}**"
    if not pd.isna(row.n) and row.n != n:
        reduction += f" (LE@{row.n:g})"
    churn = in_words("churn", row.churn)
    accuracy = in_words("accuracy_change", row.accuracy_change).replace(" points", "")
    prices = f"{row.trainings:.3g}", f"{row.passes:.3g}"
    behind = row.behind if is_method(row.arm) or row.runs > 1 else "no seed"
    return [row.arm, reduction, churn, accuracy, *prices, behind]


def _tried(root: Path, corpus: str, name: str) -> str:
    """A table that `tuning.try_out` left, the most stable candidate first."""
    path = root / "records" / corpus / f"{name}.csv"
    frame = pd.read_csv(path).sort_values("label_entropy", kind="stable")
    rows = []
    for row in frame.to_dict("records"):
        entropy, accuracy = (_ends(row, score) for score in ("label_entropy", "accuracy"))
        rows.append(
            [
                row["candidate"],
                f"{row['trainings']:.3g}",
                in_words("label_entropy", entropy),
                f"{100 * row['reduction']:.1f} %",
                in_words("accuracy", accuracy),
                "yes" if row["kept"] else "no",
            ]
        )
    header = [
        f"candidate ({frame.runs.iloc[0]} runs each)",
        "trainings",
        f"LE@{frame.n.iloc[0]} on validation (nats)",
        "reduction",
        "accuracy",
        "accuracy kept",
    ]
    return table(header, rows)


def _ends(row: dict, score: str) -> Interval:
    ends = (row[f"{score}{end}"] for end in ("", "_low", "_high"))
    return Interval(*ends, runs=row["runs"])


def _few_texts(root: Path) -> str:
    """Accuracy of networks of a few texts an intent, as `benchmarks/few_texts.py` found it."""
    columns = {"nine epochs": "nine epochs", "control": "the default", WORDS_ALONE: "linear model"}
    rows = []
    for path in sorted((root / "records").glob("*/few_texts.json")):
        record = records.read(path)
        for condition in dict.fromkeys(number.condition for number in record.numbers):
            keys = [f"accuracy, {arm}; {condition}" for arm in columns]
            cells = [records.shown(record[key]) for key in keys]
            runs = record[keys[0]].runs
            rows.append([record.parameters["dataset"], condition, runs, *cells])
    return table(["corpus", "training texts", "runs", *columns.values()], rows)


def _updates(root: Path) -> str:
    """Update churn of each method, the least share of control's first, by corpus and network."""
    frame = results.updates(root)
    order = dict.fromkeys(frame.arm)
    studies = list(frame[frame.arm == "control"].groupby(["dataset", "model"], sort=False).groups)
    cells = {(row.dataset, row.model, row.arm): _update(row) for row in frame.itertuples()}
    rows = [[arm, *(cells.get((*study, arm), "") for study in studies)] for arm in order]
    return table(["method", *(f"{corpus}<br>{model}" for corpus, model in studies)], rows)


def _update(row) -> str:
    churn, accuracy = in_words("churn", row.churn), row.accuracy_change
    points = f"<br>{100 * accuracy.value:+.2f} points" if accuracy else ""
    return f"{churn}{points}<br>{row.runs} updates"


def _weights(root: Path) -> str:
    """The weights of the linear model that validation texts chose, as notebook 06 had them."""
    rules = {"one error": "anchored", "half a point": "anchored (half a point)"}
    rows = []
    for folder in results.published(root):
        for record in results.records_of(folder, "06"):
            found = pd.DataFrame(record.provenance["weights"])
            found = found[(found.share == 1) & (found.kind == "geometric")]
            for arm, own in found.groupby("arm", sort=False):
                weights = dict(zip(own.rule, own.weight, strict=True))
                cells = [f"{weights[rule]:g}" for rule in rules]
                rows.append([*results.corpus_and_model(folder), arm, *cells])
    return table(["corpus", "model", "network", *rules.values()], rows)


TABLES: dict[str, Callable[..., str]] = {
    "benchmark": _benchmark,
    "board": _board,
    "corpora": _corpora,
    "executed": _executed,
    "few_texts": _few_texts,
    "recipes": _recipes,
    "tried": _tried,
    "updates": _updates,
    "weights": _weights,
}


# ---- files


def requote(root: Path) -> list[Path]:
    """Write the quotes of README, docs and the notebooks' prose anew; returns changed files."""
    _record.cache_clear()
    prose = [root / "README.md", *sorted(root.glob("docs/*.md"))]
    notebooks = sorted(root.glob("notebooks/[0-9]*.ipynb")) + sorted(
        root.glob("records/*/[0-9]*.ipynb")
    )
    changed = []
    for path in [*prose, *notebooks]:
        before = path.read_text(encoding="utf-8")
        after = _in_cells(before, root) if path.suffix == ".ipynb" else quote(before, root)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def _in_cells(text: str, root: Path) -> str:
    """A notebook with the quotes of its prose anew."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = quote("".join(cell["source"]), root)
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
