"""What stands beside every network: the linear models of its corpus, which no seed changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils.analysis.board import WORDS_ALONE, in_words, over_linear
from stabutils.data.linear import ALL, Linear
from stabutils.metrics import scores
from stabutils.metrics.intervals import GUARD
from stabutils.study.runs import Runs, of_answers
from stabutils.study.study import Study

ALL_LAYERS = "linear (both, all layers)"
FROZEN = {
    "linear (frozen)": Linear("frozen", "logistic"),
    "linear (both)": Linear("both"),
    ALL_LAYERS: Linear("both", layer=ALL),
}


def kinds_of(study: Study) -> dict[str, Linear]:
    """Settings of the linear models of a study's corpus, by name.

    Of a checkpoint also those on its vectors without fine-tuning, alone and beside TF-IDF.
    """
    words = {WORDS_ALONE: Linear("tfidf")}
    return words | FROZEN if study.task.pretrained else words


def linear_models(study: Study) -> dict[str, ndarray]:
    """Labels (queries,) of the linear models of a study's corpus, by name."""
    return {name: own.argmax(axis=1) for name, own in linear_probabilities(study).items()}


def linear_probabilities(
    study: Study, data: int | None = None, kinds: Mapping[str, Linear] | None = None
) -> dict[str, ndarray]:
    """Probabilities (queries, classes) of the linear models of a study's corpus, by name.

    data : the data seed, where the study changes its training data
    kinds : settings by name; those of `kinds_of` where none are given
    """
    from stabutils.mitigations import Mitigation
    from stabutils.training.features import linear_logits
    from stabutils.training.loop import build_targets
    from stabutils.training.state import Seeds

    targets = build_targets(study.task, Mitigation(), Seeds(0, 0, 0, data))
    task = targets.task or study.task
    return {
        name: np.exp(linear_logits(task, settings, "test", targets.indices))
        for name, settings in (kinds or kinds_of(study)).items()
    }


def of_changed_data(study: Study, seeds: ndarray) -> dict[str, Runs]:
    """The linear models of changed training data, one for each data seed, as Runs by name.

    Without the one on frozen vectors alone, which is not mixed in. That on all layers, whose fits
    take a minute each, keeps the strength that is chosen on all training texts.
    """
    from stabutils.training.features import linear_strength

    kinds = kinds_of(study)
    kinds.pop("linear (frozen)", None)
    if ALL_LAYERS in kinds:
        strength = linear_strength(study.task, kinds[ALL_LAYERS])
        kinds[ALL_LAYERS] = replace(kinds[ALL_LAYERS], strengths=(strength,))
    answers = [linear_probabilities(study, int(seed), kinds) for seed in seeds]
    found = {}
    for name in kinds:
        own = np.stack([each[name] for each in answers])
        found[name] = of_answers(name, own.argmax(-1), study.data.test.labels, seeds, own)
    return found


def beside(control: Runs, linear: Mapping[str, ndarray], model: str) -> pd.DataFrame:
    """A network and the linear models of its corpus, one a row: model, accuracy, churn, runs.

    linear : labels (queries,) by name
    """
    accuracy = scores.accuracy(control.labels, control.gold).interval()
    churn = scores.churn(control.labels).interval()
    rows = [{"model": model, "accuracy": accuracy, "churn": churn, "runs": len(control)}]
    for name, labels in linear.items():
        accuracy = scores.accuracy(labels[None], control.gold).interval()
        rows.append({"model": name, "accuracy": accuracy, "churn": "0 (no seed)", "runs": 1})
    return pd.DataFrame(rows)


def behind_linear(control: Runs, linear: Mapping[str, ndarray]) -> str:
    """What to do where control is significantly less accurate than the best linear model; else "".

    linear : labels (queries,) by name
    """
    best = max(linear, key=lambda name: np.mean(linear[name] == control.gold))
    lead = over_linear(control, linear)
    if not lead.high < 0:
        return ""
    shown = in_words("accuracy_change", lead)
    return (
        f"Control is less accurate than a linear model, {best}: {shown}. Train longer (epochs), on "
        "more texts, or use the linear model: what follows is about a network that has not learned "
        "what can be learned here."
    )


def unsettled(control: Runs) -> str:
    """What to do where accuracy still rose as training ended; "" where it did not, or nobody knows.

    Over the last ninth of the checkpoints, one at least: significantly, and by half a point.
    """
    if control.checkpoints is None or control.checkpoints.shape[1] < 2:
        return ""
    count = control.checkpoints.shape[1]
    before = control.checkpoints[:, min(count - 2, round(count * 8 / 9) - 1)]
    last, earlier = (scores.accuracy(own, control.gold) for own in (control.labels, before))
    rise = scores.change(last, earlier, [control.seeds] * 2)
    if not (rise.low > 0 and rise.value > GUARD):
        return ""
    shown = in_words("accuracy_change", rise)
    return f"Accuracy still rose when training ended, by {shown}: train longer (epochs)."


def not_learned(control: Runs, linear: Mapping[str, ndarray]) -> str:
    """What to do where control has not learned what can be learned here; "" where it has."""
    return "\n".join(filter(None, (behind_linear(control, linear), unsettled(control))))
