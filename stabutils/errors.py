"""What a user gets to see: something given is wrong, or some of the work could not be done."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, get_args


class InputError(ValueError):
    """Something given from outside is wrong: says what, what was given and what is allowed.

    >>> str(InputError("epochs", 0, "an integer of at least 1"))
    'epochs: got 0; expected an integer of at least 1'
    """

    def __init__(self, thing: str, value: Any, allowed: str):
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(f"{thing}: got {shown}; expected {allowed}")
        self.thing, self.value, self.allowed = thing, value, allowed

    def __reduce__(self):  # crosses the border of a worker process with its three parts
        return type(self), (self.thing, self.value, self.allowed)


class Incomplete(RuntimeError):
    """Some of the work asked for could not be done; what was finished is kept."""


def check(name: str, value: Any, kind: Any, rule: Mapping) -> None:
    """Hold a knob against its type and rule. Raises InputError."""
    optional = type(None) in get_args(kind)
    kind = get_args(kind)[0] if optional else kind
    if value is None and optional:
        return
    words = {int: "an integer", float: "a number", str: "a text", bool: "True or False"}[kind]
    right = type(value) is kind
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Neither nan, infinity nor an integer too large for a float.
        right = number and abs(value) <= sys.float_info.max
    if right and isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        right = False
        words += " that a file could hold, without NUL or half a surrogate pair"
    if "least" in rule:
        least, most = rule["least"], rule.get("most", math.inf)
        words += f" of at least {least:g}" if math.isinf(most) else f" from {least:g} to {most:g}"
        right = right and least <= value <= most
    if "above" in rule:
        words += f" above {rule['above']:g}"
        right = right and value > rule["above"]
    if "choices" in rule:
        words += f" out of {rule['choices']}"
        right = right and value in rule["choices"]
    if optional:
        words += " or None"
    if not right:
        raise InputError(name, value, words)


def needs(package: str) -> None:
    """Refuse what a package is needed for that `pip install stabutils` alone does not bring."""
    if find_spec(package) is None:
        raise InputError(package, "not installed", 'pip install "stabutils[study]"')


def floats(name: str, text: str) -> list[float]:
    """The numbers that a knob lists, separated by commas. Raises InputError.

    >>> floats("temperatures", "0.5, 2")
    [0.5, 2.0]
    """
    try:
        numbers = [float(each) for each in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise InputError(name, text, "numbers separated by commas")
    return numbers
