"""The page around a report, and what stands at its top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from string import Template

from cohortflow.report.markup import Markup, Tone, element, join, soft

__all__ = ["callout", "count_noun", "list_figures", "render_page"]


def render_page(title: str, heading: str, intro: str, body: Iterable[str]) -> str:
    """Return a page.

    Args:
        title: Of the browser's window, as plain text.
        heading: Of the page.
        intro: What the page is about, in a line below the heading.
        body: Parts of the page in their order; empty ones are left out.
    """
    top = (element("h1", heading), element("p", intro, class_="soft"))
    return Template(_read("page.html")).substitute(
        title=join([title]), style=_read("style.css").rstrip(), body=join([*top, *body])
    )


def callout(tone: Tone, verdict: str, explanation: str) -> Markup:
    """Return what a reader must see first: a verdict, and a sentence on it."""
    return element(
        "div",
        element("strong", verdict, "."),
        " ",
        element("span", explanation),
        class_=f"callout {tone}",
        role="note",
    )


def list_figures(figures: Mapping[str, str | tuple[str, str]]) -> Markup:
    """Return the main figures by name, each alone or with a remark."""
    items = []
    for name, figure in figures.items():
        value, remark = (figure, "") if isinstance(figure, str) else figure
        shown = element("dd", value, soft(remark))
        items.append(element("div", element("dt", name), shown))
    return element("dl", "\n", join(items), "\n", class_="summary")


def count_noun(number: int, noun: str) -> str:
    """Return a number and what it counts: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@cache
def _read(name: str) -> str:
    return resources.files("cohortflow.report").joinpath(name).read_text(encoding="utf-8")
