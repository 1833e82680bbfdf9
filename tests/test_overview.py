from __future__ import annotations

import base64
import math

import nbformat
from nbformat import v4

from stabutils.metrics.intervals import Interval
from stabutils.publishing.overview import overview
from stabutils.records import Record, claim

NAMES = ("01_part", "02_part", "03_part")
PIXEL = base64.b64encode(b"a picture").decode() + "\n"


def notebook(folder, number, captions, claims=(), page=True):
    shown = [
        v4.new_output("display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": words}})
        for words in captions
    ]
    shown.append(v4.new_output("display_data", {"image/png": PIXEL}))  # no caption: no finding
    cells = [
        v4.new_markdown_cell(f"# {number} · Why & how?\n\nOne *seed*,\n[two](x.ipynb) `answers`."),
        v4.new_code_cell("show()", outputs=shown),
    ]
    nbformat.write(v4.new_notebook(cells=cells), folder / f"{number}_part.ipynb")
    Record(f"{number}_part", {}, {}, (), tuple(claims)).write(folder)
    if page:
        (folder / f"{number}_part.html").write_text("the page", encoding="utf-8")


def test_it_shows_the_first_figure_what_the_others_say_and_the_verdicts(tmp_path):
    held = claim("flips", "It flips {value}.", Interval(0.2, 0.1, 0.3, runs=5), 0.05)
    unmeasured = claim("other", "Nothing says {value}.", None, 0.05)
    assert math.isnan(unmeasured.value)
    notebook(tmp_path, "02", ["second"], [held, unmeasured])
    notebook(tmp_path, "01", ["first <script>", "beside", "below"])
    notebook(tmp_path, "03", ["never shown"], page=False)
    notebook(tmp_path, "04", ["of somebody else"])
    page = overview(tmp_path, NAMES).read_text(encoding="utf-8")
    assert page.index('href="01_part.html"') < page.index('href="02_part.html"')
    assert page.count("<img") == 2 and page.count(f"base64,{PIXEL.strip()}") == 2
    assert "first &lt;script&gt;" in page and "<script>" not in page
    assert "<li>beside</li>" in page and "<li>below</li>" in page
    assert "Why &amp; how?" in page and "<p>One seed, two answers.</p>" in page
    assert "It flips 0.200 [0.100, 0.300] (5 runs)." in page and "<td>holds</td>" in page
    assert "Nothing says" not in page and "03_part" not in page
    assert "somebody else" not in page


def test_a_folder_without_pages_has_an_empty_overview(tmp_path):
    assert "<section>" not in overview(tmp_path, NAMES).read_text(encoding="utf-8")
