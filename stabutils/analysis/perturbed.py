"""How trained networks answer texts that were changed a little, compared with retraining.

variants = {"typos": [typos(study.data.test.texts, 0.1, seed) for seed in range(5)]}
plain, changed = answered(study, variants, n=10)
compared(plain, changed, study.data.test.labels)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from stabutils.errors import InputError
from stabutils.metrics import detection
from stabutils.metrics.intervals import jackknife
from stabutils.metrics.measures import churn
from stabutils.study.dispatch import Dispatch
from stabutils.study.runs import Run
from stabutils.study.study import Arm, Study, requested
from stabutils.training import files

KEEP = ("out_of_scope",)  # the probe that answers texts beside the test split


def answered(
    study: Study,
    variants: Mapping[str, Sequence[Sequence[str]]],
    mitigation: Arm = "control",
    n: int | None = None,
    start: int = 0,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the runs of an arm answer to the test texts, and to changed versions of them.

    The runs are trained once more, with the changed texts beside the test split, where no training
    sees them; they are stored under names of their own.

    Parameters
    ----------
    study : whose data, model and recipe they have.
    variants : for each kind of change, several lists of texts (draws, examples).
    mitigation, n, start : as of `Study.retrain`.

    Returns
    -------
    Labels (runs, examples) of the test texts, and for each kind (runs, draws, examples).

    Raises
    ------
    InputError where a list is not as long as the test split, Incomplete as `Study.retrain`.
    """
    from stabutils.mitigations.composition import resolve
    from stabutils.training import preparation

    examples = len(study.data.test)
    lists = [texts for draws in variants.values() for texts in draws]
    if wrong := [len(texts) for texts in lists if len(texts) != examples]:
        raise InputError("texts of a variant", wrong[0], f"{examples}, as many as test texts")
    beside = tuple(text for texts in lists for text in texts)
    data = replace(study.data, out_of_scope={"test": beside})
    task = preparation.prepare(study.model, data, study.task.recipe, study.pooling)
    digest = hashlib.sha256(files.canonical(list(beside)).encode()).hexdigest()

    def identify(mitigation, seeds):
        run = study.identify(mitigation, seeds)
        return Run(f"{run.label} perturbed", seeds, run.identity | {"beside": digest})

    mitigation = resolve(mitigation)
    request = requested(study, mitigation, n, start)
    runs = [identify(mitigation, run.seeds) for run in request.runs]
    dispatch = Dispatch(task, study.answers, identify, study.workers, study.cluster)
    dispatch.train(mitigation, runs, KEEP)
    asked = (study.answers.stored(run, KEEP) for run in runs)
    stored = [answers for answers in asked if answers is not None]
    plain = np.stack([answers["labels"] for answers in stored]).astype(np.int64)
    labels = np.stack([answers["kept.out_of_scope"].argmax(-1) for answers in stored])
    labels = labels.reshape(len(runs), len(lists), examples)
    ends = np.cumsum([len(draws) for draws in variants.values()])
    return plain, dict(zip(variants, np.split(labels, ends[:-1], axis=1), strict=True))


def flips(plain: np.ndarray, changed: np.ndarray) -> np.ndarray:
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


def compared(
    plain: np.ndarray, changed: Mapping[str, np.ndarray], gold: np.ndarray
) -> pd.DataFrame:
    """How many answers change when a text is perturbed, and whether these are the ones that
    retraining changes.

    Parameters
    ----------
    plain : labels (runs, examples), at least 4 runs.
    changed : for each kind of perturbation labels (runs, draws, examples).
    gold : labels (examples,).

    Returns
    -------
    One row a kind, intervals over runs: flips (share of the answers that change, 0 to 1; compare
    with the churn of `plain`), accuracy on the perturbed texts, churn (between runs on the same
    perturbed texts), and of a run's flips against the label entropy of all other runs, query by
    query: rank_correlation (Spearman, -1 to 1) and auroc (of finding any entropy, 0.5 is blind).
    Empty columns where all other runs agree on every query, or on none.
    """
    shares = {kind: flips(plain, labels) for kind, labels in changed.items()}
    points = detection.judge(shares, plain)
    ranks = detection.judge(shares, plain, detection.ORDERS)
    rows = []
    for kind, labels in changed.items():
        right = (labels == gold).mean(axis=(1, 2))
        rows.append(
            {
                "kind": kind,
                "flips": jackknife(np.mean, shares[kind].mean(axis=1)),
                "accuracy": jackknife(np.mean, right),
                "churn": jackknife(_mean_churn, labels),
                "rank_correlation": ranks.get(kind),
                "auroc": points.get(kind),
            }
        )
    return pd.DataFrame(rows)


def _mean_churn(labels: np.ndarray) -> float:
    """Of labels (runs, draws, examples): between runs that answer the same draw."""
    return float(np.mean([churn(draw) for draw in labels.swapaxes(0, 1)]))
