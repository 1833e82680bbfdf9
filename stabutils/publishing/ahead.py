"""What several notebooks train, trained before they ask for it: each run once, no core idle.

A notebook by itself leaves cores idle at the end of each arm and while it computes and draws,
starts processes of its own, and trains a run again for what only another notebook keeps of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import active_children, get_context
from typing import Any

from joblib import cpu_count

from stabutils.mitigations import Mitigation
from stabutils.publishing.plans import parts_of
from stabutils.study.dispatch import Dispatch, end_with, progress, unseen_interrupts
from stabutils.study.forecast import Forecast
from stabutils.study.runs import Run
from stabutils.study.study import Study, StudyOfTexts

Plans = Mapping[str, tuple[Study, Mapping[str, Any]]]  # study and parameters by notebook


@dataclass(frozen=True)
class Training:
    """A run to be trained, with all that any notebook keeps of it.

    Attributes
    ----------
    number : of the first notebook that needs it
    study : as it was given, without what it has computed since
    """

    number: str
    study: Study
    mitigation: Mitigation
    run: Run
    keep: set[str]


class Ahead:
    """Trains for notebooks, in their order, while those before are executed.

    What cannot be trained here fails again where a notebook asks for it, and is reported there.
    """

    def __init__(self, plans: Plans) -> None:
        self.plans = plans
        studies = [study for study, _ in plans.values()]
        alone = len(studies) < 2 or any(study.model != "compact" for study in studies)
        self.workers = 0 if alone else studies[0].workers or cpu_count()
        self.futures: dict[str, list] = {}

    def __enter__(self) -> Ahead:
        if self.workers:
            spawn, driver = get_context("spawn"), os.getpid()
            self.pool = ProcessPoolExecutor(self.workers, spawn, begin, (driver,))
            with unseen_interrupts():
                found = self.pool.submit(trainings, self.plans)
            try:
                wanted = [] if found.exception() else found.result()
            except KeyboardInterrupt:
                self.__exit__()
                raise
            with unseen_interrupts():
                for training in wanted:
                    future = self.pool.submit(train, training)
                    self.futures.setdefault(training.number, []).append(future)
        return self

    def __exit__(self, *_: object) -> None:
        if self.workers:
            self.pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()

    def wait(self, number: str) -> None:
        """Until all that a notebook is known to need, and no earlier one, is trained."""
        own = self.futures.get(number, [])
        if own:
            words = {"desc": f"trainings for {number}", "unit": "run", "leave": False}
            with progress(total=len(own), **words) as bar:
                first = own is next(iter(self.futures.values()))
                for _ in as_completed(own):
                    bar.update()
                    if first and bar.n == 2 * self.workers:
                        bar.set_description_str(f"{words['desc']} ({self.estimate(bar)})")

    def estimate(self, bar: Any) -> str:
        """How long all trainings take together, by those that a progress bar has seen."""
        count = sum(map(len, self.futures.values()))
        minutes = max(1, round(bar.format_dict["elapsed"] / bar.n * count / 60))
        return f"{count} runs in all, about {minutes} min"


def begin(driver: int) -> None:
    """Make this a worker process, which ends with the one that started it.

    Who interrupts a command interrupts the one that started it, and that one ends its workers; what
    they train goes on from where it was last saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(driver)


def train(training: Training) -> None:
    """One training in a worker process."""
    train_one = dispatch_of(training.study).train_one
    train_one(training.mitigation, training.run, sorted(training.keep))


@cache
def dispatch_of(study: Study) -> Dispatch:
    """That of a study, whose texts a process reads once."""
    return study.dispatch


def trainings(plans: Plans) -> list[Training]:
    """Each run that notebooks are known to train, once, teachers before their students."""
    forecast = Forecast()
    owners: dict[str, tuple[str, Study]] = {}  # by run
    studies: dict[Study, Study] = {}  # equal ones read their texts once
    for number, (given, knobs) in plans.items():
        for part in parts_of(number, studies.setdefault(given, given), knobs):
            if isinstance(part.study, StudyOfTexts):
                continue  # a worker process makes a study of its knobs
            study = studies.setdefault(part.study, part.study)
            if part.arm is None or study.dispatch.cluster or study.dispatch.device != "cpu":
                continue
            replace(part, study=study).count(forecast)
            for name in forecast.trained.keys() - owners.keys():
                owners[name] = number, replace(study)
    return [
        Training(*owners[name], mitigation, run, forecast.extras[name])
        for name, (mitigation, run) in forecast.trained.items()
    ]
