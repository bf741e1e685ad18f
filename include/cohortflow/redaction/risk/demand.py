"""What a table of subjects must meet before it is published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Diversity", "RiskDemand"]

Diversity = Literal["distinct", "entropy", "recursive"]
"""Kinds of l-diversity."""

_ROUNDING: Final = 1e-9  # sums of shares are not exact


@dataclass(frozen=True, slots=True)
class RiskDemand:
    """What every class must meet.

    Attributes:
        k: Least number of subjects; 1 demands nothing.
        l: Least diversity of each sensitive column; ``None`` demands none.
        diversity: How it is measured.
        c: The c of recursive (c, l)-diversity.
        t: Greatest distance of each sensitive column; ``None`` demands none.
    """

    k: int = 1
    l: float | None = None  # noqa: E741 - the name that the literature gives it
    diversity: Diversity = "distinct"
    c: float = 3.0
    t: float | None = None

    @property
    def recursive_l(self) -> int:
        """The l of recursive (c, l)-diversity, a whole number."""
        return max(1, math.ceil(self.l)) if self.l is not None else 2

    @property
    def least_diversity(self) -> float:
        """Least diversity that passes, rounding allowed for."""
        return -math.inf if self.l is None else self.l - _ROUNDING

    @property
    def greatest_distance(self) -> float:
        """Greatest distance that passes, rounding allowed for."""
        return math.inf if self.t is None else self.t + _ROUNDING

    def describe(self) -> dict[str, str]:
        """Return what is demanded, by name, as text."""
        described = {"k": str(self.k)}
        if self.l is not None:
            kind = f"recursive with c = {self.c:g}" if self.diversity == "recursive" else self.diversity
            described["l"] = f"{self.l:g} ({kind})"
        if self.t is not None:
            described["t"] = f"{self.t:g}"
        return described
