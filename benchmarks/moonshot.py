"""How much of what an ensemble of ten takes away can one network do? What was tried, by the rules
of notebook 06.

    python benchmarks/moonshot.py              # every candidate, three seeds, validation:
    records/massive/moonshot.csv python benchmarks/moonshot.py --confirm    # the one chosen, twenty
    fresh seeds, test: 07_moonshot.json

Control's architecture, one pass an answer, at most three trainings' cost, nothing that a random
training made shared between runs, and accuracy not below control's by more than half a point.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from stabutils import records
from stabutils.analysis import board, ensembles
from stabutils.metrics.intervals import Interval, jackknife_arms
from stabutils.mitigations import Mitigation, describe, price, resolve
from stabutils.mitigations.data_centric import TemporalEnsembling
from stabutils.mitigations.regularizers import (
    CoDistillation,
    DropoutRate,
    LongerTraining,
    RDrop,
    WeightDecay,
)
from stabutils.provenance import project_root, provenance
from stabutils.study import tuning
from stabutils.study.runs import Runs
from stabutils.study.study import Study

MEMBERS, MOST = 10, 3.0  # of the ensemble; trainings


@dataclass(frozen=True)
class Start(Mitigation):
    """Begins *compact* from embeddings `scale` times as large, and passes the layer by for a share
    `skip` of texts.
    """

    scale: float = 1.0
    skip: float = 0.5

    def model(self, build):
        model = build()
        with torch.no_grad():
            model.table.weight *= self.scale
            model.position.weight *= self.scale
        for layer in model.layers:
            layer.shape = replace(layer.shape, skip=self.skip)
        return model


@dataclass(frozen=True)
class ConvexTeacher(Mitigation):
    """Trains towards (1 - mixing) * label + mixing * what a logistic regression on words answers,
    out of fold. It is convex: the same for every run, without any training's randomness.
    """

    mixing: float = 0.5

    def data(self, targets):
        texts, labels = targets.texts.take(targets.indices), targets.probabilities.argmax(1).numpy()
        rows = np.repeat(np.arange(len(labels)), texts.lengths.numpy())
        words = TfidfTransformer(sublinear_tf=True).fit_transform(
            csr_array((np.ones(len(rows)), (rows, texts.ids.numpy())))
        )
        answers = np.zeros(targets.probabilities.shape, np.float32)
        for kept, out in StratifiedKFold(5).split(words, labels):
            learner = LogisticRegression(C=20.0, max_iter=100).fit(words[kept], labels[kept])
            answers[np.ix_(out, learner.classes_)] = learner.predict_proba(words[out])
        return targets.with_labels(
            (1 - self.mixing) * targets.probabilities + self.mixing * torch.from_numpy(answers)
        )


PAST = TemporalEnsembling()
STEADY = (RDrop(1.0), WeightDecay(40.0), PAST)
CANDIDATES: dict[str, Mitigation | tuple[Mitigation, ...]] = {
    "R-Drop": RDrop(1.0),
    "co-distillation": CoDistillation(1.0),
    "R-Drop 0.5, temporal ensembling": (RDrop(), PAST),
    "R-Drop 0.5, temporal ensembling, decay 10": (RDrop(), WeightDecay(10.0), PAST),
    "R-Drop 0.5, temporal ensembling, decay 40": (RDrop(), WeightDecay(40.0), PAST),
    "R-Drop 0.5, temporal ensembling, decay 100": (RDrop(), WeightDecay(100.0), PAST),
    "R-Drop, temporal ensembling, decay 40, 13 epochs": (*STEADY, LongerTraining(1.45)),
    "R-Drop, temporal ensembling, decay 40, 14 epochs": (*STEADY, LongerTraining(1.5)),
    "R-Drop, temporal ensembling, decay 40, half of the dropout": (*STEADY, DropoutRate(0.5)),
    "R-Drop, temporal ensembling, decay 40, a quarter of the dropout": (*STEADY, DropoutRate(0.25)),
    "R-Drop 3, temporal ensembling, decay 40, half of the dropout": (
        RDrop(3.0),
        *STEADY[1:],
        DropoutRate(0.5),
    ),
    "all of it: half of the dropout, 13 epochs": (*STEADY, DropoutRate(0.5), LongerTraining(1.45)),
    "all of it: half of the dropout, 14 epochs": (*STEADY, DropoutRate(0.5), LongerTraining(1.5)),
    "R-Drop 0.5, temporal ensembling, decay 10, convex teacher": (
        RDrop(),
        WeightDecay(10.0),
        PAST,
        ConvexTeacher(),
    ),
    "small start, layer mostly skipped": Start(0.1, 0.9),
    "large start": Start(3.0),
}
# with 14, two passes a step come to more than three trainings
CHOSEN = "all of it: half of the dropout, 13 epochs"


def confirmed(
    control: Runs, chosen: Runs, cost: tuple[float, float], beside: Runs
) -> tuple[dict[str, Interval], tuple[records.Claim, ...]]:
    """What the chosen one does on fresh seeds, on the test split, against control and ensembles of
    control's runs; and its CPU-seconds against those of control runs that were trained beside
    it.
    """
    table = board.board(control, {"moonshot": chosen}, costs={"moonshot": cost})
    how = "vote" if control.probabilities is None else "probability"
    share = ensembles.share(ensembles.Pool(control, how), chosen, MEMBERS)
    numbers = {
        name: number for name, number in board.found(table).items() if name.endswith(" moonshot")
    }
    claims = (
        *board.claims(table),
        records.claim(
            "nine tenths",
            f"It takes away {{value}} of what an ensemble of {MEMBERS} does.",
            share,
            0.9,
        ),
    )
    seconds = jackknife_arms(
        lambda one, other: np.mean(one) / np.mean(other),
        [chosen.cpu_seconds, beside.cpu_seconds],
        [chosen.seeds, beside.seeds],
    )
    numbers |= {
        f"share_of_ensemble moonshot, ensemble of {MEMBERS}": share,
        "cpu_ratio moonshot": seconds,
    }
    return numbers, claims


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="massive")
    parser.add_argument(
        "--runs",
        type=int,
        help="trainings: 3 to try, 20 to confirm; control's own to confirm are 50",
    )
    parser.add_argument("--confirm", action="store_true")
    parser.add_argument("-o", "--output", help="folder (default: records/ of the corpus)")
    given = parser.parse_args(argv)
    study, folder = (
        Study(dataset=given.dataset, runs=50),
        Path(given.output or project_root() / "records" / given.dataset),
    )
    if not given.confirm:
        table = tuning.try_out(study, CANDIDATES, given.runs or 3)
        tuning.write(table, folder / "moonshot.csv")
        print(table.to_string())
        return 0
    arm = resolve(CANDIDATES[CHOSEN])
    chosen = study.retrain(arm, n=given.runs or 20)  # seeds that chose nothing
    if not given.output:
        study.publish(chosen)
    beside = replace(study, published=False).retrain(
        "control", n=3, start=tuning.START
    )  # those of the trial
    numbers, claims = confirmed(
        study.retrain("control"), chosen, price(arm, study.task.recipe), beside
    )
    record = records.Record(
        "07_moonshot",
        asdict(study) | {"chosen": describe(arm)},
        provenance(),
        records.numbers(numbers),
        claims,
    )
    print("\n".join(f"{name:<50}{value}" for name, value in numbers.items()))
    print(record.write(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
