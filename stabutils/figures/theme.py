"""Every plot of the study, one style. Functions take arrays and tables and return a matplotlib figure."""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from pandas.io.formats.style import Styler
from PIL import Image

PALETTE = sns.color_palette("colorblind")
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (PALETTE[i] for i in (0, 1, 2, 3, 4, 7))
OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)


def style() -> None:
    """The one look of all figures: call once at the top of a notebook. Scripts that the usual font lacks are drawn in a
    font that has them, where one is installed."""
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
            "svg.hashsalt": "stabutils",
            "svg.fonttype": "none",
            **({"font.family": ["sans-serif", *others]} if others else {}),
        },
    )


def show(figure: Figure, name: str, caption: str, folder: Path | str | None = None) -> None:
    """Show a figure with its caption below it, and save it as PNG and SVG when `folder` is given.

    The caption is the alternative text too, so it states the finding.
    """
    from IPython.display import Markdown, display

    if folder is not None:
        save(figure, name, Path(folder), caption)
    picture = _png(figure)
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
    figure.savefig(svg, metadata={"Date": None, "Title": name, "Description": alt or None})
    return [png, svg]


def _png(figure: Figure) -> bytes:
    """Without transparency, which no figure here uses, in 256 colours (of few dots too), packed as PNG can be."""
    drawn, packed = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    colours = (
        Image.open(drawn)
        .convert("RGB")
        .quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    colours.save(packed, "png", optimize=True)
    return packed.getvalue()


def table(rows: pd.DataFrame) -> Styler:
    """A table to read: no index, left-aligned, and text of the data as text, whatever it contains; no formula either,
    so the classes by which MathJax knows what is none of its business. Named by its contents, so that equal tables are
    equal pages."""
    left = [{"selector": "th, td", "props": "text-align: left; vertical-align: top"}]
    name = hashlib.sha256(rows.to_csv().encode("utf-8", "backslashreplace")).hexdigest()[:8]
    escaped = Styler(rows, precision=3, uuid=name, cell_ids=False, escape="html")
    escaped = escaped.format_index(escape="html", axis="columns")
    return (
        escaped.hide()
        .set_table_styles(left)
        .set_table_attributes('class="tex2jax_ignore mathjax_ignore"')
    )


def short(text: str, longest: int = 44) -> str:
    """A text as a label: one line, cut at a word, and with nothing that matplotlib would read as mathematics."""
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= longest else line[: longest - 1].rsplit(" ", 1)[0] + " …"
