"""How reports look: the style of their pages, and of the figures on them; and how names and numbers stand in both."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib

MOST_LETTERS = 40
UNITS = ("%", "s", "ms", "Hz", "dB", "nats")

FIGURE_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#8794a1",
    "axes.labelcolor": "#27313b",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": "#27313b",
    # Names of classes and files are no formulas, whatever dollar signs they have.
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": "#27313b",
    "ytick.color": "#27313b",
}
"""Matplotlib's settings; tick labels must not need its formulas."""


@contextmanager
def figure_style() -> Iterator[None]:
    """Draws and saves figures in the style of reports, without a warning for each letter that the font lacks."""
    with matplotlib.rc_context(FIGURE_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def short_name(name: str) -> str:
    """A name as a figure has room for it: one line, without what cannot be drawn, the middle of a long one left out."""
    drawn = "".join(letter if letter.isprintable() else " " for letter in name)
    half = MOST_LETTERS // 2
    return drawn if len(drawn) <= MOST_LETTERS else f"{drawn[: half - 1]}…{drawn[-half:]}"


def keep_units(page: str) -> str:
    """Ties the numbers of a page (HTML) to the units behind them, so that no line breaks between the two."""
    return re.sub(rf"(?<=\d) (?=({'|'.join(UNITS)})(?!\w))", "&nbsp;", page)


PAGE_STYLE = """
body { margin: 0; background: #f4f6f8; color: #27313b; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px }
h1 { margin: 0; font-size: 32px }
h2 { margin: 0 0 12px; font-size: 20px }
main > h2 { margin-top: 40px }
.lead { max-width: 780px; margin: 8px 0 28px; color: #5b6773 }
.tiles { display: flex; flex-wrap: wrap; gap: 16px }
.tile, figure, table { background: #fff; border: 1px solid #e1e6eb; border-radius: 10px }
.tile { flex: 1 1 200px; padding: 16px 20px }
.tile h3 { margin: 0; font-size: 14px; font-weight: 600; color: #5b6773 }
.tile b { display: block; font-size: 34px; line-height: 1.3; color: #2463a6 }
.tile span { font-size: 14px; color: #5b6773 }
figure { margin: 24px 0 0; padding: 20px 24px }
figure img { display: block; width: 100% }
figcaption { margin-top: 10px; font-size: 14px; color: #5b6773 }
table { width: 100%; margin-bottom: 24px; padding: 8px 20px 16px; border-spacing: 0; font-size: 15px }
th, td { padding: 4px 8px; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
td { border-top: 1px solid #eef1f4 }
td:nth-child(2) { font-weight: 600; color: #2463a6 }
.section th { padding-top: 18px; font-size: 14px; font-weight: 400; color: #5b6773 }
.section th:first-child { font-size: 15px; font-weight: 600; color: #27313b }
"""
"""The CSS of a page whose content is in <main>."""
