"""A study: one classifier retrained many times on the same data.

`Study` is the schema of every notebook's parameters cell and is checked when it is made; `retrain`
returns `Runs`. Published answers are read where they suffice, stored ones otherwise, and only what
is missing is trained.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stabutils.data.datasets import NAMES, Dataset, Split, load_dataset
from stabutils.errors import Incomplete, InputError, check, needs
from stabutils.mitigations.composition import resolve
from stabutils.provenance import provenance
from stabutils.study import paths
from stabutils.study.answers import Answers
from stabutils.study.dispatch import Dispatch
from stabutils.study.forecast import Forecast
from stabutils.study.runs import Request, Run, Runs, run_label
from stabutils.study.store import Store
from stabutils.training.hooks import Mitigation, check_fields, describe, identity, knob

if TYPE_CHECKING:
    from stabutils.training.state import Seeds
    from stabutils.training.task import Recipe, Task

Arm = str | Mitigation | tuple[Mitigation, ...]  # "control", a mitigation, or several composed
# Knobs of the recipe: None takes the default of the model.
OF_RECIPE = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "max_length",
    "checkpoints",
    "precision",
)
DEVICES = ("auto", "cpu", "mps", "cuda", *(f"cuda:{number}" for number in range(8)))
ELSEWHERE = ("device", "workers", "cluster", "published")  # knobs that no answer depends on


@dataclass(frozen=True)
class Study:
    """The knobs of a study; InputError names the one that is wrong, before any compute.

    Parameters
    ----------
    dataset : a corpus by name, or a path to your own
    model : compact, or a transformers checkpoint (folder, package, hub id)
    runs : retrainings
    seed : base seed: run r trains with seed + r
    epochs : passes over the training data; this and the next three: None means by model
    batch_size : texts a step
    learning_rate : its peak
    weight_decay : of AdamW
    max_length : tokens read of a text; None means by model
    checkpoints : answers to the test split an epoch, for what a single run tells of its stability;
        0 answers at the end only and saves a tenth of a fine-tuning; None means by model
    pooling : of a checkpoint's vectors: auto, mean, first or last
    precision : of the training: fp32 or bf16
    change : of the training data by a run's data seed, such as "drop 10 %"
    device : what trains: cpu, mps, cuda, cuda:1, ...; auto is a CUDA GPU, else the CPU
    workers : processes; 0: one a core
    cluster : address of a Dask scheduler, or local
    published : read published answers where there are some
    """

    dataset: str = knob("assistant")
    model: str = knob("compact")
    runs: int = knob(10, least=2)
    seed: int = knob(0, least=0)
    epochs: int | None = knob(None, least=1)
    batch_size: int | None = knob(None, least=1)
    learning_rate: float | None = knob(None, above=0)
    weight_decay: float | None = knob(None, least=0)
    max_length: int | None = knob(None, least=1)
    checkpoints: int | None = knob(None, least=0)
    pooling: str = knob("auto", choices=("auto", "mean", "first", "last"))
    precision: str = knob("fp32", choices=("fp32", "bf16"))
    change: str = knob("")
    device: str = knob("auto", choices=DEVICES)
    workers: int = knob(0, least=0)
    cluster: str = knob("")
    published: bool = knob(True)

    def __post_init__(self):
        check_fields(self, fields(self))

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Study:
        """The study of a notebook's parameters: those that are knobs."""
        names = {each.name for each in fields(cls)} & parameters.keys()
        return cls(**{name: parameters[name] for name in names})

    @cached_property
    def data(self) -> Dataset:
        return load_dataset(self.dataset)

    @cached_property
    def task(self) -> Task:
        needs("torch")
        from stabutils.training import changes, preparation

        change, cache = changes.Change.parse(self.change), paths.run_store() / "vectors"
        if change is not None:
            change.number(len(self.data.train))
            change.check_seed(self.seed, self.runs)
        task = preparation.prepare(self.model, self.data, recipe_of(self), self.pooling)
        return replace(task, change=change, cache=cache)

    @cached_property
    def answers(self) -> Answers:
        """Where the answers of its runs lie."""
        records = self.records if self.published else None
        return Answers(Store(paths.run_store()), records, self.data.test.labels)

    @cached_property
    def dispatch(self) -> Dispatch:
        return dispatch_of(self)

    @cached_property
    def requests(self) -> list[Request]:
        """What has been asked of this study so far, in order."""
        return []

    @property
    def records(self) -> Path:
        """Where the published study of its corpus and model lies."""
        return paths.records_of(name_of(self), self.model)

    def output(self, folder: str = "") -> Path:
        """Where a notebook writes: `folder`, or one of the results, named by all knobs."""
        knobs = {name: value for name, value in asdict(self).items() if name not in ELSEWHERE}
        named = paths.results_of_study(self.dataset, self.model, self.runs, knobs)
        return Path(folder) if folder else named

    def about(self, *others: Study) -> dict:
        """What a record says of how it came about: what decides the answers, and what ran it.

        others : studies of the same corpus and model whose runs it rests on too
        """
        answers = [each.as_json() for study in (self, *others) for each in study.requests]
        return provenance() | {
            "dataset": self.data.fingerprint,
            "model": self.task.identity,
            "recipe": asdict(self.task.recipe),
            "answers": [own for row, own in enumerate(answers) if own not in answers[:row]],
        }

    def identify(self, mitigation: Mitigation, seeds: Seeds) -> Run:
        return run_of(self, mitigation, seeds)

    def retrain(
        self,
        mitigation: Arm = "control",
        n: int | None = None,
        start: int = 0,
        seeds: Sequence[Seeds] | None = None,
        keep: Sequence[str] = (),
        mixed: bool = False,
    ) -> Runs:
        """The answers of `n` runs (default: `runs`) with seeds seed + start, ...; or of `seeds`.

        keep: names out of `training.probes.PROBES`, measured on each run. mixed: probabilities are
        needed too, as by a mixture. A run that is stored or published without is trained again.
        Raises Incomplete when some could not be trained; those that could are stored.
        """
        mitigation = resolve(mitigation)
        request = requested(self, mitigation, n, start, seeds, keep, mixed)
        self.requests.append(request)
        return answered(self, mitigation, request)

    def plan(
        self, mitigation: Arm = "control", n: int | None = None, keep: Sequence[str] = ()
    ) -> dict:
        """What `retrain` would need: runs, how many are stored, published, and to be trained."""
        mitigation = resolve(mitigation)
        request = requested(self, mitigation, n, keep=keep)
        return Forecast().count(self.dispatch, mitigation, request)


class StudyOfTexts(Study):
    """A study whose texts were given, and are not those that its knobs lead to.

    Equal to itself alone: knobs do not tell two of them apart.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def data(self) -> Dataset:
        """Those that `with_data` gave; a copy with other knobs has none."""
        raise TypeError("texts of a study: got none; expected those that `with_data` gives")

    @classmethod
    def with_data(cls, study: Study, data: Dataset) -> Self:
        """A study with the knobs of another one and texts of its own."""
        own = cls(**asdict(study))
        vars(own)["data"] = data
        return own


def with_training_texts(study: Study, train: Split) -> StudyOfTexts:
    """The study with other training texts or labels, and all else as it is."""
    return StudyOfTexts.with_data(study, replace(study.data, train=train))


def name_of(study: Study) -> str:
    """What records call a study's corpus: a user's file that bears a corpus's name has its own."""
    name = study.data.name
    own = name in NAMES and study.dataset != name
    return f"{name} {study.data.fingerprint[:8]}" if own else name


def answered(study: Study, mitigation: Mitigation, request: Request) -> Runs:
    """The runs of a request; what is missing is trained."""
    before: Sequence[Run] = ()
    while not isinstance(runs := study.answers.stack(request), Runs):
        if runs == before:  # stored, damaged, and it cannot be set aside
            path = study.answers.store.path(runs[0].name)
            raise Incomplete(f"{path}: damaged, and nothing there can be changed; remove it")
        before, done = runs, len({run.name for run in request.runs}) - len(runs)
        study.dispatch.train(mitigation, runs, request.keep, done)
    return runs


def run_of(study: Study, mitigation: Mitigation, seeds: Seeds) -> Run:
    """The run of a mitigation and seeds: its label and all that decides its answers."""
    from stabutils.training.loop import RECIPE_VERSION

    parts = {
        "version": RECIPE_VERSION,
        "dataset": study.data.fingerprint,
        "model": study.task.identity,
        "recipe": asdict(study.task.recipe),
        "mitigation": identity(mitigation),
        "seeds": seeds.identity(),
    }
    if study.change:
        parts["change"] = asdict(study.task.change)
    label = run_label(study.data.name, study.model, describe(mitigation), seeds)
    return Run(label, seeds, parts)


def recipe_of(study: Study) -> Recipe:
    """The recipe of a study's model with the knobs that are set."""
    from stabutils.training.preparation import default_recipe

    recipe = default_recipe(study.model, len(study.data.train), len(study.data.label_names))
    knobs = {name: getattr(study, name) for name in OF_RECIPE if getattr(study, name) is not None}
    # Values take on the recipe's types: a rate of 1 and one of 1.0 are one recipe.
    typed = {name: type(getattr(recipe, name))(value) for name, value in knobs.items()}
    recipe = replace(recipe, **typed)
    if study.checkpoints is not None:
        return recipe
    return replace(recipe, checkpoints=max(recipe.checkpoints, math.ceil(4 / recipe.epochs)))


def recipe_in_words(study: Study) -> str:
    """How a run of a study is trained, in a line, and whether a small corpus made it longer."""
    from stabutils.training.preparation import COMPACT, COMPACTS

    recipe, examples = recipe_of(study), len(study.data.train)
    steps = math.ceil(examples / recipe.batch_size)
    words = (
        f"{study.model} on {study.data.name}: {recipe.epochs} epochs of {steps} steps, "
        f"learning rate {recipe.learning_rate:.2g}"
    )
    usual = COMPACT.epochs
    if study.model in COMPACTS and study.epochs is None and recipe.epochs > usual:
        words += f" ({usual} epochs of so few examples would be too few steps)"
    return words


def dispatch_of(study: Study) -> Dispatch:
    """What trains its runs. Raises InputError for a device that this machine does not have."""
    from stabutils.training import devices

    cluster = study.cluster or os.environ.get("STABUTILS_CLUSTER", "")
    device = devices.resolve(study.device)
    return Dispatch(study.task, study.answers, study.identify, study.workers, cluster, device)


def requested(
    study: Study,
    mitigation: Mitigation,
    n: int | None = None,
    start: int = 0,
    seeds: Sequence[Seeds] | None = None,
    keep: Sequence[str] = (),
    mixed: bool = False,
) -> Request:
    """The runs that `retrain` is asked for with these arguments. Raises InputError."""
    needs("torch")
    from stabutils.training import probes
    from stabutils.training.state import Seeds

    n, keep = study.runs if n is None else n, probes.names(keep)
    check("n", n, int, {"least": 1})
    check("start", start, int, {"least": 0})
    if seeds is not None and not (len(seeds) and all(isinstance(own, Seeds) for own in seeds)):
        raise InputError("seeds", seeds, "at least one `Seeds`; `n` and `start` take plain numbers")
    chosen = seeds
    if chosen is None:
        first = study.seed + start
        count = 4 if study.change else 3  # seeds of a run, all equal
        chosen = [Seeds(*[number] * count) for number in range(first, first + n)]
    arm, recipe = describe(mitigation), study.task.recipe
    learns = any(part.reads_checkpoints for part in mitigation.flattened())
    if learns and recipe.epochs * recipe.checkpoints < 2:
        needed = f"{arm} learns from checkpoints of other trainings"
        allowed = f"2 or more in all of a training: {needed}"
        raise InputError("checkpoints", study.checkpoints, allowed)
    runs = tuple(study.identify(mitigation, each) for each in chosen)
    knobs = {"from": start or None, "seed": study.seed or None, "change": study.change or None}
    knobs |= {name: getattr(study, name) for name in OF_RECIPE if name != "precision"}
    words = [f"{name} {value}" for name, value in knobs.items() if value is not None]
    kind = [probes.published_part(keep), "crossed" if seeds else ""]
    part = " ".join(filter(None, [*kind, *words]))
    sample = not any(kind) and (not part or bool(study.change))
    pool = arm == "control" and sample and n >= study.runs  # ensembles are made of it
    return Request(arm, runs, study.model, keep, part, whole=pool or mixed, mixed=mixed)
