"""Records: what stands in the file comes back, keys are unique, verdicts follow their intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stabutils import records
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval, from_variance, runs_and_queries
from stabutils.records import (
    Claim,
    Definition,
    Number,
    Record,
    claim,
    judged,
    number,
    price,
    read,
    shown,
    table,
)

CHURN = Interval(0.2, 0.1, 0.3, runs=5)
BOTH = runs_and_queries(
    from_variance(0.9, 0.01**2, 4, runs=5), from_variance(0.9, 0.02**2, 99, runs=5)
).within(0, 1)


@pytest.mark.parametrize(
    "interval, threshold, direction, verdict",
    [
        (CHURN, 0.05, "above", "holds"),
        (CHURN, 0.5, "above", "does not hold"),
        (CHURN, 0.2, "above", "undecided at 5 runs"),
        (CHURN, 0.2, "below", "undecided at 5 runs"),
        (CHURN, 0.5, "below", "holds"),
        (CHURN, 0.05, "below", "does not hold"),
        (None, 0.2, "above", "cannot be tested here"),
        (Interval(0.2, math.nan, math.nan, runs=1), 0.2, "above", "cannot be tested here"),
    ],
)
def test_a_claim_says_what_its_interval_says(interval, threshold, direction, verdict):
    assert claim("churn", "Churn is {value}.", interval, threshold, direction).verdict == verdict


def test_a_claim_tells_its_number():
    made = claim("churn", "Churn is {value}.", CHURN, 0.05)
    assert made == Claim("churn", "Churn is 0.200 [0.100, 0.300] (5 runs).", 0.2, 0.1, 0.3, "holds")
    untested = claim("churn", "Churn is {value}.", None, 0.05)
    assert untested.sentence == "Churn is …." and math.isnan(untested.value)


def record(**changes) -> Record:
    return Record(
        **{
            "notebook": "01_measuring",
            "parameters": {"dataset": "tiny", "model": "compact", "runs": 5},
            "provenance": {"commit": None},
            "claims": (claim("churn", "Größer: {value}", CHURN, 0.05),),
            "numbers": (
                number("churn", CHURN),
                number("accuracy", BOTH, arm="R-Drop", condition="planted"),
                number("label_entropy", BOTH, n=5, behind="5 ensembles of 50 runs"),
                price("trainings", 3, arm="R-Drop"),
            ),
        }
        | changes
    )


def test_a_record_comes_back_as_it_was(tmp_path):
    path = record().write(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "01_measuring.json"
    assert read(path) == record(numbers=tuple(map(known, record().numbers)))
    text = path.read_bytes()
    assert "Größer".encode() in text and b"\r" not in text and text.endswith(b"}\n")
    assert record().write(tmp_path / "again").read_bytes() == text
    assert read(path).write(tmp_path / "once more").read_bytes() == text


def known(each: Number) -> Number:
    """What is not a number is not there."""
    gone = {name: None for name in ("se", "df") if getattr(each, name) != getattr(each, name)}
    return Number(**vars(each) | gone)


def test_what_lies_in_the_file(tmp_path):
    content = json.loads(record().write(tmp_path).read_text(encoding="utf-8"))
    churn, accuracy, entropy, trainings = content["numbers"]
    assert churn == {
        "metric": "churn",
        "unit": "share of queries",
        "value": 0.2,
        "low": 0.1,
        "high": 0.3,
        "runs": 5,
    }
    assert (accuracy["arm"], accuracy["condition"]) == ("R-Drop", "planted")
    assert (accuracy["se"], accuracy["df"]) == (BOTH.se, BOTH.df)
    assert accuracy["over_runs"] == [BOTH.over_runs.low, BOTH.over_runs.high]
    assert (entropy["n"], entropy["behind"]) == (5, "5 ensembles of 50 runs")
    assert trainings == {
        "metric": "trainings",
        "unit": "of control's",
        "value": 3.0,
        "arm": "R-Drop",
    }
    assert content["claims"][0].keys() == {"name", "sentence", "value", "low", "high", "verdict"}
    assert content.keys() == {"notebook", "parameters", "provenance", "numbers", "claims"}


def test_anyone_can_test_again_from_the_file(tmp_path):
    back = read(record().write(tmp_path))["accuracy, R-Drop; planted"].interval
    assert (back.value, back.low, back.high) == (BOTH.value, BOTH.low, BOTH.high)
    assert back.p_value(0.85) == BOTH.p_value(0.85) and back.runs == 5
    assert back.speaks_of == "new runs and new queries"
    assert back.over_runs.low == BOTH.over_runs.low


@pytest.mark.parametrize("fields, key", [
    ({}, "churn"),
    ({"arm": "EMA"}, "churn, EMA"),
    ({"condition": "planted"}, "churn; planted"),
    ({"arm": "EMA", "condition": "planted", "n": 5}, "churn, EMA; planted"),
])  # fmt: skip
def test_a_number_is_named_by_metric_arm_and_condition(fields, key):
    each = number("churn", CHURN, **fields)
    assert each.key == key
    found = record(numbers=(number("churn", BOTH, arm="other"), each))
    assert found[key] == each


def test_a_record_has_each_number_once_and_says_what_it_lacks():
    twice = (number("churn", CHURN, arm="EMA"), number("churn", BOTH, arm="EMA"))
    with pytest.raises(InputError, match="numbers of a record: got 'churn, EMA'; expected each"):
        record(numbers=twice)
    assert (
        len(record(numbers=(number("churn", CHURN, n=2), number("churn", CHURN, n=5))).numbers) == 2
    )
    with pytest.raises(InputError, match="number of 01_measuring: got 'kappa'; expected one that"):
        record()["kappa"]
    assert [each.arm for each in record().of("accuracy")] == ["R-Drop"] and not record().of("ece")


def test_a_number_needs_a_unit():
    assert number("auroc", CHURN, condition="rare:strong").unit == "0.5 is blind, 1 perfect"
    assert number("label_entropy", CHURN, n=5).unit == "nats"
    with pytest.raises(InputError, match="metric of a number: got 'chrun'; expected one of abst"):
        number("chrun", CHURN)


def test_a_price_has_no_interval_and_a_missing_end_is_no_price():
    exact = price("passes", 5, arm="ensemble of 5")
    assert (exact.interval.low, exact.interval.high) == (5, 5) and shown(exact) == "5.000"
    unknown = Number("churn", 0.2, runs=2, note="these two models only").interval
    assert math.isnan(unknown.low) and math.isnan(unknown.high)
    assert claim("x", "{value}", unknown, 0.1).verdict == "cannot be tested here"


def test_what_was_no_number_comes_back_as_none(tmp_path):
    nothing = Interval(math.nan, math.nan, math.nan, 5, se=math.nan, df=4)
    back = read(record(numbers=(number("reduction", nothing, arm="EMA"),)).write(tmp_path))
    interval = back["reduction, EMA"].interval
    assert np.isnan([interval.value, interval.low, interval.high, interval.se]).all()
    assert interval.df == 4 and claim("x", "", interval, 0).verdict == "cannot be tested here"


def test_what_stands_behind_a_number():
    assert number("churn", CHURN).sample == "5 runs"
    behind = number("churn", CHURN, behind="5 ensembles of 50 runs")
    assert behind.sample == "5 ensembles of 50 runs"
    two = Interval(0.2, 0.1, 0.3, 2, "these two models only")
    assert number("churn", two).interval.speaks_of == "these two models only"


@pytest.mark.parametrize("metric, unit, text", [
    ("churn", "%", "20.0 % [10.0, 30.0]"),
    ("accuracy_change", "points", "+20.00 points [+10.00, +30.00]"),
    ("nll", "", "0.200 [0.100, 0.300]"),
])  # fmt: skip
def test_numbers_in_words(metric, unit, text):
    assert shown(number(metric, CHURN), unit) == text


# ---- claims of the study


DEFINED = (
    Definition("answers change", "01_measuring", "Churn is {value}.", "churn", 0.05),
    Definition("few", "01_measuring", "Churn is low.", "churn", 0.5, side="below"),
    Definition("more than", "01_measuring", "More.", "accuracy, R-Drop; planted", "churn"),
    Definition("less than", "01_measuring", "Less.", "churn", "accuracy, R-Drop; planted"),
    Definition("unknown", "01_measuring", "What of kappa?", "kappa", 0),
    Definition("unknown threshold", "01_measuring", "Above what?", "churn", "kappa"),
    Definition("elsewhere", "02_where", "Not here.", "churn", 0.05),
)


def test_claims_are_judged_by_the_numbers_of_their_notebook(monkeypatch):
    """A threshold that is itself a number counts by its upper end."""
    monkeypatch.setattr(records, "definitions", lambda: DEFINED)
    found = {each.name: each for each in judged("01_measuring", record().numbers)}
    assert {name: each.verdict for name, each in found.items()} == {
        "answers change": "holds",
        "few": "holds",
        "more than": "holds",
        "less than": "does not hold",
        "unknown": "cannot be tested here",
        "unknown threshold": "cannot be tested here",
    }
    assert found["answers change"].sentence == "Churn is 20.0 % [10.0, 30.0] (5 runs)."
    high = number("churn", Interval(0.2, 0.1, BOTH.low + 0.001, runs=5))
    numbers = [high, *record().numbers[1:]]
    undecided = {each.name: each.verdict for each in judged("01_measuring", numbers)}
    assert undecided["more than"] == "undecided at 5 runs"
    unknown = number("churn", Interval(np.nan, np.nan, np.nan, runs=5))
    [claim, *_] = judged("01_measuring", [unknown, *record().numbers[1:]])
    assert (claim.verdict, claim.sentence) == ("cannot be tested here", "Churn is ….")


# ---- files


def test_numpy_numbers_and_missing_ones_become_plain_json(tmp_path):
    odd = {
        "a": np.float32(0.5),
        "b": np.int64(3),
        "c": np.array([1, 2]),
        "d": (1, math.inf),
        "e": np.nan,
        "f": np.bool_(True),
    }
    path = record(parameters=odd, claims=(claim("x", "{value}", None, 0),)).write(tmp_path)
    assert read(path).parameters == {
        "a": 0.5,
        "b": 3,
        "c": [1, 2],
        "d": [1, None],
        "e": None,
        "f": True,
    }
    (untested,) = read(path).claims
    assert math.isnan(untested.value) and math.isnan(untested.low)  # a number again, not None
    assert untested.verdict == "cannot be tested here"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"claims": [1]}', '{"claims": [], "else": 1}', "null", "\ufeff{}"],
)
def test_what_is_no_record_is_refused_by_name(tmp_path, text):
    path = tmp_path / "01_x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match="record: got .*01_x.json.*; expected a JSON file that a notebook wrote"
    ):
        read(path)
    with pytest.raises(InputError, match="record: got "):
        read(tmp_path / "missing.json")


def test_one_table_of_all_records(tmp_path):
    record().write(tmp_path / "b")
    other = record(
        notebook="02_where", parameters={"dataset": "other"}, numbers=(number("churn", BOTH),)
    )
    other.write(tmp_path / "a" / "deep")
    (tmp_path / "benchmark.json").write_text("[]", encoding="utf-8")  # no notebook's
    found = table(tmp_path)
    assert found.columns.tolist() == [
        "dataset",
        "model",
        "notebook",
        "metric",
        "value",
        "low",
        "high",
        "arm",
        "condition",
        "n",
        "se",
        "df",
        "runs",
        "over_runs",
        "note",
        "behind",
        "unit",
    ]
    assert found["dataset"].tolist() == ["other", "tiny", "tiny", "tiny", "tiny"]
    rows = found[["metric", "arm", "value", "unit"]].values.tolist()
    assert rows[0] == ["churn", "", 0.9, "share of queries"]
    assert rows[2] == ["accuracy", "R-Drop", 0.9, "share of queries"]
    assert found["se"][0] == BOTH.se and found["df"][0] == BOTH.df
    assert found["model"].isna().tolist() == [True, False, False, False, False]
    nowhere = table(tmp_path / "nowhere")
    assert nowhere.empty and nowhere.columns.tolist() == found.columns.tolist()


def test_a_verdict_never_raises():
    strange = Interval(math.nan, math.nan, math.nan, runs=0)
    assert records.claim("x", "{value}", strange, math.nan).verdict == "cannot be tested here"
