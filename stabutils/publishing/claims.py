"""docs/claims.md: what was claimed, what was found here, and the verdict; from docs/claims.yaml and records/."""

from __future__ import annotations

from pathlib import Path

import yaml

from stabutils import records
from stabutils.metrics.intervals import Interval, verdict
from stabutils.publishing import quotes

RESTS = {
    "pretrained": "Verdicts on these numbers need a pretrained encoder (which one, we do not know for sure); what "
    "a network trained from scratch does supports or weakens them, and settles nothing.",
    "fine-tuning": "A claim about fine-tuning BERT: a network trained from scratch settles nothing of it.",
    "images": "A claim about image classifiers.",
    "fastText": "A claim about another corpus, where generations of a model also differed in their training data.",
    "no claim": "Nothing about churn was claimed there.",
}


def markdown(root: Path) -> str:
    """The page. Every claim has a row for each published corpus that has the number, or one that says none has."""
    lines = [
        "# Claims and verdicts",
        "",
        "Written by `make figures` from `docs/claims.yaml` and `records/`. A verdict follows the interval alone: "
        "all of it beyond the threshold *holds*; none of it *does not hold*; else it is *undecided*; without a "
        "number it *cannot be tested here*. Each claim is judged by itself: whether a method is better at all, "
        "its accuracy guarded, with a correction for how many were tried, is said on the notebooks' boards. "
        "Numbers are of *compact*, a small network trained from scratch; where a corpus has the name of a "
        "checkpoint behind its own, of that pretrained encoder.",
    ]
    for group in yaml.safe_load((root / "docs" / "claims.yaml").read_text(encoding="utf-8")):
        rows = [
            row
            for claim in group["claims"]
            for row in _rows(root, claim, group["rests"] == "pretrained")
        ]
        lines += [
            "",
            f"## {group['source']}",
            "",
            RESTS[group["rests"]],
            quotes.table(
                ["claim", "corpus", "here", "threshold", "verdict", "shown in"], rows
            ).rstrip("\n"),
        ]
    return "\n".join(lines) + "\n"


def _rows(root: Path, claim: dict, every: bool) -> list[tuple]:
    """A row for each corpus that has the number, or for `every` one."""
    side, number = claim.get("side", "above"), claim["number"]
    found = {corpus: _number(root / "records" / corpus, claim) for corpus in _corpora(root, claim)}
    found = {
        corpus: (own[0], own[1] or claim["notebook"])
        for corpus, own in found.items()
        if every or own[0]
    }
    found = found or {"none yet": (None, claim["notebook"])}
    says = [claim["says"], *[""] * (len(found) - 1)]  # once, for all corpora
    rows = []
    for text, (corpus, (i, made_by)) in zip(says, found.items(), strict=True):
        beyond = _threshold(root / "records" / corpus, claim)
        shown = f"{i} ({records.behind(number, i.runs)})" if i else "not measured"
        limit = "chance" if beyond != beyond else f"{beyond:.4g}"
        section = f", *{claim['section']}*" if made_by == claim["notebook"] else ""
        rows.append(
            (
                text,
                corpus,
                shown,
                f"{side} {limit}",
                verdict(i, beyond, side),
                _made_by(root, corpus, made_by) + section,
            )
        )
    return rows


def _threshold(folder: Path, claim: dict) -> float:
    """The number beyond which a claim holds, or the upper end of that with this name in the same record."""
    if not isinstance(claim["beyond"], str):
        return claim["beyond"]
    path = folder / f"{claim['notebook']}.json"
    found = records.read(path).numbers.get(claim["beyond"]) if path.is_file() else None
    return found["high"] if found else float("nan")


def _made_by(root: Path, corpus: str, record: str) -> str:
    """A link to the executed notebook that wrote a record, or to the script."""
    for notebook in (f"records/{corpus}/{record}.ipynb", f"notebooks/{record}.ipynb"):
        if (root / notebook).is_file():
            return f"[{record[:2]}](../{notebook})"
    script = f"benchmarks/{record[3:]}.py"
    return f"[`{script}`](../{script})"


def _corpora(root: Path, claim: dict) -> list[str]:
    return claim.get("corpora") or sorted(
        path.parent.name for path in (root / "records").glob("*/answers")
    )


def _number(folder: Path, claim: dict) -> tuple[Interval | None, str]:
    """The number in the record that has it of most runs, of equals in that of the claim's notebook; and which it is."""
    found = {
        path.stem: records.read(path).numbers.get(claim["number"])
        for path in sorted(folder.glob("[0-9]*.json"))
    }
    found = {made_by: records.interval(number) for made_by, number in found.items() if number}
    best = max(
        found, key=lambda made_by: (found[made_by].runs, made_by == claim["notebook"]), default=""
    )
    return found.get(best), best
