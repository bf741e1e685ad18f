"""The registry: what runs remember of sources, shared by all of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select

from cohortflow.registry import leases as lease_table
from cohortflow.registry.engine import make_engine, registry_errors
from cohortflow.registry.location import locate_registry
from cohortflow.registry.migrate import migrate, require_head
from cohortflow.registry.records import Endpoint, ExportRecord, Subject
from cohortflow.registry.tables import endpoints, exports
from cohortflow.registry.upsert import insert_or_replace

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, RowMapping

    from cohortflow.model import Deployment
    from cohortflow.registry.records import Lease, LeaseOwner

__all__ = ["Registry", "migrate_registry", "open_registry"]

_COMPLETE = "complete"


def open_registry(deployment: Deployment, environ: Mapping[str, str] | None = None) -> Registry:
    """Open the registry of a deployment, and make it or bring it up to date where need be.

    Raises:
        ConfigurationError: The connection ``cohortflow_registry`` is of the wrong kind.
        RegistryError: The database cannot be used, or a newer version of the package has migrated it.
    """
    return Registry.at(locate_registry(deployment, environ))


def migrate_registry(url: URL) -> tuple[str, str]:
    """Make the registry at an address or bring it up to date; see ``migrate.migrate``."""
    return migrate(make_engine(url), url.render_as_string(hide_password=True))


class Registry:
    """Exports, leases, and what servers said on when to ask again.

    Every method is one short transaction, and safe to call from several threads, processes and (on
    PostgreSQL) machines at once. Moments are those of the database's clock on PostgreSQL, so that
    machines need not agree on the time.

    Args:
        engine: The database.
        place: How messages call it; no password.
        clock: Another clock, for tests.
    """

    def __init__(self, engine: Engine, place: str, clock: Callable[[], datetime] | None = None) -> None:
        self.engine = engine
        self.place = place
        self._clock = clock

    @classmethod
    def at(cls, url: URL, clock: Callable[[], datetime] | None = None) -> Registry:
        """Open the registry of an address.

        Raises:
            RegistryError: See ``open_registry``.
        """
        place = url.render_as_string(hide_password=True)
        engine = make_engine(url)
        require_head(engine, place)
        return cls(engine, place, clock)

    def now(self) -> datetime:
        """Return the time by which leases expire."""
        with self._begin() as connection:
            return self._now(connection)

    def acquire(self, subject: Subject, owner: LeaseOwner, seconds: float) -> Lease | None:
        """Take the lease of a subject for some seconds; ``None`` where another run holds it."""
        with self._begin() as connection:
            return lease_table.acquire_lease(connection, subject, owner, seconds, self._now(connection))

    def renew(self, lease: Lease, seconds: float) -> Lease:
        """Extend a lease by some seconds from now.

        Raises:
            LeaseLostError: Another has taken it over.
        """
        with self._begin() as connection:
            return lease_table.renew_lease(connection, lease, seconds, self._now(connection))

    def release(self, subject: str, token: str = "") -> bool:
        """End the lease of a subject (``Subject.key``); with ``token``, only that one."""
        with self._begin() as connection:
            return lease_table.drop_lease(connection, subject, token)

    def lease(self, subject: str) -> Lease | None:
        """Return the lease of a subject (``Subject.key``), expired or not."""
        with self._begin() as connection:
            return lease_table.read_lease(connection, subject)

    def leases(self) -> tuple[Lease, ...]:
        """Return all leases, the oldest first."""
        with self._begin() as connection:
            return lease_table.list_leases(connection)

    def save(self, export: ExportRecord) -> None:
        """Remember an export; what was known of its folder is replaced."""
        with self._begin() as connection:
            row = _to_row(export) | {"updated_at": self._now(connection)}
            insert_or_replace(connection, exports, row)

    def export(self, export_id: str) -> ExportRecord | None:
        """Return an export by its id, or by the beginning of it where that is enough."""
        with self._begin() as connection:
            query = select(exports).where(exports.c.id.startswith(export_id, autoescape=True)).limit(2)
            rows = connection.execute(query).mappings().all()
            return _from_row(rows[0]) if len(rows) == 1 else None

    def exports(self, *, limit: int = 100) -> tuple[ExportRecord, ...]:
        """Return the exports that changed last, newest first."""
        with self._begin() as connection:
            query = select(exports).order_by(exports.c.updated_at.desc()).limit(limit)
            return tuple(_from_row(row) for row in connection.execute(query).mappings())

    def chain(self, chain: str, zone: str) -> tuple[ExportRecord, ...]:
        """Return the complete exports of a chain in a raw zone, by transaction time, oldest first."""
        with self._begin() as connection:
            those = (exports.c.chain == chain) & (exports.c.zone == zone) & (exports.c.phase == _COMPLETE)
            rows = connection.execute(select(exports).where(those)).mappings()
            found = [_from_row(row) for row in rows]
        return tuple(sorted(found, key=lambda export: datetime.fromisoformat(export.transaction_time)))

    def watermarks(self) -> tuple[ExportRecord, ...]:
        """Return the latest complete export of every chain: its transaction time is the watermark.

        They are derived from the exports, so that the two cannot differ. Whether an export lacks something,
        so that none builds on it, its folder in the raw zone says.
        """
        with self._begin() as connection:
            rows = connection.execute(select(exports).where(exports.c.phase == _COMPLETE)).mappings()
            found = [_from_row(row) for row in rows]
        latest: dict[tuple[str, str], ExportRecord] = {}
        for export in sorted(found, key=lambda export: datetime.fromisoformat(export.transaction_time)):
            latest[export.zone, export.chain] = export
        return tuple(sorted(latest.values(), key=lambda export: export.transaction_time, reverse=True))

    def forget(self, export_id: str) -> bool:
        """Remove an export's record, as when its folder was deleted; tell whether there was one."""
        with self._begin() as connection:
            return connection.execute(delete(exports).where(exports.c.id == export_id)).rowcount > 0

    def last_kick_off(self, subject: str) -> datetime | None:
        """Return when an export of a subject (``Subject.key``) was last asked for."""
        with self._begin() as connection:
            query = select(func.max(exports.c.kicked_off_at, type_=exports.c.kicked_off_at.type))
            moment: datetime | None = connection.execute(query.where(exports.c.subject == subject)).scalar()
            return moment

    def postpone(self, subject: Subject, not_before: datetime, reason: str) -> None:
        """Remember that a server is not to be asked for an export before a moment."""
        with self._begin() as connection:
            row = {
                "subject": subject.key,
                "server": subject.server,
                "level": subject.level,
                "group_digest": subject.group_digest,
                "not_before": not_before,
                "reason": reason,
                "noted_at": self._now(connection),
            }
            insert_or_replace(connection, endpoints, row)

    def postponed(self, subject: str) -> Endpoint | None:
        """Return until when a subject (``Subject.key``) has to wait; ``None`` where it need not."""
        with self._begin() as connection:
            query = select(endpoints).where(
                (endpoints.c.subject == subject) & (endpoints.c.not_before > self._now(connection))
            )
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else Endpoint(**row)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what servers said, the latest moment first."""
        with self._begin() as connection:
            rows = connection.execute(select(endpoints).order_by(endpoints.c.not_before.desc())).mappings()
            return tuple(Endpoint(**row) for row in rows)

    def resume(self, subject: str) -> bool:
        """Forget that a subject (``Subject.key``) has to wait; tell whether it had."""
        with self._begin() as connection:
            return connection.execute(delete(endpoints).where(endpoints.c.subject == subject)).rowcount > 0

    @contextlib.contextmanager
    def _begin(self) -> Iterator[Connection]:
        with registry_errors(self.place), self.engine.begin() as connection:
            yield connection

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "postgresql":
            moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
            return moment.astimezone(UTC)
        return datetime.now(UTC)


def _to_row(export: ExportRecord) -> dict[str, Any]:
    row = {field.name: getattr(export, field.name) for field in dataclasses.fields(export)}
    subject: Subject = row["subject"]
    return row | {
        "id": export.id,
        "server": subject.server,
        "client_id": subject.client_id,
        "level": subject.level,
        "group_digest": subject.group_digest,
        "subject": subject.key,
    }


def _from_row(row: RowMapping) -> ExportRecord:
    values = dict(row)
    del values["id"], values["subject"]
    names = ("server", "client_id", "level", "group_digest")
    subject = Subject(**{name: values.pop(name) for name in names})
    return ExportRecord(subject=subject, **values)
