"""What a study says about mapping the codes of a view."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cohortflow.model import Column, ColumnType, PhiClass

__all__ = [
    "IDENTITY",
    "PATH_SEPARATOR",
    "STORED",
    "CodeMapping",
    "PatientContext",
    "RuleOutcome",
    "UnmappedReason",
    "mapped_columns",
]

IDENTITY = "identity"
"""Stands in ``<prefix>_map`` where the source code was in the target system already."""
STORED = "terminology:"
"""Before the name of a map that ``cohortflow terminology load`` brought, in place of one of the catalog."""
PATH_SEPARATOR = ">"
"""Between the maps of a path: the targets of the first are the sources of the second."""


class UnmappedReason(StrEnum):
    """Why a row has no target."""

    NO_SOURCE_CODE = "no source code"
    SYSTEM_NOT_IN_MAP = "system not in map"
    CODE_NOT_IN_MAP = "code not in map"
    NO_TARGET = "no target"
    """The map states that the target system has no such concept."""
    RULE_NOT_DECIDABLE = "rule not decidable"
    """The map's choice depends on what the row does not tell: age, sex, or another finding."""


class RuleOutcome(StrEnum):
    """How a target was chosen by a map with rules."""

    DECIDED = "decided"
    DEFAULT = "default after an undecidable rule"


class PatientContext(BaseModel):
    """Columns that the rules of a map look at.

    Attributes:
        sex: FHIR's gender, ``M``/``F``, or the SNOMED CT findings.
        birth_date: Date of birth.
        at: Date at which the age counts: onset, or else when the condition was recorded.
        age: Age in years, in place of the two dates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sex: str | None = None
    birth_date: str | None = None
    at: str | None = None
    age: str | None = None

    @model_validator(mode="after")
    def _check_age(self) -> Self:
        if (self.birth_date is None) != (self.at is None):
            raise ValueError("'birth_date' and 'at' give the age together: set both")
        if self.age is not None and self.at is not None:
            raise ValueError("the age comes from 'age', or from 'birth_date' and 'at': set one of them")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are set."""
        return tuple(c for c in (self.sex, self.birth_date, self.at, self.age) if c is not None)


class CodeMapping(BaseModel):
    """Adds the columns ``<prefix>_code``, ``_system``, ``_display``, ``_relationship``, ``_map``,
    ``_unmapped_reason`` to a view.

    Attributes:
        maps: ConceptMaps of the catalog, and maps of loaded terminologies as ``terminology:<name>`` or, of a
            certain version, ``terminology:<name>|<version>``. The first one with a target for a code is used
            for it, so that a site's own map goes before a general one. ``a > b`` is a path over two maps.
        code: Source column with the code.
        system: Source column with its code system.
        prefix: Of the added columns, such as ``icd10cm``.
        cardinality: ``best`` keeps one row for each source row: the closest relationship wins, then the order
            in the map. ``all`` gives one row for each target.
        min_coverage: Share of the rows with a source code that must have a target, 0 to 1.
        context: Where the rules of a map find age and sex. Without it such rules cannot be decided.
        undecided: What a rule that cannot be decided leads to: ``unmapped`` gives no target and says why;
            ``default`` goes on to the next rule of the group, as the publishers of the SNOMED CT maps intend
            for records without the context, and marks the row in ``<prefix>_rule``.
        replace_retired: Whether a retired code that has no target is mapped as its successor, which
            ``<prefix>_replaced`` then holds. Needs the loaded terminology.
        text: Column with the source's text. Where a code leads to no target, a text that is a term of exactly
            one concept, but for case and punctuation, does. Needs the loaded terminology.
    """  # noqa: D205 - the columns belong into the summary

    model_config = ConfigDict(frozen=True, extra="forbid")

    maps: Annotated[tuple[str, ...], Field(min_length=1)]
    code: str = "code"
    system: str = "code_system"
    prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    cardinality: Literal["best", "all"] = "best"
    min_coverage: Annotated[float, Field(ge=0, le=1)] | None = None
    context: PatientContext | None = None
    undecided: Literal["unmapped", "default"] = "unmapped"
    replace_retired: bool = False
    text: str | None = None

    @property
    def source_columns(self) -> dict[str, str]:
        """The columns of the view that are read: what for, and their name."""
        context = dict.fromkeys(self.context.columns, "context") if self.context else {}
        named = {"code": self.code, "system": self.system} | ({"text": self.text} if self.text else {})
        return named | {f"context '{column}'": column for column in context}

    @property
    def optional_parts(self) -> tuple[str, ...]:
        """What is added beyond the six columns."""
        return (("replaced",) if self.replace_retired else ()) + (
            ("rule",) if self.undecided == "default" else ()
        )

    def output(self, part: str) -> str:
        """Return the name of an added column, such as ``code`` or ``unmapped_reason``."""
        return f"{self.prefix}_{part}"


_DESCRIPTIONS = {
    "code": "Code in the target system; empty where the source code has no target.",
    "system": "Code system of the target.",
    "display": "Name of the target concept, from the map.",
    "relationship": "Of the source to the target concept (FHIR R5 concept-map-relationship).",
    "map": f"ConceptMap and version that the target comes from; '{IDENTITY}' where none was needed.",
    "unmapped_reason": f"Empty, or one of: {', '.join(UnmappedReason)}.",
}
_OPTIONAL_DESCRIPTIONS = {
    "replaced": "Successor of the retired source code, by which it was mapped; empty where none was needed.",
    "rule": f"Where rules of the map chose the target, one of: {', '.join(RuleOutcome)}.",
}


def mapped_columns(mapping: CodeMapping) -> tuple[Column, ...]:
    """Return the columns that a mapping adds, in their order.

    They come from the curated map, or are codes of the target system's syntax, and never carry text of the
    record: they are safe codes, whatever the source columns hold.
    """
    return tuple(
        Column(mapping.output(part), ColumnType.STRING, phi=PhiClass.SAFE_CODE, description=text)
        for part, text in (
            *_DESCRIPTIONS.items(),
            *((part, _OPTIONAL_DESCRIPTIONS[part]) for part in mapping.optional_parts),
        )
    )
