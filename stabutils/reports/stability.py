"""Predictions of any system -> scores with intervals, a table of queries, a page to look at.

Only answers are needed: labels of two or more runs of anything that labels the same examples, or of
one run at several points of its training.

    import stabutils as st
    st.report(labels, gold, texts).to_html("report.html")

Intervals are over runs and queries; entropies are quoted at a number of runs, as they grow with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import metrics
from stabutils.errors import InputError, check
from stabutils.metrics import multiplicity, scores
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    jackknife,
    jeffreys,
    over_examples,
    runs_and_queries,
    runs_needed,
)
from stabutils.metrics.measures import flips
from stabutils.records import UNITS, for_programs, of_scores, write_document
from stabutils.reports.codes import encode, one_for_each, refuse_beside, shape_of
from stabutils.reports.columns import COLUMNS, MORE_RUNS, told
from stabutils.reports.gate import (
    Check,
    PairGate,
    confidence_of,
    decisions,
    pass_chance,
    with_unseen,
)
from stabutils.reports.page import pictures, render
from stabutils.reports.reading import Predictions, read_predictions

SCORES = {  # name (before @) -> what it is called, what it says
    "churn": ("Churn", "queries that two runs answer differently"),
    "churn_weighted": ("Churn by weight", "the same, each query counted by its weight"),
    "label_entropy": (
        "Label entropy",
        "entropy of the answers to a query, nats, as expected over {n} runs",
    ),
    "share_unstable": (
        "Unstable queries",
        "queries on which {n} runs are not unanimous",
    ),
    "kappa": ("Fleiss' kappa", "agreement of runs beyond chance; 1 is full agreement"),
    "right_to_wrong": ("Churn, one run right", "part of churn: of two runs exactly one is right"),
    "wrong_to_wrong": ("Churn, both wrong", "part of churn: both runs are wrong, and differ"),
    "accuracy": ("Accuracy", "queries answered right, mean over runs"),
    "jensen_shannon": (
        "Jensen-Shannon",
        "divergence of two runs' probabilities, nats; sees more than flips",
    ),
    "nll": ("Negative log-likelihood", "of the gold label, nats"),
    "ece": ("Calibration error", "distance of confidence from accuracy (15 bins)"),
    "checkpoint_entropy": (
        "Single-run label entropy",
        "entropy of a run's answers at its checkpoints, nats",
    ),
    "share_changed": (
        "Changed in training",
        "queries that the run answered in several ways at its checkpoints",
    ),
    "positive_flips": ("Positive flips", "part of churn: wrong before, right after"),
    "negative_flips": ("Negative flips", "part of churn: right before, wrong after"),
    "decision_flips": (
        "Decision flips",
        "queries that one run answers and another is too unsure of, below the threshold",
    ),
    "served_churn": (
        "Served churn",
        "queries on which users of two runs meet two answers, or one and the fallback",
    ),
    "pass_chance": ("Chance to pass", "pairs of runs of which a release gate lets one pass"),
}
THRESHOLD = 0.5  # confidence from which a query is answered, where nobody says another
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
CARDS = ("churn", "churn_weighted", "share_unstable", "label_entropy", "accuracy")
CARDS_OF_ONE = ("share_changed", "checkpoint_entropy", "accuracy")
SAME_DATA = {
    True: "The runs were trained on identical data, so churn is what the randomness of "
    "training does by itself.",
    False: "The runs were not trained on identical data, so churn also holds what the change "
    "of data did. Several "
    "retrainings on one of the data sets would tell how much of it is randomness alone.",
    None: "Not stated (identical_data, --identical-data): whether the runs were trained on "
    "identical data. If they were, churn is what the randomness of training does by itself; if "
    "not (other data, code, prompt or release), it also holds what that change did.",
}


@dataclass(frozen=True, eq=False)
class Report:
    """What runs of one system agree on. numbers: name -> Interval; a number after @ is the runs
    that it is quoted at.

    examples: a row for each query, with the share of runs that do not give the majority answer
    (flip_probability) and its Jeffreys interval. runs_needed: half-width of churn's interval ->
    runs; empty where there are only two. Of one run with checkpoints (runs, checkpoints, examples)
    the rows have flip_rank instead, 1 for the query that another run is most likely to answer
    differently. release: what one run in the place of another changes, of three runs or more.
    """

    numbers: dict[str, Interval]
    examples: pd.DataFrame
    runs_needed: dict[float, int]
    notes: tuple[str, ...]
    labels: ndarray = field(repr=False)
    gold: ndarray | None = field(repr=False)
    label_names: tuple[str, ...] = field(repr=False)
    checkpoints: ndarray | None = field(default=None, repr=False)
    runs: tuple[str, ...] = ()  # their names, where they have some
    layout: str = ""  # what of a file was read as what, and what was left unused
    release: dict[str, Interval] = field(default_factory=dict, repr=False)

    @property
    def alone(self) -> bool:
        """Whether there is one run only, and its checkpoints stand in for other runs."""
        return len(self.labels) == 1

    @property
    def votes(self) -> ndarray:
        """What is set side by side, (runs, examples): the runs, or the checkpoints of the only
        one.
        """
        return self.checkpoints[0] if self.alone else self.labels

    def worst(self, most: int = 15) -> pd.DataFrame:
        """The rows of the most unstable queries, the worst first, with all their `answers`; queries
        on which all runs agree are left out. Of equals those of most weight come first, then those
        that some run has right.
        """
        table = self._worst_first()
        table = (table if self.alone else table[table["disagreement"] > 0]).head(most)
        return self._with_answers(table)

    def answers(self, query: int) -> list[tuple[str, str]]:
        """Each answer to a query, and beside it how often it was given, or of two runs by which."""
        votes = self.votes[:, query]
        if len(self.labels) == 2:
            given = list(zip(votes, self.runs, strict=True))
        else:
            given = [(kind, f"×{count}") for kind, count in metrics.measures.counted(votes)]
        return [(self.label_names[answer], beside) for answer, beside in given]

    def _with_answers(self, table: pd.DataFrame) -> pd.DataFrame:
        form = "{1}: {0}" if len(self.labels) == 2 else "{0} {1}"
        answers = []
        for query in table.index:
            words = [form.format(*given) for given in self.answers(query)]
            answers.append(", ".join(words))
        return table.assign(answers=answers)

    def _worst_first(self) -> pd.DataFrame:
        table = self.examples
        if self.alone:
            return table.sort_values("flip_rank")
        never_right = np.zeros(len(table), bool)
        if self.gold is not None:
            never_right = (self.labels != self.gold).all(axis=0)
        weight = table.get("weight", np.ones(len(table)))
        entropy = table["label_entropy"]
        return table.iloc[np.lexsort((never_right, -weight, -entropy))]

    def regions(self) -> pd.DataFrame:
        """Where unstable queries gather, by their texts, as `regions.describe` tells it; empty
        where nothing gathers beyond chance, or nothing can be said (one run, no texts or too
        few).
        """
        from stabutils.analysis import regions

        texts = () if self.alone or "text" not in self.examples else self.examples["text"]
        return regions.gathered(self.labels, tuple(texts), self.label_names)

    def show(self, name: str, folder: str | Path | None = None) -> None:
        """Show one of the page's figures in a notebook, by name, and save it in a folder; or say
        that there is none.
        """
        from stabutils import figures

        plots = _plots(self)
        if name in plots:
            _, alt, plot = plots[name]
            figures.show(plot(), name, alt, folder)
        else:
            print(
                f"No figure {name} of these predictions: it needs "
                f"{NEEDS.get(name, 'another name')}."
            )

    def summary(self) -> str:
        """The numbers and notes as lines of plain text."""
        runs = f"1 run, {len(self.votes)} checkpoints" if self.alone else f"{len(self.labels)} runs"
        lines = [f"{runs}, {self.labels.shape[1]:,} queries, {len(self.label_names)} labels"]
        for name, interval in self.numbers.items():
            lines.append(f"{title(name):<26}{shown(name, interval)}")
        return "\n".join([*lines, *self.notes])

    def entries(self) -> dict:
        """What was found, for programs: docs/pipelines.md says what is what."""
        numbers = [*of_scores(self.numbers), *of_scores(self.release, "release")]
        return {
            "runs": len(self.labels),
            "queries": self.labels.shape[1],
            "labels": len(self.label_names),
            "numbers": for_programs(numbers),
            "notes": self.notes,
        }

    def _repr_html_(self) -> str:
        return _page(self, page=False)

    def to_html(self, path: str | Path, source: str = "") -> Path:
        """Write a page that needs nothing beside it; `source` says where the predictions come
        from.
        """
        return save(path, _page(self, page=True, source=source))

    def to_csv(self, path: str | Path) -> Path:
        """Write the table of queries, the worst first, with all their answers; a cell that looks
        like a formula gets an apostrophe in front.
        """
        return save_table(path, self._with_answers(self._worst_first()))


def report(
    labels,
    gold=None,
    texts=None,
    probabilities=None,
    label_names=None,
    weights=None,
    identical_data=None,
    examples=None,
    checkpoints=None,
    run_names=None,
    threshold=THRESHOLD,
    max_churn=None,
) -> Report:
    """Stability of any system's answers: labels (runs, examples), integers or strings, of at least
    two runs; or `Predictions` as `read_predictions` gives them, which bring along whatever else
    they have.

    gold (examples,) adds accuracy and the parts of churn; probabilities (runs, examples, classes)
    the soft scores; weights (examples,), such as traffic, weighted churn; checkpoints (runs,
    checkpoints, examples), the answers during training, single-run entropy: with them one run is
    enough. Shares 0 .. 1, entropies in nats; three runs or more have an interval
    over runs and queries, fewer one over queries with a note. identical_data: whether the runs were
    trained on the same data (None: nobody said). threshold: the confidence from which a query is
    answered, and below which it goes to a fallback; used where confidence is known. max_churn:
    what a release gate allows between two models. run_names (runs,) and examples (examples,) are
    what the page and the table call them. InputError names what is wrong.

    >>> found = report([["a", "b"], ["a", "b"], ["a", "c"]])  # two of three pairs differ, on one
    >>> print(found.numbers["churn"].value)
    0.3333333333333333
    """
    check("threshold", threshold, float, {"least": 0, "most": 1})
    check("max_churn", max_churn, float | None, {"least": 0, "most": 1})
    if isinstance(labels, Predictions):
        refuse_beside(
            gold=gold,
            label_names=label_names,
            probabilities=probabilities,
            texts=texts,
            examples=examples,
            weights=weights,
            checkpoints=checkpoints,
            run_names=run_names,
        )
        read = labels
    else:
        read = _checked(
            labels,
            gold,
            label_names,
            probabilities,
            checkpoints,
            run_names,
            texts,
            examples,
            weights,
        )
    runs, count = read.labels.shape
    if runs < 2 and read.checkpoints is None:
        raise InputError("runs in labels", runs, MORE_RUNS)
    if not isinstance(identical_data, (bool, np.bool_, type(None))):
        raise InputError("identical_data", identical_data, "True, False or None")
    weights = None if read.weights is None else _weights(read.weights, count)
    read = replace(read, weights=weights)
    numbers = _numbers(read)
    needed: dict[float, int] = {}
    release: dict[str, Interval] = {}
    notes = [ONE_RUN]
    if runs > 1:
        if runs > 2:
            needed = {half: runs_needed(numbers["churn"], half) for half in (0.01, 0.005)}
        notes = [_plan(numbers["churn"], needed, count), SAME_DATA[identical_data]]
        if runs == 2 and read.gold is not None:
            notes.append(_of_two(read))
    if runs > count:
        notes.append(TRANSPOSED)
    if runs > 1:
        release, in_words = _release(read, threshold, max_churn)
        notes += in_words
    return Report(
        numbers,
        _table(read),
        needed,
        tuple(notes),
        read.labels,
        read.gold,
        read.label_names,
        read.checkpoints,
        read.runs,
        read.layout,
        release,
    )


def _checked(
    labels, gold, label_names, probabilities, checkpoints, run_names, texts, examples, weights
) -> Predictions:
    """Arrays as predictions: everything in one code, and of the lengths of labels."""
    rated, classes = (), None
    if probabilities is not None:
        rated = shape_of(probabilities, "probabilities")
        classes = (*rated, 0, 0, 0)[2]
    if checkpoints is None:
        labels, gold, names = encode(labels, gold, label_names, classes)
    else:
        shape = shape_of(checkpoints, "checkpoints")
        if len(shape) != 3 or shape[1] < 2 or shape[::2] != np.shape(labels):
            allowed = (
                "(runs, checkpoints, examples), at least 2 checkpoints of the runs and examples "
                f"in labels, {np.shape(labels)}"
            )
            raise InputError("shape of checkpoints", shape, allowed)
        both = np.concatenate([labels, np.reshape(checkpoints, (-1, shape[2]))])
        both, gold, names = encode(both, gold, label_names, classes)
        labels, checkpoints = both[: shape[0]], both[shape[0] :].reshape(shape)
    runs, count = labels.shape
    if probabilities is not None and rated != (*labels.shape, len(names)):
        allowed = f"{(*labels.shape, len(names))}: runs, examples, classes"
        raise InputError("shape of probabilities", rated, allowed)
    if run_names is None and runs == 2:
        run_names = ("run 1", "run 2")
    return Predictions(
        labels,
        names,
        one_for_each(run_names, runs, "run_names") or (),
        one_for_each(examples, count, "examples") or tuple(range(count)),
        "",
        gold,
        one_for_each(texts, count, "texts"),
        probabilities,
        weights,
        checkpoints,
    )


def _release(read: Predictions, threshold, max_churn) -> tuple[dict[str, Interval], list[str]]:
    """What a run in the place of another changes, and whether a gate would let it pass; in words.

    Negative flips and the chance are of three runs or more.
    """
    release: dict[str, Interval] = {}
    notes = []
    several = len(read.labels) > 2
    if read.gold is not None and several:
        both_ways = scores.churn(read.labels == read.gold)
        negative = scores.compare(lambda share: share / 2, [both_ways]).within(0, 0.5)
        release["negative_flips"] = negative
        notes.append(
            f"One retraining in the place of another turns {shown('negative_flips', negative)} of "
            "the queries from right to wrong (negative flips), and as many from wrong to right "
            "(positive flips)."
        )
    changes = served(read, read.labels, len(read.label_names), threshold)
    if changes:
        release |= {name: scores.churn(met).interval() for name, met in changes.items()}
        crossed, churn = (shown(name, release[name]) for name in changes)
        notes.append(
            f"At a confidence threshold of {threshold:g}, {crossed} of the queries are answered by "
            f"one run and left to the fallback by another; with these, users meet a change on "
            f"{churn} of the queries."
        )
    gate = PairGate(max_churn, None if read.gold is None else GUARD)
    if str(gate) and several:
        release["pass_chance"] = pass_chance(gate, read.labels, gold=read.gold)
        chance, ends = in_words("pass_chance", release["pass_chance"])
        notes.append(
            f"A release gate on one pair of models that asks for {gate} lets the same recipe, "
            f"trained again, pass with a chance of {chance} {ends}: the rest are failures by luck."
        )
    return release, notes


def served(answers, labels, fallback: int, threshold: float) -> dict[str, ndarray]:
    """What users meet of `Predictions` or `Runs` with confidence, else {}; (runs, examples) each.

    decision_flips : whether a query is answered. served_churn : by which label, or the fallback
    """
    confidence = confidence_of(answers)
    if confidence is None:
        return {}
    answered = decisions(confidence, threshold)
    return {"decision_flips": answered, "served_churn": np.where(answered == 1, labels, fallback)}


def _weights(weights, count):
    shape_of(weights, "weights")
    weights = np.asarray(weights)
    numbers = weights.shape == (count,) and weights.dtype.kind in "iuf"
    if not numbers or not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum() > 0:
        allowed = f"{count} numbers of at least 0, one for each example"
        raise InputError("weights", weights.tolist(), allowed)
    return weights.astype(float)


TRANSPOSED = (
    "There are more runs than queries: labels are (runs, examples). Was the array "
    "meant the other way round?"
)
ONE_RUN = (
    "One run tells which queries are likely to flip, not how many: for that take a second one "
    "with another "
    "seed. Intervals are over queries."
)


def _of_two(read: Predictions) -> str:
    """From one to the other, in words: what a release does to single answers."""
    right = read.labels == read.gold
    p_value = multiplicity.mcnemar(read.labels[0], read.labels[1], read.gold)
    changed = flips(read.labels[:1], read.labels[1:], read.gold)
    words = []
    for share in (right[:1], right[1:], changed["positive_flips"], changed["negative_flips"]):
        interval = scores.of_runs(share, (0, 1)).interval()
        words.append(" ".join(in_words("churn", interval)))
    return (
        f"From {read.runs[0]} to {read.runs[1]}: accuracy {words[0]} to {words[1]}; "
        f"{words[2]} of the queries were wrong and became right (positive flips), "
        f"{words[3]} were right and became wrong (negative flips). Equally accurate? "
        f"Mid-p McNemar test: p = {p_value:.2g}."
    )


def _plan(churn, needed, queries):
    if churn.value == 0:
        return (
            f"No query changed its answer; with {queries:,} of them churn could still be as "
            "high as "
            f"{100 * with_unseen(churn, queries).high:.2g} %."
        )
    if not needed:
        return (
            "Two runs give the churn of these two only. A third gives an interval over "
            "retrainings; five are better."
        )
    over_runs = churn.over_runs or churn
    half, both = (50 * (each.high - each.low) for each in (over_runs, churn))
    words = [
        f"±{100 * width:g} point{'' if width == 0.01 else 's'} needs {runs}"
        + (f" ({runs - churn.runs} more)" if runs > churn.runs else ", so there are enough")
        for width, runs in needed.items()
    ]
    rough = " A rough plan, as it rests on few runs." if churn.runs < 10 else ""
    return (
        f"With {churn.runs} runs churn on these queries is known to ±{half:.2g} points; "
        f"{'; '.join(words)}."
        f"{rough} With new queries as well it is known to ±{both:.2g} points."
    )


def _table(read: Predictions) -> pd.DataFrame:
    """The table of queries.

    Of one run: where confidence is known, uncertainty ranks the queries: it found what other runs
    disagree on better than the entropy on all corpora of this study (notebook 01).
    """
    labels, runs, names = read.labels, len(read.labels), np.array(read.label_names, object)
    columns: dict[str, Any] = {"example": read.examples, "text": read.texts}
    columns["gold"] = None if read.gold is None else names[read.gold]
    if runs == 1:
        entropy = metrics.checkpoint_entropy(read.checkpoints)[0]
        confidence = confidence_of(read)
        uncertainty = None if confidence is None else 1 - confidence[0]
        order = np.lexsort((-entropy, -(entropy if uncertainty is None else uncertainty)))
        columns |= {
            "answer": names[labels[0]],
            "checkpoint_entropy": entropy,
            "uncertainty": uncertainty,
            "flip_rank": 1 + np.argsort(order),
        }
    else:
        answer, count = metrics.majority(labels)
        low, high = jeffreys(runs - count, runs)
        columns |= {
            "answer": names[answer],
            "votes": count,
            "label_entropy": metrics.label_entropy(labels),
            "disagreement": metrics.disagreement(labels),
            "flip_probability": 1 - count / runs,
            "flip_low": low,
            "flip_high": high,
        }
    columns["weight"] = read.weights
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def _numbers(read: Predictions) -> dict[str, Interval]:
    """The numbers of a report, over runs and queries where runs and queries allow it."""
    labels, gold, probabilities = read.labels, read.gold, read.probabilities
    alone = len(labels) == 1
    found = {}
    if read.checkpoints is not None:
        entropy = metrics.checkpoint_entropy(read.checkpoints)
    if not alone:
        found = scores.scores(labels, gold, min(5, len(labels)), read.weights)
    else:
        found["share_changed"] = scores.of_runs(entropy > 0, (0, 1))
        if gold is not None:
            found["accuracy"] = scores.accuracy(labels, gold)
    numbers = {name: score.interval() for name, score in found.items()}
    if not alone:
        numbers["kappa"] = scores.kappa(labels)
    if read.checkpoints is not None:
        numbers["checkpoint_entropy"] = scores.of_runs(entropy, (0, np.inf)).interval()
    if probabilities is not None:
        if not alone:
            numbers["jensen_shannon"] = scores.jensen_shannon(np.asarray(probabilities))
        if gold is not None:
            numbers["nll"] = _mean_of(metrics.nll, probabilities, gold).within(0, np.inf)
            numbers["ece"] = _mean_of(metrics.ece, probabilities, gold).within(0, 1)
    return numbers


def _mean_of(metric, array, gold):
    over_queries = over_examples(
        lambda array, gold: metric(array, gold).mean(), array, examples=(gold,)
    )
    values = metric(array, gold)
    if len(values) < 3:
        return over_queries
    return runs_and_queries(jackknife(np.mean, values), over_queries)


def title(name):
    base, _, n = name.partition("@")
    return SCORES[base][0] + f" (@{n})" * bool(n)


def is_share(name: str) -> bool:
    """Whether a score is a share, which people read in %."""
    return UNITS[name.partition("@")[0]].startswith("share")


def shown(name: str, interval: Interval, signed: bool = False) -> str:
    """A number as a reader wants it: shares in %, with interval and runs.

    >>> shown("churn", Interval(0.12345, 0.1, 0.15, runs=5))
    '12.3 % [10.0, 15.0] (5 runs)'
    """
    value, ends = in_words(name, interval, signed)
    return f"{value} {ends} ({_behind(interval)})"


def in_words(name: str, interval: Interval, signed: bool = False) -> tuple[str, str]:
    """A number, with its unit, and its interval: shares in %, differences in points."""
    scale, places, unit = 1, 3, ""
    if is_share(name):
        scale, places, unit = 100, 1, " points" if signed else " %"
    half = scale * (interval.high - interval.low) / 2
    places += 0 < half < 10**-places
    form = f"{'+' * signed}.{places}f"
    numbers = (interval.value, interval.low, interval.high)
    value, low, high = (format(scale * number, form) for number in numbers)
    return value + unit, f"[{low}, {high}]"


def _behind(interval):
    return interval.note or f"{interval.runs} runs"


def _page(report: Report, page: bool, source: str = "") -> str:
    rows = []
    for name, interval in report.numbers.items():
        base, _, n = name.partition("@")
        value, ends = in_words(name, interval)
        says = SCORES[base][1].format(n=n)
        row = {"name": title(name), "value": value, "range": ends, "behind": _behind(interval)}
        rows.append(row | {"says": says})
    by_name = {name.partition("@")[0]: row for name, row in zip(report.numbers, rows, strict=True)}
    unstable = _unstable(report)
    changing = int(np.any(report.votes != report.votes[0], axis=0).sum())
    cards = [by_name[name] for name in (CARDS_OF_ONE if report.alone else CARDS) if name in by_name]
    return render(
        "reports/report.html",
        page=page,
        source=source,
        layout=report.layout,
        runs=len(report.labels),
        queries=f"{report.labels.shape[1]:,}",
        rows=rows,
        cards=cards,
        classes=len(report.label_names),
        figures=pictures(_plots(report).values()) if page else [],
        unstable=unstable,
        more_unstable=0 if report.alone else changing - len(unstable),
        texts="text" in report.examples,
        regions=report.regions().to_dict("records") if page else [],
        notes=report.notes,
        changing=f"{changing:,}",
        speaks_of="" if report.alone else report.numbers["churn"].speaks_of,
    )


def _unstable(report: Report) -> list[dict]:
    """The queries whose answers change most, with what the runs, or the checkpoints of the only
    one, answered.
    """
    rows = []
    for place, query in report.worst().iterrows():
        gold = query.get("gold")
        answers = [(name, beside, name == gold) for name, beside in report.answers(place)]
        row = {"text": query.get("text", ""), "example": query["example"], "gold": gold}
        row["answers"] = answers
        if report.alone:
            words = {"uncertainty": "uncertainty", "checkpoint_entropy": "entropy"}
            known = [f"{words[name]} {query[name]:.2f}" for name in words if name in query]
            row["score"] = ", ".join(known)
        else:
            for name in ("probability", "low", "high"):
                row[name] = f"{100 * query[f'flip_{name}']:.0f}"
        rows.append(row)
    return rows


NEEDS = {
    "accuracy-and-churn": "three runs or more, and gold labels",
    "entropy": "three runs or more that differ",
    "how-many-runs": "three runs or more that differ",
    "confused": "two runs or more that differ",
}


def _plots(report: Report) -> dict[str, tuple]:
    """The figures that these predictions allow: name -> caption, alternative text that states the
    finding, the plot.
    """
    from stabutils import figures
    from stabutils.analysis import regions

    labels, churn, table = report.labels, report.numbers.get("churn"), report.examples
    changing = np.any(report.votes != report.votes[0], axis=0).mean()
    gold = np.full(labels.shape[1], -1) if report.gold is None else report.gold
    texts = table["text"] if "text" in table else table["example"].astype(str)
    whose = f"its {len(report.votes)} checkpoints" if report.alone else f"{len(labels)} runs"
    what = "the run answered at each checkpoint" if report.alone else "each run answers"
    plots = {
        "answers": (
            f"What {what} to the most unstable, some middling and some stable queries.",
            f"Answers of {whose} to single queries: {100 * changing:.1f} % of all queries "
            "change theirs.",
            lambda: _plain(figures.answers(report.votes, gold, list(texts)), report),
        )
    }
    if report.alone:
        return plots
    if report.gold is not None and len(labels) > 2:  # of two there is one pair
        accuracy = metrics.accuracy(labels, gold)
        pairs = metrics.churn_matrix(labels)[np.triu_indices(len(labels), 1)]
        plots["accuracy-and-churn"] = (
            "How often each run is right, and how often two runs disagree.",
            f"Accuracy lies between {100 * accuracy.min():.1f} and {100 * accuracy.max():.1f} "
            "%; two runs "
            f"answer {shown('churn', churn)} of the queries differently.",
            lambda: figures.accuracy_and_churn(accuracy, pairs, churn),
        )
    if changing and len(labels) > 2:
        plots["entropy"] = (
            "How unstable the queries are.",
            f"{100 * (1 - changing):.1f} % of the queries never "
            "change; the others spread over label entropies.",
            lambda: figures.entropy_distribution(labels),
        )
    if changing:
        against = regions.confused(labels, report.label_names)
        first, share = next(iter(against.items()))
        plots["confused"] = (
            "Which answers stand against each other where runs disagree.",
            f"Most often {first}: {100 * share.value:.0f} % of all disagreements.",
            lambda: figures.intervals(
                against, "share of all disagreements of two runs (%)", limits=(0, 1), scale=100
            ),
        )
    if report.runs_needed and churn.se > 0:
        plots["how-many-runs"] = (
            "How precisely churn is known, by number of runs.",
            report.notes[0],
            lambda: figures.how_many_runs(churn),
        )
    return plots


def _plain(figure, report):
    """The figure in words that also fit systems that were never trained, or have no gold labels."""
    from stabutils import figures

    each = "checkpoint" if report.alone else "run"
    figure.axes[0].set_xlabel(each)
    if 2 <= len(report.runs) <= 12 and not report.alone:
        figure.axes[0].set_xticklabels([figures.short(name, 14) for name in report.runs])
    dot = "" if report.gold is None else " (dot: right)"
    figure.axes[0].set_title(f"Answer of each {each}{dot}")
    return figure


def escape_formula(cell: object) -> object:
    """A cell of a table for spreadsheets: a text that would be read as a formula gets an apostrophe
    in front.

    A lone carriage return becomes a line feed: `csv` does not quote it, and readers begin a row
    there.

    >>> escape_formula("=1+1"), escape_formula("one"), escape_formula(-1)
    ("'=1+1", 'one', -1)
    """
    if not isinstance(cell, str):
        return cell
    return "'" * cell.startswith(FORMULA) + cell.replace("\r\n", "\n").replace("\r", "\n")


def save_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table as CSV for spreadsheets, its cells as `escape_formula` has them."""
    cells = table.map(escape_formula)
    return save(path, cells.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def save(path: str | Path, text: str) -> Path:
    """Write a text as it is. Raises InputError where the file cannot be written."""
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(
            "output", str(path), f"a file that can be written ({error.strerror})"
        ) from None
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils report`."""
    parser.add_argument(
        "predictions",
        nargs="+",
        help=".csv, .parquet, .npy or .safetensors, of two runs or more, or of one with "
        "checkpoints; or several tables of one run each",
    )
    parser.add_argument(
        "-o", "--output", default="report.html", help="the page to write (%(default)s)"
    )
    parser.add_argument("--csv", metavar="FILE", help="also write the table of queries")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers for programs")
    add_threshold(parser)
    add_columns(parser)
    parser.add_argument(
        "--identical-data", choices=["yes", "no"], help="were the runs trained on identical data?"
    )
    parser.add_argument(
        "--max-churn",
        type=float,
        metavar="SHARE",
        help="exit with status 1 if churn's whole interval lies above this, such as 0.05; one that "
        "contains it is undecided and passes",
    )
    parser.add_argument(
        "--strict", action="store_true", help="with --max-churn: undecided fails too"
    )


def refuse_strict_alone(arguments: argparse.Namespace, gate: object) -> None:
    """Raise InputError where --strict has no gate beside it."""
    if arguments.strict and not gate:
        raise InputError("--strict", "no gate", "one beside it: --max-churn, or --fail-on")


def conclude(
    name: str, entries: dict, checks: Sequence[Check], arguments: argparse.Namespace
) -> int:
    """Write the document of a command where one is asked for; its exit status by its checks."""
    status = max((check.status(arguments.strict) for check in checks), default=0)
    if arguments.json:
        content = entries | {"checks": [check.entry() for check in checks]}
        write_document(arguments.json, name, status, content)
    return status


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """The confidence below which a query goes to a fallback."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="CONFIDENCE",
        help="count the queries that cross it between two runs: answered from it on, left to a "
        f"fallback below; needs a column confidence or columns p_<label> (default {THRESHOLD})",
    )


def threshold_of(arguments: argparse.Namespace, files: Mapping[str, Predictions]) -> float:
    """The threshold that was given, or the usual one. InputError without confidence for it."""
    if arguments.threshold is None:
        return THRESHOLD
    for name, read in files.items():
        if confidence_of(read) is None:
            allowed = (
                "a column confidence (of another name: --columns confidence=<column>), or one "
            )
            allowed += "column p_<label> for each label"
            raise InputError("--threshold", f"no confidence in {name}", allowed)
    return arguments.threshold


def add_columns(parser: argparse.ArgumentParser) -> None:
    """An option for each role that a column may play, and one for all of them."""
    parser.add_argument(
        "--columns",
        metavar="ROLE=COLUMN,...",
        help="which column plays which role, such as run=seed,example=id,label=answer,gold=truth",
    )
    several = {
        "label": "; several: one for each run, wide form",
        "probabilities": "; none leaves them out",
        "confidence": "; none leaves it out, several: one for each run, wide form",
    }
    for role, names in COLUMNS.items():
        words = f"column of the {role} ({', '.join(names)}){several.get(role, '')}"
        number = "+" if role in several else None
        parser.add_argument(f"--{role}", metavar="COLUMN", nargs=number, help=words)


def columns_of(arguments: argparse.Namespace) -> dict[str, str | list[str]]:
    """What was said with these options, as `read_predictions` takes it."""
    roles = {role: getattr(arguments, role) for role in COLUMNS if getattr(arguments, role)}
    return told(arguments.columns) | roles


def command(arguments: argparse.Namespace) -> int:
    """Read, report, say where the report lies; 1 when churn is too high by its whole interval
    (strict: any of it).
    """
    limit = arguments.max_churn
    if limit is not None and not 0 <= limit <= 1:
        raise InputError("--max-churn", limit, "a share of 0 .. 1")
    refuse_strict_alone(arguments, limit is not None)
    read = read_predictions(arguments.predictions, columns_of(arguments))
    if limit is not None and len(read.labels) < 2:
        raise InputError("--max-churn", limit, "two runs or more, to measure churn on")
    threshold = threshold_of(arguments, {"the file": read})
    identical_data = {"yes": True, "no": False, None: None}[arguments.identical_data]
    numbers = report(read, identical_data=identical_data, threshold=threshold, max_churn=limit)
    source = ", ".join(Path(path).name for path in arguments.predictions)
    page = numbers.to_html(arguments.output, source)
    table = numbers.to_csv(arguments.csv) if arguments.csv else None
    checks = []
    if limit is not None:
        churn = with_unseen(numbers.numbers["churn"], numbers.labels.shape[1])
        checks = [Check("churn", churn, limit)]
    status = conclude("report", numbers.entries(), checks, arguments)
    print(read.layout, numbers.summary(), sep="\n")  # only now: a console may fail
    if table:
        print(f"queries: {table}")
    print(f"report: {page}")
    words = {
        "failed": "FAILED: all of churn's interval lies above {} %",
        "passed": "passed: nothing of churn's interval lies above {} %",
        "undecided": "{says}: at {runs} runs {} % lies inside churn's interval",
    }
    for each in checks:
        limit_shown, says = f"{100 * each.limit:g}", each.in_words(arguments.strict)
        found = words[each.outcome].format(limit_shown, runs=each.interval.runs, says=says)
        print(found + each.advice)
    return status
