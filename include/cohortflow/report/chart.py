"""Bar charts as inline SVG; textures and texts tell what colours tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cohortflow.report.markup import Markup, Tone, element, join

__all__ = ["Bar", "Series", "draw_bars"]

_WIDTH: Final = 800
_BAR: Final = 20
_SWATCH: Final = 14
_CHARACTER: Final = 7
"""Room for a character; the mean width of the type is less."""


@dataclass(frozen=True, slots=True)
class Series:
    """A kind of bar: its name in the legend, its colour, and what tells it from others without colour."""

    label: str
    tone: Tone
    texture: Literal["solid", "hatched", "dashed"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, of one part or of several end to end.

    Attributes:
        label: What it is of; empty where it belongs to the bar above.
        parts: Kind and length of each part; lengths are from 0 to 1, and 1 at most together.
        text: The figure beside it.
    """

    label: str
    parts: Sequence[tuple[Series, float]]
    text: str


def draw_bars(description: str, series: Sequence[Series], bars: Sequence[Bar]) -> Markup:
    """Return a chart of horizontal bars, with a legend, in a region that scrolls where the window is narrow.

    Args:
        description: What the chart shows, for those who do not see it.
        series: Kinds of bars, for the legend.
        bars: From the top.
    """
    left = _measure(bar.label for bar in bars)
    scale = _WIDTH - left - _measure(bar.text for bar in bars)
    parts: list[Markup] = []
    y = -16
    for bar in bars:
        y += 40 if bar.label else 24
        parts.append(_write(bar.label, 0, y))
        parts += _draw_bar(bar, left, y, scale)
    y += 40
    parts += _draw_legend(series, y)
    box = f"0 0 {_WIDTH} {y + 8}"
    chart = element("svg", "\n", join(parts), "\n", viewBox=box, role="img", aria_label=description)
    return element(
        "div", chart, class_="scroll", role="region", aria_label=f"Chart: {description}", tabindex=0
    )


def _draw_bar(bar: Bar, x: float, y: float, scale: float) -> Iterator[Markup]:
    for kind, length in bar.parts:
        yield from _fill(kind, x, y - 14, scale * length, _BAR)
        x += scale * length
    yield _write(bar.text, x + _CHARACTER, y)


def _draw_legend(series: Sequence[Series], y: float) -> Iterator[Markup]:
    x = 1
    for kind in series:
        yield from _fill(kind, x, y - 11, _SWATCH, _SWATCH)
        yield _write(kind.label, x + 20, y)
        x += 28 + _measure([kind.label])


def _fill(kind: Series, x: float, y: float, width: float, height: float) -> Iterator[Markup]:
    if width:
        place = {"x": f"{x:.1f}", "y": f"{y}", "width": f"{max(width, 1):.1f}", "height": f"{height}"}
        yield element("rect", class_=f"{kind.texture} {kind.tone}", **place)
        if kind.texture == "hatched":
            yield element("rect", fill="url(#hatching)", **place)


def _write(text: str, x: float, y: float) -> Markup:
    return element("text", text, x=f"{x:.1f}", y=y) if text else Markup()


def _measure(texts: Iterable[str]) -> int:
    """Return the room that texts need, with some to spare."""
    return _CHARACTER * (2 + max(map(len, texts), default=0))
