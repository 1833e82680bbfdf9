"""Scores of the answers that several retrainings give to the same examples.

Pure functions of arrays, runs first: `labels` (runs, examples) are class ids of at least 0,
`probabilities` (runs, examples, classes) have rows that sum to 1, `gold` (examples,) are class ids.
Wrong input raises InputError before anything is computed; so does a single run wherever a score
needs two to compare.

Most scores only ask how many votes each class got, so they share one pass over the sorted votes
(`_sum_over_classes`): time grows linearly with examples, does not depend on the number of classes,
and examples on which all runs agree cost next to nothing.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from stabutils.errors import InputError

# per example


def label_entropy(labels: ArrayLike, n: int | None = None) -> ndarray:
    """Entropy of the labels that runs give one example, as expected over n of the runs:
    (examples,), nats.

    0 .. log(min(n, classes)); 0 when all runs agree, higher is less stable. Entropy grows with the
    number of votes, so compare arms at one n only. The value is exact: the mean over all draws of n
    runs without replacement. n=None uses all runs (the plain definition); n=2 gives churn times log
    2.

    >>> label_entropy([[0, 1], [0, 1], [0, 2]]).round(3).tolist()  # votes 3 and 2:1
    [0.0, 0.637]
    >>> label_entropy([[0, 1], [0, 1], [0, 2]], n=2).round(3).tolist()
    [0.0, 0.462]

    Source: Datta et al. 2023 (multi-run label entropy); the expectation is rarefaction (Hurlbert
    1971).
    """
    labels = _labels(labels)
    n = len(labels) if n is None else _draw(n, len(labels))
    worth = expected_worth(entropy_worth(n), len(labels))
    return np.round(_sum_over_classes(labels, worth), 12)  # equal votes tie, of whatever classes


def checkpoint_entropy(checkpoints: ArrayLike) -> ndarray:
    """Single-run label entropy: of the labels one run gives at its checkpoints, (runs, examples),
    nats.

    Takes (runs, checkpoints, examples); 0 when the answer never changes .. log(min(checkpoints,
    classes)).

    >>> checkpoint_entropy([[[0, 1], [0, 2]]]).round(3).tolist()
    [[0.0, 0.693]]

    Source: Datta et al. 2023 (single-run label entropy).
    """
    checkpoints = _labels(checkpoints, ("runs", "checkpoints", "examples"), "checkpoints")
    return np.stack([label_entropy(run) for run in checkpoints])


def disagreement(labels: ArrayLike) -> ndarray:
    """Share of the pairs of runs that answer one example differently: (examples,), 0 .. 1, 0 is
    stable.

    >>> disagreement([[0, 1], [0, 1], [0, 2]]).round(3).tolist()
    [0.0, 0.667]
    """
    labels = _labels(labels)
    return _sum_over_classes(labels, pairs_worth(len(labels)))


def majority(labels: ArrayLike) -> tuple[ndarray, ndarray]:
    """The answer most runs give and how many give it: (examples,) and (examples,); ties go to the
    lowest id.

    >>> [part.tolist() for part in majority([[0, 1], [0, 1], [0, 2]])]
    [[0, 1], [3, 2]]
    """
    labels = _labels(labels, least=1)
    answer, most = labels[0], np.zeros(labels.shape[1], int)
    for label, before in _votes(labels):
        answer, most = np.where(before >= most, label, answer), np.maximum(most, before + 1)
    return answer, most


def tally(labels: ArrayLike, names: Sequence[str]) -> list[str]:
    """The answers of each example in words, most frequent first.

    labels (runs, examples); names (classes,). Returns a list of texts (examples,).

    >>> tally([[0, 1], [0, 0], [1, 0]], ["yes", "no"])
    ['yes ×2, no ×1', 'yes ×2, no ×1']
    """
    found = []
    for votes in _labels(labels, least=1).T:
        found.append(", ".join(f"{names[kind]} ×{count}" for kind, count in counted(votes)))
    return found


def counted(votes: ndarray) -> list[tuple[int, int]]:
    """Each answer and how many gave it, the most frequent first, of equals the lowest id."""
    return Counter(np.sort(votes).tolist()).most_common()


def gold_confidence(probabilities: ArrayLike, gold: ArrayLike) -> tuple[ndarray, ndarray]:
    """Mean and population standard deviation over runs of the gold label's probability: two
    (examples,).

    Both in 0 .. 1; high mean is easy, high spread is unstable. Given one run's checkpoints as the
    first axis these are the coordinates of a data map.

    >>> [part.round(3).tolist() for part in gold_confidence([[[0.5, 0.5]], [[0.9, 0.1]]], [0])]
    [[0.7], [0.2]]

    Source: Swayamdipta et al. 2020 (confidence and variability).
    """
    chosen = _gold_probability(_probabilities(probabilities, least=2), gold)
    return chosen.mean(axis=0), chosen.std(axis=0)


def churn(labels: ArrayLike) -> float:
    """Share of examples on which two runs disagree, mean over all pairs of runs: 0 .. 1, lower is
    stabler.

    >>> round(churn([[0, 1], [0, 1], [0, 2]]), 3)
    0.333
    """
    return float(disagreement(labels).mean())


def churn_matrix(labels: ArrayLike) -> ndarray:
    """Churn of every pair of runs: (runs, runs), symmetric, 0 on the diagonal, each 0 .. 1.

    >>> churn_matrix([[0, 1], [0, 1], [0, 2]]).tolist()
    [[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.5, 0.5, 0.0]]
    """
    labels = _labels(labels)
    matrix = np.zeros((len(labels), len(labels)))
    for i, run in enumerate(labels[:-1]):
        matrix[i, i + 1 :] = matrix[i + 1 :, i] = (labels[i + 1 :] != run).mean(axis=1)
    return matrix


def churn_parts(labels: ArrayLike, gold: ArrayLike) -> dict[str, float]:
    """Churn within one arm by what it costs, the two shares adding up to churn: dict, each 0 .. 1.

    right_to_wrong: exactly one of the two runs is right (either one: within an arm good and bad
    churn are equal by symmetry). wrong_to_wrong: both are wrong and they differ.

    >>> parts = churn_parts([[0, 1], [0, 2], [0, 3]], [0, 3])
    >>> {name: round(share, 3) for name, share in parts.items()}
    {'right_to_wrong': 0.333, 'wrong_to_wrong': 0.167}
    """
    labels = _labels(labels)
    runs, examples = labels.shape
    right = (labels == _gold(gold, examples)).sum(axis=0)
    wrong = runs - right
    alike = _squared_votes(labels) - right**2  # ordered pairs of wrong answers that agree
    pairs = examples * runs * (runs - 1)
    return {
        "right_to_wrong": float((2 * right * wrong).sum() / pairs),
        "wrong_to_wrong": float((wrong**2 - alike).sum() / pairs),
    }


def churn_between(before: ArrayLike, after: ArrayLike, gold: ArrayLike) -> dict[str, float]:
    """Churn from one arm to another over all cross pairs of runs, in its parts.

    Parameters
    ----------
    before, after : labels (runs, examples), also of one run each
    gold : (examples,)

    Returns
    -------
    dict of shares of examples, 0 .. 1: `churn`, the sum of the other three; `positive_flips` (wrong
    before, right after), `negative_flips` (right before, wrong after), `wrong_to_wrong` (to another
    wrong answer).

    References
    ----------
    Yan et al. 2021, "Positive-congruent training"; Milani Fard, Cormier, Canini & Gupta 2016,
    "Launch and iterate: reducing prediction churn".

    Examples
    --------
    >>> parts = churn_between([[0, 1, 2, 0]], [[0, 0, 1, 1]], [0, 0, 0, 0])
    >>> list(parts.items())[:2], list(parts.items())[2:]
    ([('churn', 0.75), ('positive_flips', 0.25)], [('negative_flips', 0.25), ('wrong_to_wrong',
    0.25)])
    """
    before, after = _labels(before, thing="before", least=1), _labels(after, thing="after", least=1)
    if before.shape[1] != after.shape[1]:
        allowed = f"{before.shape[1]}, as many as in before"
        raise InputError("examples in after", after.shape[1], allowed)
    gold = _gold(gold, before.shape[1])
    # (b + a)^2 = b^2 + a^2 + 2ba: pooling the arms gives the cross pairs that agree
    together = _squared_votes(np.concatenate([before, after]))
    both = together - _squared_votes(before) - _squared_votes(after)
    right, right_after = (before == gold).sum(axis=0), (after == gold).sum(axis=0)
    wrong, wrong_after = len(before) - right, len(after) - right_after
    pairs = len(before) * len(after)
    parts = {
        "churn": pairs - both / 2,
        "positive_flips": wrong * right_after,
        "negative_flips": right * wrong_after,
        "wrong_to_wrong": wrong * wrong_after - (both / 2 - right * right_after),
    }
    return {name: float(part.mean() / pairs) for name, part in parts.items()}


def flips(before: ndarray, after: ndarray, gold: ndarray) -> dict[str, ndarray]:
    """Which answers change from one model to another: bool, the shape of their labels.

    >>> changes = flips(*np.array([[1, 2], [0, 2], [0, 0]]))
    >>> {name: change.tolist() for name, change in changes.items()}
    {'churn': [True, False], 'positive_flips': [True, False], 'negative_flips': [False, False]}
    """
    right, right_after = before == gold, after == gold
    return {
        "churn": before != after,
        "positive_flips": ~right & right_after,
        "negative_flips": right & ~right_after,
    }


def share_unstable(labels: ArrayLike, n: int = 10) -> float:
    """Share of examples on which n runs are not unanimous, as expected over n of the runs: 0 .. 1.

    Grows with n, so quote n with it. Lower is stabler; n=2 is churn.

    >>> share_unstable([[0, 1], [0, 1], [0, 2]], n=3)
    0.5
    """
    labels = _labels(labels)
    worth = expected_worth(unanimous_worth(_draw(n, len(labels))), len(labels))
    return float(1 - _sum_over_classes(labels, worth).mean())


def fleiss_kappa(labels: ArrayLike) -> float:
    """Agreement of runs beyond what the label shares alone would give: 1 is full agreement, 0 is
    chance.

    Any number of classes; chance is the sum of squared label shares over all runs and examples.
    Where every vote is for one and the same class chance explains everything (0/0); the runs agree,
    so the value is 1.

    >>> round(fleiss_kappa([[0, 1], [0, 1], [0, 2]]), 3)  # agreement 2/3, chance (9 + 4 + 1)/36
    0.455

    Source: Fleiss 1971.
    """
    labels = _labels(labels)
    shares = np.unique(labels, return_counts=True)[1] / labels.size
    chance = float(np.sum(shares**2))
    return 1.0 if len(shares) == 1 else 1 - churn(labels) / (1 - chance)


def jensen_shannon(probabilities: ArrayLike) -> float:
    """Jensen-Shannon divergence of two runs' probabilities, mean over pairs and examples: 0 .. log
    2, nats.

    Soft churn: also sees changes that flip no label. Probabilities of 0 are fine.

    >>> round(jensen_shannon([[[1.0, 0.0]], [[0.0, 1.0]]]), 3)
    0.693

    Source: Lin 1991.
    """
    probabilities = _probabilities(probabilities, least=2)
    runs, examples, classes = probabilities.shape
    cells = 2**14 // runs  # 128 KiB an array: pages for a larger one cost more than its arithmetic
    block = max(1, cells // classes)
    blocks = (probabilities[:, i : i + block] for i in range(0, examples, block))
    total = float(sum(map(_summed_divergence, blocks)))
    return max(0.0, total / (examples * math.comb(runs, 2)))


def distribution_variance(labels: ArrayLike, gold: ArrayLike) -> float:
    """Variance over runs of the error rate on the whole distribution, not just on this sample:
    unbiased.

    In squared error rate; below the variance on the test set wherever errors of examples are
    independent, and sometimes a little below 0, since an unbiased estimate of about 0 must be.

    >>> distribution_variance([[0, 0], [1, 1]], [0, 0])  # 2 (1/2 - (1/2 + 1/2)/4)
    0.5

    Source: Keller Jordan 2024.
    """
    labels = _labels(labels)
    examples = labels.shape[1]
    wrong = labels != _gold(gold, examples)
    if examples < 2:
        raise InputError("examples in labels", examples, "at least 2")
    share = wrong.mean(axis=0)
    by_chance = len(labels) / (len(labels) - 1) * (share * (1 - share)).sum() / examples**2
    return float(examples / (examples - 1) * (wrong.mean(axis=1).var(ddof=1) - by_chance))


def accuracy(labels: ArrayLike, gold: ArrayLike) -> ndarray:
    """Share of examples a run answers right: (runs,), 0 .. 1, higher is better.

    >>> accuracy([[0, 1], [0, 2]], [0, 2]).tolist()
    [0.5, 1.0]
    """
    labels = _labels(labels, least=1)
    return (labels == _gold(gold, labels.shape[1])).mean(axis=1)


def nll(probabilities: ArrayLike, gold: ArrayLike) -> ndarray:
    """Mean negative log probability of the gold label: (runs,), nats, 0 .. 87.3, lower is better.

    A probability that float32 cannot tell from 0 counts as its smallest normal number (87.3 nats).

    >>> nll([[[0.5, 0.5], [1.0, 0.0]]], [0, 0]).round(3).tolist()
    [0.347]
    """
    return -logs(_gold_probability(_probabilities(probabilities), gold)).mean(axis=1)


def logs(probabilities: ndarray) -> ndarray:
    """Logarithms; what float32 cannot tell from 0 counts as its smallest normal number."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def ece(probabilities: ArrayLike, gold: ArrayLike, bins: int = 15) -> ndarray:
    """Expected calibration error, how far confidence is from accuracy: (runs,), 0 .. 1, lower is
    better.

    Equal-width bins (closed on the right) of the largest probability, weighted by their examples.

    >>> ece([[[0.8, 0.2], [0.6, 0.4]]], [0, 1]).round(3).tolist()  # (|1 - .8| + |0 - .6|) / 2
    [0.4]

    Source: Guo et al. 2017.
    """
    probabilities = _probabilities(probabilities)
    runs, examples, classes = probabilities.shape
    gold = _gold(gold, examples, classes)
    if not isinstance(bins, (int, np.integer)) or bins < 1:
        raise InputError("bins", bins, "an integer of at least 1")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.array([_calibration_error(run, gold, edges) for run in probabilities])


def _calibration_error(probabilities, gold, edges):
    """Of one run: probabilities (examples, classes), inner edges of the bins."""
    answer = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(probabilities, answer[:, None], axis=1)[:, 0].astype(float)
    cell = np.digitize(confidence, edges, right=True)
    gap = np.bincount(cell, weights=(answer == gold) - confidence)
    return np.abs(gap).sum() / len(gold)


def _votes(labels):
    """The votes of every example in ascending order, one (examples,) after another, each with the
    number of equal votes before it.
    """
    wide = np.promote_types(labels.dtype, np.uint16)  # numpy sorts bytes ten times slower
    votes = np.sort(labels.astype(wide), axis=0)
    before = np.zeros(votes.shape[1], np.min_scalar_type(len(votes)))
    yield votes[0], before
    for previous, vote in itertools.pairwise(votes):
        before = (before + before.dtype.type(1)) * (vote == previous)
        yield vote, before


def _sum_over_classes(labels, worth) -> ndarray:
    """Per example the sum of worth[votes] over the classes that got any votes: (examples,)."""
    labels = labels.astype(np.min_scalar_type(labels.max()))  # a byte a label fits the cache
    total = np.full(labels.shape[1], worth[-1], float)  # all agree: most examples are done here
    split = np.flatnonzero((labels != labels[0]).any(axis=0))
    gain = np.diff(worth)
    if len(split):
        total[split] = sum(gain.take(before) for _, before in _votes(labels[:, split]))
    return total


def _squared_votes(labels) -> ndarray:
    return _sum_over_classes(labels, np.arange(len(labels) + 1) ** 2)


def pairs_worth(runs: int) -> ndarray:
    """What a class with 0, 1 .. runs votes adds to the share of pairs of runs that disagree."""
    votes = np.arange(runs + 1)
    return votes * (runs - votes) / (runs * (runs - 1))


def unanimous_worth(n: int) -> ndarray:
    """What a class with 0, 1 .. n votes adds where only all n of them count."""
    return np.append(np.zeros(n), 1.0)


def entropy_worth(n: int) -> ndarray:
    """What a class with 0, 1 .. n votes adds to the entropy of n votes."""
    share = np.arange(n + 1) / n
    return -share * np.log(np.where(share > 0, share, 1)) + 0.0  # no -0


def expected_worth(worth: ndarray, runs: int) -> ndarray:
    """From the worth of a class with 0 .. n of n votes to its expectation over draws of n from
    `runs` votes.

    One vote more at a time: leaving out a random one of `total` votes takes it from a class with k
    of them with probability k/total. Convex sums only, so exact to rounding for any number of runs.
    """
    for total in range(len(worth), runs + 1):
        share = np.arange(total + 1) / total
        worth = share * np.append(0.0, worth) + (1 - share) * np.append(worth, 0.0)
    return worth


def _summed_divergence(probabilities):
    """Jensen-Shannon divergence summed over the pairs of runs and the examples, nats.

    Half the sum over runs i, j and classes of p_i log(2 p_i / (p_i + p_j)). The logarithms of a
    run's sums with all others are one logarithm of their product, so that pairs cost one addition
    and two multiplications each. Shares of a cell's largest probability keep the products in range.
    """
    p = probabilities.astype(float)
    p /= p.sum(axis=2, keepdims=True)
    p = p.reshape(len(p), -1)
    shares = p / np.maximum(p.max(axis=0), np.finfo(float).tiny)
    np.maximum(shares, 1e-20, out=shares)  # less than that adds nothing that a sum could hold
    apart = (len(p) - 1) * np.log(2 * shares) - _log_of_sums(shares)
    return np.einsum("ij,ij->", p, apart) / 2  # one thread; vdot would wake all for a small block


def _log_of_sums(shares):
    """Per run and cell the sum of log(share + another run's share) over the other runs.

    shares: (runs, cells), above 0 and up to 1. Runs at one distance in a circle are added at a
    time.
    """
    runs = len(shares)
    circle = np.concatenate([shares, shares])
    sums, product, total = np.empty_like(shares), np.ones_like(shares), np.zeros_like(shares)
    # A sum is at least twice the smallest share: so many can be multiplied without an underflow.
    factors = int(300 / max(1.0, -math.log10(2 * shares.min())))
    for distance in range(1, runs // 2 + 1):
        count = runs if 2 * distance < runs else distance  # opposite runs meet only once
        some = np.add(shares[:count], circle[distance : distance + count], out=sums[:count])
        product[:count] *= some
        last = min(count, runs - distance)  # beyond it the circle begins anew
        product[distance : distance + last] *= some[:last]
        product[: count - last] *= some[last:]
        if distance % (factors // 2) == 0:
            total += np.log(product)
            product[:] = 1
    return total + np.log(product)


def _gold_probability(probabilities, gold) -> ndarray:
    gold = _gold(gold, *probabilities.shape[1:])
    return np.take_along_axis(probabilities, gold[None, :, None], axis=2)[..., 0].astype(float)


def _array(values: ArrayLike, axes, thing, kinds, allowed) -> ndarray:
    try:
        values = np.asarray(values)
    except ValueError:
        expected = f"({', '.join(axes)})"
        raise InputError(f"shape of {thing}", "rows of different length", expected) from None
    if values.ndim != len(axes) or values.size == 0:
        expected = f"({', '.join(axes)}), none of them empty"
        raise InputError(f"shape of {thing}", values.shape, expected)
    if values.dtype.kind not in kinds:
        raise InputError(f"type of {thing}", str(values.dtype), allowed)
    return values


def _labels(labels: ArrayLike, axes=("runs", "examples"), thing="labels", least=2) -> ndarray:
    labels = _array(labels, axes, thing, "iu", "integer class ids")
    if labels.min() < 0:
        raise InputError(thing, int(labels.min()), "class ids of at least 0")
    if len(axes) > 1:
        _enough(labels.shape[-2], f"{axes[-2]} in {thing}", least)
    return labels


def _probabilities(probabilities: ArrayLike, least=1) -> ndarray:
    axes = ("runs", "examples", "classes")
    allowed = "numbers of 0 .. 1 whose rows sum to 1, to three decimals (not logits)"
    probabilities = _array(probabilities, axes, "probabilities", "f", allowed)
    _enough(len(probabilities), "runs in probabilities", least)
    lowest = float(probabilities.min())
    if not lowest >= 0:  # NaN too
        raise InputError("probabilities", lowest, allowed)
    total = probabilities.sum(axis=2, dtype=float)
    off = np.abs(total - 1)
    off[off > 1e-3] -= _rounding(probabilities[off > 1e-3])
    if off.max() > 1e-3:
        worst = float(total.flat[off.argmax()])
        raise InputError("row sum of probabilities", worst, allowed)
    return probabilities


def _rounding(rows: ndarray) -> ndarray:
    """By how much rows (rows, classes) may miss 1 for their rounding to three decimals.

    Half a thousandth for each class that is not 0; nothing where a row has more decimals.
    """
    thousandths = 1000 * rows.astype(float)
    rounded = (np.abs(thousandths - np.rint(thousandths)) < 0.01).all(axis=1)
    return np.where(rounded, 5e-4 * np.count_nonzero(rows, axis=1), 0.0)


def _enough(found, thing, least):
    if found < least:
        allowed = f"at least {least}: one alone has nothing to differ from, add another"
        raise InputError(thing, found, allowed)


def _gold(gold: ArrayLike, examples, classes=None) -> ndarray:
    gold = _labels(gold, ("examples",), "gold")
    if len(gold) != examples:
        raise InputError("examples in gold", len(gold), f"{examples}, as many as were predicted")
    if classes is not None and gold.max() >= classes:
        allowed = f"class ids below {classes}, the number of probabilities"
        raise InputError("gold", int(gold.max()), allowed)
    return gold


def _draw(n, runs, thing="n"):
    if not isinstance(n, (int, np.integer)) or not 2 <= n <= runs:
        raise InputError(thing, n, f"an integer from 2 to {runs}, the number of runs")
    return int(n)
