"""Templates of the package, filled in: a report as one page that needs no network."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render(template: str, **fields) -> str:
    """A template of the package, filled in; text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stabutils", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(fields)


def pictures(plots: Iterable[tuple[str, str, Callable[[], Figure]]]) -> list[dict[str, str]]:
    """The figures of a page: caption, alternative text, and the picture as data.

    plots : caption, alternative text that states the finding, and what draws it
    """
    import matplotlib
    import matplotlib.pyplot as plt

    from stabutils import figures

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts for every script
        figures.style()
        drawn = []
        for caption, alt, plot in plots:
            picture, figure = io.BytesIO(), plot()
            figure.savefig(picture, format="svg", metadata={"Date": None})
            plt.close(figure)
            spaced = picture.getvalue().replace(
                b'<text style="', b'<text style="white-space: pre; '
            )  # as in a PNG
            data = base64.b64encode(spaced).decode("ascii")
            drawn.append({"caption": caption, "alt": alt, "data": data})
    return drawn
