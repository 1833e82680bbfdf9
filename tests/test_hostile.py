"""Texts, labels and names that would like to be something else: script, formula, mathematics, path,
code.
"""

from __future__ import annotations

import ast
import csv
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from stabutils import __main__ as main
from stabutils import figures, records
from stabutils.metrics import churn, label_entropy
from stabutils.metrics.intervals import jackknife
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.publishing import notebooks, pages
from stabutils.reports.stability import escape_formula, report
from stabutils.study import paths
from stabutils.study.study import Study
from stabutils.training import preparation
from stabutils.training.files import slug
from stabutils.training.state import Seeds

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'><svg onload=document.title='owned'>",
    "<!--<script>document.title='owned'//-->",
    "</title></style></pre></textarea><script>document.title='owned'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\">",
    "[x](javascript:document.title='owned')",
    "{{ self }}{% raw %}",
    "&lt;script&gt;document.title='owned'",
    "</svg><script>document.title='owned'</script>",
    "\u2028<script>document.title='owned'</script>",
)
FORMULAS = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1+1",
    '=HYPERLINK("http://x";"y")',
)
MATHS = (
    "costs $5",
    "$x$",
    "$\\frac{$",
    "$$",
    "\\$x$",
    "a $ b $ c $ d",
    "$\\href{javascript:1}{x}$",
    "_^{}\\",
    "\\$\\$",
)
HOSTILE = SCRIPTS + FORMULAS + MATHS
LABELS = np.arange(3 * len(HOSTILE)).reshape(3, -1) % len(
    HOSTILE
)  # every label, every query of three minds
GOLD = np.arange(len(HOSTILE))


# ---- no script runs


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def title_in_browser(page: Path, folder: Path) -> str:
    """The title of a page once its scripts have run."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        page.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120).stdout
    return re.search(r"<title>(.*?)</title>", dom, re.S)[1]


def test_the_browser_would_run_a_script_of_the_data_if_it_were_one(tmp_path):
    for n, script in enumerate((SCRIPTS[0], SCRIPTS[1], SCRIPTS[2])):
        page = tmp_path / f"{n}.html"
        page.write_text(f'<title>calm</title><p title="{script}">{script}</p>', encoding="utf-8")
        assert title_in_browser(page, tmp_path) == "owned"


def test_a_report_runs_no_script_of_the_data(tmp_path):
    found = report(LABELS, GOLD, texts=HOSTILE, label_names=HOSTILE, examples=HOSTILE)
    page = found.to_html(tmp_path / "report.html", source=HOSTILE[0])
    assert title_in_browser(page, tmp_path).startswith("Stability of &lt;script&gt;")
    content = page.read_text(encoding="utf-8")
    assert "tex2jax_ignore" in content and "<script" not in content and "<iframe" not in content


def test_an_executed_notebook_runs_no_script_of_the_data(tmp_path):
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    parameters = nbformat.v4.new_code_cell('output: str = ""', metadata={"tags": ["parameters"]})
    shown = nbformat.v4.new_code_cell(f"""
import numpy as np, pandas as pd, stabutils as st
from stabutils import figures
hostile = {HOSTILE!r}
labels, gold = np.arange({LABELS.size}).reshape(3, -1) % len(hostile), np.arange(len(hostile))
display(figures.table(pd.DataFrame([hostile], columns=hostile)))
display(st.report(labels, gold, texts=hostile, label_names=hostile))
figures.show(figures.answers(labels, gold, hostile), "answers", hostile[1])
print(*hostile, output)""")
    notebook.cells = [parameters, shown]
    nbformat.write(notebook, tmp_path / "in.ipynb")
    notebooks.execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {"output": SCRIPTS[3]})
    outputs = nbformat.read(tmp_path / "out.ipynb", 4).cells[2].outputs
    assert [output.output_type for output in outputs].count("display_data") == 4
    page = pages.write(tmp_path / "out.ipynb")
    assert "owned" in page.read_text(encoding="utf-8") and title_in_browser(page, tmp_path) == "out"


def test_a_page_of_a_notebook_needs_nothing_beside_it_and_no_network(tmp_path):
    source = next((main.project_root() / "notebooks").glob("01*.ipynb"))
    body = pages.write(Path(shutil.copy(source, tmp_path))).read_text(encoding="utf-8")
    assert "<script" not in body and not re.search(r'<(link|img|iframe)[^>]*"https?:', body)
    assert (
        re.search(r'<img[^>]*alt="Real test queries', body)
        and 'src="data:image/png;base64,' in body
    )
    assert 'alt="Of 654 test queries, ' in body and "<math" in body
    assert re.search(r"<(munder|msub|munderover)><mo>(∑|&#x02211;)</mo>", body)
    assert not re.search(r'(src|href)="(\.\./|[\w/]+\.(md|ipynb|css))', body)


def test_a_table_escapes_cells_and_columns_and_is_no_mathematics():
    page = figures.table(pd.DataFrame([HOSTILE], columns=HOSTILE)).to_html()
    assert page.count("&lt;script&gt;document") >= 10 and not re.search(
        "<(script|img|svg|iframe)", page
    )
    assert re.search(r'<table[^>]*class="tex2jax_ignore mathjax_ignore"', page)


def test_a_claim_takes_braces_for_text():
    made = records.claim("x", "On {0}{value.__class__}{: {value}.", jackknife(churn, LABELS), 0.5)
    assert made.sentence.startswith("On {0}{value.__class__}{: ") and "runs)" in made.sentence


# ---- no text is a formula of a spreadsheet


def cells(path: Path) -> list[str]:
    with open(path, encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_tables_for_spreadsheets_hold_no_formula(tmp_path):
    found = report(LABELS, GOLD, texts=HOSTILE, label_names=HOSTILE, examples=HOSTILE)
    read = cells(found.to_csv(tmp_path / "queries.csv"))
    assert not [cell for cell in read if escape_formula(cell) != cell] and "'" + FORMULAS[0] in read


def test_published_queries_hold_no_formula(tmp_path, monkeypatch):
    corpus = tmp_path / "mine.csv"
    with open(tiny.write_csv(tmp_path / "tiny.csv"), encoding="utf-8", newline="") as file:
        rows = [
            [f"={text}", f"@{label}", split] for text, label, split in list(csv.reader(file))[1:]
        ]
    with open(corpus, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "label", "split"], *rows])
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setenv("STABUTILS_RESULTS", str(tmp_path / "results"))

    def execute(source, target, values):
        """What publishing needs of a notebook that has run: itself, and its record."""
        records.Record(source.stem, values, {}).write(target.parent)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(notebooks, "execute", execute)
    given = [
        "-p",
        "dataset",
        str(corpus),
        "-p",
        "runs",
        "3",
        "-p",
        "epochs",
        "4",
        "-p",
        "workers",
        "1",
    ]
    assert main.main(["publish", "01", *given]) == 0
    read = cells(tmp_path / "records" / "mine" / "queries.csv")
    assert not [cell for cell in read if escape_formula(cell) != cell]
    assert [cell for cell in read if cell.startswith("'=")] and [
        cell for cell in read if cell.startswith("'@")
    ]


# ---- no text is mathematics to matplotlib


@pytest.mark.filterwarnings("ignore:Glyph")  # of scripts that the font lacks
def test_figures_draw_any_text_as_it_stands():
    figures.style()
    interval = jackknife(churn, LABELS)
    drawn = [
        figures.answers(LABELS[:, rows], GOLD[rows], [HOSTILE[i] for i in rows])
        for rows in np.array_split(GOLD, 4)
    ]
    drawn += [
        figures.intervals(dict.fromkeys(HOSTILE, interval), "churn"),
        figures.instability_map(
            np.random.default_rng(0).random((len(GOLD), 2)),
            label_entropy(LABELS),
            GOLD - 1,
            HOSTILE[1:],
            np.zeros((2, 2)),
            HOSTILE[:2],
        ),
    ]
    for figure in drawn:
        texts = [text for axis in figure.axes for text in axis.texts + axis.get_yticklabels()]
        assert not [text for text in texts if text._preprocess_math(text.get_text())[1]]
        figure.canvas.draw()
    plt.close("all")


# ---- no name is a path

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.I)
PATHS = (
    "..",
    "../../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "con",
    "NUL.csv",
    "aux.tar.gz",
    "com1",
    "",
    ".",
    "-",
    "a" * 300,
    "a\0b",
    "~root",
    "$HOME",
    "a\nb",
    "é",
    "a.",
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.sampled_from(PATHS), st.text(), st.text("./\\cCoOnN:~-\0 "), st.from_regex(RESERVED)
    )
)
def test_any_name_becomes_part_of_a_file_name_everywhere(name):
    made = slug(name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", made) and len(made) <= 80
    assert not RESERVED.fullmatch(made)


def test_names_of_datasets_models_and_arms_stay_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STABUTILS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(preparation, "prepare", tiny.prepare)
    for name in (".. .csv", "con.csv", "-.csv", "$HOME.csv", "é.csv", "a'b;c&d.csv"):
        made = Study(dataset=str(tiny.write_csv(tmp_path / name)), model="../../../x", epochs=1)
        run = made.identify(LabelSmoothing(0.1), Seeds(0, 0, 0))
        for path, folder in (
            (made.answers.store.path(run.name), tmp_path / "runs"),
            (made.answers.store.partial(run.name), tmp_path / "runs" / "unfinished"),
            (made.output(), tmp_path / "results"),
        ):
            assert path.resolve().parent == folder and not RESERVED.fullmatch(path.name)
        arm = "../../../arm/../.."
        published = paths.published_answers(made.records, made.model, arm)
        assert (
            published.resolve().parents[2] == tmp_path / "records"
            and published.parent.name == "answers"
        )
        assert not RESERVED.fullmatch(published.parents[1].name)


# ---- no value is code


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.text(),
        st.text("\"'\\\n\r\0{}();#\u2028"),
        st.integers(),
        st.booleans(),
        st.none(),
        st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_an_injected_parameter_is_one_plain_value(value):
    from papermill.translators import PythonTranslator

    (line,) = (node for node in ast.parse(PythonTranslator.codify({"output": value})).body)
    assert isinstance(line, ast.Assign) and [target.id for target in line.targets] == ["output"]
    read = ast.literal_eval(line.value)
    assert read == value and type(read) is type(value)


def runs_code(source: str) -> list[str]:
    """What could turn a text of the data into code or a command.

    >>> runs_code("eval(x); yaml.load(f); subprocess.run(c, shell=True); archive.extractall(); os.system(c)")
    ['eval', 'yaml.load', 'shell', 'archive.extractall', 'os.system']
    >>> runs_code("model.eval(); yaml.safe_load(f); subprocess.run([c]); re.compile(x); ast.literal_eval(x)")
    []
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            careless = re.fullmatch(
                r"eval|exec|compile|__import__|yaml\.(unsafe_|full_)?load|os\.(system|popen)"
                r"|.*\.(extractall|extract)|tempfile\.mktemp|.*\.df\.eval|.*\.query",
                called,
            )
            found += [called] if careless else []
            found += [k.arg for k in node.keywords if k.arg == "shell"]
    return found


def test_the_package_makes_no_code_of_data():
    sources = {
        path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("stabutils/**/*.py")
    }
    assert {name: found for name, source in sources.items() if (found := runs_code(source))} == {}
