"""The registry's tables.

All names begin with ``cohortflow_``, so that the tables may live in a database that others use too.
No column holds patient data, a credential, or an address that a server handed out: where to poll and
where files are stays in the raw zone, with the export that it belongs to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy import Dialect

__all__ = ["METADATA", "UtcDateTime", "endpoints", "exports", "leases"]


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware datetimes in Python, UTC in the database, also where it knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn a moment into UTC."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's
        """Turn what the database returned into an aware moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = MetaData()

exports = Table(
    "cohortflow_export",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("zone", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("chain", String(64), nullable=False),
    Column("base", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("since", Text, nullable=False),
    Column("conn_id", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("level", String(16), nullable=False),
    Column("group_digest", String(16), nullable=False),
    Column("subject", String(32), nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("interval_start", UtcDateTime, nullable=False),
    Column("interval_end", UtcDateTime, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("transaction_time", Text, nullable=False),
    Column("kicked_off_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("study", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("resources", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("cohortflow_export_chain", "chain", "phase"),
    Index("cohortflow_export_subject", "subject", "kicked_off_at"),
)
"""One row per export folder of a raw zone; kicking off anew in the same folder replaces it."""

leases = Table(
    "cohortflow_lease",
    METADATA,
    Column("subject", String(32), primary_key=True),
    Column("server", Text, nullable=False),
    Column("level", String(16), nullable=False),
    Column("group_digest", String(16), nullable=False),
    Column("token", String(32), nullable=False),
    Column("owner", Text, nullable=False),
    Column("export", String(32), nullable=False),
    Column("parked", Boolean, nullable=False),
    Column("study", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("machine", String(32), nullable=False),
    Column("process", Integer, nullable=False),
    Column("acquired_at", UtcDateTime, nullable=False),
    Column("renewed_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)
"""Who exports what just now; one row per subject, gone when the holder is done."""

endpoints = Table(
    "cohortflow_endpoint",
    METADATA,
    Column("subject", String(32), primary_key=True),
    Column("server", Text, nullable=False),
    Column("level", String(16), nullable=False),
    Column("group_digest", String(16), nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
    Column("noted_at", UtcDateTime, nullable=False),
)
"""What a server said on when it may be asked for an export again."""
