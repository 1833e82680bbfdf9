"""The plan of a notebook: it refuses what the notebook would refuse, and counts what it trains."""

from __future__ import annotations

import ast
import math
import os
import re
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import tiny
from test_models import make_checkpoint

from stabutils import __main__ as main
from stabutils import figures
from stabutils.mitigations.data_centric import TGTSS
from stabutils.mitigations.regularizers import RDrop
from stabutils.publishing import notebooks, plans
from stabutils.study.store import Store
from stabutils.study.study import Study

LONG = ("02", "04", "06", "09")  # three CPU-seconds each
STUDIES = [
    pytest.param(path, marks=[pytest.mark.long] if path.stem[:2] in LONG else [], id=path.stem)
    for path in notebooks.notebooks([])
    if path.stem[:2] in plans.PARTS
]
SMALL = {
    "runs": 9,
    "runs_per_method": 3,
    "epochs": 12,
    "permutations": 99,
    "blamed": 3,
    "turned": 2,
}
SMALL |= {
    "probed": 3,
    "pokes": 2,
    "sizes": "2, 4",
    "workers": 1,
    "noise": "10, 20",
    "few_shot": "2",
    "wider": 3,
}
METHODS = {"09": "ZerO, R-Drop, TGTSS"}  # the latter two are trained on wrong labels too


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    path = tiny.project(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return path


def total(capsys, number: str, values: dict) -> tuple[bool, int]:
    """Whether a plan is certain, and how many trainings it says."""
    words = [word for name, value in values.items() for word in ("-p", name, str(value))]
    assert main.main(["run", number, "--plan", *words]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    bound, count = re.search(r"to train (at most )?(\d+)", last).groups()
    return not bound, int(count)


def test_a_plan_says_the_recipe_counts_once_what_is_shared_and_adds_up(capsys, monkeypatch):
    monkeypatch.setenv("STABUTILS_RUNS", os.devnull + "/none")
    words = ["-p", "seed", "77", "-p", "runs_per_method", "4", "-p", "methods", "R-Drop, TGTSS"]
    assert main.main(["run", "03", "04", "08", "--plan", *words]) == 0
    recipe, *lines, nothing, last = capsys.readouterr().out.splitlines()
    assert recipe == "compact on assistant: 9 epochs of 24 steps, learning rate 0.0055"
    assert nothing == "08_your_predictions: nothing is trained"
    rows = [line.split(": ") for line in lines]
    names = [name for path, name, _ in rows if path.startswith("03")]
    own = ["small logits"]  # known to the notebook alone
    assert names == ["control", "placebo", "R-Drop", "TGTSS", "compact-bag", *own]
    trained = {(path[:2], name): int(words.split()[-1]) for path, name, words in rows}
    assert trained["03", "placebo"] == trained["03", "small logits"] == 4
    assert trained["03", "TGTSS"] == 4 + 4  # of its teachers, seeds 78 .. 81, control's lack extras
    assert trained["04", "control"] == trained["04", "TGTSS"] == 0
    read = "in all: 0 published and 0 stored runs are read"
    assert last == f"{read}, to train at most {sum(trained.values())}"  # and no time: none is known


def test_a_plan_says_what_is_read_and_about_how_long_the_rest_takes(corpus, capsys):
    knobs = {"dataset": str(corpus), "runs": 4, "epochs": 3, "workers": 1}
    runs = Study(**knobs).retrain("control", n=3)
    words = [word for name, value in knobs.items() for word in ("-p", name, str(value))]
    assert main.main(["run", "01", "--plan", *words, "-p", "probed", "0"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "in all: 0 published and 3 stored runs are read, to train 1, about 1 min on 1 free cores"
    )
    control = Study(**knobs)
    assert plans.cpu_seconds(control) == runs.cpu_seconds[0]
    assert math.isnan(plans.cpu_seconds(Study(**knobs | {"seed": 50})))
    longer = plans.Part("longer", Study(**knobs | {"epochs": 6}), RDrop(1.0))
    assert longer.cost(control) == 2 * RDrop.cost[0]
    assert plans.Part("taught", control, TGTSS()).cost(control) == 1  # and its teacher once more
    few = {"methods": "none", "runs_per_method": 4, "wider": 3}
    knobs = notebooks.defaults(notebooks.notebooks(["06"])[0]) | knobs | few
    parts = {part.name: part for part in plans.parts_of("06", control, knobs)}
    assert parts["compact-bag"].cost(control) == 1 and parts["compact-wide"].cost(control) == 5


def test_a_small_corpus_is_planned_with_more_epochs_and_the_plan_says_so(corpus, capsys):
    assert main.main(["run", "01", "--plan", "-p", "dataset", str(corpus)]) == 0
    recipe = capsys.readouterr().out.splitlines()[0]
    assert recipe.startswith("compact on tiny: 216 epochs of 1 steps, ") and "too few" in recipe
    assert (
        main.main(["run", "01", "--plan", "-p", "dataset", str(corpus), "-p", "epochs", "9"]) == 0
    )
    assert "too few" not in capsys.readouterr().out.splitlines()[0]


def test_a_plan_of_a_pretrained_encoder_says_that_linear_models_are_not_counted(tmp_path, capsys):
    encoder = make_checkpoint(tmp_path / "own")
    said = []
    for model in ("compact", str(encoder)):
        assert main.main(["run", "01", "--plan", "-p", "seed", "77", "-p", "model", model]) == 0
        said.append("linear models" in capsys.readouterr().out.splitlines()[-1])
    assert said == [False, True]


def test_the_methods_of_a_plan_are_those_of_the_notebook():
    """Fails if a notebook has another catalogue, or other quick methods, than are priced."""
    for number, catalogue in plans.CATALOGUES.items():
        [path] = notebooks.notebooks([number])
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        calls = [call for cell in cells for call in re.findall(r"tuning\.methods\((.*)\)", cell)]
        [(_, _, named, *quick)] = [call.split(", ", 3) for call in calls]
        assert named == f'"{catalogue}"'
        names = {"QUICK": None, **{text: ast.literal_eval(text) for text in quick if "(" in text}}
        expected = [names[text] for text in quick if names[text]]
        assert not expected or tuple(plans.chosen(number, Study(), "quick")) == expected[0]


def execute(path: Path, values: dict, folder: Path) -> None:
    """The code of a notebook in this process, without drawing."""
    lines = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            lines.append(cell.source)
        if "parameters" in cell.metadata.get("tags", ()):
            lines += [f"{name} = {value!r}" for name, value in values.items()]
    script = folder / "notebook.py"  # a file, for a mitigation is known by its source
    script.write_text("\n".join(lines), encoding="utf-8")
    runpy.run_path(str(script), {"display": lambda shown: None})


@pytest.mark.parametrize("path", STUDIES)
def test_a_plan_counts_what_the_notebook_trains(path, corpus, tmp_path, monkeypatch, capsys):
    known = notebooks.schema(path)
    values = {name: value for name, value in SMALL.items() if name in known}
    if path.stem[:2] in METHODS:
        values["methods"] = METHODS[path.stem[:2]]
    values |= {"dataset": str(corpus), "output": str(tmp_path / "out")}
    certain, planned = total(capsys, path.stem[:2], values)
    trained = []
    write = Store.write
    monkeypatch.setattr(Store, "write", lambda *given: trained.append(write(*given)))
    for name in ("show", "table"):
        monkeypatch.setattr(figures, name, lambda *_, **__: plt.close("all"))
    execute(path, values, tmp_path)
    assert trained and len(trained) == planned
    assert total(capsys, path.stem[:2], values)[1] <= (0 if certain else 5)
