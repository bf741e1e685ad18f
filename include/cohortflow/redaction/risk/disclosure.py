"""Counts for readers: small ones are not shown, and cannot be worked out from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cohortflow.model import SMALL_CELL

__all__ = ["HIDDEN", "show_count", "show_counts", "show_share"]

HIDDEN: Final = "not shown"
"""In place of a count that would give a small one away."""

_LEAST_HIDDEN: Final = 2


def show_count(count: int, *beside: int, minimum: int = SMALL_CELL) -> str:
    """Return a count as text: ``<11`` where it is small, ``not shown`` where it would tell a small one.

    Args:
        count: The count.
        beside: Counts that are shown too and contain this one or are contained in it, such as the whole:
            a small difference to one of them must not be worked out either.
        minimum: Least count to show, besides none.
    """
    if 0 < count < minimum:
        return f"<{minimum}"
    if count and any(0 < abs(other - count) < minimum for other in beside):
        return HIDDEN
    return f"{count:,}"


def show_counts(counts: Sequence[int], *, minimum: int = SMALL_CELL, hide_total: bool = False) -> list[str]:
    """Return counts that add up to a total as text.

    Where the total would give hidden counts away, the next smallest ones are hidden as well, so that what
    is hidden is at least two counts and together no small one.

    Args:
        counts: The counts.
        minimum: Least count to show, besides none.
        hide_total: Whether the total is a secret too: then at least one count is hidden.
    """
    hidden = {position for position, count in enumerate(counts) if 0 < count < minimum}
    others = sorted(
        (position for position, count in enumerate(counts) if count >= minimum),
        key=lambda position: (counts[position], position),
    )
    if hide_total and others and not hidden:
        hidden.add(others.pop(0))
    while hidden and others and not hide_total:
        together = sum(counts[position] for position in hidden)
        if len(hidden) >= _LEAST_HIDDEN and together >= minimum:
            break
        hidden.add(others.pop(0))
    return [
        HIDDEN if position in hidden and count >= minimum else show_count(count, minimum=minimum)
        for position, count in enumerate(counts)
    ]


def show_share(count: int, whole: int, *beside: int, minimum: int = SMALL_CELL, digits: int = 1) -> str:
    """Return a part's percentage, or the count's own text where that is hidden.

    Args:
        count: The part.
        whole: The whole, which is shown too.
        beside: Further counts that are shown; see ``show_count``.
        minimum: Least count to show, besides none.
        digits: Digits after the point.
    """
    text = show_count(count, whole, *beside, minimum=minimum)
    if not whole or text in {HIDDEN, f"<{minimum}"}:
        return text
    return f"{100 * count / whole:.{digits}f}%"
