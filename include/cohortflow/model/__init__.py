"""Types that every layer shares: frozen, without I/O."""

from cohortflow.model.catalog import Catalog, Kind
from cohortflow.model.column import Column, ColumnType, PhiClass
from cohortflow.model.dataset import DatasetRef, hash_schema
from cohortflow.model.deployment import Connection, Deployment, EnvDeployment
from cohortflow.model.interval import DataInterval
from cohortflow.model.progress import NoProgress, Progress
from cohortflow.model.sql_query import QueryColumn, SqlQuery

__all__ = [
    "Catalog",
    "Column",
    "ColumnType",
    "Connection",
    "DataInterval",
    "DatasetRef",
    "Deployment",
    "EnvDeployment",
    "Kind",
    "NoProgress",
    "PhiClass",
    "Progress",
    "QueryColumn",
    "SqlQuery",
    "hash_schema",
]
