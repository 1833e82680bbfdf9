"""A corpus and a network so small that a training takes a few hundredths of a second."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from stabutils.data.datasets import Dataset, Split
from stabutils.study import paths
from stabutils.training import preparation
from stabutils.training.networks import CompactShape
from stabutils.training.preparation import prepare_compact
from stabutils.training.task import Recipe, Task

NAMES = ("alarm", "light", "music", "weather")
OWN = {
    "alarm": ("wake", "alarm", "seven"),
    "light": ("lamp", "bright", "dim"),
    "music": ("song", "jazz", "louder"),
    "weather": ("rain", "sunny", "umbrella"),
}
SHARED = ("please", "the", "turn", "on", "tomorrow", "kitchen", "set", "what")
# All settings, so that better defaults of the package leave the pinned numbers alone.
SHAPE = CompactShape(
    width=16,
    layers=1,
    heads=2,
    buckets=128,
    input_dropout=0.4,
    dropout=0.2,
    skip=0.2,
    output_dropout=0.4,
    word_dropout=0.2,
)
RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    learning_rate=0.01,
    weight_decay=0.05,
    warmup=0.1,
    clip=0.0,
    head_rate=1.0,
    bucket=1,
    checkpoints=2,
    max_length=16,
)


def split(each: int, draw: np.random.Generator) -> Split:
    """`each` texts an intent: one or two of its own words among shared ones, so that seeds disagree
    on some.
    """
    rows = []
    for label, name in enumerate(NAMES):
        for _ in range(each):
            text = [
                *draw.choice(OWN[name], draw.integers(0, 3)),
                *draw.choice(SHARED, draw.integers(1, 5)),
            ]
            rows.append((" ".join(draw.permutation(text)), label))
    texts, labels = zip(*draw.permutation(np.array(rows, object)), strict=True)
    return Split(tuple(texts), [int(label) for label in labels])


def dataset() -> Dataset:
    draw = np.random.default_rng(0)
    return Dataset("tiny", split(15, draw), split(3, draw), split(5, draw), NAMES)


def task(recipe: Recipe = RECIPE, shape: CompactShape = SHAPE, data: Dataset | None = None) -> Task:
    return prepare_compact(data or dataset(), recipe, shape)


def prepare(model, data: Dataset, recipe: Recipe, pooling: str) -> Task:
    """In place of `models.prepare`: a small network instead of the compact one."""
    return task(recipe, data=data)


def write_csv(path: Path) -> Path:
    """The corpus as a user would bring it."""
    data = dataset()
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for name in ("train", "validation", "test"):
            part = getattr(data, name)
            writer.writerows(
                (text, NAMES[label], name)
                for text, label in zip(part.texts, part.labels, strict=True)
            )
    return path


def project(folder: Path, monkeypatch) -> Path:
    """The corpus of a fresh project with a fresh store, both in `folder`, where every study trains
    small networks.
    """
    monkeypatch.setenv("STABUTILS_RUNS", str(folder / "runs"))
    monkeypatch.setattr(paths, "project_root", lambda: folder / "project")
    monkeypatch.setattr(preparation, "prepare", prepare)
    return write_csv(folder / "tiny.csv")


def same(one: dict, other: dict) -> bool:
    """Equal answers, bit for bit; what they cost may differ."""
    assert one.keys() == other.keys()
    return all(np.array_equal(one[name], other[name]) for name in one if name != "cpu_seconds")
