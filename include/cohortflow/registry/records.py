"""What the registry tells, as values."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["Endpoint", "ExportRecord", "Lease", "LeaseOwner", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a server allows one export of at a time.

    Attributes:
        server: FHIR base URL.
        client_id: The client that asks.
        level: Export level; empty where the server allows one export per client, whatever it is of.
        group_digest: 16 hex digits for the Group; empty for other levels.
    """

    server: str
    client_id: str
    level: str = ""
    group_digest: str = ""

    @classmethod
    def of(cls, server: str, client_id: str, level: str, group_id: str) -> Subject:
        """Name the subject of a request; the Group appears as a digest only."""
        text = f"{server}\n{group_id}"
        return cls(
            server, client_id, level, hashlib.sha256(text.encode()).hexdigest()[:16] if group_id else ""
        )

    @property
    def key(self) -> str:
        """Identity in the registry: 32 hex digits."""
        text = f"{self.server}\n{self.client_id}\n{self.level}\n{self.group_digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """Who works: a run, in a process.

    Attributes:
        owner: Identity of the run. A successor of a killed worker has the same, and takes over at once.
        export: ``ExportRecord.id`` of what it exports.
        study: Its study, to show.
        run_id: Its id, to show.
        machine: Where the process is: see ``process.name_machine``. Empty while no process holds it.
        process: Its id.
    """

    owner: str
    export: str
    study: str
    run_id: str
    machine: str = ""
    process: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to export a subject, until it expires.

    Attributes:
        subject: ``Subject.key``.
        token: Identity of this lease: whoever takes it over gets another.
        owner: The run.
        export: What it exports.
        parked: Whether nobody works on it just now, while the server still may.
        study: Its study.
        run_id: Its id.
        machine: Where its process is.
        process: Its process.
        acquired_at: When it began.
        renewed_at: The last sign of life.
        expires_at: When others may take it over.
        server: FHIR base URL.
        level: Export level.
        group_digest: The Group's digest.
    """

    subject: str
    token: str
    owner: str
    export: str
    parked: bool
    study: str
    run_id: str
    machine: str
    process: int
    acquired_at: datetime
    renewed_at: datetime
    expires_at: datetime
    server: str
    level: str
    group_digest: str


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What is known of an export.

    Attributes:
        zone: URI of its raw zone.
        folder: Its folder there.
        chain: Identity of the sequence of exports that it belongs to: what is asked for, but ``since``.
        kind: Whether it holds everything, or what changed since another.
        since: FHIR instant that it begins at; empty for a full one.
        base: ``id`` of the export that it builds on; empty for a full one.
        conn_id: Connection.
        subject: Server, client and Group.
        request_digest: Digest of the whole request.
        interval_start: Data interval that it was made for.
        interval_end: Its end.
        phase: How far it is.
        transaction_time: FHIR instant: the next one's ``since``; empty while it runs.
        kicked_off_at: When it was asked for.
        updated_at: Last change of this record.
        study: The study whose run worked on it last.
        run_id: That run.
        resources: Number of resources.
        bytes: Their size.
    """

    zone: str
    folder: str
    chain: str
    kind: Literal["full", "incremental"]
    since: str
    base: str
    conn_id: str
    subject: Subject
    request_digest: str
    interval_start: datetime
    interval_end: datetime
    phase: str = "pending"
    transaction_time: str = ""
    kicked_off_at: datetime | None = None
    updated_at: datetime | None = None
    study: str = ""
    run_id: str = ""
    resources: int = 0
    bytes: int = 0

    @property
    def id(self) -> str:
        """Identity: 32 hex digits for its folder."""
        return self.id_of(self.zone, self.folder)

    @staticmethod
    def id_of(zone: str, folder: str) -> str:
        """Return the identity of the export in a folder of a raw zone."""
        return hashlib.sha256(f"{zone}\n{folder}".encode()).hexdigest()[:32]

    def evolve(self, **changes: object) -> ExportRecord:
        """Return a copy with other values."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked by the caller's tests


@dataclass(frozen=True, slots=True)
class Endpoint:
    """When a server may be asked again.

    Attributes:
        subject: ``Subject.key``.
        server: FHIR base URL.
        level: Export level.
        group_digest: The Group's digest.
        not_before: The moment.
        reason: Why, in a word or two.
        noted_at: When the server said so.
    """

    subject: str
    server: str
    level: str
    group_digest: str
    not_before: datetime
    reason: str
    noted_at: datetime
