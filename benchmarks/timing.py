"""Seconds until a training first reaches an accuracy on the validation split; evaluations are not
counted."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import padded
import pandas as pd
from measure import number, spread
from transformers import TrainerCallback

from stabutils.metrics import intervals
from stabutils.mitigations import Mitigation
from stabutils.training.loop import batches, one_step, predict, started
from stabutils.training.stacked import Stack
from stabutils.training.state import Batch, Seeds, Stream, Training
from stabutils.training.task import Recipe, Task

SHARE = 0.99  # of the Trainer's last accuracy: between two seeds the last hundredth comes and goes
CONTROL = Mitigation()

Curve = list[tuple[float, float]]  # seconds and validation accuracy, several times an epoch
Clock = Callable[[], float]


class Watch:
    """A clock that stands still while the accuracy is looked up."""

    def __init__(self, accuracy: Callable[[], object], clock: Clock = time.process_time):
        self.accuracy, self.clock, self.began, self.curve = accuracy, clock, clock(), []

    def look(self) -> None:
        stopped = self.clock()
        self.curve.append((stopped - self.began, self.accuracy()))
        self.began += self.clock() - stopped


def looks(task: Task, each_epoch: int = 4) -> set[int]:
    """The steps after which to look: the last one and `each_epoch` an epoch."""
    steps = math.ceil(len(task.train_labels) / task.recipe.batch_size)
    total = steps * task.recipe.epochs
    return {
        math.ceil(total * k / (each_epoch * task.recipe.epochs))
        for k in range(1, each_epoch * task.recipe.epochs + 1)
    }


def right(labels: np.ndarray, training: Training) -> np.ndarray:
    """Validation accuracy of a training, of each of its runs where it has several."""
    found = training.predict(training.model, training.task.validation).argmax(-1).numpy()
    return (found == labels).mean(-1)


def followed(
    training: Training, epochs: Callable[[int], Iterable[Batch]], watch: Watch, at: set[int]
) -> Curve:
    """The curve of a training that begins now."""
    for epoch in range(training.task.recipe.epochs):
        dropout = training.stream("dropout", epoch)
        training.model.train()
        for batch in epochs(epoch):
            one_step(training, batch, dropout)
            if training.step in at:
                watch.look()
    return watch.curve


def ours(
    task: Task,
    labels: np.ndarray,
    seed: int,
    device: str = "cpu",
    clock: Clock = time.process_time,
    mitigation: Mitigation = CONTROL,
) -> Curve:
    """The package's own loop, one run; what a mitigation does before the first step counts."""
    watch = Watch(lambda: right(labels, training), clock)
    training = started(task, mitigation, Seeds(seed, seed, seed), device=device)
    epochs = partial(batches, training.task, training.targets.to(device), seed)
    return followed(training, epochs, watch, looks(task))


def together(
    task: Task,
    labels: np.ndarray,
    seeds: Sequence[int],
    device: str,
    clock: Clock = time.process_time,
) -> list[Curve]:
    """Runs trained at once: for each of them its accuracy, and its share of the seconds."""
    watch = Watch(lambda: right(labels, stack), clock)
    stack = Stack(task, CONTROL, [Seeds(seed, seed, seed) for seed in seeds], device)
    curve = followed(stack, stack.batches, watch, looks(task))
    return [
        [(seconds / len(seeds), accuracies[place]) for seconds, accuracies in curve]
        for place in range(len(seeds))
    ]


def trainers(
    task: Task,
    labels: np.ndarray,
    seed: int,
    device: str = "cpu",
    clock: Clock = time.process_time,
) -> Curve:
    """Hugging Face's Trainer on the same network."""
    with Stream("init", seed):
        network = task.build().to(device)
    validation = task.validation.to(device)

    def accuracy() -> float:
        answers = predict(network, validation, task.recipe).argmax(1).numpy()
        return float((answers == labels).mean())

    watch, at = Watch(accuracy, clock), looks(task)

    class Look(TrainerCallback):
        def on_train_begin(self, arguments, state, control, **others):
            watch.began = clock()

        def on_step_end(self, arguments, state, control, **others):
            if state.global_step in at:
                watch.look()

    with tempfile.TemporaryDirectory() as folder:
        made = padded.trainer(
            task, padded.of(network), max(at), folder, seed, device, callbacks=[Look()]
        )
        made.train()
    return watch.curve


def reached(curves: np.ndarray, reference: float) -> float:
    """Seconds at which the mean of the curves (seeds, looks, 2) reaches the reference; infinite
    where it never does.

    >>> reached(np.array([[(1, 0.5), (3, 0.6)], [(2, 0.5), (4, 0.8)]]), 0.7)
    3.5
    """
    seconds, accuracy = curves.mean(0).T
    there = accuracy >= reference - 1e-9
    return float(seconds[there.argmax()]) if there.any() else math.inf


def compared(
    theirs: np.ndarray, mine: np.ndarray, reference: float | None, unit: str
) -> dict[str, dict]:
    """Seconds in which the Trainer and we first reach the reference, on the mean over the seeds,
    and their ratio.

    Parameters
    ----------
    theirs, mine : (seeds, looks, 2)
        Curves.
    reference : float or None
        An accuracy; None is `SHARE` of the accuracy at which the Trainer ends.

    Returns
    -------
    dict
        Numbers of a record. Where the reference is never reached there is no ratio among them.
    """

    def goal(theirs: np.ndarray) -> float:
        return SHARE * theirs[:, -1, 1].mean() if reference is None else reference

    def times(theirs: np.ndarray, mine: np.ndarray) -> float:
        return reached(theirs, goal(theirs)) / reached(mine, goal(theirs))

    share = "share of validation examples"
    found = {"reference_accuracy": spread([goal(theirs)], share)}
    for name, curves in (("Trainer", theirs), ("ours", mine)):
        found[f"final accuracy {name}"] = spread(curves[:, -1, 1], share)
        if math.isfinite(seconds := reached(curves, goal(theirs))):
            found[f"seconds_to_reference {name}"] = spread([seconds], unit)
    if len(theirs) != len(mine):
        value = times(theirs, mine)
        return found | ({"time_to_accuracy_ratio": spread([value], "times")} if value > 0 else {})
    ratio = intervals.jackknife(times, theirs, mine)
    if np.isfinite([ratio.low, ratio.high]).all() and ratio.value > 0:
        found["time_to_accuracy_ratio"] = number(ratio, "times")
    return found


def time_to_accuracy(
    task: Task,
    labels: np.ndarray,
    our_recipe: Recipe,
    trainer_recipe: Recipe,
    reference: float | None,
    seeds: Sequence[int],
    mitigation: Mitigation = CONTROL,
) -> tuple[dict, pd.DataFrame]:
    """`compared` in CPU-seconds, in turns; and the curves behind it, one row a look: way, seed,
    seconds, accuracy. `labels` are the validation split's."""
    own = {} if mitigation is CONTROL else {"mitigation": mitigation}
    ways = (
        (trainers, replace(task, recipe=trainer_recipe), {}),
        (ours, replace(task, recipe=our_recipe), own),
    )
    found = [
        [way(recipe, labels, seed, **more) for way, recipe, more in ways] for seed in seeds
    ]  # in turns: both share what slows
    theirs, mine = (np.array(curves) for curves in zip(*found, strict=True))
    curves = pd.DataFrame(
        [
            {"way": name, "seed": seed, "seconds": seconds, "accuracy": accuracy}
            for name, every in (("Trainer", theirs), ("ours", mine))
            for seed, curve in zip(seeds, every, strict=True)
            for seconds, accuracy in curve
        ]
    )
    return compared(theirs, mine, reference, "CPU-seconds"), curves
