"""A sweep of 10,000 simulated runs: does the store stay linear, and the memory of the driver level?

Answers are drawn instead of trained; files, checks, reading and analysis are the real ones. Each
thousand is one corpus of 100 checkpoints with 10 runs each. `python benchmarks/sweep.py [runs]
[examples] [classes]`
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time

import numpy as np

from stabutils import metrics
from stabutils.metrics.intervals import jackknife
from stabutils.study.runs import summarise
from stabutils.study.store import Store


def answers(draw: np.random.Generator, examples: int, classes: int) -> dict[str, np.ndarray]:
    """What a training leaves: like `training.train`."""
    probabilities = draw.dirichlet(np.full(classes, 0.1), examples).astype(np.float32)
    labels = probabilities.argmax(1)
    return {
        "labels": labels,
        "probabilities": probabilities,
        "checkpoints": np.stack([labels] * 4),
        "confidence": np.stack([probabilities.max(1)] * 4),
        "validation_labels": labels[: examples // 4],
        "validation_probabilities": probabilities[: examples // 4],
        "cpu_seconds": np.array(1.0),
    }


def thousand(store: Store, corpus: int, runs: int, examples: int, classes: int) -> dict[str, float]:
    """Write, read and analyse one corpus's runs; CPU seconds of each, and the driver's memory
    afterwards.
    """
    draw, gold, began = (
        np.random.default_rng(corpus),
        np.arange(examples) % classes,
        time.process_time(),
    )
    made = [answers(draw, examples, classes) for _ in range(10)]
    drawn = time.process_time()
    names = [f"corpus-{corpus}-run-{run}" for run in range(runs)]
    for run, name in enumerate(names):
        store.write(
            name, made[run % 10], {"label": name, "identity": {"corpus": corpus, "run": run}}
        )
    written = time.process_time()
    for arm in np.array_split(names, max(1, runs // 10)):
        read = [store.read(name)[0] for name in arm]
        labels = np.stack([run["labels"] for run in read])
        summaries = [summarise(run, gold) for run in read]
        jackknife(metrics.churn, labels), np.mean([summary["accuracy"] for summary in summaries])
    analysed = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "corpus": corpus,
        "write": written - drawn,
        "read and analyse": analysed - written,
        "draw": drawn - began,
        "peak memory in MiB": peak,
    }


def main(runs: int = 10_000, examples: int = 200, classes: int = 20) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for corpus in range(10):
            rows.append(thousand(store, corpus, runs // 10, examples, classes))
            print(
                json.dumps({name: round(value, 2) for name, value in rows[-1].items()}), flush=True
            )
        size = sum(path.stat().st_size for path in store.folder.glob("*.safetensors"))
        print(f"{runs} runs, {size / runs / 1024:.1f} KiB each, {size / 2**20:.0f} MiB")
    return rows


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
