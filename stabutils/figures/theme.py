"""The one look of all figures, and how they are shown and saved."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from pandas.io.formats.style import Styler
from PIL import Image

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (PALETTE[i] for i in (0, 1, 2, 3, 4, 7))
MARKS = zip((BLUE, ORANGE, GREEN, PURPLE, RED, GREY), "osD^vP", strict=True)
LOOKS: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "marker": mark} for colour, mark in MARKS
)
DASHES = ("-", "--", "-.", ":")  # beside LOOKS: hues look alike in print in grey
RANKS = ("#dfe3ea", "#f3b54a", "#3f9ac9", "#a8386b", "#2b1b4b")  # ever darker, for print in grey
HEAT = LinearSegmentedColormap.from_list("heat", ["#dcdcdc", "#f4a582", "#c0262d", "#4d000f"])
RULE: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1}
REPRODUCIBLE: dict[str, Any] = {"svg.hashsalt": "stabutils", "svg.fonttype": "none"}
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "IPAexGothic",
    "WenQuanYi Zen Hei",
    "NanumGothic",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


def style() -> None:
    """Set the look of all figures: call once at the top of a notebook.

    Scripts that the usual font lacks are drawn in a font that has them, where one is installed.
    """
    installed = {font.name for font in fontManager.ttflist}
    others = [name for name in OTHER_SCRIPTS if name in installed]
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc={
            "figure.dpi": 96,
            "savefig.dpi": 96,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "figure.constrained_layout.use": True,
            "font.family": ["sans-serif", *others],
            **REPRODUCIBLE,
        },
    )


def show(figure: Figure, name: str, caption: str, folder: Path | str | None = None) -> None:
    """Show a figure with its caption below it, and save it as PNG and SVG when `folder` is given.

    The caption is the alternative text too, so it states the finding.
    """
    from IPython.display import Markdown, display

    if folder is None:
        picture = _png(figure)
    else:
        picture = save(figure, name, Path(folder), caption)[0].read_bytes()
    plt.close(figure)
    data = {"image/png": picture, "text/plain": caption}
    display(data, raw=True, metadata={"image/png": {"alt": caption}})
    display(Markdown(f"*{_escaped(caption)}*"))


def _escaped(caption: str) -> str:
    """Text of data as text, whatever it contains: nothing of it is Markdown, HTML or a formula."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|$~&-])", r"\\\1", " ".join(caption.split()))


def save(figure: Figure, name: str, folder: Path, alt: str = "") -> list[Path]:
    """Save as <name>.png and <name>.svg; equal figures are equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    png.write_bytes(_png(figure))
    with plt.rc_context(REPRODUCIBLE):
        figure.savefig(svg, metadata={"Date": None, "Title": name, "Description": alt or None})
    return [png, svg]


def _png(figure: Figure) -> bytes:
    """Without transparency, which no figure uses, in 256 colours, packed as PNG can be."""
    drawn, packed = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB")
    colours = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(packed, "png", optimize=True)
    return packed.getvalue()


def table(rows: pd.DataFrame) -> Styler:
    """A table to read: no index, left-aligned, the data's text as text, whatever it contains.

    No formula either, so it has the classes by which MathJax knows what to leave alone. It is named
    by its contents, so that equal tables are equal pages.
    """
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    name = hashlib.sha256(rows.to_csv().encode("utf-8", "backslashreplace")).hexdigest()[:8]
    escaped = Styler(rows, precision=3, uuid=name, cell_ids=False, escape="html")
    escaped = escaped.format_index(escape="html", axis="columns")
    escaped = escaped.hide().set_table_styles(left)
    return escaped.set_table_attributes('class="tex2jax_ignore mathjax_ignore"')


def short(text: str, longest: int = 44) -> str:
    """A text as a label: one line, cut at a word, with nothing that matplotlib reads as a formula.

    Parameters
    ----------
    longest : in columns of text; Chinese, Japanese and Korean characters take two

    Examples
    --------
    >>> short("costs $5 a day or more", 17)
    'costs \\\\$5 a day …'
    """
    line = " ".join(str(text).split())
    columns = np.cumsum([1 + (east_asian_width(character) in "WF") for character in line])
    if len(line) and columns[-1] > longest:
        fitting = np.searchsorted(columns, longest - 1, side="right")
        line = line[:fitting].rsplit(" ", 1)[0] + " …"
    return line.replace("$", r"\$")
