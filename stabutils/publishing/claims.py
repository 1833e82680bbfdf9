"""docs/claims.md: what was claimed, what was found here, and the verdicts.

The claims are defined once, in `stabutils/claims.yaml`; their verdicts are in the records of the
notebooks that judged them.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pandas as pd

from stabutils import records
from stabutils.publishing import quotes, results

INTRODUCTION = """# Claims and verdicts

Written by `make figures` from `stabutils/claims.yaml` and `records/`. A verdict follows the
interval alone: all of it beyond the threshold *holds*; none of it *does not hold*; else it is
*undecided*; without a number it *cannot be tested here*. Intervals are over runs and queries:
they speak of new retrainings and new queries of the same kind. Each claim is judged by itself;
whether a method is better at all, its accuracy guarded, with a correction for how many were
tried, is said on the boards ([results](results.md)). `compact` is a small network trained from
scratch; a claim about fine-tuning is settled by the pretrained encoder's column alone.
"""


def markdown(root: Path) -> str:
    """The page: one row a claim, one column a corpus and model."""
    folders = results.published(root)
    names = [folder.name for folder in folders]
    lines = [INTRODUCTION]
    by_source = groupby(records.definitions(), key=lambda definition: definition.source)
    for source, group in by_source:
        definitions = list(group)
        lines += [f"## {source or 'This study'}", ""]
        if definitions[0].about:
            lines += [definitions[0].about, ""]
        rows = [_row(root, definition, folders) for definition in definitions]
        header = ["claim", "threshold", "shown in", *names]
        lines += [quotes.table(header, rows).strip("\n"), ""]
    return "\n".join(lines)


def verdicts(root: Path) -> pd.DataFrame:
    """The verdicts in words, a row a claim of others, a column a corpus and model; "" for none."""
    folders = results.published(root)
    rows = {}
    for definition in records.definitions():
        if definition.source:
            author, year = re.search(r"^(\S+).*?(\d{4})", definition.source).groups()
            row = {folder.name: _verdict(folder, definition) for folder in folders}
            rows[f"{definition.name} ({author} {year})"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _verdict(folder: Path, definition: records.Definition) -> str:
    claim = _claim(folder, definition)
    return claim.verdict if claim else ""


def _row(root: Path, definition: records.Definition, folders: list[Path]) -> list[str]:
    beyond = definition.beyond
    limit = "chance" if isinstance(beyond, str) else f"{beyond:.4g}"
    sentence = definition.sentence.replace("{value}", "…")
    shown = f"[{definition.notebook[:2]}](../notebooks/{definition.notebook}.ipynb)"
    cells = [_cell(folder, definition) for folder in folders]
    return [sentence, f"{definition.side} {limit}", shown, *cells]


def _cell(folder: Path, definition: records.Definition) -> str:
    claim = _claim(folder, definition)
    if claim is None:
        return ""
    if claim.value != claim.value:
        return claim.verdict
    value = f"{claim.value:.3f} [{claim.low:.3f}, {claim.high:.3f}]"
    return f"**{claim.verdict}**<br>{value}"


def _claim(folder: Path, definition: records.Definition) -> records.Claim | None:
    path = folder / f"{definition.notebook}.json"
    if not path.is_file():
        return None
    claims = {claim.name: claim for claim in records.read(path).claims}
    return claims.get(definition.name)
