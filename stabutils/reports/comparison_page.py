"""Two systems side by side as one page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from stabutils.metrics.intervals import Interval
from stabutils.reports.page import pictures, render
from stabutils.reports.stability import SCORES, in_words, shown, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Plot = tuple[str, str, Callable[[], Figure]]

MOST = 50  # queries that a page shows
CARDS = {
    "churn": "queries that the two answer differently",
    "negative_flips": SCORES["negative_flips"][2],
    "positive_flips": SCORES["positive_flips"][2],
}


def written(
    before: Mapping[str, Interval],
    after: Mapping[str, Interval],
    difference: Mapping[str, Interval],
    between: Mapping[str, Interval],
    verdicts: Mapping[str, str],
    flips: pd.DataFrame,
    *,
    layouts: Sequence[str] = (),
    sentences: Sequence[str] = (),
    checks: Mapping[str, str] | None = None,
) -> str:
    """The page of a comparison, whose parts are named as there.

    layouts : how files were read. sentences : what follows from the numbers. checks : of a gate by
    name, and what came of each in words.
    """
    rows = []
    for name, change in difference.items():
        row = {"name": title(name), "verdict": verdicts[name]}
        row |= {"before": shown(name, before[name]), "after": shown(name, after[name])}
        rows.append(row | {"difference": shown(name, change, signed=True)})
    order = [name for name in ("regressed", "flip_probability") if name in flips]
    changing = flips[flips.flip_probability > 0]
    changing = changing.sort_values(order, ascending=False, kind="stable")
    return render(
        "reports/comparison.html",
        layouts=layouts,
        cards=[_card(name, between[name]) for name in CARDS if name in between],
        checks=checks or {},
        sentences=sentences,
        figures=pictures(_plots(difference, between)),
        rows=rows,
        between={title(name): shown(name, part) for name, part in between.items()},
        queries=len(flips),
        changing=len(changing),
        shown=[_query(row) for row in changing.head(MOST).to_dict("records")],
        gold="gold" in flips,
    )


def _card(name: str, interval: Interval) -> dict[str, str]:
    value, ends = in_words(name, interval)
    range_ = f"{ends}, {interval.speaks_of}"
    return {"name": title(name), "value": value, "range": range_, "says": CARDS[name]}


def _query(row: dict) -> dict:
    """A query as the table shows it, the share of pairs that differ in percent."""
    percent = f"{100 * row['flip_probability']:.1f}"
    return {**row, "text": row.get("text") or "", "flip_probability": percent}


def _plots(difference: Mapping[str, Interval], between: Mapping[str, Interval]) -> list[Plot]:
    """What changed between runs of each, and from one to the other, as shares of the queries."""
    from stabutils import figures

    flipped = {title(name): own for name, own in between.items()}
    words = "; ".join(f"{title(name)} {shown(name, own)}" for name, own in between.items())
    across = partial(figures.intervals, flipped, "share of queries (%)", scale=100, start=0)
    plots: list[Plot] = [("From before to after: what the update changes.", words, across)]
    shares = [name for name in difference if SCORES[name.partition("@")[0]][1]]
    if shares:
        changes = {title(name): difference[name] for name in shares}
        each = (f"{title(name)} {shown(name, difference[name], signed=True)}" for name in shares)
        label = "after minus before (points)"
        apart = partial(figures.intervals, changes, label, reference=0, scale=100)
        plots.append(("After against before, each by its own runs.", "; ".join(each), apart))
    return plots
