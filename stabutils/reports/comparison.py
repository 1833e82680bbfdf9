"""Two systems on the same examples: did a change make the answers more stable?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from stabutils.data.labels import plain
from stabutils.errors import InputError
from stabutils.metrics import scores
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    jackknife_arms,
    over_examples,
    runs_and_queries,
    together,
    verdict,
)
from stabutils.metrics.measures import churn_between
from stabutils.reports.codes import encode, same_code, shape_of
from stabutils.reports.reading import Predictions, read_predictions
from stabutils.reports.stability import add_columns, columns_of, shown, title


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems: scores before, after and their difference (after - before), and a verdict.

    verdict is on "after is more stable": its label entropy at an equal number of runs is lower, and
    its accuracy is not lower by more than half a point (guard; "cannot be tested here" without
    gold, and then left out). verdicts has one for each difference: that it lies below 0, for
    accuracy that it lies above the guard. between: the churn from one to the other.
    """

    before: dict[str, Interval]
    after: dict[str, Interval]
    difference: dict[str, Interval]
    between: dict[str, Interval]
    stability: str
    guard: str
    verdict: str
    layouts: tuple[str, ...] = ()  # of files: what was read as what, and what was left unused

    @property
    def verdicts(self) -> dict[str, str]:
        return {
            name: self.guard if name == "accuracy" else verdict(difference, 0.0, "below")
            for name, difference in self.difference.items()
        }

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
        guard = (
            "no gold labels, so accuracy is not guarded"
            if self.guard == "cannot be tested here"
            else f"accuracy not lower by more than {100 * GUARD:g} points: {self.guard}"
        )
        lines.append(
            f"After is more stable: {self.verdict} (lower label entropy: {self.stability}; {guard})"
        )
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


def compare(before, after, gold=None, seeds=None) -> Comparison:
    """Did a change make a system more stable?

    Parameters
    ----------
    before, after
        Labels (runs, examples) of two runs or more each, on the same examples; or two
        `Predictions`, or two `Runs` of a study, which bring gold and seeds along.
    gold
        (examples,), adds accuracy and the parts of churn.
    seeds
        (of before, of after): the seed of each run, where runs of both may share them; runs
        without common seeds are taken as independent. Runs of two files are a pair where they have
        one name.

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
    layouts = tuple(side.layout for side in (before, after) if isinstance(side, Predictions))
    of_study = hasattr(before, "seeds")  # Runs, whose labels are in the code of their corpus
    other = None
    if hasattr(before, "labels") and hasattr(after, "labels"):
        before, after, gold, other, seeds = _of_both(before, after)
    before, after, gold, names = _same_names(before, after, gold, other)
    if not of_study:
        _refuse_two_codes(before, after, gold, names)
    arms = [np.arange(len(before)), np.arange(len(after))]
    seeds = (arms[0], len(before) + arms[1]) if seeds is None else _seeds(seeds, arms)
    n = min(5, len(before), len(after))
    names = ["churn", f"label_entropy@{n}"] + ["right_to_wrong", "wrong_to_wrong", "accuracy"] * (
        gold is not None
    )
    old, new = (scores.scores(labels, gold, n) for labels in (before, after))
    difference = {
        name: scores.compare(lambda a, b: a - b, [new[name], old[name]], [seeds[1], seeds[0]])
        for name in names
    }
    stability = verdict(difference[names[1]], 0.0, "below")
    guard = verdict(difference.get("accuracy"), -GUARD)
    return Comparison(
        {name: score.interval() for name, score in old.items() if name in names},
        {name: score.interval() for name, score in new.items() if name in names},
        difference,
        _between(before, after, gold, seeds),
        stability,
        guard,
        together(stability, *([] if gold is None else [guard])),
        layouts,
    )


def _refuse_two_codes(before, after, gold, names) -> None:
    answers = [*before, *after]
    who = [f"run {i + 1} of before" for i in range(len(before))]
    who += [f"run {i + 1} of after" for i in range(len(after))]
    if gold is not None:
        answers.append(gold)
        who.append("gold")
    same_code(answers, names, who)


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
            allowed = "the same in both files, row by row, or a column that names the examples"
            raise InputError(f"{what} of example {example}{rows}", (old, new), allowed)


def _same_names(before, after, gold, other=None):
    """Both sets of runs, and gold, in one code; `other` is the gold labels of after."""
    sizes = [shape_of(before, "before"), shape_of(after, "after")]
    for thing, size in zip(("before", "after"), sizes, strict=True):
        if len(size) != 2 or size[0] < 2:
            raise InputError(f"shape of {thing}", size, "(runs, examples), at least 2 runs")
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


def _seeds(seeds, arms):
    seeds = tuple(map(np.atleast_1d, seeds if hasattr(seeds, "__len__") else (seeds,)))
    if [len(np.unique(own)) for own in seeds] != [len(arm) for arm in arms]:
        allowed = f"two lists of different seeds, {len(arms[0])} and {len(arms[1])} of them"
        raise InputError("seeds", [own.tolist() for own in seeds], allowed)
    return seeds


def _between(before, after, gold, seeds):
    """Churn from before to after over all cross pairs and the queries, and its parts with gold."""
    parts = ["churn"]
    known = np.zeros(before.shape[1], int) if gold is None else gold  # churn does not depend on it
    if gold is not None:
        parts += ["positive_flips", "negative_flips", "wrong_to_wrong"]
    found = {}
    for part in parts:

        def share(old, new, right, part=part):
            return churn_between(old, new, right)[part]

        over_runs = jackknife_arms(share, [before, after], seeds, examples=(known,))
        over_queries = over_examples(share, before, after, examples=(known,))
        found[part] = runs_and_queries(over_runs, over_queries).within(0, 1)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils compare`."""
    parser.add_argument("before", help=".csv, .parquet, .npy or .safetensors, of two runs or more")
    parser.add_argument("after", help="the same examples, answered after the change")
    add_columns(parser)


def command(arguments: argparse.Namespace) -> int:
    """Read both, print how they were read and the comparison; 0 whatever its verdict."""
    read = [
        read_predictions(path, columns_of(arguments))
        for path in (arguments.before, arguments.after)
    ]
    print(compare(*read))
    return 0
