"""What must hold of a release before it is stored, and the digest of what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import polars as pl

from cohortflow.errors import MalformedDataError
from cohortflow.terminology.tables import TABLES, Release

__all__ = ["check_edges", "collect_table", "digest_table"]

_NULLABLE: Mapping[str, frozenset[str]] = {
    "concepts": frozenset({"effective", "replaced_by"}),
    "maps": frozenset({"target_code", "target_display", "rule", "advice"}),
}
_UNIQUE: Mapping[str, tuple[str, ...]] = {"concepts": ("code",), "closure": ("descendant", "ancestor")}
# A value set has codes of several systems, a map has two; neither is a system itself.
_OF_ONE_SYSTEM = frozenset({"concepts", "synonyms", "edges", "closure", "attributes"})
_DIGEST_ROWS = 250_000


def collect_table(release: Release, name: str) -> pl.DataFrame:
    """Read one table of a release, sorted by all its columns.

    Raises:
        MalformedDataError: The source cannot be read, or a column, a version or a code is not as it must be.
    """
    place, schema = ", ".join(release.source), TABLES[name]
    try:
        found = release.tables[name].collect_schema()
        _check_schema(found, schema, f"{place}: {name}")
        table = release.tables[name].select(schema.names()).sort(schema.names()).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise MalformedDataError(
            f"The table of {name} cannot be read: {str(error).splitlines()[0]}",
            place=place,
            remedy="Check that the file is whole and has the delimiter and the columns of its format.",
        ) from None
    if table.is_empty() and name == "concepts":
        raise MalformedDataError(
            "The file has no concept.", place=place, remedy="Check that it is whole and of this format."
        )
    _check_nulls(table, name, place)
    _check_versions(table, name, release, place)
    _check_unique(table, name, place)
    if name == "maps":
        _check_maps(table, place)
    return table


def check_edges(edges: pl.DataFrame, concepts: pl.DataFrame, place: str) -> None:
    """Refuse edges whose ends are not among the concepts.

    Raises:
        MalformedDataError: They are not: the files are of different versions, or one of them is cut.
    """
    ends = pl.concat([edges["child"], edges["parent"].rename("child")]).unique()
    missing = ends.filter(~ends.is_in(concepts["code"].implode())).sort()
    if len(missing):
        raise MalformedDataError(
            f"The hierarchy names {len(missing):,} codes that are no concepts, the first is {missing[0]}.",
            place=place,
            remedy="Load all files of one version together.",
        )


def digest_table(table: pl.DataFrame) -> str:
    """Return the SHA-256 of a sorted table's rows.

    The rows are hashed as CSV: text that is empty is quoted, null is not. So the digest depends on nothing
    but the content, neither on the order of the source nor on the version of a library.
    """
    digest = hashlib.sha256()
    for rows in table.iter_slices(_DIGEST_ROWS):
        digest.update(rows.write_csv(include_header=False, quote_style="non_numeric", null_value="").encode())
    return digest.hexdigest()


def _check_schema(found: pl.Schema, schema: pl.Schema, place: str) -> None:
    for column, dtype in schema.items():
        if column not in found:
            raise MalformedDataError(
                f"The column '{column}' is missing.", place=place, remedy="Mend the loader of this format."
            )
        if found[column] != dtype:
            raise MalformedDataError(
                f"The column '{column}' is {found[column]}, not {dtype}.",
                place=place,
                remedy="Mend the loader of this format.",
            )


def _check_nulls(table: pl.DataFrame, name: str, place: str) -> None:
    nullable = _NULLABLE.get(name, frozenset())
    for column in table.columns:
        if column not in nullable and (count := table[column].null_count()):
            raise MalformedDataError(
                f"{count:,} of {table.height:,} rows of {name} have no '{column}'.",
                place=place,
                remedy="Get the file again: a line is cut, or a delimiter is missing.",
            )


def _check_versions(table: pl.DataFrame, name: str, release: Release, place: str) -> None:
    columns = {"version": release.version}
    if name in _OF_ONE_SYSTEM:
        columns["system"] = release.system
    for column, expected in columns.items():
        others = table[column].unique()
        others = others.filter(others != expected).sort()
        if len(others):
            raise MalformedDataError(
                f"Rows of {name} are of {column} '{others[0]}' in a release of '{expected}'.",
                place=place,
                remedy="Load each version by itself.",
            )


def _check_unique(table: pl.DataFrame, name: str, place: str) -> None:
    key = _UNIQUE.get(name)
    if key is None:
        return
    twice = table.filter(pl.struct(key).is_duplicated())
    if twice.height:
        raise MalformedDataError(
            f"{' and '.join(str(twice[column][0]) for column in key)} stands twice in {name}.",
            place=place,
            remedy="Remove the copies, or load the versions one by one if the file mixes several.",
        )


def _check_maps(table: pl.DataFrame, place: str) -> None:
    """Refuse a map that relates the same two codes in two ways; where rules choose, it may."""
    key = ("map", "source_system", "source_code", "target_system", "target_code")
    plain = table.filter(pl.col("rule").is_null(), pl.col("target_code").is_not_null())
    # Few maps name two codes twice: whether one does is told faster than where.
    if not plain.select(pl.struct(key).is_duplicated().any()).item():
        return
    several = plain.group_by(key).agg(pl.col("relationship").unique().sort()).sort(key)
    several = several.filter(pl.col("relationship").list.len() > 1)
    if several.height:
        found = several.row(0, named=True)
        raise MalformedDataError(
            f"The map {found['map']} says of {found['source_code']} and {found['target_code']} both "
            f"'{found['relationship'][0]}' and '{found['relationship'][1]}'.",
            place=place,
            remedy="Keep one of them, and ask the publisher which is meant.",
        )
