"""Figures of matplotlib as inline SVG with the colours and the font of the page, light or dark.

A figure is drawn in placeholder colours; the written SVG has CSS variables instead. Text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = {
    "text": "#101011",
    "muted": "#101012",
    "grid": "#101013",
    "axis": "#101014",
    "surface": "#101015",
    "good": "#101021",
    "bad": "#101022",
    "neutral": "#101023",
    "band": "#101024",
    **{f"s{number}": f"#1010{number + 0x30:02x}" for number in range(1, 9)},
    **{f"k{number}": f"#1010{number + 0x50:02x}" for number in range(1, 9)},
}
"""CSS variable (without its dashes) -> placeholder colour. s1 to s8: policies; k1 to k8: parts of a whole."""

POINTS_PER_INCH = 72
TIP = "tip:"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the same layout on all machines
    "text.parse_math": False,  # names may contain dollar signs
    "font.size": 11.0,
    "axes.edgecolor": INKS["axis"],
    "axes.labelcolor": INKS["muted"],
    "axes.labelsize": 11.0,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INKS["grid"],
    "grid.linewidth": 0.8,
    "text.color": INKS["text"],
    "xtick.color": INKS["axis"],
    "ytick.color": INKS["axis"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}


class Canvas:
    """A figure with one plot; `svg` is set at the end of its `with canvas(...)` block."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure = figure
        self.axes = axes
        self.tips: list[tuple[str, Mapping[str, str]]] = []
        self.svg = Markup()

    def tip(self, text: str, pick: Mapping[str, str] | None = None) -> str:
        """Return a group id for an artist (`gid=`) with the tooltip `text`.

        A click on it filters the tasks by `pick`: `repository`, `policy` or `outcome` -> value.
        """
        self.tips.append((text, pick or {}))
        return f"{TIP}{len(self.tips) - 1}"


@contextmanager
def canvas(name: str, description: str, width: float = 390, height: float = 250) -> Iterator[Canvas]:
    """Draw a plot of `width` x `height` CSS pixels, scaled to its column.

    `name` makes the ids unique among the figures of a page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout="constrained")
        drawing = Canvas(figure, figure.add_subplot())
        yield drawing
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing.svg = _themed(written.getvalue(), drawing.tips, description, width)


def _group(text: str, pick: Mapping[str, str]) -> str:
    if not pick:
        return f"<g><title>{escape(text)}</title>"
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in pick.items())
    return f'<g class="pick" tabindex="0" role="button" aria-label="{escape(text)}"{data}><title>{escape(text)}</title>'


def _themed(svg: str, tips: list[tuple[str, Mapping[str, str]]], description: str, width: float) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>|<style.*?</style>", "", svg, flags=re.DOTALL)
    for ink, placeholder in INKS.items():
        svg = svg.replace(placeholder, f"var(--{ink})")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # the page's own font
    svg = re.sub(rf'<g id="{TIP}(\d+)">', lambda group: _group(*tips[int(group[1])]), svg)
    svg = re.sub(r'<g id="[^"]*"/>', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # ids such as axes_1 occur in every figure
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)  # hundredths of a pixel suffice
    svg = re.sub(r"\s+", " ", svg).replace("xlink:href", "href")
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box, "matplotlib writes a viewBox"
    role = "group" if any(pick for _, pick in tips) else "img"  # a screen reader skips the content of an image
    head = (
        f'<svg class="chart" role="{role}" aria-label="{escape(description)}" viewBox="{box[1]}" '
        f'style="max-width:{1.3 * width:g}px">'
    )
    return Markup(head + svg[svg.index(">") + 1 :])  # made by matplotlib; tips are escaped above
