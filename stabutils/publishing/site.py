"""The study as pages that need no network: `make site` writes site/ from README, docs and the
executed notebooks.
"""

from __future__ import annotations

import base64
import posixpath
import re
import shutil
from functools import partial
from importlib.resources import files
from pathlib import Path

from stabutils.reports.page import render

GROUPS = (
    ("Study", "README.md"),
    ("Notebooks", "notebooks/[0-9]*.ipynb"),
    ("Full size", "records/*/[0-9]*.ipynb"),
    ("Pages", "docs/*.md"),
)
PICTURE = re.compile(r"!\[(?P<words>[^\]]*)\]\(\.\./(?P<path>[^):]+\.png)\)")
FORMULA = re.compile(
    r"(`+[^`]*`+|```.*?```)|\$\$(.+?)\$\$|(?<![\w\\$])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])", re.DOTALL
)


def build(root: Path, target: Path) -> list[Path]:
    """Write every page and what it shows below `target`, laid out like the repository; returns the
    pages.
    """
    import nbformat
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    sources = {group: sorted(root.glob(pattern)) for group, pattern in GROUPS}
    pages = {
        path.relative_to(root).as_posix(): address(path.relative_to(root).as_posix())
        for paths in sources.values()
        for path in paths
    }
    groups = [
        (group, [(name(path, root), pages[path.relative_to(root).as_posix()]) for path in paths])
        for group, paths in sources.items()
        if paths
    ]
    written = []
    for source, page in pages.items():
        if source.endswith(".ipynb"):
            body = _notebook(nbformat.read(root / source, as_version=4))
        else:
            body = markdown2html_mistune(mathml((root / source).read_text(encoding="utf-8")))
        up = "../" * page.count("/")
        body = relinked(body, posixpath.dirname(source), pages, up)
        title = re.search(r"<h1[^>]*>(.*?)<", body, re.DOTALL)
        path = target / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            _page(title[1].strip() if title else source, body, up=up, here=page, groups=groups),
            encoding="utf-8",
            newline="\n",
        )
        written.append(path)
    (target / "site.css").write_text(_style(), encoding="utf-8", newline="\n")
    for picture in (root / "figures").rglob("*.png"):
        copy = target / picture.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)
    return written


def alone(notebook: Path, home: Path) -> str:
    """A notebook as a page that needs nothing beside it and no network: the pictures of its prose,
    which lie in the project `home` one folder above it, are inside; links to other files become
    plain text.
    """
    import nbformat

    body = _notebook(nbformat.read(notebook, as_version=4), home)
    return _page(notebook.stem, relinked(body, "", {}, ""), style=_style())


def _page(title: str, body: str, **about) -> str:
    blank = {"style": "", "up": "", "here": "", "groups": ()}
    return render("publishing/site.html", title=title, body=body, **blank | about)


def address(source: str) -> str:
    """Where a file of the repository lies in the site.

    >>> address("README.md"), address("notebooks/01_measuring_instability.ipynb")
    ('index.html', 'notebooks/01_measuring_instability.html')
    """
    return "index.html" if source == "README.md" else re.sub(r"\.\w+$", ".html", source)


def name(path: Path, root: Path) -> str:
    """A page's name in the menu: two digits of a notebook, with its corpus where that is not the
    embedded one.
    """
    corpus = "" if path.parent.name == "notebooks" else f"{path.parent.name} "
    return f"{corpus}{path.stem[:2]}" if path.suffix == ".ipynb" else path.stem.replace("_", " ")


def relinked(body: str, folder: str, pages: dict[str, str], up: str) -> str:
    """Links between files of the repository become links between pages; one to a file that is no
    page is plain text.
    """

    def link(match: re.Match) -> str:
        href, anchor = (match["href"].split("#", 1) + [""])[:2]
        if not href or re.match(r"[a-z]+:", href):
            return match[0]
        there = posixpath.normpath(posixpath.join(folder, href))
        if there in pages:
            return f'<a href="{up}{pages[there]}{"#" * bool(anchor)}{anchor}">{match["text"]}</a>'
        return match["text"]

    return re.sub(r'<a href="(?P<href>[^"]*)"[^>]*>(?P<text>.*?)</a>', link, body, flags=re.DOTALL)


def mathml(text: str) -> str:
    """Markdown with its formulas as MathML, which browsers draw by themselves; code is left as it
    is.

    >>> "<math" in mathml("the $x^2$ of"), mathml("`$x$` costs $5")
    (True, '`$x$` costs $5')
    """
    from latex2mathml.converter import convert

    def drawn(match: re.Match) -> str:
        code, display, inline = match.groups()
        return code or convert(
            " ".join((display or inline).split()), "block" if display else "inline"
        )

    return FORMULA.sub(drawn, text)


def _notebook(notebook, home: Path | None = None) -> str:
    """Cells in order: prose, code, what it printed and drew; pictures of prose are inside where
    `home` is given.
    """
    from nbconvert import HTMLExporter

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = mathml(
                PICTURE.sub(partial(_inside, home), cell.source) if home else cell.source
            )
    return HTMLExporter(template_name="basic").from_notebook_node(notebook)[0]


def _inside(home: Path, picture: re.Match) -> str:
    data = base64.b64encode((home / picture["path"]).read_bytes()).decode("ascii")
    return f"![{picture['words']}](data:image/png;base64,{data})"


def _style() -> str:
    """The sheet of every page, with the colours of code."""
    from pygments.formatters import HtmlFormatter

    colours = HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight")
    sheet = files("stabutils.publishing").joinpath("site.css").read_text(encoding="utf-8")
    return f"{sheet}\n{colours}\n"
