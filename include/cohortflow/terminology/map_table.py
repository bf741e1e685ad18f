"""Maps as tables: those of the catalog and of loaded terminologies alike, and paths over several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from cohortflow.errors import InputError, StudyError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.mapping import PATH_SEPARATOR
from cohortflow.terminology.tables import MAPS

__all__ = ["RANK", "CodeMap", "MapTable", "compose_maps", "compose_relationships", "select_map"]

RANK = {relationship.value: rank for rank, relationship in enumerate(Relationship)}
"""Relationships, best first."""
_ENTRY = ("source_system", "source_code", "target_system", "target_code", "target_display", "relationship")
_GENERATED: Mapping[str, pl.Expr] = {
    "group": pl.lit(1, pl.UInt16),
    "priority": pl.lit(1, pl.UInt16),
    "rule": pl.lit(None, pl.String),
}


class CodeMap(Protocol):
    """What `map_codes` maps by: a `ConceptMap` or a `MapTable`."""

    @property
    def name(self) -> str:
        """Name, as a mapping names it."""

    @property
    def label(self) -> str:
        """Name and version, which mapped rows carry."""

    def to_frame(self) -> pl.DataFrame:
        """Return one row for each target, with the columns of `tables.MAPS` or those of `MappingEntry`."""


@dataclass(frozen=True)
class MapTable:
    """A map of a loaded terminology.

    Attributes:
        name: Name, as a mapping names it.
        label: Name and version.
        entries: Rows of `tables.MAPS`.
    """

    name: str
    label: str
    entries: pl.DataFrame

    def to_frame(self) -> pl.DataFrame:
        """Return the rows."""
        return self.entries


def select_map(name: str, tables: Mapping[str, pl.LazyFrame], *, called: str = "") -> MapTable:
    """Take one map from the tables of a release.

    Args:
        name: Of the map, as in its column ``map``.
        tables: Tables of the release.
        called: What a mapping calls it; by default its name.

    Raises:
        InputError: The release has no such map, or several versions of it.
    """
    rows = tables.get("maps", pl.LazyFrame(schema=MAPS)).filter(pl.col("map") == name).collect()
    versions = rows["version"].unique().sort().to_list()
    if not versions:
        raise InputError(
            f"The release has no map '{name}'.",
            remedy="Load it with 'cohortflow terminology load', or see 'cohortflow terminology list'.",
        )
    if len(versions) > 1:
        raise InputError(
            f"The tables hold several versions of the map '{name}': {', '.join(versions)}.",
            remedy="Name one of them.",
        )
    return MapTable(called or name, f"{name}|{versions[0]}", rows)


def compose_relationships(first: Relationship, second: Relationship) -> Relationship:
    r"""Return the relationship of the source of one mapping to the target of the next.

    | first \\ second | equivalent | narrower | broader | related |
    |---|---|---|---|---|
    | equivalent | equivalent | narrower | broader | related |
    | narrower | narrower | narrower | related | related |
    | broader | broader | related | broader | related |
    | related | related | related | related | related |

    *Narrower* is ``source-is-narrower-than-target``. A mapping to nothing ends the path.
    """
    if Relationship.NOT_RELATED in {first, second}:
        return Relationship.NOT_RELATED
    if Relationship.EQUIVALENT in {first, second}:
        return second if first is Relationship.EQUIVALENT else first
    return first if first is second else Relationship.RELATED


def compose_maps(maps: Sequence[CodeMap]) -> MapTable:
    """Join maps to one: the targets of each are the sources of the next.

    Of several ways to one target the closest relationship counts. Where a way ends, there is no target.

    Args:
        maps: At least one. Only the last one may choose by rules of age, sex or findings.

    Raises:
        StudyError: An earlier map has such rules, or two maps have no system in common.
    """
    composed = MapTable(maps[0].name, maps[0].label, map_rows(maps[0]))
    for step in maps[1:]:
        composed = _compose(composed, step)
    return composed


def map_rows(code_map: CodeMap) -> pl.DataFrame:
    """Return a map's rows with the columns ``group``, ``priority``, ``rule`` and ``order``."""
    rows = code_map.to_frame()
    missing = [value.alias(name) for name, value in _GENERATED.items() if name not in rows.columns]
    return rows.with_columns(missing).select(*_ENTRY, *_GENERATED, "order")


def _compose(first: MapTable, second: CodeMap) -> MapTable:
    rows, following = first.entries, map_rows(second)
    name = f"{first.name} {PATH_SEPARATOR} {second.name}"
    conditional = rows["rule"].drop_nulls().str.strip_chars()
    if len(conditional.filter(~conditional.is_in(["", "TRUE"]))):
        raise StudyError(
            f"The map '{first.name}' chooses by rules, which only the last map of a path may do.",
            place=name,
            remedy="Map in two steps: the columns of the first mapping are the source of the second.",
        )
    if rows.join(following, left_on="target_system", right_on="source_system", how="semi").is_empty():
        raise StudyError(
            f"No target system of '{first.name}' is a source system of '{second.name}'.",
            place=name,
            remedy="Put the maps in the order of the path.",
        )
    table = pl.DataFrame(
        [(a.value, b.value, compose_relationships(a, b).value) for a in Relationship for b in Relationship],
        schema=["relationship", "next_relationship", "composed"],
        orient="row",
    )
    joined = (
        rows.drop("rule")
        .rename({"order": "first_order", "group": "first_group", "priority": "first_priority"})
        .join(
            following.rename(
                {
                    "target_system": "next_system",
                    "target_code": "next_code",
                    "target_display": "next_display",
                    "relationship": "next_relationship",
                }
            ),
            left_on=["target_system", "target_code"],
            right_on=["source_system", "source_code"],
            how="left",
        )
        .with_columns(
            pl.col("next_relationship").fill_null(Relationship.NOT_RELATED.value),
            pl.coalesce("next_system", pl.lit(following["target_system"][0])).alias("next_system"),
            pl.coalesce("group", "first_group").alias("group"),
            pl.coalesce("priority", "first_priority").alias("priority"),
        )
        .join(table, on=["relationship", "next_relationship"], how="left")
        .with_columns(pl.col("composed").replace_strict(RANK, return_dtype=pl.UInt8).alias("rank"))
        .sort("source_system", "source_code", "rank", "first_order", "order", nulls_last=True)
        .unique(
            ["source_system", "source_code", "next_system", "next_code", "group", "rule"],
            keep="first",
            maintain_order=True,
        )
        .drop("order")
        .with_row_index("order")
        .select(
            "source_system",
            "source_code",
            pl.col("next_system").alias("target_system"),
            pl.col("next_code").alias("target_code"),
            pl.col("next_display").alias("target_display"),
            pl.col("composed").alias("relationship"),
            *_GENERATED,
            "order",
        )
    )
    return MapTable(name, f"{first.label} {PATH_SEPARATOR} {second.label}", joined)
