"""Answers that are committed: what a published study keeps of its runs, small enough for a
repository.

Labels are as they were; of probabilities there is what ensembles ask of control's. Whatever is
computed from committed answers is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stabutils.training import files

if TYPE_CHECKING:
    from stabutils.study.runs import Runs

STEPS, FEW = 8, 32  # codes per halving of a share; the code of all below 2 ** -4
OVER_CHECKPOINTS = ("checkpoint_entropy", "confidence_mean", "confidence_spread")


def narrow(array: np.ndarray, bits: int = 7) -> np.ndarray:
    """Numbers for files that are committed: float16 with so many of its ten bits, the others left
    at zero, where they pack. Seven bits: to 0.4 %.

    >>> narrow(np.array([0.3, -1.0])).tolist(), narrow(np.array([0.3]), bits=2).tolist()
    ([0.30078125, -1.0], [0.3125])
    """
    whole, least = np.ascontiguousarray(array, np.float16).view(np.uint16), 1 << (10 - bits)
    return ((whole + least // 2) & ~np.uint16(least - 1)).view(np.float16)


def highest(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (..., classes) with all but the highest of each row at zero, where they pack.

    >>> highest(np.array([0.7, 0.2, 0.1])).tolist()
    [0.7, 0.0, 0.0]
    """
    return np.where(probabilities == probabilities.max(-1, keepdims=True), probabilities, 0)


def coded(probabilities: np.ndarray, gold: np.ndarray) -> files.Arrays:
    """What is committed of probabilities (..., examples, classes) beside `labels` and `doubt`: what
    the right label costs (`right`, nats), and as bytes how the other classes share what is left
    (`shares`), those with little alike.
    """
    known = _known(probabilities.argmax(-1), gold, probabilities.shape[-1])
    rest = np.where(known, 0, probabilities.astype(float))
    shares = rest / np.maximum(rest.sum(-1, keepdims=True), 1e-30)
    steps = np.rint(-STEPS * np.log2(np.maximum(shares, 1e-9)))
    right = probabilities[..., np.arange(len(gold)), gold]
    return {
        "right": narrow(-np.log(np.maximum(right, 1e-30))),
        "shares": np.minimum(steps, FEW).astype(np.uint8),
    }


def decoded(
    right: np.ndarray, shares: np.ndarray, labels: np.ndarray, doubt: np.ndarray, gold: np.ndarray
) -> np.ndarray:
    """The probabilities that `coded` was given, float32 (..., examples, classes): the answer's and
    the right label's to 0.4 % of the doubt, the others' nearly so. The highest of each row is its
    label's.

    >>> told, answer, right = np.array([[0.5, 0.3, 0.12, 0.08]]), np.array([0]), np.array([1])
    >>> decoded(**coded(told, right), labels=answer, doubt=np.array([0.5]), gold=right).round(2)
    array([[0.5 , 0.3 , 0.12, 0.08]], dtype=float32)
    """
    known = _known(labels, gold, shares.shape[-1])
    few = (shares == FEW) & ~known
    found = np.where(known | few, 0, np.exp2(shares / -float(STEPS)))
    left = np.maximum(1 - found.sum(-1, keepdims=True), 2.0**-8)
    found = np.where(few, left / np.maximum(few.sum(-1, keepdims=True), 1), found)
    top, below = 1 - doubt[..., None].astype(float), 1 - 2.0**-12
    own = np.where(labels == gold, 0, np.exp(-right.astype(float)))[..., None].clip(max=top * below)
    found *= np.maximum(1 - top - own, 0) / np.maximum(found.sum(-1, keepdims=True), 1e-30)
    found = np.minimum(found, top * below)
    np.put_along_axis(found, np.broadcast_to(gold[:, None], own.shape), own, -1)
    np.put_along_axis(found, labels[..., None], top, -1)
    return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def _known(labels: np.ndarray, gold: np.ndarray, classes: int) -> np.ndarray:
    """Which classes are a run's answer or the right one, bool (..., examples, classes)."""
    return (np.arange(classes) == labels[..., None]) | (np.arange(classes) == gold[:, None])


def write(
    path: Path,
    runs: Runs,
    classes: int,
    about: Mapping,
    whole: bool = False,
    watched: bool = False,
) -> Path:
    """Write what is committed of an arm's runs, with what was kept beside their answers.

    Probabilities only if `whole`, what a run says over its checkpoints only if also `watched`.
    """
    small = np.uint8 if classes <= 256 else np.uint16
    kept = {name: getattr(runs, name).astype(small) for name in ("labels", "validation_labels")}
    kept |= {name: getattr(runs, name) for name in ("accuracy", "nll", "ece", "cpu_seconds")}
    kept["doubt"] = narrow(runs.doubt)
    if whole and runs.probabilities is not None:
        kept |= coded(runs.probabilities, runs.gold)
    if whole and watched:
        for name in OVER_CHECKPOINTS:
            if getattr(runs, name) is not None:
                kept[name] = getattr(runs, name).astype(np.float16)
    for name, array in runs.extras.items():
        if name == "out_of_scope":
            array = highest(array)  # nothing asks how sure a run is of its other guesses
        # Of vectors neighbourhoods are asked: three bits leave these.
        bits = 3 if array.ndim > 2 else 10
        kept[f"kept.{name}"] = narrow(array, bits)
    record = {
        "runs": list(runs.names),
        "arm": runs.arm,
        "gold": runs.gold.tolist(),
        "seeds": runs.seeds.tolist(),
    }
    files.write_file(path, files.pack(files.encode(kept, record | dict(about))))
    return path


def read(path: Path, keep: Sequence[str] = ()) -> dict[str, files.Arrays]:
    """The committed answers of an arm by run name, of those runs of which all of `keep` was
    committed.

    Put together from every file that begins with the arm's name; two machines' answers of a run are
    not mixed.
    """
    found: dict[str, files.Arrays] = {}
    wanted = {f"kept.{name}" for name in keep}
    parts = path.parent.glob(f"{path.name.removesuffix(files.PACKED)}*{files.PACKED}")
    in_order = sorted(parts, key=lambda part: (len(part.name), part.name))  # the plain sample first
    for part in in_order:
        arrays, record = files.read_file(part) or ({}, {"runs": ()})
        names = [name for name in arrays if not name.startswith("kept.") or name in wanted]
        for name in names:
            if arrays[name].dtype == np.float16:  # on disk only
                arrays[name] = arrays[name].astype(np.float32)
        for i, run in enumerate(record["runs"]):
            answers = {name: arrays[name][i] for name in names}
            answers["processors"] = np.array(record.get("processor", ""))
            if run not in found or same(found[run], answers):
                found[run] = found.get(run, {}) | answers
    return {run: answers for run, answers in found.items() if answers.keys() >= wanted}


def first(
    committed: files.Arrays | None, stored: files.Arrays | None, gold: np.ndarray
) -> files.Arrays:
    """The answers of one run: committed ones come first. A stored run adds what these lack, unless
    it is another machine's and answered otherwise.
    """
    if committed is None:
        return stored or {}
    answers = dict(committed)
    if stored is not None and same(stored, committed):
        answers = stored | committed
    if "shares" in answers:
        right, shares = answers.pop("right"), answers.pop("shares")
        answers["probabilities"] = decoded(right, shares, answers["labels"], answers["doubt"], gold)
    return answers


def same(one: files.Arrays, other: files.Arrays) -> bool:
    """Whether two trainings of a run answered alike."""
    return all(np.array_equal(one[name], other[name]) for name in ("labels", "validation_labels"))
