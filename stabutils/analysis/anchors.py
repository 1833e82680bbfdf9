"""Runs beside an anchor, and the controls that keep it honest: what any other voter would do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stabutils.analysis.ensembles import check
from stabutils.metrics import accuracy, ece, nll
from stabutils.metrics.mixtures import Mixture
from stabutils.study.runs import Runs, take


def mixed(runs: Runs, test: Mixture, validation: Mixture | None = None, arm: str = "") -> Runs:
    """Runs that answer with an anchor, to be scored or put on a board.

    What they said in the course of their training is left out. validation: the anchor on the
    validation texts; without it validation labels stay the networks' own. Raises InputError for
    runs without probabilities.
    """
    check(runs, "probability")
    answers = test(runs.probabilities).astype(np.float32)
    labels, changes = answers.argmax(-1), {}
    if validation is not None and runs.validation_probabilities is not None:
        held_out = validation(runs.validation_probabilities).astype(np.float32)
        changes["validation_labels"] = held_out.argmax(-1)
        changes["validation_probabilities"] = held_out
    over_checkpoints = ("checkpoint_entropy", "confidence_mean", "confidence_spread")
    unknown = dict.fromkeys((*over_checkpoints, "checkpoints", "confidence"))
    return replace(
        runs,
        arm=arm or f"{runs.arm} with anchor, weight {test.weight:g}",
        labels=labels,
        probabilities=answers,
        accuracy=accuracy(labels, runs.gold),
        nll=nll(answers, runs.gold),
        ece=ece(answers, runs.gold),
        doubt=1 - answers.max(-1),
        extras={},
        **unknown,
        **changes,
    )


def with_fixed_run(runs: Runs, weight: float, kind: str = "geometric") -> Runs:
    """All runs but the first, which stands beside every one of them as an anchor does.

    Any fixed voter reduces churn; this one is an artefact of a random training that the runs
    share, and the arm says so. For a service it is an option: keep the deployed model as a voter
    when it is updated, at two passes an answer.
    """
    check(runs, "probability")
    first = Mixture(runs.probabilities[0], weight, kind)
    arm = f"{runs.arm} with a shared run, weight {weight:g}"
    return mixed(take(runs, np.arange(1, len(runs))), first, arm=arm)


def with_own_run(runs: Runs, weight: float = 0.5, kind: str = "geometric") -> Runs:
    """Pairs of runs that share no member, `weight` for the second: at a half an ensemble of two."""
    check(runs, "probability")
    pairs = len(runs) // 2
    second = Mixture(runs.probabilities[pairs : 2 * pairs], weight, kind)
    arm = f"{runs.arm} with a run of its own, weight {weight:g}"
    return mixed(take(runs, np.arange(pairs)), second, arm=arm)
