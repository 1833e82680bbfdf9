"""The study as pages that need no network: `make site` writes site/ from README, docs and the executed notebooks."""
from __future__ import annotations

import base64
import posixpath
import re
import shutil
from importlib.resources import files
from pathlib import Path

GROUPS = (("Study", "README.md"), ("Notebooks", "notebooks/[0-9]*.ipynb"), ("Full size", "records/*/[0-9]*.ipynb"),
          ("Pages", "docs/*.md"))
FORMULA = re.compile(r"(`+[^`]*`+|```.*?```)|\$\$(.+?)\$\$|(?<![\w\\$])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])",
                     re.DOTALL)


def build(root: Path, target: Path) -> list[Path]:
    """Write every page and what it shows below `target`, laid out like the repository; returns the pages."""
    import nbformat
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    sources = {group: sorted(root.glob(pattern)) for group, pattern in GROUPS}
    pages = {path.relative_to(root).as_posix(): address(path.relative_to(root).as_posix())
             for paths in sources.values() for path in paths}
    environment = Environment(loader=PackageLoader("stabutils", ""), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    groups = [(group, [(name(path, root), pages[path.relative_to(root).as_posix()]) for path in paths])
              for group, paths in sources.items() if paths]
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
        path.write_text(environment.get_template("site.html").render(
            title=title[1].strip() if title else source, up=up, here=page, groups=groups, body=body),
            encoding="utf-8", newline="\n")
        written.append(path)
    (target / "site.css").write_text(files("stabutils").joinpath("site.css").read_text(encoding="utf-8") + _colours(),
                                     encoding="utf-8", newline="\n")
    for picture in (root / "figures").rglob("*.png"):
        copy = target / picture.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)
    return written


def address(source: str) -> str:
    """Where a file of the repository lies in the site.

    >>> address("README.md"), address("notebooks/01_measuring_instability.ipynb")
    ('index.html', 'notebooks/01_measuring_instability.html')
    """
    return "index.html" if source == "README.md" else re.sub(r"\.\w+$", ".html", source)


def name(path: Path, root: Path) -> str:
    """A page's name in the menu: two digits of a notebook, with its corpus where that is not the embedded one."""
    corpus = "" if path.parent.name == "notebooks" else f"{path.parent.name} "
    return f"{corpus}{path.stem[:2]}" if path.suffix == ".ipynb" else path.stem.replace("_", " ")


def relinked(body: str, folder: str, pages: dict[str, str], up: str) -> str:
    """Links between files of the repository become links between pages; one to a file that is no page is plain text."""
    def link(match: re.Match) -> str:
        href, anchor = (match["href"].split("#", 1) + [""])[:2]
        if not href or re.match(r"[a-z]+:", href):
            return match[0]
        there = posixpath.normpath(posixpath.join(folder, href))
        if there in pages:
            return f'<a href="{up}{pages[there]}{"#" * bool(anchor)}{anchor}">{match["text"]}</a>'
        return match["text"]

    return re.sub(r'<a href="(?P<href>[^"]*)"[^>]*>(?P<text>.*?)</a>', link, body, flags=re.DOTALL)


def alone(text: str, folder: Path) -> str:
    """Markdown of `folder` that needs no file beside it: pictures inside it, links to other files as plain words.

    >>> alone("see [trust](../docs/trust.md), [x](https://x.org) and `runs[0](x)`", Path("."))
    'see trust, [x](https://x.org) and `runs[0](x)`'
    """
    def inside(match: re.Match) -> str:
        code, picture, words, target = match.groups()
        if code or not picture:
            return code or words
        data = base64.b64encode((folder / target).read_bytes()).decode("ascii")
        return f"![{words}](data:image/png;base64,{data})"

    return re.sub(r"(```.*?```|`[^`]*`)|(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)", inside, text, flags=re.DOTALL)


def mathml(text: str) -> str:
    """Markdown with its formulas as MathML, which browsers draw by themselves; code is left as it is.

    >>> "<math" in mathml("the $x^2$ of"), mathml("`$x$` costs $5")
    (True, '`$x$` costs $5')
    """
    from latex2mathml.converter import convert

    def drawn(match: re.Match) -> str:
        code, display, inline = match.groups()
        return code or convert(" ".join((display or inline).split()), "block" if display else "inline")

    return FORMULA.sub(drawn, text)


def _notebook(notebook) -> str:
    """Cells in order: prose, code, what it printed and drew."""
    from nbconvert import HTMLExporter

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = mathml(cell.source)
    return HTMLExporter(template_name="basic").from_notebook_node(notebook)[0]


def _colours() -> str:
    from pygments.formatters import HtmlFormatter

    return "\n" + HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight") + "\n"
