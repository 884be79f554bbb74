"""Every figure of the course, one function each, in one look.

One module a notebook. Each function returns a `matplotlib.figure.Figure` and touches no global state: `show` puts it
into a notebook, and ``figure.savefig`` into a file. Titles state what the data show. Colours differ in brightness, and
lines in dashes, so that figures survive colour blindness and a black-and-white printer.
"""

from bpsutils.plots.images import display_window, image_grid
from bpsutils.plots.look import COLOURS, DASHES, INK, PALE, QUIET, SIMULATED, as_html, show, style
from bpsutils.plots.start_here import class_balance, confusion, curves, recipe_diagram, roc, split_examples
from bpsutils.plots.tensors import broadcasting_diagram, screen_levels, sixteen_bit_damage, window_figure

__all__ = [
    "COLOURS",
    "DASHES",
    "INK",
    "PALE",
    "QUIET",
    "SIMULATED",
    "as_html",
    "broadcasting_diagram",
    "class_balance",
    "confusion",
    "curves",
    "display_window",
    "image_grid",
    "recipe_diagram",
    "roc",
    "screen_levels",
    "show",
    "sixteen_bit_damage",
    "split_examples",
    "style",
    "window_figure",
]
