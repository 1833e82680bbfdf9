"""Training the runs that are missing: one process a core here, or the workers of a cluster.

A run is trained by one process on one thread, so that its bits are its own. Processes that share a
store divide the runs between them.
"""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.process_executor import TerminatedWorkerError

from stabutils.errors import Incomplete, InputError
from stabutils.provenance import provenance
from stabutils.study.answers import Answers
from stabutils.study.runs import Run, taught
from stabutils.study.stacks import trained_on
from stabutils.training import files
from stabutils.training.hooks import Mitigation

if TYPE_CHECKING:
    from stabutils.training.state import Seeds
    from stabutils.training.task import Task


@dataclass(frozen=True)
class Dispatch:
    """Trains runs of one task and stores what they answer.

    identify: the run of a mitigation and seeds. workers: processes, 0 for one a core. cluster:
    address of a Dask scheduler, "" for this machine. device: as `devices.resolve` names it; runs on
    another than the CPU are trained in this process, several at once.
    """

    task: Task
    answers: Answers
    identify: Callable[[Mitigation, Seeds], Run]
    workers: int = 0
    cluster: str = ""
    device: str = "cpu"

    def train(
        self,
        mitigation: Mitigation,
        runs: Sequence[Run],
        keep: Sequence[str] = (),
        done: int = 0,
    ) -> None:
        """Train the runs that are not stored yet, teachers first.

        done : runs of the request that have answers already; progress counts all of the request.

        Raises Incomplete when some could not be trained; those that could are stored.
        """
        missing = [run for run in runs if not self.answers.has(run, keep)]
        if not missing:
            return
        teachers = self.teachers(mitigation, missing)
        self.train(Mitigation(), teachers, mitigation.teacher_extras)
        failures: dict[str, str] = {}
        label, total = runs[0].label.rsplit(" seed", 1)[0], done + len(runs)
        name = textwrap.shorten(label, 60, placeholder=" ...")
        with progress(total=total, initial=done, desc=name, unit="run", leave=False) as bar:
            while missing:
                bar.update(total - len(missing) - bar.n)
                for run, failure in self._trained(mitigation, missing, keep):
                    if failure:
                        failures[run.name] = f"{run.label}: {failure}"
                    bar.update()
                unfailed = [run for run in missing if run.name not in failures]
                missing = [run for run in unfailed if not self.answers.has(run, keep)]
                if missing:
                    time.sleep(0.2)  # what is still missing is held by another process
        if failures:
            reasons = "; ".join(failures.values())
            raise Incomplete(
                f"{len(failures)} of {len(runs)} runs could not be trained, "
                f"the others are stored. {reasons}"
            )

    def train_one(self, mitigation: Mitigation, run: Run, keep: Sequence[str] = ()) -> None:
        """Train a run, unless another process is at it; of others' trainings wait for teachers
        only.
        """
        teachers = self.teachers(mitigation, [run])
        self.train(Mitigation(), teachers, mitigation.teacher_extras)
        for _ in self._trained(mitigation, [run], keep):
            pass

    def teachers(self, mitigation: Mitigation, runs: Sequence[Run]) -> list[Run]:
        """The control trainings that some runs of a mitigation learn from, each once."""
        seeds = [teacher for run in runs for teacher in mitigation.teacher_seeds(run.seeds)]
        return [self.identify(Mitigation(), teacher) for teacher in dict.fromkeys(seeds)]

    def _teachers_of(self, mitigation: Mitigation, run: Run) -> dict[str, np.ndarray]:
        """What a run's teachers kept, by name: arrays, teachers first."""
        names, found = mitigation.teacher_extras, []
        for teacher in self.teachers(mitigation, [run]):
            answers = self.answers.stored(teacher, names)
            if answers is None:
                raise Incomplete(
                    f"{run.label}: a teacher was removed from the store; "
                    "the same request trains it again"
                )
            found.append(answers)
        return taught(names, found)

    def _trained(
        self, mitigation: Mitigation, runs: Sequence[Run], keep: Sequence[str]
    ) -> Iterator[tuple[Run, str]]:
        """Train the runs that no other process is at; yields each with why it failed, or ""."""
        locks, store = {}, self.answers.store
        # A run that is trained once more, for its extras, has another unfinished state.
        suffix = ".kept" if keep else ""

        def calls() -> Iterator[tuple]:
            for run in runs:
                lock = store.lock(run.name)
                if lock is None:
                    continue
                locks[run.name] = lock
                if self.answers.has(run, keep):  # another process finished it since we looked
                    continue
                unfinished = None if self.cluster else store.partial(run.name + suffix)
                extras = {*keep, *self.answers.extras(run)}
                teachers = self._teachers_of(mitigation, run)
                yield mitigation, run, unfinished, extras, os.getpid(), teachers

        try:
            with closing(self._results(calls(), len(runs))) as results:
                for run, arrays, failure, made_by in results:
                    if not failure:
                        record = {"label": run.label, "identity": run.identity} | made_by
                        store.write(run.name, arrays, record)
                        store.forget(run.name + suffix)
                    locks.pop(run.name).release()
                    yield run, failure
        except TerminatedWorkerError as error:
            raise Incomplete(
                "a worker process died, often for want of memory (fewer `workers` need less); what "
                "is finished is stored, and the same request goes on from there"
            ) from error
        finally:
            for lock in locks.values():
                lock.release()

    def _results(self, calls: Iterator[tuple], most: int) -> Generator:
        """What `train_run` returns for each of at most `most` calls, as it comes."""
        if not self.cluster and self.device != "cpu":
            return trained_on(self.device, self.task, calls, train_run)
        if not self.cluster:
            processes = min(self.workers or cpu_count(), most)
            parallel = Parallel(
                n_jobs=processes, return_as="generator_unordered", pre_dispatch="n_jobs"
            )
            with unseen_interrupts():
                return parallel(delayed(train_run)(self.task, *call) for call in calls)
        try:
            from stabutils.study.cluster import trained
        except ImportError:
            allowed = "its extra to be there: pip install stabutils[cluster]"
            raise InputError("cluster", self.cluster, allowed) from None
        on_device = partial(train_run, device=self.device)
        return trained(self.cluster, self.workers, self.task, calls, on_device)


def train_run(
    task: Task,
    mitigation: Mitigation,
    run: Run,
    unfinished: Path | None,
    keep: set[str],
    driver: int,
    teachers: Mapping[str, np.ndarray] | None = None,
    device: str = "cpu",
) -> tuple[Run, files.Arrays, str, dict]:
    """One training in a worker, on one thread, and what made it.

    A training that diverges is a result, the third item, and no crash of the others.
    """
    import torch

    from stabutils.training import devices
    from stabutils.training.loop import train
    from stabutils.training.probes import PROBES
    from stabutils.training.state import Diverged

    end_with(driver)
    probes = [probe for name, probe in PROBES.items() if name in keep]
    threads, made_by = torch.get_num_threads(), provenance()
    if device != "cpu":
        made_by = made_by | {"device": devices.describe(device)}
    torch.set_num_threads(1)
    try:
        answers = train(task, mitigation, run.seeds, unfinished, probes, teachers, device)
        return run, answers, "", made_by
    except Diverged as error:
        return run, {}, str(error), made_by
    finally:
        torch.set_num_threads(threads)


@cache
def end_with(driver: int) -> None:
    """End this worker process when the one that started it is gone.

    Nobody would take its answers, and whoever trains its run next writes to the same unfinished
    state.
    """

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    if os.getppid() == driver:
        threading.Thread(target=watch, daemon=True).start()


@contextmanager
def unseen_interrupts() -> Iterator[None]:
    """Worker processes that are started meanwhile never see a Ctrl-C: this process ends them, and
    their tracebacks would bury what it says.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    for tracker in (resource_tracker, loky_tracker):
        tracker.ensure_running()  # else it is started meanwhile, and lets signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def progress(**settings):
    """A progress bar, or a line now and then where the output is no terminal.

    STABUTILS_BAR=text asks for a bar that also reads well in a terminal, STABUTILS_BAR=lines for
    the lines; a notebook has a bar of its own.
    """
    kind = os.environ.get("STABUTILS_BAR")
    if kind == "lines" or not kind and "ipykernel" not in sys.modules and not sys.stderr.isatty():
        return lines(**settings)
    if kind == "text":
        from tqdm.std import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(**settings)


def lines(**settings: object):
    """A progress bar that writes a line every ten seconds at most and one at its end."""
    from tqdm.std import tqdm

    class Lines(tqdm):
        disable: bool  # known without tqdm's stubs too

        @staticmethod
        def status_printer(file):
            def write(text: str) -> None:
                for unknown in ("?", "00:00"):  # before the first run, and at the end
                    text = text.removesuffix(f", then about {unknown}")
                if text:
                    print(text, file=file, flush=True)

            return write

        def close(self) -> None:
            if not self.disable:
                self.disable = True
                self.display()

    layout = "{desc}: {n_fmt} of {total_fmt} runs, {elapsed}, then about {remaining}"
    usual = {"mininterval": 10, "miniters": 1, "bar_format": layout}
    return Lines(**settings | usual)
