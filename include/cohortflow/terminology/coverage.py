"""How much of a view's codes was mapped, and what was not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import polars as pl

from cohortflow.errors import CoverageError
from cohortflow.terminology.mapping import IDENTITY, CodeMapping, UnmappedReason
from cohortflow.terminology.normalize import spell, well_formed_expr
from cohortflow.terminology.systems import STANDARD_SYSTEMS

__all__ = ["Coverage", "SystemCoverage", "UnmappedCode", "check_coverage", "measure_coverage"]

NO_SYSTEM = "(none)"
OTHER_SYSTEM = "(not a URI)"
_URI = r"^(?:https?://|urn:)[^\s]{1,200}$"


@dataclass(frozen=True, slots=True)
class SystemCoverage:
    """What became of the codes of one source system.

    Attributes:
        system: Canonical URI; ``(none)`` where the source gave no system; ``(not a URI)`` for texts in its
            place, which are not shown.
        outcome: ``mapped``, ``identity`` (in the target system already) or the reason why unmapped.
        rows: Source rows.
        codes: Distinct codes.
    """

    system: str
    outcome: str
    rows: int
    codes: int


@dataclass(frozen=True, slots=True)
class UnmappedCode:
    """A code of a published system without a target."""

    system: str
    code: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The result of a mapping, without values of a hospital's own systems, which may hold text.

    Attributes:
        prefix: Of the mapping.
        maps: Its ConceptMaps.
        rows: Source rows.
        rows_with_code: Those with a source code.
        rows_mapped: Those of them with a target, identity included.
        systems: Rows and distinct codes for each source system and outcome, most rows first.
        top_unmapped: The most frequent unmapped codes of published systems.
    """

    prefix: str
    maps: tuple[str, ...]
    rows: int
    rows_with_code: int
    rows_mapped: int
    systems: tuple[SystemCoverage, ...]
    top_unmapped: tuple[UnmappedCode, ...]

    @property
    def share(self) -> float | None:
        """Share of the rows with a source code that have a target; ``None`` without such rows."""
        return self.rows_mapped / self.rows_with_code if self.rows_with_code else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with ``share``."""
        return {**dataclasses.asdict(self), "share": self.share}


def measure_coverage(frame: pl.LazyFrame, mapping: CodeMapping, *, top: int = 20) -> Coverage:
    """Count what a mapping did.

    Rows are source rows, whatever the cardinality of this mapping. Where another mapping with
    ``cardinality: all`` has multiplied the rows, they count as they are.

    Args:
        frame: What ``map_codes`` returned for this mapping.
        mapping: The mapping.
        top: How many unmapped codes to list.
    """
    codes = _count_codes(frame, mapping)
    systems = (
        codes.group_by("system", "outcome")
        .agg(pl.col("rows").sum(), pl.col("code").drop_nulls().len().alias("codes"))
        .sort(["rows", "system", "outcome"], descending=[True, False, False])
    )
    unmapped = (
        codes.filter(
            ~pl.col("outcome").is_in(["mapped", IDENTITY]),
            pl.col("system").is_in(list(STANDARD_SYSTEMS)),
            well_formed_expr(pl.col("system"), pl.col("code")),
        )
        .sort(["rows", "system", "code"], descending=[True, False, False])
        .head(top)
    )
    has_code, has_target = pl.col("code").is_not_null(), pl.col("outcome").is_in(["mapped", IDENTITY])
    totals = codes.select(
        pl.col("rows").sum(),
        pl.col("rows").filter(has_code).sum().alias("rows_with_code"),
        pl.col("rows").filter(has_code & has_target).sum().alias("rows_mapped"),
    ).row(0, named=True)
    return Coverage(
        prefix=mapping.prefix,
        maps=mapping.maps,
        **totals,
        systems=tuple(SystemCoverage(**row) for row in systems.iter_rows(named=True)),
        top_unmapped=tuple(
            UnmappedCode(row["system"], row["code"], row["outcome"], row["rows"])
            for row in unmapped.iter_rows(named=True)
        ),
    )


def check_coverage(coverage: Coverage, minimum: float | None) -> None:
    """Refuse data of which too little was mapped.

    Args:
        coverage: What was measured.
        minimum: Least share of rows, 0 to 1; ``None`` asks for nothing.

    Raises:
        CoverageError: The share is below the minimum. The message gives the reasons, most rows first.
    """
    if minimum is None or coverage.share is None or coverage.share >= minimum:
        return
    reasons: dict[str, int] = {}
    for part in coverage.systems:
        if part.outcome not in {"mapped", IDENTITY, UnmappedReason.NO_SOURCE_CODE}:
            reasons[part.outcome] = reasons.get(part.outcome, 0) + part.rows
    listed = ", ".join(f"{reason}: {rows}" for reason, rows in sorted(reasons.items(), key=lambda r: -r[1]))
    raise CoverageError(
        f"The mapping '{coverage.prefix}' covers {coverage.share:.1%} of {coverage.rows_with_code} rows with "
        f"a code; the study demands {minimum:.1%}. Rows without target by reason: {listed}.",
        remedy=f"Add the missing codes to {' or '.join(coverage.maps)}, or lower min_coverage.",
    )


def _count_codes(frame: pl.LazyFrame, mapping: CodeMapping) -> pl.DataFrame:
    """Return one row for each source code: ``system, code, outcome, rows``."""
    added = [mapping.output(part) for part in ("system", "code", "map", "unmapped_reason")]
    reason, origin = pl.col(mapping.output("unmapped_reason")), pl.col(mapping.output("map"))
    mapped = pl.when(origin == IDENTITY).then(pl.lit(IDENTITY)).otherwise(pl.lit("mapped"))
    # With cardinality "all" each source row stands once for every target of its code, and which they are may
    # depend on the row: the rows of one code and context have the same targets.
    several = mapping.cardinality == "all"
    context = [
        *(mapping.context.columns if mapping.context else ()),
        *([mapping.text] if mapping.text else []),
    ]
    of_row = {f"__{index}": name for index, name in enumerate(dict.fromkeys(context))} if several else {}
    counted = (
        frame.group_by(
            pl.col(mapping.system).alias("system"),
            pl.col(mapping.code).alias("code"),
            *added,
            *(pl.col(name).alias(alias) for alias, name in of_row.items()),
        )
        .len("rows")
        .group_by("system", "code", pl.coalesce(reason, mapped).alias("outcome"), *of_row)
        .agg(pl.col("rows").max() if several else pl.col("rows").sum())
        .group_by("system", "code", "outcome")
        .agg(pl.col("rows").sum())
        .collect(engine="streaming")
    )
    system = pl.col("system")
    shown = (
        pl.when(system.is_null())
        .then(pl.lit(NO_SYSTEM))
        .when(system.str.contains(_URI))
        .then(system)
        .otherwise(pl.lit(OTHER_SYSTEM))
        .alias("system")
    )
    return spell(counted).with_columns(shown).group_by("system", "code", "outcome").agg(pl.col("rows").sum())
