"""Scratch files for what is read once and asked for often."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

__all__ = ["spool"]

# A release is lazy and may outlive the loader: the folders go when the process ends.
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def spool(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Write rows to a Parquet file of the process, in the folder for temporary files, and return them.

    A download of all vocabularies has tables of 80 million lines, and each of 60 vocabularies takes its part
    of them: text is parsed once.

    Raises:
        PolarsError: The rows cannot be computed.
    """
    folder = tempfile.TemporaryDirectory(prefix="cohortflow-terminology-")
    _FOLDERS.append(folder)
    file = Path(folder.name) / "rows.parquet"
    rows.sink_parquet(file, engine="streaming")
    return pl.scan_parquet(file, glob=False)
