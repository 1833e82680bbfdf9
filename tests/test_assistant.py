"""The embedded corpus: sizes, tags, and what is planted where."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from stabutils.data.assistant import (
    CAUSES,
    FAMILIES,
    INTENT_SIZES,
    STRENGTHS,
    describe,
    generate,
)
from stabutils.data.datasets import load_dataset

SPLITS = ("train", "validation", "test")
REGIONS = sorted(f"{cause}:{strength}" for cause in CAUSES for strength in STRENGTHS[cause])


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def seed(request):
    return request.param


@pytest.fixture(scope="module")
def corpus(seed):
    return generate(seed)


def tagged(rows, tag):
    return [(text, intent) for text, intent, own in rows if own == tag]


def neutral_cues(planting):
    return next(f.neutral for f in FAMILIES if planting.intent in f.intents.split("|")).split("|")


def test_a_seed_is_a_corpus(corpus, seed):
    assert generate(seed) == corpus
    assert generate(seed + 10) != corpus
    assert generate() == generate(seed=0)


def test_other_seeds_plant_other_regions():
    assert len({describe(seed)["shared:strong"].intent for seed in range(20)}) >= 5
    assert len({describe(seed)["rare:strong"].intent for seed in range(20)}) >= 5
    assert len({describe(seed)["noise:strong"].topic for seed in range(20)}) >= 10


def test_sizes(corpus):
    sizes = {split: len(rows) for split, rows in corpus.items()}
    assert tuple(sizes) == SPLITS
    assert 1500 <= sizes["train"] <= 3000
    assert 400 <= sizes["validation"] <= 600
    assert 600 <= sizes["test"] <= 1000


def test_every_intent_is_in_every_split(corpus):
    names = {intent for family in FAMILIES for intent in family.intents.split("|")}
    assert len(names) == 22
    assert all({intent for _, intent, _ in corpus[split]} == names for split in SPLITS)


def test_every_cause_and_strength_has_enough_examples(corpus):
    counts = Counter(tag for _, _, tag in corpus["test"])
    assert sorted(counts) == ["clear", *REGIONS]
    assert min(counts.values()) >= 25
    assert counts["clear"] > len(corpus["test"]) / 2


def test_texts_are_clean_lines(corpus):
    texts = [text for split in SPLITS for text, _, _ in corpus[split]]
    assert all(re.fullmatch(r"[a-z']+( [a-z']+)+", text) for text in texts)
    assert not any(len(text.split()) > 25 for text in texts)


def test_no_text_twice(corpus):
    texts = [text for split in SPLITS for text, _, _ in corpus[split]]
    assert len(set(texts)) == len(texts)


def test_fillers_do_not_hide_a_training_sentence_in_test(corpus):
    fillers = set(
        "hey ok so um hi hello there alright well please thanks thank you cheers can could".split()
    )

    def core(text):
        return " ".join(word for word in text.split() if word not in fillers)

    seen = {core(text) for text, _, _ in corpus["train"]}
    assert not [text for text, _, _ in corpus["test"] if core(text) in seen]


@pytest.mark.parametrize("strength", STRENGTHS["shared"])
def test_shared_phrasings_go_to_both_intents_in_the_planted_share(corpus, seed, strength):
    planting = describe(seed)[f"shared:{strength}"]
    for split in SPLITS:
        rows = tagged(corpus[split], f"shared:{strength}")
        assert {intent for _, intent in rows} == {planting.intent, planting.sibling}
        leaning = sum(intent == planting.sibling for _, intent in rows)
        assert abs(leaning - STRENGTHS["shared"][strength] * len(rows)) <= 1
        spoken = [
            text.replace("what's", "what is").replace("how's", "how is").replace("don't", "do not")
            for text, _ in rows
        ]
        assert all(any(cue in text for cue in neutral_cues(planting)) for text in spoken)


@pytest.mark.parametrize("strength", STRENGTHS["rare"])
def test_rare_intents_have_the_planted_number_of_training_examples(corpus, seed, strength):
    planting = describe(seed)[f"rare:{strength}"]
    counts = Counter(intent for _, intent, _ in corpus["train"])
    pair = {planting.intent, planting.sibling}
    assert {counts[intent] for intent in pair} == {STRENGTHS["rare"][strength]}
    assert {intent for _, intent in tagged(corpus["test"], f"rare:{strength}")} == pair
    plantings = describe(seed).items()
    rare = {
        intent for tag, p in plantings if tag.startswith("rare") for intent in (p.intent, p.sibling)
    }
    assert (
        min(count for intent, count in counts.items() if intent not in rare)
        >= INTENT_SIZES["train"]
    )


@pytest.mark.parametrize("strength", STRENGTHS["noise"])
def test_noise_is_a_pocket_of_one_topic_with_flipped_training_labels_only(corpus, seed, strength):
    planting = describe(seed)[f"noise:{strength}"]
    tag = f"noise:{strength}"
    train = tagged(corpus["train"], tag)
    flipped = sum(intent == planting.sibling for _, intent in train)
    assert abs(flipped - STRENGTHS["noise"][strength] * len(train)) <= 1
    assert {intent for _, intent in train} == {planting.intent, planting.sibling}
    for split in SPLITS:
        assert all(planting.topic in text for text, _ in tagged(corpus[split], tag))
        siblings = [row for row in corpus[split] if row[1] in (planting.intent, planting.sibling)]
        word = re.compile(rf"\b{planting.topic}\b")
        assert {own for text, _, own in siblings if word.search(text)} == {tag}
    for split in ("validation", "test"):
        assert {intent for _, intent in tagged(corpus[split], tag)} == {planting.intent}


def test_planted_labels_are_mixed_within_every_sentence_not_by_its_words():
    # at 0.5 every sentence is said once for each intent
    rows = tagged(generate(0)["train"], "shared:strong")
    for cue in neutral_cues(describe(0)["shared:strong"]):
        counts = Counter(intent for text, intent in rows if f" {cue} " in f" {text} ")
        assert len(counts) == 2 and max(counts.values()) == min(counts.values())


def test_a_name_with_a_seed_is_a_corpus_of_its_own():
    own, other = load_dataset("assistant"), load_dataset("assistant:7")
    # Today's corpus bit for bit: whoever changes it changes every published number that rests on
    # it.
    assert own.fingerprint == "1339b39f742c52a4acfaa6bb35027db2515c4f8b8377d0b9bc13c2191bbeb6e7"
    assert load_dataset("assistant:0").fingerprint == own.fingerprint
    assert other.label_names == own.label_names and len(other.train) == len(own.train)
    assert len(set(other.test.texts) & set(own.test.texts)) < len(own.test) / 20
    key = describe(7)
    assert {key[region].intent for region in REGIONS} != {
        describe(0)[region].intent for region in REGIONS
    }
    for text, tag in zip(other.test.texts, other.test.tags, strict=True):
        assert not tag.startswith("noise") or key[tag].topic in text
