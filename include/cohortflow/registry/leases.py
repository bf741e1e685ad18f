"""Leases: one run at a time exports a Group.

A lease has a holder, who renews it, and an end. Its token changes with every holder: who was thought
dead and comes back finds that the token is not his any more, and stops.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select, update

from cohortflow.errors import LeaseLostError
from cohortflow.registry.process import is_dead
from cohortflow.registry.records import Lease
from cohortflow.registry.tables import leases
from cohortflow.registry.upsert import insert_or_skip

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from cohortflow.registry.records import LeaseOwner, Subject

__all__ = ["acquire_lease", "drop_lease", "list_leases", "read_lease", "renew_lease"]


def acquire_lease(
    connection: Connection, subject: Subject, owner: LeaseOwner, seconds: float, now: datetime
) -> Lease | None:
    """Take the lease of a subject; ``None`` where another run holds it.

    It is free when nobody has it, when it has expired, and when the same run has it: its worker was
    killed, or is to be replaced. A run that wants the same export, of which another run's process on this
    machine is gone or has let go, need not wait for the end either: it goes on with that export.
    """
    values: dict[str, Any] = {
        "token": uuid.uuid4().hex,
        "owner": owner.owner,
        "export": owner.export,
        "parked": False,
        "study": owner.study,
        "run_id": owner.run_id,
        "machine": owner.machine,
        "process": owner.process,
        "acquired_at": now,
        "renewed_at": now,
        "expires_at": now + timedelta(seconds=seconds),
    }
    place: dict[str, Any] = {
        "server": subject.server,
        "level": subject.level,
        "group_digest": subject.group_digest,
    }
    held = read_lease(connection, subject.key, lock=True)
    if held is None:
        row = {"subject": subject.key, **place, **values}
        # Two may see no lease at the same time: the database lets one of them in.
        if not insert_or_skip(connection, leases, row):
            return None
        return Lease(**row)
    orphaned = held.parked or is_dead(held.machine, held.process)
    mine = held.owner == owner.owner or (held.export == owner.export and orphaned)
    if held.expires_at > now and not mine:
        return None
    if held.owner == owner.owner:
        values["acquired_at"] = held.acquired_at
    connection.execute(update(leases).where(leases.c.subject == subject.key).values(**values))
    return Lease(subject=subject.key, **place, **values)


def renew_lease(connection: Connection, lease: Lease, seconds: float, now: datetime) -> Lease:
    """Give a sign of life; ``machine``, ``process`` and ``parked`` of the lease say whose.

    Raises:
        LeaseLostError: Another has it.
    """
    changes = {
        "machine": lease.machine,
        "process": lease.process,
        "parked": lease.parked,
        "renewed_at": now,
        "expires_at": now + timedelta(seconds=seconds),
    }
    mine = (leases.c.subject == lease.subject) & (leases.c.token == lease.token)
    if connection.execute(update(leases).where(mine).values(**changes)).rowcount != 1:
        raise LeaseLostError(
            "Another run has taken over the export of this group.",
            place=lease.server,
            remedy="Nothing is lost: run it again, it waits for the other and goes on from there. "
            "'cohortflow registry locks' shows who holds it.",
        )
    row = connection.execute(select(leases).where(mine)).mappings().one()
    return Lease(**row)


def drop_lease(connection: Connection, subject: str, token: str = "") -> bool:
    """End a lease; tell whether there was one.

    Args:
        connection: The database.
        subject: ``Subject.key``.
        token: End only this one; without, whoever has it.
    """
    those = leases.c.subject == subject
    if token:
        those &= leases.c.token == token
    return connection.execute(delete(leases).where(those)).rowcount > 0


def read_lease(connection: Connection, subject: str, *, lock: bool = False) -> Lease | None:
    """Return the lease of a subject, expired or not; ``lock``: keep others from changing it meanwhile."""
    query = select(leases).where(leases.c.subject == subject)
    if lock:
        query = query.with_for_update()  # SQLite's transactions hold the lock anyway
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Lease(**row)


def list_leases(connection: Connection) -> tuple[Lease, ...]:
    """Return all leases, the oldest first."""
    rows = connection.execute(select(leases).order_by(leases.c.acquired_at)).mappings()
    return tuple(Lease(**row) for row in rows)
