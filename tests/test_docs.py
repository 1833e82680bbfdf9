"""What the documents show works: their Python runs as it stands, names and files that they mention
exist, and what they cite is what the code cites.
"""

from __future__ import annotations

import contextlib
import io
import pkgutil
import re
import runpy
import tomllib
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import tiny

import stabutils
from stabutils import __main__ as command_line
from stabutils import records
from stabutils.data import datasets
from stabutils.publishing import quotes, results
from stabutils.training import preparation

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    import_module(info.name)
    for info in pkgutil.walk_packages(stabutils.__path__, "stabutils.")
    if not info.name.endswith("__main__")
]
METHODS = [
    module
    for module in MODULES
    if module.__name__.startswith("stabutils.mitigations.")
    and not module.__name__.endswith(".interventions")  # which are no methods
]
# Written by `make figures`; and old names stand beside new ones.
NOT_BY_HAND = {"docs/claims.md", "CHANGELOG.md"}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "course/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
HAND_WRITTEN = [page for page in PAGES if page not in NOT_BY_HAND]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def words(page):
    """How many words a reader reads: no comments, code blocks, or addresses of links.

    >>> words("Two [words](a.md#b) <!--massive/01: churn--><!--end-->.\\n\\n    code\\n")
    2
    """
    page = re.sub(r"^```.*?^```|^(?: {4}|\t).*?$", "", page, flags=re.M | re.S)
    page = re.sub(r"<!--.*?-->", "", page, flags=re.S)
    page = re.sub(r"\]\([^)]*\)", "]", page)
    return len(re.findall(r"\S*\w\S*", page))


@cache
def public_names():
    return {name for module in MODULES for name in vars(module)}


@cache
def commands():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit):
        command_line.main(["?"])
    return set(re.findall(r"\w+", said.getvalue().split("choose from")[1]))


def exists(name):
    """Whether a dotted name is one of the package, with or without `st` before it.

    >>> exists("st.metrics.churn"), exists("stabutils.analysis.board"), exists("st.churn")
    (True, True, False)
    >>> exists("metrics.churn"), exists("intervals.jackknife"), exists("analysis.boards")
    (True, True, False)
    """
    first, *rest = name.split(".")
    if first in ("st", "stabutils"):
        return reached(stabutils, rest)
    return any(reached(home, [first, *rest]) for home in (stabutils, stabutils.metrics))


def reached(thing, parts):
    for part in parts:
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


FLOORS = "metrics|intervals|data|records|mitigations|analysis|figures|reports|publishing"
FOLDERS = "stabutils|benchmarks|tests|docs|notebooks|course|examples|records|figures|binder"


def unknown(page):
    """The names, files and commands in a page's code that do not exist.

    >>> unknown("`stabutils.board`, `st.churn`, `analysis.boards`, `TwoWords`, `benchmarks/x.py`")
    ['stabutils.board', 'st.churn', 'analysis.boards', 'TwoWords', 'benchmarks/x.py']
    >>> unknown("`python -m stabutils rum`, `st.Study`, `mitigations.neighbours`, `Makefile`")
    ['python -m stabutils rum']
    """
    pieces = re.findall(r"`[^`\n]+`|^(?: {4}|\t).*$|^```.*?^```", page, re.M | re.S)
    code = "\n".join(piece for piece in pieces if "mutmut" not in piece)
    names = re.findall(r"\b(?:st|stabutils)(?:\.[A-Za-z]\w*)+", code)
    names += re.findall(rf"`((?:{FLOORS})(?:\.[A-Za-z]\w*)+)`", code)
    classes = re.findall(r"`([A-Z][a-z]+[A-Z]\w+)(?:\([^`]*\))?`", code)
    files = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", code)
    given = re.findall(r"python -m stabutils (\w+)", code)
    return [
        *(name for name in names if not exists(name)),
        *(name for name in classes if name not in public_names()),
        *(file for file in files if not (ROOT / file).exists()),
        *(f"python -m stabutils {name}" for name in given if name not in commands()),
    ]


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)


@pytest.mark.parametrize("name", ["docs/how_do_i.md", "CONTRIBUTING.md"])
def test_its_python_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    """On a network so small that a training takes no time: what is tested is the text, not the
    numbers.
    """
    tiny.project(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STABUTILS_DATA", str(tmp_path))
    for table in ("CORPORA", "PUBLISHERS", "SHA256"):
        monkeypatch.setattr(datasets, table, dict(getattr(datasets, table)))
    monkeypatch.setattr(
        preparation,
        "prepare",
        lambda model, data, recipe, pooling: tiny.prepare(
            model, data, replace(recipe, epochs=2), pooling
        ),
    )
    path = tmp_path / "snippets.py"  # a file, for a mitigation is known by its source
    path.write_text("\n".join(snippets(text(name))), encoding="utf-8")
    runpy.run_path(str(path), run_name="snippets")
    assert len(snippets(text(name))) >= 4


def test_the_readme_is_read_in_two_minutes():
    assert 300 < words(text("README.md")) <= 700


@pytest.mark.parametrize("page", HAND_WRITTEN)
def test_what_a_page_names_exists(page):
    assert unknown(text(page)) == []


@pytest.mark.parametrize("page", HAND_WRITTEN)
def test_a_quote_names_a_notebook_and_a_metric(page):
    notebooks = {path.stem for path in ROOT.glob("notebooks/[0-9]*.ipynb")}
    for quoted in quotes.QUOTE.finditer(text(page)):
        if match := quotes.TABLE.fullmatch(quoted["what"]):
            assert match["name"] in quotes.TABLES
        elif match := quotes.COST.fullmatch(quoted["what"]):
            assert match["key"] in results.costs(ROOT)
        else:
            number = quotes.NUMBER.fullmatch(quoted["what"])
            metric = re.split("[,;]", number["key"])[0]
            assert Path(number["record"]).name in notebooks and metric in records.UNITS


def test_every_question_is_listed_and_every_listed_one_is_answered():
    page = text("docs/how_do_i.md")
    listed = re.findall(r"^- \[\.\.\. (.+)\]\(", page, re.M)
    assert listed == re.findall(r"^## \.\.\. (.+)$", page, re.M) and len(listed) >= 12


def test_the_glossary_is_in_order_and_has_the_words_of_the_study():
    words = [
        word.casefold() for word in re.findall(r"^\*\*(.+?)\*\*", text("docs/glossary.md"), re.M)
    ]
    assert words == sorted(words, key=lambda word: re.sub(r"\W", "", word))
    assert {"run", "churn", "label entropy", "placebo", "mitigation", "control", "verdict"} <= set(
        words
    )


def test_every_method_is_cited():
    page = text("docs/cite.md")
    keys = set(re.findall(r"^@\w+\{([\w-]+),", page, re.M))
    source = r"\b([A-Z][\w-]+)(?:(?:, [A-Z]\w+)* and [A-Z]\w+| et al\.),? (20\d\d)\b"
    docstrings = " ".join(
        " ".join(str(each.__doc__).split())
        for module in METHODS
        for each in vars(module).values()
        if getattr(each, "__module__", "") == module.__name__
    )
    cited = {f"{name.lower()}{year}" for name, year in re.findall(source, docstrings)}
    assert len(cited) > 15 and cited <= keys, cited - keys


def test_what_a_citation_is_for_exists():
    names = [
        name
        for line in re.findall(r"^% ([\w., ]+)$", text("docs/cite.md").split("## Methods")[1], re.M)
        for name in line.split(", ")
    ]
    for name in names:
        module, _, attribute = name.rpartition(".")
        homes = [import_module(f"stabutils.{module}")] if module else METHODS
        assert any(hasattr(home, attribute) for home in homes), name
    assert len(names) > 25


def test_versions_agree():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"## {version}" in text("CHANGELOG.md") and f"{{{version}}}" in text("docs/cite.md")
