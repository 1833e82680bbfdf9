"""The embedded corpus: what people say to a voice assistant, generated, with planted causes of
instability.

Eleven *families* of two sibling intents (music and podcast, call and message, ...). Every utterance
starts from a frame of its family ("put on {x} about {t} {w}"): {x} is a cue that tells the siblings
apart ("a song", "an episode"), {t} a topic, {w} a detail that carries no label; an opener, a
closer, contractions and a few typos come on top. The seed deals the nine plantings of `STRENGTHS`
(three causes, three strengths) to nine of the families, one each:

    shared   the siblings share phrasings: the cue is neutral ("something") and a share of the
             utterances belongs to the second intent, in every split alike; at 0.5 nothing can tell
             them apart
    rare     both siblings have only 20, 10 or 5 training examples, in the same frames
    noise    a pocket of label noise: one intent's utterances about one topic, of which a share is
             labelled as the sibling in train only; validation and test are clean

In train each sentence of a shared or noisy region is said twice, and it is the second saying that
belongs to the sibling: so the words of a sentence do not give its label away, and what a retrained
model answers there is up to its seed. Everything else is `clear`: the cue decides and has been seen
often.

Where each cause lies, and how strong it is, is thus known, and one can ask whether a measure finds
it. Another seed plants other regions; `describe` tells where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

# shared: share of the second intent; rare: training examples a sibling; noise: flipped share of
# train labels
STRENGTHS: dict[str, dict[str, float]] = {
    "shared": {"weak": 0.15, "medium": 0.30, "strong": 0.50},
    "rare": {"weak": 20, "medium": 10, "strong": 5},
    "noise": {"weak": 0.15, "medium": 0.30, "strong": 0.45},
}
CAUSES = tuple(STRENGTHS)
INTENT_SIZES = {"train": 62, "validation": 14, "test": 21}  # examples of an intent
# Of what is planted beside a family's intents.
REGION_SIZES = {"train": 78, "validation": 16, "test": 32}


class Family(NamedTuple):
    """Two sibling intents and their words; fields hold alternatives separated by a bar."""

    intents: str
    frames: str
    first: str
    second: str
    neutral: str
    topics: str
    details: str


class Planting(NamedTuple):
    """What is planted in a family: the intent, the sibling it is confused with, a noisy pocket's
    topic.
    """

    cause: str
    strength: str
    intent: str
    sibling: str
    topic: str


FAMILIES = (
    Family(
        "alarm|timer",
        "set {x} for {t} {w}|i need {x} for {t} {w}|start {x} for {t} {w}|make {x} for {t} {w}"
        "|give me {x} for {t} {w}",
        "an alarm|a wake up call|a morning bell|an early buzz|a bedside ring",
        "a timer|a countdown|a stopwatch|an hourglass|a minute counter",
        "a beep|a signal|a chime|something that pings|a heads up",
        "yoga|the school run|the oven|my nap|the laundry|the early train|breakfast|my "
        "medicine|the gym"
        "|the night shift|the tea|homework",
        "in twenty minutes|at half past six|in an hour|at seven sharp|after lunch|before "
        "dinner|tomorrow"
        "|tonight",
    ),
    Family(
        "reminder|calendar",
        "{x} the {t} {w}|{x} my {t} {w}|{x} our {t} {w}|{x} that {t} {w}|{x} the next {t} {w}",
        "remind me about|do not let me forget|give me a nudge about|ping me about|jog my "
        "memory about",
        "schedule|book|pencil in|block time for|arrange",
        "note down|log|keep track of|take down|sort out",
        "dentist visit|team meeting|piano lesson|car service|birthday dinner|parents "
        "evening|haircut"
        "|book club|job interview|rent payment|vet visit|dance class",
        "on monday|on thursday|next week|tomorrow morning|at noon|on the third|this weekend|in "
        "april",
    ),
    Family(
        "call|message",
        "{x} {t} {w}|i have to {x} {t} {w}|help me {x} {t} {w}|let us {x} {t} {w}|i want to "
        "{x} {t} {w}",
        "call|phone|ring|dial|speak on the line with",
        "text|message|write to|email|send a note to",
        "contact|reach|get in touch with|get hold of|check in with",
        "my sister|grandma|doctor lee|the plumber|my boss|uncle joe|the landlord|aunt "
        "maria|the coach"
        "|the bank|my neighbor|tom from work",
        "about the party|about tonight|before lunch|about the bill|this evening|about the "
        "keys|after work"
        "|on the way home",
    ),
    Family(
        "music|podcast",
        "play {x} about {t} {w}|put on {x} about {t} {w}|find {x} about {t} {w}"
        "|i want to hear {x} about {t} {w}|queue {x} about {t} {w}",
        "a song|a tune|a track|a playlist|an album",
        "a podcast|an episode|a talk show|an interview|a radio story",
        "something|anything good|whatever is popular|one of my favorites|that thing",
        "summer|love|the ocean|space|winter|trains|old friends|dragons|football|new "
        "york|dogs|the moon",
        "in the car|on the big speaker|for the drive|at low volume|for my run|while i cook|for "
        "the kids"
        "|on my headphones",
    ),
    Family(
        "lights|thermostat",
        "{x} in the {t} {w}|{x} over in the {t} {w}|{x} down in the {t} {w}|in the {t} {x} {w}"
        "|i want to {x} in the {t} {w}",
        "turn on the lights|dim the lamps|make it brighter|change the bulb color|switch off "
        "the lantern",
        "turn up the heating|lower the thermostat|make it warmer|cool it down|switch on the "
        "radiator",
        "make it cosier|make it nicer|set the mood|adjust things|get it ready",
        "kitchen|bedroom|hallway|garage|nursery|bathroom|office|attic|living "
        "room|basement|guest room"
        "|dining room",
        "for tonight|before bed|for the guests|a little|for the morning|until ten|right "
        "now|after dinner",
    ),
    Family(
        "shopping|recipe",
        "{x} {t} {w}|{x} some {t} {w}|{x} fresh {t} {w}|{x} more {t} {w}|{x} good {t} {w}",
        "buy|order|put on the list|stock up on|add to the basket",
        "cook|find a recipe with|how do i bake|show me how to prepare|teach me to roast",
        "i need|sort out|take care of|think of|plan",
        "salmon|mushrooms|pumpkin|lentils|chicken|noodles|tomatoes|apples|potatoes|cheese|spinach"
        "|black beans",
        "for dinner|for sunday|for the party|for two people|for the kids|for lunch "
        "tomorrow|for the picnic"
        "|for my parents",
    ),
    Family(
        "news|sports",
        "{x} from {t} {w}|{x} in {t} {w}|{x} around {t} {w}|{x} over in {t} {w}|{x} near {t} {w}",
        "read me the headlines|what is the news|any breaking stories|open the front page"
        "|what do the papers say",
        "what are the scores|list the match results|who won the game|how did the team do"
        "|show the league table",
        "what happened|catch me up on things|what did i miss|give me the latest"
        "|bring me up to date",
        "madrid|chicago|brazil|scotland|munich|toronto|japan|naples|sweden|boston|ghana|turkey",
        "yesterday|last night|over the weekend|this morning|so far today|since friday|this "
        "week|on sunday",
    ),
    Family(
        "navigation|traffic",
        "{x} to {t} {w}|{x} over to {t} {w}|{x} from here to {t} {w}|{x} back to {t} {w}"
        "|{x} straight to {t} {w}",
        "give me directions|navigate|find a route|show me the way|guide me",
        "how bad is the traffic|are there delays|is there a jam|how busy is the highway"
        "|any accidents on the way",
        "check the trip|think about the drive|what about the ride|prepare the journey"
        "|help me with the commute",
        "the airport|the stadium|work|the mall|downtown|the station|the beach|the hospital|the "
        "museum"
        "|the harbor|the zoo|the university",
        "at rush hour|this afternoon|before nine|after the show|by car|with one stop|on saturday"
        "|later today",
    ),
    Family(
        "weather|clock",
        "{x} in {t} {w}|{x} over in {t} {w}|in {t} {x} {w}|{x} around {t} {w}|{x} here in {t} {w}",
        "what is the weather|will it rain|show the forecast|how hot is it|is it sunny",
        "what time is it|what hour is it|what does the watch say|is it past midnight|is it "
        "morning yet",
        "what is it like|how are things|can i go out|check the situation|how does it look",
        "tokyo|lisbon|nairobi|sydney|denver|oslo|lima|mumbai|cairo|vienna|seattle|dublin",
        "right now|at the moment|when i land|when we arrive|for my brother|at this point|as we "
        "speak"
        "|when you check",
    ),
    Family(
        "translate|define",
        "{x} the word {t} {w}|{x} {t} {w}|{x} the term {t} {w}|{x} the expression {t} {w}"
        "|{x} the simple word {t} {w}",
        "translate|how do i say in spanish|put into french|turn into german"
        "|what is the italian for",
        "define|what is the meaning of|look up in the dictionary|clarify|in which sense do we use",
        "help me with|what about|check|i do not know|tell me",
        "gratitude|butterfly|homesick|thunder|patience|cheerful|railway|harvest|courage|lighthouse|stubborn"
        "|bargain",
        "for my homework|before class|for a letter|for the quiz|for my daughter|in one "
        "line|for a friend"
        "|once more",
    ),
    Family(
        "joke|fact",
        "tell me {x} about {t} {w}|i want {x} about {t} {w}|give me {x} about {t} {w}"
        "|do you know {x} about {t} {w}|share {x} about {t} {w}",
        "a joke|a pun|a funny one liner|a limerick|a gag",
        "a fact|trivia|a statistic|a bit of history|a piece of science",
        "something|a good one|anything new|a sentence or two|your favorite",
        "penguins|robots|coffee|pirates|elephants|volcanoes|bananas|castles|spiders|dentists|camels|bees",
        "for my kids|at breakfast|for the party|before school|for a card|for my class|to pass "
        "the time"
        "|for grandpa",
    ),
)
OPENERS = ("|" * 24 + "hey|ok|so|um|hi|hello|hey there|alright|well|excuse me|good morning").split(
    "|"
)
ASKING = ("|" * 8 + "can you|could you|would you|please|i would like you to").split("|")
CLOSERS = ("|" * 14 + "please|thanks|thank you|if you can|if that is ok|cheers|when you can").split(
    "|"
)
# first words of sentences that "could you" cannot stand before
NOT_ORDERS = frozenset("what how is are will any who can do did i anything let in".split())
TYPOS = {
    "please": "plese",
    "thanks": "thx",
    "thank you": "thankyou",
    "could you": "coud you",
    "would you": "woud you",
    "hello": "helo",
    "alright": "allright",
    "good morning": "good mornign",
    "excuse me": "exuse me",
    "ok": "okay",
}
CONTRACTIONS = {
    "what is": "what's",
    "do not": "don't",
    "how is": "how's",
    "i would": "i'd",
    "let us": "let's",
}


def generate(seed: int = 0) -> dict[str, list[tuple[str, str, str]]]:
    """Makes the splits "train", "validation" and "test", each a list of (text, intent, tag).

    A tag is "clear" or "<cause>:<strength>". No text occurs twice, and no sentence of test or
    validation occurs in train, whatever its fillers.

    >>> corpus = generate(seed=0)
    >>> sorted(corpus), len({intent for _, intent, _ in corpus["train"]})
    (['test', 'train', 'validation'], 22)
    >>> sum(tag == "rare:strong" for _, _, tag in corpus["train"])
    10
    """
    rng = np.random.default_rng(seed)
    corpus: dict[str, list[tuple[str, str, str] | None]] = {split: [] for split in INTENT_SIZES}
    for family, planting in zip(FAMILIES, _plantings(rng), strict=True):
        for cause, intent, cues, topics in _regions(family, planting):
            cores = _cores(rng, family, cues, topics)
            beside = cause in ("shared", "noise")
            sizes = REGION_SIZES if beside else INTENT_SIZES
            for split, size in sizes.items():
                times = 2 if beside and split == "train" else 1
                texts: list[str] = []
                for _ in range(size // times):
                    texts += _said(rng, next(cores), times)
                corpus[split] += _labelled(texts, split, intent, cause, planting)
    # None stands for what a rare intent goes without, and is shuffled like the others: the order of
    # published corpora rests on it
    shuffled = {}
    for split, rows in corpus.items():
        drawn = [rows[i] for i in rng.permutation(len(rows))]
        shuffled[split] = [row for row in drawn if row]
    return shuffled


def describe(seed: int = 0) -> dict[str, Planting]:
    """Tells where each cause is planted: {"<cause>:<strength>": Planting}, the answer key of a
    corpus seed.

    >>> key = describe(seed=0)
    >>> len(key), key["noise:strong"].intent, key["noise:strong"].sibling, key["noise:strong"].topic
    (9, 'translate', 'define', 'butterfly')
    """
    plantings = _plantings(np.random.default_rng(seed))
    return {f"{p.cause}:{p.strength}": p for p in plantings if p.cause != "clear"}


def _plantings(rng: np.random.Generator) -> list[Planting]:
    """One planting a family, in the order of FAMILIES; two families stay clear."""
    kinds = [(cause, strength) for cause in CAUSES for strength in STRENGTHS[cause]]
    kinds += [("clear", "")] * (len(FAMILIES) - len(kinds))
    plantings = []
    for family, kind in zip(FAMILIES, rng.permutation(len(kinds)), strict=True):
        cause, strength = kinds[kind]
        intent, sibling = rng.permutation(family.intents.split("|")).tolist()
        topic = str(rng.choice(family.topics.split("|")))
        topic = topic if cause == "noise" else ""
        plantings.append(Planting(cause, strength, intent, sibling, topic))
    return plantings


def _regions(family: Family, planting: Planting) -> list[tuple[str, str, str, list[str]]]:
    """(cause, intent, cues, topics) of the family's two intents and of the region planted beside
    them.
    """
    cues = dict(zip(family.intents.split("|"), (family.first, family.second), strict=True))
    topics = [topic for topic in family.topics.split("|") if topic != planting.topic]
    own = "rare" if planting.cause == "rare" else "clear"
    pair = planting.intent, planting.sibling
    regions = [(own, intent, cues[intent], topics) for intent in pair]
    if planting.cause == "shared":
        regions.append(("shared", planting.intent, family.neutral, topics))
    if planting.cause == "noise":
        regions.append(("noise", planting.intent, cues[planting.intent], [planting.topic]))
    return regions


def _labelled(
    texts: list[str], split: str, intent: str, cause: str, planting: Planting
) -> Sequence[tuple[str, str, str] | None]:
    """Rows (text, intent, tag) of one region and split, with the planting's doing."""
    if cause == "clear":
        return [(text, intent, "clear") for text in texts]
    training, strength = split == "train", STRENGTHS[cause][planting.strength]
    intents = [intent] * len(texts)
    if cause == "shared" or (cause == "noise" and training):
        leans = _spread(len(texts), strength, step=2 if training else 1)
        intents = [planting.sibling if lean else intent for lean in leans]
    tag = f"{cause}:{planting.strength}"
    rows = [(text, own, tag) for text, own in zip(texts, intents, strict=True)]
    if cause == "rare" and training:
        left = int(strength)
        return rows[:left] + [None] * (len(rows) - left)
    return rows


def _spread(size: int, share: float, step: int) -> np.ndarray:
    """Booleans (size,), true for `share` of them, evenly over cues; with step 2 only second ones
    can be true.

    >>> _spread(10, 0.2, step=1).sum() == 2, _spread(20, 0.5, step=2)[:4].tolist()
    (np.True_, [False, True, False, True])
    """
    places = size // step
    spread = np.zeros((places, step), dtype=bool)
    by_cue = np.argsort(
        np.arange(places) % 5, kind="stable"
    )  # cues are dealt in turn, five in each family
    spread[by_cue, -1] = np.diff(np.floor(np.arange(places + 1) * share * step + 0.5)) > 0
    return spread.ravel()


def _cores(rng: np.random.Generator, family: Family, cues: str, topics: list[str]) -> Iterator[str]:
    """Yields the sentences with these cues and topics in random order, the cues in turn; none
    twice.
    """
    slots = list(product(family.frames.split("|"), topics, ["", *family.details.split("|")]))
    for places in zip(*(rng.permutation(len(slots)) for _ in range(5)), strict=True):
        for cue, place in zip(cues.split("|"), places, strict=True):
            frame, topic, detail = slots[place]
            yield frame.format(x=cue, t=topic, w=detail).strip()


def _said(rng: np.random.Generator, core: str, times: int) -> list[str]:
    """The core as somebody would say it, `times` different ways."""
    texts: list[str] = []
    while len(texts) < times:
        text = _dressed(rng, core)
        if text not in texts:
            texts.append(text)
    return texts


def _dressed(rng: np.random.Generator, core: str) -> str:
    """The core with fillers around it; only they get typos: one in a cue would be a cause of its
    own.
    """
    fillers = OPENERS, ASKING, CLOSERS
    opener, asking, closer = (words[rng.integers(len(words))] for words in fillers)
    if core.split()[0] in NOT_ORDERS:
        asking = ""
    if asking == closer:
        closer = ""
    parts = []
    for part in filter(None, (opener, asking, core, closer)):
        if rng.random() < 0.08:
            part = TYPOS.get(part, part)
        parts.append(part)
    text = " ".join(parts)
    if rng.random() < 0.5:
        for long, short in CONTRACTIONS.items():
            text = text.replace(long, short)
    return text
