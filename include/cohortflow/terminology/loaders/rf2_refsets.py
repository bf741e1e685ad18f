"""Reference sets of SNOMED CT's Release Format 2: members, maps, historical associations, modules.

Source: SNOMED CT Release File Specification, section 5.2: simple, association, simple map, complex and
extended map, and module dependency reference sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.loaders.delimited import LINE, Delimited
from cohortflow.terminology.loaders.rows import NO_TEXT, place_targets
from cohortflow.terminology.normalize import code_expr
from cohortflow.terminology.systems import ICD10, ICD10CM, SNOMED_CT

__all__ = ["read_associations", "read_maps", "read_members", "read_modules"]

_SAME_AS, _REPLACED_BY = "900000000000527005", "900000000000526001"
_CONCEPT_ID = r"[01]0[0-9]$"
"""The partition in an identifier, 00 or 10, tells a concept from a description or a relationship."""
_TARGETS: Mapping[str, tuple[str, str]] = {
    "447562003": ("snomedct-icd10", ICD10.uri),
    "6011000124106": ("snomedct-icd10cm", ICD10CM.uri),
    "446608001": ("snomedct-icdo", "http://terminology.hl7.org/CodeSystem/icd-o-3"),
    "900000000000497000": ("snomedct-ctv3", "http://read.info/ctv3"),
}
_CORRELATIONS: Mapping[str, str] = {
    "447557004": Relationship.EQUIVALENT.value,
    "447558009": Relationship.NARROWER.value,
    "447559001": Relationship.BROADER.value,
    "447560006": Relationship.RELATED.value,
    "447561005": Relationship.RELATED.value,
    "447556008": Relationship.NOT_RELATED.value,
}
_NUMBER = "[0-9]{1,4}"


def read_associations(files: Sequence[Delimited]) -> pl.LazyFrame:
    """Return the active associations of concepts: code, attribute (the reference set), value, successor."""
    empty = pl.LazyFrame(
        schema={"code": pl.String, "attribute": pl.String, "value": pl.String, "successor": pl.Boolean}
    )
    rows = [
        _read_active(file)
        .filter(pl.col("referencedcomponentid").str.contains(_CONCEPT_ID))
        .select(code="referencedcomponentid", attribute="refsetid", value="targetcomponentid")
        .with_columns(successor=pl.col("attribute").is_in([_SAME_AS, _REPLACED_BY]))
        for file in files
    ]
    return pl.concat([empty, *rows])


def read_members(files: Sequence[Delimited]) -> pl.LazyFrame:
    """Return the concepts that are active members: refset, code."""
    rows = [_read_active(file).select(refset="refsetid", code="referencedcomponentid") for file in files]
    return pl.concat(rows).filter(pl.col("code").str.contains(_CONCEPT_ID)).unique()


def read_modules(file: Delimited) -> tuple[str, ...]:
    """Return the modules on which no other module depends: those of the edition."""
    rows = _read_active(file).select("moduleid", "referencedcomponentid").collect()
    return tuple(sorted(set(rows["moduleid"]) - set(rows["referencedcomponentid"])))


def read_maps(extended: Sequence[Delimited], simple: Sequence[Delimited]) -> pl.LazyFrame:
    """Return the active rows of map reference sets, as the table of maps without its version.

    The correlation of an extended map speaks of the source first: *broad to narrow* is a source that is
    broader than its target. Where it is not specified, and in simple maps, the relationship is *related-to*.

    Raises:
        MalformedDataError: Group or priority is no number, or two active rows claim the same place of a group
            for different targets.
    """
    for file in extended:
        for column in ("mapgroup", "mappriority"):
            file.require(column, _NUMBER, "number")
        rows = _read_active(file)
        key = ("refsetid", "referencedcomponentid", "mapgroup", "mappriority")
        file.require_unique(
            key,
            rows.filter(pl.col("maptarget").fill_null("").n_unique().over(key) > 1),
            "Two active rows contradict each other: get the file again, or report it to its publisher.",
        )
    maps = [*(_read_extended(file) for file in extended), *(_read_simple(file) for file in simple)]
    return pl.concat(maps)


def _read_active(file: Delimited) -> pl.LazyFrame:
    return file.scan().filter(pl.col("active") == "1")


def _name_map() -> pl.Expr:
    names = {refset: name for refset, (name, _) in _TARGETS.items()}
    other = pl.concat_str(pl.lit("snomedct-"), "refsetid")
    return pl.coalesce(
        pl.col("refsetid").replace_strict(names, default=None, return_dtype=pl.String), other
    ).alias("map")


def _name_system() -> pl.Expr:
    systems = {refset: system for refset, (_, system) in _TARGETS.items()}
    other = pl.concat_str(pl.lit("urn:snomed:refset:"), "refsetid")
    return pl.coalesce(
        pl.col("refsetid").replace_strict(systems, default=None, return_dtype=pl.String), other
    )


def _read_extended(file: Delimited) -> pl.LazyFrame:
    none = pl.col("maptarget").is_null()
    correlation = pl.col("correlationid").replace_strict(
        _CORRELATIONS, default=Relationship.RELATED.value, return_dtype=pl.String
    )
    return (
        _read_active(file)
        .with_columns(_name_map(), target_system=_name_system())
        .select(
            "map",
            source_system=pl.lit(SNOMED_CT.uri),
            source_code="referencedcomponentid",
            target_system="target_system",
            target_code=code_expr(pl.col("target_system"), pl.col("maptarget")),
            target_display=NO_TEXT,
            relationship=pl.when(none).then(pl.lit(Relationship.NOT_RELATED.value)).otherwise(correlation),
            group=pl.col("mapgroup").cast(pl.UInt16),
            priority=pl.col("mappriority").cast(pl.UInt16),
            rule="maprule",
            advice="mapadvice",
            order=pl.col(LINE).cast(pl.UInt32),
        )
    )


def _read_simple(file: Delimited) -> pl.LazyFrame:
    """Read a simple map from SNOMED CT, or one to it, whose column is named ``mapSource``."""
    inward = "mapsource" in file.names
    foreign = "mapsource" if inward else "maptarget"
    if not inward and "maptarget" not in file.names:
        Delimited.open(file.path, (foreign,))
    rows = (
        _read_active(file)
        .filter(pl.col(foreign).is_not_null())
        .with_columns(_name_map(), system=_name_system())
    )
    code = code_expr(pl.col("system"), pl.col(foreign))
    sides = [(pl.col("system"), code), (pl.lit(SNOMED_CT.uri), pl.col("referencedcomponentid"))]
    source, target = sides if inward else sides[::-1]
    return rows.select(
        "map",
        source_system=source[0],
        source_code=source[1],
        target_system=target[0],
        target_code=target[1],
        target_display=NO_TEXT,
        relationship=pl.lit(Relationship.RELATED.value),
        **place_targets("refsetid", "referencedcomponentid"),
        advice=NO_TEXT,
        order=pl.col(LINE).cast(pl.UInt32),
    )
