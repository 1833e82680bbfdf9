"""Where a study reads and writes: results, the run store, published answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from stabutils.errors import InputError
from stabutils.provenance import checkout, project_root
from stabutils.training.files import PACKED, digest, slug

LONGEST = 80  # characters of a file name before a hash replaces its end


def results_root() -> Path:
    """The folder of everything that a command or a notebook writes for its user.

    `STABUTILS_RESULTS` where it is set; `results/` of the clone for whoever works inside it;
    else `stabutils-results/` of the current folder.
    """
    if folder := os.environ.get("STABUTILS_RESULTS"):
        return Path(folder)
    clone = checkout()
    if clone is not None and Path.cwd().is_relative_to(clone):
        return clone / "results"
    return Path.cwd() / "stabutils-results"


def run_store() -> Path:
    """The folder of trained runs: `STABUTILS_RUNS`, `runs/` of the clone, or beside `results`."""
    if folder := os.environ.get("STABUTILS_RUNS"):
        return Path(folder)
    root = results_root()
    return root.parent / "runs" if root.name == "results" else root / "runs"


def results_of_study(dataset: str, model: str, runs: int, knobs: Mapping[str, object]) -> Path:
    """Where a notebook on a study writes: a readable name and a hash of all knobs."""
    name = slug(f"{Path(dataset).name} {Path(model).name} {runs} runs")
    return results_root() / f"{name}-{digest(knobs)[:8]}"


def results_of_file(predictions: Path) -> Path:
    """Where a notebook on a file of predictions writes: its name and a hash of its bytes."""
    try:
        content = hashlib.sha256(predictions.read_bytes()).hexdigest()
    except (OSError, ValueError):  # a name with NUL in it is a ValueError
        raise InputError("predictions", str(predictions), "an existing file") from None
    return results_root() / f"{slug(predictions.stem)}-{content[:8]}"


def records_of(dataset: str, model: str) -> Path:
    """Where the published study of a corpus lies; that of a checkpoint has a folder of its own."""
    checkpoint = "" if model.startswith("compact") else Path(model).name
    return project_root() / "records" / slug(f"{dataset} {checkpoint}")


def published_answers(records: Path, model: str, arm: str, part: str = "") -> Path:
    """The file of an arm's published answers, or of a part of them (other seeds, another
    length).
    """
    name = slug(f"{Path(model).name} {arm}", 1000)
    if len(name) > LONGEST:
        whole = hashlib.sha256(name.encode()).hexdigest()
        name = f"{name[: LONGEST - 9]}-{whole[:8]}"
    ending = f"-{slug(part)}" if part else ""
    return records / "answers" / f"{name}{ending}{PACKED}"
