"""What a user gets to see: something given is wrong, or some of the work could not be done."""
from __future__ import annotations


class InputError(ValueError):
    """Something given from outside is wrong: says what, what was given and what is allowed.

    >>> str(InputError("epochs", 0, "an integer of at least 1"))
    'epochs: got 0; expected an integer of at least 1'
    """

    def __init__(self, thing: str, value: object, allowed: str):
        shown = repr(value)
        shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
        super().__init__(f"{thing}: got {shown}; expected {allowed}")
        self.thing, self.value, self.allowed = thing, value, allowed

    def __reduce__(self):  # crosses the border of a worker process with its three parts
        return type(self), (self.thing, self.value, self.allowed)


class Incomplete(RuntimeError):
    """Some of the runs asked for could not be trained; the others are stored."""
