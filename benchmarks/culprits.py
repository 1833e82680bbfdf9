"""Do the examples that influence blames for flips deserve it? Remove or soften them, train again,
and look.

On the embedded corpus: `python benchmarks/culprits.py` writes records/assistant/04_culprits.json.
Examples are chosen with seeds 0 to 9 and judged with seeds 100 and on, against as many drawn at
random; about ten CPU-minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from stabutils import metrics, records
from stabutils.analysis import influence
from stabutils.metrics.intervals import Interval, jackknife, jackknife_arms
from stabutils.mitigations import Mitigation, interventions
from stabutils.provenance import project_root, provenance
from stabutils.study.runs import Runs
from stabutils.study.study import Study

START, FEW, MANY, QUERIES = 100, 30, 70, 20


def blamed(
    study: Study, queries: np.ndarray, majority: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training examples: those that raise the doubt of the majority's answer to some test
    queries most, and those that raise the loss on the validation texts most.
    """
    turnover = interventions.TurnOver()
    seen = study.retrain(turnover, keep=influence.KEEP)
    doubt = influence.of_runs(seen, turnover, majority, "doubt", queries=queries).mean((0, 1))
    gold = study.data.validation.labels
    loss = influence.of_runs(seen, turnover, gold, "loss", split="validation").mean((0, 1))
    return np.argsort(doubt, kind="stable")[:FEW], np.argsort(loss, kind="stable")[:MANY]


def arms(
    blamed_few: np.ndarray, blamed_many: np.ndarray, examples: int
) -> dict[str, Mitigation | str]:
    draw = np.random.default_rng(0)
    chance = {size: tuple(draw.choice(examples, size, replace=False)) for size in (FEW, MANY)}
    return {
        "control": "control",
        f"{FEW} culprits dropped": interventions.Without(tuple(blamed_few)),
        f"{FEW} at random dropped": interventions.Without(chance[FEW]),
        f"{MANY} harmful dropped": interventions.Without(tuple(blamed_many)),
        f"{MANY} harmful softened": interventions.Without(tuple(blamed_many), 0.3),
        f"{MANY} at random dropped": interventions.Without(chance[MANY]),
    }


def compare(one: Runs, other: Runs, score: Callable[[np.ndarray], float]) -> Interval:
    """The score of one arm less that of the other; runs of equal seed are pairs."""
    return jackknife_arms(
        lambda a, b: score(a) - score(b), [one.labels, other.labels], [one.seeds, other.seeds]
    )


def measure(found: dict[str, Runs], queries: np.ndarray) -> dict[str, Interval]:
    gold = found["control"].gold

    def right(labels):
        return float(np.mean(labels == gold))

    def on_queries(labels):
        return float(metrics.churn(labels[:, queries]))

    scores = {"churn": metrics.churn, "churn on queries": on_queries, "accuracy": right}
    numbers = {
        f"{name} {arm}": jackknife(score, runs.labels)
        for arm, runs in found.items()
        for name, score in scores.items()
    }
    pairs = (
        (f"{FEW} culprits dropped", f"{FEW} at random dropped"),
        (f"{MANY} harmful dropped", "control"),
        (f"{MANY} harmful dropped", f"{MANY} at random dropped"),
        (f"{MANY} harmful softened", "control"),
    )
    return numbers | {
        f"{name} change, {one} against {other}": compare(found[one], found[other], score)
        for one, other in pairs
        for name, score in scores.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="retrainings of each arm")
    parser.add_argument("-o", "--output", default=str(project_root() / "records" / "assistant"))
    given = parser.parse_args(argv)
    study = Study()
    control = study.retrain("control")
    entropy = metrics.label_entropy(control.labels)
    queries = np.argsort(-entropy, kind="stable")[:QUERIES]
    few, many = blamed(study, queries, metrics.majority(control.labels)[0])
    found = {
        name: study.retrain(arm, n=given.runs, start=START)
        for name, arm in arms(few, many, len(study.data.train)).items()
    }
    numbers = measure(found, queries)
    wrong = np.char.startswith(np.array(study.data.train.tags), "noise")
    numbers |= {
        f"precision planted wrong, {name}": Interval(
            *[float(wrong[rows].mean())] * 3, runs=len(control)
        )
        for name, rows in ((f"{FEW} culprits", few), (f"{MANY} harmful", many))
    }
    record = records.Record(
        "04_culprits",
        asdict(study) | {"runs_per_arm": given.runs},
        provenance(),
        records.numbers(numbers),
    )
    print("\n".join(f"{name:<70}{value}" for name, value in numbers.items()))
    print(record.write(Path(given.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
