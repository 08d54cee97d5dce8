"""The look of charts: colours of both themes, the settings of matplotlib, and SVG text for pages and for files.

A chart is drawn once, in the colours of the light theme. The dark theme replaces each colour in the SVG text, and a
page replaces each by a variable of its style sheet. So a page needs one drawing for both themes.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

from benchmarks.report.families import PEER_FAMILIES, PYTORCH, SLMX, UNKNOWN, Colour, family_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = Colour("#1f2328", "#e6e8eb")
QUIET = Colour("#59636e", "#9aa5b1")
LINE = Colour("#d1d9e0", "#363c43")
# Our variants that are not the recommended one: the same hue, not as strong.
PALE = Colour("#2b7bb0", "#4a8fc4")
GROUND = Colour("#ffffff", "#0d1117")
COLOURS = (INK, QUIET, LINE, PALE, *(family.colour for family in (SLMX, PYTORCH, *PEER_FAMILIES)))
FONT = 10.0  # points; a page shows a panel at about this size
SMALL = 9.0
# Drawn text has the widths of DejaVu Sans. The fonts of screens are narrower, so every text has room.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
PANEL = 4.7  # inches: 338 points, about the width of a phone
SETTINGS: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": FONT,
    "text.color": INK.light,
    "axes.edgecolor": LINE.light,
    "axes.labelcolor": QUIET.light,
    "axes.labelsize": SMALL,
    "axes.titlesize": FONT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": LINE.light,
    "ytick.color": LINE.light,
    "xtick.labelcolor": QUIET.light,
    "ytick.labelcolor": INK.light,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "grid.color": LINE.light,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.parse_math": False,
    "svg.fonttype": "none",
}


def colour_of(runner: str, recommended: str | None) -> str:
    """Returns the colour of a runner: that of its family, or a paler one for our other variants."""
    family = family_of(runner)
    return PALE.light if family == SLMX and runner != recommended else family.colour.light


def plain_ticks(low: float, high: float) -> list[float]:
    """Returns round values from `low` to `high` for a logarithmic axis, also if they are near each other."""
    span = high / low
    steps = (1,) if span > 1000 else (1, 2, 5) if span > 6 else (1, 1.5, 2, 3, 4, 5, 7)
    if span > 2:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
    else:
        step = 10.0 ** math.floor(math.log10(high - low)) / 2
        step *= 2 if (high - low) / step > 8 else 1
        ticks = [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]
    return [tick for tick in ticks if low <= tick <= high]


def plain_axis(axis: Axis, low: float, high: float) -> None:
    """Puts plain numbers on a logarithmic axis, from `low` to `high`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(plain_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def bare(axes: Axes) -> None:
    """Leaves only the names of the bars: their values are written beside them."""
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])


def svg_text(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG element in the colours of the light theme. `name` begins all its ids."""
    target = io.BytesIO()
    figure.savefig(target, format="svg", facecolor="none", metadata={"Date": None})
    text = target.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    for useless in (
        r"<metadata>.*?</metadata>",
        r"<defs>\s*<style.*?</style>\s*</defs>",
        r"<!--.*?-->",
        r' xmlns:\w+="[^"]*"',
    ):
        text = re.sub(useless, "", text, flags=re.DOTALL)
    # Coordinates are cut; the texts of a chart, which stand outside the tags, keep their figures.
    text = re.sub(r"(\d+\.\d\d)\d+(?=[^<>]*>)", r"\1", text.replace("xlink:href", "href"))
    text = re.sub(r"font: (?:(\d+) )?([\d.]+)px [^;\"]*", lambda found: _font(found[1], found[2]), text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _font(weight: str | None, size: str) -> str:
    return f"font-size: {size}px; font-family: {FONTS}" + (f"; font-weight: {weight}" if weight else "")


def dark(text: str) -> str:
    """Returns an SVG text in the colours of the dark theme."""
    found = {colour.light: colour.dark for colour in (*COLOURS, UNKNOWN, GROUND)}
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: found.get(match[0], match[0]), text)


def with_variables(text: str) -> str:
    """Returns an SVG text whose colours are the variables that `style_sheet` defines."""
    names = {colour.light: f"var(--c{number})" for number, colour in enumerate((*COLOURS, GROUND))}
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: names.get(match[0], match[0]), text)


def style_sheet(theme: str) -> str:
    """Returns the definitions of the variables of `with_variables` for the theme "light" or "dark"."""
    return " ".join(f"--c{number}: {getattr(colour, theme)};" for number, colour in enumerate((*COLOURS, GROUND)))
