"""One plain loop that trains one run.

Everything random comes from three named seeds, each with a stream of its own, so that one can move
while the others stay: `init` (the first weights), `order` (which examples stand together in which
step), `dropout` (what is masked). Equal task, mitigation and seeds give equal bits on the same
machine, library versions and thread count, whether or not the training was interrupted; elsewhere
rounding makes two trainings of the same seeds as different as two seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import unwrap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.training import files
from stabutils.training.devices import refuses
from stabutils.training.hooks import Mitigation, active, describe
from stabutils.training.passes import evaluate, precision, predict
from stabutils.training.state import (
    Batch,
    Diverged,
    Probe,
    Seeds,
    Stream,
    Targets,
    Training,
    batch_of,
    one_hot,
    part_of,
    task_loss,
)
from stabutils.training.task import Recipe, Task

__all__ = ["evaluate", "precision", "predict", "task_loss", "train"]
# Raised whenever the loop would answer differently; a test pins the answers of a tiny run.
RECIPE_VERSION = 2


def build_targets(
    task: Task,
    mitigation: Mitigation,
    seeds: Seeds,
    teachers: Mapping[str, np.ndarray] | None = None,
) -> Targets:
    """What a run asks for.

    teachers: `mitigation.teacher_extras` of the trainings that `mitigation.teacher_seeds(seeds)`
    names, stacked. Raises InputError where these are not there, or others.
    """
    mitigation = active(mitigation)
    plain, count = one_hot(task.train_labels, task.classes), len(mitigation.teacher_seeds(seeds))
    extras = dict(teachers or {})
    wanted = set(mitigation.teacher_extras) if count else set()
    answers = extras.get("training")
    shape = () if answers is None else np.shape(answers)
    fits = answers is None or shape[:1] + shape[2:] == (count, *plain.probabilities.shape)
    if not fits or not wanted <= extras.keys() or bool(count) != bool(extras):
        raise InputError(
            f"teachers of {describe(mitigation)}",
            {name: np.shape(array) for name, array in extras.items()},
            f"{', '.join(sorted(wanted)) or 'nothing'} of {count} trainings, teachers first, as "
            "`study.retrain` hands on",
        )
    given = None if answers is None else torch.tensor(answers)
    if (task.change is None) != (seeds.data is None):
        allowed = "one where the study changes its training data, None elsewhere"
        raise InputError("data seed", seeds.data, allowed)
    if task.change is not None:
        plain = task.change.apply(plain, task.train, seeds.data)
        labels = task.train_labels.copy()
        labels[plain.indices] = plain.probabilities.argmax(1)
        task = replace(task, train_labels=labels)
    return mitigation.data(replace(plain, texts=task.train, teachers=given, task=task))


def batch_indices(task: Task, targets: Targets, order: int, epoch: int) -> list[Tensor]:
    """The rows of the targets that stand together in each step of an epoch, which only (order,
    epoch) decide; similar lengths stand together where padding costs."""
    recipe, n = task.recipe, len(targets.indices)
    permutation = torch.randperm(n, generator=Stream("order", order, epoch).generator)
    if recipe.bucket == 1:
        return list(permutation.split(recipe.batch_size))
    lengths = task.train.lengths[targets.indices].cpu()
    windows = permutation.split(recipe.batch_size * recipe.bucket)
    sorted_ = (window[torch.argsort(lengths[window], stable=True)] for window in windows)
    chunks = [chunk for window in sorted_ for chunk in window.split(recipe.batch_size)]
    shuffle = torch.randperm(len(chunks), generator=Stream("batches", order, epoch).generator)
    return [chunks[i] for i in shuffle.tolist()]


def batches(task: Task, targets: Targets, order: int, epoch: int) -> Iterator[Batch]:
    """The steps of one epoch, as the loss sees them."""
    for rows in batch_indices(task, targets, order, epoch):
        yield batch_of(task, targets, rows)


def rate(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at a step (from 0): linear up over the warm-up, then linear down
    to zero."""
    up = max(1, round(warmup * steps))
    return (step + 1) / up if step < up else (steps - step) / max(1, steps - up)


def train(
    task: Task,
    mitigation: Mitigation,
    seeds: Seeds,
    unfinished: Path | None = None,
    keep: Sequence[Probe] = (),
    teachers: Mapping[str, np.ndarray] | None = None,
    device: str = "cpu",
    save_every: float = 30.0,
) -> dict[str, np.ndarray]:
    """Train one run and return what it answered.

    Parameters
    ----------
    unfinished : Path, optional
        Where the state is kept at the end of an epoch whenever `save_every` seconds have passed; a
        training found there goes on with the same bits.
    keep : probes
        What is measured beside the answers.
    teachers : arrays by name, optional
        As in `build_targets`.
    device : str
        What computes. First weights and order are the same on all; what is dropped is drawn there.

    Returns
    -------
    dict
        `labels` (examples,), `probabilities` (examples, classes) on the test split, `checkpoints`
        (checkpoints, examples) and `confidence` (checkpoints, examples), the gold label's
        probability, during training; `validation_labels`, `validation_probabilities`;
        `cpu_seconds`; `kept.<name>` of every probe to keep.

    Raises
    ------
    Diverged
        When the loss is no number.
    InputError
        When the mitigation does not work on the device.
    """
    with naming(mitigation, device):
        began = time.process_time()
        training = started(task, mitigation, seeds, teachers, device)
        seen = resume(training, unfinished, keep) if unfinished is not None else []
        saved = time.monotonic()

        def save_now_and_then() -> None:
            nonlocal saved
            if unfinished is not None and time.monotonic() - saved >= save_every:
                save(training, seen, unfinished, time.process_time() - began)
                saved = time.monotonic()

        targets = training.targets.to(device)
        epochs = partial(batches, training.task, targets, seeds.order)
        answers = trained(training, epochs, seen, keep, save_now_and_then)
        return answers | {"cpu_seconds": np.array(training.seconds + time.process_time() - began)}


@contextmanager
def naming(mitigation: Mitigation, device: str) -> Iterator[None]:
    """Says which mitigation does not work on a device. Raises InputError."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if device == "cpu" or not refuses(error):
            raise
        reason = str(error).splitlines()[0]
        allowed = f"cpu, on which {describe(mitigation)} works ({reason})"
        raise InputError("device", device, allowed) from error


def started(
    task: Task,
    mitigation: Mitigation,
    seeds: Seeds,
    teachers: Mapping[str, np.ndarray] | None = None,
    device: str = "cpu",
) -> Training:
    """A training before its first step."""
    mitigation = active(mitigation)
    recipe = mitigation.recipe(task.recipe)
    task = replace(task, recipe=recipe)
    with Stream("init", seeds.init):
        model = mitigation.model(task.build).to(device)
    targets = build_targets(task, mitigation, seeds, teachers)
    steps = recipe.epochs * math.ceil(len(targets.indices) / recipe.batch_size)
    training = Training(
        task.to(device), mitigation, seeds, model, optimizer_of(model, recipe), steps
    )
    training.targets, training.teachers = targets, dict(teachers or {})
    mitigation.begin(training)
    return training


def trained(
    training: Training,
    epochs: Callable[[int], Iterable[Batch]],
    seen: list[dict],
    keep: Sequence[Probe],
    after_epoch: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Train to the end and return the answers.

    Parameters
    ----------
    epochs : callable
        The batches of an epoch by its number.
    seen : list
        The checkpoints so far.
    """
    recipe = training.task.recipe
    epoch_steps = training.steps // recipe.epochs
    count = min(recipe.checkpoints, epoch_steps)
    watched = {math.ceil(epoch_steps * k / count) for k in range(1, count + 1)}
    while training.epoch < recipe.epochs:
        dropout = training.stream("dropout", training.epoch)
        training.model.train()
        for done, batch in enumerate(epochs(training.epoch), start=1):
            one_step(training, batch, dropout)
            if done in watched and done < epoch_steps:
                seen.append(checkpoint(training, keep))
        training.mitigation.epoch(training)
        training.epoch += 1
        if training.epoch < recipe.epochs:
            if recipe.checkpoints:
                seen.append(checkpoint(training, keep))
            after_epoch()
    return final_answers(training, seen, keep)


def one_step(training: Training, batch: Batch, dropout: Stream) -> None:
    recipe, mitigation = training.task.recipe, training.mitigation
    training.batch = batch
    factor = rate(training.step, training.steps, recipe.warmup)
    batch = replace(batch, memory=training.memory)
    for group in training.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    with dropout:
        loss = mitigation.gradient(training, partial(training.backward, batch))
    if not training.goes_on(loss):
        raise diverged(training, f"the loss became {loss.item()}")
    if recipe.clip:
        training.clip(recipe.clip)
    training.optimizer.step()
    training.step += 1
    mitigation.step(training)


def diverged(training: Training, what: str) -> Diverged:
    recipe = training.task.recipe
    epoch = min(training.epoch + 1, recipe.epochs)
    return Diverged(
        f"{what} in epoch {epoch} of {recipe.epochs}, {describe(training.mitigation)}, "
        f"learning rate {recipe.learning_rate}; a lower one usually helps"
    )


class AdamW(torch.optim.AdamW):
    """torch's own, without torch's compiler, which plain steps do not need: to import it takes each
    process a second.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and norms (vectors), the head at its own rate."""
    head = {id(p) for p in model.head.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        key = (
            recipe.learning_rate * (recipe.head_rate if id(parameter) in head else 1),
            recipe.weight_decay if parameter.ndim > 1 else 0.0,
        )
        groups.setdefault(key, []).append(parameter)
    fused = next(model.parameters()).device.type != "mps"
    return AdamW(
        [
            {"params": ps, "peak": lr, "lr": lr, "weight_decay": decay}
            for (lr, decay), ps in groups.items()
        ],
        fused=fused,
    )


def answer(training: Training, split: str) -> Tensor:
    """Probabilities (texts, classes) the run would answer a split of the task with now, on the CPU;
    whatever it draws depends on the step only."""
    training.split, tokens = split, getattr(training.task, split)
    with training.stream("answer", training.step):
        probabilities = training.mitigation.answer(
            training, lambda network: training.predict(network, tokens)
        )
        return training.mitigation.postprocess(training, probabilities)


def checkpoint(
    training: Training, keep: Sequence[Probe], probabilities: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Test labels and the gold label's probability at this point of the training, and what is often
    kept."""
    probabilities = answer(training, "test") if probabilities is None else probabilities
    gold = torch.tensor(training.task.test_labels).expand(probabilities.shape[:-1])
    return {
        "checkpoints": probabilities.argmax(-1).numpy(),
        "confidence": probabilities.gather(-1, gold[..., None])[..., 0].numpy(),
        **measured(training, [probe for probe in keep if probe.often]),
    }


def measured(training: Training, keep: Sequence[Probe]) -> dict[str, np.ndarray]:
    """What the probes see. They draw from streams of their own, and their time is no part of what
    the run costs."""
    began, found = time.process_time(), {}
    for probe in keep:
        rows = []
        for run in training.each():
            with run.stream(f"keep {probe.name}", run.step):
                rows.append(probe.measure(run))
        found[f"kept.{probe.name}"] = training.joined(rows)
    training.seconds -= time.process_time() - began
    return found


def final_answers(
    training: Training, seen: list[dict], keep: Sequence[Probe]
) -> dict[str, np.ndarray]:
    test, validation = (answer(training, split) for split in ("test", "validation"))
    # The last step may have ruined the weights.
    if not (training.goes_on(test) and training.goes_on(validation)):
        raise diverged(training, "the answers are no numbers")
    seen = [*seen, checkpoint(training, keep, test)]
    answers = {name: training.over_time([entry[name] for entry in seen]) for name in seen[0]}
    return answers | {
        "labels": test.argmax(-1).numpy(),
        "probabilities": test.numpy(),
        "validation_labels": validation.argmax(-1).numpy(),
        "validation_probabilities": validation.numpy(),
        **measured(training, [probe for probe in keep if not probe.often]),
    }


def save(training: Training, seen: list[dict], path: Path, seconds: float) -> None:
    """Write all that the rest of the training depends on (between two epochs)."""
    state = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    for i, entry in training.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{name}": tensor for name, tensor in entry.items()}
    state |= {f"memory.{name}": tensor for name, tensor in training.memory.items()}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
    names = seen[0] if seen else ()
    arrays |= {f"seen.{name}": np.stack([entry[name] for entry in seen]) for name in names}
    record = {"epoch": training.epoch, "step": training.step, "seconds": training.seconds + seconds}
    files.write_file(path, files.encode(arrays, record))


def resume(training: Training, path: Path, keep: Sequence[Probe]) -> list[dict[str, np.ndarray]]:
    """Put `training` where `save` left it; returns the checkpoints seen so far (none: there was
    nothing to resume).

    A state that did not see at each checkpoint what is to be kept of each is no use: the training
    begins again.
    """
    arrays, record = files.read_file(path) or ({}, {})
    often = [f"kept.{probe.name}" for probe in keep if probe.often]
    names = ["checkpoints", "confidence", *often] if training.task.recipe.checkpoints else []
    if not arrays or not {f"seen.{name}" for name in names} <= arrays.keys():
        return []
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    training.model.load_state_dict(part_of(tensors, "model."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part_of(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": state})
    memory = part_of(tensors, "memory.")
    training.memory = {name: tensor.to(training.device) for name, tensor in memory.items()}
    for name in ("epoch", "step", "seconds"):
        setattr(training, name, record[name])
    count = len(arrays["seen.checkpoints"]) if names else 0
    return [{name: arrays[f"seen.{name}"][i] for name in names} for i in range(count)]
