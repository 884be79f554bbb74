"""The one look of all figures, and the way a figure gets into a notebook."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from collections.abc import Iterator
from typing import Any

import matplotlib.style
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

SIMULATED = "Simulated data, not from a microscope."
INK, QUIET, PALE = "#222222", "#666666", "#8fc3e8"
COLOURS = ("#0b4f8a", "#e69f00", "#a34700", "#8fc3e8", "#00705a", "#d9b3d9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))

_LOOK = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS, linestyle=DASHES),
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "image.cmap": "gray",
    "image.interpolation": "nearest",  # a pixel is a square: nothing is made up between two of them
    "legend.frameon": False,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Give everything drawn inside a ``with`` block the course's look, whatever the user's own settings are."""
    with matplotlib.style.context(["default", _LOOK]):
        yield


def show(figure: Figure, alt: str, sentence: str = "") -> None:
    """Put a figure into the notebook, with alternative text that JupyterLab, Colab, GitHub and nbconvert all keep.

    Args:
        figure: From any function here.
        alt: One sentence for those who do not see the figure.
        sentence: Shown under the figure.
    """
    import IPython.display  # here, because only notebooks need it

    ipython: Any = IPython.display  # its functions carry no types
    ipython.display(ipython.HTML(as_html(figure, alt, sentence)))


def as_html(figure: Figure, alt: str, sentence: str = "") -> str:
    """A figure as one ``<img>`` that needs no other file, and the sentence under it.

    Example:
        >>> as_html(Figure(), "Two classes & six objects")[:41]
        '<img alt="Two classes &amp; six objects" '
    """
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{data}">'
    return image + (f"<p>{html.escape(sentence)}</p>" if sentence else "")


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """An empty figure with its title and its caption; call it inside `style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, horizontalalignment="left")
    if caption:
        figure.supxlabel(caption, x=0.99, horizontalalignment="right", fontsize=8, color=QUIET)
    return figure


def bare(axes: Axes) -> None:
    """No ticks and no frame, for pictures and drawings."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def table_caption(caption: str, table: pd.DataFrame) -> str:
    """The caption given, or what the table itself says about where its images come from."""
    simulated = "simulated" in table and bool(table["simulated"].any())
    return caption or (SIMULATED if simulated else "")


def box(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    """A rounded box with text, centred at ``(x, y)``."""
    wide, tall = (3.4, 1.1) if "\n" in text else (3.0, 0.9)
    corner = (x - wide / 2, y - tall / 2)
    axes.add_patch(FancyBboxPatch(corner, wide, tall, boxstyle="round,pad=0,rounding_size=0.2", color=colour))
    ink = "white" if colour == COLOURS[0] else INK
    axes.text(x, y, text, color=ink, horizontalalignment="center", verticalalignment="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3") -> None:
    """An arrow from ``start`` to ``end``, bent as matplotlib's ``connectionstyle`` says."""
    properties: dict[str, Any] = {"arrowstyle": "-|>", "color": QUIET, "connectionstyle": bend, "shrinkA": 0}
    axes.annotate("", end, start, arrowprops=properties)
