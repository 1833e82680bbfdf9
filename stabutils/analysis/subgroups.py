"""Who pays for a method: accuracy, churn and negative flips by group.

Pure functions of arrays. Groups are intents, classes of intents by their size, or planted regions:
any name for each example. `board.who_pays` has the interval of each intent; here one test of all
groups tells which of their changes are more than luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.stats import rankdata

from stabutils import records
from stabutils.analysis import board
from stabutils.data.datasets import Dataset
from stabutils.errors import InputError
from stabutils.records import Number
from stabutils.study.runs import Runs

MEASURES = ("accuracy", "churn", "negative_flips")
COLUMNS = {  # of `who_pays`, to be shown
    "arm": "method",
    "group": "queries of",
    "examples": "queries",
    "accuracy_change": "accuracy, change",
    "p_accuracy": "p, accuracy",
    "churn_change": "churn, change",
    "p_churn": "p, churn",
    "negative_flips": "negative flips",
    "control_negative_flips": "control's",
    "p_negative_flips": "p, flips",
}
NOTHING = 1e-9  # a spread over shuffles that is rounding only


def size_classes(
    train_labels: ndarray,
    labels: ndarray,
    names: tuple[str, ...] = ("rare", "middle", "frequent"),
) -> ndarray:
    """The class of each example's intent by how many training examples the intent has.

    Parameters
    ----------
    train_labels : (training examples,). labels : (examples,), ids of the same classes.
    names : of the classes, smallest first; each has about as many intents as the next.

    Returns
    -------
    (examples,) of names.

    Examples
    --------
    >>> size_classes(np.array([0, 1, 1, 2, 2, 2]), np.array([2, 0, 1])).tolist()
    ['frequent', 'rare', 'middle']
    """
    sizes = np.bincount(train_labels, minlength=int(np.max(labels)) + 1)
    places = rankdata(sizes, method="ordinal").astype(int) - 1
    return np.asarray(names)[places * len(names) // len(sizes)][labels]


def unequal(train_labels: ndarray) -> bool:
    """Whether the most frequent intent has at least twice the rarest one's examples.

    Examples
    --------
    >>> unequal(np.array([0, 0, 1, 1, 1])), unequal(np.array([0, 1, 1, 1]))
    (False, True)
    """
    sizes = np.unique(train_labels, return_counts=True)[1]
    return bool(sizes.max() >= 2 * sizes.min())


def groups_of(data: Dataset) -> ndarray | None:
    """The group of each test query: what was planted there, where something was; else the size of
    its intent (`size_classes`), where intents differ in it; None where neither is so.
    """
    train, test = data.train.labels, data.test
    if test.tags:
        return np.array([tag.partition(":")[0] + " queries" for tag in test.tags])
    if unequal(train):
        return np.char.add(size_classes(train, test.labels), " intents")
    return None


def subgroup_changes(
    control: ndarray,
    arm: ndarray,
    gold: ndarray,
    groups: ndarray,
    shuffles: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """What a method changes in each group of examples, with p-values that allow for all groups.

    Under the null hypothesis it does not matter which runs are control's: runs are shuffled between
    the arms, and an adjusted p-value is the share of shuffles in which any group at all changes as
    much as this one did, in units of its spread over shuffles. The chance of one false finding or
    more among the groups of a measure stays at its level, however the groups depend on each other.
    It speaks of other runs on these test examples.

    Parameters
    ----------
    control, arm : labels (runs, examples), at least 3 runs each.
    gold : (examples,). groups : (examples,), a name each.
    shuffles : at least 99. seed : of them.

    Returns
    -------
    One row a group, the largest loss of accuracy first: group, examples; accuracy, churn (between
    two runs of the arm) and negative_flips (right in a run of control, wrong in one of the arm),
    shares 0 to 1, each beside `control_...`, the same of control by itself, and `p_...`, two-sided
    and adjusted, of the difference. Control's negative flips are those between two of its own runs:
    what retraining does anyway.

    Raises
    ------
    InputError for fewer runs or shuffles, and arms or groups of other examples.

    References
    ----------
    Westfall and Young 1993, "Resampling-Based Multiple Testing" (maxT). Yan et al. 2021,
    "Positive-Congruent Training" (negative flips).

    Examples
    --------
    >>> control, arm = np.array([[0, 1]] * 3), np.array([[0, 0]] * 3)  # wrong on the second, always
    >>> table = subgroup_changes(control, arm, np.array([0, 1]), np.array(["a", "b"]))
    >>> table[["group", "accuracy", "control_accuracy", "negative_flips"]]
      group  accuracy  control_accuracy  negative_flips
    0     b       0.0               1.0             1.0
    1     a       1.0               1.0             0.0
    """
    names, group = np.unique(groups, return_inverse=True)
    before, after, null = _shuffled(control, arm, gold, group, shuffles, seed)
    p_values = _max_t(after - before, null)
    table = pd.DataFrame({"group": names, "examples": np.bincount(group)})
    for i, name in enumerate(MEASURES):
        columns = {name: after[i], f"control_{name}": before[i], f"p_{name}": p_values[i]}
        table = table.assign(**columns)
    order = np.argsort(after[0] - before[0], kind="stable")
    return table.iloc[order].reset_index(drop=True)


def who_pays(control: Runs, arms: Mapping[str, Runs], groups: ndarray) -> pd.DataFrame:
    """What each method changes in each group of queries.

    Parameters
    ----------
    arms : runs by name. groups : (queries,), a name each.

    Returns
    -------
    The rows of `subgroup_changes` for each `arm`, their p-values times the number of arms
    (Bonferroni), with accuracy_change and churn_change as intervals over runs and queries.
    Intervals speak of other queries too; p-values of other runs on these.
    """
    rows = []
    for name, runs in arms.items():
        changes = subgroup_changes(control.labels, runs.labels, control.gold, groups)
        here = [groups == group for group in changes.group]
        changes.insert(0, "arm", name)
        changes["accuracy_change"] = [board.accuracy_change(control, runs, own) for own in here]
        changes["churn_change"] = [board.churn_change(control, runs, own) for own in here]
        rows.append(changes)
    table = pd.concat(rows, ignore_index=True)
    for measure in MEASURES:
        table[f"p_{measure}"] = np.minimum(1, len(arms) * table[f"p_{measure}"])
    return table


def numbers(payers: pd.DataFrame) -> list[Number]:
    """The intervals of `who_pays`, as a record keeps them."""
    found = []
    for row in payers.itertuples():
        found.append(records.number("accuracy_change", row.accuracy_change, row.arm, row.group))
        found.append(records.number("churn_change", row.churn_change, row.arm, row.group))
    return found


def harmed(control: Runs, arm: Runs, label_names: Sequence[str], level: float = 0.05) -> list[str]:
    """The intents that lose accuracy under a method (`subgroup_changes` of all intents)."""
    names = np.array(label_names)[control.gold]
    changes = subgroup_changes(control.labels, arm.labels, control.gold, names)
    lost = (changes.p_accuracy < level) & (changes.accuracy < changes.control_accuracy)
    return changes.group[lost].tolist()


# ---- shuffles of runs


def _shuffled(control, arm, gold, group, shuffles, seed):
    """Measures (measure, group) of control by itself and of the arm, and the changes that shuffles
    of the runs make (shuffles, measure, group)."""
    control, arm, gold = map(np.asarray, (control, arm, gold))
    _check(control, arm, gold, group, shuffles)
    labels, count = np.concatenate([control, arm]), np.bincount(group)
    right, differ, lost = _pairs(labels, gold, group, count)

    def of_arms(first, second):
        alone = [right[first].mean(0), _among(differ, first), _among(lost, first)]
        between = lost[np.ix_(first, second)].mean(axis=(0, 1))
        return np.stack(alone), np.stack([right[second].mean(0), _among(differ, second), between])

    draw, runs, many = np.random.default_rng(seed), np.arange(len(labels)), len(control)
    null = []
    for _ in range(shuffles):
        order = draw.permutation(runs)
        before, after = of_arms(order[:many], order[many:])
        null.append(after - before)
    return *of_arms(runs[:many], runs[many:]), np.stack(null)


def _pairs(labels, gold, group, count):
    """Shares of each group's examples: right (runs, groups); answered otherwise by two runs, and
    right in the first and wrong in the second, (runs, runs, groups)."""
    groups = np.zeros((len(group), len(count)))
    groups[np.arange(len(group)), group] = 1 / count[group]
    correct = labels == gold
    differ = np.stack([(labels != run) @ groups for run in labels])
    lost = np.stack([(run & ~correct) @ groups for run in correct])
    return correct @ groups, differ, lost


def _among(pairs, runs):
    """Mean over ordered pairs of different runs: (groups,)."""
    block = pairs[np.ix_(runs, runs)]  # 0 for a run and itself
    return block.sum(axis=(0, 1)) / (len(runs) * (len(runs) - 1))


def _max_t(observed, null):
    """Adjusted p-values (measures, groups): single-step maxT over the groups of each measure."""
    spread = null.std(axis=0)
    usable = np.where(spread > NOTHING, spread, np.inf)
    middle = null.mean(axis=0)
    size, by_chance = np.abs(observed - middle) / usable, np.abs(null - middle) / usable
    largest = by_chance.max(axis=2)
    beyond = (largest[:, :, None] >= size[None] - NOTHING).sum(axis=0)
    return (1 + beyond) / (1 + len(null))


def _check(control, arm, gold, group, shuffles):
    for name, labels in (("control", control), ("the arm", arm)):
        if labels.ndim != 2 or len(labels) < 3 or labels.shape[1] != len(gold):
            allowed = f"(runs, {len(gold)}) of at least 3 runs"
            raise InputError(f"labels of {name}", labels.shape, allowed)
    if len(group) != len(gold):
        raise InputError("groups", len(group), f"{len(gold)}, one for each example")
    if not (isinstance(shuffles, int) and shuffles >= 99):
        raise InputError("shuffles", shuffles, "an integer of at least 99")
