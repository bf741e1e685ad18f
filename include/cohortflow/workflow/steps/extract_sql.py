"""Extract: queries on a reporting database into the raw zone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.connectors.sql import SqlState, extract_query, open_engine, read_sql_state
from cohortflow.errors import ArtifactNotFoundError
from cohortflow.model.sql_query import SqlQuery
from cohortflow.workflow.run import Run, StepResult

if TYPE_CHECKING:
    import sqlalchemy as sa

    from cohortflow.workflow.spec import SqlSpec

__all__ = ["extract_queries", "load_queries", "read_query"]


def extract_queries(run: Run, _view: str = "", *, engine: sa.Engine | None = None) -> StepResult:
    """Extract all queries of a study; goes on where an earlier attempt stopped.

    Args:
        run: The run.
        engine: The database; by the study's connection where ``None``.

    Raises:
        CatalogError: A query is malformed, or the database does not accept it.
        MalformedDataError: A query's key is null or not unique.
        SourceError: The database refused the credentials or is unreachable.
    """
    run.key.fingerprint  # noqa: B018  # reading it checks the key, before patient data are fetched
    spec = _spec(run)
    engine = engine or open_engine(run.deployment.connection(spec.connection))
    rows = {}
    for name in spec.queries:
        query = SqlQuery.load(run.catalog, name)
        state = extract_query(
            engine,
            query,
            run.interval,
            run.raw,
            _prefix(run, query),
            page_rows=spec.page_rows,
            progress=run.progress,
        )
        rows[name] = state.rows
    return StepResult(facts={"rows": rows})


def load_queries(run: Run) -> dict[str, SqlState]:
    """Return the complete extractions of a run's queries by name; none where it has no database.

    Raises:
        ArtifactNotFoundError: One is missing or not complete.
    """
    names = run.plan.spec.sql.queries if run.plan.spec.sql else ()
    return {name: _load(run, SqlQuery.load(run.catalog, name)) for name in names}


def read_query(run: Run, name: str, state: SqlState) -> pl.LazyFrame:
    """Return the rows of an extracted query."""
    prefix = _prefix(run, SqlQuery.load(run.catalog, name))
    files = [run.raw.child(prefix, part.name) for part in state.parts]
    return pl.scan_parquet(files, storage_options=run.raw.polars_options)


def _load(run: Run, query: SqlQuery) -> SqlState:
    prefix = _prefix(run, query)
    state = read_sql_state(run.raw, prefix)
    if state is None or not state.complete or state.query_digest != query.digest:
        raise ArtifactNotFoundError(
            f"The raw zone holds no complete extraction of the query '{query.query}'.",
            place=run.raw.child(prefix),
            remedy="Run the extraction first.",
        )
    return state


def _prefix(run: Run, query: SqlQuery) -> str:
    folder = f"{query.query}-{query.digest[:12]}"
    if run.fresh_export:
        folder += "-" + hashlib.sha256(run.run_id.encode()).hexdigest()[:8]
    return f"{_spec(run).connection}/{run.interval.key}/{folder}"


def _spec(run: Run) -> SqlSpec:
    if run.plan.spec.sql is None:
        raise AssertionError
    return run.plan.spec.sql
