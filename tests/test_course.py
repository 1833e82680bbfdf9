"""The course: student versions are what the generator makes of the solutions, and grading tells
them apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from stabutils import metrics
from stabutils.metrics import mixtures
from stabutils.metrics.mixtures import Mixture

COURSE = Path(__file__).resolve().parents[1] / "course"
SOLUTIONS = sorted((COURSE / "solutions").glob("*.ipynb"))
release = runpy.run_path(str(COURSE / "release.py"))
grading = runpy.run_path(str(COURSE / "check.py"))
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, 4)


def roles(notebook):
    return [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]


def test_every_study_notebook_has_exercises():
    studied = {path.name for path in (COURSE.parent / "notebooks").glob("0[1-7]*.ipynb")}
    exercises = {path.name for path in (COURSE / "exercises").glob("*.ipynb")}
    assert {path.name for path in SOLUTIONS} == studied == exercises
    syllabus = (COURSE / "README.md").read_text(encoding="utf-8")
    for path in SOLUTIONS:
        points = sum(role.get("points", 0) for role in roles(read(path)))
        assert re.search(rf"\(exercises/{path.name}\).*\| {points} \|", syllabus), (
            path.name,
            points,
        )


@each_solution
def test_a_student_version_is_what_make_course_writes(path):
    assert read(COURSE / "exercises" / path.name) == release["student"](read(path)), (
        "run make course"
    )


@each_solution
def test_no_solution_leaks(path):
    cells = read(COURSE / "exercises" / path.name).cells
    shown = "\n".join(f"{cell.source}\n{cell.get('outputs', '')}" for cell in cells)
    assert not re.search("(BEGIN|END) (SOLUTION|HIDDEN)", shown)
    hidden, regions = [], "### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END"
    for cell in read(path).cells:
        role = cell.metadata.get("nbgrader", {})
        hidden += re.findall(regions, cell.source, re.S)
        if role.get("solution"):
            hidden += [cell.source] if cell.cell_type == "markdown" else []
            assert cell.cell_type == "markdown" or "### BEGIN SOLUTION" in cell.source, role
    lines = {line.strip() for region in hidden for line in region.splitlines()}
    assert len(lines) > 10 and not [line for line in lines if len(line) > 12 and line in shown]


@each_solution
def test_a_solution_is_executed_and_its_exercise_has_a_figure(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs and not [
        output
        for output in outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]
    exercise = [
        cell for cell in read(COURSE / "exercises" / path.name).cells if cell.get("outputs")
    ]
    assert exercise and all("figure" in cell.metadata.tags for cell in exercise)
    for output in (output for cell in exercise for output in cell.outputs):
        assert "image/png" in output.data or "text/markdown" in output.data
    assert not [cell for cell in exercise if cell.metadata.get("nbgrader")]


@each_solution
def test_cells_are_as_nbgrader_wants_them(path):
    found = roles(read(path))
    names = [role["grade_id"] for role in found]
    assert len(names) == len(set(names)) and all(re.fullmatch("[a-z-]+", name) for name in names)
    for role in found:
        assert role["schema_version"] == 3 and role["locked"] == (
            role["grade"] and not role["solution"]
        )
        assert ("points" in role) == role["grade"]
    tests = [cell for cell in read(path).cells if cell.metadata.get("nbgrader", {}).get("locked")]
    assert all(
        "assert" in release["student"](read(path)).cells[read(path).cells.index(cell)].source
        for cell in tests
    )


def graded(path):
    """What the command says of a notebook: name -> (points got, points, error), the total checked.

    In a process of its own: nbclient leaves tasks behind that fail when they are collected.
    """
    done = subprocess.run(
        [sys.executable, COURSE / "check.py", path], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    title, *lines = done.stdout.splitlines()
    assert title == path.name
    rows = [re.fullmatch(r"(\S+) +(read|\d+) of (\d+) *(.*)", line).groups() for line in lines]
    *exercises, (last, total, possible, rest) = rows
    tested = [(int(got), int(points)) for _, got, points, _ in exercises if got != "read"]
    written = sum(int(points) for _, got, points, _ in exercises if got == "read")
    assert (last, rest) == ("total", f"and {written} for a person to give")
    assert [int(total), int(possible)] == [sum(column) for column in zip(*tested, strict=True)]
    return {name: (got, points, error) for name, got, points, error in exercises}


@pytest.mark.slow
@each_solution
def test_a_solution_gets_all_points(path):
    found = graded(path)
    assert {name: row for name, row in found.items() if row[0] not in (row[1], "read")} == {}
    assert [name for name, row in found.items() if row[0] == "read"] == ["explain"] and len(
        found
    ) >= 4


@pytest.mark.slow
def test_an_unsolved_notebook_gets_no_points():
    found = graded(COURSE / "exercises" / "05_ensembles.ipynb")
    assert [got for got, _, _ in found.values()] == ["0", "0", "0", "read"]
    assert (
        "NameError" in found["pairs-check"][2]
        and "NotImplementedError" in found["ensembles-check"][2]
    )


@pytest.mark.slow
def test_hidden_tests_catch_what_can_be_seen_to_be_right(tmp_path):
    """An answer made to fit the visible tests, in a copy whose tests were taken out."""
    notebook = read(COURSE / "exercises" / "05_ensembles.ipynb")
    answers = {
        "pairs": "prediction = 'less'",
        "overlap": "def careless(labels, size, draws=200, seed=0):\n    return 0.0",
        "ensembles": "def churn_of_ensembles(labels, size, deals=20):\n"
        "    return float(len(set(labels[:, 0])) > 1)",
    }
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        cell.source = answers.get(name, "pass" if name.endswith("-check") else cell.source)
    path = tmp_path / "05_ensembles_smith.ipynb"
    nbformat.write(notebook, path)
    assert [got for got, _, _ in graded(path).values()] == ["1", "0", "0", "read"]


def checked(name, until, **answers):
    """Runs the test cell of this name in exercises 06, up to a line that needs the study's runs."""
    [cell] = [
        cell
        for cell in read(COURSE / "solutions" / "06_anchored.ipynb").cells
        if cell.metadata.get("nbgrader", {}).get("grade_id") == name
    ]
    tests, found, _ = cell.source.partition(until)
    assert found
    exec(tests, {"np": np} | answers)


def visible(name, **answers):
    """Runs the test cell of this name in exercises 01 as students see it."""
    cells = read(COURSE / "exercises" / "01_measuring_instability.ipynb").cells
    [cell] = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name]
    exec(cell.source, {"np": np, "metrics": metrics} | answers)


def test_two_lists_of_answers_are_told_what_is_off(capsys):
    errs = [1, 1] + [0] * 8
    with pytest.raises(AssertionError, match="second: 7 of its ten answers are 0"):
        visible("hidden-check", first=errs, second=[1, *errs[1:9], 1])
    visible("hidden-check", first=errs, second=[2, 2] + [0] * 8)
    assert "churn 0.2: is that the highest" in (shown := capsys.readouterr().out)
    assert shown.endswith("both runs are wrong: 2\n")


def test_a_fair_number_of_votes_is_one_that_both_sides_have(capsys):
    votes = np.repeat([[0], [1]], [2, 8], axis=0)
    ten = {"control": SimpleNamespace(labels=votes), "few": 2, "many": 10}
    with pytest.raises(AssertionError, match="n = 10: both sides .* one side has 2 runs"):
        visible("claim-check", **ten, n=10)
    visible("claim-check", **ten, n=2)
    # two of ten runs disagree with chance 2 * 2 * 8 / 90, and then the entropy is log 2
    assert f"{32 / 90 * np.log(2):.3f} nats at n = 2" in capsys.readouterr().out


SCORERS = {
    "the mean over the runs": lambda mixed, gold: np.mean(mixed.argmax(-1) == gold),
    "run 0": lambda mixed, gold: np.mean(mixed[0].argmax(-1) == gold),
    "the last run": lambda mixed, gold: np.mean(mixed[-1].argmax(-1) == gold),
    "the averaged ensemble": lambda mixed, gold: np.mean(mixed.mean(0).argmax(-1) == gold),
    "the vote": lambda mixed, gold: np.mean(np.median(mixed.argmax(-1), axis=0) == gold),
}


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_weight_is_chosen_by_the_mean_over_the_runs(scorer):
    def choose(network, linear, gold, weights=mixtures.WEIGHTS, lost=0.005):
        scores = {}
        for weight in weights:
            scores[weight] = SCORERS[scorer](mixtures.mix(network, linear, weight), gold)
        least = max(scores.values()) - lost - 1e-12
        return max(weight for weight in weights if scores[weight] >= least)

    refused = contextlib.nullcontext()
    if scorer != "the mean over the runs":
        refused = pytest.raises(AssertionError, match="mean over the runs|no vote, no other run")
    with refused:
        checked("choose-check", "held_out", choose=choose)


def test_the_mixture_is_to_be_written_and_not_called():
    def mix(network, linear, weight):
        return Mixture(linear, weight)(network)

    with pytest.raises(AssertionError, match="in your own words"):
        checked("mix-check", "### BEGIN HIDDEN", mix=mix)
    exercise = (COURSE / "exercises" / "06_anchored.ipynb").read_text(encoding="utf-8")
    assert "import mixtures" not in exercise and "mixtures.mix(" not in exercise


SETUP = """import os
from pathlib import Path

import stabutils as st

study = st.Study(epochs=1, runs=2)
"""
TEST = """assert answer == 1
assert Path(st.__file__).is_relative_to(CLONE)
assert os.environ["STABUTILS_RUNS"] == str(Path(CLONE) / "runs")
"""


def toy(folder, setup, *own):
    """A solution of one exercise, and a right answer to it, with cells of a student's own."""
    marks = {"schema_version": 3, "locked": False, "grade": False, "solution": True}
    test = TEST.replace("CLONE", repr(str(COURSE.parent)))
    roles = [
        marks | {"grade_id": "answer"},
        marks | {"grade_id": "answer-check", "grade": True, "locked": True, "points": 2},
    ]
    cells = [nbformat.v4.new_code_cell(setup)]
    for source, each in zip(("answer = 1", test), roles, strict=True):
        cells.append(nbformat.v4.new_code_cell(source, metadata={"nbgrader": each}))
    (folder / "solutions").mkdir()
    solution = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(solution, folder / "solutions" / "01_toy.ipynb")
    solution.cells[2:2] = [nbformat.v4.new_code_cell(source) for source in own]
    nbformat.write(solution, folder / "01_toy_smith.ipynb")


def toy_points(folder):
    """What check.py gives the toy, or why it refuses it; in a process of its own, as above."""
    run = (
        "import runpy, sys; from pathlib import Path; check = runpy.run_path(sys.argv[1])['check']\n"
        "print(check(Path('01_toy_smith.ipynb'), Path('solutions')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "STABUTILS_RUNS"}
    return subprocess.run(
        [sys.executable, "-c", run, COURSE / "check.py"],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
    )


def test_a_notebook_is_graded_wherever_it_lies(tmp_path):
    """Also beside a folder of the package's name, and with a cell of the student's that fails."""
    (tmp_path / "stabutils" / "stabutils").mkdir(parents=True)
    toy(tmp_path, SETUP, "1 / 0")
    done = toy_points(tmp_path)
    assert "Graded(points=2, got=2" in done.stdout, done.stderr


def test_setup_code_that_fails_is_no_wrong_answer(tmp_path):
    toy(tmp_path, "import no_such_package")
    done = toy_points(tmp_path)
    assert done.stdout == "" and re.search(
        r"ValueError: 01_toy_smith.ipynb: setup code failed, so nothing was graded: "
        "ModuleNotFoundError: No module named 'no_such_package'",
        done.stderr,
    )


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0)])
def test_how_it_is_used(arguments, status):
    command = [sys.executable, COURSE / "check.py", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == status and "usage: check.py" in done.stdout + done.stderr


def test_a_renamed_notebook_is_known_by_how_its_name_begins():
    found = grading["solution_of"](Path("submitted/06_anchored_smith.ipynb"))
    assert found == COURSE / "solutions" / "06_anchored.ipynb"


def test_a_notebook_that_cannot_be_graded_is_refused(tmp_path):
    notebook = read(COURSE / "exercises" / "05_ensembles.ipynb")
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    with pytest.raises(
        ValueError,
        match=r"^mine\.ipynb: got a notebook without a solution; expected a name that begins",
    ):
        grading["check"](tmp_path / "mine.ipynb")
    notebook.cells = [
        cell
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade_id") != "overlap-check"
    ]
    nbformat.write(notebook, tmp_path / "05_ensembles.ipynb")
    with pytest.raises(
        ValueError, match=r"got no cell overlap-check; expected every cell with a test"
    ):
        grading["check"](tmp_path / "05_ensembles.ipynb")
