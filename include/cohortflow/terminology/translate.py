"""The mapping of codes: every source row stays."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from cohortflow.errors import StudyError
from cohortflow.terminology.concept_map import ConceptMap, Relationship
from cohortflow.terminology.mapping import IDENTITY, CodeMapping, UnmappedReason, mapped_columns
from cohortflow.terminology.normalize import over_distinct, spell, well_formed_expr

__all__ = ["map_codes"]

_SOURCE = ["system", "code"]
_TARGET = "__target"
_RANK = {relationship.value: rank for rank, relationship in enumerate(Relationship)}


def map_codes(frame: pl.LazyFrame, mapping: CodeMapping, concept_maps: Sequence[ConceptMap]) -> pl.LazyFrame:
    """Add the target of each row's code.

    With ``cardinality: best`` the result has exactly the rows of ``frame``, in their order. With ``all`` a
    row stands once for each target, and once where there is none. A code that is in the target system already
    is its own target. In a map within one system (RxNorm product to ingredient) only its targets are; an
    unmapped product is not taken for an ingredient.

    Args:
        frame: A view with the columns ``mapping.code`` and ``mapping.system``.
        mapping: Which columns, and how.
        concept_maps: The maps that ``mapping.maps`` names, in that order.

    Returns:
        The columns of ``frame`` and those of ``mapped_columns(mapping)``.

    Raises:
        StudyError: A source column is missing, an added column is there already, or the maps are not those
            that the mapping names.
    """
    _check(frame, mapping, concept_maps)
    entries = _collect_entries(concept_maps)
    targets = _choose_targets(entries)
    one = mapping.cardinality == "best"
    if one:
        targets = targets.unique(_SOURCE, keep="first", maintain_order=True)
    own = _own_targets(entries)
    added = pl.struct(_added_columns(mapping, entries)).alias(_TARGET)

    def translate(values: pl.DataFrame) -> pl.DataFrame:
        found = (
            spell(values)
            .with_row_index("row")
            .join(targets, on=_SOURCE, how="left", maintain_order="left_right")
            .join(own, on=_SOURCE, how="left", maintain_order="left")
            .select("row", added)
        )
        if one:
            return found.select(_TARGET)
        return found.group_by("row", maintain_order=True).agg(_TARGET).select(_TARGET)

    names = [column.name for column in mapped_columns(mapping)]
    struct = pl.Struct(dict.fromkeys(names, pl.String()))
    target = over_distinct(
        [pl.col(mapping.system), pl.col(mapping.code)], translate, struct if one else pl.List(struct)
    )
    mapped = frame.with_columns(target.alias(_TARGET))
    if not one:
        mapped = mapped.explode(_TARGET)
    return mapped.with_columns(pl.col(_TARGET).struct.field(name) for name in names).drop(_TARGET)


def _check(frame: pl.LazyFrame, mapping: CodeMapping, concept_maps: Sequence[ConceptMap]) -> None:
    names = frame.collect_schema().names()
    for role, column in (("code", mapping.code), ("system", mapping.system)):
        if column not in names:
            raise StudyError(
                f"The mapping '{mapping.prefix}' reads its {role} from a missing column '{column}'.",
                remedy=f"Use one of: {', '.join(names)}.",
            )
    taken = [column.name for column in mapped_columns(mapping) if column.name in names]
    if taken:
        raise StudyError(
            f"The mapping '{mapping.prefix}' would replace the columns {', '.join(taken)}.",
            remedy="Choose another prefix.",
        )
    given = tuple(concept_map.name for concept_map in concept_maps)
    if given != mapping.maps:
        raise StudyError(
            f"The mapping '{mapping.prefix}' names the maps {', '.join(mapping.maps)}; "
            f"given: {', '.join(given) or 'none'}.",
            remedy="Pass the maps that it names, in that order.",
        )


def _collect_entries(concept_maps: Sequence[ConceptMap]) -> pl.DataFrame:
    return pl.concat(
        concept_map.to_frame().with_columns(
            pl.lit(concept_map.label).alias("map"), pl.lit(position, pl.UInt32).alias("position")
        )
        for position, concept_map in enumerate(concept_maps)
    )


def _choose_targets(entries: pl.DataFrame) -> pl.DataFrame:
    """Return the entries of the first map that has a target for a code, best first.

    Where no map has one, what is left is a single entry without target.
    """
    source = ["source_system", "source_code"]
    first = pl.col("position").filter(pl.col("target_code").is_not_null()).min().over(source)
    return (
        entries.with_columns(
            pl.col("relationship").replace_strict(_RANK, return_dtype=pl.UInt8).alias("rank")
        )
        .filter(
            pl.when(first.is_not_null())
            .then((pl.col("position") == first) & pl.col("target_code").is_not_null())
            .otherwise(pl.int_range(pl.len()).over(source) == 0)
        )
        .sort(*source, "rank", "order")
        .select(
            pl.col("source_system").alias("system"),
            pl.col("source_code").alias("code"),
            "target_system",
            "target_code",
            "target_display",
            "relationship",
            "map",
        )
    )


def _own_targets(entries: pl.DataFrame) -> pl.DataFrame:
    """Return the targets of the maps as codes that a source may carry itself."""
    return (
        entries.filter(pl.col("target_code").is_not_null())
        .select(
            pl.col("target_system").alias("system"),
            pl.col("target_code").alias("code"),
            pl.col("target_display").alias("own_display"),
            pl.lit(value=True).alias("own"),
        )
        .unique(_SOURCE, keep="first", maintain_order=True)
    )


def _added_columns(mapping: CodeMapping, entries: pl.DataFrame) -> list[pl.Expr]:
    system, code = pl.col("system"), pl.col("code")
    source_systems = entries["source_system"].unique().to_list()
    target_systems = entries["target_system"].unique().to_list()
    only_target = [target for target in target_systems if target not in source_systems]
    in_map = pl.col("map").is_not_null()
    # The syntax check keeps a hospital's text out of a column that is declared to hold codes.
    is_target = pl.col("own").is_not_null() | (system.is_in(only_target) & well_formed_expr(system, code))
    identity = ~in_map & is_target.fill_null(value=False)
    mapped = in_map & pl.col("target_code").is_not_null()
    reason = (
        pl.when(code.is_null())
        .then(pl.lit(UnmappedReason.NO_SOURCE_CODE.value))
        .when(mapped | identity)
        .then(None)
        .when(in_map)
        .then(pl.lit(UnmappedReason.NO_TARGET.value))
        .when(system.is_in([*source_systems, *target_systems]))
        .then(pl.lit(UnmappedReason.CODE_NOT_IN_MAP.value))
        .otherwise(pl.lit(UnmappedReason.SYSTEM_NOT_IN_MAP.value))
    )
    values = {
        "code": (pl.col("target_code"), code),
        "system": (pl.col("target_system"), system),
        "display": (pl.col("target_display"), pl.col("own_display")),
        "relationship": (pl.col("relationship"), pl.lit(Relationship.EQUIVALENT.value)),
        "map": (pl.col("map"), pl.lit(IDENTITY)),
    }
    added = [
        pl.when(mapped).then(by_map).when(identity).then(own).alias(mapping.output(part))
        for part, (by_map, own) in values.items()
    ]
    return [*added, reason.alias(mapping.output("unmapped_reason"))]
