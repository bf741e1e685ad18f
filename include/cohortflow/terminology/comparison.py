"""Two versions of a terminology compared, and two codes of one."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from cohortflow.errors import InputError

__all__ = ["CHANGES", "CHANGE_KINDS", "compare_releases", "subsumes"]

CHANGE_KINDS = ("added", "removed", "retired", "reinstated", "renamed")
"""Kinds of change of a concept, in the order of a report."""

CHANGES = pl.Schema(
    {
        "code": pl.String(),
        "change": pl.Enum(CHANGE_KINDS),
        "before": pl.String(),
        "after": pl.String(),
        "replaced_by": pl.String(),
    }
)
"""One row per changed concept and kind of change; ``before`` and ``after`` are its names."""


def compare_releases(old: Mapping[str, pl.LazyFrame], new: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Return what changed from one version to the other, sorted by kind and code.

    A concept is *removed* where the newer version does not have its code at all, and *retired* where it has
    it as inactive. A name that differs in blanks and case alone has not changed.

    Args:
        old: Tables of the older version; ``concepts`` is read.
        new: Tables of the newer version.

    Returns:
        Rows of `CHANGES`.
    """
    before = old["concepts"].select("code", before="display", was_active="active")
    after = new["concepts"].select("code", "replaced_by", after="display", is_active="active")
    both = before.join(after, on="code", how="full", coalesce=True)
    known, still = pl.col("was_active").is_not_null(), pl.col("is_active").is_not_null()
    kinds: Mapping[str, pl.Expr] = {
        "added": ~known,
        "removed": ~still,
        "retired": known & still & pl.col("was_active") & ~pl.col("is_active"),
        "reinstated": known & still & ~pl.col("was_active") & pl.col("is_active"),
        "renamed": known & still & (_plain("before") != _plain("after")),
    }
    rows = [
        both.filter(condition).with_columns(change=pl.lit(kind, dtype=CHANGES["change"]))
        for kind, condition in kinds.items()
    ]
    return pl.concat(rows).select(CHANGES.names()).sort("change", "code")


def subsumes(tables: Mapping[str, pl.LazyFrame], code_a: str, code_b: str) -> str:
    """Return how two concepts are related.

    Source: https://hl7.org/fhir/R4/codesystem-operation-subsumes.html.

    Args:
        tables: Tables of one release; ``concepts`` and, where the terminology has a hierarchy, ``closure``.
        code_a: A code in canonical spelling.
        code_b: Another one.

    Returns:
        ``equivalent``, ``subsumes`` (A is the broader one), ``subsumed-by`` or ``not-subsumed``.

    Raises:
        InputError: The release has no such code.
    """
    found = tables["concepts"].filter(pl.col("code").is_in([code_a, code_b])).select("code").collect()["code"]
    for code in (code_a, code_b):
        if code not in found:
            raise InputError(
                f"The release has no code '{code}'.", remedy="Check the code, or name another version."
            )
    if code_a == code_b:
        return "equivalent"
    if "closure" not in tables:
        return "not-subsumed"
    ancestors = (
        tables["closure"]
        .filter(
            ((pl.col("descendant") == code_b) & (pl.col("ancestor") == code_a))
            | ((pl.col("descendant") == code_a) & (pl.col("ancestor") == code_b))
        )
        .select("ancestor")
        .collect()["ancestor"]
    )
    if not len(ancestors):
        return "not-subsumed"
    return "subsumes" if ancestors[0] == code_a else "subsumed-by"


def _plain(column: str) -> pl.Expr:
    return pl.col(column).str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
