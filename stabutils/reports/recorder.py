"""Predictions of anyone's training, in the file that a report reads: a Trainer callback."""

from __future__ import annotations

import contextlib
import csv
import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from scipy.special import softmax
from transformers import Trainer, TrainerCallback

from stabutils.data.labels import plain, spellings
from stabutils.data.tables import read_table, unreadable
from stabutils.errors import InputError
from stabutils.reports.codes import one_for_each

KEYS = ["run", "checkpoint", "example"]
NO_GOLD = (-100, -1)  # what transformers and its data sets write for "no label"


class Recorder(TrainerCallback):
    """Writes what a Trainer's model answers after each epoch and evaluation, as checkpoints.

        recorder = st.Recorder(trainer, "predictions.csv", data["test"], texts=data["test"]["text"])
        trainer.add_callback(recorder)

    Train again with another seed, into the same file, one training at a time: the rows of other
    runs stay, those of the same run are written anew (or go on from the step at which a training is
    resumed). Before the first epoch the model answers once, to see that its answers can be
    recorded; whatever cannot is an InputError there. An error after that ends the recording with a
    warning, never the training, which is left as it is, bit for bit on a CPU.

    Parameters
    ----------
    trainer
        The Trainer whose model answers. Its `preprocess_logits_for_metrics` is applied: logits,
        probabilities and labels are told apart.
    path
        A .csv file that a Recorder wrote, or none yet.
    dataset
        What is answered, with a length; examples are numbered in its order, whatever the Trainer's
        sampler does. Labels of -100 or -1 are no gold label.
    texts
        The text of each example.
    label_names
        The names of classes 0, 1, ...; by default `id2label` of the model's configuration.
    run
        The name of the run, by default the seed.
    probabilities
        Whether the rows have a probability for each label, where the model gives any.
    """

    def __init__(
        self,
        trainer: Trainer,
        path: str | Path,
        dataset,
        *,
        texts: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        run: str | None = None,
        probabilities: bool = True,
    ):
        self.trainer, self.path, self.dataset, self.texts = trainer, Path(path), dataset, texts
        self.label_names, self.run, self.probabilities = label_names, run, probabilities
        self.name = ""  # of the training that is recorded
        self.last = None  # its step that was recorded last; None while nothing is recorded
        self.header: list[str] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.name = str(args.seed if self.run is None else self.run)
        self.last = None
        self._refuse_settings(args)
        columns = self._columns(self._predict(), state.global_step)
        self.header = list(columns)
        _csv([self.header, *zip(*columns.values(), strict=True)]).encode("utf-8")
        if state.is_world_process_zero:
            self._make_room(state.global_step)
        self.last = state.global_step

    def on_epoch_end(self, args, state, control, **kwargs):
        self._record(state, state.global_step)

    on_evaluate = on_epoch_end

    def on_train_end(self, args, state, control, **kwargs):
        if args.load_best_model_at_end:  # the weights that stay are not the last ones
            self._record(state, state.global_step + 1)

    def _refuse_settings(self, args) -> None:
        """Refuse what no answer is needed to see."""
        if args.world_size > 1:
            allowed = "one process; with several, record the answers of the trained model in one"
            raise InputError("Recorder", f"{args.world_size} processes", allowed)
        if not self.path.parent.is_dir() or self.path.suffix.lower() != ".csv":
            raise InputError("Recorder path", str(self.path), "a .csv file in a folder that exists")
        if not hasattr(self.dataset, "__len__") or not hasattr(self.dataset, "__getitem__"):
            kind = type(self.dataset).__name__
            raise InputError("Recorder dataset", kind, "examples with a length and an order")
        texts = one_for_each(self.texts, len(self.dataset), "Recorder texts")
        for text in texts or ():
            problem = unreadable(text) if text.strip() else ""
            if problem:
                raise InputError("Recorder texts", text, f"texts {problem}")

    def _predict(self):
        """What the Trainer predicts, each example once and in the order of the dataset."""
        size = len(self.dataset)
        examples = _InOrder(self.dataset)
        with torch.random.fork_rng(devices=[]), _every_example(self.trainer):
            try:  # apart from the training's random numbers: a data loader draws one
                answers = self.trainer.predict(examples)
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                allowed = "examples that the Trainer can predict"
                raise InputError("Recorder dataset", reason, allowed) from error
        if examples.read != list(range(size)):
            allowed = (
                f"all {size} in their order; a data loader of the Trainer's own samples or drops "
                "some (get_test_dataloader)"
            )
            raise InputError("examples that the Trainer reads", examples.read[:5], allowed)
        return answers

    def _columns(self, answers, step: int) -> dict[str, Collection]:
        """The columns of the file for the answers at one step."""
        size = len(self.dataset)
        config = getattr(self.trainer.model, "config", None)
        names = class_names(config, self.label_names)
        try:
            read = read_answers(answers.predictions, size, len(names))
        except InputError:
            if names != tuple(f"LABEL_{k}" for k in range(len(names))):
                raise
            names = ()  # those of a configuration that nobody told of the classes
            read = read_answers(answers.predictions, size)
        gold = read_gold(answers.label_ids, size)
        highest = read.classes - 1 if gold is None else max(read.classes - 1, int(gold.max()))
        names = names or tuple(map(str, range(highest + 1)))
        if highest >= len(names):
            allowed = f"classes below {len(names)}, the number of label names"
            raise InputError("answers or labels of the Recorder's dataset", highest, allowed)
        columns: dict[str, Collection] = {
            "run": [self.name] * size,
            "checkpoint": [step] * size,
            "example": range(size),
            "label": [names[label] for label in read.labels],
        }
        if gold is not None:
            columns["gold"] = [names[label] for label in gold]
        if self.texts is not None:
            texts = (str(text).replace("\r\n", "\n") for text in self.texts)
            columns["text"] = [text.replace("\r", "\n") for text in texts]  # csv quotes no \r
        if self.probabilities and read.probabilities is not None:
            shares = np.char.mod("%.6g", read.probabilities)
            columns |= {f"p_{name}": shares[:, i] for i, name in enumerate(names)}
        return columns

    def _make_room(self, step: int) -> None:
        """Leave in the file the rows of other runs, and of this one those up to the step."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        table = read_table(self.path)
        if table.header[:3] != KEYS:  # somebody else's, not to be overwritten
            allowed = "a file that a Recorder wrote, or none yet"
            raise InputError("Recorder path", str(self.path), allowed)
        rows = [row for chunk in table.chunks for row in chunk]
        others = [row for row in rows if row[0] != self.name or _number(row[1]) <= step]
        if not others:
            self.path.unlink()
            return
        if table.header != list(map(plain, self.header)):
            changed = sorted(set(table.header) ^ set(self.header)) or table.header
            allowed = "those of the runs in it, in their order; or a file of its own"
            raise InputError(f"columns for {self.path}", changed, allowed)
        numbers = {row[2] for row in others}
        if len(numbers) != len(self.dataset):
            allowed = f"{len(numbers)} as for the runs in {self.path}, or a file of its own"
            raise InputError("examples in the Recorder's dataset", len(self.dataset), allowed)
        remaining = self.path.with_suffix(".part")
        remaining.write_text(_csv([self.header, *others]), encoding="utf-8", newline="")
        remaining.replace(self.path)  # at once: other runs are never lost halfway

    def _record(self, state, step: int) -> None:
        if self.last is None or step <= self.last:  # nothing is trained yet, or it is recorded
            return
        self.last = step
        try:
            columns = self._columns(self._predict(), step)
            if list(columns) != self.header:
                raise InputError("columns", list(columns), f"{self.header}, as at the first step")
            if state.is_world_process_zero:
                begun = self.path.exists() and self.path.stat().st_size
                first = [] if begun else [self.header]
                self._append([*first, *zip(*columns.values(), strict=True)])
        except Exception as error:  # whatever it is, hours of training are worth more
            self.last = None
            with contextlib.suppress(OSError, InputError):
                self._make_room(-1)  # half a run would be taken for a whole one
            warnings.warn(
                f"Recorder stopped at step {step}, and run {self.name!r} is not in {self.path}: "
                f"{error}",
                stacklevel=2,
            )

    def _append(self, rows) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(_csv(rows))


def _number(cell: str) -> int:
    if not cell.isdecimal():
        raise InputError("checkpoint in the Recorder's file", cell, "the number of a step")
    return int(cell)


def _csv(rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


# ---- what a Trainer reads


class _InOrder(torch.utils.data.Dataset):
    """A dataset that notes in which order its examples are read."""

    def __init__(self, dataset):
        self.dataset, self.read = dataset, []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        self.read.append(int(index))
        example = self.dataset[index]
        if not isinstance(example, Mapping):
            return example
        missing = {  # a loss takes -100 for no label; -1 would be an error
            name: -100
            for name in ("label", "labels")
            if name in example and np.ndim(example[name]) == 0 and example[name] == -1
        }
        return {**example, **missing} if missing else example


@contextlib.contextmanager
def _every_example(trainer: Trainer) -> Iterator[None]:
    """Predictions of every example, in order: settings of training and of metrics put aside."""
    settings = {
        "train_sampling_strategy": "random",  # group_by_length would also sort what is answered
        "dataloader_drop_last": False,
        "dataloader_num_workers": 0,  # so that the order of reading can be seen
        "dataloader_persistent_workers": False,
        "dataloader_prefetch_factor": None,
        "dataloader_multiprocessing_context": None,
        "prediction_loss_only": False,
        "eval_do_concat_batches": True,
    }
    before = {name: getattr(trainer.args, name) for name in settings if hasattr(trainer.args, name)}
    metrics, trainer.compute_metrics = trainer.compute_metrics, None
    try:
        for name in before:
            setattr(trainer.args, name, settings[name])
        yield
    finally:
        trainer.compute_metrics = metrics
        for name, value in before.items():
            setattr(trainer.args, name, value)


# ---- what a Trainer predicts


@dataclass(frozen=True, eq=False)
class Answers:
    """Labels (examples,), probabilities (examples, classes) or None, and how many classes."""

    labels: ndarray
    probabilities: ndarray | None
    classes: int


def read_answers(predictions, examples: int, classes: int = 0) -> Answers:
    """What a model answers, told from what a Trainer predicts.

    Parameters
    ----------
    predictions
        Scores (examples, classes), their softmax, or labels (examples,); or a tuple of which one
        is such an array, as where the model also gives its hidden states.
    examples
        How many answers there have to be.
    classes
        How many classes the model knows; 0 for unknown.

    Raises
    ------
    InputError
        Nothing of the kind, several that could be meant, or numbers that are not finite.

    Examples
    --------
    >>> read_answers(np.array([[2.0, 1.0], [0.0, 3.0]]), examples=2).labels.tolist()
    [0, 1]
    >>> read_answers(np.array([1, 0]), examples=2).probabilities is None
    True
    """
    thing, allowed = "predictions of the Trainer", f"scores ({examples}, classes) or labels"
    if predictions is None:
        raise InputError(thing, None, f"{allowed}; does the model return only a loss?")
    parts = predictions if isinstance(predictions, (tuple, list)) else (predictions,)
    arrays = [part for part in parts if isinstance(part, ndarray)]
    usable = [array for array in arrays if _is_answers(array, examples, classes)]
    sure = len(usable) == 1 or classes and usable and usable[0] is parts[0]
    if not sure:
        shapes = [f"{array.dtype} {array.shape}" for array in arrays]
        raise InputError(thing, ", ".join(shapes), f"{allowed}, one array of the kind")
    answers = usable[0]
    if answers.dtype.kind in "iu":
        labels = answers.reshape(examples)
        if labels.min() < 0:
            raise InputError(thing, int(labels.min()), "labels of at least 0")
        return Answers(labels, None, int(labels.max()) + 1)
    scores = answers.astype(float)
    if not np.isfinite(scores).all():
        raise InputError(thing, "numbers that are not finite", allowed)
    shares = scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() < 0.01
    probabilities = scores if shares else softmax(scores, axis=1)
    return Answers(scores.argmax(axis=1), probabilities, scores.shape[1])


def _is_answers(array: ndarray, examples: int, classes: int) -> bool:
    """Whether an array has the shape and type of labels, or of scores of the classes."""
    if array.shape[:1] != (examples,) or not examples:
        return False
    if array.dtype.kind in "iu":
        return array.shape in ((examples,), (examples, 1))
    several = array.ndim == 2 and array.shape[1] > 1
    return array.dtype.kind == "f" and several and array.shape[1] == (classes or array.shape[1])


def class_names(config, label_names: Sequence[str] | None) -> tuple[str, ...]:
    """The name of each class, class 0 first; () where nobody says.

    Parameters
    ----------
    config
        A configuration whose `id2label` names the classes, in whatever order.
    label_names
        Names that are said instead.

    Raises
    ------
    InputError
        A class without a name, or two classes of one name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class_names(SimpleNamespace(id2label={"1": "b", "0": "a"}), None)
    ('a', 'b')
    >>> class_names(SimpleNamespace(id2label={0: "a", 1: "b", 10: "k"}), None)
    Traceback (most recent call last):
    ...
    stabutils.errors.InputError: id2label: got [0, 1, 10]; expected a name for each of 0 .. 2
    """
    thing = "label_names"
    if label_names is None:
        thing = "id2label"
        id2label = getattr(config, "id2label", None) or {}
        try:
            by_class = {int(number): name for number, name in dict(id2label).items()}
        except (TypeError, ValueError):
            allowed = "the name of each class, by its number"
            raise InputError(thing, id2label, allowed) from None
        if sorted(by_class) != list(range(len(by_class))):
            allowed = f"a name for each of 0 .. {len(by_class) - 1}"
            raise InputError(thing, sorted(by_class), allowed)
        label_names = [by_class[number] for number in range(len(by_class))]
    names = tuple(map(str, label_names))
    for name in names:
        if unreadable(name):
            raise InputError(thing, name, f"names {unreadable(name)}")
    if len(set(spellings(names, thing).values())) < len(names):
        twice = sorted(name for name in names if names.count(name) > 1)
        raise InputError(thing, twice[:2] or names, "a name of its own for each class")
    return names


def read_gold(label_ids, examples: int) -> ndarray | None:
    """The gold label of each example, or None where not every example has one.

    Parameters
    ----------
    label_ids
        What the dataset has as labels: (examples,), -100 and -1 for none; None without labels.
    examples
        How many there are.

    Raises
    ------
    InputError
        Labels that are no classes.

    Examples
    --------
    >>> read_gold(np.array([1, 0]), 2).tolist(), read_gold(np.array([1, -100]), 2)
    ([1, 0], None)
    """
    if label_ids is None:
        return None
    thing = "labels of the Recorder's dataset"
    allowed = f"one class of 0, 1, ... for each of {examples} examples, or -100 for none"
    if not isinstance(label_ids, ndarray) or label_ids.size != examples:
        value = getattr(label_ids, "shape", f"{len(label_ids)} arrays")
        raise InputError(thing, value, allowed)
    numbers = label_ids.reshape(examples)
    labels = numbers.astype(int)
    wrong = (labels != numbers) | (labels < 0) & ~np.isin(labels, NO_GOLD)
    if wrong.any():
        raise InputError(thing, numbers[wrong][0].item(), allowed)
    return None if np.isin(labels, NO_GOLD).any() else labels
