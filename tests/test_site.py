"""The site: pages for README, docs and notebooks that need nothing but themselves."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from stabutils import records
from stabutils.metrics.intervals import verdict
from stabutils.publishing import claims, site

ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.links, self.tags, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids |= {value for name, value in attributes if name == "id"}
        self.links += [value for name, value in attributes if name in ("href", "src") and value]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    return target, site.build(ROOT, target)


def test_every_page_stands_by_itself(built):
    target, pages = built
    assert target / "index.html" in pages and len(pages) >= 9
    for path in pages:
        page = Page(path)
        assert not [tag for tag, _ in page.tags if tag in ("script", "iframe")], path
        for link in page.links:
            if not re.match(r"https?:|data:|#", link):
                assert (path.parent / link.split("#")[0]).is_file(), (path, link)
        loaded = [
            each.get("src") or each.get("href")
            for tag, each in page.tags
            if tag in ("img", "link", "script")
        ]
        assert not [link for link in loaded if re.match("https?:", link)], (
            path
        )  # nothing is fetched from elsewhere
        assert all(each.get("alt") for tag, each in page.tags if tag == "img"), path


def test_texts_of_data_stay_texts(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text(
        "# A\n\n[to](notebooks/01_x.ipynb#b) [file](setup.cfg)", encoding="utf-8"
    )
    output = nbformat.v4.new_output("stream", text="<script>alert(1)</script> $x$")
    cells = [
        nbformat.v4.new_markdown_cell("# B\n\nof $\\hat p$ `$y$`"),
        nbformat.v4.new_code_cell("1 < 2", outputs=[output]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_x.ipynb")
    first, second = (
        path.read_text(encoding="utf-8") for path in site.build(tmp_path, tmp_path / "site")
    )
    assert (
        '<a href="notebooks/01_x.html#b">to</a>' in first
        and "setup.cfg" not in first
        and "file" in first
    )
    assert "<script" not in second and "&lt;script&gt;alert(1)&lt;/script&gt; $x$" in second
    assert "<math" in second and "<code>$y$</code>" in second


def test_claims_say_what_the_records_say(tmp_path):
    """The committed page is the generated one; on a small study the verdict is the interval's."""
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims.markdown(ROOT)
    folder = tmp_path / "records" / "toy"
    (folder / "answers").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    shutil.copyfile(ROOT / "docs" / "claims.yaml", tmp_path / "docs" / "claims.yaml")
    assert "| holds |" not in claims.markdown(tmp_path)
    for low, word in ((0.01, "holds"), (-0.1, "undecided at 7 runs")):
        number = {"value": 0.2, "low": low, "high": 0.3, "runs": 7, "unit": "share"}
        records.Record("03_regularizers", {}, {}, {"churn_reduction EMA": number}).write(folder)
        [row] = [line for line in claims.markdown(tmp_path).splitlines() if "(7 runs)" in line]
        assert (
            f"| {word} |" in row and "toy" in row and verdict(None, 0) in claims.markdown(tmp_path)
        )


def test_a_claim_of_clusters_is_held_against_what_shuffled_places_give(tmp_path):
    """Fails if an interval above 0, but not above the shuffles, is a verdict; without these there
    is none.
    """
    folder = tmp_path / "records" / "toy"
    (folder / "answers").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    shutil.copyfile(ROOT / "docs" / "claims.yaml", tmp_path / "docs" / "claims.yaml")
    found = {
        "moran within intents (network)": {
            "value": 0.2,
            "low": 0.1,
            "high": 0.3,
            "runs": 7,
            "unit": "",
        }
    }
    for high, word in (
        (None, "cannot be tested here"),
        (0.05, "holds"),
        (0.15, "undecided at 7 runs"),
    ):
        if high:
            found["chance within intents (network)"] = {
                "value": 0,
                "low": -high,
                "high": high,
                "runs": 7,
                "unit": "",
            }
        records.Record("02_where_it_clusters", {}, {}, found).write(folder)
        [row] = [line for line in claims.markdown(tmp_path).splitlines() if "(7 runs)" in line]
        assert f"| {word} |" in row and f"above {high or 'chance'}" in row


def test_every_claim_names_a_section_that_exists():
    import yaml

    for group in yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text(encoding="utf-8")):
        assert group["rests"] in claims.RESTS
        for claim in group["claims"]:
            notebook = nbformat.read(
                ROOT / "notebooks" / f"{claim['notebook']}.ipynb", as_version=4
            )
            assert any(
                f"## {claim['section']}\n" in cell.source + "\n" for cell in notebook.cells
            ), claim
