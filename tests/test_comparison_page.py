from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import stabutils as st
from stabutils.__main__ import main

TEXTS = ["<script>alert(1)</script>", "two", "three", "four"]
GOLD = ["yes", "no", "yes", "no"]
BEFORE = [["yes", "no", "no", "no"], ["yes", "no", "no", "yes"]]
AFTER = [["no", "no", "yes", "no"], ["no", "no", "yes", "no"]]


def table(runs, gold=True):
    rows = []
    for run, answers in enumerate(runs):
        for example, (text, label, right) in enumerate(zip(TEXTS, answers, GOLD, strict=True)):
            row = {"run": run, "example": example, "text": text, "label": label}
            rows.append({**row, "gold": right} if gold else row)
    return pd.DataFrame(rows)


def page(tmp_path, before, after, gold=True):
    sides = []
    for name, runs in (("before", before), ("after", after)):
        path = tmp_path / f"{name}.csv"
        table(runs, gold).to_csv(path, index=False)
        sides.append(st.read_predictions(path, least=1))
    st.compare(*sides).to_html(tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_it_says_what_changes_and_shows_what_got_worse_first(tmp_path):
    found = page(tmp_path, BEFORE, AFTER)
    assert "<h1>62.5 % of the queries get another answer than before</h1>" in found  # 10 of 16
    assert "3 of 4 queries are answered differently" in found
    assert "<script>" not in found and "&lt;script&gt;alert(1)" in found
    places = [found.index(f"#{example}</span>") for example in (0, 2, 3)]
    assert places == sorted(places) and "#1</span>" not in found
    assert found.count('class="answer right"') == 4  # query 0 before, 2 after, 3 before and after
    assert "<td>100.0 %</td>" in found and "<td>50.0 %</td>" in found
    assert "After is more stable: " in found and found.count("<img alt=") == 2
    assert "Negative flips" in found and "<th>gold</th>" in found and "The gate" not in found
    assert "<td>Churn, both wrong</td>" in found and "(these two models only)" in found
    assert found.count("long form, 2 runs x 4 examples") == 2


def test_without_gold_labels_nothing_is_said_of_right_and_wrong(tmp_path):
    found = page(tmp_path, BEFORE, AFTER, gold=False)
    assert "62.5 % of the queries" in found and "<th>gold</th>" not in found
    assert "answer right" not in found and "flips" not in found.split("<h2>")[0]


def test_where_nothing_changes_no_query_is_shown(tmp_path):
    found = page(tmp_path, BEFORE[:1], BEFORE[:1])
    assert "<h1>0.0 % of the queries" in found and "No query gets another answer." in found


def test_more_queries_than_a_page_shows_are_counted(tmp_path):
    before = np.tile(np.arange(300) % 3, (2, 1))
    after = np.where(np.arange(300) < 60, (before + 1) % 3, before)
    st.compare(before, after).to_html(tmp_path / "page.html")
    found = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert found.count("<td>100.0 %</td>") == 50 and "\n10 more are not shown" in found


@pytest.mark.parametrize("checks", [[], ["--fail-on", "negative-flips"]])
def test_the_command_writes_it_with_its_checks(tmp_path, capsys, checks):
    paths = []
    for name, runs in (("before", BEFORE), ("after", AFTER)):
        table(runs).to_csv(tmp_path / f"{name}.csv", index=False)
        paths.append(str(tmp_path / f"{name}.csv"))
    output = tmp_path / "release.html"
    main(["compare", *paths, *checks, "-o", str(output)])
    said, found = capsys.readouterr().out, output.read_text(encoding="utf-8")
    assert ("The gate" in found) == bool(checks)
    if checks:
        outcome = said.splitlines()[-1].removeprefix("negative-flips: ")
        assert f"<td>{outcome}</td>" in found


def test_strict_without_a_gate_is_refused_before_anything_is_said(tmp_path, capsys):
    paths = []
    for name, runs in (("before", BEFORE), ("after", AFTER)):
        table(runs).to_csv(tmp_path / f"{name}.csv", index=False)
        paths.append(str(tmp_path / f"{name}.csv"))
    output = tmp_path / "release.html"
    assert main(["compare", *paths, "--strict", "-o", str(output)]) == 2
    assert not output.exists() and capsys.readouterr().out == ""
