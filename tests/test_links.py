"""Every link and picture inside the repository's Markdown and notebooks leads somewhere, anchors
included.
"""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "examples/*.md",
        "course/**/*.md",
        "course/*/*.ipynb",
        "notebooks/*.ipynb",
        ".github/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
LINK = re.compile(
    r"""\]\(<?([^()\s>]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)="([^"]+)\"""", re.M
)


def prose(path: Path) -> str:
    """A page's Markdown without code, in which brackets mean other things."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    text = re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.M)
    return re.sub(r"`([^`\n]*)`", lambda code: re.sub(r"[][()]", "", code[1]), text)


def links(text: str) -> list[str]:
    """Where the links and pictures of a text lead.

    >>> links('[a](b.md#c), ![[d] e](f/g.png "h"), [i](<j.md>) and <a href="k">k</a>')
    ['b.md#c', 'f/g.png', 'j.md', 'k']
    >>> links("[![badge](a.svg)](https://example.org) and [m]\\n\\n[m]: n.md")
    ['a.svg', 'https://example.org', 'n.md']
    """
    return [next(filter(None, match.groups())) for match in LINK.finditer(text)]


def anchors(text: str) -> set[str]:
    """The names that headings have on the hosting site, and those given by hand.

    >>> sorted(anchors("# How do I `run` it?\\n## Two -- words\\n## Two -- words\\n<a id='x'></a>"))
    ['how-do-i-run-it', 'two----words', 'two----words-1', 'x']
    """
    names: list[str] = []
    gone = string.punctuation.replace("-", "").replace("_", "") + "·…’"
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.M):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        names.append("".join(letter for letter in shown if letter not in gone).replace(" ", "-"))
    counted = [
        name if not names[:i].count(name) else f"{name}-{names[:i].count(name)}"
        for i, name in enumerate(names)
    ]
    return {*counted, *re.findall(r"(?:id|name)=['\"]([^'\"]+)['\"]", text)}


def broken(page: Path) -> list[str]:
    found = []
    for link in links(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue  # another site's
        place, _, anchor = unquote(link).partition("#")
        target = (page.parent / place).resolve() if place else page
        here = target.is_relative_to(ROOT) and target.exists()
        if not here or anchor and (target.is_dir() or anchor.lower() not in anchors(prose(target))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_dead_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.md").write_text(
        "# A page\n[1](b.md) [2](a.md#a-page) [3](#a-page) [4](#none) [5](../c.md) "
        "[6](https://example.org/x)\n\n    [7](code.md)\n",
        encoding="utf-8",
    )
    assert broken(tmp_path / "a.md") == ["b.md", "#none", "../c.md"]
    assert len(PAGES) > 15
