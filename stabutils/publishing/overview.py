"""What the notebooks of a study found, on one page: a figure of each, and what was judged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from stabutils import records
from stabutils.reports.page import render

PNG = "image/png"


def overview(folder: Path, names: Iterable[str]) -> Path:
    """Write overview.html: the executed notebooks of a folder with these names that have a page."""
    executed = [folder / f"{name}.ipynb" for name in names]
    chapters = [chapter(path) for path in executed if path.with_suffix(".html").is_file()]
    page = folder / "overview.html"
    written = render("publishing/overview.html", name=folder.resolve().name, chapters=chapters)
    page.write_text(written, encoding="utf-8", newline="\n")
    return page


def chapter(notebook: Path) -> dict[str, object]:
    """What an executed notebook found; of the claims of its record those that were measured."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    prose = [cell.source for cell in content.cells if cell.cell_type == "markdown"]
    title, question = opening(next(iter(prose), notebook.stem))
    record = notebook.with_suffix(".json")
    every = records.read(record).claims if record.is_file() else ()
    return {
        "title": title,
        "question": question,
        "page": notebook.with_suffix(".html").name,
        "pictures": list(pictures(content)),
        "claims": [claim for claim in every if not math.isnan(claim.value)],
    }


def opening(prose: str) -> tuple[str, str]:
    """The heading of a first cell, and the paragraph below it as plain text.

    Examples
    --------
    >>> opening("# 01 · How much?\\n\\nAnswers *change*.\\nHow many?\\n\\nMore.")
    ('01 · How much?', 'Answers change. How many?')
    """
    heading, *below = (part.strip() for part in prose.split("\n\n"))
    paragraph = " ".join(below[0].split()) if below else ""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    return heading.lstrip("# "), re.sub(r"[*`]", "", plain)


def pictures(content) -> Iterator[dict[str, str]]:
    """The figures of an executed notebook that have a caption, in their order."""
    outputs = [output for cell in content.cells for output in cell.get("outputs", ())]
    for output in outputs:
        caption = output.get("metadata", {}).get(PNG, {}).get("alt", "")
        if caption:
            encoded = output.data[PNG].replace("\n", "")
            yield {"caption": caption, "source": f"data:{PNG};base64,{encoded}"}
