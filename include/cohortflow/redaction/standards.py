"""What a policy may claim to meet, and what each claim lets it do to which class."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cohortflow.model import PhiClass
from cohortflow.redaction.actions import Action, Generalization, Treatment

__all__ = ["Standard", "permits"]

_Kind = tuple[Action, Generalization | None]


class Standard(StrEnum):
    """What a policy claims to meet."""

    SAFE_HARBOR = "safe_harbor"
    """45 CFR 164.514(b)(2)."""
    EXPERT_DETERMINATION = "expert_determination"
    """45 CFR 164.514(b)(1), the technical part."""
    LIMITED_DATASET = "limited_dataset"
    """45 CFR 164.514(e)."""
    SYNTHETIC = "synthetic"
    """No patient's data at all: the source must be declared to be synthetic."""

    @property
    def strictness(self) -> int:
        """Rank among the standards; greater is stricter. Synthetic data need a permission of their own."""
        ranks = {"safe_harbor": 3, "expert_determination": 2, "limited_dataset": 1, "synthetic": 0}
        return ranks[self.value]


def _to(*targets: Generalization) -> frozenset[_Kind]:
    return frozenset((Action.GENERALIZE, target) for target in targets)


def _do(*actions: Action) -> frozenset[_Kind]:
    return frozenset((action, None) for action in actions)


_GONE: Final = _do(Action.DROP, Action.MASK)

_SAFE_HARBOR: Final[dict[PhiClass, frozenset[_Kind]]] = {
    PhiClass.DATE: _GONE | _to(Generalization.YEAR),
    PhiClass.AGE: _GONE | _to(Generalization.AGE),
    PhiClass.GEOGRAPHIC: _GONE | _to(Generalization.ZIP3),
    PhiClass.FREE_TEXT: _GONE,
    PhiClass.REFERENCE: _GONE | _do(Action.HASH),
    PhiClass.DIRECT_IDENTIFIER: _GONE,
    PhiClass.UNKNOWN: _GONE,
}
_EXPERT: Final = _SAFE_HARBOR | {
    PhiClass.DATE: _SAFE_HARBOR[PhiClass.DATE] | _do(Action.SHIFT) | _to(Generalization.YEAR_MONTH),
    PhiClass.FREE_TEXT: _GONE | _do(Action.SCRUB),
    PhiClass.DIRECT_IDENTIFIER: _GONE | _do(Action.HASH),
}
_LIMITED: Final = _EXPERT | {
    PhiClass.DATE: _EXPERT[PhiClass.DATE] | _do(Action.KEEP),
    PhiClass.AGE: _EXPERT[PhiClass.AGE] | _do(Action.KEEP),
    PhiClass.GEOGRAPHIC: _EXPERT[PhiClass.GEOGRAPHIC] | _do(Action.KEEP),
}

_PERMITTED: Final = MappingProxyType(
    {
        Standard.SAFE_HARBOR: _SAFE_HARBOR,
        Standard.EXPERT_DETERMINATION: _EXPERT,
        Standard.LIMITED_DATASET: _LIMITED,
        # Not more than a limited data set: so much gets out where a source was declared wrongly.
        Standard.SYNTHETIC: _LIMITED,
    }
)
"""What a standard lets a policy do to a class; a class that is not listed is free."""


def permits(standard: Standard, phi: PhiClass, treatment: Treatment) -> bool:
    """Whether a standard lets this happen to a class."""
    permitted = _PERMITTED[standard].get(phi)
    return permitted is None or treatment.kind in permitted
