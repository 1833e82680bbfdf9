"""docs/claims.md: what was claimed, what was found here, and the verdict; from docs/claims.yaml and records/."""
from __future__ import annotations

from pathlib import Path

import yaml

from . import records
from .intervals import Interval, verdict

RESTS = {"pretrained": "Verdicts on these numbers need a pretrained encoder (which one, we do not know for sure); what "
                       "a network trained from scratch does supports or weakens them, and settles nothing.",
         "images": "A claim about image classifiers.",
         "fastText": "A claim about another corpus, where generations of a model also differed in their training data.",
         "no claim": "Nothing about churn was claimed there."}


def markdown(root: Path) -> str:
    """The page. Every claim has a row for each published corpus that has the number, or one that says none has."""
    lines = ["# Claims and verdicts", "",
             "Written by `make figures` from `docs/claims.yaml` and `records/`. A verdict follows the interval alone: "
             "all of it beyond the threshold *holds*; none of it *does not hold*; else it is *undecided*; without a "
             "number it *cannot be tested here*. Each claim is judged by itself: whether a method is better at all, "
             "its accuracy guarded, with a correction for how many were tried, is said on the notebooks' boards. "
             "Numbers are of *compact*, a small network trained from scratch; where a corpus has the name of a "
             "checkpoint behind its own, of that pretrained encoder."]
    for group in yaml.safe_load((root / "docs" / "claims.yaml").read_text(encoding="utf-8")):
        lines += ["", f"## {group['source']}", "", RESTS[group["rests"]], "",
                  "| claim | corpus | here | threshold | verdict | shown in |", "|" + "---|" * 6]
        lines += [row for claim in group["claims"] for row in _rows(root, claim)]
    return "\n".join(lines) + "\n"


def _rows(root: Path, claim: dict) -> list[str]:
    side, beyond = claim.get("side", "above"), claim["beyond"]
    found = {corpus: _number(root / "records" / corpus, claim) for corpus in _corpora(root, claim)}
    found = {corpus: own for corpus, own in found.items() if own[0]} or {"none yet": (None, claim["notebook"])}
    says = [claim["says"], *[""] * (len(found) - 1)]  # once, for all corpora
    return [f"| {text} | {corpus} | {f'{i} ({i.runs} runs)' if i else 'not measured'} | {side} {beyond:g} "
            f"| {verdict(i, beyond, side)} | {_made_by(root, made_by)}"
            f"{', *' + claim['section'] + '*' if made_by == claim['notebook'] else ''} |"
            for text, (corpus, (i, made_by)) in zip(says, found.items(), strict=True)]


def _made_by(root: Path, record: str) -> str:
    """A link to the notebook that wrote a record, or to the script."""
    if (root / "notebooks" / f"{record}.ipynb").is_file():
        return f"[{record[:2]}](../notebooks/{record}.ipynb)"
    script = f"benchmarks/{record[3:]}.py"
    return f"[`{script}`](../{script})"


def _corpora(root: Path, claim: dict) -> list[str]:
    return claim.get("corpora") or sorted(path.parent.name for path in (root / "records").glob("*/answers"))


def _number(folder: Path, claim: dict) -> tuple[Interval | None, str]:
    """The number in the record that has it of most runs, of equals in that of the claim's notebook; and which it is."""
    found = {path.stem: records.read(path).numbers.get(claim["number"]) for path in sorted(folder.glob("[0-9]*.json"))}
    found = {made_by: records.interval(number) for made_by, number in found.items() if number}
    best = max(found, key=lambda made_by: (found[made_by].runs, made_by == claim["notebook"]), default="")
    return found.get(best), best
