"""Expansions of value sets, kept in the lake."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.terminology.expansion import EXPANSION

if TYPE_CHECKING:
    from cohortflow.lake.store import Store

__all__ = ["StoredExpansions"]

_FOLDER = "expansions"


@dataclass(frozen=True, slots=True)
class StoredExpansions:
    """One file for each expansion, named by its key: content that never changes, and may be removed.

    Attributes:
        store: The folder of the terminologies.
    """

    store: Store

    def get(self, key: str) -> pl.DataFrame | None:
        """Return an expansion; ``None`` where there is none, or what is there cannot be read."""
        content = self.store.read(_path(key))
        if content is None:
            return None
        try:
            return pl.read_parquet(io.BytesIO(content), schema=EXPANSION)
        except pl.exceptions.PolarsError:
            return None

    def put(self, key: str, expansion: pl.DataFrame) -> None:
        """Keep an expansion."""
        content = io.BytesIO()
        expansion.select(EXPANSION.names()).write_parquet(content)
        self.store.write(_path(key), content.getvalue())


def _path(key: str) -> str:
    return f"{_FOLDER}/{key}.parquet"
