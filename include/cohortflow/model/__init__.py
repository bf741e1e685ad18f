"""Types that every layer shares: frozen, without I/O.

Of ``sql_query`` nothing is exported here: it needs pydantic, which takes a tenth of a second to import.
"""

from cohortflow.model.catalog import Catalog, Kind
from cohortflow.model.column import Column, ColumnType, PhiClass
from cohortflow.model.dataset import ZSTD_LEVEL, DatasetRef, hash_schema
from cohortflow.model.deployment import Connection, Deployment, EnvDeployment
from cohortflow.model.interval import DataInterval
from cohortflow.model.progress import NoProgress, Progress
from cohortflow.model.small_cell import SMALL_CELL

__all__ = [
    "SMALL_CELL",
    "ZSTD_LEVEL",
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
    "hash_schema",
]
