"""The units of a study's views: what they add, what they rest on, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cohortflow.errors import StudyError
from cohortflow.redaction.actions import Action, Override
from cohortflow.terminology.unit_catalog import load_unit_catalog
from cohortflow.terminology.unit_mapping import UnitMapping, unit_columns
from cohortflow.workflow.document import nearest

if TYPE_CHECKING:
    from cohortflow.model import Catalog, Column

__all__ = ["extend_overrides", "plan_units", "unit_sources"]


def unit_sources(catalog: Catalog) -> dict[str, Any]:
    """Return the files of the catalog's units, for the plan's digest.

    Raises:
        CatalogError: A file is malformed.
    """
    return {f"units/{name}": content for name, content in load_unit_catalog(catalog).files.items()}


def plan_units(
    view: str, columns: Sequence[Column], mappings: Sequence[UnitMapping], place: str
) -> tuple[Column, ...]:
    """Return the columns that unit mappings add to a view.

    Args:
        view: The view, for messages.
        columns: Its columns, with those of its code mappings: a unit may belong to a mapped code.
        mappings: The unit mappings.
        place: The template's file, for messages.

    Raises:
        StudyError: A mapping reads a column that is not there, or would replace one.
    """
    known = [column.name for column in columns]
    found: list[Column] = []
    for mapping in mappings:
        for name in mapping.source_columns.values():
            if name not in known:
                raise StudyError(
                    f"'units.{view}' reads the column '{name}', which '{view}' does not have.",
                    place=place,
                    remedy=nearest(name, known, "column"),
                )
        for column in unit_columns(mapping, columns):
            if column.name in known or any(column.name == other.name for other in found):
                raise StudyError(
                    f"'units.{view}' adds the column '{column.name}', which is there already.",
                    place=place,
                    remedy="Give each of its entries a 'prefix', and each value once.",
                )
            found.append(column)
    return tuple(found)


def extend_overrides(
    overrides: Mapping[str, Override], mappings: Sequence[UnitMapping]
) -> dict[str, Override]:
    """Let what a study drops or masks of a value reach what was computed from it.

    Args:
        overrides: Of a view, by column.
        mappings: Its unit mappings.
    """
    found = dict(overrides)
    for mapping in mappings:
        override = overrides.get(mapping.value)
        if override is not None and override.action in {Action.DROP, Action.MASK}:
            for column in (mapping.value_output, mapping.plausible_output):
                found.setdefault(column, override)
    return found
