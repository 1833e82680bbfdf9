"""Ensembles of independent retrainings: what every other method is measured against.

A *replica* is one ensemble of several runs. The replicas of one partition of a pool share no
member, so they differ as two retrainings of an ensemble do. What is said of ensembles is the mean
over many random partitions; its interval leaves out a whole group of runs at a time, and it is
compared with single runs of the same pool at the same number of votes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics import intervals, scores
from stabutils.metrics.intervals import Interval, divisions
from stabutils.metrics.mixtures import Mixture
from stabutils.metrics.votes import HOW, cast, combine, partition, vote
from stabutils.study.runs import Runs, of_answers, take

PARTITIONS = 20  # of a pool, at random, that ensembles are averaged over
NAMES = {"probability": "ensemble", "logit": "logits", "vote": "vote"}  # how -> name of an arm
# What ensembles, and then single runs, are scored by, query by query.
STATISTICS = {
    "label_entropy": lambda entropy, churn, right, *single: entropy,
    "churn": lambda entropy, churn, right, *single: churn,
    "accuracy": lambda entropy, churn, right, *single: right,
    "reduction": lambda entropy, churn, right, *single: 1 - entropy / single[0],
    "churn_reduction": lambda entropy, churn, right, *single: 1 - churn / single[1],
    "accuracy_change": lambda entropy, churn, right, *single: right - single[2],
}
BOUNDS = {
    "churn": (0, 1),
    "accuracy": (0, 1),
    "reduction": (-np.inf, 1),
    "churn_reduction": (-np.inf, 1),
    "accuracy_change": (-1, 1),
}


@dataclass(frozen=True, eq=False)
class Pool:
    """Runs as members: what ensembles of them answer, averaged over random partitions."""

    runs: Runs
    how: str = "probability"
    memory: dict = field(default_factory=dict, repr=False)  # rows that were computed already
    anchor: Mixture | None = None  # what stands beside every ensemble, but not beside single runs

    def __post_init__(self):
        check(self.runs, self.how)
        if self.anchor is not None and self.how != "probability":
            raise InputError("how", self.how, "probability, to be mixed with an anchor")

    @cached_property
    def contested(self) -> ndarray:
        """Where ensembles need not answer as all runs do, bool (queries,)."""
        votes = self.runs.labels
        if self.anchor is not None:  # where it agrees with all runs, so does any mixture
            votes = np.vstack([votes, self.anchor.anchor.argmax(-1)])
        return (votes != votes[0]).any(axis=0)

    @cached_property
    def entries(self) -> ndarray | None:
        probabilities = self.runs.probabilities
        return None if probabilities is None else cast(probabilities[:, self.contested], self.how)

    def answers(self, groups: ndarray) -> ndarray:
        """Labels of replicas: positions (replicas, size) to (replicas, queries)."""
        contested, labels = self.contested, np.repeat(self.runs.labels[:1], len(groups), axis=0)
        if self.entries is None:
            members = self.runs.labels[:, contested][groups.T]
            labels[:, contested] = vote(members, self.runs.doubt[:, contested][groups.T])
            return labels
        means = np.stack([self.entries[members].mean(axis=0) for members in groups])
        if self.anchor is not None:
            means = replace(self.anchor, anchor=self.anchor.anchor[contested])(means)
        labels[:, contested] = means.argmax(axis=-1)
        return labels

    def rows(self, kept: ndarray, size: int, n: int) -> ndarray:
        """Label entropy, churn and accuracy of ensembles of the runs kept, then of these runs
        themselves: (6, queries).

        n falls to the number of replicas where these are fewer.
        """
        n = min(n, len(kept) // size)
        key = kept.tobytes(), size, n
        if key not in self.memory:
            partitions = [partition(len(kept), size, seed) for seed in range(PARTITIONS)]
            replicas = [self.answers(kept[groups]) for groups in partitions]
            of_ensembles = np.mean([self._parts(labels, n) for labels in replicas], axis=0)
            single = self._parts(self.runs.labels[kept], n)
            self.memory[key] = np.concatenate([of_ensembles, single])
        return self.memory[key]

    def _parts(self, labels: ndarray, n: int) -> ndarray:
        entropy, churn = metrics.label_entropy(labels, n), metrics.disagreement(labels)
        return np.stack([entropy, churn, (labels == self.runs.gold).mean(axis=0)])

    def measure(self, size: int, n: int = 5) -> dict[str, Interval]:
        """What ensembles of a size do, by STATISTICS.

        Against single runs: `reduction` and `churn_reduction` (shares) and `accuracy_change`; label
        entropy at n votes, or as many as there are replicas. Leaves out groups of runs, as many
        groups as replicas. Two replicas: intervals over queries alone, as their note says.

        Raises InputError where the runs make fewer than two replicas.
        """
        runs = len(self.runs)
        if not 2 <= size <= runs // 2:
            allowed = f"an integer from 2 to {runs // 2}, half of the runs"
            raise InputError("size of an ensemble", size, allowed)
        replicas = runs // size
        bounds = BOUNDS | {"label_entropy": (0, np.log(min(n, replicas)))}
        rows, deleted = self.rows(np.arange(runs), size, n), []
        if replicas > 2:
            rows_of = partial(self.rows, size=size, n=n)
            deleted = _deletions(rows_of, np.arange(runs), np.zeros(runs), replicas)
        measured = {}
        for name, function in STATISTICS.items():
            if deleted:
                interval = scores.of_pool(function, rows, deleted, runs)
            else:
                interval = intervals.over_queries(function, *rows, runs=2)
            measured[name] = interval.within(*bounds[name])
        return measured


def table(pool: Pool, sizes: Sequence[int], n: int = 5, passes: float = 0.0) -> pd.DataFrame:
    """One row a size, as a board has them.

    passes : of an answer beside those of the members, such as one of a frozen encoder
    Columns: arm, size, runs (replicas), behind, n, what `Pool.measure` finds, trainings, passes.
    """
    rows, runs = [], len(pool.runs)
    beside = "" if pool.anchor is None else f" with anchor, weight {pool.anchor.weight:g}"
    for size in sizes:
        replicas = runs // size
        rows.append(
            {
                "arm": f"{NAMES[pool.how]} of {size}{beside}",
                "size": size,
                "runs": replicas,
                "behind": f"{replicas} ensembles of {runs} runs",
                "n": min(n, replicas),
                **pool.measure(size, n),
                "trainings": float(size),
                "passes": size + passes,
            }
        )
    return pd.DataFrame(rows)


def independent(
    labels: ndarray, sizes: Collection[int], n: int, seed: int, deals: int = 20
) -> dict[int, float]:
    """Label entropy (nats) that counting alone leaves: of votes that follow each query's odds.

    The answers to each query are dealt anew among the runs, labels (runs, queries); then disjoint
    ensembles of each size vote, a coin deciding ties. Size 1 is the runs' own entropy. Of runs that
    flip together it is the same, as label entropy is a mean over queries. n : votes that it is
    quoted at, at most the ensembles of the largest size. Means over deals.
    """
    draw, found = np.random.default_rng(seed), {size: 0.0 for size in sorted(sizes)}
    for _ in range(deals):
        dealt = draw.permuted(labels, axis=0)
        for size in found:
            members = dealt[: len(dealt) // size * size].reshape(size, -1, dealt.shape[1])
            found[size] += float(metrics.label_entropy(vote(members), n).mean()) / deals
    return found


def by_group(runs: Runs, groups: Mapping[str, ndarray], size: int, how: str) -> pd.DataFrame:
    """What ensembles of a size do in groups of queries, bool (queries,) each.

    Returns
    -------
    One row a group that has any queries: queries (its name), number, churn of ensembles, share_left
    (of all churn that they leave), churn_reduction and accuracy_change against single runs;
    churn_reduction is None where single runs hardly flip, less than 1 %. No row where the runs do
    not make two ensembles.
    """
    rows = []
    for name, where in groups.items():
        if where.any() and len(runs) >= 2 * size:
            some = only(runs, where)
            measured = Pool(some, how).measure(size, 2)
            hardly = metrics.churn(some.labels) <= 0.01  # of next to nothing there is no share
            rows.append(
                {
                    "queries": name,
                    "number": int(where.sum()),
                    "churn": measured["churn"],
                    "churn_reduction": None if hardly else measured["churn_reduction"],
                    "accuracy_change": measured["accuracy_change"],
                }
            )
    columns = ["queries", "number", "churn", "churn_reduction", "accuracy_change"]
    frame = pd.DataFrame(rows, columns=columns).astype({"churn_reduction": object})
    left = frame.number * [churn.value for churn in frame.churn]
    return frame.assign(share_left=left / left.sum() if left.sum() else 0.0)


def by_agreement(runs: Runs, judging: ndarray, scored: ndarray) -> tuple[dict[str, ndarray], Runs]:
    """Groups of queries by how many of some runs give the most frequent answer, and the other runs.

    judging, scored : positions of runs, so that the groups owe nothing to the runs that are scored.
    """
    agree = metrics.majority(runs.labels[judging])[1] / len(judging)
    groups = {
        "all or nearly all agree": agree >= 0.9,
        "two of three": (2 / 3 <= agree) & (agree < 0.9),
        "fewer": agree < 2 / 3,
    }
    return groups, take(runs, scored)


def only(runs: Runs, queries: ndarray) -> Runs:
    """Runs on some of the test queries: what scores ask for, the rest is as it was."""
    probabilities = runs.probabilities
    if probabilities is not None:
        probabilities = probabilities[:, queries]
    return replace(
        runs,
        gold=runs.gold[queries],
        labels=runs.labels[:, queries],
        doubt=runs.doubt[:, queries],
        probabilities=probabilities,
    )


def sizes_of(text: str, runs: int) -> list[int]:
    """Sizes of ensembles from a text such as "2, 3, 5", ascending.

    Raises InputError for what is no size, or makes fewer than two replicas of the runs, and where
    none makes three.
    """
    words = [word.strip() for word in text.split(",")]
    numbers = [word.isascii() and word.isdigit() for word in words]
    sizes = sorted({int(word) for word in words}) if all(numbers) else [0]
    if not 2 <= sizes[0] <= runs // 3 or sizes[-1] > runs // 2:
        allowed = f"integers from 2 to {runs // 2}, half of the runs, one of at most {runs // 3}"
        raise InputError("sizes", text, allowed)
    return sizes


def reference(sizes: Sequence[int], runs: int) -> int:
    """The size that single models are held against: the largest of which there are five replicas,
    or three if it is ten, the size of the published comparisons; else the smallest.

    >>> reference([2, 5, 10], runs=30), reference([2, 5, 10], runs=25), reference([3, 5], runs=12)
    (10, 5, 3)
    """
    enough = [size for size in sizes if runs // size >= (3 if size == 10 else 5)]
    return max(enough, default=min(sizes))


def share(pool: Pool, arm: Runs, size: int, n: int = 5) -> Interval:
    """How much of the label entropy that ensembles of `size` save an arm saves: 1 is as much.

    Parameters
    ----------
    size : of the ensembles that the arm is compared with; the pool must make 3 of them

    Returns
    -------
    The ratio is taken whole: a group of seeds is left out of every arm that used them, as many
    groups as there are replicas. `runs` are those of the smaller arm.
    """

    def entropies(labels: ndarray, kept: ndarray) -> ndarray:
        """Label entropy of the arm, of single runs beside it, and of both for the ensembles."""
        votes = min(n, len(kept) // size)
        arms = labels, pool.runs.labels[kept]
        entropy = [metrics.label_entropy(some, votes) for some in arms]
        return np.concatenate([entropy, pool.rows(kept, size, n)[[0, 3]]])

    def ratio(entropy, single, of_ensembles, of_their_runs):
        return (1 - entropy / single) / (1 - of_ensembles / of_their_runs)

    return _beside(pool, arm, size, entropies, ratio)


def lead(pool: Pool, arm: Runs, size: int) -> Interval:
    """Accuracy of an arm less that of ensembles of `size`: a share, above 0 where the arm is
    better.

    Arguments and interval as of `share`.
    """

    def accuracies(labels: ndarray, kept: ndarray) -> ndarray:
        right = (labels == arm.gold).mean(axis=0)
        return np.stack([right, pool.rows(kept, size, 5)[2]])

    return _beside(pool, arm, size, accuracies, lambda own, ensembles: own - ensembles)


def _beside(pool: Pool, arm: Runs, size: int, rows: Callable, function: Callable) -> Interval:
    """Interval of a function of an arm and of ensembles; a seed is left out of both.

    rows : from the arm's labels and the positions in the pool that are kept to (numbers, queries)
    """
    runs = pool.runs
    replicas = len(runs) // size
    if replicas < 3:
        allowed = f"an integer up to {len(runs) // 3}, a third of the runs"
        raise InputError("size of an ensemble", size, allowed)
    seeds = np.union1d(runs.seeds, arm.seeds)
    kinds = 2 * np.isin(seeds, runs.seeds) + np.isin(seeds, arm.seeds)

    def rows_of(kept: ndarray) -> ndarray:
        own = np.flatnonzero(np.isin(runs.seeds, kept))
        return rows(arm.labels[np.isin(arm.seeds, kept)], own)

    deleted = _deletions(rows_of, seeds, kinds, replicas)
    return scores.of_pool(function, rows_of(seeds), deleted, min(len(runs), len(arm)))


def _deletions(rows: Callable, units: ndarray, kinds: ndarray, groups: int) -> list[ndarray]:
    """The rows without each group of units, by kinds as `divisions`, as `scores.of_pool` asks."""
    deleted = []
    for division in divisions(kinds, groups):
        rest = [units[division != group] for group in range(groups)]
        deleted.append(np.stack([rows(kept) for kept in rest]))
    return deleted


# ---- replicas as runs


def ensemble(runs: Runs, size: int, how: str = "probability", seed: int = 0) -> Runs:
    """The replicas of one random partition as Runs, to be scored or put on a board.

    A replica's seed is its first member's. Runs without probabilities can only vote (nll and ece
    are nan then), anything else raises InputError.
    """
    check(runs, how)
    groups = partition(len(runs), size, seed)
    arm, seeds = f"Ensemble(size={size}, how={how})", runs.seeds[groups[:, 0]]
    if runs.probabilities is None:
        members = runs.labels[groups.T]
        labels = vote(members, runs.doubt[groups.T])
        doubt = np.mean(members != labels, axis=0)
        return replace(of_answers(arm, labels, runs.gold, seeds), doubt=doubt)
    answers = np.stack([combine(runs.probabilities[members], how) for members in groups])
    return of_answers(arm, answers.argmax(-1), runs.gold, seeds, answers)


def check(runs: Runs, how: str) -> None:
    """Refuse a way to combine that does not exist, or that these runs do not allow."""
    if how not in HOW:
        raise InputError("how", how, f"one of {', '.join(HOW)}")
    if how != "vote":
        probabilities_of(runs, how)


def probabilities_of(runs: Runs, how: str = "probability") -> ndarray:
    """The probabilities of runs. Raises InputError for published runs without them."""
    if runs.probabilities is None:
        allowed = (
            "vote: these published runs have labels and no probabilities "
            "(Study(published=False) trains them here)"
        )
        raise InputError("how", how, allowed)
    return runs.probabilities
