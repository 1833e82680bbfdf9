"""TGTSS with its settings chosen: what does it buy, and how much of that is what the teacher knows?

    python benchmarks/tgtss.py              # nine settings of each, five seeds, validation: records/massive/tgtss.csv
    python benchmarks/tgtss.py --confirm    # the chosen, twenty seeds that chose nothing, test: 09_tgtss.json

Matched smoothing, which is as smooth and knows nothing, has the same nine settings to choose from. All teachers are the
runs' own, but for the shared arm.
"""
from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

from stabutils import board, frontier, metrics, records, tuning
from stabutils.baseline import convex_labels
from stabutils.committed import publishing
from stabutils.intervals import Interval, jackknife_arms
from stabutils.mitigations import describe, price
from stabutils.mitigations.data_centric import TGTSS, MatchedSmoothing
from stabutils.provenance import project_root
from stabutils.study import Runs, Study

MEMBERS = 10
SETTINGS = [{"temperature": temperature, "mixing": mixing} for temperature in (1.0, 2.0, 4.0)
            for mixing in (0.3, 0.5, 0.7)]
CANDIDATES = {f"{name}, temperature {each['temperature']:g}, mixing {each['mixing']:g}": kind(**each)
              for name, kind in (("TGTSS", TGTSS), ("matched smoothing", MatchedSmoothing)) for each in SETTINGS}


def chosen(table: pd.DataFrame, name: str) -> str:
    """The candidate of a method that disagrees least on validation, of those that keep control's accuracy, or of all
    where none does."""
    own = table[table.candidate.str.startswith(f"{name},")].set_index("candidate")
    return (own[own.kept] if own.kept.any() else own).label_entropy.idxmin()


def arms(table: pd.DataFrame) -> dict[str, TGTSS]:
    """What is confirmed, each once: the defaults, one shared teacher, the chosen ones, and matched smoothing at TGTSS's
    choice."""
    best = CANDIDATES[chosen(table, "TGTSS")]
    named = {"TGTSS": TGTSS(), "TGTSS (shared teacher)": TGTSS(shared=True), "matched smoothing": MatchedSmoothing(),
             "TGTSS (chosen)": best,
             "matched smoothing (as chosen TGTSS)": MatchedSmoothing(temperature=best.temperature, mixing=best.mixing),
             "matched smoothing (chosen)": CANDIDATES[chosen(table, "matched smoothing")]}
    last = {describe(arm): name for name, arm in named.items()}  # one that is the default goes by its other name
    return {name: arm for name, arm in named.items() if last[describe(arm)] == name}


def measure(control: Runs, trained: dict[str, Runs], placebo: Runs, convex, costs
            ) -> tuple[dict[str, Interval], tuple[records.Claim, ...]]:
    """The board; what the chosen TGTSS has over the two smoothings beside it (nats of LE@5), and shares of what
    ensembles of control's runs take away, which vote where committed answers are labels."""
    table = board.board(control, trained, placebo=placebo, convex=convex, costs=costs)
    numbers, claims = board.found(table), board.claims(table)
    past = trained["TGTSS (chosen)"]
    for name in trained.keys() & {"matched smoothing (as chosen TGTSS)", "matched smoothing (chosen)"}:
        even = trained[name]
        n = min(5, len(even) - 1, len(past) - 1)
        gap = jackknife_arms(lambda a, b, n=n: metrics.label_entropy(a, n).mean() - metrics.label_entropy(b, n).mean(),
                             [even.labels, past.labels], [even.seeds, past.seeds])
        numbers[f"label_entropy gap, {name} less TGTSS (chosen)"] = gap
        claims.append(records.claim(f"more than {name}", f"TGTSS (chosen) flips less than {name}: LE@{n} lower by "
                                    "{value} nats.", gap, 0))
    how = "vote" if control.probabilities is None else "probability"
    kind = {"vote": "vote", "probability": "ensemble"}[how]
    pool = frontier.Pool(control, how)
    if len(control) >= 3 * MEMBERS:
        shares = {name: frontier.share(pool, trained[name], MEMBERS) for name in ("TGTSS", "TGTSS (chosen)")
                  if name in trained}
        numbers |= {f"share_of_{kind} {name}": share for name, share in shares.items()}
        claims.append(records.claim("nine tenths", f"TGTSS (chosen) takes away {{value}} of what a {kind} of {MEMBERS} "
                                    "does.", shares["TGTSS (chosen)"], 0.9))
    return numbers, tuple(claims)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="massive")
    parser.add_argument("--runs", type=int, help="trainings: 5 to try, 20 to confirm")
    parser.add_argument("--control", type=int, default=50, help="runs of control to confirm against")
    parser.add_argument("--confirm", action="store_true")
    parser.add_argument("-o", "--output", help="folder (default: records/ of the corpus)")
    given = parser.parse_args(argv)
    study = Study(dataset=given.dataset, runs=given.control)
    folder = Path(given.output or project_root() / "records" / given.dataset)
    if not given.confirm:
        table = tuning.try_out(study, CANDIDATES, given.runs or 5)
        tuning.write(table, folder / "tgtss.csv")
        print(table.to_string())
        return 0
    runs, used = given.runs or 20, arms(pd.read_csv(folder / "tgtss.csv"))
    with nullcontext() if given.output else publishing():
        control, placebo = study.retrain("control"), study.retrain("control", n=runs, start=study.runs)
        trained = {name: study.retrain(arm, n=runs) for name, arm in used.items()}
    numbers, claims = measure(control, trained, placebo, convex_labels(study.data),
                              {name: price(arm, study.task.recipe) for name, arm in used.items()})
    about = study.about() | {"arms": {name: describe(arm) for name, arm in used.items()}}
    record = records.Record("09_tgtss", asdict(study) | {"runs_per_method": runs}, about, records.numbers(numbers),
                            claims)
    print("\n".join(f"{name:<60}{value}" for name, value in numbers.items()))
    print(record.write(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
