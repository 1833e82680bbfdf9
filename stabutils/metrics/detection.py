"""Does a score point at the unstable queries?

A proxy of one run is always judged against runs it did not come from. Two targets: AUROC asks
whether it finds the queries on which at least a tenth of the other runs leave the majority's answer
(so that single votes do not decide), rank correlation whether it orders queries as their label
entropy over the other runs does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from stabutils.errors import InputError
from stabutils.metrics.intervals import (
    Interval,
    from_variance,
    jackknife,
    moves_of,
    over_examples,
    runs_and_queries,
)
from stabutils.metrics.measures import checkpoint_entropy, label_entropy, majority

UNSTABLE = 0.1  # share of runs that leave the majority's answer


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive query scores higher than another, ties counting half.

    0 .. 1, 0.5 is blind. Raises InputError unless there are both kinds of query.

    Examples
    --------
    >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    positive = np.asarray(positive, bool)
    count = int(positive.sum())
    if not 0 < count < positive.size:
        allowed = f"at least 1 and fewer than {positive.size}"
        raise InputError("positive examples", count, allowed)
    return float(_aurocs(np.asarray(score)[None], positive[None])[0])


def _aurocs(scores: ndarray, positive: ndarray) -> ndarray:
    """AUROC of each row, 0.5 where a row has one kind of query only: (rows,).

    The Mann-Whitney form, on the ranks of a whole block at once.
    """
    from scipy.stats import rankdata  # takes half a second to import

    ranks = rankdata(scores, axis=1)
    hits = positive.sum(axis=1)
    pairs = hits * (positive.shape[1] - hits)
    wins = np.sum(ranks * positive, axis=1) - hits * (hits + 1) / 2
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), 0.5)


def rank_correlation(score: ArrayLike, target: ArrayLike) -> float:
    """Spearman's, -1 .. 1; 0 where the score, or the target, is the same everywhere, nan where one
    of them is.

    Examples
    --------
    >>> rank_correlation([1, 2, 3], [0.1, 0.2, 0.9]), rank_correlation([1, 1, 1], [0.1, 0.2, 0.9])
    (1.0, 0.0)
    """
    return float(_rank_correlations(np.asarray(score)[None], np.asarray(target)[None])[0])


def _rank_correlations(scores: ndarray, targets: ndarray) -> ndarray:
    """Of each row: (rows,)."""
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (scores, targets)]
    one, other = (part - part.mean(axis=1, keepdims=True) for part in ranks)
    norm = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(norm == 0, 0.0, np.sum(one * other, axis=1) / np.maximum(norm, 1e-300))


def minority_share(labels: ndarray) -> ndarray:
    """Share of the runs that leave a query's majority answer: (queries,), 0 .. 1.

    Examples
    --------
    >>> minority_share([[0, 1], [0, 1], [0, 2]]).round(3).tolist()
    [0.0, 0.333]
    """
    return 1 - majority(labels)[1] / len(labels)


@dataclass(frozen=True)
class Criterion:
    """How well scores agree with what other runs do.

    target: of labels (runs, queries), one number a query. agreement: of scores and targets (rows,
    queries), one number a row. bounds: of that number.
    """

    name: str
    target: Callable[[ndarray], ndarray]
    agreement: Callable[[ndarray, ndarray], ndarray]
    bounds: tuple[float, float]


FINDS = Criterion(
    "AUROC",
    minority_share,
    lambda scores, shares: _aurocs(scores, shares >= UNSTABLE - 1e-12),
    (0, 1),
)
ORDERS = Criterion("rank correlation", label_entropy, _rank_correlations, (-1, 1))


def judge(
    proxies: Mapping[str, ArrayLike], labels: ArrayLike, criterion: Criterion = FINDS
) -> dict[str, Interval]:
    """How well each run's score agrees with what the *other* runs do, mean over the scored runs.

    Parameters
    ----------
    proxies : name -> scores (scored, queries), of all runs or of the first of them (at least 3), so
        that many runs judge what is costly to measure
    labels : (runs, queries)

    Returns
    -------
    Over runs and queries, conservative. Empty where there is nothing to judge by: fewer than 4
    runs, or runs of which some leave no query, or every query, unstable.
    """
    labels = np.asarray(labels)
    if len(labels) < 4:
        return {}
    for scores in proxies.values():
        _check_scores(np.asarray(scores), labels)
    if not judgeable(labels):
        return {}
    targets = _targets(labels, criterion)
    return {
        name: _agreement(np.asarray(scores), targets, criterion) for name, scores in proxies.items()
    }


def _targets(labels: ndarray, criterion: Criterion) -> dict[tuple[int, int], ndarray]:
    """The target of other runs, by the two runs that are left out (one run: twice the same)."""
    runs, targets = range(len(labels)), {}
    for own in runs:
        for other in range(own + 1):
            rest = np.delete(labels, [own, other], axis=0)
            targets[own, other] = targets[other, own] = criterion.target(rest)
    return targets


def _agreement(
    scores: ndarray, targets: Mapping[tuple[int, int], ndarray], criterion: Criterion
) -> Interval:
    scored, runs = range(len(scores)), max(own for own, _ in targets) + 1

    def mean(rows: ndarray, own_targets: ndarray) -> float:
        return float(criterion.agreement(rows, own_targets).mean())

    every = np.stack([targets[own, own] for own in scored])
    deleted = []
    for left_out in range(runs):
        rest = [own for own in scored if own != left_out]
        own_targets = np.stack([targets[own, left_out] for own in rest])
        deleted.append(mean(scores[rest], own_targets))
    value = mean(scores, every)
    over_runs = _over_runs(value, deleted, len(scores), runs)
    over_queries = over_examples(mean, scores, every)
    return runs_and_queries(over_runs, over_queries).within(*criterion.bounds)


def _over_runs(value: float, deleted: Sequence[float], scored: int, runs: int) -> Interval:
    """From values without each run: scored runs are also judged, the others only judge."""
    variance = np.sum(moves_of(deleted[:scored]) ** 2)
    if scored < runs:
        variance += np.sum(moves_of(deleted[scored:]) ** 2)
    return from_variance(value, variance, scored - 1, scored)


def _check_scores(scores: ndarray, labels: ndarray) -> None:
    fits = scores.ndim == labels.ndim == 2 and scores.shape[1] == labels.shape[1]
    if not fits or len(scores) > len(labels) or len(scores) < 3:
        allowed = f"(runs, examples) of at least 3 of the runs whose labels are {labels.shape}"
        raise InputError("scores", scores.shape, allowed)


def board(proxies: Mapping[str, ArrayLike], labels: ArrayLike) -> dict[str, dict[str, Interval]]:
    """AUROC and rank correlation of every score (see `judge`), the best first.

    Among the strengths of one proxy choose on one corpus and read the result on another: the best
    of several is flattered where it was chosen. `reference` is what to hold it against.
    """
    columns = {each.name: judge(proxies, labels, each) for each in (FINDS, ORDERS)}
    order = sorted(columns[FINDS.name], key=lambda name: -columns[FINDS.name][name].value)
    return {name: {what: column[name] for what, column in columns.items()} for name in order}


def judgeable(labels: ArrayLike) -> bool:
    """Whether, without any two runs, there are both stable and unstable queries by FINDS."""
    labels = np.asarray(labels)
    if len(labels) < 4:
        return False
    shares = list(_targets(labels, FINDS).values())
    unstable = [np.mean(share >= UNSTABLE - 1e-12) for share in shares]
    return bool(0 < min(unstable) and max(unstable) < 1)


def through_training(
    checkpoints: ndarray, labels: ndarray
) -> tuple[dict[str, list[Interval]], ndarray]:
    """How soon single-run label entropy knows: `judge` from the first 2, 3, ... checkpoints.

    Parameters
    ----------
    checkpoints : (runs, checkpoints, queries)
    labels : (runs, queries)

    Returns
    -------
    The intervals under the proxy's name, and the share of the training done at each.
    """
    count, name = checkpoints.shape[1], "label entropy over the checkpoints so far"
    entropies = {t: checkpoint_entropy(checkpoints[:, :t]) for t in range(2, count + 1)}
    judged = judge({str(t): entropy for t, entropy in entropies.items()}, labels)
    return {name: list(judged.values())}, np.arange(2, count + 1) / count


def references(labels: ArrayLike) -> dict[str, Interval]:
    """`reference` by each criterion of a `board`."""
    return {each.name: reference(labels, each) for each in (FINDS, ORDERS)}


def reference(
    labels: ArrayLike, criterion: Criterion = FINDS, halvings: int = 20, seed: int = 0
) -> Interval:
    """How well one half of the runs agrees with the other half by the same criterion.

    A reference for proxies, no ceiling: a finely graded score of one run can beat the few distinct
    values that a handful of votes gives.

    Parameters
    ----------
    labels : (runs, queries), at least 4 runs; below 6, where a half could not spare a run, the
        interval is over queries alone
    halvings : random halvings, which stay as they are when a run is left out
    """
    labels, rng = np.asarray(labels), np.random.default_rng(seed)
    if len(labels) < 4:
        raise InputError("runs", len(labels), "at least 4: two halves of two runs each")
    sides = np.stack([rng.permutation(len(labels)) % 2 for _ in range(halvings)], axis=1)

    def mean(labels: ndarray, sides: ndarray) -> float:
        one = np.stack([criterion.target(labels[side == 0]) for side in sides.T])
        other = np.stack([criterion.target(labels[side == 1]) for side in sides.T])
        return float(criterion.agreement(one, other).mean())

    over_queries = over_examples(lambda rows: mean(rows, sides), labels)
    if len(labels) < 6:
        return over_queries.within(*criterion.bounds)
    over_runs = jackknife(mean, labels, sides)
    return runs_and_queries(over_runs, over_queries).within(*criterion.bounds)


def mean_auroc(scores: ArrayLike, positive: ArrayLike) -> Interval:
    """AUROC of the mean score of several runs, over runs: scores (runs, examples), positive
    bool.
    """
    interval = jackknife(lambda each: auroc(each.mean(axis=0), positive), np.asarray(scores))
    return interval.within(0, 1)


def planted_auroc(
    labels: ArrayLike,
    tags: Sequence[str],
    region: str,
    score: Callable[[ArrayLike], ndarray] = label_entropy,
) -> float:
    """Does multi-run label entropy find a planted region? Its queries against the clear ones.

    Parameters
    ----------
    labels : (runs, queries)
    tags : (queries,) of the embedded corpus
    region : such as "noise:strong"
    score : of labels, another number for each query

    Returns
    -------
    AUROC, 0 .. 1.
    """
    marks = np.asarray(tags)
    kept = (marks == region) | (marks == "clear")
    return auroc(score(labels)[kept], marks[kept] == region)


def planted(
    labels: ArrayLike,
    tags: Sequence[str],
    score: Callable[[ArrayLike], ndarray] = label_entropy,
) -> dict[str, Interval]:
    """`planted_auroc` of every region that the tags name, strong ones first, over runs."""
    order = ("strong", "medium", "weak")
    named = {tag for tag in tags if ":" in tag}
    found = {}
    for region in sorted(named, key=lambda tag: (order.index(tag.split(":")[1]), tag)):
        find = partial(planted_auroc, region=region, score=score)
        found[region] = jackknife(find, labels, examples=(np.asarray(tags),)).within(0, 1)
    return found
