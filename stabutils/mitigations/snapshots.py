"""Ensembles out of a single training: its snapshots, or its last checkpoints.

Their members share the first weights and the early order, as those of `analysis.ensembles` do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from stabutils.mitigations.regularizers import ScalarMitigation, remembered
from stabutils.training.hooks import knob
from stabutils.training.loop import predict as probabilities_of
from stabutils.training.state import part_of


class Several(ScalarMitigation):
    """Answers with the mean probability of several networks of one training; `memory` holds their
    weights, each under a key of its own.
    """

    @property
    def networks(self) -> int:
        return int(self.dose)

    @property
    def cost(self):
        return 1.0, float(self.networks)

    def remember(self, training, slot: int) -> None:
        for name, tensor in training.model.state_dict().items():
            training.memory[f"network.{slot}.{name}"] = tensor.clone()

    def slots(self, training) -> list[int]:
        """Which of the networks in memory answer."""
        return sorted({int(name.split(".")[0]) for name in part_of(training.memory, "network.")})

    def answer(self, training, predict):
        slots = self.slots(training)
        found = [predict(remembered(training, f"network.{slot}.")) for slot in slots]
        return torch.stack(found).mean(0) if found else predict(training.model)


@dataclass(frozen=True)
class Checkpoints(Several):
    """Answers with the mean probability of the networks at the end of the `last` epochs; training
    stays control's.

    In the space of answers what SWA is in that of weights (Izmailov et al. 2018). Default ours; 1
    is control.
    """

    last: int = 3
    allowed = (1, math.inf)
    neutral = 1

    def epoch(self, training):
        self.remember(training, training.epoch % self.last)


@dataclass(frozen=True)
class Snapshots(Several):
    """Lets the learning rate fall along a cosine `cycles` times over, and answers with the mean
    probability of the networks at the ends of the cycles.

    Huang et al. 2017, "Snapshot Ensembles: Train 1, Get M for Free". keep: only snapshots whose
    validation accuracy is at least (1 - keep) times the best plus keep times the worst of them
    answer: 1 all, 0 the best alone. Defaults ours.
    """

    cycles: int = 3
    keep: float = knob(1.0, least=0, most=1)
    allowed = (1, math.inf)
    neutral = None

    @property
    def stacks(self):
        return self.keep == 1  # else each run chooses its own

    def gradient(self, training, backward):
        steps = training.steps / self.cycles
        factor = (1 + math.cos(math.pi * (training.step % steps) / steps)) / 2
        up = max(1, round(training.task.recipe.warmup * training.steps))
        for group in training.optimizer.param_groups:
            group["lr"] = group["peak"] * factor * min(1.0, (training.step + 1) / up)
        return backward()

    def step(self, training):
        steps = (training.step, training.step - 1)
        cycle, before = (step * self.cycles // training.steps for step in steps)
        if cycle == before:
            return
        self.remember(training, cycle)
        if self.keep < 1:
            task = training.task
            labels = probabilities_of(training.model, task.validation, task.recipe).argmax(1)
            right = labels == torch.tensor(task.validation_labels)
            training.memory[f"accuracy.{cycle}"] = right.float().mean()

    def slots(self, training):
        slots = super().slots(training)
        if self.keep == 1 or not slots:
            return slots
        accuracy = [training.memory[f"accuracy.{slot}"].item() for slot in slots]
        least = (1 - self.keep) * max(accuracy) + self.keep * min(accuracy)
        least = min(least, max(accuracy))  # also where rounding makes it more
        return [slot for slot, own in zip(slots, accuracy, strict=True) if own >= least]
