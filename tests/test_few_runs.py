"""Three, five or eight runs: the report, the comparison and the metrics say the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import stabutils as st
from stabutils.errors import InputError
from stabutils.metrics import scores


def answers(runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (runs, 150 queries) that are wrong now and then, and the gold labels."""
    gold = np.arange(150) % 4
    draw = np.random.default_rng(seed)
    wrong = draw.random((runs, 150)) < 0.15
    return np.where(wrong, draw.integers(0, 4, (runs, 150)), gold), gold


@pytest.mark.parametrize("runs", [3, 5, 8])
def test_label_entropy_has_one_interval_wherever_it_is_asked_for(runs):
    labels, gold = answers(runs, 0)
    votes = min(5, runs)
    interval = scores.label_entropy(labels, votes).interval()
    assert interval.low < interval.value < interval.high and interval.runs == runs
    assert st.report(labels, gold).numbers[f"label_entropy@{votes}"] == interval
    change = st.compare(labels, answers(runs, 1)[0], gold=gold)
    assert change.before[f"label_entropy@{votes}"] == interval
    assert all(np.isfinite([each.low, each.high]).all() for each in change.difference.values())
    # The stated rule of exactly so many runs as vote: a run that is left out leaves one vote fewer.
    n = None if runs == votes else votes
    over_runs = st.intervals.jackknife(
        lambda own: st.metrics.label_entropy(own, n=n).mean(), labels
    )
    expected = [interval.over_runs.low, interval.value, interval.over_runs.high]
    assert [over_runs.low, over_runs.value, over_runs.high] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 5), (5, 8)])
def test_every_line_of_a_summary_and_of_a_comparison_has_numbers(before, after):
    old, gold = answers(before, 0)
    new, _ = answers(after, 1)
    said = st.report(old, gold).summary()
    assert f"({before} runs)" in said and f"With {before} runs churn" in said and "nan" not in said
    lines = [line for line in str(st.compare(old, new, gold=gold)).splitlines() if "->" in line]
    few = min(before, after)
    verdicts = ("holds", "does not hold", f"undecided at {few} runs")
    assert len(lines) == 5 and all(line.endswith(verdicts) for line in lines)
    assert not [line for line in lines if "nan" in line]


def test_a_statistic_that_needs_all_runs_is_refused_by_a_jackknife_with_the_way_out():
    labels = np.random.default_rng(0).integers(0, 3, (5, 40))
    le5 = partial(st.metrics.label_entropy, n=5)
    with pytest.raises(InputError, match=r"^runs: got 5; .*scores.label_entropy\(labels, 5\)"):
        st.intervals.jackknife(lambda votes: le5(votes).mean(), labels)
    assert scores.label_entropy(labels, 5).interval().low > 0
    assert st.intervals.jackknife(lambda votes: le5(votes).mean(), np.tile(labels, (2, 1))).low > 0
