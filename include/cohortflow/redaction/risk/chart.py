"""The chart of class sizes: bars side by side, before suppression and as published, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from cohortflow.redaction.risk.report import SizeRange

__all__ = ["draw_sizes"]

_WIDTH: Final = 720
_LEFT: Final = 20
_TOP: Final = 44
_HEIGHT: Final = 180
_BAR: Final = 52
_UNKNOWN: Final = 14  # height of the box of a count that is not shown

_PATTERN: Final = (
    '<defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>'
)
_LEGEND: Final = (
    (0, "before", "before suppression"),
    (170, "after", "as published"),
    (300, "hidden", "too few to be shown, or would tell them"),
)


def draw_sizes(before: Sequence[SizeRange], after: Sequence[SizeRange]) -> str:
    """Return the chart; what it shows stands in the texts beside the bars too.

    Args:
        before: Ranges of class sizes before suppression.
        after: The same ranges as published.
    """
    group = (_WIDTH - 2 * _LEFT) / len(before)
    base = _TOP + _HEIGHT
    parts = [_PATTERN, *_draw_legend()]
    for position, (first, second) in enumerate(zip(before, after, strict=True)):
        middle = _LEFT + group * (position + 0.5)
        parts += _draw_bar(first, middle - _BAR - 2, base, "before")
        parts += _draw_bar(second, middle + 2, base, "after")
        parts.append(
            f'<text x="{middle:.0f}" y="{base + 20}" text-anchor="middle">{escape(first.label)}</text>'
        )
    parts += [
        f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _LEFT}" y2="{base}"/>',
        f'<text x="{_WIDTH / 2:.0f}" y="{base + 42}" text-anchor="middle">subjects in the class</text>',
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {base + 52}" role="img" aria-label="Share of subjects by the size of'
        f' their class, before suppression and as published">{"".join(parts)}</svg>'
    )


def _draw_legend() -> list[str]:
    return [
        part
        for x, kind, text in _LEGEND
        for part in (
            f'<rect class="{kind}" x="{_LEFT + x}" y="6" width="14" height="14"/>',
            f'<text x="{_LEFT + x + 20}" y="18">{text}</text>',
        )
    ]


def _draw_bar(item: SizeRange, x: float, base: int, kind: str) -> list[str]:
    if item.share is None:
        height, text, kind = float(_UNKNOWN), item.subjects, "hidden"
    else:
        height, text = max(_HEIGHT * item.share, 1.0 if item.share else 0.0), _percent(item.share)
    top = base - height
    return [
        f'<rect class="{kind}" x="{x:.0f}" y="{top:.1f}" width="{_BAR}" height="{height:.1f}"/>',
        f'<text x="{x + _BAR / 2:.0f}" y="{top - 5:.1f}" text-anchor="middle">{escape(text)}</text>',
    ]


def _percent(share: float) -> str:
    least = 0.01
    return "under 1%" if 0 < share < least else f"{100 * share:.0f}%"
