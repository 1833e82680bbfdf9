"""What the documents show works: their Python runs as it stands, and what they cite is what the
code cites.
"""

from __future__ import annotations

import re
import runpy
import tomllib
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import tiny

from stabutils.data import datasets
from stabutils.study import dispatch
from stabutils.training import preparation

ROOT = Path(__file__).resolve().parents[1]
METHODS = [
    import_module(f"stabutils.mitigations.{name}")
    for name in ("regularizers", "data_centric", "snapshots")
]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


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
            model, data, replace(recipe, epochs=1), pooling
        ),
    )
    monkeypatch.setattr(
        dispatch, "cpu_count", lambda: 1
    )  # in this process: another one would have to import the page
    path = tmp_path / "snippets.py"  # a file, for a mitigation is known by its source
    path.write_text("\n".join(snippets(text(name))), encoding="utf-8")
    runpy.run_path(str(path), run_name="snippets")
    assert len(snippets(text(name))) >= 4


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
