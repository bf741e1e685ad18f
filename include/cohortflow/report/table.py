"""Tables of reports: a caption, headings for columns and rows, numbers to the right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from cohortflow.report.markup import Markup, element, join

__all__ = ["render_table"]


def render_table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Collection[int] = ()
) -> Markup:
    """Return a table, in a region that scrolls where the window is narrow.

    Args:
        caption: What the table shows.
        columns: Headings.
        rows: Cells. The first is the heading of its row, or of all rows after each other that have the same.
        numbers: Positions of the columns that hold numbers.
    """
    style = ["number" if position in numbers else "" for position in range(len(columns))]
    heads = [element("th", name, class_=kind, scope="col") for name, kind in zip(columns, style, strict=True)]
    groups = [_render_group(heading, list(group), style) for heading, group in groupby(rows, itemgetter(0))]
    parts = [element("caption", caption), element("thead", element("tr", *heads)), *groups]
    table = element("table", "\n", join(parts), "\n")
    return element("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _render_group(heading: str, rows: Sequence[Sequence[str]], style: Sequence[str]) -> Markup:
    span = {"scope": "rowgroup", "rowspan": str(len(rows))} if len(rows) > 1 else {"scope": "row"}
    first = element("th", heading, **span)
    lines = []
    for row in rows:
        cells = [element("td", cell, class_=kind) for cell, kind in zip(row[1:], style[1:], strict=True)]
        lines.append(element("tr", first, *cells))
        first = Markup()
    return element("tbody", "\n", join(lines), "\n")
