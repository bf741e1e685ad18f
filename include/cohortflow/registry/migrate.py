"""The registry's schema: made and brought up to date by Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, inspect, select, table, text

from cohortflow.errors import RegistryError
from cohortflow.registry.engine import registry_errors

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["HEAD", "VERSION_TABLE", "current_revision", "migrate", "require_head"]

HEAD = "0001"
"""Revision that this version of the package works with."""

VERSION_TABLE = "cohortflow_registry_version"
"""Not Alembic's usual name, as Airflow's database has a table of that."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x636F686F72740001  # "cohort", 1


def migrate(engine: Engine, place: str) -> tuple[str, str]:
    """Bring the schema up to date; processes that do so at once wait for each other.

    Returns:
        The revision before (empty for a new registry), and the one now.

    Raises:
        RegistryError: The database failed, or a newer version of the package has been at work.
    """
    with registry_errors(place), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Held until the transaction ends. On SQLite, to begin one is to hold the lock.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        before = _read_revision(connection)
        if before == HEAD:
            return before, before
        _upgrade(connection, before, place)
        return before, HEAD


def require_head(engine: Engine, place: str) -> None:
    """Bring the schema up to date where it is not; asks one question where it is."""
    if current_revision(engine, place) != HEAD:
        migrate(engine, place)


def current_revision(engine: Engine, place: str) -> str:
    """Return the schema's revision; empty where there is none yet."""
    with registry_errors(place), engine.connect() as connection:
        return _read_revision(connection)


def _read_revision(connection: Connection) -> str:
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar() or ""


def _upgrade(connection: Connection, before: str, place: str) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(_MIGRATIONS)
    if before and before not in {script.revision for script in scripts.walk_revisions()}:
        raise RegistryError(
            f"The registry's schema is at revision {before}; this version of Cohortflow knows up to {HEAD}.",
            place=place,
            remedy="A newer version has migrated it: install that version here too.",
        )

    def steps(revision: str, _context: object) -> list[object]:
        return list(scripts._upgrade_revs(HEAD, revision))  # noqa: SLF001  # as Alembic's own command does

    # transactional_ddl: a migration that fails leaves nothing behind, on SQLite too.
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "transactional_ddl": True, "fn": steps}
    )
    with Operations.context(context):
        context.run_migrations()
