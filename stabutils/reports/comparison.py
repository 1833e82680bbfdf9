"""Two systems on the same examples: did a change make the answers more stable?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stabutils.data.labels import plain
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    jeffreys,
    over_both,
    over_examples,
    these_models,
    together,
    verdict,
)
from stabutils.metrics.measures import churn_between, churn_parts, majority
from stabutils.records import for_programs, of_scores
from stabutils.reports.codes import encode, refuse_beside, same_code, shape_of
from stabutils.reports.comparison_page import written
from stabutils.reports.gate import (
    Check,
    Pair,
    PairGate,
    pairs_of,
    pass_chance,
    with_unseen,
)
from stabutils.reports.reading import Predictions, read_predictions
from stabutils.reports.stability import (
    THRESHOLD,
    add_columns,
    add_threshold,
    columns_of,
    conclude,
    in_words,
    refuse_strict_alone,
    save,
    save_table,
    served,
    shown,
    threshold_of,
    title,
)

FAIL_ON = ("churn", "negative-flips", "accuracy")
ALONE = (
    "one run cannot tell. Retraining alone flips answers too: retrain both, and compare several "
    "runs of each, to see whether this change flips more"
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems: scores before, after and their difference (after - before), and a verdict.

    verdict is on "after is more stable": its label entropy at an equal number of runs is lower, and
    its accuracy is not lower by more than half a point (guard; "cannot be tested here" without
    gold, and then left out). verdicts has one for each difference: that it lies below 0, for
    accuracy that it lies above the guard. between: the churn from one to the other.

    regressions: how much worse after is, above 0 where it is worse: `churn` (between runs of after,
    more than between runs of before), `negative-flips` (from before to after, more than one run of
    before to another), `accuracy` (lost); where one of them has a single run, `churn` and
    `negative-flips` are whole, from before to after. pairs: single models side by side. passing:
    the chance that a release gate on one pair of models (`gate`) passes, of an update and of before
    trained again. threshold: confidence from which a query is answered, where confidence is known.
    flips: one row for each query, see `to_csv`.
    """

    before: dict[str, Interval]
    after: dict[str, Interval]
    difference: dict[str, Interval]
    between: dict[str, Interval]
    stability: str
    guard: str
    verdict: str
    layouts: tuple[str, ...] = ()  # of files: what was read as what, and what was left unused
    regressions: Mapping[str, Interval] = field(default_factory=dict, repr=False)
    pairs: tuple[Pair, ...] = field(default=(), repr=False)
    passing: Mapping[str, Interval] = field(default_factory=dict, repr=False)
    flips: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    gate: PairGate = PairGate()
    threshold: float | None = None

    @property
    def retrained(self) -> bool:
        """Whether both have several runs, so that something can be said of retrainings."""
        return any(name.startswith("label_entropy") for name in self.difference)

    @property
    def verdicts(self) -> dict[str, str]:
        return {
            name: self.guard if name == "accuracy" else verdict(difference, 0.0, "below")
            for name, difference in self.difference.items()
        }

    @property
    def conclusions(self) -> list[str]:
        """Whether after is more stable, and how much of a gate's verdict is luck, in sentences."""
        guard = (
            "no gold labels, so accuracy is not guarded"
            if self.guard == "cannot be tested here"
            else f"accuracy not lower by more than {100 * GUARD:g} points: {self.guard}"
        )
        stable = f"{self.verdict} (lower label entropy: {self.stability}; {guard})"
        sentences = [f"After is more stable: {stable if self.retrained else ALONE}"]
        if self.threshold is not None:
            answered = f"Answered from a confidence of {self.threshold:g} on, else by a fallback"
            sentences.insert(0, answered)
        if self.passing:
            update, again = (
                " ".join(in_words("pass_chance", self.passing[name]))
                for name in ("update", "again")
            )
            sentences.append(
                f"A gate on one pair of models that asks for {self.gate} passes {update} of the "
                f"pairs from before to after, and {again} of those of before trained again: what "
                "fails of the latter is luck"
            )
        return sentences

    def summary(self) -> str:
        """Layout of files, scores, churn between the two, and the verdict as plain text."""
        lines = [
            f"{title(name):<26}{shown(name, self.before[name])} -> "
            f"{shown(name, self.after[name])}, "
            f"difference {shown(name, difference, signed=True)}; "
            f"{'kept' if name == 'accuracy' else 'lower'}: {self.verdicts[name]}"
            for name, difference in self.difference.items()
        ]
        lines += [
            f"{'Between: ' + title(name).lower():<28}{shown(name, part)}"
            for name, part in self.between.items()
        ]
        lines += self.conclusions
        notes = {
            each.note
            for part in (self.before, self.after, self.difference, self.between)
            for each in part.values()
        }
        if len(notes) == 1 and (note := notes.pop()):  # said once
            lines = [
                *(line.replace(f" ({note})", "") for line in lines),
                f"All intervals speak of {note}",
            ]
        return "\n".join([*self.layouts, *lines])

    __str__ = summary

    def checks(self, fail_on: Sequence[str], margin: float = 0.0) -> list[Check]:
        """The checks of a gate: that after is not worse by more than the margin, a share of
        queries.

        fail_on: names out of `regressions`. Raises InputError for another, or one that needs gold
        labels where there are none.
        """
        if not 0 <= margin <= 1:
            raise InputError("--margin", margin, "a share of 0 .. 1")
        for name in fail_on:
            if name not in self.regressions:
                needs = "" if name not in FAIL_ON else f" ({name} needs gold labels)"
                raise InputError("--fail-on", name, ", ".join(self.regressions) + needs)
        return [Check(name, self.regressions[name], margin) for name in fail_on]

    def entries(self) -> dict:
        """What was found, for programs: docs/pipelines.md says what is what."""
        parts = {"before": self.before, "after": self.after, "difference": self.difference}
        numbers = [number for arm, part in parts.items() for number in of_scores(part, arm)]
        numbers += of_scores(self.between, "between")
        numbers += [
            replace(number, condition=name)
            for name, interval in self.passing.items()
            for number in of_scores({"pass_chance": interval})
        ]
        return {
            "more_stable": self.verdict,
            "verdicts": self.verdicts,
            "numbers": for_programs(numbers),
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def to_html(self, path: str | Path, checks: Mapping[str, str] | None = None) -> Path:
        """Write a page that needs nothing beside it.

        checks : the checks of a gate by name, and what came of each in words
        """
        return save(path, written(self, checks or {}))

    def to_csv(self, path: str | Path) -> Path:
        """Write the queries, those that change most first: the most frequent answers before and
        after, and of all pairs of one run before and one after the share that differs
        (flip_probability), with gold labels also that was fixed and that regressed.
        """
        table = self.flips.sort_values("flip_probability", ascending=False, kind="stable")
        return save_table(path, table)


def compare(
    before, after, gold=None, seeds=None, threshold=THRESHOLD, gate: PairGate | None = None
) -> Comparison:
    """Did a change make a system more stable?

    Parameters
    ----------
    before, after
        Labels (runs, examples), on the same examples; or two `Predictions`, or two `Runs` of a
        study, which bring gold and seeds along. Of a single run on one side it says what changes
        from one to the other on these and other queries, and nothing of stability.
    gold
        (examples,), adds accuracy and the parts of churn.
    seeds
        (of before, of after): the seed of each run, where runs of both may share them; runs
        without common seeds are taken as independent. Runs of two files are a pair where they have
        one name.
    threshold
        Confidence from which a query is answered, and below which it goes to a fallback. Of
        `Predictions` with probabilities or confidence the comparison says how many queries change
        sides (`decision_flips`), and how many users meet another answer or the fallback instead of
        one (`served_churn`).
    gate
        Of which gate on one pair of models the chance to pass is told.

    Returns
    -------
    Comparison
        Entropy is compared at one number of runs, the 5 or fewer that both have.

    Raises
    ------
    InputError
        Other examples, texts or gold labels in one of them than in the other, or two codes of
        labels.

    Examples
    --------
    >>> after = [[0, 1], [0, 1], [0, 1]]
    >>> round(compare([[0, 1], [0, 0], [1, 1]], after).difference["churn"].value, 3)
    -0.667
    """
    files = (before, after)
    layouts = tuple(side.layout for side in files if isinstance(side, Predictions))
    of_study = hasattr(before, "seeds")  # Runs, whose labels are in the code of their corpus
    other = None
    if hasattr(before, "labels") and hasattr(after, "labels"):
        refuse_beside(gold=gold, seeds=seeds)
        before, after, gold, other, seeds = _of_both(before, after)
    before, after, gold, code = _same_names(before, after, gold, other)
    sides = {"before": before, "after": after}
    if not of_study:
        who = [f"run {i + 1} of {name}" for name, side in sides.items() for i in range(len(side))]
        same_code(np.concatenate([before, after]), gold, code, who)
    sizes = [len(before), len(after)]
    retrained = min(sizes) > 1
    if seeds is None:
        run_names = [range(1, size + 1) for size in sizes]
        seeds = (np.arange(sizes[0]), sizes[0] + np.arange(sizes[1]))
    else:
        seeds = run_names = _seeds(seeds, sizes)
    paired = retrained and bool(np.isin(*seeds).any())
    if layouts and paired:
        common = ", ".join(map(str, np.intersect1d(*seeds)))
        layouts += (
            f"runs of the same name in both files share a seed, it is assumed: {common} (Between "
            "counts each run before beside each run after, also beside the one of the same name)",
        )
    of_users = [
        served(side, labels, len(code), threshold)
        for side, labels in zip(files, (before, after), strict=True)
    ]
    changes = {}
    if all(of_users):
        changes = {name: [side[name] for side in of_users] for name in of_users[0]}
    between = _between(before, after, gold, seeds)
    for name, (earlier, later) in changes.items():
        between[name] = _between(earlier, later, None, seeds)["churn"]
    if retrained:
        found = _of_retrainings(before, after, gold, seeds, between, changes, gate or PairGate())
    else:
        found = _of_models(before, after, gold, between)
    return replace(
        found,
        layouts=layouts,
        pairs=pairs_of(before, after, gold, run_names, paired),
        flips=_flips(before, after, gold, code, files[0]),
        threshold=threshold if changes else None,
    )


def _of_retrainings(before, after, gold, seeds, between, changes, gate: PairGate) -> Comparison:
    """Of several runs of each: what changes over runs and queries, and whether it is more stable.

    changes : what users meet before and after, by the name of the score
    """
    n = min(5, len(before), len(after))
    old, new = (scores.scores(labels, gold, n) for labels in (before, after))
    for name, (earlier, later) in changes.items():
        old[name], new[name] = scores.churn(earlier), scores.churn(later)
    names = [name for name in old if not name.startswith("share_unstable")]
    difference = {name: _change(new[name], old[name], seeds[::-1]) for name in names}
    stability = verdict(difference[f"label_entropy@{n}"], 0.0, "below")
    guard = verdict(difference.get("accuracy"), -GUARD)
    more_stable, passing = stability, {}
    if gold is not None:
        more_stable = together(stability, guard)
    if gold is not None or not gate.needs_gold:
        passing["update"] = pass_chance(gate, before, after, gold)
        passing["again"] = pass_chance(gate, before, gold=gold)
    return Comparison(
        {name: old[name].interval() for name in names},
        {name: new[name].interval() for name in names},
        difference,
        between,
        stability,
        guard,
        more_stable,
        regressions=_regressions(before, after, gold, seeds, difference),
        passing=passing,
        gate=gate,
    )


def _change(new: scores.Score, old: scores.Score, seeds) -> Interval:
    """The interval of new - old, within what a difference of the two can be."""
    low, high = new.bounds
    return scores.change(new, old, seeds).within(low - high, high - low)


def _of_models(before, after, gold, between) -> Comparison:
    """Of models of which one at least was not retrained: what changes, over the queries."""

    def accuracy(labels, right):
        return float(np.mean(labels == right))

    def change(earlier, later, right):
        return accuracy(later, right) - accuracy(earlier, right)

    old: dict[str, Interval] = {}
    new: dict[str, Interval] = {}
    difference: dict[str, Interval] = {}
    regressions = {"churn": between["churn"]}
    if gold is not None:
        over_queries = partial(_over_queries, gold=gold, note=between["churn"].note)
        old["accuracy"] = over_queries(accuracy, before).within(0, 1)
        new["accuracy"] = over_queries(accuracy, after).within(0, 1)
        difference["accuracy"] = over_queries(change, before, after).within(-1, 1)
        regressions["negative-flips"] = between["negative_flips"]
        regressions["accuracy"] = _negative(difference["accuracy"])
    unknown, queries = verdict(None, 0.0), before.shape[1]
    guard = verdict(difference.get("accuracy"), -GUARD)
    regressions = {name: with_unseen(own, queries) for name, own in regressions.items()}
    return Comparison(
        old, new, difference, between, unknown, guard, unknown, regressions=regressions
    )


def _of_count(share: Interval, queries: int) -> Interval:
    """The share of so many queries with Jeffreys' interval, which holds for few of them too."""
    low, high = jeffreys(round(share.value * queries), queries)
    return replace(share, low=float(low), high=float(high))


def _over_queries(statistic, *models, gold, note: str) -> Interval:
    """The interval of these models on other queries, whichever of them it is of."""
    interval = over_examples(statistic, *models, examples=(gold,))
    return replace(interval, runs=sum(map(len, models)), note=note)


def _regressions(before, after, gold, seeds, difference) -> dict[str, Interval]:
    """How much worse after is, over runs and queries; above 0 is worse."""
    queries = before.shape[1]
    found = {"churn": with_unseen(difference["churn"], queries)}
    if gold is not None:

        def more_flips(old, new, right):
            retrained = churn_parts(old, right)["right_to_wrong"] / 2
            return churn_between(old, new, right)["negative_flips"] - retrained

        flips = over_both(more_flips, before, after, seeds=seeds, examples=(gold,))
        found["negative-flips"] = with_unseen(flips.within(-1, 1), queries)
        found["accuracy"] = with_unseen(_negative(difference["accuracy"]), queries)
    return found


def _negative(change: Interval) -> Interval:
    """A change with its sign turned."""
    return replace(change, value=0 - change.value, low=0 - change.high, high=0 - change.low)


def _flips(before, after, gold, code, read) -> pd.DataFrame:
    """The table of queries."""
    names, known = np.array(code, object), gold is not None
    right, right_after = ((labels == gold).mean(axis=0) for labels in (before, after))
    columns = {
        "example": getattr(read, "examples", range(before.shape[1])),
        "text": getattr(read, "texts", None),
        "gold": names[gold] if known else None,
        "before": names[majority(before)[0]],
        "after": names[majority(after)[0]],
        "flip_probability": np.mean([(after != run).mean(axis=0) for run in before], axis=0),
        "fixed": (1 - right) * right_after if known else None,
        "regressed": right * (1 - right_after) if known else None,
    }
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def _of_both(before, after):
    """Labels, gold and seeds of two Predictions or Runs, by the names of labels and runs."""
    if isinstance(before, Predictions) and isinstance(after, Predictions):
        _refuse_other_examples(before, after)
    sides = []
    for side in (before, after):
        if isinstance(side, Predictions):
            names = np.array(side.label_names, object)
            gold = None if side.gold is None else names[side.gold]
            sides.append((names[side.labels], gold, np.array(side.runs)))
        else:  # Runs of one study have one code
            sides.append((side.labels, side.gold, side.seeds))
    (old, gold, old_seeds), (new, other, new_seeds) = sides
    return old, new, gold, other, (old_seeds, new_seeds)


def _refuse_other_examples(before: Predictions, after: Predictions) -> None:
    """Refuse two files whose rows are not the same examples, as their names or texts tell."""
    if before.examples != after.examples:
        only = sorted(set(before.examples) ^ set(after.examples))
        allowed = "the same in both: these are in one only"
        raise InputError("examples of before and after", only[:5], allowed)
    if before.numbered != after.numbered:
        named, numbered = ("after", "before") if before.numbered else ("before", "after")
        value = f"a column of them in {named}, the order of rows in {numbered}"
        raise InputError("examples of before and after", value, "a column of them in both")
    for column in sorted(set(before.identity) & set(after.identity)):
        olds, news = before.identity[column], after.identity[column]
        if set(olds) == set(news):
            _refuse_other(column, before, olds, news)
    if before.texts is not None and after.texts is not None:
        _refuse_other("text", before, before.texts, after.texts)


def _refuse_other(what: str, before: Predictions, olds, news) -> None:
    """Refuse examples that are called one thing before and another after."""
    for example, old, new in zip(before.examples, olds, news, strict=True):
        if plain(old).split() != plain(new).split():
            rows = " (counted by rows)" if before.numbered else ""
            allowed = "the same in both files, row by row, or a column that names the examples, "
            allowed += "such as --columns example=<column>"
            raise InputError(f"{what} of example {example}{rows}", (old, new), allowed)


def _same_names(before, after, gold, other=None):
    """Both sets of runs, and gold, in one code; `other` is the gold labels of after."""
    sizes = [shape_of(before, "before"), shape_of(after, "after")]
    for thing, size in zip(("before", "after"), sizes, strict=True):
        if len(size) != 2 or size[0] < 1:
            raise InputError(f"shape of {thing}", size, "(runs, examples), a run or more")
    if sizes[0][1] != sizes[1][1]:
        raise InputError("examples in after", sizes[1][1], f"{sizes[0][1]}, as many as in before")
    if gold is None:
        gold, other = other, None
    rows = [before, after] if other is None else [before, after, other[None]]
    every, gold, names = encode(np.concatenate(rows), gold)
    before, after, others = np.split(every, np.cumsum([size[0] for size in sizes]))
    for row in others:
        if (row != gold).any():
            first = int((row != gold).argmax())
            value = f"{names[row[first]]} where before has {names[gold[first]]}"
            raise InputError("gold labels of after", value, "the same in both")
    return before, after, gold, names


def _seeds(seeds, sizes):
    seeds = tuple(map(np.atleast_1d, seeds if hasattr(seeds, "__len__") else (seeds,)))
    if [len(np.unique(own)) for own in seeds] != sizes:
        allowed = f"two lists of different seeds, {sizes[0]} and {sizes[1]} of them"
        raise InputError("seeds", [own.tolist() for own in seeds], allowed)
    return seeds


def _between(before, after, gold, seeds=None):
    """Churn from before to after over all cross pairs and the queries, and its parts with gold.

    Over the queries alone where one of them has a single run.
    """
    parts = ("churn", "positive_flips", "negative_flips", "wrong_to_wrong")
    if gold is None:
        parts, gold = parts[:1], np.zeros(before.shape[1], int)  # churn does not depend on it
    found, note = {}, these_models(len(before) + len(after))
    for part in parts:

        def share(old, new, right, part=part):
            return churn_between(old, new, right)[part]

        if min(len(before), len(after)) < 2:
            interval = _over_queries(share, before, after, gold=gold, note=note)
            if len(before) == len(after):  # a count of queries
                interval = _of_count(interval, before.shape[1])
        else:
            interval = over_both(share, before, after, seeds=seeds, examples=(gold,))
        found[part] = interval.within(0, 1)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils compare`."""
    parser.add_argument(
        "before", help=".csv, .parquet, .npy or .safetensors; of several runs, better"
    )
    parser.add_argument("after", help="the same examples, answered after the change")
    parser.add_argument("-o", "--output", metavar="FILE", help="also write a page, such as c.html")
    parser.add_argument("--csv", metavar="FILE", help="also write the table of queries")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers for programs")
    parser.add_argument(
        "--pairs", metavar="FILE", help="also write a table of pairs of models, with McNemar tests"
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        choices=FAIL_ON,
        default=[],
        help="exit with status 1 on a significant regression: more churn between runs than before, "
        "more negative flips from before to after than from before to before trained again, or "
        "lower accuracy; of a single run, churn and negative flips from before to after count "
        "whole; may be given several times",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with --fail-on: how much worse is still allowed, such as 0.005 (%(default)s)",
    )
    parser.add_argument("--strict", action="store_true", help="with --fail-on: undecided fails too")
    add_threshold(parser)
    add_columns(parser)


def command(arguments: argparse.Namespace) -> int:
    """Read both, print how they were read, the comparison and the checks; 1 where one failed."""
    if arguments.margin and not arguments.fail_on:
        raise InputError("--margin", arguments.margin, "a share, together with --fail-on")
    refuse_strict_alone(arguments, arguments.fail_on)
    columns = columns_of(arguments)
    before, after = (
        read_predictions(path, columns, least=1) for path in (arguments.before, arguments.after)
    )
    threshold = threshold_of(arguments, {"before": before, "after": after})
    limits = dict.fromkeys(arguments.fail_on, arguments.margin)
    gate = None
    if limits:
        names = ("churn", "accuracy", "negative-flips")
        gate = PairGate(*map(limits.get, names))
    comparison = compare(before, after, threshold=threshold, gate=gate)
    checks = comparison.checks(list(limits), arguments.margin)
    outcomes = {}
    for check in checks:
        whole = not comparison.retrained and check.name != "accuracy"
        measured = f"({_measured(check, whole)}){check.advice}"
        outcomes[check.name] = f"{check.in_words(arguments.strict)} {measured}"
    print(comparison)
    for name, outcome in outcomes.items():
        print(f"{name}: {outcome}")
    if arguments.output:
        comparison.to_html(arguments.output, outcomes)
    if arguments.csv:
        comparison.to_csv(arguments.csv)
    if arguments.pairs:
        save_table(arguments.pairs, pd.DataFrame([asdict(pair) for pair in comparison.pairs]))
    return conclude("compare", comparison.entries(), checks, arguments)


def _measured(check: Check, whole: bool) -> str:
    """What a check measured, and what it allows: a share of the answers, or a loss in points."""
    interval, limit = check.interval, f"{100 * check.limit:g}"
    if whole:
        measured, allowed = f"{100 * interval.value:.2f} % of the answers", f"{limit} %"
    else:
        measured, allowed = f"worse by {100 * interval.value:.2f} points", f"{limit} points"
    if not whole and interval.value < 0:
        interval = _negative(interval)
        measured = f"better by {100 * interval.value:.2f} points"
        allowed = f"worse by {allowed}"
    ends = f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"
    return f"{measured} {ends}, {interval.speaks_of}; allowed: {allowed}"
