"""Redaction policies: what happens to which class of column, and which standard that meets.

A policy is a file of the catalog, ``catalog/redaction/<name>.yaml``. It names the standard that it
claims to meet, and a policy that does less than the standard asks does not load.

``safe_harbor``
    45 CFR 164.514(b)(2). None of the 18 identifiers; of dates the year; ages over 89 are one group;
    three digits of the ZIP code. What remains is what codes and numbers tell in combination.
``expert_determination``
    45 CFR 164.514(b)(1), the technical part only. Dates are shifted per patient, so that intervals stay
    exact; all else as Safe Harbor. An expert must still find, and document, that the risk is very small.
``limited_dataset``
    45 CFR 164.514(e). No direct identifiers, but true dates, ages, city, state and ZIP code. It remains
    protected health information and needs a data use agreement.

Pseudonyms are keyed codes under 164.514(c): they may be released because the key is not, and because
the server's ids say nothing about a person. Where a server builds ids from, say, record numbers, let an
expert judge that.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cohortflow.errors import PolicyError
from cohortflow.model import Catalog, PhiClass
from cohortflow.redaction.phi import PathPattern
from cohortflow.redaction.zip3 import restricted_prefixes

__all__ = [
    "Action",
    "Generalization",
    "Override",
    "RedactionPolicy",
    "Rule",
    "Standard",
    "Treatment",
    "check_strictness",
    "load_policy",
]


class Action(StrEnum):
    """What happens to a column."""

    KEEP = "keep"
    SHIFT = "shift"
    """Move dates by whole days, the same number for all dates of a patient."""
    GENERALIZE = "generalize"
    """Replace a value by a coarser one."""
    HASH = "hash"
    """Replace an identifier by a keyed pseudonym."""
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


class Standard(StrEnum):
    """What a policy claims to meet."""

    SAFE_HARBOR = "safe_harbor"
    EXPERT_DETERMINATION = "expert_determination"
    LIMITED_DATASET = "limited_dataset"

    @property
    def strictness(self) -> int:
        """Rank among the standards; greater is stricter."""
        return {"safe_harbor": 3, "expert_determination": 2, "limited_dataset": 1}[self.value]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Treatment(_Frozen):
    """An action with what it needs.

    Attributes:
        action: What happens.
        to: What ``generalize`` makes of a value; nothing else has it.
    """

    action: Action
    to: Generalization | None = None

    @model_validator(mode="after")
    def _check_to(self) -> Treatment:
        if (self.to is not None) != (self.action is Action.GENERALIZE):
            msg = "'generalize' needs 'to', and no other action takes it"
            raise ValueError(msg)
        return self

    def __str__(self) -> str:
        return f"{self.action} to {self.to}" if self.to else str(self.action)


def _expand(value: object) -> object:
    """Read ``drop`` as ``{action: drop}``."""
    return {"action": value} if isinstance(value, str | Enum) else value


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
    def _check_place(self) -> Rule:
        if (self.path is None) == (self.role is None):
            msg = "a rule has either 'path' or 'role'"
            raise ValueError(msg)
        return self

    @property
    def pattern(self) -> PathPattern | None:
        """The path's pattern."""
        return None if self.path is None else PathPattern(self.path)

    @property
    def treatment(self) -> Treatment:
        """The rule without its place."""
        return Treatment(action=self.action, to=self.to)


class Override(Treatment):
    """What a study asks for one column, in place of the policy.

    Attributes:
        reason: Why; demanded for everything but ``drop`` and ``mask``.
    """

    reason: str = ""


_DROP: Final = Treatment(action=Action.DROP)
_MASK: Final = Treatment(action=Action.MASK)
_HASH: Final = Treatment(action=Action.HASH)
_KEEP: Final = Treatment(action=Action.KEEP)
_SHIFT: Final = Treatment(action=Action.SHIFT)
_GONE: Final = frozenset({_DROP, _MASK})


def _to(target: Generalization) -> Treatment:
    return Treatment(action=Action.GENERALIZE, to=target)


_SAFE_HARBOR: Final[dict[PhiClass, frozenset[Treatment]]] = {
    PhiClass.DATE: _GONE | {_to(Generalization.YEAR)},
    PhiClass.AGE: _GONE | {_to(Generalization.AGE)},
    PhiClass.GEOGRAPHIC: _GONE | {_to(Generalization.ZIP3)},
    PhiClass.FREE_TEXT: _GONE,
    PhiClass.REFERENCE: _GONE | {_HASH},
    PhiClass.DIRECT_IDENTIFIER: _GONE,
    PhiClass.UNKNOWN: _GONE,
}
_EXPERT: Final = _SAFE_HARBOR | {
    PhiClass.DATE: _SAFE_HARBOR[PhiClass.DATE] | {_SHIFT, _to(Generalization.YEAR_MONTH)},
    PhiClass.DIRECT_IDENTIFIER: _GONE | {_HASH},
}
_LIMITED: Final = _EXPERT | {
    PhiClass.DATE: _EXPERT[PhiClass.DATE] | {_KEEP},
    PhiClass.AGE: _EXPERT[PhiClass.AGE] | {_KEEP},
    PhiClass.GEOGRAPHIC: _EXPERT[PhiClass.GEOGRAPHIC] | {_KEEP},
}

_PERMITTED: Final = MappingProxyType(
    {
        Standard.SAFE_HARBOR: _SAFE_HARBOR,
        Standard.EXPERT_DETERMINATION: _EXPERT,
        Standard.LIMITED_DATASET: _LIMITED,
    }
)
"""What a standard lets a policy do to a class; a class that is not listed is free."""

_HIPAA_AGE_CAP: Final = 89


class RedactionPolicy(_Frozen):
    """A policy, checked against the standard that it claims.

    Attributes:
        name: Name in the catalog.
        title: One line for people.
        standard: What it meets.
        guarantee: What a reader of the data may rely on, in plain words, for the release's documents.
        defaults: Treatment of each class; a class that is left out is dropped.
        rules: Exceptions by path or role.
        overridable: Classes whose treatment a study may change, with a written reason.
        shift_days: Greatest shift of a date, in days, in either direction.
        age_cap: Greatest age that is told; greater ones become one group, and no date shows them.
            ``None``: ages are told as they are.
        restricted_zip3: Name of a shipped list of three-digit ZIP codes that become 000.
        also_restricted_zip3: Further ones, since the list changes with every census.
        rows_without_subject: What happens to rows that name no patient: they cannot be shifted or
            linked, nor be deleted on request, so they are dropped unless a policy says ``keep``
            (their dates are then null where dates are shifted).
    """

    name: str
    title: str
    standard: Standard
    guarantee: str = Field(min_length=1)
    defaults: dict[PhiClass, Annotated[Treatment, BeforeValidator(_expand)]]
    rules: tuple[Rule, ...] = ()
    overridable: frozenset[PhiClass] = frozenset()
    shift_days: int = Field(default=365, ge=1, le=3650)
    age_cap: int | None = Field(default=_HIPAA_AGE_CAP, ge=1, le=120)
    restricted_zip3: str = "census_2000"
    also_restricted_zip3: frozenset[Annotated[str, Field(pattern=r"^\d{3}$")]] = frozenset()
    rows_without_subject: Literal["drop", "keep"] = "drop"

    @field_validator("defaults", mode="before")
    @classmethod
    def _name_classes(cls, value: object) -> object:
        return {_phi(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("overridable", mode="before")
    @classmethod
    def _name_overridable(cls, value: object) -> object:
        return [_phi(item) for item in value] if isinstance(value, list | tuple | set | frozenset) else value

    @field_validator("overridable")
    @classmethod
    def _check_overridable(cls, value: frozenset[PhiClass]) -> frozenset[PhiClass]:
        if PhiClass.DIRECT_IDENTIFIER in value:
            msg = "direct identifiers are never overridable"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _check_standard(self) -> RedactionPolicy:
        for phi in PhiClass:
            if not self.permits(phi, self.default(phi)):
                msg = f"{self.standard} does not permit '{self.default(phi)}' for {phi.name}"
                raise ValueError(msg)
        capped = self.age_cap is not None and self.age_cap <= _HIPAA_AGE_CAP
        if self.standard is not Standard.LIMITED_DATASET and not capped:
            msg = f"{self.standard} needs an age_cap of at most {_HIPAA_AGE_CAP}"
            raise ValueError(msg)
        self.restricted_prefixes()
        return self

    @property
    def strictness(self) -> int:
        """Rank of its standard; greater is stricter."""
        return self.standard.strictness

    def default(self, phi: PhiClass) -> Treatment:
        """Return the treatment of a class where no rule says otherwise."""
        return self.defaults.get(phi, _DROP)

    def permits(self, phi: PhiClass, treatment: Treatment) -> bool:
        """Whether the standard lets this happen to a class."""
        permitted = _PERMITTED[self.standard].get(phi)
        return permitted is None or treatment in permitted

    def restricted_prefixes(self) -> frozenset[str]:
        """Return the three-digit ZIP codes that become 000."""
        return restricted_prefixes(self.restricted_zip3) | self.also_restricted_zip3


def _phi(name: object) -> object:
    if isinstance(name, str):
        if name not in PhiClass.__members__:
            msg = f"'{name}' is no class; the classes are {', '.join(PhiClass.__members__)}"
            raise ValueError(msg)
        return PhiClass[name]
    return name


def load_policy(catalog: Catalog, name: str) -> RedactionPolicy:
    """Read a policy of the catalog.

    Raises:
        CatalogError: There is none of this name, or it is not YAML.
        PolicyError: It is malformed, or does less than the standard that it claims.
    """
    value = catalog.load("redaction", name)
    place = str(catalog.path("redaction", name))
    try:
        policy = RedactionPolicy.model_validate(value)
    except ValidationError as error:
        raise PolicyError(_describe(error), place=place, remedy="Mend the policy.") from error
    if policy.name != name:
        raise PolicyError(
            f"The policy calls itself '{policy.name}'.", place=place, remedy=f"Name it '{name}', as its file."
        )
    return policy


def _describe(error: ValidationError) -> str:
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        steps = list(fault["loc"])
        if steps[:1] == ["defaults"] and len(steps) > 1:
            steps[1] = PhiClass(int(steps[1])).name
        where = ".".join(str(step) for step in steps)
        faults.append(f"{where}: {fault['msg']}" if where else fault["msg"])
    return "; ".join(faults)


def check_strictness(policy: RedactionPolicy, weakest: Standard, *, environment: str) -> None:
    """Check that a policy is at least as strict as an environment demands.

    Raises:
        PolicyError: It is weaker.
    """
    if policy.strictness < weakest.strictness:
        raise PolicyError(
            f"Environment '{environment}' allows no redaction weaker than '{weakest}';"
            f" policy '{policy.name}' is '{policy.standard}'.",
            remedy="Choose a stricter policy, or run the study in another environment.",
        )
