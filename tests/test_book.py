"""The book: every page of the project, readable and searchable without network."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml

from stabutils import figures, records
from stabutils.errors import Incomplete
from stabutils.metrics.intervals import Interval
from stabutils.publishing import book, claims, drawing, quotes, results

# Extensions use names that Sphinx 11 will drop; all of them are pinned in requirements.lock.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

ROOT = Path(__file__).resolve().parents[1]
LOADING = {"img", "link", "script", "iframe", "source", "object"}
HOSTILE = "<script>document.title='owned'</script> $x$ <img src=x onerror=alert(1)>"
NO_PAGES = ("_static", "_images", "_downloads")


class Page(HTMLParser):
    """What a page refers to, and the names that others may refer to."""

    def __init__(self, path: Path):
        super().__init__()
        self.references: list[tuple[str, str]] = []  # (tag, where to)
        self.names: set[str] = set()
        self.undescribed: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.names |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name):
                self.references.append((tag, values[name]))
        if tag == "img" and not values.get("alt"):
            self.undescribed.append(values.get("src", ""))


def pages(folder: Path) -> dict[Path, Page]:
    paths = [path for path in folder.rglob("*.html") if path.parts[-2] not in NO_PAGES]
    return {path: Page(path) for path in paths if "_static" not in path.parts}


def dead(site: dict[Path, Page]) -> list[tuple[str, str]]:
    """References between the files of a site that lead nowhere."""
    found = []
    for path, page in site.items():
        for _, reference in page.references:
            if re.match(r"[a-z]+:", reference):
                continue
            place, _, name = unquote(reference).partition("#")
            target = (path.parent / place.split("?")[0]).resolve() if place else path
            known = site[target].names if target in site else set()
            if not target.exists() or name and target in site and name not in known:
                found.append((path.name, reference))
    return found


def from_elsewhere(site: dict[Path, Page]) -> list[tuple[str, str]]:
    """What a page would fetch from the network as it is shown."""
    return [
        (path.name, reference)
        for path, page in site.items()
        for tag, reference in page.references
        if tag in LOADING and re.match(r"(https?:)?//", reference)
    ]


def project(root: Path, article: str = "# Front\n\nWords.\n") -> Path:
    """A project with a front page, for the real settings of the book."""
    for folder in ("docs", "notebooks", "records/toy"):
        (root / folder).mkdir(parents=True)
    shutil.copyfile(ROOT / "docs" / "conf.py", root / "docs" / "conf.py")
    for folder in ("_static", "_templates"):
        shutil.copytree(ROOT / "docs" / folder, root / "docs" / folder)
    (root / "docs" / "article.md").write_text(article, encoding="utf-8")
    return root


def notebook(path: Path, *cells) -> None:
    content = nbformat.v4.new_notebook(cells=list(cells))
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    content.metadata["language_info"] = {"name": "python"}
    nbformat.write(content, path)


def test_texts_of_data_stay_texts_and_formulas_are_drawn(tmp_path):
    article = (
        "# Front\n\nQuoted:\n<!--toy/01: churn in %-->9.7 %<!--end--> of *all*.\n\n"
        "[numbers](../records/toy/01_x.ipynb#what-we-found) [data](../data.csv)\n\n"
        "8 [5.5, 13.9] `5 % 2` [7, 8, 9]\n"
    )
    root = project(tmp_path, article)
    (root / "data.csv").write_text("a\n", encoding="utf-8")
    plain = nbformat.v4.new_output("stream", text=HOSTILE)
    caption = nbformat.v4.new_output("display_data", {"text/markdown": r"*5 \$ \<b\>*"})
    board = nbformat.v4.new_output(
        "display_data", {"text/html": "<table><td>6 % [-1, 2]<td>&lt; 0.001</table>"}
    )
    notebook(
        root / "records" / "toy" / "01_x.ipynb",
        nbformat.v4.new_markdown_cell("# How much?\n\nof $\\hat p$ `$y$`\n\n## What we found"),
        nbformat.v4.new_code_cell("1 < 2", outputs=[plain, caption, board]),
    )
    front = book.build(root, root / "site")
    site = pages(root / "site")
    assert front in site and 'url=docs/article.html"' in site[front].text
    assert dead(site) == [] and from_elsewhere(site) == []
    article, numbers = (
        site[root / "site" / name].text for name in ("docs/article.html", "records/toy/01_x.html")
    )
    assert (
        "<p>Quoted:\n9.7\N{NO-BREAK SPACE}% of <em>all</em>.</p>" in article
        and "toy/01:" not in article
    )
    assert (
        "<p>8 [5.5,\N{NO-BREAK SPACE}13.9] <code" in article
        and "[7, 8,\N{NO-BREAK SPACE}9]" in article
    )
    assert [re.sub("<.*?>", "", code) for code in re.findall("<code.*?</code>", article)] == [
        "5 % 2"
    ]
    assert "Results of toy, compact" in article and ">01 x · toy, compact</a>" in article
    assert "<title>How much? · toy, compact" in numbers and "onerror=alert(1)&gt;" in numbers
    assert "<script>document" not in numbers and "5 $ &lt;b&gt;" in numbers
    assert "<math" in numbers and '<span class="pre">$y$</span>' in numbers
    assert (
        "<td>6\N{NO-BREAK SPACE}% [-1,\N{NO-BREAK SPACE}2]<td>&lt;\N{NO-BREAK SPACE}0.001</table>"
        in numbers
    )
    folded = re.search(r"<details[^>]*hide.*?</details>", numbers, re.S)[0]
    assert "&lt;" in folded and "onerror" not in folded  # the code is folded, its output is not


def test_a_dead_link_stops_the_build_and_leaves_the_old_book(tmp_path, capfd):
    root = project(tmp_path, "# Front\n\n[gone](gone.md)\n")
    (root / "site").mkdir()
    with pytest.raises(Incomplete, match="not built"):
        book.build(root, root / "site")
    assert "gone.md" in capfd.readouterr().err and list((root / "site").iterdir()) == []


def test_every_page_is_in_the_contents_once(tmp_path):
    root = project(tmp_path)
    for folder in ("exercises", "solutions"):
        (root / "course" / folder).mkdir(parents=True)
    for name in ("README", "course/README", "docs/how_do_i", "docs/claims", "docs/glossary"):
        (root / f"{name}.md").write_text("# A\n", encoding="utf-8")
    for name in ("notebooks/01_a", "course/exercises/01_a", "course/solutions/01_a"):
        notebook(root / f"{name}.ipynb")
    notebook(root / "records/toy/01_a.ipynb")
    contents = book.contents(root, "docs/article")
    entries = re.findall(r"^(?:.* <)?/([\w/]+)>?$", contents, re.M)
    captions = re.findall(r":caption: (.*)", contents)
    course = ["course/README", "course/exercises/01_a", "course/solutions/01_a"]
    expected = ["README", "docs/claims", "notebooks/01_a", *course, "records/toy/01_a"]
    assert entries == [*expected, "docs/how_do_i", "docs/glossary"]
    parts = ["Course", "Course: exercises", "Course: solutions", "Results of toy, compact"]
    assert captions == ["Start", "Results", "Notebooks", *parts, "How to"]
    titles = re.findall(r"^(.*) <", contents, re.M)
    assert len(set(titles)) == len(titles) and titles[2:5] == [
        "A course for a class",
        "01 a · exercise",
        "01 a · solution",
    ]


def test_what_students_hand_in_is_not_published(tmp_path):
    root = project(tmp_path)
    for name in ("exercises/01_a", "solutions/01_a", "exercises/01_a_smith", "handed_in/01_a"):
        path = root / "course" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook(path, nbformat.v4.new_markdown_cell("# Exercises 01 · A"))
    book.build(root, root / "site")
    course = root / "site" / "course"
    published = sorted(path.relative_to(course).as_posix() for path in course.rglob("*.html"))
    assert published == ["exercises/01_a.html", "solutions/01_a.html"]
    site = pages(root / "site")
    assert not [path for path, page in site.items() if "smith" in page.text]
    assert "smith" not in (root / "site" / "searchindex.js").read_text(encoding="utf-8")
    assert "<title>Exercises 01 · A" in site[course / "exercises/01_a.html"].text
    assert "<title>Solution 01 · A" in site[course / "solutions/01_a.html"].text


def test_only_published_notebooks_are_folded():
    cells = [
        nbformat.v4.new_markdown_cell("# A\n<!-- no -->\n# B"),
        nbformat.v4.new_code_cell("1"),
        nbformat.v4.new_code_cell("2", metadata={"tags": ["hide-cell"]}),
    ]
    text = json.dumps(nbformat.v4.new_notebook(cells=cells))
    published = json.loads(book.prepared(text, "records/massive/01_a"))["cells"]
    own = json.loads(book.prepared(text, "notebooks/01_a"))["cells"]
    assert (
        published[0]["source"] == "# A · massive, compact\n\n# B"
        and own[0]["source"] == "# A\n\n# B"
    )
    tags = [cell["metadata"].get("tags") for cell in published]
    assert tags == [None, ["hide-input"], ["remove-cell"]]
    assert [cell["metadata"].get("tags") for cell in own] == [None, None, ["hide-cell"]]


@pytest.mark.slow
def test_the_book_is_whole(tmp_path, capfd):
    """Built of the whole project without a warning; no link is dead, nothing needs a network."""
    front = book.build(ROOT, tmp_path / "site")
    site = pages(tmp_path / "site")
    names = {path.relative_to(tmp_path / "site").as_posix() for path in site}
    sources = [*ROOT.glob("docs/*.md"), *ROOT.glob("records/*/[0-9]*.ipynb"), ROOT / "README.md"]
    expected = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in sources}
    assert front in site and expected <= names
    assert dead(site) == [] and from_elsewhere(site) == []
    assert [page.undescribed for page in site.values() if page.undescribed] == []
    reference = (tmp_path / "site/docs/reference").glob("*.html")
    defined = set().union(*(site[path].names for path in reference))
    assert {"stabutils.Study", "stabutils.report", "stabutils.metrics.churn"} <= defined
    assert {"stabutils.Recorder", "stabutils.mitigations.regularizers.RDrop"} <= defined
    index = (tmp_path / "site" / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(") and '"churn"' in index


# ---- the article


def test_the_article_has_no_number_of_its_own():
    """Figures are numbered, papers have years, corpora names; every result is quoted."""
    article = (ROOT / "docs" / "article.md").read_text(encoding="utf-8")
    kept = quotes.QUOTE.sub("", article)
    kept = re.sub(
        r"!\[.*?\]\(.*?\)|\]\(.*?\)|^\d\. |Figure \d|\(2023\)|CLINC150|BANKING77",
        "",
        kept,
        flags=re.M,
    )
    assert set(re.findall(r"\d+(?:\.\d+)?", kept)) <= {"95", "0.5", "0", "1"}  # of definitions
    assert len(quotes.QUOTE.findall(article)) >= 20
    assert not re.search(r"^<!--", article, re.M)  # a line that begins so is HTML in Markdown


def test_the_article_has_seven_figures_with_captions_of_about_1500_words():
    article = (ROOT / "docs" / "article.md").read_text(encoding="utf-8")
    captions = re.findall(r"^!\[[^\]]+\]\(\S+\)\n\n\*Figure (\d)\. [^*]+\*$", article, re.M)
    assert captions == list("1234567") and "```" not in article
    prose = re.sub(r"!\[.*?\]\(.*?\)", "", quotes.QUOTE.sub("number", article))
    assert 1300 <= len(prose.split()) <= 1700


def number(metric: str, value: float, arm: str, condition: str = "") -> records.Number:
    return records.number(metric, Interval(value, value - 0.01, value + 0.01, 6), arm, condition)


def test_its_figures_are_drawn_from_records_alone(tmp_path):
    folder = tmp_path / "toy"
    scores = number("auroc", 0.9, "margin"), number("auroc", 0.95, "uncertainty")
    planted = number("auroc", 0.99, "label entropy", "noise:strong")
    records.Record("01_measuring_instability", {}, {}, (*scores, planted), ()).write(folder)
    conflict = number("correlation", 0.5, "conflict")
    records.Record("02_where_it_clusters", {}, {}, (conflict,), ()).write(folder)
    parts = {"seed_churn": 0.1, "data_churn": 0.09, "update_churn": 0.13}
    found = [number("churn", value, "control", f"{part}, drop") for part, value in parts.items()]
    found += [number("churn", 0.04, "linear (TF-IDF)", "drop"), number("churn", 0.13, "R", "drop")]
    records.Record("07_updates", {"change": "drop"}, {}, tuple(found), ()).write(folder)
    assert list(drawing._by_arm(folder, "01", "auroc")) == ["uncertainty", "margin"]
    [record] = results.records_of(folder, "07")
    churns = drawing._churns(record).set_index("arm")
    assert churns.index.tolist() == ["control, drop", "linear (TF-IDF), drop"]
    assert churns.update_churn["control, drop"].value == 0.13
    assert churns.data_churn["linear (TF-IDF), drop"].value == 0.04
    plots = drawing._of_numbers(folder)
    assert sorted(plots) == ["attributes", "one-run"]
    names = [label.get_text() for label in plots["attributes"].axes[0].get_yticklabels()]
    assert names == ["labels of the nearest training texts disagree"]
    assert figures.four_churns(churns.reset_index()).axes


def test_the_movable_figure_has_the_mixtures_and_ensembles_of_the_records(tmp_path):
    folder = tmp_path / "records" / "toy"
    mixtures = [
        number(metric, value, kind, condition)
        for condition, churn, accuracy in (("weight 0", 0.1, 0.8), ("weight 1", 0.0, 0.7))
        for metric, value in (("churn", churn), ("accuracy", accuracy))
        for kind in ("geometric", "arithmetic")
    ]
    elsewhere = number("churn", 0.5, "anchored", "linear model wrong")
    records.Record("06_anchored", {}, {}, (*mixtures, elsewhere), ()).write(folder)
    found = number("churn", 0.04, "ensemble of 2"), number("accuracy", 0.82, "ensemble of 2")
    others = number("churn", 0.1, "control"), number("churn", 0.02, "ensemble of 3")
    records.Record("05_ensembles", {}, {}, (*found, *others), ()).write(folder)
    weights = book.weights(tmp_path)["toy"]
    assert [point["name"] for point in weights["curve"]] == ["weight 0", "weight 1"]
    assert weights["curve"][0]["churn"] == pytest.approx([0.1, 0.09, 0.11])
    assert weights["curve"][1]["accuracy"][0] == 0.7
    assert [point["name"] for point in weights["others"]] == ["ensemble of 2"]
    assert json.loads(json.dumps(book.weights(ROOT)))["massive"]["curve"][0]["name"] == "weight 0"


# ---- claims


def test_claims_say_what_the_records_say(tmp_path):
    """A verdict is the record's, on the page and in the figure."""
    folder = tmp_path / "records" / "toy"
    (folder / "answers").mkdir(parents=True)
    assert "**holds**" not in claims.markdown(tmp_path)
    definition = next(each for each in records.definitions() if each.name == "EMA helps")
    found = records.Claim("EMA helps", "EMA: 0.2", 0.2, 0.1, 0.3, "holds")
    records.Record(definition.notebook, {}, {}, (), (found,)).write(folder)
    [row] = [line for line in claims.markdown(tmp_path).splitlines() if "**holds**" in line]
    assert "20.0 %<br>[10.0, 30.0]" in row and "exponential average" in row
    assert "| above 0 |" in row and "– |" not in row  # one corpus, and there it was measured
    assert "- Two retrainings disagree on … of the queries. ([01]" in claims.markdown(tmp_path)
    table = claims.verdicts(tmp_path)
    found = table["toy · compact"]
    assert found["EMA helps (Morales-Brotons 2024)"] == "holds" and (found == "").sum() > 10
    assert not [name for name in table.index if "This study" in name]
    [axis] = figures.verdicts(table).axes
    marks = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    place = table.index.get_loc("EMA helps (Morales-Brotons 2024)")
    assert marks == {"holds": [[0, place]], "does not hold": [], "undecided": []}


def test_a_claim_stands_as_its_own_notebook_found_it(tmp_path):
    """Another notebook may have measured the same number, of fewer runs."""
    folder = tmp_path / "records" / "toy"
    (folder / "answers").mkdir(parents=True)
    for notebook, value in (("04_data_centric", 0.2), ("05_ensembles", 0.3)):
        found = (number("reduction", value, "TGTSS"),)
        records.Record(notebook, {}, {}, found, ()).write(folder)
    [row] = [line for line in claims.markdown(tmp_path).splitlines() if "**holds**" in line]
    assert "20.0 %<br>[19.0, 21.0]" in row


def test_the_committed_page_of_claims_is_the_generated_one():
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims.markdown(ROOT)


def test_every_claim_names_a_notebook_that_judges_it():
    path = ROOT / "stabutils" / "claims.yaml"
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        for claim in group["claims"]:
            notebook = ROOT / "notebooks" / f"{claim['notebook']}.ipynb"
            assert notebook.is_file() and "records.judged" in notebook.read_text(encoding="utf-8")
