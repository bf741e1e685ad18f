"""What a study says about mapping the codes of a view."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cohortflow.model import Column, ColumnType, PhiClass

__all__ = ["IDENTITY", "CodeMapping", "UnmappedReason", "mapped_columns"]

IDENTITY = "identity"
"""Stands in ``<prefix>_map`` where the source code was in the target system already."""


class UnmappedReason(StrEnum):
    """Why a row has no target."""

    NO_SOURCE_CODE = "no source code"
    SYSTEM_NOT_IN_MAP = "system not in map"
    CODE_NOT_IN_MAP = "code not in map"
    NO_TARGET = "no target"
    """The map states that the target system has no such concept."""


class CodeMapping(BaseModel):
    """Adds the columns ``<prefix>_code``, ``_system``, ``_display``, ``_relationship``, ``_map``,
    ``_unmapped_reason`` to a view.

    Attributes:
        maps: ConceptMaps of the catalog. The first one with a target for a code is used for it, so that a
            site's own map goes before a general one.
        code: Source column with the code.
        system: Source column with its code system.
        prefix: Of the added columns, such as ``icd10cm``.
        cardinality: ``best`` keeps one row for each source row: the closest relationship wins, then the order
            in the map. ``all`` gives one row for each target.
        min_coverage: Share of the rows with a source code that must have a target, 0 to 1.
    """  # noqa: D205 - the columns belong into the summary

    model_config = ConfigDict(frozen=True, extra="forbid")

    maps: Annotated[tuple[str, ...], Field(min_length=1)]
    code: str = "code"
    system: str = "code_system"
    prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    cardinality: Literal["best", "all"] = "best"
    min_coverage: Annotated[float, Field(ge=0, le=1)] | None = None

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


def mapped_columns(mapping: CodeMapping) -> tuple[Column, ...]:
    """Return the columns that a mapping adds, in their order.

    They come from the curated map, or are codes of the target system's syntax, and never carry text of the
    record: they are safe codes, whatever the source columns hold.
    """
    return tuple(
        Column(mapping.output(part), ColumnType.STRING, phi=PhiClass.SAFE_CODE, description=text)
        for part, text in _DESCRIPTIONS.items()
    )
