"""One plain loop that trains one run.

Everything random comes from three named seeds, each with a stream of its own, so that one can move while the others
stay: `init` (the first weights), `order` (which examples stand together in which step), `dropout` (what is masked).
Equal task, mitigation and seeds give equal bits on the same machine, library versions and thread count, whether or not
the training was interrupted; elsewhere rounding makes two trainings of the same seeds as different as two seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabutils.errors import InputError
from stabutils.training import files
from stabutils.training.hooks import Mitigation, describe
from stabutils.training.state import (
    Batch,
    Diverged,
    Probe,
    Seeds,
    Stream,
    Targets,
    Training,
    one_hot,
)
from stabutils.training.task import Recipe, Task, Tokens

RECIPE_VERSION = (
    2  # raised whenever the loop would answer differently; a test pins the answers of a tiny run
)


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
    plain, count = one_hot(task.train_labels, task.classes), len(mitigation.teacher_seeds(seeds))
    extras = dict(teachers or {})
    wanted = set(mitigation.teacher_extras) if count else set()
    answers = extras.get("training")
    shape = np.shape(answers)
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


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy towards the target distribution, mean over the batch, nats."""
    return (
        F.cross_entropy(logits.float(), batch.probabilities, reduction="none") * batch.weights
    ).mean()


def batch_indices(task: Task, targets: Targets, order: int, epoch: int) -> list[Tensor]:
    """The rows of the targets that stand together in each step of an epoch, which only (order, epoch) decide; similar
    lengths stand together where padding costs."""
    recipe, n = task.recipe, len(targets.indices)
    permutation = torch.randperm(n, generator=Stream("order", order, epoch).generator)
    if recipe.bucket == 1:
        return list(permutation.split(recipe.batch_size))
    lengths = task.train.lengths[targets.indices]
    windows = permutation.split(recipe.batch_size * recipe.bucket)
    sorted_ = (window[torch.argsort(lengths[window], stable=True)] for window in windows)
    chunks = [chunk for window in sorted_ for chunk in window.split(recipe.batch_size)]
    shuffle = torch.randperm(len(chunks), generator=Stream("batches", order, epoch).generator)
    return [chunks[i] for i in shuffle.tolist()]


def batches(task: Task, targets: Targets, order: int, epoch: int) -> Iterator[Batch]:
    """The steps of one epoch, as the loss sees them."""
    for rows in batch_indices(task, targets, order, epoch):
        indices = targets.indices[rows]
        yield Batch(
            task.train.take(indices), targets.probabilities[rows], targets.weights[rows], indices
        )


def rate(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at a step (from 0): linear up over the warm-up, then linear down to zero."""
    up = max(1, round(warmup * steps))
    return (step + 1) / up if step < up else (steps - step) / max(1, steps - up)


def predict(model: nn.Module, tokens: Tokens, recipe: Recipe, size: int = 256) -> Tensor:
    """Probabilities (texts, classes), float32, in evaluation mode; the model's mode is as before afterwards."""
    return evaluate(model, model, tokens, recipe, size).softmax(-1)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    part: Callable[[Tokens], Tensor],
    tokens: Tokens,
    recipe: Recipe,
    size: int = 256,
) -> Tensor:
    """What `part` of the model makes of texts, (texts, width), as `predict` does."""
    was_training = model.training
    model.eval()
    order = torch.argsort(tokens.lengths, stable=True)
    with precision(recipe):
        rows = torch.cat([part(tokens.take(rows)).float() for rows in order.split(size)])
    model.train(was_training)
    return torch.empty_like(rows).index_copy_(0, order, rows)


def precision(recipe: Recipe) -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16) if recipe.precision == "bf16" else nullcontext()


def train(
    task: Task,
    mitigation: Mitigation,
    seeds: Seeds,
    unfinished: Path | None = None,
    keep: Sequence[Probe] = (),
    teachers: Mapping[str, np.ndarray] | None = None,
    save_every: float = 30.0,
) -> dict[str, np.ndarray]:
    """Train one run and return what it answered.

    Result: `labels` (examples,), `probabilities` (examples, classes) on the test split, `checkpoints` (checkpoints,
    examples) and `confidence` (checkpoints, examples), the gold label's probability, during training;
    `validation_labels`, `validation_probabilities`; `cpu_seconds`; `kept.<name>` of every probe to `keep`. With
    `unfinished` the state is kept there at the end of an epoch whenever `save_every` seconds have passed, and a
    training found there goes on with the same bits. teachers: as in `asked`.
    Raises Diverged when the loss is no number.
    """
    began, recipe = time.process_time(), mitigation.recipe(task.recipe)
    task = replace(task, recipe=recipe)
    with Stream("init", seeds.init):
        model = mitigation.model(task.build)
    targets = build_targets(task, mitigation, seeds, teachers)
    epoch_steps = math.ceil(len(targets.indices) / recipe.batch_size)
    watched = {
        math.ceil(epoch_steps * k / recipe.checkpoints) for k in range(1, recipe.checkpoints + 1)
    }
    training = Training(
        task, mitigation, seeds, model, optimizer_of(model, recipe), recipe.epochs * epoch_steps
    )
    training.targets, training.teachers = targets, dict(teachers or {})
    mitigation.begin(training)
    seen = resume(training, unfinished, keep) if unfinished is not None else []
    saved = time.monotonic()
    while training.epoch < recipe.epochs:
        dropout = Stream("dropout", seeds.dropout, training.epoch)
        model.train()
        for done, batch in enumerate(batches(task, targets, seeds.order, training.epoch), start=1):
            one_step(training, batch, dropout)
            if done in watched and done < epoch_steps:
                seen.append(checkpoint(training, keep))
        mitigation.epoch(training)
        training.epoch += 1
        if training.epoch < recipe.epochs:
            seen.append(checkpoint(training, keep))
            if unfinished is not None and time.monotonic() - saved >= save_every:
                save(training, seen, unfinished, time.process_time() - began)
                saved = time.monotonic()
    answers = final_answers(training, seen, keep)
    return answers | {"cpu_seconds": np.array(training.seconds + time.process_time() - began)}


def one_step(training: Training, batch: Batch, dropout: Stream) -> None:
    recipe, model, mitigation = training.task.recipe, training.model, training.mitigation
    training.batch = batch
    factor = rate(training.step, training.steps, recipe.warmup)
    batch = replace(batch, memory=training.memory)
    for group in training.optimizer.param_groups:
        group["lr"] = group["peak"] * factor

    def backward() -> Tensor:
        training.optimizer.zero_grad(set_to_none=True)
        with precision(recipe):
            loss = mitigation.loss(
                lambda: model(batch.tokens), batch, lambda logits: task_loss(logits, batch)
            )
        loss.backward()
        return loss

    with dropout:
        loss = mitigation.gradient(training, backward)
    if not math.isfinite(loss.item()):
        raise diverged(training, f"the loss became {loss.item()}")
    if recipe.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    training.optimizer.step()
    training.step += 1
    mitigation.step(training)


def diverged(training: Training, what: str) -> Diverged:
    recipe = training.task.recipe
    epoch = min(training.epoch + 1, recipe.epochs)
    return Diverged(
        f"{what} in epoch {epoch} of {recipe.epochs}, {describe(training.mitigation)}, learning rate "
        f"{recipe.learning_rate}; a lower one usually helps"
    )


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; no decay on biases and norms (vectors), the head at its own rate."""
    head = {id(p) for p in model.head.parameters()}
    groups = {}
    for parameter in model.parameters():
        key = (
            recipe.learning_rate * (recipe.head_rate if id(parameter) in head else 1),
            recipe.weight_decay if parameter.ndim > 1 else 0.0,
        )
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": ps, "peak": lr, "lr": lr, "weight_decay": decay}
            for (lr, decay), ps in groups.items()
        ],
        fused=True,
    )


def answer(training: Training, split: str) -> Tensor:
    """Probabilities (texts, classes) the run would answer a split of the task with now; whatever
    it draws depends on the step only."""
    training.split, tokens = split, getattr(training.task, split)
    with Stream("answer", training.seeds.dropout, training.step):
        probabilities = training.mitigation.answer(
            training, lambda model: predict(model, tokens, training.task.recipe)
        )
        return training.mitigation.postprocess(training, probabilities)


def checkpoint(
    training: Training, keep: Sequence[Probe], probabilities: Tensor | None = None
) -> dict[str, np.ndarray]:
    """Test labels and the gold label's probability at this point of the training, and what is often kept."""
    probabilities = answer(training, "test") if probabilities is None else probabilities
    gold = torch.tensor(training.task.test_labels)[:, None]
    return {
        "checkpoints": probabilities.argmax(1).numpy(),
        "confidence": probabilities.gather(1, gold)[:, 0].numpy(),
        **measured(training, [probe for probe in keep if probe.often]),
    }


def measured(training: Training, keep: Sequence[Probe]) -> dict[str, np.ndarray]:
    """What the probes see. They draw from streams of their own, and their time is no part of what the run costs."""
    began, found = time.process_time(), {}
    for probe in keep:
        with Stream(f"keep {probe.name}", training.seeds.dropout, training.step):
            found[f"kept.{probe.name}"] = probe.measure(training)
    training.seconds -= time.process_time() - began
    return found


def final_answers(
    training: Training, seen: list[dict], keep: Sequence[Probe]
) -> dict[str, np.ndarray]:
    test, validation = (answer(training, split) for split in ("test", "validation"))
    if not (
        test.isfinite().all() and validation.isfinite().all()
    ):  # the last step ruined the weights
        raise diverged(training, "the answers are no numbers")
    seen = [*seen, checkpoint(training, keep, test)]
    answers = {name: np.stack([entry[name] for entry in seen]) for name in seen[0]}
    return answers | {
        "labels": test.argmax(1).numpy(),
        "probabilities": test.numpy(),
        "validation_labels": validation.argmax(1).numpy(),
        "validation_probabilities": validation.numpy(),
        **measured(training, [probe for probe in keep if not probe.often]),
    }


def save(training: Training, seen: list[dict], path: Path, seconds: float) -> None:
    """Write all that the rest of the training depends on (between two epochs)."""
    state = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    for i, entry in training.optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{name}": tensor for name, tensor in entry.items()}
    state |= {f"memory.{name}": tensor for name, tensor in training.memory.items()}
    arrays = {name: tensor.detach().numpy() for name, tensor in state.items()}
    arrays |= {f"seen.{name}": np.stack([entry[name] for entry in seen]) for name in seen[0]}
    record = {"epoch": training.epoch, "step": training.step, "seconds": training.seconds + seconds}
    files.write_file(path, files.encode(arrays, record))


def resume(training: Training, path: Path, keep: Sequence[Probe]) -> list[dict[str, np.ndarray]]:
    """Put `training` where `save` left it; returns the checkpoints seen so far (none: there was nothing to resume).

    A state that did not see at each checkpoint what is to be kept of each is no use: the training begins again.
    """
    arrays, record = files.read_file(path) or ({}, {})
    names = ["checkpoints", "confidence", *(f"kept.{probe.name}" for probe in keep if probe.often)]
    if not {f"seen.{name}" for name in names} <= arrays.keys():
        return []
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    part = _part(tensors)
    training.model.load_state_dict(part("model."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": state})
    training.memory = part("memory.")
    training.epoch, training.step, training.seconds = (
        record["epoch"],
        record["step"],
        record["seconds"],
    )
    return [
        {name: arrays[f"seen.{name}"][i] for name in names}
        for i in range(len(arrays["seen.checkpoints"]))
    ]


def _part(tensors: dict[str, Tensor]) -> Callable[[str], dict[str, Tensor]]:
    return lambda prefix: {
        n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)
    }
