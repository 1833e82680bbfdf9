"""Sources of randomness: effects by hand, against a slow reference, and covered on simulated
designs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
import plain
import pytest
import tiny

from stabutils import figures, metrics
from stabutils.analysis.sources import SOURCES, design, effects, rounding
from stabutils.errors import InputError
from stabutils.metrics.intervals import jackknife
from stabutils.mitigations import Mitigation, interventions
from stabutils.mitigations.interventions import Poke
from stabutils.study import publication
from stabutils.study.dispatch import Dispatch
from stabutils.study.study import Study
from stabutils.training.loop import train
from stabutils.training.state import Seeds, Stream

DRAW = np.random.default_rng(0)


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    corpus = tiny.project(tmp_path, monkeypatch)
    return Study(dataset=str(corpus), runs=3, epochs=2, batch_size=16, workers=1)


# ---- the design


def test_a_design_crosses_every_seed_with_every_other_and_holds_the_ordinary_runs():
    seeds = design(2, base=5)
    assert seeds[:3] == [Seeds(5, 5, 5), Seeds(5, 5, 6), Seeds(5, 6, 5)] and seeds[-1] == Seeds(
        6, 6, 6
    )
    assert len(set(design(3))) == 27
    with pytest.raises(InputError, match="levels: got 1; expected at least 2"):
        design(1)


# ---- effects


def test_effects_by_hand_need_not_add_up():
    # The first answer follows init, the second flips whenever exactly one of order and dropout
    # does.
    found = effects([[i, o ^ d] for i, o, d in product((0, 1), repeat=3)], (2, 2, 2), floor=0.25)
    assert (found.every.value, found.floor) == (0.5, 0.25)
    expected = {"init": (0.5, 0.0, 0.5, 1.0, 1.0), "order": (0.5, 1.0, -0.5, -1.0, 1.0)}
    for name, (alone, fixed, fall, fall_share, alone_share) in (
        expected | {"dropout": expected["order"]}
    ).items():
        source = found.sources[name]
        assert (source.alone.value, source.fixed.value, source.fall.value) == (alone, fixed, fall)
        assert (source.fall_share.value, source.alone_share.value) == (fall_share, alone_share)


def by_pairs(labels, shape, source):
    """Churn with only `source` varying, and with only it fixed, pair by pair."""
    cells, alone, fixed = list(np.ndindex(*shape)), [], []
    for a, b in combinations(range(len(cells)), 2):
        differ = [x != y for x, y in zip(cells[a], cells[b], strict=True)]
        others = differ[:source] + differ[source + 1 :]
        if differ[source] and not any(others):
            alone.append(np.mean(labels[a] != labels[b]))
        if not differ[source] and all(others):
            fixed.append(np.mean(labels[a] != labels[b]))
    return np.mean(alone), np.mean(fixed)


def test_effects_are_means_over_the_right_pairs_and_leave_out_whole_seeds():
    shape = (3, 4, 3)
    labels = DRAW.integers(0, 3, (36, 20))
    found = effects(labels, shape)
    for place, name in enumerate(SOURCES):
        source = found.sources[name]
        assert (source.alone.value, source.fixed.value) == pytest.approx(
            by_pairs(labels, shape, place)
        )
        assert source.fall.value == pytest.approx(found.every.value - source.fixed.value)
    variances = []
    for axis in range(3):
        smaller = tuple(size - (place == axis) for place, size in enumerate(shape))
        left = [
            by_pairs(np.delete(labels.reshape(*shape, -1), one, axis).reshape(-1, 20), smaller, 1)[
                0
            ]
            for one in range(shape[axis])
        ]
        variances.append((shape[axis] - 1) * np.var(left))
    alone = found.sources["order"].alone
    assert alone.over_runs.se == pytest.approx(np.sqrt(np.sum(variances)))
    degrees = np.array(shape) - 1
    df = np.sum(variances) ** 2 / np.sum(np.square(variances) / degrees)
    assert alone.over_runs.df == pytest.approx(df)
    over_queries = plain.variance(
        [by_pairs(np.delete(labels, query, axis=1), shape, 1)[0] for query in range(20)]
    )
    assert alone.se**2 == pytest.approx(np.sum(variances) + over_queries)
    assert alone.speaks_of == "new runs and new queries" and 0 < alone.low < alone.high < 1


def test_the_fall_and_its_share_leave_the_same_query_out_of_both():
    labels = DRAW.integers(0, 3, (27, 15))
    found = effects(labels, (3, 3, 3)).sources["init"]
    every, fixed = [], []
    for query in range(15):
        rest = np.delete(labels, query, axis=1)
        every.append(effects(rest, (3, 3, 3)).every.value)
        fixed.append(by_pairs(rest, (3, 3, 3), 0)[1])
    every, fixed = np.array(every), np.array(fixed)
    for interval, deleted in ((found.fall, every - fixed), (found.fall_share, 1 - fixed / every)):
        added = interval.se**2 - interval.over_runs.se**2
        assert added == pytest.approx(plain.variance(deleted))


@pytest.mark.parametrize("kind", ["classes", "queries", "seeds"])
def test_order_and_names_change_no_effect(kind):
    labels = DRAW.integers(0, 3, (27, 15))
    moved = {
        "classes": lambda: np.array([2, 0, 1])[labels],
        "queries": lambda: labels[:, DRAW.permutation(15)],
        "seeds": lambda: labels.reshape(3, 3, 3, 15)[::-1, [1, 2, 0]].reshape(27, 15),
    }[kind]()
    one, other = (numbers(effects(some, (3, 3, 3))) for some in (labels, moved))
    for name, interval in one.items():
        same = other[name]
        assert (same.value, same.se, same.df) == pytest.approx(
            (interval.value, interval.se, interval.df)
        )


def test_two_seeds_give_an_interval_over_examples_that_says_so():
    found = effects(DRAW.integers(0, 3, (8, 40)), (2, 2, 2))
    assert {found.every.note, found.sources["init"].fall.note} == {"these 8 models only"}
    assert found.every.low < found.every.value < found.every.high


def test_runs_that_never_differ_have_no_shares():
    found = effects(np.zeros((27, 5), int), (3, 3, 3))
    assert (found.every.low, found.every.high, found.sources["init"].fall.high) == (0, 0, 0)
    assert np.isnan(found.sources["init"].fall_share.value) and np.isnan(
        found.sources["init"].alone_share.value
    )


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 3), (8, 1, 1)])
def test_labels_that_are_no_full_design_are_refused(shape):
    with pytest.raises(InputError, match="shape of the design: got .* for 8 runs"):
        effects(np.zeros((8, 5), int), shape)


# ---- coverage, where the truth is known

STRENGTHS, NOISE = (1.0, 0.5, 0.0), 0.4


def simulated(draw, base, loadings, levels):
    """Labels of a full design: logits are those of the example, plus what each source's seed does,
    plus what this combination of seeds does. A seed moves related examples together, so that
    examples cannot stand in for seeds.
    """
    logits = base + NOISE * draw.normal(size=(levels, levels, levels, *base.shape))
    for axis, (strength, loading) in enumerate(zip(STRENGTHS, loadings, strict=True)):
        moved = strength * np.tensordot(draw.normal(size=(levels, len(loading))), loading, 1)
        logits += np.expand_dims(moved, [other for other in range(3) if other != axis])
    return logits.argmax(-1).reshape(levels**3, -1)


def numbers(found):
    return {"every": found.every} | {
        f"{name} {key}": interval
        for name, source in found.sources.items()
        for key, interval in vars(source).items()
    }


def true_effects(cubes):
    """From many fresh designs of two seeds each, by comparing opposite ends."""
    every = np.mean([cube[0] != cube[1, ::-1, ::-1] for cube in cubes])
    truth = {"every": every}
    for axis, name in enumerate(SOURCES):
        turned = [np.moveaxis(cube, axis, 0) for cube in cubes]
        alone = np.mean([cube[0] != cube[1] for cube in turned])
        fixed = np.mean([cube[:, 0] != cube[:, 1, ::-1] for cube in turned])
        truth |= {
            f"{name} alone": alone,
            f"{name} alone_share": alone / every,
            f"{name} fixed": fixed,
            f"{name} fall": every - fixed,
            f"{name} fall_share": 1 - fixed / every,
        }
    return truth


def queries(draw, count=100):
    """What new queries are like: their logits, and how seeds move them."""
    return draw.normal(size=(count, 3)) * 2, draw.normal(size=(3, 5, count, 3)) / np.sqrt(5)


def test_intervals_cover_known_effects():
    """In each trial new seeds and new queries."""
    draw = np.random.default_rng(0)
    truth = true_effects(
        [simulated(draw, *queries(draw), 2).reshape(2, 2, 2, -1) for _ in range(4000)]
    )
    trials = [numbers(effects(simulated(draw, *queries(draw), 4), (4, 4, 4))) for _ in range(100)]

    covered = {
        name: np.mean([trial[name].low <= value <= trial[name].high for trial in trials])
        for name, value in truth.items()
    }
    # 95 % within what 100 trials can tell; too wide where combinations matter most.
    assert min(covered.values()) >= 0.9, covered
    assert 0.94 <= np.mean(list(covered.values())) <= 0.995, covered
    assert (
        truth["init fall_share"]
        > 0.3
        > truth["order fall_share"]
        > 0.05
        > abs(truth["dropout fall_share"])
    )
    found = {name: np.mean([trial[f"{name} fall"].low > 0 for trial in trials]) for name in SOURCES}
    assert found["init"] > 0.3 and found["dropout"] < 0.05, found


# ---- the floor


def test_a_training_of_equal_seeds_is_made_again_and_repeats_itself(tiny_study):
    once, again = (tiny_study.retrain(arm, n=2) for arm in ("control", interventions.Again()))
    assert set(once.names).isdisjoint(again.names) and (once.seeds == again.seeds).all()
    assert (once.labels == again.labels).all() and (once.probabilities == again.probabilities).all()


# ---- the poke


def test_a_poke_changes_one_weight_of_the_head_and_no_other():
    def weights(mitigation):
        with Stream("init", 3):
            return mitigation.model(tiny.task().build).state_dict()

    plain, poked = weights(Mitigation()), weights(Poke(1e-6))
    changed = {name: int((plain[name] != poked[name]).sum()) for name in plain}
    assert {name: count for name, count in changed.items() if count} == {"head.weight": 1}
    at = plain["head.weight"].abs().argmax()
    assert poked["head.weight"].flatten()[at] / plain["head.weight"].flatten()[
        at
    ] - 1 == pytest.approx(1e-6, rel=0.2)
    assert poked["head.weight"].requires_grad is plain["head.weight"].requires_grad


def test_a_poked_run_differs_by_a_little_and_one_of_no_size_is_control(tiny_study):
    plain, poked = (
        train(tiny.task(), mitigation, Seeds(0, 0, 0)) for mitigation in (Mitigation(), Poke(1e-6))
    )
    difference = np.abs(plain["probabilities"] - poked["probabilities"]).max()
    assert 0 < difference < 1e-2
    names = [
        tiny_study.identify(mitigation, Seeds(0, 0, 0)).name
        for mitigation in (Mitigation(), Poke(0), Poke())
    ]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("size", [-1e-6, 1e-8, float("nan"), float("inf"), True, "1e-6"])
def test_a_poke_that_could_be_lost_in_rounding_is_refused(size):
    with pytest.raises(InputError, match="Poke size"):
        Poke(size)


# ---- rounding


def test_rounding_pairs_each_run_with_its_poked_twin():
    control = DRAW.integers(0, 3, (6, 30))
    poked = np.where(DRAW.random((6, 30)) < 0.1, (control + 1) % 3, control)
    found = rounding(control, poked)
    each = (control != poked).mean(1)
    assert found["rounding"].value == pytest.approx(each.mean())
    assert found["rounding"].over_runs.se == pytest.approx(each.std(ddof=1) / np.sqrt(6))
    of_queries = (control != poked).mean(0).std(ddof=1) / np.sqrt(30)
    assert (
        of_queries <= found["rounding"].se <= np.hypot(found["rounding"].over_runs.se, of_queries)
    )
    assert found["share"].speaks_of == "new runs and new queries"
    paired = jackknife(lambda own, twin: np.mean(own != twin) / metrics.churn(own), control, poked)
    assert found["share"].over_runs.se == pytest.approx(paired.se, rel=0.05)
    assert found["share"].value == pytest.approx(found["rounding"].value / found["seeds"].value)
    with pytest.raises(InputError, match="shape of poked"):
        rounding(control, poked[:5])
    assert np.isnan(rounding(control[[0, 0, 0]], control[[0, 0, 0]])["share"].value)


# ---- figures


def test_figures_draw_what_was_measured():
    labels = DRAW.integers(0, 3, (27, 40))
    found = effects(labels, (3, 3, 3), floor=0.02)
    left, right = figures.sources(found).axes
    for axis, key in ((left, "alone"), (right, "fixed")):
        [churns] = axis.containers
        assert churns.lines[0].get_xdata().tolist() == pytest.approx(
            [100 * getattr(source, key).value for source in found.sources.values()]
        )
        assert [line.get_xdata()[0] for line in axis.lines[:2]] == pytest.approx(
            [100 * found.every.value, 2]
        )
    assert [text.get_text() for text in left.get_yticklabels()] == list(SOURCES)
    lengths = {n: rounding(labels[:5], labels[5:10]) for n in (1, 2)} | {
        4: rounding(labels[:1].repeat(3, 0), labels[:1].repeat(3, 0))
    }
    axis = figures.rounding(lengths).axes[0]
    seeds, alone = axis.lines
    assert seeds.get_ydata() == pytest.approx(
        [100 * row["seeds"].value for row in lengths.values()]
    )
    assert alone.get_ydata() == pytest.approx(
        [100 * row["rounding"].value for row in lengths.values()]
    )
    assert [text.get_text() for text in axis.texts] == [
        f"{lengths[n]['share'].value:.0%}" for n in (1, 2)
    ]
    for figure in map(plt.figure, plt.get_fignums()):
        figure.canvas.draw()
    plt.close("all")


# ---- crossed runs beside ordinary ones


def test_crossed_runs_are_published_beside_the_ordinary_ones(tiny_study, monkeypatch, tmp_path):
    ordinary, crossed = tiny_study.retrain(), tiny_study.retrain(seeds=design(2))
    assert set(crossed.names) & set(ordinary.names) == set(
        ordinary.names[:2]
    )  # where all seeds agree
    paths = {
        publication.publish(tiny_study, replace(each, whole=not each.part))
        for each in tiny_study.requests
    }
    assert sorted(path.name for path in paths) == [
        f"compact-control{end}.safetensors.xz"
        for end in ("-crossed-epochs-2-batch-size-16", "-epochs-2-batch-size-16")
    ]
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "fresh"))
    monkeypatch.setattr(
        Dispatch, "train", lambda *anything: pytest.fail("nothing is left to train")
    )
    again = Study(dataset=tiny_study.dataset, runs=3, epochs=2, batch_size=16, workers=1)
    assert np.array_equal(again.retrain(seeds=design(2)).labels, crossed.labels)
    assert np.array_equal(again.retrain().labels, ordinary.labels)
