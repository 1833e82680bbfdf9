"""Two systems side by side as one page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from stabutils.metrics.intervals import Interval
from stabutils.reports.page import pictures, render
from stabutils.reports.stability import SCORES, in_words, is_share, shown, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Plot = tuple[str, str, Callable[[], Figure]]

MOST = 50  # queries that a page shows
CARDS = {
    "churn": "queries that the two answer differently",
    "negative_flips": SCORES["negative_flips"][1],
    "positive_flips": SCORES["positive_flips"][1],
}


def written(comparison, checks: Mapping[str, str]) -> str:
    """The page of a `Comparison`.

    checks : of a gate by name, and what came of each in words
    """
    difference, between, flips = comparison.difference, comparison.between, comparison.flips
    rows = []
    for name, change in difference.items():
        row = {"name": title(name), "verdict": comparison.verdicts[name]}
        row["before"] = shown(name, comparison.before[name])
        row["after"] = shown(name, comparison.after[name])
        row["difference"] = shown(name, change, signed=True)
        rows.append(row)
    order = [name for name in ("regressed", "flip_probability") if name in flips]
    changing = flips[flips.flip_probability > 0]
    changing = changing.sort_values(order, ascending=False, kind="stable")
    return render(
        "reports/comparison.html",
        layouts=comparison.layouts,
        cards=[_card(name, between[name]) for name in CARDS if name in between],
        checks=checks,
        sentences=comparison.conclusions,
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
    shares = [name for name in difference if is_share(name)]
    if shares:
        changes = {title(name): difference[name] for name in shares}
        each = (f"{title(name)} {shown(name, difference[name], signed=True)}" for name in shares)
        label = "after minus before (points)"
        apart = partial(figures.intervals, changes, label, reference=0, scale=100)
        plots.append(("After against before, each by its own runs.", "; ".join(each), apart))
    return plots
