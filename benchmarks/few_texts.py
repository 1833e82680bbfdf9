"""How accurate are networks of a few texts an intent? `python benchmarks/few_texts.py` writes
records/<corpus>/few_texts.json.

`compact` with nine epochs, with those that it has by default there, and the linear model of words
beside it, all on the same texts, on the test texts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import stabutils as st
from stabutils import records
from stabutils.analysis.baselines import linear_models
from stabutils.analysis.reliability import few_shot
from stabutils.metrics import scores
from stabutils.provenance import project_root, provenance

NINE = 9  # epochs of `compact` where texts are many


def accuracies(study: st.Study, size: int) -> Iterator[records.Number]:
    """Accuracy of each with at most so many training texts an intent."""
    few = few_shot(study, size)
    nine = few_shot(replace(study, epochs=NINE), size)
    runs = few.retrain("control")
    answers = {"nine epochs": nine.retrain("control").labels, "control": runs.labels}
    for name, labels in linear_models(few).items():
        answers[name] = labels[None]
    for arm, labels in answers.items():
        accuracy = scores.accuracy(labels, runs.gold).interval()
        yield records.number("accuracy", accuracy, arm, f"{size} texts an intent")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["banking77", "clinc150"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[5, 10], help="texts an intent")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", help="folder of records (default: records/)")
    given = parser.parse_args(argv)
    root = Path(given.output or project_root() / "records")
    for dataset in given.datasets:
        study = st.Study(dataset=dataset, runs=given.runs)
        numbers = [number for size in given.sizes for number in accuracies(study, size)]
        about = asdict(study) | {"sizes": given.sizes}
        record = records.Record("few_texts", about, provenance(), tuple(numbers))
        print(record.write(root / study.data.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
