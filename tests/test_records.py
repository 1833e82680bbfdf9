from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stabutils import records
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval
from stabutils.records import Claim, Record, claim, numbers, read, table

CHURN = Interval(0.2, 0.1, 0.3, runs=5)


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
    assert untested.sentence == "Churn is not measured here." and math.isnan(untested.value)


def record(**changes) -> Record:
    found = {"churn": CHURN, "accuracy": Interval(0.9, 0.85, 0.95, runs=5)}
    return Record(
        **{
            "notebook": "01_measuring",
            "parameters": {"dataset": "tiny", "model": "compact", "runs": 5},
            "provenance": {"commit": None},
            "claims": (claim("churn", "Größer: {value}", CHURN, 0.05),),
            "numbers": numbers(found),
        }
        | changes
    )


def test_a_record_comes_back_as_it_was(tmp_path):
    path = record().write(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "01_measuring.json"
    assert read(path) == record()
    text = path.read_bytes()
    assert "Größer".encode() in text and b"\r" not in text and text.endswith(b"}\n")
    assert record().write(tmp_path / "again").read_bytes() == text


def test_what_lies_in_the_file(tmp_path):
    content = json.loads(record().write(tmp_path).read_text(encoding="utf-8"))
    assert content["numbers"]["churn"] == {
        "value": 0.2,
        "low": 0.1,
        "high": 0.3,
        "runs": 5,
        "unit": "share of examples",
    }
    assert content["claims"][0].keys() == {"name", "sentence", "value", "low", "high", "verdict"}
    assert content.keys() == {"notebook", "parameters", "provenance", "numbers", "claims"}


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


def test_a_number_needs_a_unit():
    found = numbers({"auroc rare:strong": CHURN, "label_entropy@5": CHURN})
    assert [entry["unit"] for entry in found.values()] == ["chance, 0.5 is blind", "nats"]
    with pytest.raises(
        InputError, match="number: got 'chrun'; expected a name that begins with one of churn, "
    ):
        numbers({"chrun": CHURN})


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
    record(notebook="02_where", parameters={"dataset": "other"}).write(tmp_path / "a" / "deep")
    (tmp_path / "benchmark.json").write_text("[]", encoding="utf-8")  # no notebook's
    found = table(tmp_path)
    assert found.columns.tolist() == [
        "dataset",
        "model",
        "notebook",
        "number",
        "value",
        "low",
        "high",
        "runs",
        "unit",
    ]
    assert found["dataset"].tolist() == ["other", "other", "tiny", "tiny"]
    assert found[["number", "value", "runs", "unit"]].values.tolist()[:2] == [
        ["churn", 0.2, 5, "share of examples"],
        ["accuracy", 0.9, 5, "share of examples"],
    ]
    assert found["model"].isna().tolist() == [True, True, False, False]
    assert (
        table(tmp_path / "nowhere").empty
        and table(tmp_path / "nowhere").columns.tolist() == found.columns.tolist()
    )


def test_a_verdict_never_raises():
    strange = Interval(math.nan, math.nan, math.nan, runs=0)
    assert records.claim("x", "{value}", strange, math.nan).verdict == "cannot be tested here"


def test_shares_of_ensembles_have_a_unit_also_where_members_can_only_vote():
    share = Interval(0.5, 0.4, 0.6, runs=10)
    found = numbers(
        {f"share_of_{kind} snapshots": share for kind in ("ensemble", "vote")}
    )  # as notebook 05 names them
    assert all("ensemble's reduction" in number["unit"] for number in found.values())
