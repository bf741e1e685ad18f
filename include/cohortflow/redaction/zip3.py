"""Three-digit ZIP code areas with 20,000 people or fewer, 45 CFR 164.514(b)(2)(i)(B)(2).

The list changes with every census. ``restricted_zip3.csv`` holds what is published as guidance; a policy
adds further prefixes of its own.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib import resources
from typing import Final

__all__ = ["OUTSIDE", "restricted_prefixes"]

OUTSIDE: Final = "000"
"""What a restricted prefix becomes."""


@lru_cache(maxsize=8)
def restricted_prefixes(name: str) -> frozenset[str]:
    """Return the prefixes of a shipped list.

    Raises:
        ValueError: There is no such list.
    """
    text = resources.files("cohortflow.redaction").joinpath("restricted_zip3.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    prefixes = frozenset(row["prefix"] for row in rows if row["list"] == name)
    if not prefixes:
        known = ", ".join(sorted({row["list"] for row in rows}))
        msg = f"no list '{name}' of restricted ZIP codes; known: {known}"
        raise ValueError(msg)
    return prefixes
