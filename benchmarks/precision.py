"""Does training in bf16 change what the runs answer? `python benchmarks/precision.py` writes
records/<corpus>/precision.json.

The same seeds in both precisions: churn and accuracy of each, their difference, and how often an
answer changes when nothing but the precision does, beside how often it does when the seed does.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import stabutils as st
from stabutils import records
from stabutils.metrics.intervals import jackknife, jackknife_arms
from stabutils.provenance import project_root, provenance
from stabutils.study.runs import Runs


def measure(full: Runs, half: Runs) -> list[records.Number]:
    """Churn and accuracy in fp32 and bf16, bf16 less fp32, and churn between the two trainings of
    each seed.
    """
    labels, seeds = [full.labels, half.labels], [full.seeds, half.seeds]
    found = []
    for name, score in (
        ("churn", st.metrics.churn),
        ("accuracy", lambda rows: float(np.mean(rows == full.gold))),
    ):
        change = jackknife_arms(lambda a, b, score=score: score(b) - score(a), labels, seeds)
        found += [
            records.number(name, jackknife(score, full.labels), "fp32"),
            records.number(name, jackknife(score, half.labels), "bf16"),
            records.number(f"{name}_change", change, "bf16"),
        ]
    of_equal_seeds = jackknife(np.mean, (full.labels != half.labels).mean(1))
    return [*found, records.number("churn", of_equal_seeds, "bf16", "equal seeds")]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="assistant")
    parser.add_argument("--runs", type=int, default=20, help="trainings in each precision")
    parser.add_argument("-o", "--output", help="folder (default: records/ of the corpus)")
    given = parser.parse_args(argv)
    full, half = (
        st.Study(dataset=given.dataset, runs=given.runs, precision=each)
        for each in ("fp32", "bf16")
    )
    numbers = measure(full.retrain("control"), half.retrain("control"))
    about = asdict(half) | {"precision": "fp32 and bf16"}
    record = records.Record("precision", about, provenance(), tuple(numbers))
    print("\n".join(f"{number.key:<32}{number.interval}" for number in numbers))
    print(record.write(Path(given.output or project_root() / "records" / given.dataset)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
