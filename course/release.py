"""`make course`: execute course/solutions, and write the student versions, course/exercises.

It does what nbgrader's `generate_assignment` does with the same marks and metadata, so that either
can be used: regions of solution and hidden tests go, written answers go as a whole, tests are
locked, outputs are cleared. Pictures of cells tagged `figure`, which need no answer, stay.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from stabutils.publishing import notebooks

HERE = Path(__file__).resolve().parent
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S
)
HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?^[ \t]*### END HIDDEN TESTS[ \t]*\n?", re.M | re.S
)


def student(notebook):
    """A solution notebook as students get it."""
    for cell in notebook.cells:
        role = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code":
            kept = HIDDEN.sub(
                "", SOLUTION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", cell.source)
            )
            cell.source, cell.execution_count = kept.rstrip("\n"), None
            if "figure" not in cell.metadata.get("tags", ()):
                cell.outputs = []
        elif role.get("solution"):
            cell.source = "YOUR ANSWER HERE"
        if role.get("locked"):
            cell.metadata |= {"deletable": False, "editable": False}
    return notebook


if __name__ == "__main__":
    for path in sorted((HERE / "solutions").glob("*.ipynb")):
        notebooks.execute(path, path, {})
        target = HERE / "exercises" / path.name
        target.parent.mkdir(exist_ok=True)
        nbformat.write(student(nbformat.read(path, 4)), target)
        print(target.relative_to(HERE.parent))
