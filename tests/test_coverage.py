"""The intervals cover the truth of simulated answers: a small version of benchmarks/coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stabutils import metrics

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
REPEATS = 300


@pytest.fixture(scope="module")
def simulation():
    """The module, by another name: `coverage` may be the library that measures tests."""
    spec = importlib.util.spec_from_file_location("simulation", BENCHMARKS / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def measured(labels):
    entropy = metrics.label_entropy(labels, 5).mean()
    return metrics.churn(labels), entropy, np.mean(labels == 0)


def test_the_truth_is_what_very_many_runs_find(simulation):
    """Fails if what is covered is not what is measured, of single runs or of ensembles."""
    world, rng = simulation.World(queries=3000), np.random.default_rng(0)
    found = []
    for _ in range(60):
        labels = world.labels(world.test_set(rng), world.causes(rng, 30))
        first, second, third = labels.reshape(3, 10, -1)
        voted = np.where(second == third, second, first)  # of three answers any one
        found.append([measured(some) for some in (labels, voted)])
    mean, error = np.mean(found, axis=0), stats.sem(found, axis=0)
    for size, row, noise in zip((1, 3), mean, error, strict=True):
        truth = list(simulation.truth(world, 1.0, 5, size).values())
        assert np.all(np.abs(row - truth) < 4 * noise), (size, row, truth)


@pytest.fixture(scope="module")
def found(simulation):
    """Coverage at few, some and many runs where flips come together."""
    world = simulation.World(queries=200, clusters=10, together=0.5)
    trial = simulation.scores_of
    return {runs: simulation.coverage(trial, world, runs, REPEATS) for runs in (3, 10, 20)}


SINGLE = ("churn", "label entropy", "accuracy")


@pytest.mark.parametrize("runs", [3, 10, 20])
def test_intervals_over_runs_and_queries_cover(found, runs):
    """Fails at 3 runs if degrees of freedom are too many, at 20 if queries are ignored."""
    covered = {name: each["both"] for name, each in found[runs].items()}
    assert len(covered) == 11 and min(covered.values()) >= 0.915, covered
    assert 0.935 <= np.mean(list(covered.values())) <= 0.985, covered


@pytest.mark.parametrize("runs", [10, 20])
def test_their_variance_is_that_of_the_values(found, runs):
    """Fails if single cells are counted twice: then differences have far too much."""
    ratios = {name: each["variance"] for name, each in found[runs].items()}
    assert 0.75 <= min(ratios.values()) and max(ratios.values()) <= 1.5, ratios
    assert 0.9 <= np.mean(list(ratios.values())) <= 1.3, ratios


def test_intervals_over_runs_alone_do_not_speak_of_new_queries(found):
    """What boards showed before: worse, the more runs there are."""
    for name in SINGLE:
        few, many = (found[runs][name]["runs"] for runs in (3, 20))
        assert many < 0.75 and many < few, name
    reductions = [found[20][f"reduction, {seeds} seeds"]["runs"] for seeds in ("equal", "other")]
    assert np.mean(reductions) < 0.95


def test_what_ensembles_save_is_covered(simulation):
    """Few groups, so the interval is wide; over queries it would not be without them."""
    world = simulation.World(queries=100, clusters=10, together=0.5)
    found = simulation.coverage(simulation.ensembles_of, world, 12, 25)
    for name, each in found.items():
        assert each["both"] >= 0.88 and 0.5 <= each["variance"] <= 3, (name, each)


def test_agreement_of_a_proxy_is_covered(simulation):
    """Conservative: single cells count twice."""
    world = simulation.World(queries=60, clusters=10, together=0.5)
    found = simulation.coverage(simulation.proxies_of, world, 6, 60)
    for name, each in found.items():
        assert each["both"] >= 0.93 and 0.9 <= each["variance"] <= 4, (name, each)
        assert each["runs"] < each["both"], (name, each)


def test_boards_of_nothing_find_nothing(simulation):
    """The chance that any method is significant is 5 % at most: of 60 boards at most 8."""
    world = simulation.World(queries=150, clusters=10, together=0.5)
    shares = simulation.null_boards(world, 6, 60, arms=3)
    assert shares["any p"] <= 8 / 60 and shares["any better"] <= shares["any p"]
    assert shares["one p"] <= 8 / 60 and shares["guard"] < 0.5


def test_the_page_is_filled_between_its_marks(simulation):
    page = "a <!-- x -->old<!-- end of x --> b <!-- y --><!-- end of y -->"
    filled = simulation.fill(page, "x", "new \\1")
    assert filled == "a <!-- x -->\nnew \\1\n<!-- end of x --> b <!-- y --><!-- end of y -->"
    assert simulation.fill(filled, "x", "new \\1") == filled
    with pytest.raises(ValueError, match="got no <!-- z -->"):
        simulation.fill(page, "z", "")


def test_runs_that_a_reader_needs_come_from_published_answers(simulation):
    """More runs for smaller differences, and for methods that change more queries."""
    rows = simulation.needed("massive")
    assert [row[1] for row in rows] == ["LE@5", "churn", "accuracy"]
    for row in rows:
        counts = [cell.split(" to ") for cell in row[3:]]
        least = [int(cell[0]) for cell in counts]
        assert least == sorted(least, reverse=True) and least[-1] == 3
        most = [int(cell[-1]) for cell in counts if cell[-1] != "no number"]
        assert most == sorted(most, reverse=True)
