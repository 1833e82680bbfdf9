"""Predictions of anyone's training, in the file that a report reads: a callback for Hugging Face's Trainer."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from transformers import Trainer, TrainerCallback

from stabutils.errors import InputError


class Recorder(TrainerCallback):
    """Writes what a Trainer's model answers to `dataset` after each epoch and evaluation, as checkpoints of one run.

        trainer.add_callback(st.Recorder(trainer, "predictions.csv", data["test"], texts=data["test"]["text"]))

    Train again with another seed, into the same file, one training at a time: the rows of other runs stay, those of the
    same run are written anew (or go on from the step at which a training is resumed). run: its name, by default the
    seed; label_names: by default those of the model's configuration; examples are numbered. The rows have a probability
    for each label unless `probabilities` is False. The training itself is left as it is, bit for bit on a CPU.
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
        self.last = None  # its step that was recorded last: an evaluation at the end of an epoch is no second one

    def on_train_begin(self, args, state, control, **kwargs):
        self.name, self.last = str(args.seed if self.run is None else self.run), state.global_step
        if state.is_world_process_zero and self.path.exists():
            with open(self.path, encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
            if rows and rows[0][:3] != [
                "run",
                "checkpoint",
                "example",
            ]:  # somebody else's, not to be overwritten
                raise InputError(
                    "Recorder path", str(self.path), "a file that a Recorder wrote, or none yet"
                )
            kept = [
                row for row in rows[1:] if row[0] != self.name or int(row[1]) <= state.global_step
            ]
            self._write("w", [rows[0], *kept]) if kept else self.path.unlink()

    def on_epoch_end(self, args, state, control, **kwargs):
        self._record(state, state.global_step)

    def on_evaluate(self, args, state, control, **kwargs):
        self._record(state, state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        if args.load_best_model_at_end:  # the weights that stay are not the last ones
            self._record(state, state.global_step + 1)

    def _record(self, state, step):
        if self.last is None or step <= self.last:  # nothing is trained yet, or it is recorded
            return
        self.last = step
        with torch.random.fork_rng(
            devices=[]
        ):  # a data loader draws a number, and dropout would draw others after it
            answers = self.trainer.predict(self.dataset)
        if state.is_world_process_zero:
            self._write("a", self._rows(answers, step))

    def _rows(self, answers, step):
        scores = (
            answers.predictions[0]
            if isinstance(answers.predictions, tuple)
            else answers.predictions
        )
        config = getattr(self.trainer.model, "config", None)
        found = self.label_names or list(getattr(config, "id2label", {}).values())
        names = found if len(found) == scores.shape[1] else list(map(str, range(scores.shape[1])))
        columns = {
            "run": [self.name] * len(scores),
            "checkpoint": [step] * len(scores),
            "example": range(len(scores)),
            "label": [names[i] for i in scores.argmax(axis=1)],
        }
        if answers.label_ids is not None:
            columns["gold"] = [names[i] for i in answers.label_ids]
        if self.texts is not None:
            columns["text"] = self.texts
        if self.probabilities:
            share = np.char.mod("%.6g", softmax(scores.astype(float), axis=1))
            columns |= {f"p_{name}": share[:, i] for i, name in enumerate(names)}
        return [
            *([] if self.path.exists() else [list(columns)]),
            *zip(*columns.values(), strict=True),
        ]

    def _write(self, mode, rows):
        with open(self.path, mode, encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
