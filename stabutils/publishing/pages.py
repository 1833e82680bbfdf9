"""An executed notebook as one page that needs nothing beside it and no network."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from stabutils.provenance import project_root

FORMULA = re.compile(
    r"(`+[^`]*`+|```.*?```)|\$\$(.+?)\$\$|(?<![\w\\$])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])", re.DOTALL
)
PICTURE = re.compile(r"(!\[[^\]]*\]\()\.\./")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?!\w+:|#)[^)]*\)")


def write(notebook: Path) -> Path:
    """Write the page beside the notebook: JupyterLab's, with pictures inside, formulas as MathML.

    The pictures of its prose lie in the project, one folder above it. Links to other files become
    plain text. Code of cells tagged "hide-cell" or "hide-input" is left out.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    content, drawn = nbformat.read(notebook, as_version=4), []

    def keep(formula: str) -> str:  # nbconvert would close each of its tags at once
        drawn.append(formula)
        return f"\ue000{len(drawn) - 1}\ue001"

    for cell in content.cells:
        if cell.cell_type == "markdown":
            prose = PICTURE.sub(r"\1", cell.source)
            cell.source = mathml(LINK.sub(r"\g<text>", prose), keep)
    about = {"name": notebook.stem, "path": str(project_root())}
    with as_file(files("stabutils.publishing")) as folder:
        exporter = HTMLExporter(
            template_name="page", extra_template_basedirs=[str(folder)], embed_images=True
        )
        folded = TagRemovePreprocessor(remove_input_tags={"hide-cell", "hide-input"}, enabled=True)
        exporter.register_preprocessor(folded, enabled=True)
        whole = exporter.from_notebook_node(content, {"metadata": about})[0]
    whole = re.sub("\ue000(\\d+)\ue001", lambda place: drawn[int(place[1])], whole)
    page = notebook.with_suffix(".html")
    page.write_text(whole, encoding="utf-8", newline="\n")
    return page


def mathml(text: str, place: Callable[[str], str] = str) -> str:
    """Markdown with its formulas as MathML, which browsers draw by themselves; code is left alone.

    place : what stands for a formula, by default itself

    Examples
    --------
    >>> "<math" in mathml("the $x^2$ of"), mathml("`$x$` costs $5")
    (True, '`$x$` costs $5')
    """

    def drawn(match: re.Match) -> str:
        code, display, inline = match.groups()
        return code or place(formula(display or inline, display=bool(display)))

    return FORMULA.sub(drawn, text)


def formula(tex: str, display: bool = False) -> str:
    """A formula as MathML, within a line or on lines of its own.

    Examples
    --------
    >>> formula("x").endswith("<mrow><mi>x</mi></mrow></math>")
    True
    """
    from latex2mathml.converter import convert

    place = "block" if display else "inline"
    return convert(" ".join(tex.split()), display=place)
