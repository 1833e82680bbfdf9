"""What wrong training labels do: to label entropy, to the queries near them, and what is learned of
them by heart.

arms = noisy_arms(shares_of("2, 5, 10"), {"R-Drop": RDrop(1.0)})
noisy = {key: study.retrain(arm, n=5) for key, arm in arms.items()}
table({"control": study.retrain(n=5)}, noisy)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils import records
from stabutils.analysis import anchors, board, enrichment
from stabutils.data.datasets import Split
from stabutils.errors import InputError, floats
from stabutils.metrics.intervals import Interval, jackknife
from stabutils.metrics.mixtures import Mixture
from stabutils.mitigations import resolve
from stabutils.mitigations.interventions import LabelNoise
from stabutils.records import Number
from stabutils.study.runs import Runs
from stabutils.study.study import Arm, Study, with_training_texts
from stabutils.training.state import Seeds

Key = tuple[str, str, float]  # arm, kind of noise, share of the training labels
KINDS = ("uniform", "confusable")
NEAREST = 10  # training texts of a query
MEASURES = ("label_entropy", "churn", "accuracy")
METHODS = ("R-Drop", "label smoothing", "TGTSS", "TGTSS (chosen)")
ANCHORED = "anchored at a half"
COLUMNS = {  # of `table` and `by_heart`, to be shown
    "arm": "trained as",
    "noise": "share of wrong labels",
    "label_entropy": "label entropy (nats)",
    "churn": "churn",
    "accuracy": "accuracy",
    "half_way": "learned by heart half-way",
    "memorised": "at the end",
}


def shares_of(text: str) -> tuple[float, ...]:
    """The shares of labels that a notebook lists in percent; none for "" and "0".

    Raises
    ------
    InputError

    Examples
    --------
    >>> shares_of("2, 10"), shares_of("")
    ((0.02, 0.1), ())
    """
    if text.strip() in ("", "0"):
        return ()
    percents = sorted(set(floats("noise", text)))
    if not 0 < percents[0] <= percents[-1] < 100:
        raise InputError("noise", text, "percents above 0 and below 100, separated by commas")
    return tuple(percent / 100 for percent in percents)


def noisy_arms(shares: Sequence[float], methods: Mapping[str, Arm]) -> dict[Key, Arm]:
    """What is trained on wrong labels of both kinds: control at each share, METHODS at the largest.

    methods : of a notebook, of which those are taken
    """
    arms: dict[Key, Arm] = {}
    for kind in KINDS:
        for share in shares:
            arms["control", kind, share] = "control"
        for name in METHODS if shares else ():
            if name in methods:
                arms[name, kind, shares[-1]] = methods[name]
    return arms


def request(study: Study, key: Key, arm: Arm) -> tuple[Study, Arm]:
    """Which study is asked for which arm, to train on the wrong labels of a key.

    An arm that has teachers is asked of `mislabelled`, whose teachers learn from wrong labels too.
    """
    _, kind, share = key
    method = resolve(arm)
    if method.teacher_seeds(Seeds(0, 0, 0)):
        return mislabelled(study, kind, share), method
    return study, (LabelNoise(share, kind), method)


def mislabelled(study: Study, kind: str, share: float) -> Study:
    """The study with the wrong labels that LabelNoise draws.

    What it trains is stored and never published: its corpus is another one.
    """
    texts = study.data.train.texts
    return with_training_texts(study, Split(texts, labels_of(study, kind, share)))


def retrained(study: Study, arms: Mapping[Key, Arm], n: int) -> dict[Key, Runs]:
    """The runs of `noisy_arms`, those of the largest share with keep=("training",).

    These are asked for without it as well: what a run answers to the training texts is too much to
    be published, and its other answers are not.
    """
    found, largest = {}, _largest(arms)
    for key, arm in arms.items():
        keep = ("training",) if key[2] == largest else ()
        own, asked = request(study, key, arm)
        found[key] = own.retrain(asked, n=n, keep=keep)
        if keep:
            own.retrain(asked, n=n)
    return found


def _largest(arms: Mapping[Key, object]) -> float:
    """The largest share of noise; 0 where there is none."""
    return max((share for _, _, share in arms), default=0.0)


def anchored(study: Study, noisy: Mapping[Key, Runs]) -> dict[Key, Runs]:
    """Control on the most wrong labels of each kind, `at_half` with a linear model of the same
    labels."""
    largest = _largest(noisy)
    return {
        (ANCHORED, kind, share): at_half(mislabelled(study, kind, share), runs)
        for (name, kind, share), runs in noisy.items()
        if name == "control" and share == largest
    }


def at_half(study: Study, runs: Runs) -> Runs:
    """Runs beside the linear model of a study's training texts, at a weight of one half."""
    return anchors.mixed(runs, Mixture(anchors.anchor_of(study), 0.5))


def labels_of(study: Study, kind: str, share: float) -> ndarray:
    """The labels that noisy runs of the study are trained on: (training examples,)."""
    task = study.task
    return LabelNoise(share, kind).labels(task.train_labels, task.classes, task.train)


def table(clean: Mapping[str, Runs], noisy: Mapping[Key, Runs], n: int = 5) -> pd.DataFrame:
    """How stable and how accurate runs are by the noise that they are trained on.

    Parameters
    ----------
    clean : runs of each arm on the labels as they are, as many as on noisy ones.
    noisy : runs by arm, kind and share of the noise.
    n : votes of label entropy, where there are so many runs.

    Returns
    -------
    One row an arm, kind and share, 0 included: arm (and kind, in words), noise (share), and as
    intervals over runs and queries label_entropy (nats), churn and accuracy (shares).
    """
    rows, least = [], min(map(len, [*clean.values(), *noisy.values()]))
    pairs = dict.fromkeys((arm, kind) for arm, kind, _ in noisy)
    every = {(*pair, 0.0): clean[pair[0]] for pair in pairs} | dict(noisy)
    for (arm, kind, share), runs in every.items():
        rows.append(
            {
                "arm": f"{arm}, {kind}",
                "noise": share,
                **board.measured(runs, min(n, least)),
            }
        )
    return pd.DataFrame(rows)


def of_kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind of noise in `table`, its arms without the kind."""
    ending = f", {kind}"
    rows = table[table.arm.str.endswith(ending)]
    return rows.assign(arm=rows.arm.str.removesuffix(ending))


def by_heart(study: Study, noisy: Mapping[Key, Runs]) -> pd.DataFrame:
    """How much of the wrong labels networks answer with, early and at the end.

    noisy : runs by arm, kind and share; those without keep=("training",) are left out

    Returns
    -------
    One row an arm and kind: noise (the share), half_way and memorised (at the end), shares of the
    wrong labels as intervals over runs.
    """
    rows = []
    for (arm, kind, share), runs in noisy.items():
        if "training" not in runs.extras:
            continue
        labels = labels_of(study, kind, share)
        found = memorised(runs.extras["training"], study.data.train.labels, labels)
        half_way, last = found[:, (found.shape[1] - 1) // 2], found[:, -1]
        row = {"arm": f"{arm}, {kind}", "noise": share}
        row["half_way"] = jackknife(np.mean, half_way).within(0, 1)
        rows.append(row | {"memorised": jackknife(np.mean, last).within(0, 1)})
    return pd.DataFrame(rows)


def memorised(training: ndarray, labels: ndarray, noisy: ndarray) -> ndarray:
    """How much of planted label noise a network has learned by heart, checkpoint by checkpoint.

    Parameters
    ----------
    training : probabilities on the training split (..., training examples, classes), such as
        `runs.extras["training"]` (runs, checkpoints, training examples, classes).
    labels : (training examples,) as they were. noisy : likewise, as the network was trained on.

    Returns
    -------
    (...), 0 to 1: the share of the examples with another label that are answered with it.

    Raises
    ------
    InputError where no label differs.

    Examples
    --------
    >>> memorised(np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]]), [0, 0, 0], [1, 0, 1])
    array(0.5)
    """
    labels, noisy = np.asarray(labels), np.asarray(noisy)
    planted = labels != noisy
    if not planted.any():
        raise InputError("noisy labels", 0, "at least one that differs")
    answers = np.asarray(training)[..., planted, :].argmax(-1)
    return np.asarray((answers == noisy[planted]).mean(-1))


def noise_nearby(
    train: Sequence[str], noisy: ndarray, texts: Sequence[str], neighbours: int = NEAREST
) -> ndarray:
    """The share of the nearest training texts whose label was replaced: (texts,), 0 to 1.

    Parameters
    ----------
    train : training texts. noisy : bool (training texts,), whose label was replaced.
    texts : queries. neighbours : how many of the training texts, by the cosine of TF-IDF vectors.

    Examples
    --------
    >>> train = ["play jazz", "play rock", "wake me"]
    >>> noise_nearby(train, np.array([True, False, False]), ["jazz please", "wake"], neighbours=1)
    array([1., 0.])
    """
    nearest, _ = enrichment.nearest_rows(train, texts, neighbours)
    return np.asarray(noisy)[nearest].mean(axis=1)


def nearby(study: Study, share: float) -> ndarray:
    """`noise_nearby` of the test texts; both kinds of noise replace the labels of the same texts.

    Which texts these are is a draw, so that what differs near them is the noise's doing.
    """
    train, test = study.data.train, study.data.test
    planted = labels_of(study, KINDS[0], share) != train.labels
    return noise_nearby(train.texts, planted, test.texts)


def groups_of(near: ndarray, least: int = 5) -> dict[str, ndarray]:
    """Queries by how many of their nearest training texts have a wrong label: bool (queries,).

    Groups of fewer than `least` queries are left out.

    Examples
    --------
    >>> list(groups_of(np.array([0, 0, 0.1, 0.3, 0.2]), least=2))
    ['none nearby', '2 or more nearby']
    """
    count = np.rint(near * NEAREST)
    groups = {
        "none nearby": count == 0,
        "1 nearby": count == 1,
        "2 or more nearby": count > 1,
    }
    return {name: here for name, here in groups.items() if here.sum() >= least}


def correlations(noisy: Mapping[Key, Runs], near: ndarray) -> dict[str, Interval]:
    """Rank correlation of control's label entropy with the wrong labels near a query, by kind.

    noisy : of which control's runs on most noise of each kind count. near : (queries,), `nearby`.
    """
    attribute, found = pd.DataFrame({"near": near}), {}
    for kind in KINDS:
        runs = noisy["control", kind, _largest(noisy)]
        found[kind] = enrichment.gradients(runs.labels, attribute)["near"]
    return found


def numbers(
    response: pd.DataFrame, learned: pd.DataFrame, correlations: Mapping[str, Interval]
) -> list[Number]:
    """What `table`, `by_heart` and `correlations` found, as a record keeps it."""
    found = []
    for measured in (response, learned):
        for name in measured.columns.intersection([*MEASURES, "half_way", "memorised"]):
            for arm, share, value in zip(measured.arm, measured.noise, measured[name], strict=True):
                found.append(records.number(name, value, arm, f"{100 * share:.3g} % wrong labels"))
    near = {f"near {kind} noise": value for kind, value in correlations.items()}
    return found + records.by_condition("correlation", "control", near)
