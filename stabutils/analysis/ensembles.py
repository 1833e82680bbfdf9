"""Ensembles: of independent retrainings, which every other method is measured against, and out of a single training.

A *replica* is one ensemble of several runs; the replicas of one partition of a pool of runs share no member, and so
differ as two retrainings do. What they buy is measured in `frontier`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    GUARD,
    Interval,
    delete_a_group,
    divisions,
    over_examples,
    verdict,
)
from stabutils.metrics.mixtures import mix
from stabutils.metrics.votes import HOW, cast, combine, partition, vote
from stabutils.study.runs import Runs, summarise


def ensemble(runs: Runs, size: int, how: str = "probability", seed: int = 0) -> Runs:
    """The replicas of one random partition as Runs, a replica each, to be scored, put on a board or published.

    Members stand where a single run has checkpoints: checkpoint_entropy, confidence_mean and confidence_spread are over
    the members. A replica's seed is its first member's; cpu_seconds is the sum. Runs without probabilities (published
    answers of other arms than control) can vote only (nll and ece are nan then), anything else raises InputError. Of
    what was kept only "out_of_scope" is put together. Validation labels are a plain vote where their probabilities are
    missing.
    """
    check(runs, how)
    groups = partition(len(runs), size, seed)
    extras = {}
    if "out_of_scope" in runs.extras:
        beside = runs.extras["out_of_scope"]
        extras["out_of_scope"] = np.stack([combine(beside[members], how) for members in groups])
    answers = [_replica(runs, members, how) for members in groups]
    arm = f"Ensemble(size={size}, how={how})"
    return Runs(
        arm=arm,
        names=tuple(
            f"{arm} of seeds {' '.join(map(str, runs.seeds[members]))}" for members in groups
        ),
        seeds=runs.seeds[groups[:, 0]],
        gold=runs.gold,
        extras=extras,
        **{name: np.stack([entry[name] for entry in answers]) for name in answers[0]},
    )


def check(runs: Runs, how: str) -> None:
    if how not in HOW:
        raise InputError("how", how, f"one of {', '.join(HOW)}")
    if runs.probabilities is None and how != "vote":
        raise InputError(
            "how",
            how,
            "vote: these published runs have labels and no probabilities "
            "(Study(published=False) trains them here)",
        )


def _replica(runs: Runs, members: np.ndarray, how: str) -> dict[str, np.ndarray]:
    labels, gold = runs.labels[members], runs.gold
    seen = {"checkpoints": labels, "cpu_seconds": runs.cpu_seconds[members].sum()}
    if runs.probabilities is None:
        answer, right = vote(labels, runs.doubt[members]), labels == gold
        return seen | {
            "labels": answer,
            "validation_labels": vote(runs.validation_labels[members]),
            "accuracy": np.mean(answer == gold),
            "nll": np.nan,
            "ece": np.nan,
            "doubt": np.mean(labels != answer, axis=0),
            "checkpoint_entropy": metrics.label_entropy(labels),
            "confidence": right,
            "confidence_mean": right.mean(0),
            "confidence_spread": right.std(0),
        }
    test = combine(runs.probabilities[members], how)
    answers = seen | {
        "labels": test.argmax(-1),
        "probabilities": test,
        "validation_labels": vote(runs.validation_labels[members]),
        "confidence": runs.probabilities[members][:, np.arange(len(gold)), gold],
    }
    if runs.validation_probabilities is not None:  # published answers have none
        validation = combine(runs.validation_probabilities[members], how)
        answers |= {
            "validation_labels": validation.argmax(-1),
            "validation_probabilities": validation,
        }
    return answers | summarise(answers, gold)


# ---- an anchor, and the controls that keep it honest


@dataclass(frozen=True, eq=False)
class Mixture:
    """An anchor's probabilities (examples, classes) with its weight: maps a network's to what both
    say together.
    """

    anchor: np.ndarray
    weight: float
    kind: str = "geometric"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        return mix(probabilities, self.anchor, self.weight, self.kind)


def mixed(runs: Runs, test: Mixture, validation: Mixture | None = None, arm: str = "") -> Runs:
    """Runs that answer with an anchor, to be scored or put on a board.

    What they said in the course of their training is left out. validation: the anchor on the
    validation texts; without it validation labels stay the networks' own. Of an anchor for each
    run the probabilities are (runs, examples, classes). Raises InputError for runs without
    probabilities.
    """
    check(runs, "probability")
    answers = test(runs.probabilities).astype(np.float32)
    labels = answers.argmax(-1)
    changes = {}
    if validation is not None and runs.validation_probabilities is not None:
        held_out = validation(runs.validation_probabilities).astype(np.float32)
        changes = {
            "validation_labels": held_out.argmax(-1),
            "validation_probabilities": held_out,
        }
    return replace(
        runs,
        arm=arm or f"{runs.arm} with anchor, weight {test.weight:g}",
        labels=labels,
        probabilities=answers,
        accuracy=metrics.accuracy(labels, runs.gold),
        nll=metrics.nll(answers, runs.gold),
        ece=metrics.ece(answers, runs.gold),
        doubt=1 - answers.max(-1),
        checkpoint_entropy=None,
        confidence_mean=None,
        confidence_spread=None,
        checkpoints=None,
        confidence=None,
        extras={},
        **changes,
    )


def with_fixed_run(runs: Runs, weight: float, kind: str = "geometric") -> Runs:
    """All runs but the first, which stands beside every one of them as an anchor does.

    Any fixed voter reduces churn; this one is an artefact of a random training that the runs
    share, and the arm says so. For a service it is an option: keep the deployed model as a voter
    when it is updated, at two passes an answer.
    """
    first = Mixture(runs.probabilities[0], weight, kind)
    arm = f"{runs.arm} with a shared run, weight {weight:g}"
    return mixed(_rows(runs, np.arange(1, len(runs))), first, arm=arm)


def with_own_run(runs: Runs, weight: float = 0.5, kind: str = "geometric") -> Runs:
    """Pairs of runs that share no member, `weight` for the second: at a half an ensemble of two."""
    pairs = len(runs) // 2
    second = Mixture(runs.probabilities[pairs : 2 * pairs], weight, kind)
    arm = f"{runs.arm} with a run of its own, weight {weight:g}"
    return mixed(_rows(runs, np.arange(pairs)), second, arm=arm)


def _rows(runs: Runs, kept: np.ndarray) -> Runs:
    arrays = {name: given for name, given in vars(runs).items() if isinstance(given, np.ndarray)}
    changes = {name: array[kept] for name, array in arrays.items() if name != "gold"}
    return replace(runs, names=tuple(runs.names[row] for row in kept), extras={}, **changes)


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs as members: what ensembles of them answer on average over `partitions`, and single runs
    beside them.

    anchor: what stands beside every ensemble, but not beside the single runs.
    """

    runs: Runs
    how: str = "probability"
    partitions: int = 20
    found: dict = field(default_factory=dict, repr=False)
    anchor: Mixture | None = None

    def __post_init__(self):
        check(self.runs, self.how)
        if self.anchor is not None and self.how == "vote":
            raise InputError("how", self.how, "probability or logit, to be mixed with an anchor")

    @cached_property
    def split(self) -> np.ndarray:
        """Where ensembles need not answer as all runs do, bool (examples,)."""
        if self.anchor is not None:
            return np.ones(self.runs.labels.shape[1], bool)
        return (self.runs.labels != self.runs.labels[0]).any(axis=0)

    @cached_property
    def entries(self) -> np.ndarray | None:
        found = self.runs.probabilities
        return None if found is None else cast(found[:, self.split], self.how)

    def answers(self, groups: np.ndarray) -> np.ndarray:
        """Labels of replicas: positions (replicas, size) to (replicas, examples)."""
        labels = np.repeat(self.runs.labels[:1], len(groups), axis=0)
        if self.anchor is not None:
            members = (self.runs.probabilities[positions] for positions in groups)
            some = [self.anchor(combine(own, self.how)).argmax(-1) for own in members]
        elif self.entries is not None:
            some = np.stack(
                [self.entries[members].mean(axis=0).argmax(axis=-1) for members in groups]
            )
        else:
            some = vote(
                *(part[:, self.split][groups.T] for part in (self.runs.labels, self.runs.doubt))
            )
        labels[:, self.split] = some
        return labels

    def scores(self, kept: np.ndarray, size: int, n: int) -> np.ndarray:
        """By example: label entropy at n votes, disagreement and share of right answers, of ensembles of the runs kept
        and then of these runs themselves: (6, examples). n falls to the number of replicas where these are fewer."""
        n = min(n, len(kept) // size)
        if (key := (kept.tobytes(), size, n)) not in self.found:
            every = [
                self.answers(kept[partition(len(kept), size, seed)])
                for seed in range(self.partitions)
            ]
            self.found[key] = np.concatenate(
                [
                    np.mean([_by_example(labels, self.runs.gold, n) for labels in every], 0),
                    _by_example(self.runs.labels[kept], self.runs.gold, n),
                ]
            )
        return self.found[key]

    def measure(self, size: int, n: int = 5) -> dict[str, Interval]:
        """label_entropy (at n votes, or as many as there are replicas), churn and accuracy of ensembles of a size, and
        against single runs reduction, churn_reduction (shares) and accuracy_change.

        Leaves out groups of runs, as many groups as replicas. Two replicas: intervals over examples, as their note
        says. Raises InputError where the runs make fewer than two.
        """
        runs = len(self.runs)
        if not 2 <= size <= runs // 2:
            raise InputError(
                "size of an ensemble", size, f"an integer from 2 to {runs // 2}, half of the runs"
            )
        if runs // size > 2:
            return intervals_of(
                lambda kept: _numbers(self.scores(kept, size, n)), runs, runs // size
            )
        pair = [np.stack([row, row]) for row in self.scores(np.arange(runs), size, n)]
        return {
            name: over_examples(lambda *rows, name=name: _numbers(rows)[name], *pair)
            for name in _numbers(pair)
        }


def _by_example(labels, gold, n):
    return np.stack(
        [
            metrics.label_entropy(labels, n),
            metrics.disagreement(labels),
            (labels == gold).mean(axis=0),
        ]
    )


def _numbers(rows: Sequence[np.ndarray]) -> dict[str, float]:
    entropy, churn, right, entropy_before, churn_before, right_before = (
        float(np.mean(row)) for row in rows
    )
    less = {
        name: 1 - after / before if before else np.nan
        for name, after, before in (
            ("reduction", entropy, entropy_before),
            ("churn_reduction", churn, churn_before),
        )
    }
    return (
        {"label_entropy": entropy, "churn": churn, "accuracy": right}
        | less
        | {"accuracy_change": right - right_before}
    )


def intervals_of(
    statistic: Callable[[np.ndarray], dict[str, float]], runs: int, groups: int
) -> dict[str, Interval]:
    """Intervals of several numbers at once, by leaving out groups of runs; statistic(positions of the runs kept)."""
    found = cache(lambda kept: statistic(np.array(kept)))
    every, divided = np.arange(runs), divisions(np.zeros(runs), groups)
    return {
        name: delete_a_group(
            lambda kept, name=name: found(tuple(kept))[name], every, groups=divided
        )
        for name in found(tuple(every))
    }


def measured(pool: Pool, sizes: Sequence[int], n: int = 5) -> pd.DataFrame:
    """One row a size, as a board has them: arm, size, runs (replicas), n, what `Pool.measure` finds, guard, trainings,
    passes (of networks). Two replicas decide nothing."""
    name, runs = (
        {"probability": "ensemble", "logit": "logits", "vote": "vote"}[pool.how],
        len(pool.runs),
    )
    found = {size: pool.measure(size, n) for size in sizes}
    beside = "" if pool.anchor is None else f" with anchor, weight {pool.anchor.weight:g}"
    return pd.DataFrame(
        [
            {
                "arm": f"{name} of {size}{beside}",
                "size": size,
                "runs": runs // size,
                "n": min(n, runs // size),
                **own,
                "guard": _decided(own["accuracy_change"], verdict(own["accuracy_change"], -GUARD)),
                "trainings": float(size),
                "passes": float(size),
            }
            for size, own in found.items()
        ]
    )


def _decided(interval, verdict):
    """A verdict, unless the interval is over examples only."""
    return f"undecided at {interval.runs} runs" if interval.note else verdict


def only(
    runs: Runs, queries: np.ndarray | slice = slice(None), kept: np.ndarray | slice = slice(None)
) -> Runs:
    """The runs kept, as far as some test queries go, to be scored: what scores ask for, the rest is as it was."""
    found = None if runs.probabilities is None else runs.probabilities[kept][:, queries]
    return replace(
        runs,
        gold=runs.gold[queries],
        labels=runs.labels[kept][:, queries],
        seeds=runs.seeds[kept],
        doubt=runs.doubt[kept][:, queries],
        probabilities=found,
    )


def by_group(runs: Runs, groups: Mapping[str, np.ndarray], size: int, how: str) -> pd.DataFrame:
    """What ensembles of a size do in groups of queries, bool (examples,) each: one row a group that has any.

    queries (the group's name), number, churn of ensembles, share_left (of all churn that they leave), churn_reduction
    and accuracy_change against single runs. churn_reduction is None where single runs hardly flip, less than 1 %.
    """
    rows = []
    for name, where in groups.items():
        if where.any():
            some = only(runs, where)
            found = Pool(some, how).measure(size, 2)
            flips = metrics.churn(some.labels) > 0.01  # of next to nothing there is no share
            rows.append(
                {
                    "queries": name,
                    "number": int(where.sum()),
                    "churn": found["churn"],
                    "churn_reduction": found["churn_reduction"] if flips else None,
                    "accuracy_change": found["accuracy_change"],
                }
            )
    left = np.array([row["number"] * row["churn"].value for row in rows])
    table = pd.DataFrame(rows).astype({"churn_reduction": object})
    return table.assign(share_left=left / left.sum() if left.sum() else 0.0)


def sizes_of(text: str, runs: int) -> list[int]:
    """Sizes of ensembles from a text such as "2, 3, 5", ascending. Raises InputError for what is no size, or makes
    fewer than two replicas of the runs, and where none makes three."""
    words = [word.strip() for word in text.split(",")]
    sizes = sorted({int(word) for word in words if word.isascii() and word.isdigit()})
    if (
        not all(word.isascii() and word.isdigit() for word in words)
        or not 2 <= sizes[0] <= runs // 3
        or sizes[-1] > runs // 2
    ):
        raise InputError(
            "sizes",
            text,
            f"integers from 2 to {runs // 2}, half of the runs, one of at most {runs // 3}",
        )
    return sizes


def share(pool: Pool, arm: Runs | int, size: int, n: int = 5) -> Interval:
    """How much of the label entropy that ensembles of `size` take away an arm takes away: 1 is as much.

    arm: runs, or the size of other ensembles of the pool. The ratio is taken whole: a group of seeds is left out of
    every arm that used them, as many groups as there are replicas, of which it takes 3. Its runs are those of the
    smaller arm.
    """
    runs = pool.runs
    if len(runs) // size < 3:
        raise InputError(
            "size of an ensemble", size, f"an integer up to {len(runs) // 3}, a third of the runs"
        )
    seeds = runs.seeds if isinstance(arm, int) else np.union1d(runs.seeds, arm.seeds)

    def taken(kept):
        own = np.flatnonzero(np.isin(runs.seeds, kept))
        reference = _numbers(pool.scores(own, size, n))["reduction"]
        if isinstance(arm, int):
            return _numbers(pool.scores(own, arm, n))["reduction"] / reference
        votes = min(n, len(own) // size)
        before, after = (
            metrics.label_entropy(labels, votes).mean()
            for labels in (runs.labels[own], arm.labels[np.isin(arm.seeds, kept)])
        )
        return (1 - after / before) / reference

    others = 0 if isinstance(arm, int) else np.isin(seeds, arm.seeds)
    divided = divisions(2 * np.isin(seeds, runs.seeds) + others, len(runs) // size)
    least = len(runs) if isinstance(arm, int) else min(len(runs), len(arm))
    return replace(delete_a_group(taken, seeds, groups=divided), runs=least)
