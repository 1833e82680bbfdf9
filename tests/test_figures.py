"""Figures: what is drawn is what was given, at small and large numbers; files are reproducible."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from stabutils import figures
from stabutils.analysis.regions import Clustering
from stabutils.analysis.sources import effects
from stabutils.errors import InputError
from stabutils.figures import costs, ensembles, instability, marks, regions, theme
from stabutils.metrics import churn, churn_matrix, label_entropy, scores
from stabutils.metrics.intervals import Interval, jackknife
from stabutils.study.tuning import choose

DRAW = np.random.default_rng(0)
LABELS = np.where(DRAW.random((6, 40)) < 0.15, DRAW.integers(0, 4, (6, 40)), np.arange(40) % 4)
GOLD = np.arange(40) % 4
TEXTS = [f"query {i} costs $5 or $6 and <b>more</b> words than fit on a line" for i in range(40)]
ODDS = DRAW.dirichlet(np.ones(4), 6)


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


def interval(value: float, half: float = 0.1) -> Interval:
    return Interval(value, value - half, value + half, runs=5, se=half / 3, df=9)


def every() -> dict[str, Callable[[], plt.Figure]]:
    """Every figure, of small made-up tables whose names are mathematics to matplotlib."""
    churned = jackknife(churn, LABELS)
    pairs = churn_matrix(LABELS)[np.triu_indices(6, 1)]
    line = [interval(0.6), interval(0.8)]
    shuffled = Clustering(churned, churned, 0.01, DRAW.normal(size=99))
    names = ["a $ sign $", "b", "c", "d"]
    entropy = label_entropy(LABELS)
    return {
        "answers": lambda: figures.answers(LABELS, GOLD, TEXTS),
        "entropy": lambda: figures.entropy_distribution(LABELS),
        "accuracy": lambda: figures.accuracy_and_churn((LABELS == GOLD).mean(1), pairs, churned),
        "intervals": lambda: figures.intervals({"a$b$": churned, "b": churned}, "churn", 0.5),
        "training": lambda: figures.through_training({"$e$": line}, np.array([0.5, 1.0]), 0.9),
        "map": lambda: figures.training_map(DRAW.random(40), DRAW.random(40), entropy),
        "runs": lambda: figures.how_many_runs(churned),
        "sources": lambda: figures.sources(effects(LABELS.repeat(2, 0)[:8], (2, 2, 2))),
        "rounding": lambda: figures.rounding({1: lengthwise(), 2: lengthwise()}),
        "nulls": lambda: figures.nulls({"$w$": {"anywhere": shuffled, "$x$": shuffled}}),
        "regions": lambda: figures.instability_map(
            DRAW.random((40, 2)),
            entropy,
            np.arange(40) % 5 - 1,
            names[:2],
            ODDS[:2, :2],
            ["$1$", "2"],
        ),
        "board": lambda: figures.trade_off(a_board()),
        "doses": lambda: figures.dose_response(tuned(), ["two"]),
        "lengths": lambda: figures.lengths(long(), 2),
        "learning": lambda: figures.learning(learned(), 0.15),
        "intents": lambda: figures.per_intent(an_intent_each()),
        "soft": lambda: figures.soft_labels(ODDS[:3], GOLD[:3], TEXTS[:3], names),
        "frontier": lambda: figures.frontier(priced()),
        "updates": lambda: figures.updates_frontier(updated()),
        "votes": lambda: figures.votes(
            {"$p$": sizes()}, {1: 0.11, 2: 0.105, 5: 0.045}, interval(0.12)
        ),
        "budgets": lambda: figures.budgets(affordable()),
        "selective": lambda: figures.selective(
            {"single $ runs $": refused(), "ensemble": refused()}
        ),
        "anchor": lambda: figures.anchor_curve({"$geometric$": mixed()}, alone()),
        "odds": lambda: figures.odds(ODDS, ODDS[0], (ODDS + ODDS[0]) / 2, names, gold=1),
        "churns": lambda: figures.four_churns(updated()),
        "across": lambda: figures.across_studies(updated().assign(study=["$a$", "b", "$a$"])),
        "noise": lambda: figures.noise_response(noisy(), ["label_entropy", "accuracy"]),
        "verdicts": lambda: figures.verdicts(
            pd.DataFrame({"x $ y": ["holds", "undecided at 4 runs", ""]}, index=["$a$", "b", "c"])
        ),
    }


def lengthwise():
    return {"seeds": interval(0.2), "rounding": interval(0.1), "share": interval(0.5)}


def sizes():
    return pd.DataFrame({"size": [2, 5], "label_entropy": [interval(0.08, 0.01), interval(0.04)]})


def priced():
    return pd.DataFrame(
        {
            "arm": ["linear $ SVM $", "ensemble of 5", "ensemble of 2", "calm", "control"],
            "reduction": [interval(value) for value in (1.0, 0.4, 0.3, 0.1, 0.0)],
            "trainings": [0.0, 5, 2, 2, 1],
            "passes": [0.0, 5, 2, 1, 1],
            "accuracy_change": [interval(0.01)] * 5,
            "better": ["holds", "holds", "holds", "holds", ""],
            "dominated": ["", "", "", "ensemble of 2", ""],
            "linear_dominates": ["", "linear $ SVM $", "", "", ""],
        }
    )


def updated():
    rows = {"control": (0.06, 0.04, 0.08), "$ R $": (0.02, 0.03, 0.04), "linear": (0.0, 0.03, 0.03)}
    parts = np.array(list(rows.values()))
    table = pd.DataFrame({"arm": list(rows), "trainings": [1, 2, 0], "passes": [1, 1, 0]})
    table["dominated"], table["linear_dominates"] = ["$ R $", "", ""], ["", "linear", ""]
    table["accuracy_change"] = [None, interval(0.01), interval(-0.02)]
    for name, values in zip(instability.CHURNS, parts.T, strict=True):
        table[name] = [interval(value, 0.01 * (value > 0)) for value in values]
    return table.assign(churn=table.update_churn)


def affordable():
    return pd.DataFrame(
        {
            "trainings": [1, 1, 2, 2, 3, 3],
            "answer": ["one pass", "any"] * 3,
            "reduction": [interval(value, 0.02) for value in (0.1, 0.1, 0.3, 0.4, 0.3, 0.5)],
            "arm": ["control", "control", "calm", "pair", "calm", "three"],
        }
    )


def refused():
    line = [interval(0.01, 0.01), interval(0.1, 0.02)]
    return pd.DataFrame(
        {"coverage": [0.5, 1.0], "churn": line, "served_churn": line, "error": line}
    )


def mixed():
    weights = np.array([1.0, 0.5, 0.0])
    accuracy, churned = 0.9 - 0.1 * np.abs(weights - 0.5), 0.1 * (1 - weights)
    table = pd.DataFrame({"weight": weights})
    table["accuracy"] = [interval(value, 0.005) for value in accuracy]
    table["churn"] = [interval(value, 0.005) for value in churned]
    return table


def alone():
    table = pd.DataFrame({"arm": ["one network", "linear (both)", "ensemble of $5$"]})
    table["accuracy"] = [interval(value, 0.005) for value in (0.85, 0.85, 0.92)]
    return table.assign(churn=[interval(value, 0.005) for value in (0.1, 0.0, 0.03)])


def noisy():
    table = pd.DataFrame({"arm": ["a", "a", "$b$", "$b$"], "noise": [0.1, 0.0, 0.0, 0.1]})
    for name in ("label_entropy", "accuracy", "churn"):
        table[name] = [interval(value) for value in (0.4, 0.3, 0.2, 0.1)]
    return table


def long():
    table = pd.DataFrame({"epochs": [1, 2], "runs": [3, 10], "n": 3})
    return table.assign(label_entropy=[interval(0.2), interval(0.1)], accuracy=[interval(0.8)] * 2)


def learned():
    rows = [
        {"way": way, "seed": seed, "seconds": look * pace, "accuracy": 0.1 * look + 0.01 * seed}
        for way, pace in (("$slow$", 4), ("fast", 1))
        for seed in (0, 1)
        for look in (1, 2)
    ]
    return pd.DataFrame(rows)


def a_board():
    return pd.DataFrame(
        {
            "arm": ["calm", "rash", "placebo", "linear", "harmful $ 1 $"],
            "reduction": [interval(value) for value in (0.2, -0.05, 0.0, 1.0, -2.0)],
            "accuracy_change": [interval(0.001 * i, 0.01) for i in range(4)] + [interval(-0.2)],
            "trainings": [1.0, 2.0, 1.0, np.nan, 1.0],
            "better": ["holds", "does not hold", "", "holds", "does not hold"],
        }
    )


def tuned():
    draw = np.random.default_rng(0)
    arms = {
        name: {dose: draw.integers(0, 2, (3, 40)) for dose in (0.1, 0.2, 0.3)}
        for name in ("one", "two", "three")
    }
    return choose(draw.integers(0, 2, (3, 40)), arms, np.zeros(40, int))


def an_intent_each():
    changes = [interval(value) for value in np.linspace(-0.2, 0.2, 9)]
    table = pd.DataFrame({"intent": [f"$intent_{i}$" for i in range(9)], "examples": range(1, 10)})
    table["label_entropy_change"] = table["accuracy_change"] = changes
    return table.assign(p=[0.01, *[1.0] * 7, 0.03], harmed=[True] + 8 * [False])


def texts_of(figure):
    """All that is written inside the axes of a figure, apart from ticks."""
    return [text for axis in figure.axes for text in axis.texts if text.get_text().strip()]


def boxes_of(figure):
    figure.draw_without_rendering()
    return [Text.get_window_extent(text) for text in texts_of(figure)]


def lightness(colour) -> float:
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


# ---- all figures

EVERY = every()


def test_every_public_figure_is_tried_here():
    others = {"save", "short", "show", "style", "table", "telling_rows"}
    assert len(EVERY) == len(set(figures.__all__) - others)


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_every_figure_names_its_axes_and_writes_names_as_they_stand_apart(draw):
    """Fails if a name reaches matplotlib unescaped: two dollars are a formula to it."""
    figure = draw()
    figure.draw_without_rendering()
    axes = [axis.get_xlabel() or axis.get_ylabel() for axis in figure.axes]
    assert figure.get_supxlabel() or any(axes)
    written = [text for text in figure.findobj(Text) if "mathdefault" not in text.get_text()]
    assert not [text for text in written if text._preprocess_math(text.get_text())[1]]
    boxes = [Text.get_window_extent(text) for text in texts_of(figure)]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_saved_twice_is_the_same_file(tmp_path):
    for folder in ("a", "b"):
        for name in ("answers", "anchor"):
            figures.save(EVERY[name](), name, tmp_path / folder, "alt")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert "<b>" not in (tmp_path / "a/answers.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [1e-5, 0.003, 0.9])
def test_figures_hold_at_small_and_large_numbers(size):
    small, large = interval(size, size / 10), interval(size, size)
    over_runs = Interval(size, size / 2, 2 * size, 10, se=size / 10, df=9)
    change = {"label_entropy_change": [small] * 9, "accuracy_change": [large] * 9}
    drawn = [
        figures.how_many_runs(over_runs),
        figures.intervals({"a": small, "b": large}, "churn", 0),
        figures.four_churns(updated().assign(seed_churn=[small, large, small])),
        figures.updates_frontier(updated().assign(churn=[small, large, small])),
        figures.budgets(affordable().assign(reduction=[small, large] * 3)),
        figures.anchor_curve({"mixture": mixed().assign(churn=[small, large, small])}, alone()),
        figures.per_intent(an_intent_each().assign(**change)),
        figures.trade_off(a_board().assign(accuracy_change=[small, large, small, large, small])),
        figures.noise_response(noisy().assign(label_entropy=[small, large] * 2), ["label_entropy"]),
    ]
    for figure in drawn:
        assert not any(one.overlaps(other) for one, other in combinations(boxes_of(figure), 2))
        for axis in figure.axes:
            assert all(0 <= place <= 1 for bar in axis.containers for place in inside(axis, bar))


def inside(axis, bar):
    """Where the marks of an error bar stand in their axis, 0 .. 1 both ways."""
    shown = np.column_stack(bar.lines[0].get_data())
    return axis.transAxes.inverted().transform(axis.transData.transform(shown)).ravel().round(6)


def test_colours_differ_in_print():
    """Fails if two ranks of an answer, or less and more unstable, are one grey on paper."""
    ranks = [lightness(colour) for colour in theme.RANKS]
    assert max(np.diff(ranks)) < -0.1
    heat = [lightness(theme.HEAT(place)) for place in np.linspace(0, 1, 20)]
    assert max(np.diff(heat)) < 0


# ---- what figures share


def test_labels_hide_nothing_that_is_drawn():
    figure, axis = plt.subplots(figsize=(4, 3))
    points = [(0.5, 0.5), (0.5, 0.52), (0.52, 0.5), (0.95, 0.95), (0.02, 0.5)]
    axis.plot(*np.transpose(points), "o", color="black")
    axis.plot([0, 1], [0.55, 0.55], color="black")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    before = marks._ink(figure)
    marks.label_points(axis, ["one", "two", "three", "four", "five"], points)
    assert [text.get_text() for text in axis.texts] == ["one", "two", "three", "four", "five"]
    boxes = boxes_of(figure)
    for box in boxes:
        (left, bottom), (right, top) = box.p0.astype(int), box.p1.astype(int)
        assert not before[bottom:top, left:right].any()
        assert axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_a_label_without_room_is_left_out():
    _, axis = plt.subplots(figsize=(2, 2))
    axis.fill_between([0, 1], [0, 0], [1, 1], color="black")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    marks.label_points(axis, ["a name"], [(0.5, 0.5)])
    assert not axis.texts


def test_an_interval_that_is_missing_leaves_a_gap():
    _, axis = plt.subplots()
    marks.bands(axis, {"a": ([1, 2, 3], [interval(0.1), None, interval(0.3)])}, 100)
    assert axis.lines[0].get_ydata() == pytest.approx([10, np.nan, 30], nan_ok=True)


def test_a_measure_that_no_figure_knows_is_refused():
    with pytest.raises(InputError, match="measure"):
        figures.noise_response(noisy(), ["speed"])


def test_short_cuts_at_a_word_and_disarms_mathematics():
    assert figures.short("one two three", 9) == "one two …"
    assert figures.short("a\n b $x$") == r"a b \$x\$"
    assert figures.short("日本語の文章", 8) == "日本語 …"  # each takes two columns
    assert figures.short("日本語の", 8) == "日本語の"


def test_scripts_that_the_font_lacks_are_drawn_in_one_that_is_installed(monkeypatch):
    class Font:
        name = "Noto Sans CJK JP"

    monkeypatch.setattr(theme.fontManager, "ttflist", [*theme.fontManager.ttflist, Font])
    figures.style()
    assert plt.rcParams["font.family"] == ["sans-serif", "Noto Sans CJK JP"]


# ---- answers, entropy, accuracy and churn


def test_answers_stand_in_groups_that_are_named():
    figure = figures.answers(LABELS, GOLD, TEXTS)
    grid, bars = figure.axes
    assert [text.get_text() for text in grid.texts] == list(instability.KINDS)
    entropy = label_entropy(LABELS)[figures.telling_rows(LABELS)]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(entropy)
    rows = [text.get_text() for text in grid.get_yticklabels()]
    assert rows == [figures.short(TEXTS[row]) for row in figures.telling_rows(LABELS)]
    assert "within its row" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize("runs", [2, 60, 300])
def test_answers_of_few_and_of_many_runs(runs):
    labels = np.random.default_rng(0).integers(0, 6, (runs, 20))
    grid = figures.answers(labels, np.zeros(20, int), TEXTS[:20]).axes[0]
    grid.figure.draw_without_rendering()
    ticks = [text.get_window_extent() for text in grid.get_xticklabels()]
    assert not any(one.overlaps(other) for one, other in combinations(ticks, 2))


def test_answers_show_the_most_unstable_first_and_stable_last():
    rows = figures.telling_rows(LABELS)
    entropy = label_entropy(LABELS)[rows]
    assert entropy[0] == label_entropy(LABELS).max()
    assert (entropy[-4:] == 0).all()
    assert len(set(rows)) == len(rows)
    still = np.zeros((3, 5), int)
    assert len(figures.telling_rows(still)) == 4
    figures.answers(still, np.zeros(5, int), TEXTS[:5]).canvas.draw()


def test_ranks_of_answers_by_hand():
    assert instability._rank_of_answers(np.array([7, 7, 2, 7, 5, 5])).tolist() == [0, 0, 2, 0, 1, 1]


def test_the_bar_of_stable_queries_has_the_height_of_their_share():
    axis = figures.entropy_distribution(LABELS).axes[0]
    assert axis.patches[0].get_height() == pytest.approx(100 * np.mean(label_entropy(LABELS) == 0))


@pytest.mark.parametrize("changing", [0.004, 0.5, 1.0])
def test_labels_of_shares_stand_apart_and_inside_at_any_share(changing):
    labels = np.zeros((3, 500), int)
    labels[0, : int(500 * changing)] = 1
    figure = figures.entropy_distribution(labels)
    boxes = boxes_of(figure)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    share = figure.axes[0]
    assert all(share.bbox.y0 <= box.y0 and box.y1 <= share.bbox.y1 for box in boxes[:2])


@pytest.mark.parametrize("right", [0.02, 0.26, 0.8, 0.999])
def test_the_axis_of_accuracy_stays_between_0_and_100(right):
    draw = np.random.default_rng(0)
    gold = draw.integers(0, 60, 300)
    labels = np.where(draw.random((5, 300)) < right, gold, draw.integers(0, 60, (5, 300)))
    churned = scores.churn(labels).interval()
    pairs = churn_matrix(labels)[np.triu_indices(5, 1)]
    figure = figures.accuracy_and_churn((labels == gold).mean(1), pairs, churned)
    left, disagreement = figure.axes
    for axis in (left, disagreement):
        low, high = axis.get_xlim()
        dots = axis.lines[0].get_xdata()
        assert 0 <= low <= dots.min() and dots.max() <= high <= 100
    assert np.ptp(left.get_xlim()) == pytest.approx(np.ptp(disagreement.get_xlim()))
    [box] = boxes_of(figure)
    assert disagreement.bbox.x0 <= box.x0 and box.x1 <= disagreement.bbox.x1
    [whisker] = disagreement.containers[0].lines[2][0].get_segments()
    top = disagreement.transData.transform(whisker)[:, 1].max()
    assert box.y0 > top + 5  # the label does not run into its interval


# ---- intervals, proxies, runs


def test_intervals_are_scaled_cut_and_begin_where_they_are_told_to():
    rows = {"a": Interval(0.09, -0.01, 0.1, 5), "b": interval(0.095, 0.001)}
    axis = figures.intervals(rows, "%", 0.097, (0, 1), scale=100, start=0).axes[0]
    assert [bar.lines[0].get_xdata()[0] for bar in axis.containers] == pytest.approx([9])
    ends = [segment[:, 0].tolist() for segment in axis.containers[0].lines[2][0].get_segments()]
    assert ends == [pytest.approx([0, 10]), pytest.approx([9.4, 9.6])]
    start, end = axis.get_xlim()
    assert start == 0 and end > 10.2  # the reference and the intervals do not touch the edge


def test_a_curve_is_named_beside_it_and_its_axis_holds_it():
    rows = {"proxy": [interval(0.42, 0.02), interval(0.5, 0.02), interval(0.6, 0.02)]}
    axis = figures.through_training(rows, np.array([0.3, 0.6, 1.0]), 0.9).axes[0]
    assert "proxy" in [text.get_text() for text in axis.texts]
    assert axis.get_ylim()[0] < 0.4
    assert axis.get_legend() is None


def test_runs_needed_are_those_of_the_interval_over_runs():
    """Fails if the part that other queries add is taken for one that more runs would narrow."""
    over_runs = Interval(0.1, 0.09, 0.11, runs=10, se=0.005, df=9)
    both = Interval(0.1, 0.07, 0.13, runs=10, se=0.013, df=20, over_runs=over_runs)
    narrow, wide = figures.how_many_runs(both).axes[0].lines[:2]
    place = np.flatnonzero(narrow.get_xdata() == 10)
    assert narrow.get_ydata()[place] == pytest.approx(100 * 2.2622 * 0.005, rel=1e-3)
    assert wide.get_ydata()[place] == pytest.approx(100 * 2.0860 * 0.013, rel=1e-3)  # t(20)
    assert wide.get_ydata()[-1] > 100 * 1.96 * 0.012
    assert (wide.get_ydata() >= narrow.get_ydata()).all()  # also of three runs
    alone = figures.how_many_runs(over_runs).axes[0]
    assert alone.get_legend() is None


@pytest.mark.parametrize("runs", [5, 10, 40])
def test_the_curve_over_queries_passes_through_the_interval_that_is_stated(runs):
    churn = scores.churn(np.random.default_rng(0).integers(0, 3, (runs, 200))).interval()
    wide = figures.how_many_runs(churn).axes[0].lines[1]
    here = wide.get_ydata()[wide.get_xdata() == runs]
    assert here == pytest.approx(50 * (churn.high - churn.low))


def test_many_runs_are_on_the_axis():
    axis = figures.how_many_runs(Interval(0.1, 0.099, 0.101, 300, se=0.0005, df=299)).axes[0]
    assert axis.get_xlim()[1] >= 600
    assert "here: 300 runs" in [text.get_text() for text in axis.texts]


def test_update_churn_stands_beside_what_it_cannot_exceed():
    axis = figures.four_churns(updated()).axes[0]
    [bars] = [lines for lines in axis.collections if "can be no more" in str(lines.get_label())]
    assert [segment[0, 0] for segment in bars.get_segments()] == pytest.approx([10, 5, 3])
    drawn = [bar.lines[0].get_xdata().tolist() for bar in axis.containers]
    assert drawn == [pytest.approx([6, 2, 0]), pytest.approx([4, 3, 3]), pytest.approx([8, 4, 3])]
    assert axis.get_xlim()[0] < 0  # a mark at 0 is whole
    partly = figures.four_churns(updated().drop(columns="data_churn")).axes[0]
    assert len(partly.containers) == 2 and len(partly.collections) == 2


def test_a_method_has_a_mark_for_each_study_that_measured_it():
    both = pd.concat([updated().assign(study="one"), updated()[:1].assign(study="two")])
    axis = figures.across_studies(both).axes[0]
    first, second = (bar.lines[0] for bar in axis.containers)
    assert first.get_xdata().tolist() == pytest.approx([8, 4, 3])
    assert second.get_xdata().tolist() == pytest.approx([8])
    assert np.floor(first.get_ydata() + 0.5).tolist() == [0, 1, 2]
    assert first.get_ydata()[0] < second.get_ydata()[0] < 0.5
    assert axis.get_xlim()[0] <= 0


# ---- regions


def test_questions_and_spaces_are_spelled_out():
    shuffled = Clustering(interval(0.1), interval(0.0), np.nan, np.empty(0))
    axis = figures.nulls({"task": {"beyond difficulty": shuffled}}).axes[0]
    [row] = axis.get_yticklabels()
    assert "nearness to training texts" in row.get_text().replace("\n", " ")
    assert "tell intents apart" in axis.get_title("left").replace("\n", " ")


def test_what_could_not_be_tested_says_so():
    unknown = interval(np.nan)
    nothing = Clustering(unknown, unknown, np.nan, np.empty(0))
    axis = figures.nulls({"task": {"beyond binned difficulty": nothing}}).axes[0]
    assert [text.get_text().strip() for text in axis.texts] == ["cannot be tested here"]


@pytest.mark.parametrize(
    ("p", "words"), [(0.02, "p = 0.020"), (0.001, "p ≤ 0.001"), (1e-4, "p < 0.001")]
)
def test_no_p_value_is_zero(p, words):
    found = Clustering(interval(0.1), interval(0.0), p, np.zeros(99))
    axis = figures.nulls({"task": {"beyond binned difficulty": found}}).axes[0]
    assert [text.get_text() for text in axis.texts] == [words]


def test_what_costs_more_than_the_last_tick_is_on_the_axis():
    dear = priced().assign(trainings=[0.0, 15, 2, 2, 1], passes=[0.0, 15, 2, 1, 1])
    axis = figures.frontier(dear).axes[0]
    marks = [x for line in axis.lines for x in line.get_xdata() if line.get_marker() != "None"]
    assert axis.get_xlim()[0] < min(marks) and max(marks) < axis.get_xlim()[1]


def test_the_map_shows_its_regions_closer():
    xy = DRAW.random((200, 2))
    region = np.where(np.hypot(*(xy - 0.5).T) < 0.2, 0, -1)
    whole, closer, _ = figures.instability_map(xy, DRAW.random(200), region, ["middle"]).axes
    [outline] = closer.lines
    assert outline.get_xydata() == pytest.approx(xy[region == 0])
    assert np.ptp(closer.get_xlim()) < 0.6 < np.ptp(whole.get_xlim())
    assert [text.get_text() for text in closer.texts] == ["1"]
    assert len(figures.instability_map(xy, DRAW.random(200), region, []).axes) == 2


def test_the_map_names_isolated_intents_first_and_few(monkeypatch):
    monkeypatch.setattr(regions, "MOST_NAMED", 2)
    towns = np.array([[0.5, 0.5], [0.52, 0.5], [0.9, 0.1], [0.1, 0.9]])
    figure = figures.instability_map(
        DRAW.random((50, 2)), np.zeros(50), np.full(50, -1), [], towns, list("abcd")
    )
    assert {text.get_text() for text in figure.axes[0].texts} == {"c", "d"}


# ---- boards and methods


def test_a_board_is_drawn_as_it_stands():
    """Fails if a colour goes by anything else, or what lies far away is drawn where it is not."""
    reduced, accuracy = figures.trade_off(a_board()).axes
    rows = [label.get_text() for label in reduced.get_yticklabels()]
    assert rows == ["linear", "calm", "placebo", "rash, cost ×2", r"harmful \$ 1 \$"]
    dots = {
        axis: {
            float(bar.lines[0].get_ydata()[0]): (
                float(bar.lines[0].get_xdata()[0]),
                bar.lines[0].get_markerfacecolor(),
            )
            for bar in axis.containers
        }
        for axis in (reduced, accuracy)
    }
    assert dots[reduced] == {
        1: (pytest.approx(20), theme.BLUE),
        2: (0, theme.ORANGE),
        3: (-5, "white"),
    }
    assert [dots[accuracy][row][0] for row in range(4)] == pytest.approx([0.3, 0, 0.2, 0.1])
    assert [text.get_text() for text in reduced.texts] == ["100 %", "-200 %"]
    assert [text.get_text() for text in accuracy.texts] == ["-20 points"]
    assert reduced.get_xlim()[0] > -60 and reduced.get_xlim()[1] < 100
    assert accuracy.get_xlim()[0] > -4


def test_a_board_of_one_arm_far_away_is_drawn():
    figures.trade_off(a_board().iloc[3:4]).canvas.draw()


def frontier_marks(axis):
    """Height of each arm's mark, and the colour of its face."""
    found = {}
    for line in axis.lines:
        if line.get_linestyle() in ("-", "None") and len(line.get_xdata()) == 1:
            found[round(float(line.get_ydata()[0]), 6)] = line.get_markerfacecolor()
    return found


def test_the_frontier_fills_what_is_not_dominated():
    """Fails if the colour goes by anything else, or the linear model is left out for its price."""
    axis = figures.frontier(priced()).axes[0]
    assert frontier_marks(axis) == {
        100: theme.RED,
        40: theme.BLUE,
        30: theme.BLUE,
        10: "white",
    }
    named = {text.get_text() for text in axis.texts}
    assert named == {
        r"linear \$ SVM \$: accuracy +1.0 points",
        "ensemble of 5",
        "ensemble of 2",
        "calm",
    }
    words = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert "linear model (dominates 1 of 3 networks)" in words


def test_arms_of_one_cost_stand_side_by_side_at_it():
    axis = figures.frontier(priced()).axes[0]
    across = {
        round(float(line.get_ydata()[0])): float(line.get_xdata()[0])
        for line in axis.lines
        if len(line.get_xdata()) == 1
    }
    assert across[40] == pytest.approx(5)
    assert across[10] < 2 < across[30]
    assert across[10] * across[30] == pytest.approx(4)


def test_the_frontier_names_no_method_that_is_not_better_unless_asked(monkeypatch):
    """Fails if a method that is not significantly better is drawn as one to take."""
    table = priced().assign(better=["holds", "holds", "undecided at 5 runs", "holds", ""])
    monkeypatch.setattr(costs, "MOST_NAMED", 1)
    axis = figures.frontier(table).axes[0]
    named = {text.get_text() for text in axis.texts}
    assert named == {r"linear \$ SVM \$: accuracy +1.0 points", "ensemble of 5"}
    assert frontier_marks(axis)[30] == "white"
    axis = figures.frontier(table, named=["ensemble of 2"]).axes[0]
    assert "ensemble of 2" in {text.get_text() for text in axis.texts}


def test_linear_models_of_one_height_share_a_label_of_a_line_each():
    table = priced()
    second = table[:1].assign(arm="linear (both)", accuracy_change=[interval(-0.02)])
    [axis] = figures.frontier(pd.concat([table, second], ignore_index=True)).axes
    [label] = [text for text in axis.texts if text.get_text().startswith("linear")]
    first, other = label.get_text().splitlines()
    assert first.endswith("accuracy +1.0 points")
    assert other == "linear (both): accuracy -2.0 points"


def test_an_update_s_frontier_begins_at_0_and_fills_what_is_not_dominated():
    axis = figures.updates_frontier(updated()).axes[0]
    assert frontier_marks(axis) == {8: "white", 4: theme.BLUE, 3: theme.RED}
    assert axis.get_ylim()[0] == 0
    assert "control" in {text.get_text() for text in axis.texts}


def test_a_budget_names_an_arm_once_where_it_is_new():
    axis = figures.budgets(affordable()).axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["calm", "control", "pair", "three"]
    drawn = [bar.lines[0].get_ydata().tolist() for bar in axis.containers]
    assert drawn == [pytest.approx([10, 30, 30]), pytest.approx([10, 40, 50])]
    assert axis.get_ylim()[0] == 0
    assert axis.get_legend() is None  # it stands below


def test_the_strength_chosen_is_the_filled_dot():
    table = tuned()
    figure = figures.dose_response(table, ["one", "three"])
    above, below = np.array(figure.axes).reshape(2, 2)
    assert [axis.get_title("left") for axis in above] == ["one", "three"]
    assert [axis.get_xlabel() for axis in below] == ["strength", "strength"]
    for axis, method in zip(above, ["one", "three"], strict=True):
        own = table[table.method == method]
        hollow, filled = [line for line in axis.lines if line.get_marker() == "o"]
        assert hollow.get_ydata() == pytest.approx(own.label_entropy[~own.chosen])
        assert filled.get_ydata() == pytest.approx(own.label_entropy[own.chosen])
        assert filled.get_markerfacecolor() == theme.ORANGE
    least, most = table.label_entropy_low.min(), table.label_entropy_high.max()
    margin = 0.05 * (most - least)  # the axis begins where the lowest interval does, not at 0
    assert above[0].get_ylim() == pytest.approx((least - margin, most + margin), abs=1e-3)


def test_soft_labels_show_the_likeliest_answers_and_frame_the_label():
    soft = np.array([[0.5, 0.2, 0.3], [0.0, 0.95, 0.05]])
    figure = figures.soft_labels(soft, [2, 1], TEXTS[:2], ["a", "b_" * 30, "c"])
    [axis] = figure.axes
    bars = [bar for bar in axis.patches if not bar.get_hatch()]
    places = [(round(bar.get_x(), 9), round(bar.get_width(), 9)) for bar in bars[:3]]
    assert places == [(0.0, 0.5), (0.5, 0.3), (0.8, 0.2)]
    framed = [bar.get_edgecolor()[:3] == (0, 0, 0) for bar in bars]
    assert framed == [False, True, False, True, False, False]
    assert [text.get_text() for text in axis.texts] == [
        "a",
        "c",
        "b_" * 30,
        "c",
    ]  # where there is room
    for text, bar in zip(axis.texts, [bars[0], bars[1], *bars[3:5]], strict=True):
        assert np.all(text.get_window_extent().size <= bar.get_window_extent().size)
    assert len(figure.legends[0].get_texts()) == 3


def test_intents_are_named_where_their_accuracy_changes_significantly():
    axis = figures.per_intent(an_intent_each()).axes[0]
    assert sorted(text.get_text() for text in axis.texts) == [
        r"\$intent_0\$ (1)",
        r"\$intent_8\$ (9)",
    ]
    assert axis.get_title("left").startswith("9 intents: 1 less accurate, 1 more accurate")
    nothing = figures.per_intent(an_intent_each().assign(p=1.0, harmed=False)).axes[0]
    assert not nothing.texts
    assert nothing.get_title("left").startswith("9 intents: none less accurate, none more accurate")


def test_series_can_be_told_apart_in_grey():
    """By mark, by dashes or by hatching: hues of the colour-blind palette look alike in grey."""
    kinds = {name: mixed() for name in ("geometric", "arithmetic", "ensembles", "both")}
    curves = [box.lines[0] for box in figures.anchor_curve(kinds, alone()).axes[0].containers[1:]]
    lines = figures.selective({"single": refused(), "ensemble": refused()}).axes[0].lines
    for series in (curves, lines):
        assert len({line.get_marker() for line in series}) == len(series) > 1
        assert len({line.get_linestyle() for line in series}) == len(series)
    marks = figures.per_intent(an_intent_each()).axes[0].collections
    shapes = [mark.get_paths()[0].vertices for mark in marks if isinstance(mark, PathCollection)]
    assert len(shapes) == 3 and len(shapes[0]) == len(shapes[1]) < len(shapes[2])
    assert not np.allclose(shapes[0], shapes[1])
    same, changes = figures.entropy_distribution(LABELS).axes[0].patches
    assert not same.get_hatch() and changes.get_hatch()


# ---- ensembles and anchors


def test_what_votes_are_expected_to_leave_is_a_line():
    axis = figures.votes({"vote": sizes()}, {1: 0.12, 2: 0.1}, interval(0.12)).axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[1, 0.12], [2, 0.1]]
    assert axis.lines[0].get_linestyle() == "--"


def test_a_mixture_is_a_curve_in_churn_and_accuracy_with_its_weights():
    axis = figures.anchor_curve({"geometric": mixed()}, alone()).axes[0]
    curve = axis.containers[1].lines[0]
    assert curve.get_xdata() == pytest.approx([10, 5, 0])  # from weight 0 to 1
    assert curve.get_ydata() == pytest.approx([85, 90, 85])
    named = {text.get_text() for text in axis.texts}
    assert named == {"0.5", "one network", "linear (both)", r"ensemble of \$5\$"}
    shapes = [line.get_marker() for line in axis.lines if line.get_zorder() == 5]
    assert shapes == ["D", "^", "D"]
    members = mixed().drop(columns="weight").assign(size=[2, 5, 10])
    axis = figures.anchor_curve({"ensembles": members}, alone()).axes[0]
    assert {"2", "5", "10"} < {text.get_text() for text in axis.texts}


def test_odds_count_the_runs_that_agree(monkeypatch):
    monkeypatch.setattr(ensembles, "LIKELIEST", 2)
    network = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.8, 0.2, 0.0]])
    linear = np.array([0.1, 0.9, 0.0])
    mixture = (network + linear) / 2
    left, middle, right = figures.odds(network, linear, mixture, "abc", gold=1).axes
    assert "2 of 3 runs agree" in left.get_xlabel()
    assert "3 of 3 runs agree" in right.get_xlabel()
    assert [bar.get_width() for bar in middle.patches] == pytest.approx([0.9, 0.1])
    assert [label.get_text() for label in left.get_yticklabels()] == ["b ✓", "a"]
    first = left.collections[0]
    assert first.get_offsets()[:, 0].tolist() == pytest.approx(network[:, 1].tolist())
    filled = [tuple(colour[:3]) != (1, 1, 1) for colour in first.get_facecolors()]
    assert filled == [False, True, False]


# ---- settings


def test_responses_have_a_line_an_arm_in_the_order_of_the_setting():
    figure = figures.noise_response(noisy(), ["label_entropy", "accuracy"])
    left, right = figure.axes
    assert [line.get_xdata().tolist() for line in left.lines] == [[0, 10], [0, 10]]
    drawn = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert drawn == {"a": pytest.approx([30, 40]), r"\$b\$": pytest.approx([20, 10])}
    assert len(figure.legends[0].get_texts()) == 2
    one = figures.noise_response(noisy()[:2], ["churn", "accuracy"])
    assert not one.legends
    assert [axis.get_ylabel() for axis in one.axes] == ["churn (% of queries)", "accuracy (%)"]


def test_learning_has_a_mean_over_the_seeds_for_each_way():
    axis = figures.learning(learned(), 0.15).axes[0]
    slow, fast = [line for line in axis.lines if line.get_linewidth() == 2.5]
    assert [line.get_label() for line in (slow, fast)] == [r"\$slow\$", "fast"]
    assert slow.get_xdata().tolist() == [4, 8]
    assert fast.get_ydata() == pytest.approx([10.5, 20.5])


# ---- shown, saved, tables


def test_show_carries_the_caption_and_saves_both_kinds(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    figure = figures.entropy_distribution(LABELS)
    figures.show(figure, "entropy", "the finding", tmp_path)
    (data, more), (caption, _) = shown
    assert more["metadata"]["image/png"]["alt"] == "the finding" == data["text/plain"]
    assert caption.data == "*the finding*"
    assert (tmp_path / "entropy.png").read_bytes() == data["image/png"]
    assert (tmp_path / "entropy.svg").is_file()


def test_equal_tables_are_equal_pages_and_others_are_not():
    rows = pd.DataFrame({"arm": ["a", "<b>"], "churn": [0.1234, Interval(1, 1, 1, 1)]})
    page = figures.table(rows).to_html()
    assert page == figures.table(rows.copy()).to_html() != figures.table(rows.iloc[:1]).to_html()
    assert "0.123" in page and "&lt;b&gt;" in page and "_row0_" not in page
