"""How trained networks answer texts that were changed a little, compared with retraining.

plain, changed = answered(study, variants_of(study.data.test.texts), n=10)
compared(plain, changed, study.data.test.labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy import ndarray

from stabutils.analysis import board
from stabutils.data import perturb
from stabutils.data.perturb import PERTURBATIONS
from stabutils.errors import InputError
from stabutils.metrics import detection, scores
from stabutils.metrics.intervals import over_both
from stabutils.metrics.measures import churn
from stabutils.records import Number
from stabutils.study.runs import Run
from stabutils.study.study import Arm, Study, StudyOfTexts
from stabutils.training import files

KEEP = ("out_of_scope",)  # the probe that answers texts beside the test split
COLUMNS = {  # of `compared`, to be shown
    "kind": "change of the texts",
    "share_changed": "answers changed",
    "accuracy": "accuracy on changed texts",
    "churn": "churn on changed texts",
    "correlation": "correlation with label entropy",
    "auroc": "AUROC of finding it",
}
Variants = Mapping[str, Sequence[Sequence[str]]]  # by kind of change, lists of texts


def variants_of(texts: Sequence[str], draws: int = 2) -> dict[str, list[list[str]]]:
    """Texts with words left out, with typos and with synonyms: for each kind so many draws.

    A kind that changes no text, such as synonyms of another language, is left out.
    """
    if isinstance(texts, str):
        raise InputError("texts", texts, "a list of texts")
    found = {}
    for kind in PERTURBATIONS:
        changed = [perturb.perturbed(texts, kind, seed) for seed in range(draws)]
        if changed != [list(texts)] * draws:
            found[kind] = changed
    return found


class Beside(StudyOfTexts):
    """A study whose runs answer changed test texts too, and have names of their own for it."""

    def identify(self, mitigation, seeds):
        run, texts = super().identify(mitigation, seeds), self.data.out_of_scope["test"]
        digest = files.digest(list(texts))
        return Run(f"{run.label} perturbed", seeds, run.identity | {"beside": digest})


def beside(study: Study, variants: Variants) -> Beside:
    """The study with changed texts beside its test split, where no training sees them.

    Raises InputError where a list is not as long as the test split.
    """
    examples = len(study.data.test)
    lists = [texts for draws in variants.values() for texts in draws]
    if wrong := [len(texts) for texts in lists if len(texts) != examples]:
        raise InputError("texts of a variant", wrong[0], f"{examples}, as many as test texts")
    every = tuple(text for texts in lists for text in texts)
    return Beside.with_data(study, replace(study.data, out_of_scope={"test": every}))


def answered(
    study: Study,
    variants: Variants,
    mitigation: Arm = "control",
    n: int | None = None,
) -> tuple[ndarray, dict[str, ndarray]]:
    """What the runs of an arm answer to the test texts, and to changed versions of them.

    The runs are trained once more, with the changed texts beside the test split, where no training
    sees them; they are stored under names of their own.

    Parameters
    ----------
    study : whose data, model and recipe they have.
    variants : for each kind of change, several lists of texts (draws, examples).
    mitigation, n : as of `Study.retrain`.

    Returns
    -------
    Labels (runs, examples) of the test texts, and for each kind (runs, draws, examples).

    Raises
    ------
    InputError where a list is not as long as the test split, Incomplete as `Study.retrain`.
    """
    runs = beside(study, variants).retrain(mitigation, n, keep=KEEP)
    labels = runs.extras["out_of_scope"].argmax(-1)
    labels = labels.reshape(len(runs), -1, len(study.data.test))
    ends = np.cumsum([len(draws) for draws in variants.values()])
    return runs.labels, dict(zip(variants, np.split(labels, ends[:-1], axis=1), strict=True))


def flips(plain: ndarray, changed: ndarray) -> ndarray:
    """Share of the changed versions that a run answers otherwise than the text itself.

    Parameters
    ----------
    plain : labels (runs, examples). changed : labels (runs, draws, examples).

    Returns
    -------
    (runs, examples), 0 to 1; 0 where no change of the text changes the answer.

    Examples
    --------
    >>> flips([[0, 1]], [[[0, 1], [0, 2]]])
    array([[0. , 0.5]])
    """
    return (np.asarray(changed) != np.asarray(plain)[:, None]).mean(axis=1)


def compared(plain: ndarray, changed: Mapping[str, ndarray], gold: ndarray) -> pd.DataFrame:
    """How many answers change when a text is perturbed, and whether these are the ones that
    retraining changes.

    Parameters
    ----------
    plain : labels (runs, examples), at least 4 runs.
    changed : for each kind of perturbation labels (runs, draws, examples).
    gold : labels (examples,).

    Returns
    -------
    One row a kind, intervals over runs and queries: share_changed (of the answers, 0 to 1; compare
    with the churn of `plain`), accuracy on the perturbed texts, churn (between runs on the same
    perturbed texts), and of a run's flips against the label entropy of all other runs, by query:
    correlation (Spearman, -1 to 1) and auroc (of finding those that a tenth of the other runs
    change, 0.5 is blind). Empty columns where all other runs agree on every query, or on none.
    """
    shares = {kind: flips(plain, labels) for kind, labels in changed.items()}
    points = detection.judge(shares, plain)
    ranks = detection.judge(shares, plain, detection.ORDERS)
    rows = []
    for kind, labels in changed.items():
        right = (labels == gold).mean(axis=1)
        rows.append(
            {
                "kind": kind,
                "share_changed": scores.of_runs(shares[kind], (0, 1)).interval(),
                "accuracy": scores.of_runs(right, (0, 1)).interval(),
                "churn": over_both(_mean_churn, labels.swapaxes(1, 2)).within(0, 1),
                "correlation": ranks.get(kind),
                "auroc": points.get(kind),
            }
        )
    return pd.DataFrame(rows)


def numbers(table: pd.DataFrame) -> list[Number]:
    """The intervals of `compared`, as a record keeps them."""
    by_kind = table.rename(columns={"kind": "arm"})
    return board.numbers(by_kind, list(COLUMNS)[1:], "changed texts")


def _mean_churn(labels: ndarray) -> float:
    """Of labels (runs, examples, draws): between runs that answer the same draw."""
    return float(np.mean([churn(draw) for draw in np.moveaxis(labels, 2, 0)]))
