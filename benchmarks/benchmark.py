"""What a retraining costs here, against what people would use: `make benchmark` writes records/benchmark.json.

Everything is measured side by side in one process tree, alternating, in CPU-seconds on one thread; a ratio is the mean
over the rounds with a t interval over them. Wall time is used only where two workers are set against one.
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import padded
import torch
from joblib import Parallel, delayed

from stabutils import intervals, metrics, records
from stabutils.datasets import load_dataset
from stabutils.mitigations import Mitigation
from stabutils.models import COMPACT, CompactShape, Task, prepare_compact
from stabutils.provenance import project_root, provenance
from stabutils.training import Batch, Seeds, Stream, Training, batches, one_hot, one_step, optimizer_of

Rows = dict[str, list[float]]


def endless(task: Task) -> Iterator[Batch]:
    targets = one_hot(task.train_labels, task.classes)
    return chain.from_iterable(batches(task, targets, 0, epoch) for epoch in range(10**6))


def ours(task: Task, steps: int) -> None:
    """So many steps of the package's own loop."""
    network = task.build()
    network.train()
    training = Training(task, Mitigation(), Seeds(0, 0, 0), network, optimizer_of(network, task.recipe), steps)
    dropout = Stream("dropout", 0)
    for _, batch in zip(range(steps), endless(task), strict=False):
        one_step(training, batch, dropout)


def throughput(task: Task, steps: int, rounds: int) -> Rows:
    """Texts a CPU-second of each way to train, round by round; the first steps of a process are not counted."""
    half = replace(task, recipe=replace(task.recipe, precision="bf16"))
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], object]] = {
            "Trainer": lambda: padded.trainer(task, padded.Padded(task.build()), steps, folder).train(),
            "plain loop": lambda: padded.plain_loop(task, padded.Padded(task.build()), steps),
            "ours": lambda: ours(task, steps), "ours bf16": lambda: ours(half, steps)}
        return alternate(ways, rounds, steps * task.recipe.batch_size)


def alternate(ways: dict[str, Callable[[], object]], rounds: int, work: float) -> Rows:
    """Work done a CPU-second, one entry a round; a round before them all warms up."""
    found: Rows = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number:
                found[name].append(work / (time.process_time() - began))
    return found


def analysis(runs: int = 50, examples: int = 100_000, classes: int = 150, rounds: int = 3) -> Rows:
    """Label entropies a CPU-second: ours, and a loop over numpy.unique (on a hundredth of the examples)."""
    labels = np.random.default_rng(0).integers(0, classes, (runs, examples), np.uint8)

    def loop(columns: np.ndarray) -> None:
        for column in columns.T:
            share = np.unique(column, return_counts=True)[1] / runs
            -(share * np.log(share)).sum()

    ours_ = alternate({"ours": lambda: metrics.label_entropy(labels)}, rounds, examples)
    return ours_ | alternate({"loop": lambda: loop(labels[:, :examples // 100])}, rounds, examples / 100)


def workers(task: Task, steps: int, rounds: int) -> Rows:
    """Trainings a second of wall time, by one worker process and by two."""
    found: Rows = {"one": [], "two": []}
    for number in range(rounds + 1):
        for name, count in (("one", 1), ("two", 2)):
            began = time.perf_counter()
            Parallel(n_jobs=count, backend="loky")(delayed(alone)(task, steps) for _ in range(2))
            if number:
                found[name].append(2 / (time.perf_counter() - began))
    return found


def alone(task: Task, steps: int) -> None:
    torch.set_num_threads(1)
    ours(task, steps)


def ratio(rows: Rows, above: str, below: str) -> intervals.Interval:
    """How many times as fast, round by round, with its interval over the rounds."""
    return intervals.jackknife(np.mean, np.array(rows[above]) / np.array(rows[below]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="massive" if os.environ.get("STABUTILS_DATA") else "assistant")
    parser.add_argument("--steps", type=int, default=100, help="training steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", default=str(project_root() / "records"))
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    # Two layers of width 128, as in the published comparison of small encoders, at compact's own recipe.
    task = prepare_compact(load_dataset(given.dataset), COMPACT, CompactShape(layers=2))
    speed, pair = throughput(task, given.steps, given.rounds), workers(task, given.steps, given.rounds)
    votes = analysis()
    found = {"throughput_ratio_fp32": ratio(speed, "ours", "Trainer"),
             "throughput_ratio_bf16": ratio(speed, "ours bf16", "Trainer"),
             "throughput_ratio_plain": ratio(speed, "plain loop", "Trainer"),
             "two_worker_ratio": ratio(pair, "two", "one"), "entropy_ratio": ratio(votes, "ours", "loop")}
    numbers = {name: {"value": i.value, "low": i.low, "high": i.high, "runs": i.runs, "unit": "times"}
               for name, i in found.items()}
    numbers |= {f"texts per CPU-second {name}": {"value": float(np.mean(rows)), "low": min(rows), "high": max(rows),
                                                "runs": len(rows), "unit": "texts per CPU-second, lowest and highest"}
                for name, rows in speed.items()}
    about = {"dataset": given.dataset, "steps": given.steps, "rounds": given.rounds, "layers": 2, "width": 128}
    record = records.Record("benchmark", about, provenance() | {"load": os.getloadavg()}, numbers)
    for name, interval in found.items():
        print(f"{name:<24}{interval}")
    print(record.write(Path(given.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
