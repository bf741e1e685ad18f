"""HTML that is escaped by construction: whatever is not ``Markup`` is escaped where it is put in."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Literal

__all__ = ["Markup", "Tone", "code", "concat", "element", "join", "soft"]

Tone = Literal["passed", "failed", "warned", "idle", "plain"]
"""What a colour says; the style sheet has a class for each. Words or textures always say it too."""


class Markup(str):
    """HTML as it goes into a page."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str | float) -> Markup:
    """Return an element.

    Args:
        tag: Name of the element; none of those that have no end tag.
        content: Texts and ``Markup``.
        attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; empty ones are left out.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value != ""
    )
    return Markup(f"<{tag}{named}>{concat(*content)}</{tag}>")


def concat(*content: str) -> Markup:
    """Return texts and ``Markup`` one behind the other."""
    return join(content, "")


def join(parts: Iterable[str], between: str = "\n") -> Markup:
    """Return texts and ``Markup`` with something between; empty ones are left out."""
    return Markup(between.join(part if isinstance(part, Markup) else escape(part) for part in parts if part))


def code(text: str) -> Markup:
    """Return a name as it is written in files."""
    return element("code", text)


def soft(text: str) -> Markup:
    """Return a remark, on a line of its own; nothing where there is none."""
    return element("small", text) if text else Markup()
