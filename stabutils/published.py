"""The published study: what `records/` holds, the figures made from it, and the places in prose that quote it.

A number in README or in the head of a notebook stands between two comments, `<!--churn of massive in %-->` and
`<!--end-->`; what is between them is written from the records and a test fails when the two disagree.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from . import figures, metrics, records, store, votes
from .intervals import Interval, jackknife, verdict
from .provenance import project_root
from .regions import Clustering

QUOTE = re.compile(r"<!--(?P<what>[^>]+)-->(?:(?!<!--).)*<!--end-->", re.DOTALL)
NUMBER = re.compile(r"(?P<name>.+) of (?P<dataset>\S+) in (?P<unit>%|points|nats|minutes|1)")


def quote(text: str, root: Path | None = None) -> str:
    """The text with every quoted number as the records have it. A number that no record has becomes "not measured"."""
    root = root or project_root()
    return QUOTE.sub(lambda match: f"<!--{match['what']}-->{_quoted(match['what'], root)}<!--end-->", text)


def _quoted(what: str, root: Path) -> str:
    tables = {"corpora": _corpora, "ablation": _ablation, "benchmark": _benchmark, "methods": _methods,
              "sweep": _sweep, "executed": _executed}
    if what in tables:
        return tables[what](root)
    if match := re.fullmatch(r"board (\d\d )?of (\S+)", what):
        return _board(root / "records" / match[2], (match[1] or "").strip())
    if match := re.fullmatch(r"tried for (\w+) on (\S+)", what):
        return _tried(root / "records" / match[2] / f"{match[1]}.csv")
    asked = NUMBER.fullmatch(what)
    found = {} if asked is None else _numbers(root / "records" / asked["dataset"])
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
    scale, places = {"%": (100, ".1f"), "points": (100, "+.2f"), "minutes": (1, ".1f")}.get(unit, (1, ".3f"))
    value, low, high = (f"{scale * number[key]:{places}}" for key in ("value", "low", "high"))
    named = f" {unit}" if unit in ("%", "points") else ""
    return f"{value}{named} [{low}, {high}]"


def _records(folder: Path, notebook: str = "") -> list[records.Record]:
    """Of all notebooks, or of the one whose name begins so."""
    return [records.read(path) for path in sorted(folder.glob(f"{notebook}*.json"))]


def _numbers(folder: Path, notebook: str = "") -> dict[str, dict]:
    """Where notebooks measured the same, the one with most runs has it; of equals, the last."""
    found: dict[str, dict] = {}
    for record in _records(folder, notebook):
        found |= {name: number for name, number in record.numbers.items()
                  if name not in found or number["runs"] >= found[name]["runs"]}
    return found


def _corpora(root: Path) -> str:
    """The table of README: one row a corpus."""
    columns = (("accuracy", "%"), ("churn", "%"), ("churn without duplicates", "%"), ("share_unstable@10", "%"),
               ("label_entropy@5", "nats"), ("auroc single-run label entropy", "1"), ("cpu_minutes", "minutes"))
    lines = ["", "| corpus | runs | accuracy | convex baseline | churn | churn without duplicates | change in 10 runs "
             "| LE@5 (nats) | AUROC of single-run LE | CPU-minutes a run |", "|" + "---|" * 10]
    for folder in sorted((root / "records").glob("*")):
        found = _numbers(folder)
        if "churn" in found:
            cells = [shown(found[name], unit) if name in found else "not measured" for name, unit in columns]
            lines.append(f"| {folder.name} | {found['churn']['runs']} | {cells[0]} "
                         f"| {100 * found['accuracy_convex']['value']:.1f} %, churn 0 | "
                         + " | ".join(cells[1:]) + " |")
    return "\n".join([*lines, ""])


def _executed(root: Path) -> str:
    """Where the executed notebooks of each corpus lie, and what they found as data."""
    lines = ["", "| corpus | executed notebooks | numbers |", "|" + "---|" * 3]
    for folder in sorted(path.parent for path in (root / "records").glob("*/answers")):
        pages, data = ([f"[{path.stem[:2]}](records/{folder.name}/{path.name})" for path in sorted(folder.glob(kind))]
                       for kind in ("[0-9]*.ipynb", "[0-9]*.json"))
        lines.append(f"| {folder.name} | {' · '.join(pages)} | {' · '.join(data)} |")
    return "\n".join([*lines, ""])


def _ablation(root: Path) -> str:
    """Accuracy and churn of `compact` and of its parts alone, where they are published: one row a corpus and model."""
    lines = ["", "| corpus | model | runs | accuracy | churn |", "|" + "---|" * 5]
    for folder in sorted(path.parent for path in (root / "records").glob("*/answers")):
        for arm in arms(folder, "compact*control"):
            arrays, record = answers(folder, arm)
            rows = [jackknife(np.mean, arrays["accuracy"]), jackknife(metrics.churn, arrays["labels"])]
            cells = [shown({"value": i.value, "low": i.low, "high": i.high}, "%") for i in rows]
            lines.append(f"| {folder.name} | {record['model']} | {len(arrays['labels'])} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


RATIOS = {"throughput_ratio_fp32": ("texts trained a CPU-second, against `Trainer`, fp32", 2),
          "throughput_ratio_fp32_no_text_skipped": ("the same, every text through every layer", None),
          "throughput_ratio_bf16": ("texts trained a CPU-second, against `Trainer`, bf16", 2.8),
          "throughput_ratio_plain": ("a plain padded loop, against `Trainer`", None),
          "time_to_accuracy_ratio": ("CPU-seconds to 99 % of the accuracy that `Trainer` ends at", 3),
          "two_worker_ratio": ("two workers against one", 1.9),
          "entropy_ratio": ("label entropy, against a loop over `numpy.unique`", 50)}


def benchmark(root: Path) -> dict[str, Interval]:
    """What `make benchmark` measured of `RATIOS`, as times as fast."""
    path = root / "records" / "benchmark.json"
    found = records.read(path).numbers if path.is_file() else {}
    return {name: records.interval(found[name]) for name in RATIOS if name in found}


def _benchmark(root: Path) -> str:
    lines = ["", "| times as fast | measured (rounds or seeds) | aimed at | reached |", "|" + "---|" * 4]
    for name, i in benchmark(root).items():
        says, aim = RATIOS[name]
        lines.append(f"| {says} | {i.value:.2g} [{i.low:.2g}, {i.high:.2g}] ({i.runs}) | {aim or ''} "
                     f"| {verdict(i, aim) if aim else ''} |")
    return "\n".join([*lines, ""])


FILE = {"massive": 1.3, "banking77": 1.5, "clinc150": 4.8}  # MiB that a run of *compact* takes in the store


def _sweep(root: Path) -> str:
    """What 10,000 runs of `compact` would take, from what one took."""
    lines = ["", "| *compact* on | CPU-minutes a run | file | 10,000 runs: cores for one day | cores for one hour "
             "| disk |", "|" + "---|" * 6]
    for corpus, size in FILE.items():
        found = _numbers(root / "records" / corpus)
        if "cpu_minutes" in found:
            minutes = 10_000 * found["cpu_minutes"]["value"]
            lines.append(f"| {corpus} | {shown(found['cpu_minutes'], 'minutes')} | {size} MiB | {minutes / 1440:.0f} "
                         f"| {minutes / 60:.0f} | {10_000 * size / 1024:.0f} GiB |")
    return "\n".join([*lines, ""])


def lengths(folder: Path) -> pd.DataFrame:
    """Control trained for more or fewer epochs, each length with its own whole schedule: epochs, label_entropy (at `n`
    votes, the same for all lengths) and accuracy with intervals, runs. No rows where one length only is published."""
    found = {}
    for arm in arms(folder, "compact-*"):
        own = re.fullmatch(r"compact-(?:control(?:-epochs-\d+)?|longertraining-factor-([\d.]+)(?:-from-\d+)?)", arm)
        if own:
            arrays, record = answers(folder, arm)
            found[round(record["recipe"]["epochs"] * float(own[1] or 1))] = arrays
    n, rows = min([5, *(len(arrays["labels"]) for arrays in found.values())]), []
    for epochs, arrays in found.items():
        labels = arrays["labels"].astype(int)
        entropy = votes.scores(labels, None, n)[f"label_entropy@{n}"]
        rows.append({"epochs": epochs, "runs": len(labels), "n": n, "label_entropy": entropy.interval(labels),
                     "accuracy": jackknife(np.mean, arrays["accuracy"])})
    columns = ["epochs", "runs", "n", "label_entropy", "accuracy"]
    return pd.DataFrame(rows if len(rows) > 1 else [], columns=columns).sort_values("epochs", ignore_index=True)


def board(folder: Path, notebook: str = "") -> pd.DataFrame:
    """The methods on the boards of a published corpus, or on that of one notebook, best reduction first: arm,
    reduction, churn, accuracy_change, trainings and passes an answer, and better, the verdict. A method on several
    boards stands as on that of most runs; of equals, on the last. No rows where none is published."""
    rows: dict[str, dict] = {}
    for record in _records(folder, notebook):
        verdicts = {claim.name: claim.verdict for claim in record.claims}
        interval = {name: records.interval(number) for name, number in record.numbers.items()}
        one = Interval(1, 1, 1, 1)
        for arm in (name.removeprefix("reduction ") for name in interval if name.startswith("reduction ")):
            taken = interval[f"reduction {arm}"]
            if f"accuracy_change {arm}" in interval and (  # a cell of a grid stands on no board
                    arm not in rows or taken.runs >= rows[arm]["reduction"].runs):
                rows[arm] = {"arm": arm, "reduction": taken, "churn": interval.get(f"churn {arm}"),
                             "accuracy_change": interval[f"accuracy_change {arm}"],
                             "trainings": interval.get(f"trainings {arm}", one).value,
                             "passes": interval.get(f"passes {arm}", one).value,
                             "better": verdicts.get(f"better {arm}", "")}
    columns = ["arm", "reduction", "churn", "accuracy_change", "trainings", "passes", "better"]
    return pd.DataFrame(sorted(rows.values(), key=lambda row: -row["reduction"].value), columns=columns)


def _board(folder: Path, notebook: str = "") -> str:
    """What the board of a corpus says, in a sentence and a table."""
    table = board(folder, notebook)
    methods = table[table.better != ""]
    if not len(methods):
        return f"No board is published for {folder.name} yet."
    better, best = methods[methods.better == "holds"], methods.iloc[0]
    lines = [f"On {folder.name}, {len(better)} of {len(methods)} methods and combinations are steadier than control "
             f"beyond doubt and keep its accuracy to half a point. Most label entropy takes away {best.arm}: "
             f"{_in_percent(best.reduction)} ({records.behind(f'reduction {best.arm}', best.reduction.runs)}).", "",
             "| method | label entropy taken away | accuracy, in points | trainings | better |", "|" + "---|" * 5]
    lines += [f"| {row.arm} | {_in_percent(row.reduction)} | {_in_percent(row.accuracy_change, '', 2)} "
              f"| {row.trainings:.3g} | {row.better} |" for row in table.itertuples() if row.arm != "convex"]
    return "\n".join([*lines, ""])


def _methods(root: Path) -> str:
    """Every published method, in the order of the corpus that has most of them: what it takes away of each corpus's
    label entropy, and what it costs (there, where that differs)."""
    boards = {folder.name: board(folder).set_index("arm") for folder in sorted((root / "records").glob("*"))
              if len(board(folder))}
    boards = dict(sorted(boards.items(), key=lambda item: -len(item[1])))
    arms = list(dict.fromkeys(arm for table in boards.values() for arm in table.index))
    lines = ["", f"| method | trainings | passes an answer | {' | '.join(boards)} |", "|" + "---|" * (3 + len(boards))]
    for arm in arms:
        rows = [table.loc[arm] if arm in table.index else None for table in boards.values()]
        price = [", ".join(dict.fromkeys(f"{row[name]:.3g}" for row in rows if row is not None))
                 for name in ("trainings", "passes")]
        price = ["0", "1"] if arm == "convex" else price
        lines.append(f"| {' | '.join([arm, *price, *map(_cell, rows)])} |")
    return "\n".join([*lines, ""])


def _cell(row: pd.Series | None) -> str:
    """Bold where the board says that the method is better; of an ensemble, how many of how many runs."""
    if row is None:
        return ""
    runs = records.behind(f"reduction {row.name}", row.reduction.runs)
    taken = f"{_in_percent(row.reduction)} ({runs.replace(' ensembles of ', ' of ').removesuffix(' runs')})"
    churn = "0" if row.churn is None else _in_percent(row.churn, "")
    return (f"{f'**{taken}**' if row.better == 'holds' else taken}<br>churn {churn}"
            f"<br>accuracy {_in_percent(row.accuracy_change, '', 2, '+')}")


def _tried(path: Path) -> str:
    """What `tuning.try_out` left, the steadiest first."""
    if not path.is_file():
        return "not measured"
    table = pd.read_csv(path).sort_values("label_entropy", kind="stable")
    lines = ["", f"| candidate ({table.runs[0]} runs each) | trainings | LE@{table.n[0]} on validation (nats) "
             "| taken away | accuracy | accuracy kept |", "|" + "---|" * 6]
    for row in table.to_dict("records"):
        entropy, accuracy = ({end or "value": row[f"{score}{end and '_' + end}"] for end in ("", "low", "high")}
                             for score in ("label_entropy", "accuracy"))
        lines.append(f"| {row['candidate']} | {row['trainings']:.3g} | {shown(entropy, 'nats')} "
                     f"| {100 * row['taken_away']:.1f} % | {shown(accuracy, '%')} "
                     f"| {'yes' if row['kept'] else 'no'} |")
    return "\n".join([*lines, ""])


def _in_percent(interval: Interval, unit: str = " %", places: int = 1, sign: str = "") -> str:
    value, low, high = (f"{100 * number:{sign}.{places}f}" for number in (interval.value, interval.low, interval.high))
    return f"{value}{unit} [{low}, {high}]"


def requote(root: Path | None = None) -> list[Path]:
    """Write the quoted numbers of README, docs and the notebooks' prose anew; returns the files that changed."""
    root = root or project_root()
    changed = []
    for path in (root / "README.md", *sorted(root.glob("docs/*.md")), *sorted(root.glob("notebooks/[0-9]*.ipynb")),
                 *sorted(root.glob("records/*/[0-9]*.ipynb"))):
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


def arms(folder: Path, pattern: str) -> list[str]:
    """The arms of a published corpus that look so, by the names of their files without ending."""
    paths = (folder / "answers").glob(f"{pattern}{store.PACKED}")
    return sorted(path.name.removesuffix(store.PACKED) for path in paths)


def answers(folder: Path, arm: str) -> tuple[store.Arrays, dict]:
    """The committed answers of one of `arms`, such as "compact-control": arrays and record."""
    found = store.read_file(path := folder / "answers" / f"{arm}{store.PACKED}")
    if found is None:
        raise FileNotFoundError(path)
    return found


def control(folder: Path) -> tuple[store.Arrays, dict]:
    """The committed answers of control: of the model alone, where there are others of its parts or other lengths."""
    return answers(folder, min(arms(folder, "*-control"), key=len, default="control"))


def draw(folder: Path, target: Path) -> list[Path]:
    """The figures of one published corpus from its records alone, PNG and SVG."""
    arrays, record = control(folder)
    labels, gold = arrays["labels"].astype(int), np.array(record["gold"])
    queries = pd.read_csv(folder / "queries.csv", index_col="query", keep_default_na=False)
    texts = queries["text"].reindex(range(labels.shape[1]), fill_value="").tolist()
    churn = jackknife(metrics.churn, labels)
    pairs = metrics.churn_matrix(labels)[np.triu_indices(len(labels), 1)]
    plots: dict[str, Callable] = {
        "answers": lambda: figures.answers(labels[:20], gold, texts),
        "accuracy-and-churn": lambda: figures.accuracy_and_churn(arrays["accuracy"], pairs, churn),
        "entropy": lambda: figures.entropy_distribution(labels),
        "how-many-runs": lambda: figures.how_many_runs(churn),
        "training-map": lambda: figures.training_map(arrays["confidence_mean"][0], arrays["confidence_spread"][0],
                                                     metrics.label_entropy(labels[1:]))}
    if spaces := _clusters(folder):
        plots["clusters"] = lambda: figures.nulls(spaces)
    methods = board(folder)
    boards = {"-regularizers": board(folder, "03"), "-data-centric": board(folder, "04")}
    boards = {name: own for name, own in boards.items() if len(own)} or ({"": methods} if len(methods) else {})
    for name, own in boards.items():  # all on one are too many to read
        plots[f"trade-off{name}"] = lambda own=own: figures.trade_off(own)
    if (folder / "05_ensembles.json").is_file():
        plots["frontier"] = lambda: figures.frontier(_frontier(methods))
    if len(table := lengths(folder)):
        plots["training-length"] = lambda: figures.lengths(table, record["recipe"]["epochs"])
    return _drawn(plots, target, f"{folder.name} · {record['model']} · {len(labels)} runs of control")


def _clusters(folder: Path) -> dict[str, dict[str, Clustering]]:
    """What notebook 02 found, by space and question; of shuffled places the record has the middle 95 % only."""
    found, spaces = _numbers(folder, "02"), {}
    for name, number in found.items():
        asked = re.fullmatch(r"moran (?P<question>.+) \((?P<space>\w+)\)", name)
        chance = found.get(name.replace("moran", "chance", 1))
        if asked and chance:
            spaces.setdefault(asked["space"], {})[asked["question"]] = Clustering(
                records.interval(number), records.interval(chance), np.nan, np.empty(0))
    return spaces


def _frontier(methods: pd.DataFrame) -> pd.DataFrame:
    """The methods with who dominates whom; the convex learner, which is hardly trained, dominates none."""
    from .frontier import dominated

    retrained = methods[~methods.arm.isin(["convex", "placebo"])].copy()
    retrained["dominated"] = dominated(retrained)
    convex = methods[methods.arm == "convex"].assign(trainings=0.0, dominated="")
    return pd.concat([retrained, convex], ignore_index=True)


def draw_benchmark(root: Path, target: Path) -> list[Path]:
    """The figures of what `make benchmark` measured, PNG and SVG."""
    rows = {RATIOS[name][0].replace("`", ""): interval for name, interval in benchmark(root).items()
            if name != "entropy_ratio"}  # on another scale
    plots: dict[str, Callable] = {"benchmark": lambda: figures.intervals(rows, "times as fast", 1, (0, np.inf))}
    curves = root / "records" / "benchmark_curves.csv"
    if curves.is_file():
        reference = records.read(root / "records" / "benchmark.json").numbers["reference_accuracy"]["value"]
        plots["time-to-accuracy"] = lambda: figures.learning(pd.read_csv(curves), reference)
    return _drawn(plots, target, "texts of MASSIVE")


def _drawn(plots: dict[str, Callable], target: Path, about: str) -> list[Path]:
    """Each with what it is about in its upper right corner, for a slide has no caption."""
    figures.style()
    written = []
    for name, plot in plots.items():
        figure = plot()
        inch = 1 / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.22 * inch))
        figure.text(0.995, 1 - 0.03 * inch, about, ha="right", va="top", fontsize=9, color="dimgrey")
        written += figures.save(figure, name, target)
        plt.close(figure)
    return written


def telling(labels: np.ndarray) -> np.ndarray:
    """The queries whose texts the published figures and tables show: rows of `figures.answers`, and the 20 worst."""
    worst = np.argsort(-metrics.label_entropy(labels), kind="stable")[:20]
    return np.union1d(figures.telling_rows(labels[:20]), worst)
