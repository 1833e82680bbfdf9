"""A study: one classifier retrained many times on the same data.

`Study` is the schema of every notebook's parameters cell and is checked when it is made; `retrain` answers with `Runs`.
What was published is read where it suffices, what is stored besides, and only what is missing is trained.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_type_hints

import numpy as np
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from . import committed, metrics, store
from .datasets import Dataset, load_dataset
from .errors import Incomplete, InputError
from .provenance import project_root, provenance
from .store import slug
from .worker import Run, train_run

if TYPE_CHECKING:
    from .mitigations import Mitigation
    from .models import Task
    from .training import Seeds


OF_RECIPE = ("epochs", "batch_size", "learning_rate", "weight_decay", "max_length")  # knobs that make another control


@dataclass(frozen=True)
class Runs:
    """What several trainings answered; runs first, always in the order asked for.

    labels (runs, examples) and validation_labels, int; accuracy, nll (nats), ece and cpu_seconds (runs,);
    doubt (runs, examples): one minus the probability of the answer given; checkpoint_entropy, confidence_mean,
    confidence_spread (runs, examples): of one run over its own checkpoints; of published answers control's only.
    probabilities (runs, examples, classes): of published answers control's only, rounded (`committed.decoded`).
    validation_probabilities, checkpoints and confidence (runs, checkpoints, examples): None for runs that were read
    from published answers.
    kept: what `keep` asked for, by name, each (runs, ...) as `probes` describes it.
    """

    arm: str
    names: tuple[str, ...]
    seeds: np.ndarray  # (runs,) the init seed, which is the run's master seed unless seeds were given one by one
    gold: np.ndarray
    labels: np.ndarray
    validation_labels: np.ndarray
    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray
    cpu_seconds: np.ndarray
    doubt: np.ndarray
    checkpoint_entropy: np.ndarray | None = None
    confidence_mean: np.ndarray | None = None
    confidence_spread: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    validation_probabilities: np.ndarray | None = None
    checkpoints: np.ndarray | None = None
    confidence: np.ndarray | None = None
    kept: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


def summarise(answers: store.Arrays, gold: np.ndarray) -> store.Arrays:
    """What is kept of a run beyond its labels, when its probabilities are not."""
    probabilities, confidence, seen = answers["probabilities"][None], answers["confidence"], answers["checkpoints"]
    return {"accuracy": metrics.accuracy(answers["labels"][None], gold)[0],
            "nll": metrics.nll(probabilities, gold)[0], "ece": metrics.ece(probabilities, gold)[0],
            "doubt": 1 - answers["probabilities"].max(-1),
            # A training of a single step has one checkpoint, and that agrees with itself.
            "checkpoint_entropy": metrics.checkpoint_entropy(seen[None])[0] if len(seen) > 1 else np.zeros(len(gold)),
            "confidence_mean": confidence.mean(0), "confidence_spread": confidence.std(0)}


@dataclass(frozen=True)
class Study:
    """The knobs of a study. Raises InputError, naming the knob, before anything is computed."""

    dataset: str = field(default="assistant", metadata={"help": "a corpus by name, or a path to your own"})
    model: str = field(default="compact", metadata={
        "help": "compact, or a transformers checkpoint (folder, package or hub id)"})
    runs: int = field(default=10, metadata={"help": "retrainings", "least": 2})
    seed: int = field(default=0, metadata={"help": "base seed: run r trains with seed + r", "least": 0})
    epochs: int | None = field(default=None, metadata={"help": "passes over the data; None: by model", "least": 1})
    batch_size: int | None = field(default=None, metadata={"help": "None: by model", "least": 1})
    learning_rate: float | None = field(default=None, metadata={"help": "peak; None: by model", "above": 0})
    weight_decay: float | None = field(default=None, metadata={"help": "None: by model", "least": 0})
    max_length: int | None = field(default=None, metadata={"help": "tokens read of a text", "least": 1})
    pooling: str = field(default="auto", metadata={"help": "of a checkpoint's token vectors",
                                                   "choices": ("auto", "mean", "first", "last")})
    precision: str = field(default="fp32", metadata={"help": "of the training", "choices": ("fp32", "bf16")})
    workers: int = field(default=0, metadata={"help": "processes; 0: one a core", "least": 0})
    cluster: str = field(default="", metadata={"help": "address of a Dask scheduler, or local"})
    published: bool = field(default=True, metadata={"help": "read committed answers where there are some"})

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for knob in fields(self):
            check(knob.name, getattr(self, knob.name), hints[knob.name], knob.metadata)

    @cached_property
    def data(self) -> Dataset:
        return load_dataset(self.dataset)

    @cached_property
    def task(self) -> Task:
        from .models import default_recipe, prepare

        given = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate", "weight_decay",
                                                        "max_length", "precision")}
        # Values take on the recipe's types: a rate of 1 and one of 1.0 are one recipe.
        recipe = default_recipe(self.model, len(self.data.train))
        recipe = replace(recipe, **{k: type(getattr(recipe, k))(v) for k, v in given.items() if v is not None})
        recipe = replace(recipe, checkpoints=max(recipe.checkpoints, math.ceil(4 / recipe.epochs)))
        return prepare(self.model, self.data, recipe, self.pooling)

    def output(self, given: str = "") -> Path:
        """Where what a notebook shows is kept: `given`, or results/<readable name>-<hash of the knobs>."""
        knobs = {name: value for name, value in asdict(self).items() if name not in ("workers", "cluster", "published")}
        name = slug(f"{Path(self.dataset).name} {Path(self.model).name} {self.runs} runs")
        digest = hashlib.sha256(store.canonical(knobs).encode()).hexdigest()
        return Path(given) if given else project_root() / "results" / f"{name}-{digest[:8]}"

    def about(self) -> dict:
        """What a record says of how it came about: everything that decides the answers, and what ran it."""
        return provenance() | {"dataset": self.data.fingerprint, "model": self.task.identity,
                               "recipe": asdict(self.task.recipe)}

    @cached_property
    def store(self) -> store.Store:
        return store.Store(os.environ.get("STABUTILS_RUNS") or project_root() / "runs")

    def retrain(self, mitigation: str | Mitigation | tuple[Mitigation, ...] = "control", n: int | None = None,
                start: int = 0, seeds: Sequence[Seeds] | None = None, keep: Sequence[str] = ()) -> Runs:
        """The answers of `n` trainings (default: `runs`) with seeds seed + start, seed + start + 1, ...; or of `seeds`.

        keep: names out of `probes.PROBES`, measured on each training beside its answers, which they leave as they are.
        A run that has been trained, or published, without them is trained again. Published answers come before stored
        ones, so that what follows from them is the same on every machine. Within `committed.publishing()` answers of
        every plain sample that is asked for are committed (with what was kept, if in `probes.COMMITTED`).
        Raises Incomplete when some could not be trained; those that could are stored.
        """
        from . import probes
        from .mitigations import describe, resolve
        from .training import Seeds

        mitigation, keep = resolve(mitigation), probes.names(keep)
        n = self.runs if n is None else n
        check("n", n, int, {"least": 1})
        check("start", start, int, {"least": 0})
        if seeds is not None and not len(seeds):
            raise InputError("seeds", seeds, "at least one")
        sample = seeds is None
        seeds = seeds or [Seeds(s, s, s) for s in range(self.seed + start, self.seed + start + n)]
        runs = [self.identify(mitigation, s) for s in seeds]
        arm = describe(mitigation)
        published = self.published_answers(arm, keep)
        stored = {run.name: self.stored(run, keep) for run in runs}
        while missing := [run for run in runs if run.name not in published and stored[run.name] is None]:
            self.train(mitigation, missing, keep)
            stored |= {run.name: self.stored(run, keep) for run in missing}
        stacked = self.stack(arm, runs, stored, published)
        if os.environ.get(committed.PUBLISH) and sample and keep in probes.COMMITTED:
            knobs = {"from": start or None, "seed": self.seed or None}
            knobs |= {name: getattr(self, name) for name in OF_RECIPE}
            words = (f"{name} {value}" for name, value in knobs.items() if value is not None)
            part = " ".join([probes.COMMITTED[keep], *words]).strip()
            # Probabilities, and what a run says over its checkpoints, are large: of the study's own control only.
            whole = arm == "control" and not start and not keep and n >= self.runs
            lacking = not published.keys() >= set(stacked.names) or (
                whole and stacked.probabilities is not None and "shares" not in published[stacked.names[0]])
            if lacking and (whole or part or arm != "control"):  # less of control must not stand in the place of more
                self.publish(stacked, part, whole)
                published = self.published_answers(arm, keep)
            if published.keys() >= set(stacked.names):  # as anyone will read them; of control a notebook shows more
                stacked = self.stack(arm, runs, stored if whole else dict.fromkeys(stored), published)
        return stacked

    def plan(self, mitigation: str | Mitigation | tuple[Mitigation, ...] = "control", n: int | None = None,
             keep: Sequence[str] = ()) -> dict:
        """What `retrain` would need: runs asked for, stored, published, and still to be trained, teachers too."""
        from . import probes
        from .mitigations import describe, resolve
        from .training import Seeds

        mitigation, keep = resolve(mitigation), probes.names(keep)
        wanted = range(self.seed, self.seed + (self.runs if n is None else n))
        runs = [self.identify(mitigation, Seeds(s, s, s)) for s in wanted]
        answers = self.published_answers(describe(mitigation), keep)
        stored = [run.name for run in runs if not self.lacks(run, keep)]
        published = [run.name for run in runs if run.name in answers]
        missing = [run for run in runs if run.name not in {*stored, *published}]
        teachers = [run for run in self.teachers(mitigation, missing) if self.lacks(run, ("training",))]
        return {"runs": len(runs), "stored": len(stored), "published": len(published),
                "to train": len(missing) + len(teachers)}

    def teachers(self, mitigation: Mitigation, runs: Sequence[Run]) -> list[Run]:
        """The control trainings that some runs of a mitigation learn from, each once."""
        from .mitigations import Mitigation

        seeds = dict.fromkeys(teacher for run in runs for teacher in mitigation.taught_by(run.seeds))
        return [self.identify(Mitigation(), each) for each in seeds]

    def taught(self, mitigation: Mitigation, run: Run) -> np.ndarray | None:
        """What the teachers of a run made of the training texts, float16 (teachers, checkpoints, examples, classes)."""
        teachers = self.teachers(mitigation, [run])
        found = [(self.stored(teacher, ("training",)) or {}).get("kept.training") for teacher in teachers]
        if any(answers is None for answers in found):
            raise Incomplete(f"{run.label}: a teacher was removed from the store; the same request trains it again")
        return np.stack(found) if found else None

    def identify(self, mitigation: Mitigation, seeds: Seeds) -> Run:
        from .mitigations import describe, identity
        from .training import RECIPE_VERSION

        what = {"version": RECIPE_VERSION, "dataset": self.data.fingerprint, "model": self.task.identity,
                "recipe": asdict(self.task.recipe), "mitigation": identity(mitigation), "seeds": asdict(seeds)}
        numbers = sorted({seeds.init, seeds.order, seeds.dropout})
        label = (f"{self.data.name} {Path(self.model).name} {describe(mitigation)} seed "
                 f"{numbers[0] if len(numbers) == 1 else f'{seeds.init}.{seeds.order}.{seeds.dropout}'}")
        return Run(label, seeds, what)

    def stored(self, run: Run, keep: Sequence[str] = ()) -> store.Arrays | None:
        """The stored answers of a run, their summaries, and of what was kept what is asked for; None where there are
        none, or another run's, or where something asked for was not kept."""
        answers, record = self.store.read(run.name) or ({}, {})
        kept = {f"kept.{name}": None for name in keep}
        if record.get("identity") != json.loads(store.canonical(run.identity)) or not kept.keys() <= answers.keys():
            return None
        kept = {name: answers[name] for name in kept}
        answers = {name: array for name, array in answers.items() if not name.startswith("kept.")}
        return answers | kept | summarise(answers, self.data.test.labels)

    def lacks(self, run: Run, keep: Sequence[str]) -> bool:
        """Whether a run is still to be trained, or once more for what is to be kept of it."""
        return self.stored(run, keep) is None

    def kept_before(self, run: Run) -> list[str]:
        """What the stored file of a run holds beside its answers."""
        answers, _ = self.store.read(run.name) or ({}, {})
        return [name.removeprefix("kept.") for name in answers if name.startswith("kept.")]

    @property
    def records(self) -> Path:
        """Where the published study of the corpus lies; that of each pretrained checkpoint lies apart."""
        from .models import COMPACTS

        checkpoint = "" if self.model in COMPACTS else Path(self.model).name
        return project_root() / "records" / slug(f"{self.data.name} {checkpoint}")

    def published_path(self, arm: str, part: str = "") -> Path:
        """Where the committed answers of an arm or of a part of it lie; long names are cut, a hash tells them apart."""
        folder = self.records / "answers"
        name = slug(f"{Path(self.model).name} {arm}", 1000)
        name = name if len(name) <= 80 else f"{name[:71]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return folder / f"{name}{part and '-' + slug(part)}{store.PACKED}"

    def published_answers(self, arm: str, keep: Sequence[str] = ()) -> dict[str, store.Arrays]:
        """Committed answers of an arm by run name, of those runs of which all of `keep` was committed."""
        return committed.read(self.published_path(arm), keep) if self.published else {}

    def publish(self, runs: Runs, part: str = "", whole: bool = False) -> Path:
        """Commit the answers of an arm to where `published_answers` finds them. Runs that are no plain sample of the
        arm (crossed seeds, another length), or of which more was kept than of the others, go to a file of their own,
        named by `part`."""
        about = {"dataset": self.data.name, "model": self.model, "recipe": asdict(self.task.recipe),
                 "identity": self.task.identity} | provenance()
        return committed.write(self.published_path(runs.arm, part), runs, len(self.data.label_names), about, whole)

    def train(self, mitigation: Mitigation, runs: Sequence[Run], keep: Sequence[str] = ()) -> None:
        """Train what is not stored yet: one process and one thread a run, so that a run's bits are its own.

        Processes that share the store divide the runs between them; each run is trained once. Teachers come first.
        """
        from .mitigations import Mitigation

        if teachers := self.teachers(mitigation, runs):
            self.train(Mitigation(), teachers, ("training",))
        failures: dict[str, str] = {}
        missing = runs
        with progress(total=len(runs), desc=runs[0].label.rsplit(" seed", 1)[0], unit="run", leave=False) as bar:
            while missing := [run for run in missing if run.name not in failures and self.lacks(run, keep)]:
                bar.update(len(runs) - len(missing) - bar.n)
                for run, failure in self.trained(mitigation, missing, keep):
                    if failure:
                        failures[run.name] = f"{run.label}: {failure}"
                    bar.update()
                time.sleep(0.2)  # what is still missing is held by another process
        if failures:
            raise Incomplete(f"{len(failures)} of {len(runs)} runs could not be trained, the others are stored. "
                             + "; ".join(failures.values()))

    def trained(self, mitigation: Mitigation, runs: Sequence[Run], keep: Sequence[str]) -> Iterator[tuple[Run, str]]:
        """Train those of `runs` that no other process is at; yields each, stored, or with why it failed."""
        held = {}
        # Reading a finished run clears away its unfinished state: that of one trained once more has another name.
        again = ".kept" if keep else ""

        def claimed() -> Iterator:
            for run in runs:
                lock = self.store.lock(run.name)
                if lock is None:
                    continue
                held[run.name] = lock
                if self.lacks(run, keep):  # else another process finished it since we looked
                    unfinished = None if self.address else self.store.partial(run.name + again)
                    yield (mitigation, run, unfinished, {*keep, *self.kept_before(run)}, os.getpid(),
                           self.taught(mitigation, run))

        try:
            with closing(self.answered(claimed(), len(runs))) as answered:
                for run, answers, failure, made_by in answered:
                    if not failure:
                        self.store.write(run.name, answers, {"label": run.label, "identity": run.identity} | made_by)
                        self.store.forget(run.name + again)
                    held.pop(run.name).release()
                    yield run, failure
        except TerminatedWorkerError as error:
            raise Incomplete("a worker process died, often for want of memory (fewer `workers` need less); what is "
                             "finished is stored, and the same request goes on from there") from error
        finally:
            for lock in held.values():
                lock.release()

    def answered(self, calls: Iterator[tuple], most: int) -> Generator:
        """What `train_run` answers to each of at most so many calls, as it comes: from a cluster, or from processes of
        this machine."""
        if not self.address:
            parallel = Parallel(n_jobs=min(self.workers or cpu_count(), most), return_as="generator_unordered",
                                pre_dispatch="n_jobs")
            return parallel(delayed(train_run)(self.task, *call) for call in calls)
        try:
            from .cluster import trained
        except ImportError:
            raise InputError("cluster", self.address, "its extra to be there: pip install stabutils[cluster]") from None
        return trained(self.address, self.workers, self.task, calls)

    @property
    def address(self) -> str:
        return self.cluster or os.environ.get("STABUTILS_CLUSTER", "")

    def stack(self, arm: str, runs: Sequence[Run], stored: Mapping[str, store.Arrays | None],
              published: Mapping[str, store.Arrays]) -> Runs:
        """Runs over one another; what some of them lack (published ones keep few probabilities) is left out."""
        answers = [committed.first(published.get(run.name), stored[run.name], self.data.test.labels) for run in runs]
        shared = [name for name in answers[0] if all(name in entry for entry in answers)]
        stacked = {name: np.stack([entry[name] for entry in answers]) for name in shared}
        for name in ("labels", "validation_labels"):
            stacked[name] = stacked[name].astype(np.int64)
        kept = {name: stacked.pop(name) for name in shared if name.startswith("kept.")}
        return Runs(arm=arm, names=tuple(run.name for run in runs), gold=self.data.test.labels,
                    seeds=np.array([run.seeds.init for run in runs]),
                    kept={name.removeprefix("kept."): array for name, array in kept.items()}, **stacked)


def progress(**settings):
    """A progress bar; STABUTILS_BAR=text asks for one that also reads well where a notebook is run by a command."""
    if os.environ.get("STABUTILS_BAR") == "text":
        from tqdm.std import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(**settings)


def results_of(predictions: Path, given: str = "") -> Path:
    """Where a notebook on a file of predictions keeps what it shows: `given`, or results/<its name>-<its hash>."""
    if given:
        return Path(given)
    try:
        digest = hashlib.sha256(predictions.read_bytes()).hexdigest()
    except (OSError, ValueError):  # a name with NUL in it is a ValueError
        raise InputError("predictions", str(predictions), "an existing file") from None
    return project_root() / "results" / f"{slug(predictions.stem)}-{digest[:8]}"


def floats(name: str, text: str) -> list[float]:
    """The numbers that a knob lists, separated by commas. Raises InputError.

    >>> floats("temperatures", "0.5, 2")
    [0.5, 2.0]
    """
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise InputError(name, text, "numbers separated by commas") from error


def check(name: str, value: object, kind: object, rule: Mapping) -> None:
    """Hold a knob against its type and rule. Raises InputError."""
    optional = type(None) in get_args(kind)
    kind = get_args(kind)[0] if optional else kind
    if value is None and optional:
        return
    words = {int: "an integer", float: "a number", str: "a text", bool: "True or False"}[kind]
    number = (kind is float and isinstance(value, (int, float)) and not isinstance(value, bool)
              and abs(value) <= sys.float_info.max)  # no number is not, nor is an integer too large for a float
    right = number or type(value) is kind and kind is not float
    if right and kind is str and re.search("[\0\ud800-\udfff]", value):
        right, words = False, words + " that a file could hold, without NUL or half a surrogate pair"
    for key, text, holds in (("least", "of at least {}", lambda v, x: v >= x),
                             ("most", "and at most {}", lambda v, x: v <= x),
                             ("above", "above {}", lambda v, x: v > x), ("choices", "out of {}", lambda v, x: v in x)):
        if key in rule:
            words += " " + text.format(rule[key])
            right = right and holds(value, rule[key])
    if not right:
        raise InputError(name, value, words + (" or None" if optional else ""))
