"""Does a score point at the unstable examples? Single-run proxies against other runs, entropy against planted regions.

A proxy is always judged against runs it did not come from, and next to its ceiling: what the entropy of one half of
those runs says about the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, jackknife, jackknife_arms, over_examples
from stabutils.metrics.measures import checkpoint_entropy, label_entropy


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive example scores higher than another one, ties counting half: 0 .. 1, 0.5 is blind.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75

    Mann-Whitney form of the area under the ROC curve. Raises InputError unless there are both kinds of example.
    """
    positive = np.asarray(positive, bool)
    hits = int(positive.sum())
    if not 0 < hits < positive.size:
        raise InputError("positive examples", hits, f"at least 1 and fewer than {positive.size}")
    ranks = rankdata(score)[positive]
    return float((ranks.sum() - hits * (hits + 1) / 2) / (hits * (positive.size - hits)))


def finds(score: np.ndarray, entropy: np.ndarray) -> float:
    """How well a score finds the examples of any entropy at all: AUROC, 0 .. 1, 0.5 is blind; 0.5 too where there is
    nothing to find, as no example has any, or all have."""
    unstable = np.asarray(entropy) > 0
    return auroc(score, unstable) if 0 < unstable.sum() < unstable.size else 0.5


def rank_correlation(score: np.ndarray, entropy: np.ndarray) -> float:
    """Spearman's, -1 .. 1; 0 where the score, or the entropy, is the same everywhere.

    >>> rank_correlation([1, 2, 3], [0.1, 0.2, 0.9]), rank_correlation([1, 1, 1], [0.1, 0.2, 0.9])
    (1.0, 0.0)
    """
    ranks = np.stack([rankdata(values) for values in (score, entropy)])
    ranks -= ranks.mean(1, keepdims=True)
    norm = np.sqrt((ranks**2).sum(1).prod())
    return float(ranks[0] @ ranks[1] / norm) if norm else 0.0


Agreement = Callable[[np.ndarray, np.ndarray], float]  # of a score and an entropy, both (examples,)


def proxy_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """How well one training's score finds what the *other* trainings disagree on: mean AUROC over the runs.

    labels (runs, examples); scores (scored, examples) of all of these runs or of the first of them. Run r's scores are
    held against the label entropy of all other runs, an example counting as unstable where they do not all agree.
    0 .. 1, 0.5 is blind.

    >>> proxy_auroc([[0, 1], [0, 1], [0, 1]], [[5, 1], [5, 2], [5, 3]])
    1.0
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    _fit(scores, labels)
    return float(
        np.mean(
            [finds(s, label_entropy(np.delete(labels, r, axis=0))) for r, s in enumerate(scores)]
        )
    )


def _fit(scores: np.ndarray, labels: np.ndarray) -> None:
    fits = (
        scores.ndim == labels.ndim == 2
        and scores.shape[1] == labels.shape[1]
        and len(scores) <= len(labels)
    )
    if not fits or len(labels) < 3:
        raise InputError(
            "scores",
            scores.shape,
            f"(runs, examples) of runs whose labels are given, of at least 3 runs, {labels.shape}",
        )


def judge(
    proxies: Mapping[str, np.ndarray], labels: np.ndarray, agreement: Agreement = finds
) -> dict[str, Interval]:
    """`proxy_auroc` of every score (or the mean of another `agreement`) with its interval over the runs.

    The scored runs may be the first few only (at least 3), so that many runs judge what is costly to measure.
    Empty where there is nothing to judge by: fewer than 4 runs (one is left out, and the others must be able to
    disagree), or runs of which some leave no query, or every query, unstable.
    """
    if not judgeable(labels):
        return {}
    labels = np.asarray(labels)
    entropy = cache(
        lambda *runs: label_entropy(labels[list(runs)])
    )  # the proxies share their judges

    def mean(scored: tuple[np.ndarray, np.ndarray], runs: np.ndarray) -> float:
        return np.mean(
            [
                agreement(score, entropy(*runs[runs != own]))
                for score, own in zip(*scored, strict=True)
            ]
        )

    def interval(scores: np.ndarray) -> Interval:
        _fit(np.asarray(scores), labels)
        runs, own = np.arange(len(labels)), np.arange(len(scores))
        if len(own) == len(runs):
            return jackknife(lambda scores, runs: mean((scores, runs), runs), scores, runs)
        return jackknife_arms(mean, [(scores, own), runs], [own, runs])

    return {name: interval(scores) for name, scores in proxies.items()}


def board(proxies: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, dict[str, Interval]]:
    """AUROC and rank correlation of every score against the other runs' entropy (see `judge`), the best first.

    Among the strengths of one proxy choose on one corpus and read the result on another: the best of several is
    flattered where it was chosen. `ceiling` is what to hold it against.
    """
    columns = {
        "AUROC": judge(proxies, labels),
        "rank correlation": judge(proxies, labels, rank_correlation),
    }
    order = sorted(columns["AUROC"], key=lambda name: -columns["AUROC"][name].value)
    return {name: {what: column[name] for what, column in columns.items()} for name in order}


def judgeable(labels: np.ndarray) -> bool:
    """Whether any two runs can be taken away and the others still have both stable and unstable examples."""
    labels = np.asarray(labels)
    fewest = [
        np.any(rest != rest[0], axis=0).mean()
        for pair in combinations(range(len(labels)), 2)
        if len(rest := np.delete(labels, pair, axis=0)) > 1
    ]
    return bool(fewest) and 0 < min(fewest) and max(fewest) < 1


def through_training(
    checkpoints: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, list[Interval]], np.ndarray]:
    """How soon single-run label entropy knows: `proxy_auroc` from the first 2, 3, ... checkpoints.

    checkpoints (runs, checkpoints, examples), labels (runs, examples). Returns the intervals under the proxy's name,
    and the share of the training done at each.
    """
    count = checkpoints.shape[1]
    line = [
        jackknife(proxy_auroc, checkpoint_entropy(checkpoints[:, :t]), labels)
        for t in range(2, count + 1)
    ]
    return {"label entropy over the checkpoints so far": line}, np.arange(2, count + 1) / count


def ceiling(
    labels: np.ndarray, halvings: int = 20, seed: int = 0, agreement: Agreement = finds
) -> Interval:
    """How well the entropy of one half of the runs finds what the other half disagrees on: mean AUROC, 0 .. 1, or mean
    of another `agreement`.

    labels (runs, examples), at least 4 runs; below 6, where a half could not spare a run, the interval is over the
    examples. Halves are drawn `halvings` times, and stay as they are when a run is left out.
    """
    labels, draw = np.asarray(labels), np.random.default_rng(seed)
    if len(labels) < 4:
        raise InputError("runs", len(labels), "at least 4: two halves of two runs each")
    sides = np.stack([draw.permutation(len(labels)) % 2 for _ in range(halvings)], axis=1)

    def mean(labels: np.ndarray, sides: np.ndarray) -> float:
        halves = [[label_entropy(labels[side == one]) for one in (0, 1)] for side in sides.T]
        return float(np.mean([agreement(*pair) for pair in halves]))

    return (
        jackknife(mean, labels, sides)
        if len(labels) > 5
        else over_examples(lambda rows: mean(rows, sides), labels)
    )


def planted_auroc(labels: np.ndarray, tags: Sequence[str], region: str) -> float:
    """Does multi-run label entropy find a planted region? AUROC of the region's examples against the clear ones.

    labels (runs, examples); tags (examples,) of the embedded corpus; region such as "noise:strong". 0 .. 1.
    """
    tags = np.asarray(tags)
    kept = (tags == region) | (tags == "clear")
    return auroc(label_entropy(labels)[kept], tags[kept] == region)


def planted(labels: np.ndarray, tags: Sequence[str]) -> dict[str, Interval]:
    """`planted_auroc` with its interval over the runs for every region that the tags name, strong ones first."""
    order = ("strong", "medium", "weak", "absent")
    regions = sorted(
        {tag for tag in tags if ":" in tag}, key=lambda tag: (order.index(tag.split(":")[1]), tag)
    )
    tags = np.asarray(tags)
    return {
        region: jackknife(
            lambda votes, marks, region=region: planted_auroc(votes, marks, region),
            labels,
            examples=(tags,),
        )
        for region in regions
    }
