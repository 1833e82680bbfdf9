"""Small changes of texts that leave their meaning: words left out, typos, synonyms.

What becomes of a text depends on the text and the seed alone: it is the same whatever other texts
stand beside it, and on every machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

# The keys around each letter of a QWERTY keyboard.
KEYS = """
q:wa w:qeas e:wrsd r:etdf t:ryfg y:tugh u:yihj i:uojk o:ipkl p:ol
a:sqwz s:adwezx d:sferxc f:dgrtcv g:fhtyvb h:gjyubn j:hkuinm k:jliom l:kop
z:xas x:zcsd c:xvdf v:cbfg b:vngh n:bmhj m:njk
"""
BESIDE = dict(key.split(":") for key in KEYS.split())
# Interchangeable wordings of everyday English, listed by hand before any answer was looked at.
WORDINGS = """
what's | what is
who's | who is
where's | where is
how's | how is
that's | that is
there's | there is
it's | it is
let's | let us
i'm | i am
i've | i have
i'll | i will
i'd | i would
you're | you are
you've | you have
don't | do not
doesn't | does not
didn't | did not
isn't | is not
can't | cannot
won't | will not
want to | would like to | wanna
going to | gonna
tell me | let me know
give me | get me
turn off | switch off | shut off
turn on | switch on
look for | search for
get rid of | remove | delete | erase
a lot of | lots of | plenty of
right now | at the moment
movie | film
movies | films
song | track | tune
songs | tracks | tunes
picture | photo
pictures | photos
email | mail
emails | mails
taxi | cab
store | shop
dinner | supper
restaurant | eatery
restaurants | eateries
drink | beverage
car | vehicle
street | road
city | town
mom | mother | mum
dad | father
kids | children
friend | buddy
boss | manager
people | folks
doctor | physician
trash | garbage | rubbish
luggage | baggage
television | tv
info | information
error | mistake
trip | journey
meaning | definition
hello | hi | hey
thanks | thank you
yes | yeah
okay | alright
please | kindly
buy | purchase
begin | start
finish | complete
find | locate
change | modify | alter
increase | raise
decrease | reduce | lower
choose | pick | select
speak | talk
explain | describe
answer | reply | respond
allow | permit
help | assist
fix | repair
show | display
big | large
small | little
fast | quick
quickly | fast
nearest | closest
newest | latest | most recent
current | present
favorite | preferred
funny | amusing
happy | glad
sad | unhappy
great | excellent | wonderful
awful | terrible | horrible
nice | pleasant
strange | odd | weird
difficult | hard
easy | simple
cheap | inexpensive
expensive | costly
cold | chilly
sick | ill
quiet | silent
loud | noisy
tired | exhausted
entire | whole
every | each
soon | shortly
also | too
maybe | perhaps
often | frequently
usually | normally
almost | nearly
until | till
tonight | this evening
"""


def drop_words(text: str, draw: np.random.Generator, share: float = 0.1) -> str:
    """Leave out each word (what white space divides) with probability `share`, never all of them.

    Where all would go, the one that would have gone last stays.

    >>> drop_words("wake me up at seven", np.random.default_rng(0), share=1.0)
    'seven'
    """
    words = text.split()
    draws = draw.random(len(words))
    last = draws.max(initial=0)
    kept = [word for word, d in zip(words, draws, strict=True) if d >= share or d == last]
    return " ".join(kept)


def mistype(text: str, draw: np.random.Generator, share: float = 0.1) -> str:
    """Mistype each word of three characters or more with probability `share`.

    A mistyped word has one edit: a character behind its first one is swapped with that before it,
    left out, doubled, or replaced by the letter of a key beside it on a QWERTY keyboard, each with
    the same probability. A swap of equal characters changes nothing.

    >>> mistype("wake me up at seven", np.random.default_rng(0), share=1.0)
    'waie me up at sevsn'
    """
    words = text.split()
    hit = draw.random(len(words)) < share
    changed = []
    for word, mistyped in zip(words, hit, strict=True):
        if mistyped and len(word) > 2:
            word = _edit(word, draw)
        changed.append(word)
    return " ".join(changed)


def swap_synonyms(text: str, draw: np.random.Generator, share: float = 0.5) -> str:
    """Replace each word or phrase that has another wording with probability `share`.

    By another wording of the same line of `WORDINGS`, in lower case; whole words are matched, in
    lower and upper case alike. A short list written by hand: many texts have no such word and stay
    as they are.

    >>> swap_synonyms("Turn on the tv please", np.random.default_rng(0), share=1.0)
    'switch on the television kindly'
    """

    def other(match: re.Match) -> str:
        choices = OTHERS[match[0].casefold()]
        swapped = draw.random() < share
        return choices[draw.integers(len(choices))] if swapped else match[0]

    return PHRASES.sub(other, text)


def _others() -> dict[str, list[str]]:
    """The other wordings of each wording."""
    others: dict[str, list[str]] = {}
    for line in WORDINGS.strip().splitlines():
        wordings = line.split(" | ")
        for wording in wordings:
            rest = [each for each in wordings if each != wording]
            others.setdefault(wording, []).extend(rest)
    return others


OTHERS = _others()
PHRASES = re.compile(
    rf"(?<![\w'])({'|'.join(sorted(map(re.escape, OTHERS), key=len, reverse=True))})(?![\w'])",
    re.IGNORECASE,
)
PERTURBATIONS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "word drop": drop_words,
    "typos": mistype,
    "synonyms": swap_synonyms,
}


def perturbed(texts: Sequence[str], kind: str, seed: int) -> list[str]:
    """Each text as one of PERTURBATIONS makes it, with random numbers of its own."""
    change = PERTURBATIONS[kind]
    streams = (np.random.default_rng([seed, zlib.crc32(text.encode())]) for text in texts)
    return [change(text, draw) for text, draw in zip(texts, streams, strict=True)]


def _edit(word: str, draw: np.random.Generator) -> str:
    place = int(draw.integers(1, len(word)))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    kind = draw.integers(4)
    if kind == 0:
        return before[:-1] + letter + before[-1] + after
    if kind == 1:
        return before + after
    if kind == 2:
        return before + letter + letter + after
    near = BESIDE.get(letter.lower(), letter)
    return before + near[draw.integers(len(near))] + after
