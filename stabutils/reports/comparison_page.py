"""Two systems side by side as one page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from stabutils.metrics.intervals import Interval
from stabutils.reports.page import pictures, render
from stabutils.reports.stability import SCORES, in_words, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Plot = tuple[str, str, Callable[[], Figure]]

MOST = 50  # queries that a page shows
CARDS = ("churn", "negative_flips", "positive_flips")


def written(
    before: Mapping[str, Interval],
    after: Mapping[str, Interval],
    difference: Mapping[str, Interval],
    between: Mapping[str, Interval],
    verdicts: Mapping[str, str],
    flips: pd.DataFrame,
    *,
    sentences: Sequence[str] = (),
    checks: Mapping[str, str] | None = None,
) -> str:
    """The page of a comparison, whose parts are named as there.

    sentences : what follows from it. checks : of a gate by name, and what came of each in words.
    """
    parts = {"before": before, "after": after}
    rows = []
    for name, change in difference.items():
        row = {part: _cell(name, numbers[name]) for part, numbers in parts.items()}
        row["difference"] = _cell(name, change, signed=True)
        rows.append({"name": title(name), "verdict": verdicts[name], **row})
    cards = [_card(name, between[name]) for name in CARDS if name in between]
    changing = flips[flips.flip_probability > 0]
    order = [name for name in ("regressed", "flip_probability") if name in flips]
    changing = changing.sort_values(order, ascending=False, kind="stable")
    notes = [part.speaks_of for part in between.values()]
    return render(
        "reports/comparison.html",
        cards=cards,
        rows=rows,
        checks=checks or {},
        sentences=sentences,
        queries=len(flips),
        changing=len(changing),
        shown=[_query(row) for row in changing.head(MOST).to_dict("records")],
        gold="gold" in flips,
        speaks_of=notes[0] if notes else "",
        figures=pictures(_plots(difference, between)),
    )


def _cell(name: str, interval: Interval, signed: bool = False) -> str:
    return " ".join(in_words(name, interval, signed))


def _card(name: str, interval: Interval) -> dict[str, str]:
    value, ends = in_words(name, interval)
    says = SCORES[name][2] if name != "churn" else "queries that the two answer differently"
    return {"name": title(name), "value": value, "range": ends, "says": says}


def _query(row: dict) -> dict:
    """A query as the table shows it, the share of pairs that differ as a whole percent."""
    percent = round(100 * row["flip_probability"])
    return {**row, "text": row.get("text") or "", "flip_probability": percent}


def _plots(difference: Mapping[str, Interval], between: Mapping[str, Interval]) -> list[Plot]:
    """What changed between runs of each, and from one to the other, as shares of the queries."""
    from stabutils import figures

    changes = {title(name): own for name, own in difference.items() if SCORES[_base(name)][1]}
    flipped = {title(name): own for name, own in between.items()}
    across = partial(figures.intervals, flipped, "share of queries (%)", scale=100, start=0)
    plots: list[Plot] = [("From before to after: what the update changes.", _list(flipped), across)]
    if changes:
        label = "after minus before (points)"
        apart = partial(figures.intervals, changes, label, reference=0, scale=100)
        plots.append(("After against before, each by its own runs.", _list(changes), apart))
    return plots


def _base(name: str) -> str:
    return name.partition("@")[0]


def _list(rows: Mapping[str, Interval]) -> str:
    return "; ".join(f"{name} {interval}" for name, interval in rows.items())
