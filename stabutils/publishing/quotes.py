"""Numbers in prose: the places of README, docs and notebooks that quote the published study.

A number stands between two comments, `<!--churn of massive in %-->` and `<!--end-->`; what is between them is written
from the records, and a test fails when the two disagree. Some quotes are whole tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils import metrics, records
from stabutils.metrics.intervals import Interval, jackknife, verdict
from stabutils.provenance import project_root
from stabutils.publishing import results

QUOTE = re.compile(r"<!--(?P<what>[^>]+)-->(?:(?!<!--).)*<!--end-->", re.DOTALL)
NUMBER = re.compile(r"(?P<name>.+) of (?P<dataset>\S+) in (?P<unit>%|points|nats|minutes|1)")


def quote(text: str, root: Path | None = None) -> str:
    """The text with every quoted number as the records have it. A number that no record has becomes "not measured"."""
    root = root or project_root()
    return QUOTE.sub(
        lambda match: f"<!--{match['what']}-->{_quoted(match['what'], root)}<!--end-->", text
    )


def _quoted(what: str, root: Path) -> str:
    tables = {
        "corpora": _corpora,
        "ablation": _ablation,
        "benchmark": _benchmark,
        "methods": _methods,
        "sweep": _sweep,
        "executed": _executed,
    }
    if what in tables:
        return tables[what](root)
    if match := re.fullmatch(r"board (\d\d )?of (\S+)", what):
        return _board(root / "records" / match[2], (match[1] or "").strip())
    if match := re.fullmatch(r"tried for (\w+) on (\S+)", what):
        return _tried(root / "records" / match[2] / f"{match[1]}.csv")
    asked = NUMBER.fullmatch(what)
    found = {} if asked is None else results.numbers(root / "records" / asked["dataset"])
    if asked is None or asked["name"] not in found:
        return "not measured"
    number = found[asked["name"]]
    return f"{shown(number, asked['unit'])} ({records.behind(asked['name'], number['runs'])})"


def shown(number: dict, unit: str) -> str:
    """A number of a record in words: value and interval.

    >>> shown({"value": 0.0812, "low": 0.07, "high": 0.0924}, "%")
    '8.1 % [7.0, 9.2]'
    >>> shown({"value": 0.0051, "low": 0.0039, "high": 0.0062}, "points")
    '+0.51 points [+0.39, +0.62]'
    """
    scale, places = {"%": (100, ".1f"), "points": (100, "+.2f"), "minutes": (1, ".1f")}.get(
        unit, (1, ".3f")
    )
    value, low, high = (f"{scale * number[key]:{places}}" for key in ("value", "low", "high"))
    named = f" {unit}" if unit in ("%", "points") else ""
    return f"{value}{named} [{low}, {high}]"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, with a line break before and after.

    >>> table(["a", "b"], [[1, 2]])
    '\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n'
    """
    first, *rest = (f"| {' | '.join(map(str, line))} |" for line in [header, *rows])
    return "\n".join(["", first, "|" + "---|" * len(header), *rest, ""])


def _corpora(root: Path) -> str:
    """The table of README: one row a corpus."""
    columns = {
        "accuracy": ("accuracy", "%"),
        "churn": ("churn", "%"),
        "churn without duplicates": ("churn without duplicates", "%"),
        "change in 10 runs": ("share_unstable@10", "%"),
        "LE@5 (nats)": ("label_entropy@5", "nats"),
        "AUROC of single-run LE": ("auroc single-run label entropy", "1"),
        "CPU-minutes a run": ("cpu_minutes", "minutes"),
    }
    rows = []
    for folder in sorted((root / "records").glob("*")):
        found = results.numbers(folder)
        if "churn" in found:
            cells = [
                shown(found[name], unit) if name in found else "not measured"
                for name, unit in columns.values()
            ]
            convex = f"{100 * found['accuracy_convex']['value']:.1f} %, churn 0"
            rows.append([folder.name, found["churn"]["runs"], cells[0], convex, *cells[1:]])
    first, *rest = columns
    return table(["corpus", "runs", first, "convex baseline", *rest], rows)


def _executed(root: Path) -> str:
    """Where the executed notebooks of each corpus lie, and what they found as data."""
    rows = []
    for folder in sorted(path.parent for path in (root / "records").glob("*/answers")):
        found = [sorted(folder.glob(kind)) for kind in ("[0-9]*.ipynb", "[0-9]*.json")]
        rows.append(
            [
                folder.name,
                *(
                    " · ".join(f"[{p.stem[:2]}]({p.relative_to(root).as_posix()})" for p in paths)
                    for paths in found
                ),
            ]
        )
    return table(["corpus", "executed notebooks", "numbers"], rows)


def _ablation(root: Path) -> str:
    """Accuracy and churn of `compact` and of its parts alone, where they are published: one row a corpus and model."""
    rows = []
    for folder in sorted(path.parent for path in (root / "records").glob("*/answers")):
        for arm in results.arms(folder, "compact*control"):
            arrays, record = results.answers(folder, arm)
            cells = [
                _in_percent(jackknife(np.mean, arrays["accuracy"])),
                _in_percent(jackknife(metrics.churn, arrays["labels"])),
            ]
            rows.append([folder.name, record["model"], len(arrays["labels"]), *cells])
    return table(["corpus", "model", "runs", "accuracy", "churn"], rows)


def _benchmark(root: Path) -> str:
    rows = [
        [
            results.RATIOS[name][0],
            f"{i.value:.2g} [{i.low:.2g}, {i.high:.2g}] ({i.runs})",
            aim or "",
            verdict(i, aim) if aim else "",
        ]
        for name, i in results.benchmark(root).items()
        for aim in [results.RATIOS[name][1]]
    ]
    return table(["times as fast", "measured (rounds or seeds)", "aimed at", "reached"], rows)


FILE = {
    "massive": 1.3,
    "banking77": 1.5,
    "clinc150": 4.8,
}  # MiB that a run of *compact* takes in the store


def _sweep(root: Path) -> str:
    """What 10,000 runs of `compact` would take, from what one took."""
    found = {
        corpus: results.numbers(root / "records" / corpus).get("cpu_minutes") for corpus in FILE
    }
    rows = [
        [
            corpus,
            shown(minutes, "minutes"),
            f"{FILE[corpus]} MiB",
            f"{10_000 * minutes['value'] / 1440:.0f}",
            f"{10_000 * minutes['value'] / 60:.0f}",
            f"{10_000 * FILE[corpus] / 1024:.0f} GiB",
        ]
        for corpus, minutes in found.items()
        if minutes
    ]
    return table(
        [
            "*compact* on",
            "CPU-minutes a run",
            "file",
            "10,000 runs: cores for one day",
            "cores for one hour",
            "disk",
        ],
        rows,
    )


def _board(folder: Path, notebook: str = "") -> str:
    """What the board of a corpus says, in a sentence and a table."""
    board = results.board(folder, notebook)
    methods = board[board.better != ""]
    if not len(methods):
        return f"No board is published for {folder.name} yet."
    better, best = methods[methods.better == "holds"], methods.iloc[0]
    rows = [
        [
            row.arm,
            _in_percent(row.reduction),
            _in_percent(row.accuracy_change, "", 2),
            f"{row.trainings:.3g}",
            row.better,
        ]
        for row in board.itertuples()
        if row.arm != "convex"
    ]
    return (
        f"On {folder.name}, {len(better)} of {len(methods)} methods and combinations are steadier than control "
        f"beyond doubt and keep its accuracy to half a point. Most label entropy takes away {best.arm}: "
        f"{_in_percent(best.reduction)} ({records.behind(f'reduction {best.arm}', best.reduction.runs)}).\n"
        + table(
            ["method", "label entropy taken away", "accuracy, in points", "trainings", "better"],
            rows,
        )
    )


def _methods(root: Path) -> str:
    """Every published method, in the order of the corpus that has most of them: what it takes away of each corpus's
    label entropy, and what it costs (there, where that differs)."""
    boards = {
        folder.name: results.board(folder).set_index("arm")
        for folder in sorted((root / "records").glob("*"))
    }
    boards = dict(
        sorted(
            ((name, own) for name, own in boards.items() if len(own)),
            key=lambda item: -len(item[1]),
        )
    )
    lines = []
    for arm in dict.fromkeys(arm for own in boards.values() for arm in own.index):
        rows = [own.loc[arm] if arm in own.index else None for own in boards.values()]
        price = [
            ", ".join(dict.fromkeys(f"{row[name]:.3g}" for row in rows if row is not None))
            for name in ("trainings", "passes")
        ]
        lines.append([arm, *(["0", "1"] if arm == "convex" else price), *map(_cell, rows)])
    return table(["method", "trainings", "passes an answer", *boards], lines)


def _cell(row: pd.Series | None) -> str:
    """Bold where the board says that the method is better; of an ensemble, how many of how many runs."""
    if row is None:
        return ""
    runs = records.behind(f"reduction {row.name}", row.reduction.runs)
    taken = f"{_in_percent(row.reduction)} ({runs.replace(' ensembles of ', ' of ').removesuffix(' runs')})"
    churn = "0" if row.churn is None else _in_percent(row.churn, "")
    return (
        f"{f'**{taken}**' if row.better == 'holds' else taken}<br>churn {churn}"
        f"<br>accuracy {_in_percent(row.accuracy_change, '', 2, '+')}"
    )


def _tried(path: Path) -> str:
    """What `tuning.try_out` left, the steadiest first."""
    if not path.is_file():
        return "not measured"
    found, rows = pd.read_csv(path).sort_values("label_entropy", kind="stable"), []
    for row in found.to_dict("records"):
        entropy, accuracy = (
            {end or "value": row[f"{score}{end and '_' + end}"] for end in ("", "low", "high")}
            for score in ("label_entropy", "accuracy")
        )
        rows.append(
            [
                row["candidate"],
                f"{row['trainings']:.3g}",
                shown(entropy, "nats"),
                f"{100 * row['taken_away']:.1f} %",
                shown(accuracy, "%"),
                "yes" if row["kept"] else "no",
            ]
        )
    return table(
        [
            f"candidate ({found.runs[0]} runs each)",
            "trainings",
            f"LE@{found.n[0]} on validation (nats)",
            "taken away",
            "accuracy",
            "accuracy kept",
        ],
        rows,
    )


def _in_percent(interval: Interval, unit: str = " %", places: int = 1, sign: str = "") -> str:
    value, low, high = (
        f"{100 * number:{sign}.{places}f}"
        for number in (interval.value, interval.low, interval.high)
    )
    return f"{value}{unit} [{low}, {high}]"


def requote(root: Path | None = None) -> list[Path]:
    """Write the quoted numbers of README, docs and the notebooks' prose anew; returns the files that changed."""
    root = root or project_root()
    changed = []
    for path in (
        root / "README.md",
        *sorted(root.glob("docs/*.md")),
        *sorted(root.glob("notebooks/[0-9]*.ipynb")),
        *sorted(root.glob("records/*/[0-9]*.ipynb")),
    ):
        before = path.read_text(encoding="utf-8")
        corpus = path.parent.name if path.parent.parent.name == "records" else ""
        after = _in_cells(before, root, corpus) if path.suffix == ".ipynb" else quote(before, root)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def _in_cells(text: str, root: Path, corpus: str = "") -> str:
    """A notebook with its quotes anew; the first cell of one executed on a corpus speaks of that."""
    notebook = json.loads(text)
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            source = _own(source, root, corpus) if corpus and i == 0 else source
            cell["source"] = quote(source, root).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _own(source: str, root: Path, corpus: str) -> str:
    """What notebooks/ say of MASSIVE, said of another corpus: its picture, its neighbours in records/, and its numbers
    unless it has them already."""

    def picture(match: re.Match) -> str:
        return match[0].replace("/massive/", f"/{corpus}/").replace("MASSIVE", name)

    def neighbour(match: re.Match) -> str:
        return match["file"] if (root / "records" / corpus / match["file"]).is_file() else match[0]

    name = "MASSIVE" if corpus.startswith("massive") else corpus.upper()
    source = re.sub(r"!\[[^\]]*\]\([^)]*figures/massive/[^)]*\)", picture, source)
    source = re.sub(r"\.\./\.\./notebooks/(?P<file>[^/)]+\.ipynb)", neighbour, source)
    if f"of {corpus} in" in source:
        return source
    return source.replace(" of massive", f" of {corpus}").replace("MASSIVE", name)
