"""How long work reports that it goes on."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NoProgress", "Progress"]


class Progress(Protocol):
    """Takes counts, never values."""

    def update(self, task: str, done: int, total: int | None = None, unit: str = "") -> None:
        """Say that ``done`` of ``total`` (``None``: unknown) units of ``task`` are finished."""
        ...


class NoProgress:
    """Says nothing."""

    def update(self, task: str, done: int, total: int | None = None, unit: str = "") -> None:
        """Ignore the count."""
