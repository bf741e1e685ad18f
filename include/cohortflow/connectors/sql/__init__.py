"""Reporting databases: queries of the catalog to Parquet files in the raw zone."""

from cohortflow.connectors.sql.engine import open_engine
from cohortflow.connectors.sql.extract import FileStore, SqlPart, SqlState, extract_query, read_sql_state
from cohortflow.connectors.sql.pages import ARROW_TYPES

__all__ = [
    "ARROW_TYPES",
    "FileStore",
    "SqlPart",
    "SqlState",
    "extract_query",
    "open_engine",
    "read_sql_state",
]
