"""Which column of a table plays which role: known by its name, said by the user, or asked for.

A name alone may mislead: `label` holds answers in one file and the truth in another. So a column is
taken for the answers only when no other column could be meant, and the error that asks names the
candidates and says how to answer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from stabutils.errors import InputError
from stabutils.reports.codes import agreement, best_match

COLUMNS = {  # what a column may be called when nobody says
    "run": ("run", "seed", "model", "version"),
    "example": ("example", "example_id", "id"),
    "label": ("label", "prediction", "predicted", "answer"),
    "gold": ("gold", "target", "true_label"),
    "text": ("text", "utterance", "query", "sentence"),
    "weight": ("weight", "traffic"),
    "checkpoint": ("checkpoint",),
    "confidence": ("confidence",),
    "probabilities": ("p_<label>",),
}
OF_EACH_RUN = ("label", "confidence", "probabilities")  # roles that several columns may play
A_RUN = re.compile(r"(run|seed|model|version|label|prediction)[ _-]?\d+", re.IGNORECASE)
PREDICTED = set(
    "pred preds predict predicted prediction predictions yhat hat guess guesses hypothesis".split()
)
SAID = set("answer answers output outputs response responses".split())
TRUTHS = set("gold golden true truth target targets actual expected reference gt correct".split())
EITHER = set("label labels class classes intent intents y".split())
BESIDE = set(  # of an answer or of the truth, not the label itself
    "id ids idx index score scores prob probs proba probability probabilities confidence conf "
    "logit logits entropy loss margin rank weight time date count length is was".split()
)
TEXTS = set("text utterance query sentence content input question prompt message title".split())
PLAIN = EITHER | SAID | set("ground name text value final".split())
IDENTIFIERS = set("id ids qid docid rowid uid uuid guid key item sample instance".split())
POSITIONS = set("idx index row nr no unnamed".split())  # of a row in some table
NOT_EXAMPLES = set("run seed model version label user checkpoint session".split()) | EITHER
FORMS = (
    "columns run, example and label (long form; of one run: checkpoint, example and label), or "
    "example and one column for each run, such as run1, run2 (wide form); columns of other names "
    "are said, as in --columns label=answer,gold=truth or --label release_a release_b"
)
MORE_RUNS = (
    "at least 2: one alone has nothing to differ from; train again with another seed, ask the "
    "system again, give the answers of another release to compare, or bring a column checkpoint "
    "with what the one run answered at several points of its training"
)


def told(columns: object) -> dict[str, list[str]]:
    """What a user says about columns: role -> columns.

    Parameters
    ----------
    columns
        None, a mapping of roles to a column or several, or the same as a text such as
        "label=old new, gold=truth".

    Raises
    ------
    InputError
        Anything else, or a role that does not exist.

    Examples
    --------
    >>> told("label=old new, gold=truth")
    {'label': ['old', 'new'], 'gold': ['truth']}
    """
    allowed = "role=column pairs separated by commas, such as label=answer, gold=truth"
    if columns is None:
        return {}
    if isinstance(columns, str):
        pairs = [pair.partition("=") for pair in columns.split(",") if pair.strip()]
        if not all(middle and names.strip() for _, middle, names in pairs):
            raise InputError("columns", columns, allowed)
        columns = {role.strip(): names.split() for role, _, names in pairs}
    if not isinstance(columns, Mapping):
        raise InputError("columns", columns, allowed)
    roles = {}
    for role, names in columns.items():
        if role not in COLUMNS:
            raise InputError("role of a column", role, f"one of {', '.join(COLUMNS)}")
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise InputError(f"column for {role}", names, "the name of a column, or several")
        if names:
            roles[role] = list(names)
    return roles


def assign(
    header: list[str], said: dict[str, list[str]], name: str, least: int = 2
) -> dict[str, list[str]]:
    """Which columns play which role.

    Parameters
    ----------
    header
        The names of all columns.
    said
        What the user says of them, as `told` gives it.
    name
        What messages call the file.
    least
        Runs that there must be: 2, or 1.

    Returns
    -------
    dict
        Role -> columns. In the wide form there is neither run nor checkpoint, and the columns of
        role label are the runs; checkpoints without a run are those of one run.

    Raises
    ------
    InputError
        A column that is not there, a role that nobody plays, or several that could play it.

    Examples
    --------
    >>> assign(["seed", "id", "y_pred", "y_true"], {}, "mine.csv")
    {'run': ['seed'], 'example': ['id'], 'gold': ['y_true'], 'label': ['y_pred']}
    """
    if not header:
        allowed = "a file that is not empty, its first row naming the columns"
        raise InputError("predictions", name, allowed)
    if len(set(header)) < len(header):
        raise InputError(f"header of {name}", header, "columns of different names")
    said = {role: _one_or_several(role, columns, header) for role, columns in said.items()}
    for role, columns in said.items():
        for column in columns:
            if column not in header:
                allowed = f"a column of {name}: {', '.join(header)}"
                raise InputError(f"column for {role}", column, allowed)
        if len(columns) > 1 and role not in OF_EACH_RUN:
            raise InputError(f"columns for {role}", columns, "one column")
    free = unused(header, said)
    roles = dict(said)
    for role in ("run", "example", "text", "weight", "checkpoint", "confidence"):
        if role not in roles and (column := _known(role, free)):
            roles[role] = [column]
    numbered = [column for column in free if A_RUN.fullmatch(column)]
    rest = [column for column in _unrated(header, roles) if column not in numbered]
    roles |= _labels_and_gold(rest, numbered, roles, name)
    _confidence(roles, said, name)
    wide = len(roles.get("label", ())) > 1
    if wide:
        return {role: roles[role] for role in roles if role not in ("run", "checkpoint")}
    named = _identifiers(rest)
    if "example" not in roles and len(named) == 1:
        roles["example"] = named
    _refuse_incomplete(header, roles, name, least)
    return roles


def _confidence(roles, said, name):
    """Leave out confidence where that is said, or where it is not there for each run."""
    columns = roles.get("confidence", [])
    runs = roles.get("label", ["label"])
    if len(columns) == len(runs):
        return
    if columns and "confidence" in said:
        allowed = f"{len(runs)}, in the order of the columns of labels: {', '.join(runs)}"
        raise InputError(f"columns for confidence in {name}", columns, allowed)
    roles.pop("confidence", None)


def _one_or_several(role: str, columns: list[str], header: list[str]) -> list[str]:
    """Columns as a text names them, where the name of one may hold spaces; "none" leaves out."""
    together = " ".join(columns)
    if together == "none" and role in ("probabilities", "confidence"):
        return []
    return [together] if together in header else columns


def unused(header: Iterable[str], roles: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns that play no role.

    >>> unused(["id", "note"], {"example": ["id"]})
    ['note']
    """
    used = set(chain.from_iterable(roles.values()))
    return [column for column in header if column not in used]


def _unrated(header: Iterable[str], roles: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns that play no role and hold no probabilities by their names."""
    return [column for column in unused(header, roles) if not column.startswith("p_")]


def _labelled(roles: Mapping[str, Sequence[str]]) -> bool:
    """Whether columns of labels, or of probabilities in their place, are known."""
    return "label" in roles or bool(roles.get("probabilities"))


def _known(role: str, free: Iterable[str]) -> str:
    """The first column that has one of the names known for a role."""
    by_name = {"_".join(_words(column)): column for column in reversed(list(free))}
    return next((by_name[name] for name in COLUMNS[role] if name in by_name), "")


def _words(name: str) -> list[str]:
    """The words of a name, lower-case: y_pred, "Y pred" and yPred are two."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+|[0-9]+", parted.lower())


def _kind(column: str) -> str:
    """What a column holds by its name: answers ("label"), "gold", or "" for neither.

    "either" stands for both, and for names that say more: prediction_model may be a model.
    """
    words = set(_words(column))
    predicted, truth = words & PREDICTED, words & TRUTHS
    if words & BESIDE or not words & (PREDICTED | TRUTHS | SAID | EITHER):
        return ""
    if truth and not predicted:
        return "gold" if words - TRUTHS <= PLAIN else ""
    if (predicted or words & SAID) and not truth and words - PREDICTED <= PLAIN:
        return "label"
    return "either"


def _identifiers(columns: Iterable[str]) -> list[str]:
    """Columns whose names say that they tell examples apart."""
    names = []
    for column in columns:
        words = set(_words(column))
        if words & IDENTIFIERS and not words & (POSITIONS | NOT_EXAMPLES):
            names.append(column)
    return names


def row_names(columns: Iterable[str]) -> list[str]:
    """Columns that may name the rows of a wide form, the most likely first.

    >>> row_names(["Unnamed: 0", "note", "query_id"])
    ['query_id', 'Unnamed: 0']
    """
    columns = list(columns)
    first = _identifiers(columns)
    positions = [c for c in columns if not c or set(_words(c)) & POSITIONS]
    return first + [c for c in positions if not set(_words(c)) & NOT_EXAMPLES]


def _labels_and_gold(rest, numbered, roles, name):
    """The columns of answers and of the truth, where nobody says and only one can be meant."""
    by_kind = defaultdict(list)
    for column in rest:
        by_kind[_kind(column)].append(column)
    answers, truths, either = by_kind["label"], by_kind["gold"], by_kind["either"]
    chosen = {}
    if "gold" not in roles and truths:
        if len(truths) > 1:
            raise question(name, truths, f"gold={truths[0]}", "which one is the truth")
        chosen["gold"] = truths
    if _labelled(roles):
        return chosen
    candidates = answers + either
    wide = numbered and ("run" not in roles or len(numbered) > 1 and not candidates)
    if wide:
        example = f"label={' '.join(numbered)}"
        if answers or either and "gold" not in {**roles, **chosen}:
            raise question(name, candidates + numbered, f"{example}, gold={candidates[-1]}")
        stems = {A_RUN.fullmatch(column)[1].lower() for column in numbered}
        if len(stems) > 1:
            raise question(name, numbered, example, "which of them are runs")
        return chosen | {"label": numbered}
    if len(candidates) > 1:
        example = f"label={candidates[0]}, gold={candidates[-1]}"
        raise question(name, candidates, example)
    if answers or either and set(_words(either[0])) <= {"label", "labels", "name", "text"}:
        chosen["label"] = candidates
    elif either:
        raise question(name, either, f"label={either[0]}")
    return chosen


def question(name: str, columns: list[str], example: str, what: str = "") -> InputError:
    """The error that asks which columns are meant, and says how to answer."""
    what = what or "which are answers, and which the truth"
    how = f'--columns "{example}" (in Python columns="{example}")'
    return InputError(f"columns of {name}", ", ".join(columns), f"told apart: {what}? As in {how}")


def _refuse_incomplete(header, roles, name, least):
    """Refuse a long form that lacks a role."""
    labelled = _labelled(roles)
    many = {"run", "checkpoint"} & set(roles)
    if labelled and (least == 1 and not many or "example" in roles and many):
        return
    if labelled and "example" in roles:
        raise InputError(f"runs in {name}", f"no column of them: {', '.join(header)}", MORE_RUNS)
    if labelled and many:
        allowed = (
            "a column that tells the examples apart, such as example or id: --columns "
            "example=<column>. The query does where no run is asked it twice; else number the rows "
            "of each run in a new column"
        )
        value = f"no column of them: {', '.join(header)}"
        raise InputError(f"examples in {name}", value, allowed)
    raise InputError(f"columns of {name}", ", ".join(header), FORMS)


def answers_elsewhere(
    header: list[str], rows: Sequence[Sequence[str]], roles: dict[str, list[str]]
) -> list[str]:
    """Columns without a role whose cells are labels, too: they may be the answers, or the truth.

    Parameters
    ----------
    header
        The names of all columns.
    rows
        Some rows of the table.
    roles
        Role -> columns; the first of role label is compared with.

    Returns
    -------
    list
        Columns in whose cells only labels stand, where there are three different ones or more, or
        whose cells agree with the labels more than chance would have it; or that do so in a code
        of their own, but not always.
    """
    cells = {
        column: np.array([cell.strip() for cell in column_cells], object)
        for column, column_cells in zip(header, zip(*rows, strict=True), strict=True)
    }
    labels = cells[roles["label"][0]]
    others = _unrated(header, roles)
    return [column for column in others if _may_be_labels(column, cells[column], labels)]


def _may_be_labels(column: str, cells: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a column holds the same labels, or labels in another code that often agree."""
    known, label_codes = np.unique(labels, return_inverse=True)
    values, codes = np.unique(cells, return_inverse=True)
    if not 2 <= len(values) <= len(known):
        return False
    number = all(re.fullmatch(r"-?[0-9]+(\.0*)?", label) for label in known)
    if set(values) <= set(known):
        if len(values) > 2 and not number:
            return True
        share, chance = agreement(np.searchsorted(known, cells), label_codes)
        return share > chance + 0.3 * (1 - chance)
    if len(values) < len(known) or set(_words(column)) & BESIDE:
        return False
    match = best_match(codes, label_codes, len(known))
    share, chance = agreement(match[codes], label_codes)
    return chance + 0.5 * (1 - chance) < share < 1  # always would be another name for the label


def identities(columns: Iterable[str]) -> list[str]:
    """Columns whose names say that they tell examples apart: ids, and texts.

    >>> identities(["query_id", "index", "question", "note"])
    ['query_id', 'question']
    """
    columns = list(columns)
    ids = _identifiers(columns)
    return ids + [column for column in columns if column not in ids and TEXTS & set(_words(column))]
