"""The points of a course notebook, without nbgrader: python course/check.py <notebook>

Runs the notebook from top to bottom with the hidden tests of the solution of the same name put
back, whatever was done to the test cells. A cell with a test counts all its points or none; written
answers are for a person to read.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient

SOLUTIONS = Path(__file__).resolve().parent / "solutions"


class Graded(NamedTuple):
    """One exercise: points it is worth, points it got (None: for a person to read), and the first
    thing that failed.
    """

    points: float
    got: float | None
    error: str = ""


def check(path: Path, solutions: Path = SOLUTIONS) -> dict[str, Graded]:
    """What each exercise of a notebook gets. Raises ValueError for a notebook without a solution of
    its name.
    """
    if not (solutions / path.name).is_file():
        known = ", ".join(sorted(each.name for each in solutions.glob("*.ipynb")))
        raise ValueError(
            f"{path.name}: got a notebook without a solution; expected the name of one of {known}"
        )
    notebook, tests = nbformat.read(path, 4), tested(nbformat.read(solutions / path.name, 4))
    missing = tests.keys() - tested(notebook).keys()
    if missing:
        raise ValueError(
            f"{path.name}: got no cell {', '.join(sorted(missing))}; expected every cell with a "
            "test"
        )
    for cell in notebook.cells:
        if (name := role(cell).get("grade_id")) in tests:
            cell.source, cell.metadata = tests[name].source, tests[name].metadata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter machinery
        NotebookClient(
            notebook,
            timeout=1200,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute()
    return {
        role(cell)["grade_id"]: graded(cell) for cell in notebook.cells if role(cell).get("grade")
    }


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


if __name__ == "__main__":
    try:
        for argument in sys.argv[1:]:
            for name, (points, got, error) in check(Path(argument)).items():
                print(
                    f"{name:<20} {'read' if got is None else got:>4} of {points}  {error}".rstrip()
                )
    except (ValueError, OSError) as problem:
        sys.exit(f"course: {problem}")
