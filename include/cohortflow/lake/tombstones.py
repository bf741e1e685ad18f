"""Tombstones: what a source has deleted, kept in the raw zone for every later run and repeat."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.fhir.snapshot import TOMBSTONE_SCHEMA

if TYPE_CHECKING:
    from datetime import datetime

    from cohortflow.lake.store import Store

__all__ = ["is_recorded", "load_tombstones", "record_tombstones"]

_FOLDER = "_tombstones"


def record_tombstones(
    raw: Store, source: str, deletions: pl.DataFrame, transaction_time: datetime, digest: str
) -> None:
    """Keep the deletions that an export reports; the same export again changes nothing.

    Each export has a file of its own, so that runs at the same time lose nothing.

    Args:
        raw: The raw zone: resource ids are patient data.
        source: Name of the source's connection.
        deletions: ``type: str, id: str``.
        transaction_time: That of the export.
        digest: That of the export.
    """
    if deletions.is_empty():
        return
    rows = deletions.select(
        "type", "id", pl.lit(transaction_time).cast(TOMBSTONE_SCHEMA["deleted_at"]).alias("deleted_at")
    )
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    raw.write(_path(source, transaction_time, digest), buffer.getvalue())


def is_recorded(raw: Store, source: str, transaction_time: datetime, digest: str) -> bool:
    """Return whether an export's deletions are kept; of an export without any it is not known."""
    return raw.size(_path(source, transaction_time, digest)) is not None


def load_tombstones(raw: Store, source: str) -> pl.DataFrame:
    """Return the last known deletion of every resource of a source, with ``TOMBSTONE_SCHEMA``."""
    contents = (raw.read(path) for path in raw.list(f"{source}/{_FOLDER}"))
    frames = [pl.read_parquet(io.BytesIO(content)) for content in contents if content is not None]
    known = pl.concat([TOMBSTONE_SCHEMA.to_frame(), *frames])
    return known.group_by("type", "id").agg(pl.col("deleted_at").max()).sort("type", "id")


def _path(source: str, transaction_time: datetime, digest: str) -> str:
    return f"{source}/{_FOLDER}/{transaction_time:%Y%m%dT%H%M%S}-{digest[:16]}.parquet"
