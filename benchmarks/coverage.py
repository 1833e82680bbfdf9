"""Do the intervals cover the truth? `python benchmarks/coverage.py` fills the tables of docs/statistics.md.

Answers are simulated, so that the truth is known: queries are of unequal difficulty, and related ones
flip together in a run. Every repetition draws new runs *and* new queries. How many runs a reader needs
is worked out from published answers. Nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import factorial, prod
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from stabutils.analysis import ensembles
from stabutils.analysis.board import board
from stabutils.metrics import detection, intervals, scores
from stabutils.metrics.intervals import Interval
from stabutils.metrics.scores import Score
from stabutils.provenance import project_root
from stabutils.publishing.quotes import table
from stabutils.study.runs import Runs
from stabutils.training import files

RUNS = (3, 5, 10, 20, 50)
HARD = 0.25  # share of the queries that are hard
KINDS = ((HARD, 0.0, 1.2), (1 - HARD, 3.0, 0.7))  # share, mean and spread of how easy a query is
WRONG = (0.75, 0.25)  # how wrong answers divide over two labels
BETTER = 1.25  # by so much an arm's logits are larger than control's


# ---- the world


@dataclass(frozen=True)
class World:
    """Where answers come from.

    A run is right where `sharpness` x easiness + `together` x (the run's effect on the query's cluster)
    + noise is above 0.

    Attributes
    ----------
    queries, clusters : how many; clusters are the same for all test sets, queries are drawn anew
    together : how much the queries of a cluster move together in a run, in units of the noise
    """

    queries: int = 400
    clusters: int = 20
    together: float = 1.0

    def test_set(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """How easy each query is and its cluster: (queries,) and (queries,)."""
        hard = rng.random(self.queries) < HARD
        means, spreads = (np.where(hard, KINDS[0][part], KINDS[1][part]) for part in (1, 2))
        return rng.normal(means, spreads), rng.integers(0, self.clusters, self.queries)

    def causes(self, rng: np.random.Generator, runs: int) -> tuple[np.ndarray, ...]:
        """What the seeds of so many runs decide: effects on clusters, noise, which wrong label."""
        shape = (runs, self.queries)
        return (
            rng.normal(size=(runs, self.clusters)),
            rng.normal(size=shape),
            rng.normal(size=shape),
        )

    def labels(self, test_set, causes, sharpness: float = 1.0) -> np.ndarray:
        """Answers (runs, queries); 0 is right."""
        easiness, cluster = test_set
        logits = self.logits(test_set, causes, sharpness)
        wrong = np.where(causes[2] < stats.norm.ppf(WRONG[0]), 1, 2)
        return np.where(logits > 0, 0, wrong)

    def logits(self, test_set, causes, sharpness: float = 1.0) -> np.ndarray:
        easiness, cluster = test_set
        effects, noise, _ = causes
        return sharpness * easiness + self.together * effects[:, cluster] + noise

    def odds(self, easiness: np.ndarray, sharpness: float) -> np.ndarray:
        """Chance of each answer of a new run: (3, queries)."""
        spread = np.sqrt(1 + self.together**2)
        right = stats.norm.cdf(sharpness * easiness / spread)
        return np.stack([right, *((1 - right) * share for share in WRONG)])

    def truth(self, sharpness: float, votes: int, size: int = 1) -> dict[str, float]:
        """Churn, label entropy at so many votes, and accuracy over all runs and queries, exactly.

        size : of ensembles that vote, 1 for single runs
        """
        points, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()
        found = dict.fromkeys(("churn", "label entropy", "accuracy"), 0.0)
        for share, mean, spread in KINDS:
            odds = self.odds(mean + spread * points, sharpness)
            odds = odds if size == 1 else _odds_of_votes(odds, size)
            each = {
                "churn": 1 - np.sum(odds**2, axis=0),
                "label entropy": _expected_entropy(odds, votes),
                "accuracy": odds[0],
            }
            for name, values in each.items():
                found[name] += share * float(weights @ values)
        return found


def alike(one, other, share: float) -> tuple[np.ndarray, ...]:
    """Causes of equal seeds under another method: correlated with those of the first by `share`."""
    return tuple(
        np.sqrt(share) * mine + np.sqrt(1 - share) * fresh
        for mine, fresh in zip(one, other, strict=True)
    )


def _outcomes(votes: int, labels: int = 3) -> Iterator[tuple[np.ndarray, int]]:
    """Every way to divide votes over labels, and in how many orders it comes."""
    for counts in product(range(votes + 1), repeat=labels):
        if sum(counts) == votes:
            yield np.array(counts), factorial(votes) // prod(map(factorial, counts))


def _chance(odds: np.ndarray, counts: np.ndarray, orders: int) -> np.ndarray:
    return orders * np.prod(odds ** counts[:, None], axis=0)


def _expected_entropy(odds: np.ndarray, votes: int) -> np.ndarray:
    return sum(
        stats.entropy(counts) * _chance(odds, counts, orders) for counts, orders in _outcomes(votes)
    )


def _odds_of_votes(odds: np.ndarray, size: int) -> np.ndarray:
    """Chance of each answer of an ensemble of voters, a tie going to any of the first."""
    won = np.zeros_like(odds)
    for counts, orders in _outcomes(size):
        first = counts == counts.max()
        won += np.outer(first / first.sum(), _chance(odds, counts, orders))
    return won


# ---- coverage


Trial = Mapping[str, tuple[Interval, float]]  # name -> interval and truth


def scores_of(world: World, runs: int, rng: np.random.Generator) -> Trial:
    """One repetition: scores of an arm, and of a better one with equal and with other seeds."""
    votes = min(5, runs)
    test_set, gold = world.test_set(rng), np.zeros(world.queries, int)
    causes, others = world.causes(rng, runs), world.causes(rng, runs)

    def measured(causes, sharpness: float) -> dict[str, Score]:
        labels = world.labels(test_set, causes, sharpness)
        return {
            "churn": scores.churn(labels),
            "label entropy": scores.label_entropy(labels, votes),
            "accuracy": scores.accuracy(labels, gold),
        }

    control = measured(causes, 1.0)
    arms = {
        "other seeds": (measured(others, BETTER), None),
        "equal seeds": (measured(alike(causes, others, 0.8), BETTER), [np.arange(runs)] * 2),
    }
    old, new = (world.truth(sharpness, votes) for sharpness in (1.0, BETTER))
    found = {name: (score.interval(), old[name]) for name, score in control.items()}
    for kind, (arm, seeds) in arms.items():
        for name in control:
            interval = scores.compare(_difference, [arm[name], control[name]], seeds)
            found[f"change of {name}, {kind}"] = interval, new[name] - old[name]
        both = [arm["label entropy"], control["label entropy"]]
        truth = 1 - new["label entropy"] / old["label entropy"]
        found[f"reduction, {kind}"] = scores.compare(_reduction, both, seeds), truth
    return found


def _difference(new, old):
    return new - old


def _reduction(new, old):
    return 1 - new / old


def ensembles_of(world: World, runs: int, rng: np.random.Generator, size: int = 3) -> Trial:
    """One repetition: what ensembles of `size` runs that vote do."""
    labels = world.labels(world.test_set(rng), world.causes(rng, runs))
    votes = min(5, runs // size)
    single, voted = world.truth(1.0, votes), world.truth(1.0, votes, size)
    found = ensembles.Pool(runs_of(labels), "vote").measure(size, votes)
    truths = {
        "churn": voted["churn"],
        "reduction": 1 - voted["label entropy"] / single["label entropy"],
        "accuracy_change": voted["accuracy"] - single["accuracy"],
    }
    return {f"{name}, ensembles of {size}": (found[name], truths[name]) for name in truths}


def proxies_of(world: World, runs: int, rng: np.random.Generator) -> Trial:
    """One repetition: how well a run's distance from the threshold tells what other runs do.

    The truth is not known exactly: it is the mean of all repetitions (nan here).
    """
    test_set, causes = world.test_set(rng), world.causes(rng, runs)
    doubt = -np.abs(world.logits(test_set, causes))
    labels = world.labels(test_set, causes)
    found = {}
    for criterion in (detection.FINDS, detection.ORDERS):
        judged = detection.judge({"doubt": doubt}, labels, criterion)
        found[f"{criterion.name} of a proxy"] = judged["doubt"], np.nan
    return found


def coverage(
    trial: Callable[..., Trial], world: World, runs: int, repeats: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How often intervals cover, by statistic.

    Returns
    -------
    `both`: share of repetitions whose interval over runs and queries covers; `runs`: the same of the
    interval over runs alone; `variance`: mean of the squared standard errors over the variance that
    the values have, 1 if neither too wide nor too narrow.
    """
    rng = np.random.default_rng([seed, runs])
    trials = [trial(world, runs, rng) for _ in range(repeats)]
    found = {}
    for name in trials[0]:
        all_intervals = [each[name][0] for each in trials]
        truth = trials[0][name][1]
        values = np.array([interval.value for interval in all_intervals])
        truth = values.mean() if np.isnan(truth) else truth
        variances = [interval.se**2 for interval in all_intervals]
        found[name] = {
            "both": _covered(all_intervals, truth),
            "runs": _covered([interval.over_runs for interval in all_intervals], truth),
            "variance": float(np.mean(variances) / values.var(ddof=1)),
        }
    return found


def _covered(found: Iterable[Interval], truth: float) -> float:
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


# ---- boards of nothing


def null_board(world: World, runs: int, arms: int, rng: np.random.Generator) -> dict[str, bool]:
    """Whether a board of arms that all are control finds anything.

    `any p`: some adjusted p below 0.05; `any better`: some arm is called better; `one p`: the p of the
    first arm alone, as if nothing else had been tried.
    """
    test_set = world.test_set(rng)
    start = iter(range(arms + 1))

    def fresh() -> Runs:
        labels = world.labels(test_set, world.causes(rng, runs))
        return runs_of(labels, first=next(start) * runs)

    found = board(fresh(), {f"arm {number}": fresh() for number in range(arms)})
    methods = found[found.arm != "control"].set_index("arm")
    return {
        "any p": bool((methods.p < 0.05).any()),
        "any better": bool((methods.better == "holds").any()),
        "one p": bool(methods.reduction["arm 0"].p_value() < 0.05),
        "guard": bool(methods.guard["arm 0"] == "holds"),
    }


def null_boards(world: World, runs: int, arms: int, repeats: int, seed: int = 0):
    """Shares of `null_board` over repetitions."""
    rng = np.random.default_rng([seed, runs])
    found = [null_board(world, runs, arms, rng) for _ in range(repeats)]
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def runs_of(labels: np.ndarray, first: int = 0) -> Runs:
    """Simulated answers, of which 0 is right, as runs of a study."""
    runs, queries = labels.shape
    unknown = np.full(runs, np.nan)
    return Runs(
        arm="simulated",
        names=tuple(f"run {number}" for number in range(runs)),
        seeds=first + np.arange(runs),
        gold=np.zeros(queries, int),
        labels=labels,
        validation_labels=labels[:, :0],
        accuracy=np.mean(labels == 0, axis=1),
        nll=np.zeros(runs),
        ece=np.zeros(runs),
        cpu_seconds=unknown,
        doubt=np.zeros(labels.shape),
    )
