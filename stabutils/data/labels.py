"""One spelling for one label: which labels are the same, and which ones may be.

Two tools may write one label in two ways: an accent composed or as a sign of its own, a zero-width
space that came with copy and paste, capitals, 1 and 1.0. What a reader of the file cannot see
is merged; what a reader can see is a question to whoever wrote the file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from stabutils.errors import InputError

CODE = re.compile(r"label[\s_-]*([0-9]+)")


def plain(label: str) -> str:
    """A label without what cannot be seen: accents composed (NFC), no zero-width characters.

    >>> plain("cafe\\u0301\\u200b ") == "caf\\u00e9"
    True
    """
    if label.isascii():
        return label.strip()
    composed = unicodedata.normalize("NFC", label)
    visible = "".join(sign for sign in composed if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", visible).strip()


def loose(label: str) -> str:
    """A label as somebody types it from memory.

    Without capitals and widths (NFKC), `_` and `-` as spaces, 1.0 and LABEL_1 as 1. Accents
    stay: in Vietnamese they tell words apart.

    >>> loose("Card_Arrival"), loose("LABEL_1"), loose("01"), loose("1.0"), loose("2.5")
    ('card arrival', '1', '1', '1', '2.5')
    """
    folded = unicodedata.normalize("NFKC", plain(label)).casefold().replace("\u2019", "'")
    if code := CODE.fullmatch(folded):
        folded = code[1]
    if re.fullmatch(r"[0-9]+(\.0*)?", folded):
        return folded.partition(".")[0].lstrip("0") or "0"
    spaced = re.sub(r"(?<=\w)-(?=\w)", " ", folded)  # but -1 is another label than 1
    return re.sub(r"[\s_]+", " ", spaced).strip()


def spellings(labels: Iterable[str], thing: str = "labels") -> dict[str, str]:
    """The one spelling of each label.

    Parameters
    ----------
    labels
        Labels as they are written, each perhaps several times.
    thing
        What the error is about.

    Returns
    -------
    dict
        Label -> the spelling that stands for it and for all that look like it: itself, unless
        another label differs from it in nothing that can be seen.

    Raises
    ------
    InputError
        Two labels differ in capitals only, or as `loose` has it: one label or two?

    Examples
    --------
    >>> spellings(["cafe\\u0301", "tea", "caf\\u00e9"]) == {
    ...     "cafe\\u0301": "caf\\u00e9", "tea": "tea", "caf\\u00e9": "caf\\u00e9"}
    True
    """
    names = sorted(set(labels))
    chosen: dict[str, str] = {}
    for name in names:
        key = plain(name)
        if key == name or key not in chosen:
            chosen[key] = name
    read: dict[str, str] = {}
    for name in chosen.values():
        other = read.setdefault(loose(name), name)
        if other != name:
            allowed = (
                "one spelling for one label, or names of two that differ in more than capitals, "
                "spaces and the form of a number"
            )
            raise InputError(thing, (other, name), allowed)
    return {name: chosen[plain(name)] for name in names}
