"""Set the style of every figure: fonts legible at half size, colours for colour-blind readers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from real_vs_ai.files import atomic_write

# Okabe & Ito's palette: told apart with every common colour blindness, and in print.
VERMILION, BLUE, GREEN, ORANGE = "#D55E00", "#0072B2", "#009E73", "#E69F00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#6E6E6E"
# Fake and Real in this order; further classes take the next ones.
CLASS_COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK)
# Lines differ by dashes as well, for black-and-white print.
LINE_STYLES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 200
THOUSANDS = StrMethodFormatter("{x:,.0f}")

STYLE = {
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.labelsize": 14,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "lines.linewidth": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "figure.facecolor": "white",
    # Class names and sources are data: "$" in them must not start a formula.
    "text.parse_math": False,
}


def styled(draw: Callable[..., None]) -> Callable[..., None]:
    """A drawing function whose figures have the house style, whatever the user's settings are."""

    @functools.wraps(draw)
    def draw_in_style(*args, **options) -> None:
        with rc_context():
            rcdefaults()
            rcParams.update(STYLE)
            draw(*args, **options)

    return draw_in_style


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 5.0
) -> tuple[Figure, list[Axes]]:
    """An empty figure of the house style, sizes in inches; no window, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def save_figure(figure: Figure, path: Path, *, legend_columns: int = 0) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes.

    Args:
        legend_columns: Of a legend of all panels below them; 0 for none.
    """
    if legend_columns:
        figure.legend(loc="outside lower center", ncols=legend_columns)
    with atomic_write(path) as staging, warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(staging, dpi=DOTS_PER_INCH, metadata={"Software": None})


def line_look(index: int) -> dict[str, str]:
    """The colour and the dashes of the nth class or line."""
    return {
        "color": CLASS_COLOURS[index % len(CLASS_COLOURS)],
        "ls": LINE_STYLES[index % len(LINE_STYLES)],
    }


def shorten(text: str, length: int = 24) -> str:
    """A name that fits into a figure, on one line."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def percent(value: float) -> str:
    """0.0512 → "5.1 %"."""
    return f"{100 * value:.1f} %"
