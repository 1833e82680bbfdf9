"""Figures: what is drawn is what was given, files are reproducible, alt text travels with the picture."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stabutils import figures
from stabutils.analysis.regions import Clustering
from stabutils.figures import instability, theme
from stabutils.metrics import churn, churn_matrix, label_entropy
from stabutils.metrics.intervals import Interval, jackknife
from stabutils.study.tuning import choose

DRAW = np.random.default_rng(0)
LABELS = np.where(DRAW.random((6, 40)) < 0.15, DRAW.integers(0, 4, (6, 40)), np.arange(40) % 4)
GOLD = np.arange(40) % 4
TEXTS = [
    f"query {i} costs $5 and <b>more</b> words than fit on a single line of this figure"
    for i in range(40)
]


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


def every():
    interval = jackknife(churn, LABELS)
    pairs = churn_matrix(LABELS)[np.triu_indices(6, 1)]
    line = [Interval(0.6, 0.5, 0.7, 6), Interval(0.8, 0.7, 0.9, 6)]
    return {
        "answers": figures.answers(LABELS, GOLD, TEXTS),
        "entropy": figures.entropy_distribution(LABELS),
        "accuracy": figures.accuracy_and_churn((LABELS == GOLD).mean(1), pairs, interval),
        "intervals": figures.intervals({"a": interval, "b": interval}, "churn", reference=0.5),
        "training": figures.through_training({"entropy": line}, np.array([0.5, 1.0]), 0.9),
        "map": figures.training_map(DRAW.random(40), DRAW.random(40), label_entropy(LABELS)),
        "runs": figures.how_many_runs(interval),
        "nulls": figures.nulls(
            {"words": {"anywhere": Clustering(interval, interval, 0.01, DRAW.normal(size=99))}}
        ),
        "regions": figures.instability_map(
            DRAW.random((40, 2)),
            label_entropy(LABELS),
            np.arange(40) % 5 - 1,
            ["a $ sign", "b"],
            DRAW.random((2, 2)),
            ["one", "two"],
        ),
        "board": figures.trade_off(a_board()),
        "doses": figures.dose_response(tuned(), ["two"]),
        "intents": figures.per_intent(an_intent_each()),
        "soft": figures.soft_labels(
            DRAW.dirichlet(np.ones(4), 3), GOLD[:3], TEXTS[:3], ["a $", "b", "c", "d"]
        ),
        "grid": figures.grid(cells(), "temperature", "mixing"),
        "frontier": figures.frontier(priced()),
        "votes": figures.votes(
            {"probability": sizes()},
            {1: [0.1, 0.12], 2: [0.1, 0.11], 5: [0.04, 0.05]},
            Interval(0.12, 0.1, 0.14, 10),
        ),
        "budgets": figures.budgets(affordable()),
        "selective": figures.selective({"single runs": refused(), "ensemble of 2": refused()}),
    }


def sizes():
    return pd.DataFrame(
        {
            "size": [2, 5],
            "label_entropy": [Interval(0.08, 0.07, 0.09, 10), Interval(0.04, 0, 0.08, 2)],
        }
    )


def priced():
    taken = [Interval(value, value - 0.1, value + 0.1, 5) for value in (1.0, 0.4, 0.3, 0.1, 0.0)]
    return pd.DataFrame(
        {
            "arm": ["convex", "ensemble of 5", "ensemble of 2", "calm", "control"],
            "reduction": taken,
            "trainings": [0.0, 5, 2, 2, 1],
            "passes": [0.0, 5, 2, 1, 1],
            "accuracy_change": [Interval(0.01, 0.0, 0.02, 5)] * 5,
            "better": ["holds", "holds", "holds", "holds", ""],
            "dominated": ["", "", "", "ensemble of 2", ""],
        }
    )


def affordable():
    best = [Interval(value, value - 0.1, value + 0.1, 5) for value in (0.1, 0.2, 0.3, 0.4)]
    return pd.DataFrame(
        {
            "trainings": [1, 1, 2, 2],
            "answer": ["one pass", "any", "one pass", "any"],
            "reduction": best,
            "arm": ["control", "calm", "calm", "ensemble of 2"],
        }
    )


def refused():
    line = [Interval(0.01, 0, 0.02, 5), Interval(0.1, 0.08, 0.12, 5)]
    return pd.DataFrame({"coverage": [0.5, 1.0], "churn": line, "error": line})


def cells():
    return {
        (t, m): Interval(t - m, t - m - 0.1, t - m + 0.1, 3)
        for t in (0.5, 2.0)
        for m in (0.1, 0.3, 0.7)
    }


def a_board():
    change = [Interval(value, value - 0.1, value + 0.1, 5) for value in (0.2, -0.05, 0.0, 1.0)]
    return pd.DataFrame(
        {
            "arm": ["calm", "rash", "placebo", "convex"],
            "reduction": change,
            "accuracy_change": [Interval(0.001 * i, -0.01, 0.012, 5) for i in range(4)],
            "trainings": [1.0, 2.0, 1.0, np.nan],
            "better": ["holds", "does not hold", np.nan, "holds"],
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
    intervals = [
        Interval(value, value - 0.1, value + 0.1, 5) for value in np.linspace(-0.2, 0.2, 9)
    ]
    return pd.DataFrame(
        {
            "intent": [f"intent_{i} $" for i in range(9)],
            "examples": np.arange(9) + 1,
            "label_entropy_change": intervals,
            "accuracy_change": intervals,
            "harmed": [True] + 8 * [False],
        }
    )


def test_a_board_is_drawn_as_it_stands():
    taken, accuracy = figures.trade_off(a_board()).axes
    assert [label.get_text() for label in taken.get_yticklabels()] == [
        "convex",
        "calm",
        "placebo",
        "rash (2)",
    ]
    dots = {
        axis: {
            line.get_ydata()[0]: (line.get_xdata()[0], line.get_color())
            for line in axis.lines
            if line.get_marker() == "o"
        }
        for axis in (taken, accuracy)
    }
    assert dots[taken] == {
        1: (pytest.approx(20), theme.BLUE),
        2: (0, theme.ORANGE),
        3: (-5, theme.GREY),
    }
    assert [dots[accuracy][row][0] for row in range(4)] == pytest.approx([0.3, 0, 0.2, 0.1])
    assert taken.get_xlim()[1] < 100  # what takes all away is drawn at the edge


def test_the_frontier_names_no_method_that_is_not_better(tmp_path):
    """Fails if a method without an interval beyond doubt is drawn as one to take."""
    table = priced().assign(better=["holds", "holds", "undecided at 5 runs", "holds", ""])
    axis = figures.frontier(table).axes[0]
    assert {text.get_text() for text in axis.texts} == {
        "convex: accuracy +1.0 points",
        "ensemble of 5",
    }


def test_the_dashed_line_is_that_of_the_largest_ensemble():
    table = priced().assign(
        arm=["convex", "vote of 5", "logits of 2", "ensemble distillation", "control"]
    )
    [line] = [
        line for line in figures.frontier(table).axes[0].lines if line.get_linestyle() == "--"
    ]
    assert line.get_ydata()[0] == pytest.approx(40)


def test_the_strength_chosen_is_the_filled_dot():
    table = tuned()
    axes = figures.dose_response(table, ["one", "three"]).axes
    assert [axis.get_title("left") for axis in axes[:2]] == ["one", "three"]
    for axis, method in zip(axes[:2], ["one", "three"], strict=True):
        dots = [line for line in axis.lines if line.get_marker() == "o"]
        filled = [dot.get_markerfacecolor() != "white" for dot in dots]
        own = table[table.method == method]
        assert filled == own.chosen.tolist()
        assert [dot.get_ydata()[0] for dot in dots] == pytest.approx(own.label_entropy)


def test_every_figure_has_labelled_axes_and_draws_without_a_warning():
    for name, figure in every().items():
        figure.canvas.draw()
        assert figure.get_supxlabel() or any(
            axis.get_xlabel() or axis.get_ylabel() for axis in figure.axes
        ), name


def test_saved_twice_is_the_same_file(tmp_path):
    for folder in ("a", "b"):
        figures.save(figures.answers(LABELS, GOLD, TEXTS), "answers", tmp_path / folder, "alt")
    for ending in ("png", "svg"):
        assert (tmp_path / f"a/answers.{ending}").read_bytes() == (
            tmp_path / f"b/answers.{ending}"
        ).read_bytes()
    assert "<b>" not in (tmp_path / "a/answers.svg").read_text(encoding="utf-8")


def test_answers_show_the_most_unstable_first_and_stable_last():
    rows = figures.telling_rows(LABELS, each=3)
    entropy = label_entropy(LABELS)[rows]
    assert (
        entropy[0] == label_entropy(LABELS).max()
        and (entropy[-3:] == 0).all()
        and len(set(rows)) == len(rows)
    )
    still = np.zeros((3, 5), int)
    assert len(figures.telling_rows(still)) == 4
    figures.answers(still, np.zeros(5, int), TEXTS[:5]).canvas.draw()


def test_ranks_of_answers_by_hand():
    assert instability._rank_of_answers(np.array([7, 7, 2, 7, 5, 5])).tolist() == [0, 0, 2, 0, 1, 1]


def test_the_bar_of_stable_queries_has_the_height_of_their_share():
    axis = figures.entropy_distribution(LABELS).axes[0]
    assert axis.patches[0].get_height() == pytest.approx(100 * np.mean(label_entropy(LABELS) == 0))


def test_show_carries_the_alt_text_and_saves_both_kinds(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append((data, more)))
    figures.show(every()["runs"], "runs", "the finding", tmp_path)
    ((data, more),) = shown
    assert more["metadata"]["image/png"]["alt"] == "the finding" == data["text/plain"]
    assert (tmp_path / "runs.png").read_bytes() == data["image/png"] and (
        tmp_path / "runs.svg"
    ).is_file()


def test_short_cuts_at_a_word_and_disarms_mathematics():
    assert figures.short("one two three", 9) == "one two …"
    assert figures.short("a\n b $x$") == r"a b \$x\$"


def test_soft_labels_show_the_likeliest_answers_and_the_label_in_grey():
    axis = figures.soft_labels(
        np.array([[0.5, 0.2, 0.3], [0.0, 0.9, 0.1]]), [2, 1], TEXTS[:2], ["a", "b", "c"]
    ).axes[0]
    bars = [
        (bar.get_x(), bar.get_width(), bar.get_facecolor())
        for bar in axis.patches
        if not bar.get_hatch()
    ]
    assert [(x, round(width, 9)) for x, width, _ in bars[:3]] == [
        (0.0, 0.5),
        (0.5, 0.3),
        (0.8, 0.2),
    ]
    greys = [color[0] == color[1] == color[2] for *_, color in bars]
    assert greys == [False, True, False, True, False, False]
    assert [text.get_text() for text in axis.texts] == ["a", "c", "b", "b"]
    assert [round(bar.get_width(), 9) for bar in axis.patches if bar.get_hatch()] == [
        0,
        0,
    ]  # nothing is left out here


def test_a_grid_has_each_cell_in_its_place():
    axis = figures.grid(cells(), "temperature", "mixing").axes[0]
    words = [text.get_text() for text in axis.texts]
    assert words[1] == "20.0 %\n[10.0, 30.0]" and len(words) == 6  # temperature 0.5, mixing 0.3
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "0.3", "0.7"]
    assert axis.get_ylabel() == "temperature"


def test_the_frontier_greys_what_is_dominated_and_shows_the_baseline():
    """Fails if the colour goes by anything else, or the convex learner is left out because it costs nothing."""
    axis = figures.frontier(priced()).axes[0]
    seen = {
        tuple(dots.get_offsets()[0].round(6)): tuple(dots.get_facecolor()[0][:3])
        for dots in axis.collections
    }
    colours = {height: colour for (_, height), colour in seen.items()}
    assert len(seen) == 4 and seen[(0.6, 100)] == pytest.approx(theme.RED)
    assert seen[(5, 40)] == pytest.approx(theme.BLUE) and colours[30] == pytest.approx(theme.BLUE)
    assert any(colour == pytest.approx(theme.GREY) for colour in seen.values())
    assert sorted(round(across) for across, _ in seen) == [
        1,
        2,
        2,
        5,
    ]  # those of one price stand at it, side by side
    named = {text.get_text() for text in axis.texts}
    assert named == {"convex: accuracy +1.0 points", "ensemble of 5", "ensemble of 2"}
    heights = sorted(text.xyann[1] for text in axis.texts)
    assert min(np.diff(heights)) > 0.02  # names do not lie on one another


def test_the_band_of_the_vote_model_spans_its_values():
    axis = figures.votes(
        {"vote": sizes()}, {1: [0.1, 0.12], 2: [0.11, 0.1]}, Interval(0.12, 0.1, 0.14, 10)
    ).axes[0]
    corners = axis.collections[0].get_paths()[0].vertices
    assert set(map(tuple, corners.round(6))) >= {(1, 0.1), (1, 0.12), (2, 0.1), (2, 0.11)}


def test_learning_has_a_mean_over_the_seeds_for_each_way():
    curves = pd.DataFrame(
        [
            {"way": way, "seed": seed, "seconds": look * pace, "accuracy": 0.1 * look + 0.01 * seed}
            for way, pace in (("slow", 4), ("fast", 1))
            for seed in (0, 1)
            for look in (1, 2)
        ]
    )
    axis = figures.learning(curves, 0.15).axes[0]
    means = [line for line in axis.lines if line.get_label() in ("slow", "fast")]
    assert [line.get_label() for line in means] == ["slow", "fast"]
    assert means[0].get_xdata().tolist() == [4, 8] and means[1].get_ydata() == pytest.approx(
        [10.5, 20.5]
    )


def test_equal_tables_are_equal_pages_and_others_are_not():
    rows = pd.DataFrame({"arm": ["a", "<b>"], "churn": [0.1234, Interval(1, 1, 1, 1)]})
    page = figures.table(rows).to_html()
    assert page == figures.table(rows.copy()).to_html() != figures.table(rows.iloc[:1]).to_html()
    assert "0.123" in page and "&lt;b&gt;" in page and "_row0_" not in page
