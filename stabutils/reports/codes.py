"""Labels as whole numbers, in one code for all runs and for gold.

Two runs whose labels are written in two codes (names beside numbers, or numbers in another order)
disagree on everything, and churn would be that of the codes. So codes are compared before anything
is measured.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.special import gammaln, rel_entr

from stabutils.data.labels import CODE, spellings
from stabutils.errors import InputError

FEW = 10  # examples; on fewer, two runs may well have no label in common
CHANCE = np.log(1e4)  # evidence against chance agreement: odds of ten thousand to one


def encode(labels, gold=None, label_names=None, classes=None):
    """Labels and gold as places in label names.

    Parameters
    ----------
    labels
        (runs, examples), integers or strings.
    gold
        (examples,), of the same kind.
    label_names
        The names that labels may have; without them those that occur, in order.
    classes
        The number of classes, with which integers stay as they are.

    Returns
    -------
    tuple
        Labels (runs, examples) and gold (examples,) or None, as integers, and the label names.

    Raises
    ------
    InputError
        Other types or shapes, an unknown label, or two spellings of what may be one label.

    Examples
    --------
    >>> encode([["no", "yes"], ["no", "no"]])[0].tolist()
    [[0, 1], [0, 0]]
    """
    labels = _integers_or_strings(labels, "labels", ("runs", "examples"))
    cells = labels.ravel()
    if gold is not None:
        gold = _integers_or_strings(gold, "gold", ("examples",))
        if len(gold) != labels.shape[1] or (gold.dtype == object) != (labels.dtype == object):
            allowed = f"{labels.shape[1]} of the kind that labels are, one for each example"
            raise InputError("gold", f"{len(gold)} of type {gold.dtype}", allowed)
        cells = np.concatenate([cells, gold])
    places, names = _places(cells, label_names, classes)
    gold = None if gold is None else places[labels.size :]
    return places[: labels.size].reshape(labels.shape), gold, names


def _places(cells, label_names, classes):
    """The place of each cell in the label names, and these."""
    are_words, names = cells.dtype == object, None
    if label_names is not None:
        if not hasattr(label_names, "__len__"):
            raise InputError("label_names", label_names, "the name of each label")
        names = tuple(map(str, label_names))
        if twice := [name for row, name in enumerate(names) if name in names[:row]]:
            raise InputError("label_names", twice[0], "each name once")
    elif classes is not None and not are_words:
        names = tuple(map(str, range(classes)))
    if names is not None and not are_words:
        if cells.max() >= len(names):
            allowed = f"class ids below {len(names)}, the number of classes"
            raise InputError("labels", int(cells.max()), allowed)
        return cells, names
    codes, distinct = pd.factorize(cells)
    written = list(map(str, distinct))
    if names is None:
        if are_words:
            chosen = spellings(written)
            written = [chosen[name] for name in written]
        names, _ = ordered(set(written))
    place = {name: i for i, name in enumerate(names)}
    for name in written:
        if name not in place:
            allowed = f"one of the label names ({', '.join(names[:10])} ...)"
            raise InputError("labels", name, allowed)
    return np.array([place[name] for name in written])[codes], names


def refuse_beside(**given: object) -> None:
    """Refuse what is given beside `Predictions` or `Runs`, which bring their own along."""
    for name, value in given.items():
        if value is not None:
            allowed = "none: Predictions and Runs bring their own (dataclasses.replace changes it)"
            raise InputError(name, f"a {type(value).__name__} beside them", allowed)


def shape_of(values, thing: str) -> tuple[int, ...]:
    """The shape of an array or of nested lists. InputError for lists of different length, and for
    a file or a table of pandas in the place of an array.
    """
    if isinstance(values, (str, os.PathLike, pd.DataFrame)):
        value = values if isinstance(values, str) else type(values).__name__
        allowed = "an array (runs, examples), or st.read_predictions(path) of a file; a table of "
        allowed += "pandas is written with to_csv first, or is an array by to_numpy"
        raise InputError(thing, value, allowed)
    try:
        return np.shape(values)
    except ValueError:
        raise InputError(thing, "rows of different length", "rows of one length") from None


def one_for_each(values, count: int, thing: str) -> tuple[str, ...] | None:
    """Names or texts, one for each run or example, or None. InputError for another number."""
    if values is None:
        return None
    listed = hasattr(values, "__len__") and not isinstance(values, str)
    if not listed or len(values) != count:
        each = "run" if thing == "run_names" else "example"
        value = len(values) if listed else values
        raise InputError(thing, value, f"{count}, one for each {each}")
    return tuple(map(str, values))


def _integers_or_strings(values, thing, axes):
    allowed = f"integers of at least 0, or strings, of shape ({', '.join(axes)})"
    shape_of(values, thing)
    values = np.asarray(values)
    if values.ndim != len(axes) or values.size == 0:
        shape = f"({', '.join(axes)}), none of them empty"
        raise InputError(f"shape of {thing}", values.shape, shape)
    if values.dtype.kind in "OUT":
        values = values.astype(object)
        kind = pd.api.types.infer_dtype(values.ravel(), skipna=False)
        if kind != "string":
            raise InputError(f"type of {thing}", kind, allowed)
    elif values.dtype.kind not in "iu":
        raise InputError(f"type of {thing}", str(values.dtype), allowed)
    elif values.min() < 0:
        raise InputError(thing, int(values.min()), allowed)
    return values


def ordered(names: Iterable[str]) -> tuple[tuple[str, ...], ndarray]:
    """Names sorted, numbers inside them by size, and the place of each in that order.

    >>> ordered(["run10", "run2"])[0]
    ('run2', 'run10')
    """
    names = list(names)
    parts = [re.split("([0-9]{1,18})", name) for name in names]
    keys = [[int(part) if i % 2 else part for i, part in enumerate(split)] for split in parts]
    order = sorted(range(len(names)), key=lambda i: (keys[i], names[i]))
    return tuple(names[i] for i in order), np.argsort(order)


def same_code(
    labels: ndarray, gold: ndarray | None, names: Sequence[str], who: Sequence[str]
) -> None:
    """Refuse runs, or gold, whose labels are written in another code than the rest.

    Parameters
    ----------
    labels, gold
        Of the runs (runs, examples), and perhaps gold (examples,): places in `names`.
    names
        The label names.
    who
        What messages call each run.

    Raises
    ------
    InputError
        Some share no label with the others, or agree with the first only when the labels are
        put in another order.
    """
    rows = labels if gold is None else np.vstack([labels, gold])
    who = [*who, "gold"]
    _refuse_no_common_label(rows, names, who)
    for row in range(1, len(rows)):
        _refuse_other_order(rows[0], rows[row], names, who[0], who[row])


def _refuse_no_common_label(answers, names, who):
    """Runs that share labels, perhaps by way of other runs, form one group; two are two codes."""
    from scipy.sparse.csgraph import connected_components

    present = np.array([np.bincount(row, minlength=len(names)) > 0 for row in answers])
    part = connected_components(present @ present.T)[1]
    group = part == part[0]
    if group.all():
        return
    minority = group if 2 * group.sum() <= len(group) else ~group
    odd, usual = (
        [names[i] for i in np.flatnonzero(present[part].any(axis=0))]
        for part in (minority, ~minority)
    )
    kinds = [set(map(_kind, part)) for part in (odd, usual)]
    if answers.shape[1] >= FEW or kinds[0].isdisjoint(kinds[1]):
        first = who[int(minority.argmax())]
        allowed = f"the encoding of the others, such as {usual[:3]}"
        raise InputError(f"labels of {first}", odd[:3], allowed)


def _kind(name: str) -> str:
    """How a label is written: as a number, as LABEL_k, or as a word."""
    if CODE.fullmatch(name.casefold()):
        return "LABEL_k"
    try:
        float(name)
    except ValueError:
        return "word"
    return "number"


def _refuse_other_order(one, other, names, first, second):
    """Answers that agree far better once labels are matched anew are in another order of labels."""
    share, chance = agreement(one, other)
    if share > chance + 0.3 * (1 - chance):
        return
    match = best_match(one, other, len(names))
    matched, chance = agreement(match[one], other)
    used = len(np.union1d(one, other))
    distance = rel_entr([matched, 1 - matched], [chance, 1 - chance]).sum()
    evidence = len(one) * distance - gammaln(used + 1)  # each order of labels was a try
    if matched >= chance + 0.5 * (1 - chance) and evidence >= CHANCE:
        i = int(np.flatnonzero(match[one] != one)[0])
        value = f"{names[other[i]]} where {first} has {names[one[i]]}"
        allowed = (
            f"one code: they agree on {100 * share:.0f} % of the examples, and on "
            f"{100 * matched:.0f} % with the labels in another order"
        )
        raise InputError(f"labels of {second}", value, allowed)


def agreement(one: ndarray, other: ndarray) -> tuple[float, float]:
    """The share of examples that two get the same label for, and what chance gives (Cohen 1960).

    >>> agreement(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    (0.75, 0.5)
    """
    size = 1 + max(one.max(), other.max())
    counts = [np.bincount(labels, minlength=size) for labels in (one, other)]
    return float(np.mean(one == other)), float(counts[0] @ counts[1]) / len(one) ** 2


def best_match(one: ndarray, other: ndarray, size: int) -> ndarray:
    """For each of `size` labels of one the label of the other that makes most examples agree.

    >>> best_match(np.array([0, 0, 1]), np.array([1, 1, 0]), 2).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((size, size))
    np.add.at(table, (one, other), 1)
    match = np.empty(size, int)
    rows, columns = linear_sum_assignment(-table)
    match[rows] = columns
    return match
