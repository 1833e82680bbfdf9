"""Ensembles: of independent retrainings, which every other method is measured against, and out of a single training.

A *replica* is one ensemble of several runs; the replicas of one partition of a pool of runs share no member, and so
differ as two retrainings do. What they buy is measured in `frontier`.
"""
from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch

from .. import metrics
from ..errors import InputError
from ..study import Runs, summarise
from ..training import predict as probabilities_of
from .regularizers import Dose

HOW = ("probability", "logit", "vote")
SMALL = 1e-6  # weight of what breaks a tie between votes


# ------------------------------------------------------------------------------------------------ many trainings

def partition(runs: int, size: int, seed: int = 0) -> np.ndarray:
    """Replicas of `size` runs each, drawn at random, none in two of them: positions (replicas, size).

    Runs that are left over are in none. Raises InputError where not even one replica comes about.

    >>> sorted(partition(4, 2).ravel().tolist())
    [0, 1, 2, 3]
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 2 <= size <= runs:
        raise InputError("size of an ensemble", size, f"an integer from 2 to {runs}, the number of runs")
    return np.random.default_rng(seed).permutation(runs)[:runs // size * size].reshape(-1, size)


def combine(probabilities: np.ndarray, how: str = "probability") -> np.ndarray:
    """What an ensemble answers: probabilities (..., members, examples, classes) to (..., examples, classes).

    how: the mean probability; the softmax of the mean "logit" (the geometric mean); or each label's share of the
    members' "vote", a tie going to the higher mean probability (by a millionth).

    >>> three = [[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]]
    >>> [combine(three, how).round(2).tolist() for how in ("probability", "vote")]
    [[[0.57, 0.43]], [[0.33, 0.67]]]
    """
    mean = cast(np.asarray(probabilities), how).mean(axis=-3)
    if how != "logit":
        return mean
    shares = np.exp(mean - mean.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def cast(probabilities: np.ndarray, how: str) -> np.ndarray:
    """What each member puts into the mean whose highest entry is the ensemble's answer."""
    if how not in HOW:
        raise InputError("how", how, f"one of {', '.join(HOW)}")
    if how == "logit":
        return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    if how == "probability":
        return probabilities
    answers = probabilities.argmax(axis=-1)[..., None] == np.arange(probabilities.shape[-1])
    return (1 - SMALL) * answers + SMALL * probabilities


def vote(labels: np.ndarray, doubt: np.ndarray | float = 0.0) -> np.ndarray:
    """The label most members answer: labels (members, ...) to (...). A tie goes to the members in less doubt, else to
    the first of them, which is a fair coin where members stand in random order.

    >>> vote(np.array([[4, 1], [2, 3], [2, 1]])).tolist(), vote(np.array([[4], [2]]), np.array([[0.3], [0.1]])).tolist()
    ([2, 1], [2])
    """
    weights = 1 + SMALL * (1 - np.broadcast_to(np.asarray(doubt, float), labels.shape))  # narrower ones lose SMALL
    votes = np.stack([np.where(labels == own, weights, 0.0).sum(axis=0) for own in labels])
    return np.take_along_axis(labels, votes.argmax(axis=0)[None], axis=0)[0]


def ensemble(runs: Runs, size: int, how: str = "probability", seed: int = 0) -> Runs:
    """The replicas of one random partition as Runs, a replica each, to be scored, put on a board or published.

    Members stand where a single run has checkpoints: checkpoint_entropy, confidence_mean and confidence_spread are over
    the members. A replica's seed is its first member's; cpu_seconds is the sum. Runs without probabilities (published
    answers of other arms than control) can vote only (nll and ece are nan then), anything else raises InputError. Of
    what was kept only "out_of_scope" is put together. Validation labels are a plain vote where their probabilities are
    missing.
    """
    check(runs, how)
    groups = partition(len(runs), size, seed)
    beside = runs.kept.get("out_of_scope")
    kept = {} if beside is None else {"out_of_scope": np.stack([combine(beside[own], how) for own in groups])}
    answers = [_replica(runs, members, how) for members in groups]
    arm = f"Ensemble(size={size}, how={how})"
    return Runs(arm=arm, names=tuple(f"{arm} of seeds {' '.join(map(str, runs.seeds[members]))}" for members in groups),
                seeds=runs.seeds[groups[:, 0]], gold=runs.gold, kept=kept,
                **{name: np.stack([entry[name] for entry in answers]) for name in answers[0]})


def check(runs: Runs, how: str) -> None:
    if how not in HOW:
        raise InputError("how", how, f"one of {', '.join(HOW)}")
    if runs.probabilities is None and how != "vote":
        raise InputError("how", how, "vote: these published runs have labels and no probabilities "
                         "(Study(published=False) trains them here)")


def _replica(runs: Runs, members: np.ndarray, how: str) -> dict[str, np.ndarray]:
    labels, gold = runs.labels[members], runs.gold
    seen = {"checkpoints": labels, "cpu_seconds": runs.cpu_seconds[members].sum()}
    if runs.probabilities is None:
        answer, right = vote(labels, runs.doubt[members]), labels == gold
        return seen | {"labels": answer, "validation_labels": vote(runs.validation_labels[members]),
                       "accuracy": np.mean(answer == gold), "nll": np.nan, "ece": np.nan,
                       "doubt": np.mean(labels != answer, axis=0), "checkpoint_entropy": metrics.label_entropy(labels),
                       "confidence": right, "confidence_mean": right.mean(0), "confidence_spread": right.std(0)}
    test = combine(runs.probabilities[members], how)
    answers = seen | {"labels": test.argmax(-1), "probabilities": test,
                      "validation_labels": vote(runs.validation_labels[members]),
                      "confidence": runs.probabilities[members][:, np.arange(len(gold)), gold]}
    if runs.validation_probabilities is not None:  # published answers have none
        validation = combine(runs.validation_probabilities[members], how)
        answers |= {"validation_labels": validation.argmax(-1), "validation_probabilities": validation}
    return answers | summarise(answers, gold)


# ---------------------------------------------------------------------------------------------------- one training

class Several(Dose):
    """Answers with the mean probability of several networks of one training; `memory` holds their weights, each under
    a key of its own."""

    @property
    def networks(self) -> int:
        return self.dose

    @property
    def cost(self):
        return 1.0, float(self.networks)

    def remember(self, training, slot: int) -> None:
        for name, tensor in training.model.state_dict().items():
            training.memory[f"network.{slot}.{name}"] = tensor.clone()

    def slots(self, training) -> list[int]:
        """Which of the networks in memory answer."""
        return sorted({int(name.split(".")[1]) for name in training.memory if name.startswith("network.")})

    def answer(self, training, predict):
        found, network = [], copy.deepcopy(training.model)
        for slot in self.slots(training):
            prefix = f"network.{slot}."
            network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in training.memory.items()
                                     if name.startswith(prefix)})
            found.append(predict(network))
        return torch.stack(found).mean(0) if found else predict(training.model)


@dataclass(frozen=True)
class Checkpoints(Several):
    """Answers with the mean probability of the networks at the end of the `last` epochs; training stays control's.

    In the space of answers what SWA is in that of weights (Izmailov et al. 2018). Default ours; 1 is control.
    """

    last: int = 3
    allowed = (1, math.inf)
    neutral = 1

    def epoch(self, training):
        if not self.idle:
            self.remember(training, training.epoch % self.last)


@dataclass(frozen=True)
class Snapshots(Several):
    """Lets the learning rate fall along a cosine `cycles` times over, and answers with the mean probability of the
    networks at the ends of the cycles.

    Huang et al. 2017, "Snapshot Ensembles: Train 1, Get M for Free". keep: only snapshots whose validation accuracy is
    at least (1 - keep) times the best plus keep times the worst of them answer: 1 all, 0 the best alone. Defaults ours.
    """

    cycles: int = 3
    keep: float = 1.0
    allowed = (1, math.inf)
    neutral = None

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.keep, bool) or not isinstance(self.keep, (int, float)) or not 0 <= self.keep <= 1:
            raise InputError("Snapshots keep", self.keep, "a number from 0 to 1")

    def gradient(self, training, backward):
        steps = training.steps / self.cycles
        factor = (1 + math.cos(math.pi * (training.step % steps) / steps)) / 2
        up = max(1, round(training.task.recipe.warmup * training.steps))
        for group in training.optimizer.param_groups:
            group["lr"] = group["peak"] * factor * min(1.0, (training.step + 1) / up)
        return backward()

    def step(self, training):
        cycle, before = (step * self.cycles // training.steps for step in (training.step, training.step - 1))
        if cycle > before:
            self.remember(training, cycle)
            task = training.task
            labels = probabilities_of(training.model, task.validation, task.recipe).argmax(1)
            right = labels == torch.tensor(task.validation_labels)
            training.memory[f"accuracy.{cycle}"] = right.float().mean()

    def slots(self, training):
        accuracy = {slot: training.memory[f"accuracy.{slot}"].item() for slot in super().slots(training)}
        least = (1 - self.keep) * max(accuracy.values(), default=0) + self.keep * min(accuracy.values(), default=0)
        return [slot for slot in accuracy if accuracy[slot] >= least]
