"""Deletions that a bulk export reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from cohortflow.errors import MalformedDataError

__all__ = ["read_deletions"]

_BUNDLE = pl.Struct(
    {
        "resourceType": pl.String(),
        "entry": pl.List(pl.Struct({"request": pl.Struct({"method": pl.String(), "url": pl.String()})})),
    }
)
_REFERENCE = r"(?:^|/)([A-Z][A-Za-z]+)/([^/?#\s]+)(?:/_history/[^/?#\s]+)?$"


def read_deletions(
    files: Iterable[str], *, storage_options: Mapping[str, str | int] | None = None
) -> pl.DataFrame:
    """Read the files that a manifest lists as ``deleted``: transaction Bundles with DELETE entries.

    Source: FHIR Bulk Data Access 2.0, "Response - Complete Status", ``deleted``.

    Args:
        files: NDJSON files of Bundles.
        storage_options: For remote files, as Polars takes them.

    Returns:
        ``type: str, id: str``, each pair once, sorted.

    Raises:
        MalformedDataError: A line or an entry cannot be read. Deletions are not passed over: what was
            deleted must not stay in a dataset because of a fault in a file.
    """
    found = [_read_deletions_of(file, storage_options) for file in files]
    empty = pl.DataFrame(schema={"type": pl.String(), "id": pl.String()})
    return pl.concat([empty, *found]).unique().sort("type", "id")


def _read_deletions_of(file: str, storage_options: Mapping[str, str | int] | None) -> pl.DataFrame:
    options = None if storage_options is None else dict(storage_options)
    text = pl.col("text").str.strip_prefix("\ufeff")
    lines = pl.scan_lines(file, name="text", glob=False, storage_options=options).select(text)
    bundles = lines.filter(text.str.strip_chars() != "").select(pl.col("text").str.json_decode(_BUNDLE))
    try:
        bundle = bundles.collect().unnest("text")
    except pl.exceptions.PolarsError:
        # "from None": the text of the original may hold values.
        raise _unreadable("A line is not one Bundle", file) from None
    if not (bundle["resourceType"] == "Bundle").all(ignore_nulls=False):
        raise _unreadable("A line is not one Bundle", file)
    request = pl.col("entry").struct.field("request")
    requests = (
        bundle.explode("entry")
        .filter(pl.col("entry").is_not_null())
        .select(request.struct.field("method"), request.struct.field("url"))
        .filter(pl.col("method").str.to_uppercase() == "DELETE")
    )
    url = pl.col("url")
    deleted = requests.select(
        url.str.extract(_REFERENCE, 1).alias("type"), url.str.extract(_REFERENCE, 2).alias("id")
    )
    unclear = deleted["id"].null_count()
    if unclear:
        raise _unreadable(f"{unclear} entries do not name a resource by type and id", file)
    return deleted


def _unreadable(what: str, file: str) -> MalformedDataError:
    return MalformedDataError(
        f"A list of deletions cannot be read: {what}.",
        place=file,
        remedy="Export again; if it persists, ask the source's operator. Nothing was published.",
    )
