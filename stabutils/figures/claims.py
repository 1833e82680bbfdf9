"""Which claims hold, where."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stabutils.figures.marks import legend_below, name_rows
from stabutils.figures.theme import BLUE, GREY, RED, short

SIGNS = {  # how a verdict begins -> its mark
    "holds": {"marker": "o", "color": BLUE},
    "does not hold": {"marker": "X", "color": RED},
    "undecided": {"marker": "o", "color": GREY, "markerfacecolor": "white"},
}


def verdicts(table: pd.DataFrame) -> Figure:
    """A mark for each verdict, a row a claim, a column a corpus and model.

    What cannot be tested has no mark.

    Parameters
    ----------
    table : verdicts in words; the index names claims, the columns corpora and models
    """
    count, width = table.shape
    figure, axis = plt.subplots(figsize=(5.2 + 0.9 * width, 0.31 * count + 2))
    for word, sign in SIGNS.items():
        found = table.apply(lambda column, word=word: column.str.startswith(word)).to_numpy(bool)
        rows, columns = np.nonzero(found)
        axis.plot(columns, rows, linestyle="none", markersize=9, label=word, **sign)
    name_rows(axis, list(table.index))
    axis.xaxis.tick_top()
    names = [short(name) for name in table.columns]
    axis.set_xticks(range(width), names, rotation=25, ha="left", rotation_mode="anchor")
    axis.set_xlim(-0.6, width - 0.4)
    axis.grid(False, axis="x")
    legend_below(figure, axis)
    return figure
