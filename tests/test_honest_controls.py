"""An anchor beside ensembles, and what any other voter does: every number against one by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny
from test_ensembles import labels_only, pool
from test_models import make_checkpoint

import stabutils as st
from stabutils import metrics
from stabutils.analysis.anchors import (
    RULES,
    anchor_of,
    beside,
    by_group,
    choices,
    chosen,
    goal,
    linear_of,
    mixed,
    path_of,
    telling,
    weighed,
    weight_of,
    with_fixed_run,
    with_own_run,
)
from stabutils.analysis.board import board
from stabutils.analysis.ensembles import Pool, ensemble, lead, share, table
from stabutils.analysis.trials import Trial
from stabutils.data.linear import Linear
from stabutils.errors import InputError
from stabutils.metrics.intervals import Interval
from stabutils.metrics.mixtures import Mixture, choose_weight, mix
from stabutils.metrics.votes import partition
from stabutils.mitigations.regularizers import LabelSmoothing
from stabutils.study import tuning
from stabutils.study.runs import take

RUNS = pool(12, 80)
OTHER = pool(1, 80, seed=9)
ANCHOR = Mixture(OTHER.probabilities[0], 0.4)


def test_runs_with_an_anchor_answer_the_mixture():
    runs = mixed(RUNS, ANCHOR)
    expected = mix(RUNS.probabilities, OTHER.probabilities[0], 0.4)
    assert np.array_equal(runs.probabilities, expected.astype(np.float32))
    assert np.array_equal(runs.labels, expected.argmax(-1))
    assert np.allclose(runs.accuracy, (runs.labels == RUNS.gold).mean(1))
    assert np.allclose(runs.doubt, 1 - expected.max(-1), atol=1e-6)
    assert runs.arm == "control with anchor, weight 0.4" and runs.checkpoint_entropy is None


def test_they_stand_on_a_board():
    rows = board(RUNS, {"anchored": mixed(RUNS, ANCHOR)}, n=5).set_index("arm")
    entropy = [metrics.label_entropy(runs.labels, 5).mean() for runs in (mixed(RUNS, ANCHOR), RUNS)]
    assert rows.loc["anchored", "reduction"].value == pytest.approx(1 - entropy[0] / entropy[1])


def test_a_fixed_run_votes_beside_all_others():
    runs = with_fixed_run(RUNS, 0.7)
    assert len(runs) == 11 and runs.seeds.tolist() == list(range(1, 12))
    by_hand = RUNS.probabilities[5] ** 0.3 * RUNS.probabilities[0] ** 0.7
    assert np.array_equal(runs.labels[4], by_hand.argmax(-1))
    assert "shared" in runs.arm
    assert metrics.churn(runs.labels) < metrics.churn(RUNS.labels[1:])


def test_a_run_of_ones_own_at_a_half_is_an_ensemble_of_two():
    runs = with_own_run(RUNS, 0.5)
    assert len(runs) == 6
    for pair in range(6):
        two = RUNS.probabilities[[pair, pair + 6]].prod(0)
        assert np.array_equal(runs.labels[pair], two.argmax(-1))
    assert "shared" not in runs.arm


def test_a_pool_with_an_anchor_answers_as_its_ensembles_with_it():
    for seed in range(3):
        by_hand = mixed(ensemble(RUNS, 3, seed=seed), ANCHOR).labels
        assert np.array_equal(Pool(RUNS, anchor=ANCHOR).answers(partition(12, 3, seed)), by_hand)


def test_an_anchor_may_overrule_runs_that_all_agree():
    agree = (RUNS.labels == RUNS.labels[0]).all(0)
    stubborn = Mixture(np.eye(4)[(RUNS.labels[0] + 1) % 4] * 0.96 + 0.01, 0.9)
    answers = Pool(RUNS, anchor=stubborn).answers(partition(12, 3))
    assert agree.any() and (answers[:, agree] != RUNS.labels[0, agree]).any()


def test_ensembles_with_an_anchor_are_held_against_single_runs_without():
    plain, anchored = (Pool(RUNS, anchor=beside).measure(3, n=4) for beside in (None, ANCHOR))
    assert anchored["label_entropy"].value < plain["label_entropy"].value
    before = metrics.label_entropy(RUNS.labels, 4).mean()
    expected = 1 - anchored["label_entropy"].value / before
    assert anchored["reduction"].value == pytest.approx(expected)
    nothing = Pool(RUNS, anchor=Mixture(ANCHOR.anchor, 0.0)).measure(3, n=4)
    assert nothing["reduction"] == plain["reduction"]
    rows = table(Pool(RUNS, anchor=ANCHOR), [3])
    assert rows.arm[0] == "ensemble of 3 with anchor, weight 0.4"


def test_the_share_of_an_ensembles_reduction():
    runs = mixed(RUNS, ANCHOR)
    found = share(Pool(RUNS), runs, 3, n=4)
    entropy = [metrics.label_entropy(labels, 4).mean() for labels in (runs.labels, RUNS.labels)]
    reference = Pool(RUNS).measure(3, n=4)["reduction"].value
    assert found.value == pytest.approx((1 - entropy[0] / entropy[1]) / reference)


def test_what_cannot_be_mixed_is_refused():
    for how in ("vote", "logit"):
        with pytest.raises(InputError, match=f"how: got '{how}'; expected probability, to be"):
            Pool(RUNS, how, anchor=ANCHOR)
    with pytest.raises(InputError, match="these published runs have labels and no probabilities"):
        mixed(labels_only(RUNS), ANCHOR)
    with pytest.raises(InputError, match="shape of the anchor"):
        mixed(RUNS, Mixture(OTHER.probabilities[0][:-1], 0.4))


# ---- ensembles beside an anchor, and what is said of them


def test_where_anchor_and_runs_agree_ensembles_need_not_be_asked():
    """The answers are those of the mixture everywhere."""
    some = take(RUNS, np.arange(4))
    sure = replace(
        ANCHOR, anchor=np.where(np.arange(80)[:, None] < 40, some.probabilities[0], ANCHOR.anchor)
    )
    beside = Pool(some, anchor=sure)
    assert 0 < beside.contested.mean() < 1
    groups = partition(4, 2, 0)
    expected = [sure(some.probabilities[own].mean(0)).argmax(-1) for own in groups]
    assert np.array_equal(beside.answers(groups), np.stack(expected))


def test_the_lead_over_ensembles_is_the_difference_of_accuracies():
    plain, arm = Pool(RUNS), mixed(RUNS, ANCHOR)
    interval = lead(plain, arm, 3)
    of_ensembles = plain.measure(3)["accuracy"].value
    assert interval.value == pytest.approx((arm.labels == RUNS.gold).mean() - of_ensembles)
    assert interval.low < interval.value < interval.high


def test_the_goal_asks_for_stability_and_accuracy():
    gold = Mixture(np.eye(RUNS.probabilities.shape[-1])[RUNS.gold], 0.9)
    wrong = Mixture(np.roll(gold.anchor, 1, axis=-1), 0.9)
    arms = {"helped": mixed(RUNS, gold), "misled": mixed(RUNS, wrong)}
    table = goal(Pool(RUNS), arms, 3).set_index("arm")
    assert table.reached.to_dict() == {"helped": "holds", "misled": "does not hold"}
    assert table.share_of_ensemble["misled"].low > 1 and table.accuracy_change["misled"].high < 0


@pytest.mark.parametrize(
    "low, high, reached",
    [(-0.004, -0.001, "holds"), (-0.008, 0.002, "undecided at 12 runs"), (-0.02, -0.006, "not")],
)
def test_half_a_point_less_than_the_ensemble_is_near_enough(monkeypatch, low, high, reached):
    change = Interval((low + high) / 2, low, high, 12)
    monkeypatch.setattr("stabutils.analysis.ensembles.lead", lambda *given: change)
    gold = Mixture(np.eye(RUNS.probabilities.shape[-1])[RUNS.gold], 0.9)
    [found] = goal(Pool(RUNS), {"helped": mixed(RUNS, gold)}, 3).reached
    assert found == reached.replace("not", "does not hold")


def test_groups_of_queries_are_scored_apart():
    arm = mixed(RUNS, ANCHOR)
    right = OTHER.labels[0] == RUNS.gold
    table = by_group(RUNS, arm, {"right": right, "wrong": ~right, "none": right & ~right})
    assert table.queries.tolist() == ["right", "wrong"]
    assert table.number.tolist() == [right.sum(), (~right).sum()]
    before, after = ((own.labels == own.gold)[:, right].mean() for own in (RUNS, arm))
    assert table.accuracy_change[0].value == pytest.approx(after - before)
    churns = [metrics.churn(own.labels[:, ~right]) for own in (RUNS, arm)]
    assert table.churn_change[1].value == pytest.approx(churns[1] - churns[0])
    assert table.churn[1].value == pytest.approx(churns[1])


def test_the_example_is_the_query_that_gains_most_of_those_asked_for():
    saved = metrics.label_entropy(RUNS.labels) - metrics.label_entropy(mixed(RUNS, ANCHOR).labels)
    best = int(saved.argmax())
    assert telling(RUNS, ANCHOR, np.ones(80, bool)) == best
    others = np.arange(80) != best
    assert telling(RUNS, ANCHOR, others) == np.flatnonzero(others)[saved[others].argmax()]


# ---- weights


@pytest.fixture
def study(tmp_path, monkeypatch):
    return st.Study(dataset=str(tiny.project(tmp_path, monkeypatch)), epochs=9, workers=1)


def test_weights_are_chosen_by_runs_that_stand_on_no_board(study):
    arms = {"control": "control", "smooth": LabelSmoothing(0.2)}
    table = chosen(study, arms)
    assert not study.requests  # nothing that a record would publish
    fresh = study.retrain("control", n=3, start=1000)
    assert fresh.seeds.tolist() == [1000, 1001, 1002]
    held_out, gold = anchor_of(study, "validation"), study.data.validation.labels
    for kind in ("geometric", "arithmetic"):
        expected = choose_weight(fresh.validation_probabilities, held_out, gold, kind)
        assert weight_of(table, kind=kind) == expected
    together = fresh.validation_probabilities.mean(0)[None]
    assert weight_of(table, "ensemble") == choose_weight(together, held_out, gold)
    assert weight_of(table, rule="half a point") >= 0
    assert np.mean(held_out.argmax(-1) == gold) == table.linear[0]
    assert table.arm.unique().tolist() == ["control", "smooth", "ensemble"]
    with pytest.raises(InputError, match="arm: got 'rough'"):
        weight_of(table, "rough")


def test_half_a_point_allows_no_more_than_it_says():
    """Of 300 texts one is lost from 0.4 on, and another from 0.7 on: a third and two thirds of a
    point."""
    network, anchor = np.tile([0.9, 0.1], (300, 1)), np.tile([0.9, 0.1], (300, 1))
    network[0], anchor[0] = [0.6, 0.4], [0.3, 0.7]
    network[1], anchor[1] = [0.85, 0.15], [0.3, 0.7]
    found = RULES["half a point"](network[None], anchor, np.zeros(300, int), "arithmetic")
    assert 0.3 < found < 0.7
    lost = [
        (mix(network, anchor, weight, "arithmetic").argmax(-1) == 1).sum()
        for weight in (found, found + 0.05)
    ]
    assert lost == [1, 2]


def test_methods_beside_the_anchor_have_weights_of_their_own():
    methods = {"corrected": "control", "R-Drop": "control"}
    assert list(weighed(methods)) == ["control", "R-Drop"]
    weights = [
        {"arm": arm, "rule": rule, "weight": weight, "kind": "geometric", "share": 1.0}
        for arm, weight in (("control", 0.3), ("R-Drop", 0.6))
        for rule in RULES
    ]
    arms = {"R-Drop": take(RUNS, np.arange(5, 10)), "corrected": take(RUNS, np.arange(5))}
    costs = {"R-Drop": (2.0, 1.0), "corrected": (1.0, 1.0)}
    given = Trial(RUNS, RUNS, arms, costs, {}, {}, ())
    found = beside(given, OTHER.probabilities[0], pd.DataFrame(weights), 2.0)
    expected = mixed(arms["R-Drop"], Mixture(OTHER.probabilities[0], 0.6))
    assert np.array_equal(found.arms["R-Drop with anchor"].probabilities, expected.probabilities)
    assert found.costs["R-Drop with anchor"] == (2.0, 2.0)
    assert not [name for name in found.arms if name.startswith("corrected with")]


def test_the_anchor_of_a_checkpoint_reads_all_its_layers(tmp_path):
    checkpoint = str(make_checkpoint(tmp_path / "encoder"))
    corpus = str(tiny.write_csv(tmp_path / "tiny.csv"))
    assert linear_of(st.Study(corpus, checkpoint)) == Linear("both", layer="all")
    assert linear_of(st.Study(corpus)) == Linear("tfidf")


def test_committed_choices_are_read_for_the_same_study_only(study, monkeypatch):
    table = choices(study, {"control": "control"}).assign(weight=0.123)
    tuning.write(table, path_of(study))
    assert weight_of(chosen(study, {"control": "control"})) == 0.123
    longer = replace(study, epochs=2)
    assert weight_of(chosen(longer, {"control": "control"})) != 0.123
    assert weight_of(chosen(study, {"control": "control", "more": "control"})) != 0.123
    tuning.write(table.drop(columns="features"), path_of(study))  # of an earlier version
    assert weight_of(chosen(study, {"control": "control"})) != 0.123
    tuning.write(table.assign(features="both"), path_of(study))  # of another anchor
    assert weight_of(chosen(study, {"control": "control"})) != 0.123


def test_a_linear_model_of_fewer_texts_knows_less(study):
    whole, some = (anchor_of(study, share=share) for share in (1.0, 0.3))
    assert whole.shape == some.shape and np.allclose(some.sum(1), 1, atol=1e-5)
    assert not np.array_equal(whole, some)
