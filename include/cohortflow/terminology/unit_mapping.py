"""What a study says about the units of a view's values, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cohortflow.model import Column, ColumnType, PhiClass

__all__ = ["UnitMapping", "UnitStatus", "unit_columns"]


class UnitStatus(StrEnum):
    """What became of the unit of a value."""

    CANONICAL = "canonical"
    """The source has the canonical unit."""
    SYNONYM = "synonym"
    """The source has another spelling of it, or another unit of the same size: the number stays."""
    CONVERTED = "converted"
    """The number was converted."""
    NO_CANONICAL_UNIT = "no_canonical_unit"
    """The catalog names no unit for the code."""
    INCOMPATIBLE = "incompatible"
    """The unit is known, but does not convert to the canonical one."""
    UNKNOWN_UNIT = "unknown_unit"
    """The unit is neither UCUM nor a spelling that the catalog lists, or can be read in two ways."""
    MISSING = "missing"
    """The source gives a value without a unit."""


class UnitMapping(BaseModel):
    """Adds the columns ``<value>_canonical``, ``<unit>_canonical``, ``<prefix>unit_status`` and
    ``<prefix>plausible`` to a view. Its own columns stay as they are.

    Attributes:
        value: Column with the number.
        unit: Column with its unit, as the source writes it.
        code: Column with the code of what was measured.
        system: Column with the code system; ``None`` where all codes are LOINC's.
        prefix: Of the last two columns, where a view has several values: ``systolic_``.
        max_unknown_units: Largest share of the values that stay without a canonical one, 0 to 1, of those
            whose code has a canonical unit.
    """  # noqa: D205 - the columns belong into the summary

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = "value_quantity"
    unit: str = "value_unit"
    code: str = "code"
    system: str | None = "code_system"
    prefix: Annotated[str, Field(pattern=r"^(?:[a-z][a-z0-9_]*_)?$")] = ""
    max_unknown_units: Annotated[float, Field(ge=0, le=1)] | None = None

    @property
    def source_columns(self) -> dict[str, str]:
        """The columns that are read: what for, and their name."""
        named = {"value": self.value, "unit": self.unit, "code": self.code}
        return named | ({"system": self.system} if self.system is not None else {})

    @property
    def value_output(self) -> str:
        """Name of the column with the converted number."""
        return f"{self.value}_canonical"

    @property
    def unit_output(self) -> str:
        """Name of the column with its unit."""
        return f"{self.unit}_canonical"

    @property
    def status_output(self) -> str:
        """Name of the column with the status."""
        return f"{self.prefix}unit_status"

    @property
    def plausible_output(self) -> str:
        """Name of the column that tells whether the value is plausible."""
        return f"{self.prefix}plausible"


def unit_columns(mapping: UnitMapping, columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns that a unit mapping adds, in their order.

    What is computed from the value is protected as the value is: it has the paths of its column. The unit and
    the status come from the catalog and are safe codes, whatever the source's column holds.

    Args:
        mapping: The mapping.
        columns: Columns of the view.
    """
    source = next((column for column in columns if column.name == mapping.value), None)
    paths = source.paths if source is not None else ()
    tested = source.tested if source is not None else ()
    phi = max(source.phi, PhiClass.NUMBER) if source is not None else PhiClass.UNKNOWN
    return (
        Column(
            mapping.value_output,
            ColumnType.FLOAT,
            paths,
            phi,
            description=f"{mapping.value} in {mapping.unit_output}; empty where it does not convert.",
            tested=tested,
            computed=(*paths, *tested),
        ),
        Column(
            mapping.unit_output,
            ColumnType.STRING,
            phi=PhiClass.SAFE_CODE,
            description=f"Canonical unit of the code (UCUM), that of {mapping.value_output}.",
        ),
        Column(
            mapping.status_output,
            ColumnType.STRING,
            phi=PhiClass.SAFE_CODE,
            description=f"Empty without a value, or one of: {', '.join(UnitStatus)}.",
        ),
        Column(
            mapping.plausible_output,
            ColumnType.BOOLEAN,
            paths,
            phi,
            description=f"Whether {mapping.value_output} is within what a body allows; empty where unknown.",
            tested=tested,
            computed=(*paths, *tested),
        ),
    )
