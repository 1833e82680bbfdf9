"""Perturbed texts: what changes and what stays, and how trained networks answer them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from stabutils.analysis import perturbed
from stabutils.data.perturb import (
    OTHERS,
    PERTURBATIONS,
    drop_words,
    mistype,
    swap_synonyms,
)
from stabutils.data.perturb import (
    perturbed as perturb,
)
from stabutils.errors import InputError
from stabutils.metrics import churn
from stabutils.mitigations.data_centric import self_distillation
from stabutils.study.study import Study

TEXT = st.text(alphabet="abcdefgh' é?", min_size=1, max_size=40)


def many(change, texts, share):
    """Each text changed with the random numbers of a generator that all of them share."""
    draw = np.random.default_rng(0)
    return [change(text, draw, share) for text in texts]


def often(change, text, times):
    """What becomes of a text where every place of it is changed, by generator."""
    return [change(text, np.random.default_rng(seed), 1.0) for seed in range(times)]


@pytest.mark.parametrize("kind", PERTURBATIONS)
@given(texts=st.lists(TEXT, max_size=5), seed=st.integers(0, 3))
def test_what_becomes_of_a_text_depends_on_it_and_the_seed_alone(kind, texts, seed):
    changed = perturb(texts, kind, seed)
    assert len(changed) == len(texts)
    assert [perturb([text], kind, seed)[0] for text in texts] == changed


@pytest.mark.parametrize("change", PERTURBATIONS.values())
@given(text=TEXT)
def test_a_share_of_none_changes_no_word(change, text):
    assert change(text, np.random.default_rng(0), 0).split() == text.split()


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_another_seed_draws_another_change(kind):
    texts = [f"please turn off the light number {n} in the big kitchen" for n in range(50)]
    assert perturb(texts, kind, 0) != perturb(texts, kind, 1)


def test_the_draws_of_stored_runs_stay():
    """A run that answered changed texts bears their hash in its identity."""
    texts = ["turn off the light in the big kitchen now"]
    assert perturb(texts, "word drop", 2) == ["turn off the in the big kitchen now"]
    assert perturb(texts, "typos", 2) == ["turn off the ligt in the big kitchen now"]
    assert perturb(texts, "synonyms", 2) == ["switch off the light in the large kitchen now"]


@given(text=TEXT.filter(str.strip), share=st.floats(0.01, 1), seed=st.integers(0, 3))
def test_words_are_left_out_in_order_and_never_all(text, share, seed):
    changed = drop_words(text, np.random.default_rng(seed), share)
    words = iter(text.split())
    assert changed and all(word in words for word in changed.split())


def test_as_many_words_are_left_out_as_asked_for():
    texts = [" ".join(f"w{i}x{j}" for j in range(20)) for i in range(500)]
    left = np.mean([len(text.split()) for text in many(drop_words, texts, 0.3)])
    assert left == pytest.approx(14, abs=0.3)


def distance(one, other):
    """Edits (swap of neighbours, insertion, deletion, replacement) between two words."""
    table = {(i, -1): i + 1 for i in range(-1, len(one))}
    table |= {(-1, j): j + 1 for j in range(-1, len(other))}
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            options = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)]
            if i and j and a == other[j - 1] and b == one[i - 1]:
                options.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(options)
    return table[len(one) - 1, len(other) - 1]


@given(word=st.text(alphabet="qwertyuiopasdfghjklzxcvbnmé'", min_size=3, max_size=10))
def test_a_typo_is_one_edit(word):
    found = set(often(mistype, word + " of", 20))
    assert all(text.endswith(" of") for text in found)  # short words are left alone
    assert all(distance(word, text.split()[0]) <= 1 for text in found)
    assert found != {word + " of"} or len(set(word)) == 1


def test_a_replaced_letter_is_beside_on_the_keyboard():
    replaced = {
        text[1]
        for text in often(mistype, "sgsss", 300)
        if len(text) == 5 and text[1] not in "gs" and text[2:] == "sss"
    }
    assert replaced == set("ftyhvb")


def test_as_many_words_are_mistyped_as_asked_for():
    texts = [f"wonderful{chr(97 + i % 26)} music{i}" for i in range(2000)]
    pairs = zip(texts, many(mistype, texts, 0.2), strict=True)
    changed = np.mean(
        [a != b for one, other in pairs for a, b in zip(one.split(), other.split(), strict=True)]
    )
    assert 0.17 < changed < 0.21  # some edits change nothing


def test_every_wording_is_swapped_for_another_of_its_line():
    assert set(often(swap_synonyms, "What's the forecast?", 3)) == {"what is the forecast?"}
    assert "ſhow me" not in often(swap_synonyms, "ſhow me", 3)  # a long s is an s
    assert set(often(swap_synonyms, "somewhat's shops cities", 3)) == {"somewhat's shops cities"}
    for wording, others in OTHERS.items():
        assert others and wording not in others
        found = set(often(swap_synonyms, f"x {wording} y", 40))
        assert found == {f"x {other} y" for other in others}, wording
        assert re.fullmatch(r"[a-z' ]+", wording)


def test_so_many_places_are_swapped_as_asked_for():
    texts = [f"please find the big shop {n}" for n in range(2000)]
    swapped = np.mean(["please" not in text for text in many(swap_synonyms, texts, 0.3)])
    assert swapped == pytest.approx(0.3, abs=0.04)


def test_one_text_in_place_of_many_is_refused():
    with pytest.raises(InputError, match="texts: got 'wake me'; expected a list"):
        perturbed.variants_of("wake me")


def test_a_kind_that_changes_nothing_is_left_out():
    texts = [f"stelle den wecker bitte auf {n} uhr" for n in range(40)]
    variants = perturbed.variants_of(texts, 3)
    assert list(variants) == ["word drop", "typos"]
    assert [len(draws) for draws in variants.values()] == [3, 3]


# ---- what networks make of them


@pytest.fixture
def study(tmp_path, monkeypatch):
    path = tiny.project(tmp_path, monkeypatch)
    return Study(dataset=str(path), workers=1, epochs=2, runs=4)


def test_runs_answer_changed_texts_and_the_texts_themselves_as_ever(study, tmp_path):
    texts = study.data.test.texts
    variants = {"same": [texts], "dropped": [perturb(texts, "word drop", seed) for seed in (0, 1)]}
    plain, changed = perturbed.answered(study, variants, n=2)
    control = study.retrain("control", n=2)
    assert np.array_equal(plain, control.labels)
    assert np.array_equal(changed["same"][:, 0], control.labels)
    assert changed["dropped"].shape == (2, 2, 20)
    assert not np.array_equal(changed["dropped"][:, 0], changed["dropped"][:, 1])
    files = sorted(path.name for path in (tmp_path / "runs").glob("*.safetensors"))
    assert len(files) == 4 and sum("perturbed" in name for name in files) == 2
    again, _ = perturbed.answered(study, variants, n=2)  # read, not trained
    assert np.array_equal(again, plain)
    other, _ = perturbed.answered(study, {"same": [texts]}, n=2)
    assert np.array_equal(other, plain)
    assert len(list((tmp_path / "runs").glob("*perturbed*.safetensors"))) == 4


def test_other_arms_and_those_with_teachers_answer_them_too(study):
    variants = {"typos": [perturb(study.data.test.texts, "typos", 0)]}
    plain, changed = perturbed.answered(study, variants, self_distillation(), n=2)
    assert np.array_equal(plain, study.retrain(self_distillation(), n=2).labels)
    assert changed["typos"].shape == (2, 1, 20)


def test_a_variant_of_other_length_is_refused(study):
    with pytest.raises(InputError, match="texts of a variant: got 1; expected 20"):
        perturbed.answered(study, {"short": [["hello"]]})


def test_flips_and_their_table_by_hand():
    gold = np.zeros(4, int)
    plain = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    same = np.repeat(plain[:, None], 2, axis=1)
    moved = same.copy()
    moved[:, 0, 3] = 2  # one of two versions of the last query is answered otherwise, by all runs
    table = perturbed.compared(plain, {"same": same, "moved": moved}, gold).set_index("kind")
    assert table.share_changed["same"].value == 0 and table.share_changed["moved"].value == 0.5 / 4
    assert table.churn["same"].value == pytest.approx(churn(plain))
    assert table.accuracy["same"].value == pytest.approx(np.mean(plain == 0))
    # every run answers the changed version alike, so that only other queries would change the share
    assert table.share_changed["moved"].se == pytest.approx(np.std([0, 0, 0, 0.5], ddof=1) / 2)
    for name in ("share_changed", "accuracy", "churn"):
        assert table[name]["moved"].speaks_of == "new runs and new queries"
    assert table.auroc["same"].value == 0.5 < table.auroc["moved"].value
    assert table.correlation["same"].value == 0 < table.correlation["moved"].value
