"""The points of course notebooks, without nbgrader.

Runs each notebook from top to bottom with the hidden tests of its solution put back, whatever was
done to the test cells. A cell with a test counts all its points or none; written answers are for a
person to read. The name of a notebook begins with that of its exercise: 06_anchored_smith.ipynb.
Wherever it lies, it uses the package of this clone, and its runs/ unless STABUTILS_RUNS names
another folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = ROOT / "course" / "solutions"


class Graded(NamedTuple):
    """One exercise: points it is worth, points it got (None: for a person to read), and the first
    thing that failed.
    """

    points: float
    got: float | None
    error: str = ""


def check(path: Path, solutions: Path = SOLUTIONS) -> dict[str, Graded]:
    """What each exercise of a notebook gets.

    Raises ValueError for one without a solution, and for one whose setup code fails: then nothing
    that follows says anything about the answers.
    """
    solution = nbformat.read(solution_of(path, solutions), 4)
    notebook, tests = nbformat.read(path, 4), tested(solution)
    missing = tests.keys() - tested(notebook).keys()
    if missing:
        raise ValueError(
            f"{path.name}: got no cell {', '.join(sorted(missing))}; expected every cell with a "
            "test"
        )
    for cell in notebook.cells:
        if (name := role(cell).get("grade_id")) in tests:
            cell.source, cell.metadata = tests[name].source, tests[name].metadata
    unmarked = [cell for cell in solution.cells if not role(cell)]
    setup = {cell.id for cell in unmarked} | {cell.source for cell in unmarked}  # some drop ids
    for cell in notebook.cells:
        if setup.isdisjoint((cell.get("id"), cell.source)):
            cell.metadata.setdefault("tags", []).append("raises-exception")  # and go on
    try:
        execute(notebook, path.parent)
    except CellExecutionError as error:
        raise ValueError(
            f"{path.name}: setup code failed, so nothing was graded: {error.ename}: {error.evalue}"
        ) from error
    return {
        role(cell)["grade_id"]: graded(cell) for cell in notebook.cells if role(cell).get("grade")
    }


def execute(notebook, folder: Path) -> None:
    """Runs a notebook in a folder, with the package and the trained runs of this clone."""
    runs = Path(os.environ.get("STABUTILS_RUNS") or ROOT / "runs").resolve()
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"PYTHONPATH": os.pathsep.join(places), "STABUTILS_RUNS": str(runs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter machinery
        NotebookClient(
            notebook,
            timeout=1200,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute(env=os.environ | env)


def solution_of(path: Path, solutions: Path = SOLUTIONS) -> Path:
    """The solution with whose name, less its ending, that of the notebook begins."""
    known = sorted(solutions.glob("*.ipynb"))
    for solution in known:
        if path.name.startswith(solution.stem):
            return solution
    names = ", ".join(solution.stem for solution in known)
    raise ValueError(
        f"{path.name}: got a notebook without a solution; expected a name that begins with one of "
        f"{names}"
    )


def role(cell) -> dict:
    return cell.metadata.get("nbgrader", {})


def tested(notebook) -> dict:
    """Cells with tests by name."""
    return {
        role(cell)["grade_id"]: cell
        for cell in notebook.cells
        if role(cell).get("grade") and role(cell)["locked"]
    }


def graded(cell) -> Graded:
    points = role(cell)["points"]
    if cell.cell_type == "markdown":
        return Graded(points, None)
    errors = [
        f"{output.ename}: {output.evalue}"
        for output in cell.outputs
        if output.output_type == "error"
    ]
    return Graded(points, 0 if errors else points, *errors[:1])


def shown(exercises: dict[str, Graded]) -> str:
    """A line an exercise, and the total."""
    lines, total, possible, written = [], 0, 0, 0
    for name, (points, got, error) in exercises.items():
        if got is None:
            lines.append(f"{name:<20} read of {points}")
            written += points
        else:
            lines.append(f"{name:<20} {got:>4} of {points}  {error}".rstrip())
            total, possible = total + got, possible + points
    lines.append(f"{'total':<20} {total:>4} of {possible}  and {written} for a person to give")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="notebook")
    paths = parser.parse_args().notebooks
    status = 0
    for path in paths:
        try:
            print(f"{path.name}\n{shown(check(path))}", flush=True)
        except (ValueError, OSError) as problem:
            print(f"course: {problem}", file=sys.stderr)
            status = 1
    sys.exit(status)
