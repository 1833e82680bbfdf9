"""What each notebook trains, before it does: its parameters, as requests of a study.

A test runs the notebooks on a tiny corpus and holds the trainings that they made against these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stabutils.errors import check
from stabutils.mitigations import resolve
from stabutils.study import tuning
from stabutils.study.forecast import Forecast
from stabutils.study.study import Arm, Study, recipe_of, requested

if TYPE_CHECKING:
    from stabutils.training.state import Seeds

Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Runs that a notebook asks a study for.

    Attributes
    ----------
    arm : None where only the notebook knows the mitigation, when it gets there
    n, start, seeds, keep, mixed : as of `Study.retrain`
    certain : False where the answers of earlier runs decide whether it is asked for
    times : what a run of its network costs, in runs of the notebook's own
    """

    name: str
    study: Study
    arm: Arm | None = "control"
    n: int | None = None
    start: int = 0
    seeds: Sequence[Seeds] | None = None
    keep: tuple[str, ...] = ()
    certain: bool = True
    mixed: bool = False
    times: float = 1.0

    def count(self, forecast: Forecast) -> dict[str, int]:
        """How many runs these are, stored, published and to be trained after all before them."""
        if self.arm is None:
            n = self.study.runs if self.n is None else self.n
            return {"runs": n, "stored": 0, "published": 0, "to train at most": n}
        arm = resolve(self.arm)
        request = requested(self.study, arm, self.n, self.start, self.seeds, self.keep, self.mixed)
        counts = forecast.count(self.study.dispatch, arm, request)
        if not self.certain:
            counts["to train at most"] = counts.pop("to train")
        return counts

    def cost(self, control: Study) -> float:
        """About what each of its trainings takes, teachers included, in those of a control run."""
        from stabutils.mitigations import price, resolve

        arm = resolve(self.arm or "control")
        [own] = requested(self.study, arm, 1, self.start, self.seeds and self.seeds[:1]).runs
        recipe, teachers = recipe_of(self.study), len(arm.teacher_seeds(own.seeds))
        own_price = self.times * price(arm, recipe)[0] / (1 + teachers)
        return own_price * recipe.epochs / recipe_of(control).epochs


def cpu_seconds(study: Study) -> float:
    """What the first run of control took, where it is published or stored; else nan."""
    from stabutils.mitigations import Mitigation

    request, answers = requested(study, Mitigation(), 1), study.answers
    [run] = request.runs
    measured = answers.published(request).get(run.name)
    if measured is None and answers.has(run):
        measured = answers.stored(run)
    return math.nan if measured is None else float(measured["cpu_seconds"])


def parts_of(number: str, study: Study, knobs: Knobs) -> list[Part]:
    """All that a notebook asks for, in its order.

    Parameters
    ----------
    number : of the notebook, such as "03"
    study : of its parameters
    knobs : all its parameters, defaults included

    Raises
    ------
    InputError for a value that the notebook would refuse.
    """
    return [Part("control", study), *PARTS[number](study, knobs)]


def refuse(number: str, knobs: Knobs, methods: bool = True) -> None:
    """Refuse what a notebook would refuse, before anything is computed.

    methods : whether the names of methods were given, and not left at the notebook's default

    Raises
    ------
    InputError
    """
    for name, rule in RULES.get(number, {}).items():
        if name in knobs:
            check(name, knobs[name], int, rule)
    for name in FEWEST if number in ("01", "02", "06", "07") else ():
        if knobs.get(name):  # 0 leaves a section out
            check(name, knobs[name], int, {"least": FEWEST[name]})
    if "sizes" in knobs:
        from stabutils.analysis.ensembles import sizes_of

        sizes_of(knobs["sizes"], knobs["runs"])
    if "change" in knobs:
        from stabutils.training.changes import Change

        for name in ("change", "resampled"):
            Change.parse(knobs[name])
    if number == "09":
        from stabutils.analysis import reliability, wrong_labels

        wrong_labels.shares_of(knobs["noise"])
        reliability.sizes_of(knobs["few_shot"])
    if methods and number in CATALOGUES:
        chosen(number, Study.of(knobs), knobs["methods"])


def chosen(number: str, study: Study, methods: str) -> dict[str, Arm]:
    """The methods that `methods` asks of a notebook. Raises InputError for an unknown one."""
    from stabutils.mitigations import data_centric, regularizers, single

    quick = {
        "regularizers": tuple(regularizers.QUICK),
        "data_centric": tuple(data_centric.QUICK),
        "anchored": single.QUICK,
        "both": ("R-Drop", "MC dropout", "TGTSS"),
        "updates": ("warm start",),
        "neighbours": ("ZerO",),
    }
    catalogue = CATALOGUES[number]
    return tuning.methods(study, methods, catalogue, quick[catalogue])


FEWEST = {"probed": 3, "levels": 2, "pokes": 2, "wider": 3}
THREE = {"least": 3}
FOUR = {"least": 4}  # of which two are left out
SIX = {"least": 6}  # of ensembles of 2 and 3
OF_UPDATES = {"least": 3, "most": 100}  # seeds between a model and the one that replaces it
RULES: dict[str, dict[str, dict]] = {
    "01": {"runs": THREE},
    "02": {"runs": THREE, "permutations": {"least": 99}},
    "03": {"runs": THREE, "runs_per_method": THREE},
    "04": {"runs": THREE, "runs_per_method": THREE, "turned": {"least": 0}},
    "05": {"runs": SIX, "runs_per_method": THREE},
    "06": {"runs": SIX, "runs_per_method": THREE},
    "07": {"runs": OF_UPDATES, "runs_per_method": OF_UPDATES},
    "09": {"runs": THREE, "runs_per_method": THREE, "runs_per_condition": FOUR},
}
CATALOGUES = {own: catalogue for catalogue, own in tuning.NOTEBOOKS.items()} | {"05": "both"}


def _measuring(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.training.probes import PROXIES

    further = knobs["probed"]
    if further and study.runs >= 4:  # fewer runs do not say which queries are unstable
        yield Part("probes", study, n=further, start=study.runs, keep=PROXIES, certain=False)


def _clusters(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.analysis import sources
    from stabutils.mitigations import interventions

    yield Part("hidden vectors", study, n=1, start=study.runs, keep=("hidden",))
    full, levels, pokes = study.task.recipe.epochs, knobs["levels"], knobs["pokes"]
    if levels:
        short = replace(study, epochs=knobs["crossed_epochs"] or full)
        yield Part("crossed seeds", short, seeds=sources.design(levels, study.seed))
        yield Part("the first of them", short, n=1)
        yield Part("the same once more", short, interventions.Again(), n=1)
    for length in sources.lengths(full, levels) if pokes else ():
        own = replace(study, epochs=length)
        yield Part(f"control, {length} epochs", own, n=pokes)
        yield Part(f"rounding, {length} epochs", own, interventions.Poke(), n=pokes)


def _trial(
    study: Study,
    methods: Mapping[str, Arm],
    n: int,
    wider: int = 0,
    mixed: Collection[str] = (),
) -> Iterator[Part]:
    """What `trials.trial` asks for beside control."""
    from stabutils.analysis.trials import other_networks

    yield Part("placebo", study, n=n, start=study.runs)
    for name, method in methods.items():
        yield Part(name, study, method, n, mixed=name in mixed)
    for name, (own, times) in other_networks(study, n, wider).items():
        yield Part(name, replace(study, model=name), n=own, times=times)


def _regularizers(study: Study, knobs: Knobs) -> Iterator[Part]:
    n = knobs["runs_per_method"]
    yield from _trial(study, chosen("03", study, knobs["methods"]), n)
    if study.model == "compact":
        yield Part("small logits", study, None, n)


def _data_centric(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.analysis import influence
    from stabutils.mitigations import interventions
    from stabutils.mitigations.data_centric import TGTSS
    from stabutils.training.state import Seeds

    n, turned, blamed = (knobs[name] for name in ("runs_per_method", "turned", "blamed"))
    check("blamed", blamed, int, {"least": 1, "most": len(study.data.train)})
    teacher = TGTSS().teacher_seeds(Seeds(study.seed, study.seed, study.seed))
    yield Part("a teacher", study, seeds=teacher, keep=("training",))
    yield from _trial(study, chosen("04", study, knobs["methods"]), n)
    if turned:
        yield Part("turn-over", study, interventions.TurnOver(), turned, keep=influence.KEEP)
        draw = np.random.default_rng(study.seed)
        drawn = draw.choice(len(study.data.train), blamed, replace=False)
        yield Part("control, fresh seeds", study, n=n, start=100)
        without = interventions.Without(tuple(drawn))
        yield Part(f"without {blamed} at random", study, without, n, start=100)
        yield Part(f"without the {blamed} blamed", study, None, n)


def _ensembles(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.mitigations.snapshots import Checkpoints, Snapshots

    n, methods = knobs["runs_per_method"], chosen("05", study, knobs["methods"])
    if study.model == "compact" or knobs["methods"] == "all":
        methods["snapshots"] = Snapshots()
    if knobs["methods"] == "all":
        methods["checkpoints"] = Checkpoints()
    yield from _trial(study, methods, n)
    if study.data.out_of_scope.get("test"):
        yield Part("control, out-of-scope texts", study, n=n, keep=("out_of_scope",))
        yield Part("the best of one pass, out-of-scope texts", study, None, n)


def _anchored(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.analysis import anchors

    methods = chosen("06", study, knobs["methods"])
    weighed = anchors.weighed(methods)
    if anchors.committed(study, weighed) is None:
        fresh = replace(study, published=False)
        for name, arm in weighed.items():
            yield Part(f"weight beside {name}", fresh, arm, 3, start=tuning.START)
    yield from _trial(study, methods, knobs["runs_per_method"], knobs["wider"], mixed=weighed)


def _updates(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.analysis.trials import BAG
    from stabutils.mitigations.updates import APART
    from stabutils.training.state import Seeds

    levels, n, second = knobs["levels"], knobs["runs_per_method"], knobs["resampled"]
    studies = [study]
    if second:
        studies.append(replace(study, change=second))
    numbers = range(study.seed, study.seed + levels)
    crossed = [Seeds(own, own, own, data) for own in numbers for data in numbers]
    for changed in studies if levels else ():
        yield Part(f"crossed, {changed.change}", changed, seeds=crossed)
    yield Part("control, updated", study, start=APART)
    for name, method in chosen("07", study, knobs["methods"]).items():
        yield from _pair(name, study, method, n)
    if study.model == "compact":
        yield from _pair(BAG, replace(study, model=BAG), "control", n)


def _pair(name: str, study: Study, arm: Arm, n: int) -> Iterator[Part]:
    """Deployed models and those that replace them, as `updates.update` asks for them."""
    from stabutils.mitigations.updates import APART, Successor

    matched = any(isinstance(part, Successor) for part in resolve(arm).flattened())
    deployed = "control" if matched else arm
    yield Part(f"{name}, deployed", study, deployed, n)
    yield Part(f"{name}, updated", study, arm, n, start=APART, mixed=matched)


def _other_questions(study: Study, knobs: Knobs) -> Iterator[Part]:
    from stabutils.analysis import perturbed, reliability, wrong_labels

    n, few = knobs["runs_per_method"], knobs["runs_per_condition"]
    methods, shares = chosen("09", study, knobs["methods"]), wrong_labels.shares_of(knobs["noise"])
    yield from _trial(study, methods, n)
    noisy = wrong_labels.noisy_arms(shares, methods)
    for name in {name: None for name, _, _ in noisy}:
        yield Part(f"{name}, right labels", study, methods.get(name, "control"), few)
    for (name, kind, share), arm in noisy.items():
        keep = ("training",) if share == shares[-1] else ()
        own, asked = wrong_labels.request(study, (name, kind, share), arm)
        yield Part(f"{name}, {100 * share:.3g} % {kind} noise", own, asked, few, keep=keep)
    variants = perturbed.variants_of(study.data.test.texts)
    beside = perturbed.beside(study, variants)
    yield Part("control, changed texts beside", beside, n=few, keep=perturbed.KEEP)
    if study.data.out_of_scope.get("test"):
        yield Part("control, out-of-scope texts", study, n=n, keep=perturbed.KEEP)
    for size in reliability.sizes_of(knobs["few_shot"]):
        own = reliability.few_shot(study, size)
        yield Part(f"{size} texts an intent", own, n=few, keep=perturbed.KEEP)


PARTS: dict[str, Callable[[Study, Knobs], Iterator[Part]]] = {
    "01": _measuring,
    "02": _clusters,
    "03": _regularizers,
    "04": _data_centric,
    "05": _ensembles,
    "06": _anchored,
    "07": _updates,
    "09": _other_questions,
}
