"""Ages among results: from the records that hold them to tables that show their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import polars as pl

from cohortflow.redaction.results import AgeCode, AgeMatch, Place

if TYPE_CHECKING:
    from cohortflow.redaction.plan import ColumnRedaction, RedactionPlan

__all__ = ["AGES", "NO_AGES", "age_limit", "cap_results", "find_ages", "find_table_ages", "means_age"]

AGES: Final = pl.Schema(
    {"place": pl.String(), "id": pl.String(), "value": pl.Float64(), "capped": pl.Float64()}
)
"""Schema of the ages that may not be told: ``place`` and ``id`` of the record, the number as recorded, and
what is told instead, null where that is nothing. Without ``value`` it is recorded as a text or a code."""

NO_AGES: Final = pl.LazyFrame(schema=AGES)
"""That no result is an age, for tables of which that is known."""

_YEAR_DAYS: Final = 365.25
_UNITS: Final[Mapping[float, str]] = {
    1: "a a_j a_t a_g y yr yrs year years year(s) annum",
    12: "mo mo_j mo_s mo_g mon mth mths month months month(s)",
    _YEAR_DAYS / 7: "wk wks week weeks week(s)",
    _YEAR_DAYS: "d day days day(s)",
    _YEAR_DAYS * 24: "h hr hrs hour hours hour(s)",
    _YEAR_DAYS * 24 * 60: "min mins minute minutes minute(s)",
    _YEAR_DAYS * 24 * 3600: "s sec secs second seconds second(s)",
}
"""How many of a unit are a year, and how sources write it: UCUM's codes, and English words."""

_KINDS: Final = ("quantity", "low", "high")
_PURE: Final = ("whole", "decimal")
_LIMIT: Final = "cohortflow:limit:"


def age_limit(unit: pl.Expr, cap: int) -> pl.Expr:
    """Return the least age above a cap in a unit: 90, 1080 months, 32,872 days; null for no unit of time."""
    limits = {
        name: float(math.floor((cap + 1) * per_year))
        for per_year, names in _UNITS.items()
        for name in names.split()
    }
    plain = unit.str.strip_chars(" {}").str.to_lowercase()
    return plain.replace_strict(limits, default=None, return_dtype=pl.Float64)


def _cap(value: pl.Expr, limit: pl.Expr, units: Sequence[pl.Expr], cap: int) -> pl.Expr:
    """Return what is told of a number with a unit, of which the limit is known or null.

    Without a unit it may be years, and is told where these are not too many. In a unit that nobody knows it
    may be anything.
    """
    missing = pl.all_horizontal(unit.fill_null("").str.strip_chars() == "" for unit in units)
    known = pl.when(value >= limit).then(limit).otherwise(value)
    unknown = pl.when(missing & (value < cap + 1)).then(value)
    return pl.when(limit.is_not_null()).then(known).otherwise(unknown)


def _cap_years(value: pl.Expr, cap: int) -> pl.Expr:
    """Return what is told of a number that has no unit because it counts years."""
    return pl.when(value > cap + 1).then(cap + 1.0).otherwise(value)


def _limit(units: Iterable[pl.Expr], cap: int) -> pl.Expr:
    return pl.coalesce(*[age_limit(unit, cap) for unit in units])


def means_age(code: pl.Expr, codes: Iterable[AgeCode], place: Place) -> pl.Expr:
    """Return whether a code, or the ``linkId`` of an item, means an age; of systems nothing is asked."""
    known = sorted({one.code for one in codes})
    if place is Place.ANSWER:  # forms number their questions by code paths, as '/54114-4/54141-7'
        code = code.str.split("/").list.last()
    return code.is_in(known).fill_null(value=False)


def find_ages(frame: pl.LazyFrame, place: Place, codes: Iterable[AgeCode], cap: int) -> pl.LazyFrame:
    """Return the ages above a cap, and those that cannot be told.

    Args:
        frame: Rows of the place's view among ``age_views``.
        place: Where these stand.
        codes: Codes that mean an age.
        cap: Greatest age that is told.

    Returns:
        Rows with ``AGES``, each once.
    """
    names = frame.collect_schema().names()
    if "link_id" in names:
        frame = frame.filter(means_age(pl.col("link_id"), codes, place))
    units = {kind: [pl.col(f"{kind}_code"), pl.col(f"{kind}_unit")] for kind in _KINDS if kind in names}
    # Columns of their own: within the expressions each limit would be planned and computed many times.
    frame = frame.with_columns(_limit(read, cap).alias(f"{_LIMIT}{kind}") for kind, read in units.items())
    told = [
        _entry(pl.col(kind), _cap(pl.col(kind), pl.col(f"{_LIMIT}{kind}"), read, cap))
        for kind, read in units.items()
    ]
    years = [pl.col(name).cast(pl.Float64) for name in _PURE if name in names]
    told += [_entry(value, _cap_years(value, cap)) for value in years]
    nothing = _entry(pl.lit(None, dtype=pl.Float64), pl.lit(None, dtype=pl.Float64), of=pl.col("other"))
    return _gather(frame, place, pl.col("id"), [*told, nothing])


def _entry(value: pl.Expr, capped: pl.Expr, *, of: pl.Expr | None = None) -> pl.Expr:
    """Return a number, what is told of it, and whether these differ, or ``of``."""
    hidden = value.is_not_null() & ~capped.eq_missing(value) if of is None else of.fill_null(value=False)
    return pl.struct(
        value.cast(pl.Float64).alias("value"), capped.cast(pl.Float64).alias("capped"), hidden.alias("hidden")
    )


def _gather(frame: pl.LazyFrame, place: Place, key: pl.Expr, entries: Sequence[pl.Expr]) -> pl.LazyFrame:
    # One pass over the rows: several would be several reads of the files below.
    return (
        frame.select(
            pl.lit(place.value).alias("place"),
            key.cast(pl.String).alias("id"),
            pl.concat_list(*entries).alias("entry"),
        )
        .explode("entry")
        .unnest("entry")
        .filter(pl.col("hidden") & pl.col("id").is_not_null())
        .select(*AGES.names())
        .unique()
    )


def find_table_ages(frame: pl.LazyFrame, plan: RedactionPlan) -> pl.LazyFrame:
    """Return the ages above the policy's cap of a table that does not come from a view.

    Its own columns tell what a number is. Without one that holds the code, the number is what the table's
    author says it is by its path.

    Args:
        frame: Rows as redaction reads them.
        plan: The table's plan.

    Returns:
        Rows with ``AGES``, each once.
    """
    cap = plan.policy.age_cap
    if cap is None:
        return NO_AGES
    found: list[pl.LazyFrame] = []
    for place in plan.age_places:
        readings = [entry for entry in plan.columns if entry.ages and entry.ages.place is place]
        codes = [
            pl.col(entry.column.name).cast(pl.String)
            for entry in plan.columns
            if entry.column.paths == (place.code_path,)
        ]
        if not readings or not codes:
            continue
        is_age = pl.any_horizontal(means_age(code, plan.policy.age_codes, place) for code in codes)
        entries = [_table_entry(entry, plan, cap) for entry in readings]
        found.append(_gather(frame.filter(is_age), place, pl.col(plan.record_key(place)), entries))
    return pl.concat(found) if found else NO_AGES


def _table_entry(entry: ColumnRedaction, plan: RedactionPlan, cap: int) -> pl.Expr:
    column = pl.col(entry.column.name)
    if entry.ages is None or entry.ages.match is not AgeMatch.NUMBER:
        nothing = pl.lit(None, dtype=pl.Float64)
        return _entry(nothing, nothing, of=column.is_not_null())
    value = column.cast(pl.Float64)
    if all(path.endswith(("Integer", "Decimal")) for path in entry.column.paths):
        return _entry(value, _cap_years(value, cap))
    units = [pl.col(name).cast(pl.String) for name in unit_columns(entry, plan)]
    units = units or [pl.lit(None, dtype=pl.String)]
    return _entry(value, _cap(value, _limit(units, cap), units, cap))


def unit_columns(entry: ColumnRedaction, plan: RedactionPlan) -> list[str]:
    """Return the table's columns with the unit of a number, before redaction."""
    stems = {path.removesuffix(".value") for path in entry.column.paths if path.endswith(".value")}
    wanted = {f"{stem}.{part}" for stem in stems for part in ("code", "unit")}
    columns = [other.column for other in plan.columns]
    return [one.name for one in columns if one.paths and wanted.issuperset(one.paths) and not one.computed]


def cap_results(frame: pl.LazyFrame, plan: RedactionPlan, ages: pl.LazyFrame) -> pl.LazyFrame:
    """Cap the ages among the results of a table; other values and the order of rows stay as they are.

    A number becomes the cap's in its unit, or null where nobody knows its unit. What holds texts or codes is
    null where one of the record's means an age, and what was computed from an age, or chosen by it, where the
    record holds one above the cap.

    Args:
        frame: Rows as redaction reads them.
        plan: The table's plan.
        ages: Rows with ``AGES``.
    """
    schema = frame.collect_schema()  # capping changes none of it
    for number, entry in enumerate(plan.columns):
        if entry.ages is None or entry.output is None:
            continue
        name, flag = entry.column.name, f"cohortflow:age:{number}"
        own = ages.filter(pl.col("place") == entry.ages.place.value).with_columns(
            pl.lit(value=True).alias(flag)
        )
        key = pl.col(plan.record_key(entry.ages.place)).cast(pl.String)
        value = pl.col(name)
        if entry.ages.match is AgeMatch.NUMBER:
            told = f"cohortflow:told:{number}"
            pairs = own.filter(pl.col("value").is_not_null()).select(
                "id", "value", pl.col("capped").alias(told), flag
            )
            left = [key, value.cast(pl.Float64)]
            joined = frame.join(
                pairs, left_on=left, right_on=["id", "value"], how="left", maintain_order="left"
            )
            capped = pl.when(flag).then(pl.col(told).cast(schema[name])).otherwise(value)
        else:
            texts = pl.col("value").is_null() if entry.ages.match is AgeMatch.TEXT else pl.lit(value=True)
            records = own.filter(texts).select("id", flag).unique()
            joined = frame.join(records, left_on=key, right_on="id", how="left", maintain_order="left")
            capped = pl.when(pl.col(flag).is_null()).then(value)
        frame = joined.with_columns(capped.alias(name)).select(*schema.names())
    return frame
