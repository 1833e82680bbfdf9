"""Does a score point at the unstable examples? Single-run proxies against other runs, entropy against planted regions.

A proxy is always judged against runs it did not come from, and next to its ceiling: what the entropy of one half of
those runs says about the other half.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import rankdata, spearmanr

from .errors import InputError
from .intervals import Interval, jackknife
from .metrics import checkpoint_entropy, label_entropy


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


def proxy_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """How well one training's score finds what the *other* trainings disagree on: mean AUROC over the runs.

    scores and labels (runs, examples): run r's scores are held against the label entropy of all other runs, an example
    counting as unstable where they do not all agree. 0 .. 1, 0.5 is blind.

    >>> proxy_auroc([[0, 1], [0, 1], [0, 1]], [[5, 1], [5, 2], [5, 3]])
    1.0
    """
    return float(np.mean([auroc(s, e > 0) for s, e in _against_others(scores, labels)]))


def proxy_correlation(scores: np.ndarray, labels: np.ndarray) -> float:
    """The same as a rank correlation (Spearman) with the other runs' label entropy, mean over the runs: -1 .. 1."""
    return float(np.mean([spearmanr(s, e).statistic for s, e in _against_others(scores, labels)]))


def _against_others(scores: np.ndarray, labels: np.ndarray):
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or scores.shape != labels.shape or len(labels) < 3:
        raise InputError("scores", scores.shape, f"(runs, examples) of at least 3 runs, like the labels {labels.shape}")
    for run, score in enumerate(scores):
        yield score, label_entropy(np.delete(labels, run, axis=0))


def judge(proxies: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Interval]:
    """`proxy_auroc` of every score with its interval over the runs.

    Empty where there is nothing to judge by: fewer than 4 runs (one is left out, and the others must be able to
    disagree), or runs of which some leave no query, or every query, unstable.
    """
    if not judgeable(labels):
        return {}
    return {name: jackknife(proxy_auroc, scores, labels) for name, scores in proxies.items()}


def judgeable(labels: np.ndarray) -> bool:
    """Whether any two runs can be taken away and the others still have both stable and unstable examples."""
    labels = np.asarray(labels)
    fewest = [np.any(rest != rest[0], axis=0).mean() for pair in combinations(range(len(labels)), 2)
              if len(rest := np.delete(labels, pair, axis=0)) > 1]
    return bool(fewest) and 0 < min(fewest) and max(fewest) < 1


def through_training(checkpoints: np.ndarray, labels: np.ndarray) -> tuple[dict[str, list[Interval]], np.ndarray]:
    """How soon single-run label entropy knows: `proxy_auroc` from the first 2, 3, ... checkpoints.

    checkpoints (runs, checkpoints, examples), labels (runs, examples). Returns the intervals under the proxy's name,
    and the share of the training done at each.
    """
    count = checkpoints.shape[1]
    line = [jackknife(proxy_auroc, checkpoint_entropy(checkpoints[:, :t]), labels) for t in range(2, count + 1)]
    return {"label entropy over the checkpoints so far": line}, np.arange(2, count + 1) / count


def ceiling(labels: np.ndarray, halvings: int = 20, seed: int = 0) -> float:
    """How well the entropy of one half of the runs finds what the other half disagrees on: mean AUROC, 0 .. 1.

    labels (runs, examples), at least 4 runs. Halves are drawn `halvings` times.
    """
    labels, draw = np.asarray(labels), np.random.default_rng(seed)
    half, found = len(labels) // 2, []
    if half < 2:
        raise InputError("runs", len(labels), "at least 4: two halves of two runs each")
    for _ in range(halvings):
        order = draw.permutation(len(labels))
        first, second = labels[order[:half]], labels[order[half:2 * half]]
        found.append(auroc(label_entropy(first), label_entropy(second) > 0))
    return float(np.mean(found))


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
    regions = sorted({tag for tag in tags if ":" in tag}, key=lambda tag: (order.index(tag.split(":")[1]), tag))
    tags = np.asarray(tags)
    return {region: jackknife(lambda votes, marks, region=region: planted_auroc(votes, marks, region), labels,
                              examples=(tags,)) for region in regions}
