"""The least count of people that is shown outside the zones of patient data."""

from __future__ import annotations

from typing import Final

__all__ = ["SMALL_CELL"]

SMALL_CELL: Final = 11
"""Counts from 1 to 10 are not shown, as the US Centers for Medicare & Medicaid Services ask."""
