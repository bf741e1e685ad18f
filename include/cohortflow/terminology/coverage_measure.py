"""What a mapping did, counted: mapped, unmapped, ambiguous and retired codes, and the top misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from cohortflow.terminology.coverage import (
    MAPPED,
    NO_SYSTEM,
    OTHER_SYSTEM,
    Coverage,
    SystemCoverage,
    SystemTotals,
    Tally,
    UnmappedCode,
)
from cohortflow.terminology.map_table import RANK, CodeMap, map_rows
from cohortflow.terminology.mapping import IDENTITY, CodeMapping
from cohortflow.terminology.normalize import spell, well_formed_expr
from cohortflow.terminology.systems import STANDARD_SYSTEMS

__all__ = ["count_codes", "measure_coverage"]

_URI = r"^(?:https?://|urn:)[^\s]{1,200}$"


def count_codes(
    frame: pl.LazyFrame, *, code: str, system: str, display: str | None = None, rows: str | None = None
) -> pl.LazyFrame:
    """Count the rows of each code, as the source wrote it.

    A mapping without a context says the same of these few rows as of all rows; ``measure_coverage`` then
    takes their number from ``rows``.

    Args:
        frame: A view.
        code: Its column with the code.
        system: Its column with the code system.
        display: Its column with the source's name of the code.
        rows: Its column with a number of source rows; each row is one where ``None``.

    Returns:
        ``code``, ``code_system``, ``code_display`` and ``rows``.
    """
    return frame.group_by(
        pl.col(code).cast(pl.String).alias("code"),
        pl.col(system).cast(pl.String).alias("code_system"),
        (pl.col(display).cast(pl.String) if display else pl.lit(None, pl.String)).alias("code_display"),
    ).agg((pl.col(rows).sum() if rows else pl.len()).cast(pl.Int64).alias("rows"))


def measure_coverage(
    frame: pl.LazyFrame,
    mapping: CodeMapping,
    maps: Sequence[CodeMap] = (),
    *,
    concepts: pl.LazyFrame | None = None,
    rows: str | None = None,
    display: str | None = None,
    top: int | None = 20,
    all_codes: bool = False,
) -> Coverage:
    """Count what a mapping did, in one pass.

    Rows are source rows, whatever the cardinality of this mapping. Where another mapping with
    ``cardinality: all`` has multiplied the rows, they count as they are.

    Args:
        frame: What ``map_codes`` returned for this mapping.
        mapping: The mapping.
        maps: Its maps; without them ambiguous codes are not counted.
        concepts: Rows of `tables.CONCEPTS` of loaded terminologies; without them retired codes are not
            counted.
        rows: Column with the number of source rows that a row stands for; each is one where ``None``.
        display: Column with the source's names of the codes, to be told of unmapped ones.
        top: How many unmapped codes to list; ``None`` lists all.
        all_codes: Whether to name codes of a hospital's own systems, too, and what is no code at all: they
            may be text of a record. The result must then be kept like the record.
    """
    codes = _count_codes(frame, mapping, rows=rows, display=display, all_systems=all_codes)
    codes = _mark_retired(_mark_ambiguous(codes, maps), concepts)
    systems = (
        codes.group_by("system", "outcome")
        .agg(pl.col("rows").sum(), pl.col("code").drop_nulls().n_unique().alias("codes"))
        .sort(["rows", "system", "outcome"], descending=[True, False, False])
    )
    has_code, has_target = pl.col("code").is_not_null(), pl.col("outcome").is_in(MAPPED)
    unmapped = codes.filter(~has_target)
    if all_codes:
        unmapped = unmapped.filter(has_code)
    else:
        unmapped = unmapped.filter(
            pl.col("system").is_in(list(STANDARD_SYSTEMS)),
            well_formed_expr(pl.col("system"), pl.col("code")),
        )
    unmapped = unmapped.sort(["rows", "system", "code", "outcome"], descending=[True, False, False, False])
    totals = codes.select(
        pl.col("rows").sum(),
        pl.col("rows").filter(has_code).sum().alias("rows_with_code"),
        pl.col("rows").filter(has_code & has_target).sum().alias("rows_mapped"),
    ).row(0, named=True)
    return Coverage(
        prefix=mapping.prefix,
        maps=mapping.maps,
        versions=tuple(code_map.label for code_map in maps),
        **totals,
        systems=tuple(SystemCoverage(**row) for row in systems.iter_rows(named=True)),
        totals=_total(codes.filter(has_code)),
        top_unmapped=tuple(
            UnmappedCode(row["system"], row["code"], row["outcome"], row["rows"], row["display"])
            for row in (unmapped if top is None else unmapped.head(top)).iter_rows(named=True)
        ),
    )


def _count_codes(
    frame: pl.LazyFrame, mapping: CodeMapping, *, rows: str | None, display: str | None, all_systems: bool
) -> pl.DataFrame:
    """Return one row for each source code and outcome: ``system, code, outcome, rows, display, replaced``."""
    added = [mapping.output(part) for part in ("system", "code", "map", "unmapped_reason")]
    reason, origin = pl.col(mapping.output("unmapped_reason")), pl.col(mapping.output("map"))
    mapped = pl.when(origin == IDENTITY).then(pl.lit(IDENTITY)).otherwise(pl.lit("mapped"))
    none = pl.lit(None, pl.String)
    replaced = pl.col(mapping.output("replaced")) if mapping.replace_retired else none
    # With cardinality "all" each source row stands once for every target of its code, and which they are may
    # depend on the row: the rows of one code and context have the same targets.
    several = mapping.cardinality == "all"
    context = [
        *(mapping.context.columns if mapping.context else ()),
        *([mapping.text] if mapping.text else []),
    ]
    of_row = {f"__{index}": name for index, name in enumerate(dict.fromkeys(context))} if several else {}
    key = ["system", "code", "outcome", "replaced", "display"]
    counted = (
        frame.group_by(
            pl.col(mapping.system).cast(pl.String).alias("system"),
            pl.col(mapping.code).cast(pl.String).alias("code"),
            (pl.col(display).cast(pl.String) if display else none).alias("display"),
            replaced.alias("replaced"),
            *added,
            *(pl.col(name).alias(alias) for alias, name in of_row.items()),
        )
        .agg((pl.col(rows).sum() if rows else pl.len()).cast(pl.Int64).alias("rows"))
        .group_by(
            "system", "code", "display", "replaced", pl.coalesce(reason, mapped).alias("outcome"), *of_row
        )
        .agg(pl.col("rows").max() if several else pl.col("rows").sum())
        .group_by(key)
        .agg(pl.col("rows").sum())
        .collect(engine="streaming")
    )
    system = pl.col("system")
    shown = (
        pl.when(system.is_null())
        .then(pl.lit(NO_SYSTEM))
        .when(system.str.contains(_URI) | pl.lit(all_systems))
        .then(system)
        .otherwise(pl.lit(OTHER_SYSTEM))
        .alias("system")
    )
    # Of several names of a code, the one of most rows.
    return (
        spell(counted)
        .with_columns(shown)
        .sort(["rows", "display"], descending=[True, False], nulls_last=True)
        .group_by("system", "code", "outcome", maintain_order=True)
        .agg(
            pl.col("rows").sum(),
            pl.col("display").drop_nulls().first(),
            pl.col("replaced").drop_nulls().first(),
        )
    )


def _mark_ambiguous(codes: pl.DataFrame, maps: Sequence[CodeMap]) -> pl.DataFrame:
    """Add ``ambiguous``: whether a mapped code has several targets that its map ranks alike."""
    if not maps:
        return codes.with_columns(pl.lit(None, pl.Boolean).alias("ambiguous"))
    source = ["source_system", "source_code"]
    sought = codes.filter(pl.col("outcome") == "mapped").select(
        pl.col("system").alias(source[0]), pl.coalesce("replaced", "code").alias(source[1])
    )
    entries = pl.concat(
        map_rows(code_map)
        .filter(pl.col("target_code").is_not_null())
        .join(sought, on=source, how="semi")
        .with_columns(pl.lit(position).alias("position"))
        for position, code_map in enumerate(maps)
    ).with_columns(pl.col("relationship").replace_strict(RANK, return_dtype=pl.UInt8).alias("rank"))
    used = pl.col("position") == pl.col("position").min().over(source)
    closest = pl.col("rank") == pl.col("rank").min()
    # In a map with rules each group gives one target, and all groups together describe the code.
    targets = (
        pl.when(pl.col("rule").is_not_null().any())
        .then(pl.col("group").n_unique())
        .otherwise(pl.struct("target_system", "target_code").filter(closest).n_unique())
    )
    several = (
        entries.filter(used).group_by(source).agg(targets.alias("targets")).filter(pl.col("targets") > 1)
    )
    looked_up = codes.select(
        pl.col("system").alias(source[0]), pl.coalesce("replaced", "code").alias(source[1]), "outcome"
    ).join(several, on=source, how="left", maintain_order="left")
    ambiguous = looked_up.select(
        (pl.col("targets").is_not_null() & (pl.col("outcome") == "mapped")).alias("ambiguous")
    )
    return codes.hstack(ambiguous)


def _mark_retired(codes: pl.DataFrame, concepts: pl.LazyFrame | None) -> pl.DataFrame:
    """Add ``retired``: whether the loaded terminology has retired the code; null where none is loaded."""
    was_replaced = pl.when(pl.col("replaced").is_not_null()).then(pl.lit(value=True))
    if concepts is None:
        return codes.with_columns(was_replaced.alias("retired"))
    known = concepts.filter(pl.col("system").is_in(codes["system"].unique().to_list()))
    systems = known.select(pl.col("system").unique())
    retired = known.filter(~pl.col("active")).select("system", "code").unique()
    loaded, inactive = pl.collect_all(
        [systems, retired.join(codes.lazy(), on=["system", "code"], how="semi")]
    )
    return (
        codes.join(
            inactive.with_columns(pl.lit(value=True).alias("found")), on=["system", "code"], how="left"
        )
        .with_columns(
            pl.coalesce(
                was_replaced,
                "found",
                pl.when(pl.col("system").is_in(loaded["system"].implode())).then(pl.lit(value=False)),
            ).alias("retired")
        )
        .drop("found")
    )


def _total(codes: pl.DataFrame) -> tuple[SystemTotals, ...]:
    conditions = {
        "mapped": pl.col("outcome").is_in(MAPPED),
        "unmapped": ~pl.col("outcome").is_in(MAPPED),
        "ambiguous": pl.col("ambiguous"),
        "retired": pl.col("retired"),
    }
    counted = (
        codes.group_by("system")
        .agg(
            pl.col("rows").sum(),
            pl.col("code").n_unique().alias("codes"),
            *(
                pl.col("rows").filter(condition).sum().alias(f"{name}_rows")
                for name, condition in conditions.items()
            ),
            *(
                pl.col("code").filter(condition).n_unique().alias(f"{name}_codes")
                for name, condition in conditions.items()
            ),
            *(pl.col(name).is_not_null().any().alias(f"{name}_known") for name in ("ambiguous", "retired")),
        )
        .sort(["rows", "system"], descending=[True, False])
    )
    return tuple(
        SystemTotals(
            row["system"],
            row["rows"],
            row["codes"],
            mapped=_tally(row, "mapped"),
            unmapped=_tally(row, "unmapped"),
            ambiguous=_tally(row, "ambiguous") if row["ambiguous_known"] else None,
            retired=_tally(row, "retired") if row["retired_known"] else None,
        )
        for row in counted.iter_rows(named=True)
    )


def _tally(row: Mapping[str, Any], name: str) -> Tally:
    return Tally(row[f"{name}_rows"], row[f"{name}_codes"])
