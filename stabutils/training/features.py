"""Vectors of a frozen encoder and linear models of a task: computed once, used by every run.

Both are functions of the data (and of the checkpoint) alone. Vectors and what linear models answer
are kept in files beside the runs where the task names a folder for that; a process keeps the last
models that it fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import sklearn
import torch
from filelock import FileLock
from scipy.special import log_softmax
from torch import Tensor, nn

from stabutils.data import linear
from stabutils.data.datasets import Split
from stabutils.data.linear import ALL, LAST, Linear, LinearModel, fit, out_of_fold
from stabutils.errors import InputError
from stabutils.training import files
from stabutils.training.loop import evaluate
from stabutils.training.state import Stream
from stabutils.training.task import Task, Tokens, slots


@dataclass(frozen=True)
class Corpus:
    """A task that equals another one of the same texts, labels and model."""

    digest: str
    task: Task = field(compare=False, repr=False)

    @classmethod
    def of(cls, task: Task) -> Corpus:
        labels = {
            name: getattr(task, f"{name}_labels").tolist() for name in ("train", "validation")
        }
        about = {"texts": task.texts, "labels": labels, "model": task.identity}
        return cls(files.digest(about | {"longest": task.recipe.max_length}), task)


# ---- vectors


def frozen_vectors(task: Task, layer: int | str = LAST) -> dict[str, np.ndarray]:
    """Pooled vectors of all splits by the task's checkpoint before any training, computed once.

    Parameters
    ----------
    task : of a checkpoint; its pooling is used
    layer : -1 is the last and 0 the embeddings; "all" puts those of all layers side by side

    Returns
    -------
    dict
        By split float32 (texts, width). The vector of a layer has length 1, so rows of "all" have
        the length of the root of how many there are. They are read from `task.cache` where they are
        there, and written there else.

    Raises
    ------
    InputError
        for a task without a checkpoint, or a layer that the checkpoint does not have.
    """
    if not task.pretrained:
        raise InputError("model", task.identity["kind"], "a checkpoint, for frozen vectors")
    return _vectors(Corpus.of(task), layer)


@lru_cache(maxsize=2)
def _vectors(corpus: Corpus, layer: int | str) -> dict[str, np.ndarray]:
    task = corpus.task
    about = {"model": task.identity, "longest": task.recipe.max_length, "layer": layer}
    about["texts"] = files.digest({"texts": task.texts})
    if layer == ALL:
        about["length"] = "1 a layer"
    name = f"layer-{files.slug(str(layer))}"
    return _kept(task, name, about, lambda: _computed(task, layer))


def _kept(
    task: Task, name: str, about: dict, compute: Callable[[], files.Arrays]
) -> dict[str, np.ndarray]:
    """What `compute` gives, or what the task's folder has of the same; it is written there else.

    Of several processes that want the same one computes it, and the others wait.
    """
    if task.cache is None:
        return compute()
    path = task.cache / f"{name}-{files.digest(about)[:16]}.safetensors"
    found = _read(path, about)
    if found is None:
        locks = task.cache.with_name("locks")
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{path.stem}.lock"):
            found = _read(path, about)  # by the one that held the lock before
            if found is None:
                found = compute()
                files.write_file(path, files.encode(found, about))
    return found


def _read(path: Path, about: dict) -> dict[str, np.ndarray] | None:
    """The arrays of a file that is about the same; None where there is none."""
    arrays, record = files.read_file(path) or ({}, {})
    return arrays if record == about else None


def _computed(task: Task, layer: int | str) -> dict[str, np.ndarray]:
    with Stream("init", 0):  # of a head that is not asked
        network = task.build()
    part = network.features if layer == LAST else _layers(network, layer)
    recipe = replace(task.recipe, precision="fp32")
    vectors = {}
    for split in task.texts:
        rows = evaluate(network, part, getattr(task, split), recipe)
        vectors[split] = (rows if layer == ALL else nn.functional.normalize(rows)).numpy()
    return vectors


def _layers(network: nn.Module, layer: int | str) -> Callable[[Tokens], Tensor]:
    """Pooled vectors of one layer of a checkpoint's network, or of all, each of length 1."""
    network.backbone.config.output_hidden_states = True
    outputs = []
    network.backbone.register_forward_hook(lambda module, given, output: outputs.append(output))

    def part(tokens: Tokens) -> Tensor:
        outputs.clear()
        network.features(tokens)
        hidden = outputs[0].hidden_states
        is_one = type(layer) is int and -len(hidden) <= layer < len(hidden)
        if not (is_one or layer == ALL):
            allowed = f'"all", or an integer from {-len(hidden)} to {len(hidden) - 1}'
            raise InputError("layer", layer, allowed)
        taken = slots(tokens.lengths)[2]
        chosen = [hidden[layer]] if is_one else hidden
        pooled = [nn.functional.normalize(network.pool(states, taken)) for states in chosen]
        return torch.cat(pooled, 1)

    return part


# ---- linear models


@dataclass(frozen=True)
class Fit:
    """A linear model of some training examples of a corpus: their sorted rows, as bytes."""

    corpus: Corpus
    settings: Linear
    rows: bytes

    @classmethod
    def of(cls, task: Task, settings: Linear, rows: np.ndarray) -> Fit:
        return cls(Corpus.of(task), settings, np.sort(rows).astype(np.int64).tobytes())

    @property
    def kept(self) -> np.ndarray:
        return np.frombuffer(self.rows, np.int64)

    @property
    def examples(self) -> Split:
        task, kept = self.corpus.task, self.kept
        return Split(tuple(task.texts["train"][row] for row in kept), task.train_labels[kept])

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors that it reads, by split; of TF-IDF alone there are none."""
        settings = self.settings
        if settings.features == "tfidf":
            return {}
        return frozen_vectors(self.corpus.task, settings.layer)

    @property
    def about(self) -> dict[str, str]:
        """What decides it."""
        return {
            "corpus": self.corpus.digest,
            "settings": repr(self.settings),
            "rows": hashlib.sha256(self.rows).hexdigest(),
            "fitted by": f"scikit-learn {sklearn.__version__}, {_source_of_fit()}",
        }


def linear_logits(task: Task, settings: Linear, split: str, rows: Tensor) -> np.ndarray:
    """Calibrated log-probabilities (texts, classes), float32, of the texts of a split.

    They are by the linear model of some `rows` of the task's training texts, in any order; those of
    training texts by models that were fitted without them.
    """
    return _logits(Fit.of(task, settings, rows.numpy()), split)


def linear_strength(task: Task, settings: Linear) -> float:
    """The strength that validation chooses for the linear model of all training texts."""
    own = Fit.of(task, settings, np.arange(len(task.train_labels)))

    def compute() -> files.Arrays:
        return {"strength": np.array([_model(own).strength])}

    return float(_kept(task, "strength", own.about, compute)["strength"][0])


@lru_cache(maxsize=2)
def _model(own: Fit) -> LinearModel:
    task, vectors = own.corpus.task, own.vectors
    if vectors:
        vectors = vectors | {"train": vectors["train"][own.kept]}
    validation = Split(task.texts["validation"], task.validation_labels)
    return fit(own.settings, own.examples, validation, task.classes, vectors)


@lru_cache(maxsize=8)
def _logits(own: Fit, split: str) -> np.ndarray:
    def compute() -> files.Arrays:
        return {"logits": _fitted_logits(own, split)}

    about = own.about | {"split": split}
    return _kept(own.corpus.task, "linear", about, compute)["logits"]


def _fitted_logits(own: Fit, split: str) -> np.ndarray:
    model, vectors, kept = _model(own), own.vectors, own.kept
    margins = model.margins(own.corpus.task.texts[split], vectors.get(split))
    if split == "train":
        read = vectors["train"][kept] if vectors else None
        margins[kept] = out_of_fold(model, own.examples, read)
    logits = log_softmax(margins / model.temperature, axis=1)
    return np.maximum(logits, np.log(np.finfo(np.float32).tiny)).astype(np.float32)


@cache
def _source_of_fit() -> str:
    """A digest of the code that fits linear models."""
    return hashlib.sha256(Path(linear.__file__).read_bytes()).hexdigest()
