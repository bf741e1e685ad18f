"""How many values are in the canonical unit of their code, and why others are not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from cohortflow.errors import CoverageError
from cohortflow.terminology.normalize import spell
from cohortflow.terminology.systems import LOINC
from cohortflow.terminology.unit_mapping import UnitMapping, UnitStatus

__all__ = ["CodeUnits", "StatusCount", "UnitCoverage", "check_units", "measure_units"]

_UNUSABLE: Final = (UnitStatus.MISSING, UnitStatus.UNKNOWN_UNIT, UnitStatus.INCOMPATIBLE)


@dataclass(frozen=True, slots=True)
class StatusCount:
    """Values of a status: rows, distinct codes and distinct units as the source writes them."""

    status: str
    rows: int
    codes: int
    units: int


@dataclass(frozen=True, slots=True)
class CodeUnits:
    """What became of the values of a code that has a canonical unit.

    Attributes:
        code: The code.
        unit: Its canonical unit; empty where no value has one.
        rows: Values.
        converted: Of them, those whose number changed.
        unusable: Those whose unit is missing, unknown or incompatible.
        implausible: Those beyond what a body allows.
    """

    code: str
    unit: str
    rows: int
    converted: int
    unusable: int
    implausible: int


@dataclass(frozen=True, slots=True)
class UnitCoverage:
    """The result of a unit mapping, without units of the source, which may be any text.

    Attributes:
        value: Column with the values.
        rows: Rows.
        rows_with_value: Those with a value.
        rows_with_unit: Those whose code has a canonical unit.
        rows_usable: Those of them with a canonical value.
        implausible: Those of them beyond what a body allows.
        statuses: Counts for each status, most rows first.
        codes: The codes that have a canonical unit, those with most unusable or implausible values first.
    """

    value: str
    rows: int
    rows_with_value: int
    rows_with_unit: int
    rows_usable: int
    implausible: int
    statuses: tuple[StatusCount, ...]
    codes: tuple[CodeUnits, ...]

    @property
    def unknown_share(self) -> float | None:
        """Share of the values without a canonical one, of those whose code has a canonical unit."""
        unusable = self.rows_with_unit - self.rows_usable  # 1 - 0.7 would be more than 0.3
        return unusable / self.rows_with_unit if self.rows_with_unit else None

    def hide_rare(self, least: int) -> UnitCoverage:
        """Return it without the codes of fewer values: a rare code could point at a patient."""
        return dataclasses.replace(self, codes=tuple(code for code in self.codes if code.rows >= least))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with ``unknown_share``."""
        return {**dataclasses.asdict(self), "unknown_share": self.unknown_share}


def measure_units(frame: pl.LazyFrame, mapping: UnitMapping) -> UnitCoverage:
    """Count what a unit mapping did.

    Args:
        frame: What ``harmonize_units`` returned for this mapping.
        mapping: The mapping.
    """
    system = pl.lit(LOINC.uri) if mapping.system is None else pl.col(mapping.system).cast(pl.String)
    counted = (
        frame.group_by(
            system.alias("system"),
            pl.col(mapping.code).cast(pl.String).alias("code"),
            pl.col(mapping.unit).cast(pl.String).alias("unit"),
            pl.col(mapping.unit_output).alias("canonical"),
            pl.col(mapping.status_output).alias("status"),
            pl.col(mapping.plausible_output).alias("plausible"),
        )
        .len("rows")
        .collect(engine="streaming")
    )
    counted = spell(counted)
    with_value = counted.drop_nulls("status")
    with_unit = with_value.filter(pl.col("status") != UnitStatus.NO_CANONICAL_UNIT)
    unusable = pl.col("status").is_in([str(status) for status in _UNUSABLE])
    implausible = ~pl.col("plausible").fill_null(value=True)
    statuses = (
        with_value.group_by("status")
        .agg(
            pl.col("rows").sum(),
            pl.struct("system", "code").filter(pl.col("code").is_not_null()).n_unique().alias("codes"),
            pl.col("unit").drop_nulls().n_unique().alias("units"),
        )
        .sort(["rows", "status"], descending=[True, False])
    )
    rows = pl.col("rows")
    codes = (
        with_unit.group_by("system", "code")
        .agg(
            pl.col("canonical").drop_nulls().first().fill_null("").alias("unit"),
            rows.sum(),
            rows.filter(pl.col("status") == UnitStatus.CONVERTED).sum().alias("converted"),
            rows.filter(unusable).sum().alias("unusable"),
            rows.filter(implausible).sum().alias("implausible"),
        )
        .sort([pl.col("unusable") + pl.col("implausible"), "rows", "code"], descending=[True, True, False])
        .drop("system")
    )
    return UnitCoverage(
        value=mapping.value,
        rows=_sum(counted),
        rows_with_value=_sum(with_value),
        rows_with_unit=_sum(with_unit),
        rows_usable=_sum(with_unit.filter(~unusable)),
        implausible=_sum(with_unit.filter(implausible)),
        statuses=tuple(StatusCount(**row) for row in statuses.iter_rows(named=True)),
        codes=tuple(CodeUnits(**row) for row in codes.iter_rows(named=True)),
    )


def check_units(coverage: UnitCoverage, maximum: float | None, *, place: str = "") -> None:
    """Refuse data of which too many values have no canonical unit.

    Args:
        coverage: What was measured.
        maximum: Largest share, 0 to 1; ``None`` asks for nothing.
        place: Where the report is, for the message.

    Raises:
        CoverageError: The share is above the maximum. The message gives the codes, most rows first.
    """
    share = coverage.unknown_share
    if maximum is None or share is None or share <= maximum:
        return
    counts = {count.status: count.rows for count in coverage.statuses}
    reasons = ", ".join(f"{status}: {counts[status]}" for status in _UNUSABLE if status in counts)
    worst = ", ".join(code.code for code in coverage.codes[:5] if code.unusable)
    raise CoverageError(
        f"{share:.1%} of {coverage.rows_with_unit} values in '{coverage.value}' have no canonical unit; the "
        f"study allows {maximum:.1%}. Rows by reason: {reasons}.",
        place=place,
        remedy=f"Add the spellings of these units to the catalog's units (most of them: {worst}), or raise "
        "max_unknown_units.",
    )


def _sum(counted: pl.DataFrame) -> int:
    return int(counted["rows"].sum())
