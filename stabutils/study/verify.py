"""Does a stored run come out again? `python -m stabutils verify` trains a sample once more.

A run's file holds the identity that decides its answers; what can be put together from it here is
trained. The bits agree on the same kind of machine with the same libraries; elsewhere the two are
as different as two seeds may be.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from stabutils import mitigations
from stabutils.data.datasets import NAMES, Dataset, load_dataset
from stabutils.errors import InputError, check
from stabutils.metrics.measures import churn_matrix
from stabutils.mitigations.composition import Composed
from stabutils.records import write_document
from stabutils.study import paths
from stabutils.study.dispatch import train_run
from stabutils.study.runs import Run, taught
from stabutils.study.store import Store
from stabutils.training.files import Arrays
from stabutils.training.hooks import Mitigation

OUTCOMES = ("bits", "statistics", "another answer", "cannot be judged", "not tried")


@dataclass(frozen=True)
class Verified:
    """How a run that was trained again compares.

    outcome: "bits"; "statistics", as near as another seed is, or nearer; "another answer";
    "cannot be judged", other answers and no stored run of another seed to hold them against; or
    "not tried".
    """

    name: str
    outcome: str
    why: str


class Unknown(Exception):
    """What a run was made of is not to be had here."""


def verify(
    store: Store,
    sample: int = 3,
    seed: int = 0,
    datasets: Sequence[str] = NAMES,
    models: Sequence[str] = (),
) -> Iterator[Verified]:
    """Train `sample` runs of a store again, drawn by `seed`, and compare; those that cannot be are
    named and passed by.

    datasets, models: names and paths to look among for what a run was made of; the package's own
    models are known.
    """
    names = sorted(path.stem for path in store.folder.glob("*.safetensors"))
    tried = 0
    for name in np.random.default_rng(seed).permutation(names).tolist():
        if tried == sample:
            return
        found = store.read(name)
        if found is None:
            continue  # damaged: reading has said so
        try:
            result = again(store, name, *found, datasets, models)
        except Unknown as error:
            result = Verified(name, "not tried", str(error))
        tried += result.outcome != "not tried"
        yield result


def again(
    store: Store,
    name: str,
    answers: Arrays,
    record: dict,
    datasets: Sequence[str],
    models: Sequence[str],
) -> Verified:
    """Train one run again and say how it compares."""
    from stabutils.training.loop import RECIPE_VERSION
    from stabutils.training.state import Seeds

    identity = record.get("identity") or {}
    if identity.get("version") != RECIPE_VERSION:
        raise Unknown(
            f"trained by version {identity.get('version')} of the loop; this is {RECIPE_VERSION}"
        )
    task = _task(identity, datasets, models)
    run = Run(record["label"], Seeds(**identity["seeds"]), identity)
    mitigation = _mitigation(identity["mitigation"])
    _, fresh, failure, _ = train_run(
        task, mitigation, run, None, set(), -1, _taught(task, mitigation, run)
    )
    if failure:
        return Verified(name, "another answer", failure)
    compared = [key for key in fresh if key != "cpu_seconds"]
    if all(key in answers and np.array_equal(fresh[key], answers[key]) for key in compared):
        return Verified(name, "bits", f"{len(compared)} arrays are equal")
    differ = float(np.mean(fresh["labels"] != answers["labels"]))
    return _statistics(name, differ, _churn(store, identity, fresh["labels"]))


def _taught(task, mitigation: Mitigation, run: Run) -> dict[str, np.ndarray]:
    """What the teachers of a run keep, once they are trained again."""
    teachers, names = [], mitigation.teacher_extras
    for seeds in mitigation.teacher_seeds(run.seeds):
        teacher = Run("teacher", seeds, {})
        _, answers, failure, _ = train_run(task, Mitigation(), teacher, None, set(names), -1)
        if failure:
            raise Unknown(
                f"its teacher with seed {seeds.init} could not be trained again: {failure}"
            )
        teachers.append(answers)
    return taught(names, teachers)


def _statistics(name: str, differ: float, seeds: float | None) -> Verified:
    """Judged by the share of answers that differ, beside that between seeds (None: not known)."""
    words = f"{differ:.1%} of the answers differ"
    if differ == 0:
        return Verified(name, "statistics", f"{words}, probabilities do")
    if seeds is None:
        why = f"{words}; no stored run of another seed says how much seeds change"
        return Verified(name, "cannot be judged", why)
    outcome = "statistics" if differ <= seeds else "another answer"
    return Verified(name, outcome, f"{words}; between seeds it is up to {seeds:.1%}")


def _churn(store: Store, identity: dict, fresh: np.ndarray) -> float | None:
    """The largest churn between seeds: of what was trained afresh and the stored runs of other
    seeds.

    None where there are none. The stored run in question has no say.
    """
    labels = [fresh]
    for path in sorted(store.folder.glob("*.safetensors")):
        answers, record = store.read(path.stem) or ({}, {})
        other = record.get("identity", {})
        same_kind = {**other, "seeds": None} == {**identity, "seeds": None}
        if same_kind and other["seeds"] != identity["seeds"]:
            labels.append(answers["labels"])
    return float(churn_matrix(labels).max()) if len(labels) > 1 else None


def _task(identity: dict, datasets: Sequence[str], models: Sequence[str]):
    """The task with this identity, out of data and models that are at hand."""
    from stabutils.training.changes import Change
    from stabutils.training.checkpoints import lowest
    from stabutils.training.preparation import COMPACTS, prepare
    from stabutils.training.task import Recipe

    recipe, wanted = Recipe(**identity["recipe"]), identity["model"]
    data = _data(identity["dataset"], datasets)
    layers = wanted.get("layers")
    if layers is not None:
        models = [f"{lowest(model)[0]}:{layers}" for model in models]
    for model in COMPACTS if wanted["kind"] == "compact" else models:
        task = prepare(model, data, recipe, wanted.get("pooling", "auto"))
        if task.identity == wanted:
            change = identity.get("change")
            return replace(task, change=Change(**change) if change else None)
    hint = "" if wanted["kind"] == "compact" else " (--model names more)"
    raise Unknown(f"its model is none of those known here{hint}")


def _data(fingerprint: str, names: Sequence[str]) -> Dataset:
    for name in names:
        data = _loaded(name)
        if data is not None and data.fingerprint == fingerprint:
            return data
    raise Unknown("its data set is none of those known here (--dataset names more)")


@cache
def _loaded(name: str) -> Dataset | None:
    """A corpus; None for a published one that is not here. Raises InputError for another."""
    try:
        return load_dataset(name)
    except InputError:
        if name in NAMES:
            return None
        raise


def _mitigation(entries: list[dict]) -> Mitigation:
    kinds, made = _kinds(), []
    for entry in entries:
        if "source" in entry or entry["name"] not in kinds:
            raise Unknown(f"its mitigation {entry['name']} is none of this package")
        settings = entry["settings"]
        lists = {name: tuple(own) for name, own in settings.items() if isinstance(own, list)}
        made.append(kinds[entry["name"]](**settings | lists))
    return made[0] if len(made) == 1 else Composed(tuple(made))


@cache
def _kinds() -> dict[str, type]:
    """The package's mitigations by name."""
    kinds = {}
    for module in pkgutil.iter_modules(mitigations.__path__, f"{mitigations.__name__}."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if isinstance(kind, type) and issubclass(kind, Mitigation):
                kinds[name] = kind
    return kinds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m stabutils verify`."""
    add = parser.add_argument
    add("--sample", type=int, default=3, help="how many runs to train again (%(default)s)")
    add("--seed", type=int, default=0, help="of the draw (%(default)s)")
    add("--runs", type=Path, help="the store; else that of studies here")
    yours = "a data set of your own to look for a run's in"
    add("--dataset", action="append", default=[], help=yours)
    add("--model", action="append", default=[], help="a checkpoint to look for a run's in")
    add("--json", metavar="FILE", help="also write the outcomes for programs")


def command(arguments: argparse.Namespace) -> int:
    """Print what becomes of each run; 1 when one has another answer, else 0.

    Raises InputError where none could be judged.
    """
    check("sample", arguments.sample, int, {"least": 1})
    check("seed", arguments.seed, int, {"least": 0})
    store = Store(arguments.runs or paths.run_store())
    compared = []
    count = dict.fromkeys(OUTCOMES, 0)
    datasets = (*arguments.dataset, *NAMES)
    for each in verify(store, arguments.sample, arguments.seed, datasets, arguments.model):
        print(f"{each.name}: {each.outcome} ({each.why})", flush=True)
        compared.append(asdict(each))
        count[each.outcome] += 1
    bits, near, other, unclear, _ = count.values()
    if not bits + near + other:
        allowed = "a store with a run that can be trained again and judged here"
        raise InputError("runs", str(store.folder), allowed)
    summary = (
        f"{bits + near + other + unclear} trained again: {bits} with the same bits, "
        f"{near} as near as another seed is, {other} with another answer"
    )
    if unclear:
        summary += f", {unclear} that cannot be judged"
    print(summary)
    status = int(other > 0)
    if arguments.json:
        content = {"runs": compared, "outcomes": count}
        write_document(arguments.json, "verify", status, content)
    return status
