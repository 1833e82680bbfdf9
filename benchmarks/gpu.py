"""Everything that needs a GPU, in one short call: runs stacked over seeds against Hugging Face's Trainer, one by one.

    python benchmarks/gpu.py                  # on MASSIVE where there is STABUTILS_DATA; writes records/gpu.json

Throughput is wall time on one GPU with everything else idle, texts of all runs together, in turns, at several numbers
of runs a stack. A whole study is trained stacked, for its accuracy, churn and time. Without a GPU the script runs on
the CPU, where its numbers mean little.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import padded
import torch
from measure import alternate, number, ratio, show, spread

from stabutils import metrics, records
from stabutils.data.datasets import load_dataset
from stabutils.metrics import intervals
from stabutils.mitigations import Mitigation
from stabutils.provenance import project_root, provenance
from stabutils.training.loop import batch_indices
from stabutils.training.networks import CompactShape
from stabutils.training.preparation import default_recipe, prepare, prepare_compact
from stabutils.training.stacked import Stack, train
from stabutils.training.state import Seeds
from stabutils.training.task import Task


def clock() -> float:
    """Wall time once the GPU has done all that it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def stacked(task: Task, runs: int, steps: int, device: str) -> None:
    """So many steps of so many runs at once."""
    seeds = [Seeds(s, s, s) for s in range(runs)]
    stack, done = Stack(task, Mitigation(), seeds, device), 0
    while done < steps:
        for rows in zip(
            *(batch_indices(stack.task, stack.targets, s.order, done) for s in seeds), strict=True
        ):
            stack.step(rows)
            done += 1
            if done == steps:
                break


def trainer(task: Task, steps: int, device: str) -> None:
    """So many steps of one run, by the Trainer."""
    with tempfile.TemporaryDirectory() as folder:
        network = padded.Padded(task.build().to(device))
        padded.trainer(task, network, steps, folder, device=device).train()


def half(task: Task) -> Task:
    return replace(task, recipe=replace(task.recipe, precision="bf16"))


def throughput(task: Task, sizes: list[int], steps: int, rounds: int, device: str) -> dict:
    """Texts a second of the Trainer, one run after another, and of stacks of several sizes; memory of each stack."""
    rows, found, batch = {}, {}, task.recipe.batch_size
    for name, precise in (("fp32", task), ("bf16", half(task))):
        # Each way does its own amount of work; `alternate` counts rounds, so texts are multiplied in after it.
        ways = {f"Trainer {name}": lambda t=precise: trainer(t, steps, device)}
        ways |= {
            f"{runs} runs {name}": lambda t=precise, r=runs: stacked(t, r, steps, device)
            for runs in sizes
        }
        for way, turns in alternate(ways, rounds, steps * batch, clock).items():
            rows[way] = [
                turn * (1 if way.startswith("Trainer") else int(way.split()[0])) for turn in turns
            ]
    for way, row in rows.items():
        found[f"texts per second {way}"] = spread(row, "texts per second of all runs")
    largest = 10 if 10 in sizes else max(sizes)
    for suffix, name in (("", "fp32"), ("_bf16", "bf16")):
        found[f"gpu_ratio{suffix}"] = ratio(rows, f"{largest} runs {name}", f"Trainer {name}")
    return found | {
        f"gpu_memory {runs} runs": peak(task, runs, device) for runs in sizes if device == "cuda"
    }


def peak(task: Task, runs: int, device: str) -> dict:
    torch.cuda.reset_peak_memory_stats()
    stacked(task, runs, 3, device)
    return spread([torch.cuda.max_memory_allocated() / 1e6], "MB")


def study(task: Task, runs: int, device: str) -> dict:
    """Accuracy, churn and seconds of a whole study of so many runs, trained stacked."""
    found = {}
    for name, precise in (("fp32", task), ("bf16", half(task))):
        began = clock()
        answers = train(precise, Mitigation(), [Seeds(s, s, s) for s in range(runs)], device)
        found[f"seconds of {runs} runs {name}"] = spread([clock() - began], "seconds")
        labels = np.stack([each["labels"] for each in answers])
        accuracy = metrics.accuracy(labels, task.test_labels)
        found[f"accuracy {name}"] = number(
            intervals.jackknife(np.mean, accuracy), "share of examples"
        )
        found[f"churn {name}"] = number(
            intervals.jackknife(metrics.churn, labels), "share of examples"
        )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset", default="massive" if os.environ.get("STABUTILS_DATA") else "assistant"
    )
    parser.add_argument(
        "--checkpoint", default="", help="also measure this one: a folder or hub id"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 2, 5, 10, 25], help="runs a stack"
    )
    parser.add_argument("--runs", type=int, default=10, help="of the study")
    parser.add_argument("--steps", type=int, default=300, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of the study; default: the recipe's")
    parser.add_argument("-o", "--output", default=str(project_root() / "records"))
    given = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_dataset(given.dataset)
    recipe = default_recipe("compact", len(data.train))
    recipe = replace(recipe, epochs=given.epochs or recipe.epochs)
    # Throughput by two layers of width 128, as everywhere in the benchmark; the study by compact as it is.
    numbers = throughput(
        prepare_compact(data, recipe, CompactShape(layers=2)),
        given.sizes,
        given.steps,
        given.rounds,
        device,
    )
    numbers |= study(prepare_compact(data, recipe, CompactShape()), given.runs, device)
    if given.checkpoint:
        task = prepare(given.checkpoint, data, default_recipe(given.checkpoint, len(data.train)))
        found = study(
            replace(task, recipe=replace(task.recipe, epochs=given.epochs or task.recipe.epochs)),
            given.runs,
            device,
        )
        numbers |= {f"checkpoint {name}": value for name, value in found.items()}
    about = {
        name: value for name, value in vars(given).items() if name not in ("output", "checkpoint")
    }
    about |= {
        "checkpoint": Path(given.checkpoint).name,
        "epochs": recipe.epochs,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    record = records.Record("gpu", about, provenance(), numbers)
    show(numbers)
    print(record.write(Path(given.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
