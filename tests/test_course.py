"""The course: student versions are what the generator makes of the solutions, and grading tells
them apart.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

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
    """What the command says of a notebook: name -> (points got, points, error).

    In a process of its own: nbclient leaves tasks behind that fail when they are collected.
    """
    done = subprocess.run(
        [sys.executable, COURSE / "check.py", path], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(\S+) +(read|\d+) of (\d+) *(.*)$", done.stdout, re.M)
    assert len(lines) == len(done.stdout.splitlines())
    return {name: (got, points, error) for name, got, points, error in lines}


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
    path = tmp_path / "05_ensembles.ipynb"
    nbformat.write(notebook, path)
    assert [got for got, _, _ in graded(path).values()] == ["1", "0", "0", "read"]


def test_a_notebook_that_cannot_be_graded_is_refused(tmp_path):
    notebook = read(COURSE / "exercises" / "05_ensembles.ipynb")
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    with pytest.raises(
        ValueError,
        match=r"^mine\.ipynb: got a notebook without a solution; expected the name of one",
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
