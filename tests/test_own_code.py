"""The identity of a user's own mitigation holds all that decides it, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
import warnings

import pytest

from stabutils.mitigations import identity

HELPERS = """
PULL = 0.1

def weight(step):
    return PULL
"""
MINE = """
import enum
import functools
from dataclasses import dataclass

import numpy as np

import helpers
import stabutils as st

STRENGTH = 2.0
TABLE = {"start": [1, 2], "rate": 0.5}
MASK = np.arange(3)
UNUSED = 1

class Kind(enum.Enum):
    SOFT = 1

KIND = Kind.SOFT

@dataclass(frozen=True)
class Plan:
    steps: int = 3

    def at(self, step):
        return step * 2

PLAN = Plan()

def inner_helper(x):
    return x + STRENGTH

def helper(x, scale=STRENGTH):
    return inner_helper(x) * TABLE["rate"]

def twice(method):
    @functools.wraps(method)
    def wrapper(self, *arguments):
        return 2 * method(self, *arguments)
    return wrapper

@functools.lru_cache
def cached(x):
    return x - 1

half = functools.partial(helper, scale=0.5)

class Parent(st.Mitigation):
    def step(self, training):
        return [cached(x) for x in range(3)]

@dataclass(frozen=True)
class Mine(Parent):
    strength: float = 0.1
    rates = [1, 2]

    def loss(self, forward, batch, inner):
        return self.scaled(helper(inner(forward()))) + helpers.weight(0)

    @twice
    def scaled(self, x):
        return (lambda y: half(y) + MASK.sum() + PLAN.at(2))(x) if KIND is Kind.SOFT else x
"""
CHANGES = {  # what is changed -> in which file, from what, to what
    "a constant in a module of helpers": ("helpers", "PULL = 0.1", "PULL = 0.2"),
    "a helper in a module of helpers": ("helpers", "return PULL", "return 2 * PULL"),
    "a helper": ("mine", '* TABLE["rate"]', '* TABLE["rate"] + 1'),
    "a helper of a helper": ("mine", "return x + STRENGTH", "return x - STRENGTH"),
    "a constant that a helper of a helper names": ("mine", "STRENGTH = 2.0", "STRENGTH = 3.0"),
    "a value in a dictionary of lists": ("mine", '"start": [1, 2]', '"start": [1, 3]'),
    "an array": ("mine", "np.arange(3)", "np.arange(4)"),
    "a default of a helper": ("mine", "scale=STRENGTH", "scale=STRENGTH + 1"),
    "a decorator": ("mine", "return 2 * method", "return 3 * method"),
    "a cached function": ("mine", "return x - 1", "return x - 2"),
    "an argument of a partial function": ("mine", "scale=0.5", "scale=0.25"),
    "a method of an object": ("mine", "return step * 2", "return step * 3"),
    "a field of an object": ("mine", "steps: int = 3", "steps: int = 4"),
    "a member of an enumeration": ("mine", "SOFT = 1", "SOFT = 2"),
    "a list of the class": ("mine", "rates = [1, 2]", "rates = [1, 3]"),
    "the method of a parent": ("mine", "for x in range(3)", "for x in range(4)"),
}


def identity_of(folder, mine: str, helpers: str = HELPERS) -> dict:
    """Identity of the class Mine of a module, beside a module of helpers, both freshly imported."""
    modules = {}
    for name, text in (("helpers", helpers), ("mine", mine)):
        path = folder / f"{name}{abs(hash((mine, helpers)))}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        modules[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    try:
        return identity(modules["mine"].Mine())[0]
    finally:
        del sys.modules["helpers"], sys.modules["mine"]


def test_the_same_files_give_the_same_identity_and_what_is_not_named_does_not_count(tmp_path):
    first = identity_of(tmp_path, MINE)
    assert identity_of(tmp_path, MINE) == first
    for unnamed in (MINE.replace("UNUSED = 1", "UNUSED = 2"), "# a remark\n" + MINE):
        assert identity_of(tmp_path, unnamed) == first
    assert identity_of(tmp_path, MINE, HELPERS + "\nOTHER = 3\n") == first


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_anything_that_it_names_is_another_mitigation(tmp_path, what):
    """Fails if old runs come back: joblib/joblib#1287 has the same fault."""
    where, old, new = CHANGES[what]
    files = {"mine": MINE, "helpers": HELPERS}
    assert files[where].count(old) == 1
    files[where] = files[where].replace(old, new)
    assert identity_of(tmp_path, **files)["source"] != identity_of(tmp_path, MINE)["source"]


def test_one_that_names_nothing_is_the_text_of_its_methods_alone(tmp_path):
    """The published runs of notebook 03's own mitigation are found by this very hash."""
    text = '''
from dataclasses import dataclass
import stabutils as st

OTHER = 1

@dataclass(frozen=True)
class SmallLogits(st.Mitigation):
    """Punishes large logits: the loss plus `strength` times their mean square."""

    strength: float = 0.01

    def loss(self, forward, batch, inner):
        logits = forward()
        return inner(logits) + self.strength * logits.square().mean()

Mine = SmallLogits
'''
    assert identity_of(tmp_path, text)["source"] == "891a33fcc00d8f1f"


def test_names_of_libraries_are_not_followed(tmp_path):
    """Else another version of numpy or torch would be another mitigation."""
    text = """
from dataclasses import dataclass
import numpy as np
import torch
import torch.nn.functional as F
from stabutils.metrics import churn
import stabutils as st

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        return F.relu(torch.relu(inner(forward()))) + np.mean([churn(x) for x in range(3)])
"""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = identity_of(tmp_path, text)
    assert one == identity_of(
        tmp_path, text.replace("import stabutils as st", "import stabutils as st\n")
    )


def test_helpers_that_call_each_other_and_lists_that_hold_themselves_come_to_an_end(tmp_path):
    text = """
from dataclasses import dataclass
import stabutils as st

LOOP = [1]
LOOP.append(LOOP)

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        return inner(forward()) * even(len(LOOP)) * (Mine.cost[0])
"""
    one = identity_of(tmp_path, text)
    assert one == identity_of(tmp_path, text)
    assert one != identity_of(tmp_path, text.replace("n != 0 and", "n > 0 and"))


def test_a_scope_around_the_class_counts(tmp_path):
    text = """
from dataclasses import dataclass
import stabutils as st

def make(pull):
    @dataclass(frozen=True)
    class Mine(st.Mitigation):
        def loss(self, forward, batch, inner):
            return inner(forward()) * pull
    return Mine

Mine = make(2)
"""
    assert identity_of(tmp_path, text) != identity_of(tmp_path, text.replace("make(2)", "make(3)"))


def test_a_special_method_counts_where_somebody_wrote_it(tmp_path):
    text = """
from dataclasses import dataclass
import stabutils as st

@dataclass(frozen=True)
class Mine(st.Mitigation):
    strength: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "factor", 3 * self.strength)

    def loss(self, forward, batch, inner):
        return inner(forward()) * self.factor
"""
    assert identity_of(tmp_path, text) != identity_of(tmp_path, text.replace("3 *", "2 *"))


@pytest.mark.parametrize(
    "line",
    [
        "import helpers",
        "from helpers import weight",
        "import numpy",
        "from mpl_toolkits.mplot3d import Axes3D",  # of a library, without a file of its own
        "import a_package_that_nobody_has",
    ],
)
def test_an_import_inside_a_method_is_said_where_it_is_the_users(tmp_path, line):
    text = f"""
from dataclasses import dataclass
import stabutils as st

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        {line}
        return inner(forward())
"""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        identity_of(tmp_path, text)
    expected = ["Mine uses helpers, whose content cannot be followed"] * ("helpers" in line)
    assert [str(warning.message).partition(":")[0] for warning in said] == expected


def test_a_module_beside_it_that_is_called_like_pythons_is_said(tmp_path):
    text = """
from dataclasses import dataclass
import stabutils as st

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        from .random import weight
        return inner(forward()) * weight(0)
"""
    with pytest.warns(UserWarning, match="Mine uses random, whose content cannot be followed"):
        identity_of(tmp_path, text)


@pytest.mark.parametrize("form", ["slots=True", "order=True"])
def test_what_a_library_writes_into_a_class_does_not_count(tmp_path, form):
    text = """
from dataclasses import dataclass
import stabutils as st

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        return inner(forward())
"""
    other = text.replace("dataclass(frozen=True)", f"dataclass(frozen=True, {form})")
    assert identity_of(tmp_path, other)["source"] == identity_of(tmp_path, text)["source"]


def test_what_cannot_be_followed_is_said(tmp_path):
    text = """
from dataclasses import dataclass
from sklearn.linear_model import LogisticRegression
import stabutils as st

JUDGE = LogisticRegression()

@dataclass(frozen=True)
class Mine(st.Mitigation):
    def loss(self, forward, batch, inner):
        return inner(forward()) * JUDGE.C
"""
    with pytest.warns(UserWarning, match="Mine uses JUDGE, whose content cannot be followed"):
        identity_of(tmp_path, text)
