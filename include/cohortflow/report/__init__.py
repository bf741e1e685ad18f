"""What the HTML reports share: one page and style sheet, tables, figures and charts, all text escaped.

A page is one file that needs nothing else: no script, no font, no image. It can be read in light and in dark,
on paper, in a narrow window, by a screen reader and without colour.
"""

from __future__ import annotations

from cohortflow.report.chart import Bar, Series, draw_bars
from cohortflow.report.markup import Markup, Tone, code, concat, element, join, soft
from cohortflow.report.page import callout, count_noun, list_figures, render_page
from cohortflow.report.table import render_table

__all__ = [
    "Bar",
    "Markup",
    "Series",
    "Tone",
    "callout",
    "code",
    "concat",
    "count_noun",
    "draw_bars",
    "element",
    "join",
    "list_figures",
    "render_page",
    "render_table",
    "soft",
]
