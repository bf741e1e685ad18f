"""What can be done to a column, and with which settings."""

from __future__ import annotations

import itertools
import math
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cohortflow.redaction.phi import PathPattern

__all__ = ["Action", "FrozenModel", "Generalization", "Override", "Rule", "Treatment", "TreatmentOrName"]


class Action(StrEnum):
    """What happens to a column."""

    KEEP = "keep"
    SHIFT = "shift"
    """Move dates by whole days, the same number for all dates of a patient."""
    GENERALIZE = "generalize"
    """Replace a value by a coarser one."""
    NOISE = "noise"
    """Change a number by a bounded amount, the same for the same patient, row and value."""
    HASH = "hash"
    """Replace an identifier by a keyed pseudonym."""
    SCRUB = "scrub"
    """Take identifiers out of a text and leave the rest; what does so is given to ``redact``."""
    MASK = "mask"
    """Replace every value by one token; only whether there was a value remains."""
    DROP = "drop"


class Generalization(StrEnum):
    """What a value is generalized to."""

    YEAR = "year"
    YEAR_MONTH = "year_month"
    ZIP3 = "zip3"
    """First three digits of a US ZIP code; 000 where few people live, and for all other postal codes."""
    AGE = "age"
    """An age above the cap becomes the cap plus one."""
    BINS = "bins"
    """A number becomes the name of its bin between two of ``edges``, such as ``10 to < 20``."""
    LIMITS = "limits"
    """A number below ``at_least`` becomes that, one above ``at_most`` that: top and bottom coding."""
    RARE = "rare"
    """A category of fewer than ``under`` patients in the dataset becomes ``other``."""


_SETTINGS: Final = MappingProxyType(
    {
        (Action.GENERALIZE, Generalization.BINS): ({"edges"}, {"edges"}),
        (Action.GENERALIZE, Generalization.LIMITS): (set[str](), {"at_least", "at_most"}),
        (Action.GENERALIZE, Generalization.RARE): ({"under"}, {"under"}),
        (Action.NOISE, None): ({"amount"}, {"amount", "at_least", "at_most"}),
    }
)
"""Settings that a treatment needs, and those that it takes; the others take none."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class FrozenModel(BaseModel):
    """A model that cannot be changed and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Treatment(FrozenModel):
    """An action with what it needs.

    Attributes:
        action: What happens.
        to: What ``generalize`` makes of a value; nothing else has it.
        edges: Of ``bins``, rising; each belongs to the bin that begins with it.
        at_least: Least number that is told, for ``limits`` and ``noise``.
        at_most: Greatest number that is told, for ``limits`` and ``noise``.
        under: Of ``rare``: categories of fewer patients than this are not told.
        amount: Of ``noise``: greatest change, in the column's unit, in either direction.
    """

    action: Action
    to: Generalization | None = None
    edges: Annotated[tuple[_Number, ...], Field(min_length=1)] | None = None
    at_least: _Number | None = None
    at_most: _Number | None = None
    under: Annotated[int, Field(ge=2)] | None = None
    amount: Annotated[_Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        if (self.to is not None) != (self.action is Action.GENERALIZE):
            msg = "'generalize' needs 'to', and no other action takes it"
            raise ValueError(msg)
        needed, taken = _SETTINGS.get(self.kind, (set[str](), set[str]()))
        names = {"edges", "at_least", "at_most", "under", "amount"}
        given = {name for name in names if getattr(self, name) is not None}
        if given - taken:
            msg = f"'{self}' does not take '{min(given - taken)}'"
            raise ValueError(msg)
        if needed - given or (taken and not given):
            msg = f"'{self}' needs '{min(needed - given or taken)}'"
            raise ValueError(msg)
        if any(after <= before for before, after in itertools.pairwise(self.edges or ())):
            msg = "'edges' must rise"
            raise ValueError(msg)
        least, most = self.at_least, self.at_most
        if (-math.inf if least is None else least) > (math.inf if most is None else most):
            msg = "'at_least' is greater than 'at_most'"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> tuple[Action, Generalization | None]:
        """What it is, without its settings: what a standard permits or not."""
        return self.action, self.to

    @property
    def treatment(self) -> Treatment:
        """The treatment alone, without what says where and why."""
        return Treatment(**{name: getattr(self, name) for name in Treatment.model_fields})

    def __str__(self) -> str:
        return f"{self.action} to {self.to}" if self.to else str(self.action)


def _expand(value: object) -> object:
    """Read ``drop`` as ``{action: drop}``."""
    return {"action": value} if isinstance(value, str | Enum) else value


TreatmentOrName = Annotated[Treatment, BeforeValidator(_expand)]
"""A treatment, or the name of an action that needs no settings."""


class Rule(Treatment):
    """An exception to the default of a class.

    Attributes:
        path: Pattern over element paths, as in the table of classes; the most specific rule wins.
        role: Value of the column's ``cohortflow/role`` tag; gives way to rules with a path.
        reason: Why, for the people who read the release's documents.
    """

    path: str | None = None
    role: str | None = None
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if (self.path is None) == (self.role is None):
            msg = "a rule has either 'path' or 'role'"
            raise ValueError(msg)
        return self

    @property
    def pattern(self) -> PathPattern | None:
        """The path's pattern."""
        return None if self.path is None else PathPattern(self.path)


class Override(Treatment):
    """What a study asks for one column, in place of the policy.

    Attributes:
        reason: Why; demanded for everything but ``drop`` and ``mask``.
    """

    reason: str = ""
