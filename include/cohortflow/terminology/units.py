"""Values in the canonical unit of their code: every row stays, and so do its value and its unit."""

from __future__ import annotations

from typing import Final

import polars as pl

from cohortflow.errors import StudyError
from cohortflow.terminology.normalize import spell
from cohortflow.terminology.systems import LOINC
from cohortflow.terminology.unit_mapping import UnitMapping, UnitStatus
from cohortflow.terminology.unit_table import UnitReading, UnitTable

__all__ = ["harmonize_units"]

_FOUND: Final = "__unit"
_READING: Final = pl.Schema(
    {
        "status": pl.String(),
        "unit": pl.String(),
        "times": pl.Float64(),
        "plus": pl.Float64(),
        "over": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
    }
)
_EXACT: Final = 2**53
"""Whole numbers up to here are floats without loss."""
_MOST_KNOWN: Final = 100_000
"""Codes with a unit whose reading is kept from batch to batch."""


def harmonize_units(frame: pl.LazyFrame, mapping: UnitMapping, table: UnitTable) -> pl.LazyFrame:
    """Add each value in the canonical unit of its code.

    The result has exactly the rows of ``frame``, in their order, with their columns unchanged. Rows without a
    value get nothing. What does not convert has no canonical value and says why in its status.

    Args:
        frame: A view with the columns ``mapping.source_columns``; the value is a number.
        mapping: Which columns.
        table: The catalog's units.

    Returns:
        The columns of ``frame``, then ``<value>_canonical`` (Float64), ``<unit>_canonical`` (String),
        ``<prefix>unit_status`` (String) and ``<prefix>plausible`` (Boolean).

    Raises:
        StudyError: A source column is missing or no number, or an added column is there already.
    """
    schema = frame.collect_schema()
    _check(schema, mapping)
    system = pl.lit(LOINC.uri) if mapping.system is None else pl.col(mapping.system).cast(pl.String)
    key = pl.struct(
        system.alias("system"),
        pl.col(mapping.code).cast(pl.String).alias("code"),
        pl.col(mapping.unit).cast(pl.String).alias("unit"),
    )
    value = pl.col(mapping.value).cast(pl.Float64)
    found = {name: pl.col(_FOUND).struct.field(name) for name in _READING}
    canonical = (value * found["times"] + found["plus"]) / found["over"]
    read = frame.with_columns(
        key.map_batches(_Resolver(table), return_dtype=pl.Struct(dict(_READING)), is_elementwise=True).alias(
            _FOUND
        )
    )
    return read.select(
        *schema.names(),
        canonical.alias(mapping.value_output),
        pl.when(canonical.is_not_null()).then(found["unit"]).alias(mapping.unit_output),
        pl.when(value.is_not_null()).then(found["status"]).alias(mapping.status_output),
        canonical.is_between(found["low"], found["high"]).alias(mapping.plausible_output),
    )


def _check(schema: pl.Schema, mapping: UnitMapping) -> None:
    for role, column in mapping.source_columns.items():
        if column not in schema:
            raise StudyError(
                f"The units read the {role} from a missing column '{column}'.",
                remedy=f"Use one of: {', '.join(schema)}.",
            )
    if not schema[mapping.value].is_numeric():
        raise StudyError(
            f"The units read values from '{mapping.value}', which holds {schema[mapping.value]}, no numbers.",
            remedy="Name the column with the number.",
        )
    added = (mapping.value_output, mapping.unit_output, mapping.status_output, mapping.plausible_output)
    if taken := [name for name in added if name in schema]:
        raise StudyError(
            f"The units would replace the columns {', '.join(taken)}.", remedy="Choose another prefix."
        )


class _Resolver:
    """Reads the units of a batch; each distinct pair of code and unit is worked out once.

    Many threads call it: what one of them has worked out, another may work out again, and both find the same.
    """

    def __init__(self, table: UnitTable) -> None:
        self._table = table
        self._known: dict[tuple[str, str, str | None], UnitReading] = {}
        codes = [(*key, *(entry.plausible or (None, None))) for key, entry in table.catalog.codes.items()]
        units = [entry.unit for entry in table.catalog.codes.values()]
        self._codes = pl.DataFrame(
            codes,
            schema={"system": pl.String, "code": pl.String, "low": pl.Float64, "high": pl.Float64},
            orient="row",
        ).with_columns(pl.Series("canonical", units, dtype=pl.String), known=True)

    def __call__(self, batch: pl.Series) -> pl.Series:
        values = batch.struct.unnest()
        distinct = values.unique()
        # Spelling is idempotent, so that the pairs can be taken apart and put together again.
        spelled = spell(distinct).join(self._codes, on=["system", "code"], how="left", maintain_order="left")
        pairs = spelled.filter(pl.col("known")).select("system", "code", "unit").unique()
        rows = [(*pair, *_describe(self._read(*pair))) for pair in pairs.iter_rows()]
        readings = pl.DataFrame(
            rows,
            schema={
                **pairs.schema,
                **{name: _READING[name] for name in ("status", "times", "plus", "over")},
            },
            orient="row",
        )
        joined = spelled.join(
            readings, on=["system", "code", "unit"], how="left", nulls_equal=True, maintain_order="left"
        )
        outcome = joined.select(
            pl.col("status").fill_null(str(UnitStatus.NO_CANONICAL_UNIT)),
            pl.col("canonical").alias("unit"),
            *("times", "plus", "over", "low", "high"),
        ).to_struct("result")
        return values.join(
            distinct.with_columns(outcome),
            on=["system", "code", "unit"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )["result"].alias(batch.name)

    def _read(self, system: str, code: str, unit: str | None) -> UnitReading:
        pair = (system, code, unit)
        reading = self._known.get(pair)
        if reading is None:
            reading = self._table.resolve(system, code, unit)
            if len(self._known) < _MOST_KNOWN:
                self._known[pair] = reading
        return reading


def _describe(reading: UnitReading) -> tuple[str, float | None, float | None, float | None]:
    """Return the status, and a conversion as ``(value * times + plus) / over``.

    Dividing by a whole number rounds once, where a factor such as 1/18.0156 would round twice.
    """
    conversion = reading.conversion
    if conversion is None:
        return str(reading.status), None, None, None
    times, over = conversion.factor.as_integer_ratio()
    if max(abs(times), over) > _EXACT:
        return str(reading.status), float(conversion.factor), float(conversion.offset), 1.0
    return str(reading.status), float(times), float(conversion.offset * over), float(over)
