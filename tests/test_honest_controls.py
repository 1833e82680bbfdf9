"""An anchor beside ensembles, and what any other voter does: every number against one by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_ensembles import labels_only, pool

from stabutils import metrics
from stabutils.analysis.anchors import mixed, with_fixed_run, with_own_run
from stabutils.analysis.board import board
from stabutils.analysis.ensembles import Pool, ensemble, share, table
from stabutils.errors import InputError
from stabutils.metrics.mixtures import Mixture, mix
from stabutils.metrics.votes import partition

RUNS = pool(12, 80)
OTHER = pool(1, 80, seed=9)
ANCHOR = Mixture(OTHER.probabilities[0], 0.4)


def test_runs_with_an_anchor_answer_the_mixture():
    held_out = Mixture(OTHER.validation_probabilities[0], 0.4)
    runs = mixed(RUNS, ANCHOR, held_out)
    expected = mix(RUNS.probabilities, OTHER.probabilities[0], 0.4)
    assert np.array_equal(runs.probabilities, expected.astype(np.float32))
    assert np.array_equal(runs.labels, expected.argmax(-1))
    assert np.allclose(runs.accuracy, (runs.labels == RUNS.gold).mean(1))
    assert np.allclose(runs.doubt, 1 - expected.max(-1), atol=1e-6)
    validation = mix(RUNS.validation_probabilities, OTHER.validation_probabilities[0], 0.4)
    assert np.array_equal(runs.validation_labels, validation.argmax(-1))
    assert runs.arm == "control with anchor, weight 0.4" and runs.checkpoint_entropy is None
    assert np.array_equal(mixed(RUNS, ANCHOR).validation_labels, RUNS.validation_labels)


def test_they_stand_on_a_board():
    rows = board(RUNS, {"anchored": mixed(RUNS, ANCHOR)}, n=5).set_index("arm")
    entropy = [metrics.label_entropy(runs.labels, 5).mean() for runs in (mixed(RUNS, ANCHOR), RUNS)]
    assert rows.loc["anchored", "reduction"].value == pytest.approx(1 - entropy[0] / entropy[1])


def test_a_fixed_run_votes_beside_all_others():
    runs = with_fixed_run(RUNS, 0.7, "arithmetic")
    assert len(runs) == 11 and runs.seeds.tolist() == list(range(1, 12))
    assert runs.names == RUNS.names[1:] and len(runs.cpu_seconds) == 11
    by_hand = 0.3 * RUNS.probabilities[5] + 0.7 * RUNS.probabilities[0]
    assert np.array_equal(runs.labels[4], by_hand.argmax(-1))
    assert "shared" in runs.arm
    assert metrics.churn(runs.labels) < metrics.churn(RUNS.labels[1:])  # any fixed voter does that


def test_a_run_of_ones_own_at_a_half_is_an_ensemble_of_two():
    runs = with_own_run(RUNS, kind="arithmetic")
    assert len(runs) == 6
    for pair in range(6):
        two = RUNS.probabilities[[pair, pair + 6]].mean(0)
        assert np.array_equal(runs.labels[pair], two.argmax(-1))
    assert "shared" not in runs.arm


@pytest.mark.parametrize("how", ["probability", "logit"])
def test_a_pool_with_an_anchor_answers_as_its_ensembles_with_it(how):
    for seed in range(3):
        by_hand = mixed(ensemble(RUNS, 3, how, seed), ANCHOR).labels
        assert np.array_equal(
            Pool(RUNS, how, anchor=ANCHOR).answers(partition(12, 3, seed)), by_hand
        )


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
    with pytest.raises(InputError, match="how: got 'vote'; expected probability or logit"):
        Pool(RUNS, "vote", anchor=ANCHOR)
    with pytest.raises(InputError, match="these published runs have labels and no probabilities"):
        mixed(labels_only(RUNS), ANCHOR)
    with pytest.raises(InputError, match="shape of the anchor"):
        mixed(RUNS, Mixture(OTHER.probabilities[0][:-1], 0.4))
