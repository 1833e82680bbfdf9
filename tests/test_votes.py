"""Ensembles as arrays: who is a member of what, and what members answer together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gmean

from stabutils import metrics
from stabutils.errors import InputError
from stabutils.metrics.votes import HOW, combine, partition, vote, vote_model

# ---- members


@pytest.mark.parametrize("runs, size", [(10, 2), (10, 3), (10, 5), (50, 10), (7, 7)])
def test_replicas_of_a_partition_share_no_member(runs, size):
    """Fails if members are drawn with replacement, or for each replica anew."""
    for seed in range(5):
        groups = partition(runs, size, seed)
        assert groups.shape == (runs // size, size)
        assert len(np.unique(groups)) == groups.size and set(groups.ravel()) <= set(range(runs))


def test_partitions_are_random_and_repeatable():
    many = [partition(10, 3, seed) for seed in range(60)]
    assert np.array_equal(many[3], partition(10, 3, 3)) and not np.array_equal(many[0], many[1])
    counts = np.bincount(np.concatenate([groups.ravel() for groups in many]), minlength=10)
    assert counts.min() > 35  # each run is left out of one in ten, not always the last


@pytest.mark.parametrize("size", [1, 0, 11, 2.0, True, "2"])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(
        InputError, match="size of an ensemble: got .*; expected an integer from 2 to 10"
    ):
        partition(10, size)


# ---- what they answer


def test_combining_by_hand_and_by_scipy():
    """Fails if the mean runs over another axis, or logits are not put back on a scale of shares."""
    found = np.random.default_rng(0).dirichlet([0.5] * 4, (5, 60))
    assert combine(found) == pytest.approx(found.mean(0))
    geometric = gmean(found, axis=0)
    assert combine(found, "logit") == pytest.approx(geometric / geometric.sum(-1, keepdims=True))
    shares = (found.argmax(-1)[..., None] == np.arange(4)).mean(0)
    assert combine(found, "vote") == pytest.approx(shares, abs=1e-5)
    assert combine(found[None], "vote").shape == (1, 60, 4)
    with pytest.raises(
        InputError, match="how: got 'mean'; expected one of probability, logit, vote"
    ):
        combine(found, "mean")


def test_a_tie_of_votes_goes_to_the_higher_mean_probability():
    tie = np.array([[[0.55, 0.45]], [[0.1, 0.9]]])
    assert combine(tie, "vote").argmax(-1).tolist() == [1]
    assert combine(tie[:, :, ::-1], "vote").argmax(-1).tolist() == [0]
    assert combine(np.concatenate([tie, tie[:1]]), "vote").argmax(-1).tolist() == [
        0
    ]  # two to one: no tie


def test_votes_of_labels():
    """Fails if a tie is broken by the label's number: two votes would seem better than one."""
    labels = np.random.default_rng(0).integers(0, 4, (5, 300))
    counts = (labels[..., None] == np.arange(4)).sum(0)
    clear = (counts == counts.max(1, keepdims=True)).sum(1) == 1
    assert (
        np.array_equal(vote(labels)[clear], metrics.majority(labels)[0][clear])
        and 100 < clear.sum() < 290
    )
    assert np.all(np.take_along_axis(counts, vote(labels)[:, None], 1)[:, 0] == counts.max(1))
    assert vote(np.array([[3, 1], [1, 3]])).tolist() == [3, 1]
    assert vote(np.array([[3, 1], [1, 3]]), np.array([[0.2, 0.9], [0.3, 0.1]])).tolist() == [3, 3]
    assert vote(np.array([[3], [1], [1]]), np.array([[0.0], [0.9], [0.9]])).tolist() == [1]


def test_a_tie_goes_to_the_surer_member_however_narrow_its_doubt():
    labels, doubt = np.array([[4, 1], [2, 3]]), np.array([[0.02, 0.9], [0.01, 0.91]])
    for kind in (np.float16, np.float32, np.float64):
        assert vote(labels, doubt.astype(kind)).tolist() == [2, 1], kind


def test_the_partition_of_seed_zero_is_the_default():
    assert np.array_equal(partition(10, 3), partition(10, 3, 0))
    assert not np.array_equal(partition(10, 3), partition(10, 3, 1))


@pytest.mark.parametrize("how", HOW)
def test_several_ensembles_are_combined_at_once_and_their_shares_add_up(how):
    members = np.random.default_rng(0).dirichlet([0.5] * 4, (2, 5, 6)).astype(np.float32)
    both = combine(members, how)
    assert both.shape == (2, 6, 4) and both.sum(-1) == pytest.approx(1, abs=3e-7)
    assert both == pytest.approx(np.stack([combine(each, how) for each in members]), rel=1e-6)


def test_members_that_are_certain_of_different_answers_share_the_mean_logit():
    certain = np.eye(5, dtype=np.float32)[:4, None]  # four members, one example, five classes
    assert combine(certain, "logit")[0] == pytest.approx([0.25, 0.25, 0.25, 0.25, 0], abs=1e-6)


# ---- votes that follow a query's own odds


def test_imagined_ensembles_vote_by_the_odds_of_single_runs():
    """Of three votes at 4 to 1 the majority errs with 3 p^2 (1 - p) + p^3, of one with p."""
    labels = np.repeat([[0, 3], [0, 3], [0, 3], [0, 3], [1, 3]], [1, 1, 1, 1, 1], axis=0)
    for size, error in ((1, 0.2), (3, 3 * 0.04 * 0.8 + 0.008)):
        answers = vote_model(labels, size, 20_000, np.random.default_rng(0))
        assert answers.shape == (20_000, 2) and set(answers[:, 1]) == {3}
        assert np.mean(answers[:, 0] == 1) == pytest.approx(error, abs=0.01)
        assert set(answers[:, 0]) == {0, 1}


def test_votes_on_different_queries_are_drawn_independently():
    labels = np.array([[0, 0], [1, 1]])
    first, second = vote_model(labels, 1, 4000, np.random.default_rng(0)).T
    assert np.mean(first == second) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("size, draws", [(0, 1), (1, 0), (-1, 3)])
def test_an_ensemble_needs_a_vote_and_a_model_a_draw(size, draws):
    with pytest.raises(InputError, match="size and draws: got"):
        vote_model(np.zeros((2, 2), int), size, draws, np.random.default_rng(0))
    assert vote_model(np.zeros((2, 2), int), 1, 1, np.random.default_rng(0)).shape == (1, 2)
