"""docs/claims.md: what was claimed, what was found here, and the verdicts.

The claims are defined once, in `stabutils/claims.yaml`; their verdicts are in the records of the
notebooks that judged them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import pandas as pd

from stabutils import records
from stabutils.publishing import quotes, results

INTRODUCTION = """# Claims and verdicts

Written by `make figures` from `stabutils/claims.yaml` and `records/`. A verdict follows the
interval alone: all of it beyond the threshold *holds*; none of it *does not hold*; else it is
*undecided*; – means that its number, or the threshold, stands in no record there. *Chance* ends
where the middle 95 % of shuffled places end. Where the threshold is another method's upper end, a
claim has to pass all of that one's interval, which is harder than to pass the difference of the
two. Intervals are over runs and queries:
they speak of new retrainings and new queries of the same kind. Each claim is judged by itself;
the boards ([results](results.md)) say whether a method is better at all, with accuracy guarded and
a correction for how many were tried, and over how many runs label entropy is: five, or fewer where
runs are few. `compact` is a small network trained from
scratch: of a claim about fine-tuning its columns say only whether it carries over. A method stands
at the strength tuned on MASSIVE with `compact` there, and at its default elsewhere, TGTSS (temporal
guided temperature-scaled smoothing) at its default everywhere; the tables of [results](results.md)
have the strength in the name where they differ, and
[say](results.md#what-settings-were-chosen-by) which three choices were not blind.
Where the [weight](results.md#the-anchors-weights) of an anchor is 1, as at half a point with MiniLM
on BANKING77 and CLINC150, *anchored* is the linear model alone. The
[README](../README.md#the-paper-and-what-was-not-reproduced) sums up what follows; with MiniLM only
some of the methods were trained ([results](results.md#minilm-on-massive)).
"""

Claims = dict[str, records.Claim]  # by name
NOWHERE = "–"  # in the cell of what was not measured


def markdown(root: Path) -> str:
    """The page: one row a claim, one column a corpus and model."""
    folders = results.published(root)
    columns = {_column(folder): _claims(folder) for folder in folders}
    lines = [INTRODUCTION]
    by_source = groupby(records.definitions(), key=lambda definition: definition.source)
    for source, group in by_source:
        definitions = list(group)
        lines += [f"## {source or 'This study'}", ""]
        if definitions[0].about:
            lines += [definitions[0].about, ""]
        rows = [_row(definition, columns.values()) for definition in definitions]
        measured = [row for row in rows if any(cell != NOWHERE for cell in row[3:])]
        if measured:
            header = ["claim", "threshold", "shown in", *columns]
            lines += [quotes.table(header, measured).strip("\n"), ""]
        if elsewhere := [f"{row[0]} ({row[2]})" for row in rows if row not in measured]:
            lines += ["Measured on none of these, at most on the embedded corpus:", ""]
            lines += [*(f"- {claim}" for claim in elsewhere), ""]
    return "\n".join(lines)


def _column(folder: Path) -> str:
    """The corpus, and below it the model."""
    corpus, _, model = folder.name.partition("-")
    return f"{corpus}<br>{model or 'compact'}"


def verdicts(root: Path) -> pd.DataFrame:
    """The verdicts in words, a row a claim of others, a column a corpus and model; "" for none."""
    folders = results.published(root)
    columns = {_column(own).replace("<br>", " · "): _claims(own) for own in folders}
    rows = {}
    for definition in records.definitions():
        if definition.source:
            author, year = re.search(r"^(\S+).*?(\d{4})", definition.source).groups()
            found = {name: claims.get(definition.name) for name, claims in columns.items()}
            row = {name: claim.verdict if claim else "" for name, claim in found.items()}
            rows[f"{definition.name} ({author} {year})"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(definition: records.Definition, columns: Iterable[Claims]) -> list[str]:
    limit = _limit(definition)
    sentence = definition.sentence.replace("{value}", "…").replace("….", "…")
    shown = f"[{definition.notebook[:2]}](../notebooks/{definition.notebook}.ipynb)"
    cells = [_cell(claims.get(definition.name), _metric(definition)) for claims in columns]
    return [sentence, f"{definition.side} {limit}", shown, *cells]


def _limit(definition: records.Definition) -> str:
    """The threshold of a claim, in the unit of its number, or whose upper end it is.

    Examples
    --------
    >>> key = "churn, linear (both, all layers); drop 10 %"
    >>> _limit(records.Definition("", "", "", key, beyond=key))
    'the upper end of linear (both, all layers)'
    """
    beyond, unit = definition.beyond, records.unit_of(_metric(definition))
    if isinstance(beyond, str):
        metric, _, rest = beyond.partition(", ")
        arm = rest.partition("; ")[0]
        return "chance" if metric == "clustering_chance" else f"the upper end of {arm}"
    if unit and beyond:
        return f"{100 * beyond:.4g} {unit}"
    return f"{beyond:.4g}"


def _metric(definition: records.Definition) -> str:
    return re.split("[,;]", definition.number)[0]


def _cell(claim: records.Claim | None, metric: str) -> str:
    if claim is None:
        return NOWHERE
    number = records.Number(metric, claim.value, claim.low, claim.high)
    words = records.shown(number).replace(" [", "<br>[")
    return f"**{claim.verdict}**<br>{words}"


def _claims(folder: Path) -> Claims:
    """Each claim as its notebook judged it there, else by what it or another one measured."""
    found = results.records_of(folder)
    claims = [claim for record in found for claim in record.claims]
    numbers = [number for record in found for number in record.numbers]
    own = {record.notebook: record.numbers for record in found}
    for notebook in dict.fromkeys(definition.notebook for definition in records.definitions()):
        claims += records.judged(notebook, [*numbers, *own.get(notebook, ())])
    measured = [claim for claim in claims if claim.verdict != "cannot be tested here"]
    return {claim.name: claim for claim in reversed(measured)}
