"""A run: what decides its answers, and its training in a process of its own, wherever that is."""
from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import store
from .provenance import provenance

if TYPE_CHECKING:
    from .mitigations import Mitigation
    from .models import Task
    from .training import Seeds


@dataclass(frozen=True)
class Run:
    """Exactly what could change the answers of one training."""

    label: str  # for people: dataset, model, mitigation, seeds
    seeds: Seeds
    identity: dict

    @cached_property
    def name(self) -> str:
        """File name: readable, legal on every system, and another one for every other identity."""
        return f"{store.slug(self.label)}-{hashlib.sha256(store.canonical(self.identity).encode()).hexdigest()[:16]}"


def train_run(task: Task, mitigation: Mitigation, run: Run, unfinished: Path | None, keep: set[str],
              driver: int, teachers: np.ndarray | None = None) -> tuple[Run, store.Arrays, str, dict]:
    """One training in a worker, on one thread, and what made it; a training that diverges is an answer, not a crash of
    the others."""
    import torch

    from .probes import PROBES
    from .training import Diverged, train

    end_with(driver)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        answers = train(task, mitigation, run.seeds, unfinished, [PROBES[n] for n in PROBES if n in keep], teachers)
        return run, answers, "", provenance()
    except Diverged as error:
        return run, {}, str(error), provenance()
    finally:
        torch.set_num_threads(threads)


@cache
def end_with(driver: int) -> None:
    """End this worker process when the one that started it is gone: nobody would take its answers, and whoever trains
    its run next writes to the same unfinished state."""
    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    if os.getppid() == driver:
        threading.Thread(target=watch, daemon=True).start()
