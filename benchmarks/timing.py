"""CPU-seconds until a training first reaches an accuracy on the validation split; evaluations are not counted."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import padded
import pandas as pd
import torch
from measure import number, spread
from transformers import TrainerCallback

from stabutils.metrics import intervals
from stabutils.mitigations import Mitigation
from stabutils.training.loop import batches, one_step, optimizer_of, predict
from stabutils.training.state import Seeds, Stream, Training, one_hot
from stabutils.training.task import Recipe, Task

SHARE = 0.99  # of the accuracy the Trainer ends at: between one seed and the next the last hundredth comes and goes

Curve = list[tuple[float, float]]  # CPU-seconds and validation accuracy, several times an epoch


class Watch:
    """A clock that stands still while the accuracy is looked up."""

    def __init__(self, accuracy: Callable[[], float]):
        self.accuracy, self.began, self.curve = accuracy, time.process_time(), []

    def look(self) -> None:
        stopped = time.process_time()
        self.curve.append((stopped - self.began, self.accuracy()))
        self.began += time.process_time() - stopped


def looks(task: Task, each_epoch: int = 4) -> set[int]:
    """The steps after which to look: the last one and `each_epoch` an epoch."""
    steps = math.ceil(len(task.train_labels) / task.recipe.batch_size)
    total = steps * task.recipe.epochs
    return {
        math.ceil(total * k / (each_epoch * task.recipe.epochs))
        for k in range(1, each_epoch * task.recipe.epochs + 1)
    }


def accuracy(network: torch.nn.Module, task: Task, labels: np.ndarray) -> float:
    with Stream("look", 0):
        return float(
            (predict(network, task.validation, task.recipe).argmax(1).numpy() == labels).mean()
        )


def ours(task: Task, labels: np.ndarray, seed: int) -> Curve:
    """The package's own loop."""
    with Stream("init", seed):
        network = task.build()
    watch, at = Watch(lambda: accuracy(network, task, labels)), looks(task)
    targets = one_hot(task.train_labels, task.classes)
    training = Training(
        task,
        Mitigation(),
        Seeds(seed, seed, seed),
        network,
        optimizer_of(network, task.recipe),
        max(at),
    )
    network.train()
    for epoch in range(task.recipe.epochs):
        dropout = Stream("dropout", seed, epoch)
        for batch in batches(task, targets, seed, epoch):
            one_step(training, batch, dropout)
            if training.step in at:
                watch.look()
    return watch.curve


def trainers(task: Task, labels: np.ndarray, seed: int) -> Curve:
    """Hugging Face's Trainer on the same network."""
    with Stream("init", seed):
        network = task.build()
    watch, at = Watch(lambda: accuracy(network, task, labels)), looks(task)

    class Look(TrainerCallback):
        def on_train_begin(self, arguments, state, control, **others):
            watch.began = time.process_time()

        def on_step_end(self, arguments, state, control, **others):
            if state.global_step in at:
                watch.look()

    with tempfile.TemporaryDirectory() as folder:
        padded.trainer(
            task, padded.Padded(network), max(at), folder, seed, callbacks=[Look()]
        ).train()
    return watch.curve


def reached(curves: np.ndarray, reference: float) -> float:
    """Seconds at which the mean of the curves (seeds, looks, 2) reaches the reference; infinite where it never does.

    >>> reached(np.array([[(1, 0.5), (3, 0.6)], [(2, 0.5), (4, 0.8)]]), 0.7)
    3.5
    """
    seconds, accuracy = curves.mean(0).T
    there = accuracy >= reference - 1e-9
    return float(seconds[there.argmax()]) if there.any() else math.inf


def time_to_accuracy(
    task: Task,
    labels: np.ndarray,
    our_recipe: Recipe,
    trainer_recipe: Recipe,
    reference: float | None,
    seeds: Sequence[int],
) -> tuple[dict, pd.DataFrame]:
    """CPU-seconds in which both first reach the reference, on the mean over the seeds, and their ratio; and the curves
    behind it, one row a look: way, seed, seconds, accuracy.

    `labels` are the validation split's; a reference of None is `SHARE` of the accuracy at which the Trainer ends. Where
    the reference is never reached there is no ratio, and the record has none.
    """
    ways = (
        (trainers, replace(task, recipe=trainer_recipe)),
        (ours, replace(task, recipe=our_recipe)),
    )
    found = [
        [way(recipe, labels, seed) for way, recipe in ways] for seed in seeds
    ]  # in turns: both share what slows
    theirs, mine = (np.array(curves) for curves in zip(*found, strict=True))

    def goal(theirs: np.ndarray) -> float:
        return SHARE * theirs[:, -1, 1].mean() if reference is None else reference

    def times(theirs: np.ndarray, mine: np.ndarray) -> float:
        return reached(theirs, goal(theirs)) / reached(mine, goal(theirs))

    share, found = "share of validation examples", {}
    for name, curves in (("Trainer", theirs), ("ours", mine)):
        found[f"final accuracy {name}"] = spread(curves[:, -1, 1], share)
        if math.isfinite(seconds := reached(curves, goal(theirs))):
            found[f"seconds_to_reference {name}"] = spread([seconds], "CPU-seconds")
    ratio = intervals.jackknife(times, theirs, mine)
    if np.isfinite([ratio.low, ratio.high]).all() and ratio.value > 0:
        found["time_to_accuracy_ratio"] = number(ratio, "times")
    curves = pd.DataFrame(
        [
            {"way": name, "seed": seed, "seconds": seconds, "accuracy": accuracy}
            for name, every in (("Trainer", theirs), ("ours", mine))
            for seed, curve in zip(seeds, every, strict=True)
            for seconds, accuracy in curve
        ]
    )
    return found | {"reference_accuracy": spread([goal(theirs)], share)}, curves
