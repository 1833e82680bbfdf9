"""The stability of retrained models under the names that neighbouring literatures use.

Predictive multiplicity: `ambiguity`, `discrepancy`, `rashomon_capacity`,
`viable_prediction_range`. Arbitrariness: `self_consistency`, `share_inconsistent`. Consistency
over seeds: `consistency` (CON), `correct_consistency` (ACC-CON). Regression of model updates:
`negative_flip_rate`, `positive_flip_rate`, `mcnemar`. Abstention: `selective_answers`.
`multiplicity_table` computes all of them at once, with intervals.

That literature speaks of a set of competing models; here the set is the runs of one recipe.
Arrays have runs first, as everywhere in this package: labels (runs, examples), probabilities
(runs, examples, classes), gold (examples,).

What grows with the number of models (ambiguity, discrepancy, the viable prediction range,
Rashomon capacity) must be compared at one number of runs. The first three take that number, n,
and are exact expectations over all draws of n of the runs; Rashomon capacity has no such formula,
so give it equally many runs of each arm.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
from numpy import ndarray
from numpy.typing import ArrayLike

from stabutils.errors import InputError
from stabutils.metrics import measures
from stabutils.metrics.intervals import Interval, jackknife
from stabutils.metrics.measures import (
    _draw,
    _gold,
    _gold_probability,
    _labels,
    _probabilities,
)

ABSTAINED = -1  # stands for a label where `selective_answers` gives none
LEVEL = 0.75  # self-consistency below which a query counts as answered arbitrarily
BLOCK = 2**20  # numbers of one block of probabilities: 8 MB


# ---- labels: predictive multiplicity


def ambiguity(labels: ArrayLike, n: int = 10) -> float:
    """Share of examples on which some competing model contradicts the baseline model, among n runs.

    The source has one baseline, the model that would be deployed, and asks which points some
    competing model answers differently. Retrainings are exchangeable: none of them is special, so
    each of the n runs is the baseline in turn. For ambiguity the choice does not matter: some run
    contradicts the baseline exactly where the n runs are not unanimous, whichever of them it is.
    Ambiguity is therefore `share_unstable` under another name.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least n runs.
    n : int
        Number of competing models, the baseline included. Ambiguity grows with it; n=2 is churn.

    Returns
    -------
    float
        A share, 0 .. 1, lower is more stable: the exact mean over all draws of n of the runs.

    Raises
    ------
    InputError
        If n is not an integer from 2 to the number of runs.

    References
    ----------
    Marx, Calmon and Ustun 2020, Predictive Multiplicity in Classification (arXiv 1909.06677); the
    definition as their published code computes it, for one given baseline. The expectation is
    ours.

    Examples
    --------
    Of three runs one answers the second query differently: two of the three pairs contain it.

    >>> round(ambiguity([[0, 1], [0, 1], [0, 2]], n=2), 3), ambiguity([[0, 1], [0, 1], [0, 2]], n=3)
    (0.333, 0.5)
    """
    return measures.share_unstable(labels, n)


def discrepancy(labels: ArrayLike, n: int = 10) -> float:
    """Largest share of answers that one competing model changes from the baseline, among n runs.

    Unlike ambiguity, all changed answers belong to one and the same replacement of the baseline
    model. The source has one baseline. Here every one of the n runs may be the baseline, with
    equal chances, and the value is the expectation over the draw of the n runs and over which of
    them is the baseline. (The largest churn of any pair, without a baseline, is larger.)

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least n runs.
    n : int
        Number of competing models, the baseline included. Discrepancy grows with it; n=2 is churn.

    Returns
    -------
    float
        A share, 0 .. 1, at most `ambiguity`, lower is more stable: the exact mean over all draws.

    Raises
    ------
    InputError
        If n is not an integer from 2 to the number of runs.

    References
    ----------
    Marx, Calmon and Ustun 2020, Predictive Multiplicity in Classification (arXiv 1909.06677); the
    definition as their published code computes it, for one given baseline. The expectation is
    ours.

    Examples
    --------
    Run 1 differs from run 2 on one query of two and from run 3 on both, runs 2 and 3 on one: the
    three baselines find 1, 0.5 and 1.

    >>> round(discrepancy([[0, 0], [0, 1], [1, 1]], n=3), 3)
    0.833
    """
    matrix = measures.churn_matrix(labels)
    n, runs = _draw(n, len(matrix)), len(matrix)
    others = matrix[~np.eye(runs, dtype=bool)].reshape(runs, runs - 1)
    return float(_expected_largest(others.T, n - 1).mean())


# ---- labels: arbitrariness and consistency


def self_consistency(labels: ArrayLike) -> ndarray:
    """Chance that two runs give one example the same answer: its mean over examples is 1 - churn.

    Its distribution over examples says what the mean hides: many stable queries and a few that
    are a matter of chance.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least 2 runs, any number of classes.

    Returns
    -------
    array of float, (examples,)
        0 .. 1, 1 is stable. Unbiased for every example, whatever the number of runs.

    References
    ----------
    Cooper et al. 2024, Arbitrariness and Social Prediction (AAAI, arXiv 2301.11562), who retrain
    on bootstrap samples of the training data. Their formula for two classes, with B0 and B1 of B
    votes, is 1 - 2 B0 B1 / (B (B - 1)), as others have implemented it; this is its extension to
    any number of classes.

    Examples
    --------
    >>> self_consistency([[0, 1], [0, 1], [0, 2]]).round(3).tolist()
    [1.0, 0.333]
    """
    return 1 - measures.disagreement(labels)


def share_inconsistent(labels: ArrayLike, level: float = LEVEL) -> float:
    """Share of examples whose self-consistency is below a level: those answered arbitrarily.

    Computed at all levels it is the distribution function of self-consistency. It depends on the
    number of runs, as an example of N runs has one of few possible values: compare arms of
    equally many runs.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least 2 runs.
    level : float
        Above 0 and at most 1. An example exactly at the level is not below it.

    Returns
    -------
    float
        A share, 0 .. 1, lower is more stable; at level 1 the share of examples on which the runs
        are not unanimous.

    Raises
    ------
    InputError
        If the level lies outside of its range.

    References
    ----------
    Cooper et al. 2024, Arbitrariness and Social Prediction (AAAI, arXiv 2301.11562). The default
    level is ours.

    Examples
    --------
    >>> share_inconsistent([[0, 1], [0, 1], [0, 2]], level=0.5)
    0.5
    """
    if not 0 < level <= 1:
        raise InputError("level", level, "a number above 0 and at most 1")
    rounding = 1e-9
    return float(np.mean(self_consistency(labels) < level - rounding))


def consistency(labels: ArrayLike) -> float:
    """CON: share of examples that two runs answer alike, mean over all pairs of runs: 1 - churn.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least 2 runs.

    Returns
    -------
    float
        A share, 0 .. 1, higher is more stable.

    References
    ----------
    Wang et al. 2020, Wisdom of the Ensemble (arXiv 2011.06796): the definition as their published
    code computes it for two models. Bui, Savova and Wang 2025 (arXiv 2503.07329) use it for runs
    that differ in the seed; of that paper we could read the abstract only.

    Examples
    --------
    >>> round(consistency([[0, 1], [0, 1], [0, 2]]), 3)
    0.667
    """
    return 1 - measures.churn(labels)


def correct_consistency(labels: ArrayLike, gold: ArrayLike) -> float:
    """ACC-CON: share of examples that two runs both answer right, mean over all pairs of runs.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least 2 runs.
    gold : array of int, (examples,)
        The right answers.

    Returns
    -------
    float
        A share, 0 .. 1, higher is better; at most the mean accuracy and at most `consistency`.

    References
    ----------
    As for `consistency`.

    Examples
    --------
    >>> round(correct_consistency([[0, 1], [0, 1], [0, 2]], [0, 1]), 3)  # (3 + 1) of 2 x 3 pairs
    0.667
    """
    one_right = measures.churn_parts(labels, gold)["right_to_wrong"]
    return float(measures.accuracy(labels, gold).mean() - one_right / 2)


# ---- labels: updates of a model


def negative_flip_rate(before: ArrayLike, after: ArrayLike, gold: ArrayLike) -> float:
    """NFR: share of examples that the old model answers right and the new one wrong.

    Mean over all pairs of an old and a new run: the part `negative_flips` of `churn_between`.
    Within one arm it is half of `churn_parts`' right_to_wrong, as either of the two runs may be the
    old one.

    Parameters
    ----------
    before, after : array of int, (runs, examples)
        Runs of the old and of the new model, at least one each, not necessarily equally many.
    gold : array of int, (examples,)
        The right answers.

    Returns
    -------
    float
        A share of all examples, 0 .. 1, lower is better. NFR - PFR is the loss of accuracy.

    References
    ----------
    Yan et al. 2021, Positive-Congruent Training (CVPR, arXiv 2011.09161): negative flips as its
    first page defines them; the rate, a share of all examples, as papers that build on it give
    it.

    Examples
    --------
    >>> negative_flip_rate([[0, 1, 2, 0]], [[0, 0, 1, 1]], [0, 0, 0, 0])
    0.25
    """
    return measures.churn_between(before, after, gold)["negative_flips"]


def positive_flip_rate(before: ArrayLike, after: ArrayLike, gold: ArrayLike) -> float:
    """PFR: share of examples that the old model answers wrong and the new one right.

    Mean over all pairs of an old and a new run: the part `positive_flips` of `churn_between`.

    Parameters
    ----------
    before, after : array of int, (runs, examples)
        Runs of the old and of the new model, at least one each, not necessarily equally many.
    gold : array of int, (examples,)
        The right answers.

    Returns
    -------
    float
        A share of all examples, 0 .. 1, higher is better. PFR - NFR is the gain in accuracy.

    References
    ----------
    As for `negative_flip_rate`.

    Examples
    --------
    >>> positive_flip_rate([[0, 1, 2, 0]], [[0, 0, 1, 1]], [0, 0, 0, 0])
    0.25
    """
    return measures.churn_between(before, after, gold)["positive_flips"]


def mcnemar(before: ArrayLike, after: ArrayLike, gold: ArrayLike) -> float:
    """Mid-p McNemar test of whether two models are equally accurate: the two-sided p-value.

    Speaks of these two models and of the population of examples, not of retrainings: two runs of
    one recipe can differ significantly, and then the difference is the seed's.

    Parameters
    ----------
    before, after : array of int, (examples,)
        The answers of the two models.
    gold : array of int, (examples,)
        The right answers.

    Returns
    -------
    float
        0 .. 1. Of the examples that exactly one of the two models answers right, the chance of a
        split at least as uneven if each model were as likely to be the right one, the observed
        split counting half. 1 where there is no such example (the formula alone would give 1/2).

    References
    ----------
    Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data (BMC
    Medical Research Methodology 13:91); of the article we read the abstract, the formula in the
    authors' R package contingencytables.

    Examples
    --------
    Seven queries are right in the second model only, one in the first only: the p-value is
    2 (1 + 8) / 2^8 - 8 / 2^8.

    >>> round(mcnemar([0] + 7 * [1], [1] + 7 * [0], 8 * [0]), 4)
    0.0391
    """
    parts = measures.churn_between(np.asarray(before)[None], np.asarray(after)[None], gold)
    regressed, fixed = (
        round(parts[name] * np.size(gold)) for name in ("negative_flips", "positive_flips")
    )
    return float(_mid_p(regressed, fixed))


def selective_answers(labels: ArrayLike, alpha: float = 0.05) -> ndarray:
    """What a selective ensemble of the runs answers: the majority's label, or none in a close vote.

    A two-sided binomial test asks whether the most frequent answer is really more frequent than
    the second. Where its p-value is above alpha, the ensemble abstains. For each example the
    chance to give an answer that is not the one that most retrainings would give is at most
    alpha. Five runs never suffice at 0.05, six do if unanimous.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        The members of one ensemble.
    alpha : float
        Between 0 and 1; the lower, the more often the ensemble abstains.

    Returns
    -------
    array of int, (examples,)
        Labels, -1 where the ensemble abstains.

    Raises
    ------
    InputError
        If alpha lies outside of its range.

    References
    ----------
    Black, Leino and Fredrikson 2022, Selective Ensembles for Consistent Predictions (ICLR, arXiv
    2111.08230); of the paper we read the abstract, the rule as described by others who read and
    implemented it.

    Examples
    --------
    Six of six votes have p = 2 / 2^6 = 0.03; five of six have 2 (1 + 6) / 2^6 = 0.22.

    >>> selective_answers([[4, 4], [4, 4], [4, 4], [4, 4], [4, 4], [4, 2]]).tolist()
    [4, -1]
    """
    if not 0 < alpha < 1:
        raise InputError("alpha", alpha, "a number between 0 and 1, such as 0.05")
    from scipy.stats import binom  # takes half a second to import

    answer, most, second = _two_most_frequent(_labels(labels))
    at_least_as_uneven = 2 * binom.sf(most - 1, most + second, 0.5)
    return np.where(at_least_as_uneven <= alpha, answer.astype(int), ABSTAINED)


# ---- probabilities


def viable_prediction_range(
    probabilities: ArrayLike, gold: ArrayLike, n: int | None = None
) -> tuple[ndarray, ndarray]:
    """Lowest and highest probability that n runs give one label of each example, say the gold one.

    Costs one sort of (runs, examples): less than reading the probabilities.

    Parameters
    ----------
    probabilities : array of float, (runs, examples, classes)
        At least 2 runs.
    gold : array of int, (examples,)
        The label whose probability is looked at. With two classes any label gives the same width.
    n : int, optional
        Number of competing models; the range widens with it. None takes all runs.

    Returns
    -------
    low, high : arrays of float, (examples,)
        0 .. 1 each, exact means over all draws of n of the runs. The width, high - low, is 0
        where all runs give the label one probability; narrower is more stable.

    Raises
    ------
    InputError
        If n is not an integer from 2 to the number of runs.

    References
    ----------
    Watson-Daniels et al. 2022, Predictive Multiplicity in Probabilistic Classification (arXiv
    2206.01131), for two classes; of the paper we read the introduction, the definition as
    described in the documentation of the library ARSA-ML. The probability of one label of several
    classes, and the expectation over n runs, are ours.

    Examples
    --------
    >>> three = [[[0.5, 0.5]], [[0.7, 0.3]], [[0.9, 0.1]]]
    >>> [end.round(3).tolist() for end in viable_prediction_range(three, [0])]
    [[0.5], [0.9]]

    The lower ends of the three pairs are .5, .5 and .7, the upper ends .7, .9 and .9.

    >>> [end.round(3).tolist() for end in viable_prediction_range(three, [0], n=2)]
    [[0.567], [0.833]]
    """
    probabilities = _probabilities(probabilities, least=2)
    runs = len(probabilities)
    n = runs if n is None else _draw(n, runs)
    chosen = _gold_probability(probabilities, gold)
    return -_expected_largest(-chosen, n), _expected_largest(chosen, n)


def rashomon_capacity(probabilities: ArrayLike, tolerance: float = 1e-5) -> ndarray:
    """How many different answers the runs' probabilities amount to, one example at a time.

    The exponential of `channel_capacity`, where its algorithm and costs are.

    Parameters
    ----------
    probabilities : array of float, (runs, examples, classes)
        At least 2 runs. The value grows with their number: compare arms of equally many.
    tolerance : float
        Largest error of the logarithm.

    Returns
    -------
    array of float, (examples,)
        1 .. min(runs, classes): 1 where all runs give the same probabilities, k where k of the
        classes are each given for certain by some run.

    References
    ----------
    Hsu and Calmon 2022, Rashomon Capacity (NeurIPS, arXiv 2206.01295): the channel capacity as
    their published code computes it, in bits; its power of two, the capacity's exponentiated
    form, as later papers describe it.

    Examples
    --------
    >>> rashomon_capacity([[[1.0, 0.0], [0.8, 0.2]], [[0.0, 1.0], [0.8, 0.2]]]).round(4).tolist()
    [2.0, 1.0]
    """
    return np.exp(channel_capacity(probabilities, tolerance))


def channel_capacity(probabilities: ArrayLike, tolerance: float = 1e-5) -> ndarray:
    """Capacity of the channel from runs to classes: the logarithm of `rashomon_capacity`.

    For each example the largest information, over all weights of the runs, that an answer drawn
    from a run's probabilities gives about which run it was drawn from. Blahut-Arimoto with a bound
    that proves how far it still is: for any weights p of runs with probabilities P_r and mixture q,

        sum_r p_r D(P_r || q)  <=  capacity  <=  max_r D(P_r || q)

    Left: the definition. Right: with the best weights p* and their mixture q*, the capacity is
    sum_r p*_r D(P_r || q) - D(q* || q), and that is at most the largest of the D(P_r || q). An
    example is done when both sides are within the tolerance; the left one is returned. Steps are
    lengthened while the information grows, and taken back where it does not: that changes how
    fast the algorithm is, never the bound.

    Costs up to some hundred passes over the probabilities: 1,000 examples of 60 classes took
    0.1 CPU-seconds for 10 runs and 0.8 for 50 runs.

    Parameters
    ----------
    probabilities : array of float, (runs, examples, classes)
        At least 2 runs.
    tolerance : float
        The value is too small by at most this, in nats; at least 1e-9.

    Returns
    -------
    array of float, (examples,)
        Nats, 0 .. log(min(runs, classes)); 0 where all runs give the same probabilities.

    Raises
    ------
    InputError
        If the tolerance is below 1e-9, where rounding would decide.

    References
    ----------
    Blahut 1972; Arimoto 1972 (the algorithm; the proof of the bound is above). Hsu and Calmon
    2022 (arXiv 2206.01295).

    Examples
    --------
    A binary symmetric channel has log 2 less the entropy of its rows: log 2 + .9 log .9 + .1 log .1

    >>> channel_capacity([[[0.9, 0.1]], [[0.1, 0.9]]]).round(4).tolist()
    [0.3681]
    """
    probabilities = _probabilities(probabilities, least=2)
    if not tolerance >= 1e-9:
        raise InputError("tolerance", tolerance, "a number of at least 1e-9")
    runs, examples, classes = probabilities.shape
    block = max(1, BLOCK // (runs * classes))
    starts = range(0, examples, block)
    return np.concatenate(
        [_capacity(probabilities[:, start : start + block], tolerance) for start in starts]
    )


# ---- all in one table


def multiplicity_table(
    labels: ArrayLike,
    gold: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    *,
    n: int = 10,
    level: float = LEVEL,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """All metrics of this module for the runs of one arm, one row each, with intervals.

    Labels alone give ambiguity, discrepancy, consistency, share_inconsistent and abstention (of
    the selective ensemble); gold adds correct_consistency, negative_flip_rate (from one run to
    another of the same arm, where it equals the positive one) and McNemar; probabilities add the
    widths of the viable prediction range and Rashomon capacity.

    Ambiguity, discrepancy and prediction range are quoted at n runs; where an interval leaves
    fewer than n, at all that are left. Rashomon capacity, share_inconsistent and abstention take
    all runs: compare them between arms of equally many.

    An interval over runs evaluates each metric once more for every run. Labels of 50 runs and
    100,000 examples took 18 CPU-seconds; Rashomon capacity costs what `channel_capacity`
    says, times the number of runs.

    Parameters
    ----------
    labels : array of int, (runs, examples)
        At least 2 runs.
    gold : array of int, (examples,), optional
        The right answers.
    probabilities : array of float, (runs, examples, classes), optional
        Of the same runs and examples.
    n : int
        Number of runs that what grows with it is quoted at; all runs if there are fewer.
    level : float
        See `share_inconsistent`.
    alpha : float
        Level of the tests: McNemar's and the selective ensemble's.

    Returns
    -------
    pandas.DataFrame
        A row for each metric. `metric`; `n`, the number of runs that the value speaks of;
        `value`, `low`, `high`, `runs`, `note`, `se` and `df` of its interval; `source`. All are
        shares, but Rashomon capacity is a number of answers. McNemar is the share of pairs of runs
        that differ significantly in accuracy. It has no interval: the share is often 0, and the
        jackknife covered it in 45 % of our simulations of 5 runs (the other rows were covered in 92
        to 100 %, with 5, 10 and 20 runs).

    Raises
    ------
    InputError
        If arrays do not fit each other, or a setting lies outside of its range.

    Examples
    --------
    >>> labels = [[0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 1, 0]]
    >>> multiplicity_table(labels, n=3)[["metric", "n", "value"]].round(3)
                   metric  n  value
    0           ambiguity  3  0.500
    1         discrepancy  3  0.417
    2         consistency  2  0.667
    3  share_inconsistent  3  0.500
    4          abstention  3  1.000
    """
    labels = _labels(labels)
    runs, examples = labels.shape
    n = min(n, runs)

    inconsistent = partial(share_inconsistent, level=level)
    abstention = partial(_abstention, alpha=alpha)
    rows = [
        _row("ambiguity", n, MARX, _at_most(n, ambiguity), labels),
        _row("discrepancy", n, MARX, _at_most(n, discrepancy), labels),
        _row("consistency", 2, WANG, consistency, labels),
        _row("share_inconsistent", runs, "Cooper et al. 2024", inconsistent, labels),
        _row("abstention", runs, "Black, Leino & Fredrikson 2022", abstention, labels),
    ]
    known: tuple[ndarray, ...] = ()
    if gold is not None:
        gold = _gold(gold, examples)
        known = (gold,)
        significant = np.mean(_mcnemar_of_pairs(labels, gold) <= alpha)
        mcnemars = Interval(float(significant), math.nan, math.nan, runs)
        rows += [
            _row("correct_consistency", 2, WANG, correct_consistency, labels, known=known),
            _row("negative_flip_rate", 2, "Yan et al. 2021", _regressed, labels, known=known),
            _cells("mcnemar_significant", 2, "Fagerland, Lydersen & Laake 2013", mcnemars),
        ]
    if probabilities is not None:
        probabilities = _probabilities(probabilities)
        found, allowed = probabilities.shape[:2], f"{labels.shape}, those of labels"
        if found != labels.shape:
            raise InputError("runs and examples of probabilities", found, allowed)
        width, both = partial(_width, n), (labels, probabilities)
        source = "Watson-Daniels et al. 2022"
        rows += [
            _row("viable_prediction_range", n, source, width, *both, known=known),
            _row("rashomon_capacity", runs, "Hsu & Calmon 2022", _capacity_mean, probabilities),
        ]
    return pd.DataFrame(rows)


MARX = "Marx, Calmon & Ustun 2020"
WANG = "Wang et al. 2020; Bui, Savova & Wang 2025"


def _row(metric, quoted, source, statistic, *arrays, known=()):
    return _cells(metric, quoted, source, jackknife(statistic, *arrays, examples=known))


def _cells(metric, quoted, source, interval):
    return {"metric": metric, "n": quoted} | asdict(interval) | {"source": source}


def _at_most(n, metric):
    """The metric at n runs, or at as many as are left."""
    return lambda labels: metric(labels, min(n, len(labels)))


def _capacity_mean(probabilities):
    return rashomon_capacity(probabilities).mean()


def _abstention(labels, alpha):
    return np.mean(selective_answers(labels, alpha) == ABSTAINED)


def _regressed(labels, gold):
    return measures.churn_parts(labels, gold)["right_to_wrong"] / 2


def _mcnemar_of_pairs(labels, gold):
    """P-values of all pairs of runs: (pairs,)."""
    right = (labels == gold).astype(float)
    only_first = np.rint(right @ (1 - right).T)  # [i, j]: right in run i, wrong in run j
    first, second = np.triu_indices(len(labels), 1)
    return _mid_p(only_first[first, second], only_first[second, first])


def _width(n, labels, probabilities, gold=None):
    """Mean width of the viable prediction range; without gold, of the majority's answer."""
    chosen = measures.majority(labels)[0] if gold is None else gold
    low, high = viable_prediction_range(probabilities, chosen, min(n, len(labels)))
    return np.mean(high - low)


def _two_most_frequent(labels):
    """The answer most runs give, how many give it, and how many give the next: (examples,) each."""
    answer, most = measures.majority(labels)
    # In place of these votes each run has an answer of its own, which no other run gives.
    unlike = int(labels.max()) + 1 + np.arange(len(labels))
    others = np.where(labels == answer, unlike[:, None], labels)
    second = measures.majority(others)[1]
    return answer, most, np.where(most == len(labels), 0, second)


def _mid_p(one, other):
    """Two-sided mid-p of the split of one + other fair coins."""
    from scipy.stats import binom

    fewer, total = np.minimum(one, other), np.add(one, other)
    observed = binom.pmf(fewer, total, 0.5)
    uneven = 2 * binom.cdf(fewer, total, 0.5) - observed
    even = np.where(total == 0, 1, 1 - observed / 2)  # any other split is as uneven as this one
    return np.where(np.equal(one, other), even, uneven)


def _expected_largest(values, n):
    """For each column the mean over all draws of n of its values of the largest one."""
    ascending = np.sort(values, axis=0)
    rows = len(ascending)
    # a value is the largest of the draws that take the other n - 1 from those below it
    weights = [math.comb(below, n - 1) / math.comb(rows, n) for below in range(rows)]
    return np.tensordot(weights, ascending, axes=1)


def _capacity(probabilities, tolerance):
    """Channel capacity of a block of examples; those that are done leave it."""
    channels = np.moveaxis(probabilities, 0, 1).astype(float)  # (examples, runs, classes)
    channels /= channels.sum(axis=2, keepdims=True)
    negentropy = np.einsum("erc,erc->er", channels, _log(channels))
    examples, runs, _ = channels.shape
    weights = np.full((examples, runs), -math.log(runs))  # their logarithms: never quite 0
    lower, distances = _information(channels, negentropy, weights)
    capacity, step, left = np.empty(examples), np.ones(examples), np.arange(examples)
    while True:
        wide = distances.max(axis=1) - lower > tolerance
        capacity[left] = lower
        if not wide.any():
            return np.maximum(capacity, 0)
        left, step, lower = left[wide], step[wide], lower[wide]
        weights, distances = weights[wide], distances[wide]
        channels, negentropy = channels[wide], negentropy[wide]
        moved = weights + step[:, None] * distances
        moved -= np.logaddexp.reduce(moved, axis=1, keepdims=True)
        moved_lower, moved_distances = _information(channels, negentropy, moved)
        # a step of 1 is Blahut's and Arimoto's own, which never loses information
        taken = (moved_lower > lower) | (step == 1)
        weights = np.where(taken[:, None], moved, weights)
        distances = np.where(taken[:, None], moved_distances, distances)
        lower = np.where(taken, moved_lower, lower)
        step = np.where(taken, 2 * step, 1)


def _information(channels, negentropy, weights):
    """Of log weights (examples, runs): the information, (examples,), and each run's divergence
    from the mixture, (examples, runs)."""
    weights = np.exp(weights)
    mixture = weights[:, None] @ channels
    distances = negentropy - (channels @ np.swapaxes(_log(mixture), 1, 2))[..., 0]
    return np.einsum("er,er->e", weights, distances), distances


def _log(values):
    return np.log(np.maximum(values, np.finfo(float).tiny))
