"""Updates: what is counted, by hand and by brute force, and methods that know the deployed
model.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as some

from stabutils.analysis import updates
from stabutils.analysis.baselines import of_changed_data
from stabutils.analysis.updates import Updates
from stabutils.errors import InputError
from stabutils.metrics import detection, intervals
from stabutils.mitigations import Composed, Mitigation, price
from stabutils.mitigations.anchored import Anchored
from stabutils.mitigations.data_centric import LogitInhibition
from stabutils.mitigations.interventions import Without
from stabutils.mitigations.regularizers import CoDistillation
from stabutils.mitigations.updates import APART, DeployedLabels, Interpolation, WarmStart
from stabutils.study.runs import of_answers
from stabutils.study.study import Study
from stabutils.training import stacked
from stabutils.training.loop import train
from stabutils.training.probes import PROBES, flat
from stabutils.training.state import Seeds

TASK = tiny.task()
OLD, NEW = Seeds(3, 3, 3), Seeds(APART + 3, APART + 3, APART + 3)


def pair(old, new, gold, matched=False):
    seeds = np.arange(len(old))
    before = of_answers("control", np.array(old), gold, seeds)
    after = of_answers("control", np.array(new), gold, APART + seeds)
    return Updates(before, after, matched)


def test_matched_flips_by_hand():
    found = pair([[0, 0, 1], [0, 1, 1]], [[0, 1, 0], [1, 1, 1]], [0, 0, 0], matched=True).flips()
    assert found["churn"].value == pytest.approx(3 / 6)
    assert found["negative_flips"].value == pytest.approx(2 / 6)
    assert found["positive_flips"].value == pytest.approx(1 / 6)


@given(some.integers(0, 10**6), some.integers(2, 6))
def test_flips_of_any_old_by_any_new_model_are_means_over_all_pairs(seed, count):
    draw = np.random.default_rng(seed)
    old, new, gold = (draw.integers(0, 3, shape) for shape in ((count, 20), (count, 20), 20))
    right = lambda labels: labels == gold  # noqa: E731
    by_pairs = {
        "churn": [a != b for a, b in product(old, new)],
        "negative_flips": [right(a) & ~right(b) for a, b in product(old, new)],
        "positive_flips": [~right(a) & right(b) for a, b in product(old, new)],
    }
    found = pair(old, new, gold)
    for name, score in found.flips().items():
        assert score.value == pytest.approx(np.mean(by_pairs[name]))
    assert found.chances() == pytest.approx(np.mean(by_pairs["churn"], axis=0))


def test_the_interval_of_all_pairs_is_the_jackknife_of_both_sides():
    """Fails if an old and a new model that are left out together count as one side only."""
    draw = np.random.default_rng(0)
    chance = draw.beta(0.4, 2, 400)
    old, new = ((draw.random((12, 400)) < chance).astype(int) for _ in range(2))
    score = pair(old, new, np.zeros(400, int)).flips()["churn"]
    interval = score.interval()

    def churn(old, new):
        return np.mean([np.mean(a != b) for a, b in product(old, new)])

    both = intervals.jackknife_arms(churn, [old, new], [np.arange(12), 50 + np.arange(12)])
    assert interval.value == pytest.approx(both.value)
    assert interval.over_runs.se == pytest.approx(both.se, rel=0.25)


def test_a_table_of_updates_judges_methods_against_control():
    draw = np.random.default_rng(1)
    gold, chance = draw.integers(0, 3, 600), draw.beta(0.3, 3, 600)

    def answers(share):
        wrong = draw.random((10, 600)) < share * chance
        return np.where(wrong, (gold + 1) % 3, gold)

    control = pair(answers(1.0), answers(1.0), gold)
    arms = {
        "calm": pair(answers(0.2), answers(0.2), gold),
        "same": pair(answers(1), answers(1), gold),
    }
    table = updates.table(control, arms, {"calm": (2.0, 1.0)}).set_index("arm")
    assert list(table.index) == ["calm", "same", "control"]
    assert table.better["calm"] == "holds" and table.better["same"] != "holds"
    assert table.churn_reduction["calm"].low > 0.5 and table.trainings["calm"] == 2
    keys = {number.key for number in updates.numbers(table.reset_index(), "drop 10 %")}
    assert (
        "churn, control; drop 10 %" in keys and "negative_flips_reduction, calm; drop 10 %" in keys
    )


def test_uncertainty_that_knows_foresees_and_blind_one_does_not():
    draw = np.random.default_rng(2)
    chance = draw.beta(0.3, 2, 500)
    old, new = ((draw.random((6, 500)) < chance).astype(int) for _ in range(2))
    changes = pair(old, new, np.zeros(500, int))
    for doubt, low, high in ((np.tile(chance, (6, 1)), 0.75, 1), (draw.random((6, 500)), 0.4, 0.6)):
        before = changes.before.__class__(**{**vars(changes.before), "doubt": doubt})
        found = updates.foreseen(Updates(before, changes.after))
        assert low < found["auroc"].value < high


def test_one_new_model_in_ten_is_a_tenth_of_them():
    new = np.zeros((10, 4), int)
    new[0, :2] = 1  # of each of the first two queries one answer in ten changes
    changes = pair(np.zeros((10, 4), int), new, np.zeros(4, int))
    assert changes.chances().tolist() == [0.1, 0.1, 0, 0]
    doubt = np.tile([0.9, 0.8, 0.1, 0.2], (10, 1))
    before = changes.before.__class__(**{**vars(changes.before), "doubt": doubt})
    found = updates.foreseen(Updates(before, changes.after))["auroc"]
    assert found.value == 1 and np.isnan(found.low) and found.note == "changes of one model"


def test_where_every_answer_changes_nothing_is_said_of_which():
    changes = pair(np.zeros((4, 9), int), np.ones((4, 9), int), np.zeros(9, int))
    doubt = np.random.default_rng(0).random((4, 9))
    before = changes.before.__class__(**{**vars(changes.before), "doubt": doubt})
    assert "auroc" not in updates.foreseen(Updates(before, changes.after))


def test_updates_need_as_many_new_models_as_old_ones():
    with pytest.raises(InputError, match="updates: got"):
        pair([[0], [1]], [[0]], np.zeros(1, int))


# ---- methods that know the deployed model


def deployed(extras):
    answers = train(TASK, Mitigation(), OLD, None, [PROBES[name] for name in extras])
    return answers, {name: answers[f"kept.{name}"][None] for name in extras}


def test_the_deployed_model_is_the_run_whose_seeds_are_apart():
    assert DeployedLabels().teacher_seeds(NEW) == (OLD,)
    with_data = Seeds(APART, APART, APART, APART + 7)
    assert WarmStart().teacher_seeds(with_data) == (Seeds(0, 0, 0, 7),)
    assert DeployedLabels(mixing=0.0).teacher_seeds(NEW) == ()
    with pytest.raises(InputError, match="seeds: got .* at least 100"):
        WarmStart().teacher_seeds(OLD)


def test_an_answer_of_the_old_weights_alone_is_the_deployed_model():
    old, teachers = deployed(("weights",))
    answers = train(TASK, Interpolation(weight=1.0), NEW, teachers=teachers)
    assert np.array_equal(answers["labels"], old["labels"])
    assert answers["probabilities"] == pytest.approx(old["probabilities"], abs=1e-6)


def test_an_interpolation_of_nothing_old_is_a_warm_start():
    _, teachers = deployed(("weights",))
    warm = train(TASK, WarmStart(), NEW, teachers=teachers)
    mixed = train(TASK, Interpolation(weight=0.0), NEW, teachers=teachers)
    assert np.array_equal(warm["probabilities"], mixed["probabilities"])


def test_a_start_that_keeps_nothing_is_control():
    _, teachers = deployed(("weights",))
    plain = train(TASK, Mitigation(), NEW)
    fresh = train(TASK, WarmStart(shrink=0.0, noise=1.0), NEW, teachers=teachers)
    assert np.array_equal(plain["probabilities"], fresh["probabilities"])


def test_weights_are_those_of_the_trained_network():
    class Final(Mitigation):
        def step(self, training):
            self.__dict__["model"] = training.model

    final = Final()
    answers = train(TASK, Composed((final,)), OLD, None, [PROBES["weights"]])
    assert np.array_equal(answers["kept.weights"], flat(final.__dict__["model"]).numpy())


def test_inhibition_pulls_towards_the_teachers_likeliest_classes():
    """By hand: teachers say 0.5, 0.25, 0.25, and the network one third each."""
    from stabutils.training.state import Batch

    wanted = torch.tensor([[0.5, 0.25, 0.25]]).log()
    batch = Batch(None, None, torch.ones(1), torch.tensor([0]), {"inhibition": wanted})
    loss = LogitInhibition(strength=1.0, top=1).loss(
        lambda: torch.zeros(1, 3), batch, lambda logits: torch.tensor(0.0)
    )
    assert loss.item() == pytest.approx(np.log(1.5) ** 2)
    assert price(LogitInhibition(), TASK.recipe) == (6.0, 1.0)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr("stabutils.training.preparation.prepare", tiny.prepare)
    monkeypatch.setenv("STABUTILS_RUNS", str(tmp_path / "runs"))
    path = tiny.write_csv(tmp_path / "tiny.csv")
    return Study(dataset=str(path), epochs=9, workers=1, change="drop 10 %")


@pytest.mark.parametrize("arm", [DeployedLabels(), WarmStart(), Interpolation()])
def test_a_method_that_knows_the_deployed_model_is_deployed_as_control(study, arm):
    plain = updates.update(study, n=2)
    own = updates.update(study, arm, n=2)
    assert own.matched and not plain.matched
    assert np.array_equal(own.before.labels, plain.before.labels)
    assert own.after.seeds.tolist() == [APART, APART + 1]


def test_keeping_the_old_model_whole_changes_nothing(study):
    plain = updates.update(study, n=3)
    assert updates.keeping_the_old(plain, 1.0).flips()["churn"].value == 0
    half = updates.keeping_the_old(plain).flips()["churn"].value
    matched = Updates(plain.before, plain.after, matched=True).flips()["churn"].value
    assert 0 < half < matched


def test_beside_an_anchor_updates_lie_between_the_network_and_the_linear_model(study):
    plain = updates.update(study, n=3)
    [anchor] = map(updates.of_linear, of_changed_data(study, np.r_[:3, APART : APART + 3]).values())
    assert anchor.before.probabilities.sum(-1) == pytest.approx(1, abs=1e-5)
    alone = updates.anchored(plain, anchor, 0.0)
    assert np.array_equal(alone.after.labels, plain.after.labels)
    whole = updates.anchored(plain, anchor, 1.0)
    assert np.array_equal(whole.before.labels, anchor.before.labels)
    mixed = updates.anchored(plain, anchor).after.probabilities[1]
    root = np.sqrt(plain.after.probabilities[1] * anchor.after.probabilities[1])
    assert mixed == pytest.approx(root / root.sum(-1, keepdims=True), abs=1e-5)
    with pytest.raises(InputError, match="these published runs have labels"):
        unsaid = replace(plain.before, probabilities=None)
        updates.anchored(Updates(unsaid, plain.after), anchor)


def test_who_knows_the_deployed_model_may_have_an_anchor_too(study):
    """At all of the weight old and new answer as their linear models do, pair by pair."""
    plain, own = (updates.update(study, arm, n=3) for arm in ("control", WarmStart()))
    [anchor] = map(updates.of_linear, of_changed_data(study, np.r_[:3, APART : APART + 3]).values())
    arms, costs = {"plain": plain, "warm start": own}, {"plain": (1.0, 1.0), "warm start": (1.5, 1)}
    found, prices = updates.successors_anchored(arms, costs, anchor, passes=2.0)
    assert prices == {"warm start with anchor at a half": (1.5, 2.0)}
    beside = found["warm start with anchor at a half"]
    assert beside.matched
    both = own.after.probabilities * anchor.after.probabilities
    assert np.array_equal(beside.after.labels, both.argmax(-1))
    # Published labels alone are no answer to its request; to the others they are.
    assert [request.mixed for request in study.requests[-4:]] == [False, False, False, True]


def test_new_examples_come_with_the_update(study):
    grown = replace(study, change="new examples 10 %")
    change = grown.task.change
    from stabutils.training.state import one_hot

    plain = one_hot(grown.task.train_labels, grown.task.classes)
    sizes = [len(change.apply(plain, grown.task.train, seed).indices) for seed in (0, APART)]
    assert sizes[0] == round(0.9 * sizes[1]) and sizes[1] == len(grown.data.train)


@pytest.mark.parametrize("seed", [95, 100])
def test_models_from_before_an_update_do_not_know_what_is_new(study, seed):
    late = replace(study, change="new examples 10 %", seed=seed, runs=6)
    with pytest.raises(
        InputError, match=rf"seed and runs: got \({seed}, 6\); expected at most 100 together"
    ):
        late.retrain("control", n=2)
    assert replace(study, change="drop 10 %", seed=seed, runs=6).task is not None


def test_linear_models_see_the_data_of_the_networks(study):
    """At another base seed too: all of the weight is the linear model of the run's own data."""
    late = replace(study, seed=7)
    plain = updates.update(late, n=2)
    [own] = updates.of_linear_models(late, 2).values()
    answers = updates.update(late, Anchored(1.0), n=2)
    assert np.array_equal(own.before.seeds, plain.before.seeds)
    for side in ("before", "after"):
        expected = getattr(own, side).probabilities
        assert getattr(answers, side).probabilities == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Interpolation(5.0), "Interpolation weight: got 5.0"),
        (lambda: Interpolation("half"), "Interpolation weight: got 'half'"),
        (lambda: WarmStart("x"), "WarmStart shrink: got 'x'"),
        (lambda: WarmStart(noise=-1.0), "WarmStart noise: got -1.0"),
        (lambda: DeployedLabels(teachers=5), "DeployedLabels: got 'teachers 5, shared False'"),
        (lambda: DeployedLabels(shared=True), "DeployedLabels: got 'teachers 1, shared True'"),
        (lambda: Without((1.9, 2)), "Without indices: got 1.9"),
        (lambda: Without((True,)), "Without indices: got True"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, message):
    with pytest.raises(InputError, match=f"^{message}; expected"):
        make()


def test_a_network_of_another_size_is_refused_by_name():
    _, teachers = deployed(("weights",))
    with pytest.raises(InputError, match=r"CoDistillation.* \+ WarmStart.*: got '\d+ weights'"):
        train(TASK, Composed((CoDistillation(), WarmStart())), NEW, teachers=teachers)


def test_plain_numbers_are_no_seeds(study):
    with pytest.raises(InputError, match=r"seeds: got \[0, 1\]; expected at least one `Seeds`"):
        study.retrain(seeds=[0, 1])


def test_what_answers_with_old_weights_trains_one_run_at_a_time():
    _, teachers = deployed(("weights",))
    with pytest.raises(InputError, match="Interpolation, as it is set"):
        stacked.train(TASK, Interpolation(), [NEW, NEW], (), [teachers, teachers], "cpu")


def test_updates_that_change_nothing_cannot_be_tested():
    still = pair(np.zeros((3, 9), int), np.zeros((3, 9), int), np.zeros(9, int))
    moves = pair(np.zeros((3, 9), int), np.eye(3, 9, dtype=int), np.zeros(9, int))
    for control, arm in ((still, still), (still, moves)):
        table = updates.table(control, {"calm": arm}).set_index("arm")
        assert table.better["calm"] == "cannot be tested here"


def test_what_is_foreseen_depends_on_the_new_models_too():
    draw = np.random.default_rng(4)
    chance = draw.beta(0.5, 2, 300)
    old = (draw.random((6, 300)) < chance).astype(int)
    shift = draw.random((6, 1)) < 0.5  # half of the new models change other queries
    new = (draw.random((6, 300)) < np.where(shift, chance, chance[::-1])).astype(int)
    changes = pair(old, new, np.zeros(300, int))
    doubt = np.clip(chance + 0.1 * draw.standard_normal((6, 300)), 0, 1)
    before = changes.before.__class__(**{**vars(changes.before), "doubt": doubt})
    found = updates.foreseen(Updates(before, changes.after))["correlation"]

    def by_hand(rows, others):
        shares = [(others != own).mean(0) for own in rows[..., 0]]
        pairs = zip(rows[..., 1], shares, strict=True)
        return np.mean([detection.rank_correlation(*own) for own in pairs])

    arms = [np.stack([old, doubt], -1), new]
    expected = intervals.jackknife_arms(by_hand, arms, [np.arange(6), 100 + np.arange(6)])
    alone = intervals.jackknife(lambda rows: by_hand(rows, new), arms[0])
    assert (found.value, found.over_runs.se) == pytest.approx((expected.value, expected.se))
    assert found.over_runs.se > 2 * alone.se


def test_more_updates_than_seeds_before_what_is_new_are_refused(study):
    late = replace(study, change="new examples 10 %", seed=90, runs=5)
    for ask in (updates.update, updates.of_linear_models, updates.four_churns):
        with pytest.raises(InputError, match=r"got \(90, 12\); expected at most 100 together"):
            ask(late, 12) if ask is not updates.update else ask(late, n=12)
