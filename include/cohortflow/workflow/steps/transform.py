"""Transform: the export's resources to tables, one per view."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.cohort import before, restrict
from cohortflow.engine import describe_table, plan_write, read_table, write_table
from cohortflow.errors import ArtifactNotFoundError, MalformedDataError
from cohortflow.fhir.snapshot import Snapshot, SnapshotRead, hide_subjects
from cohortflow.fhir.views import CompiledView, compile_view
from cohortflow.workflow.ages import AgeReader
from cohortflow.workflow.datasets import COHORT_DATASET, views_to_read
from cohortflow.workflow.exclusions import (
    ExclusionReader,
    clear_table,
    digest_lists,
    find_excluded,
    label_records,
    with_labels,
)
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.snapshot import open_snapshot
from cohortflow.workflow.steps.extract import load_chain
from cohortflow.workflow.steps.extract_sql import load_queries, read_query
from cohortflow.workflow.subjects import follow_merges, read_subjects

if TYPE_CHECKING:
    from cohortflow.connectors.sql import SqlState
    from cohortflow.redaction.crosswalk import Crosswalk

__all__ = ["read_cleared", "read_view", "transform_views"]

STEP = "transform"


def transform_views(run: Run, _view: str = "") -> StepResult:
    """Compute every view from the raw files; views of one resource share one read of them.

    Of each resource the valid occurrence counts, and what the source deleted is left out: see
    ``cohortflow.fhir.snapshot``. Rows of a patient's merged record belong to the record that is left.
    Rows dated at or after the interval's end are left out, and who is excluded is found. Malformed lines are
    listed by file and line in the raw zone's ``_quarantine`` and counted.

    Raises:
        ArtifactNotFoundError: Another run replaced the export meanwhile.
        MalformedDataError: A resource type has a larger share of malformed lines than the study allows.
    """
    chain = load_chain(run)
    snapshot = open_snapshot(run, chain)
    latest = chain[-1].export
    exported = {resource for extraction in chain for resource in extraction.result.files}
    crosswalk = read_subjects(run, snapshot, exported)
    reader = ExclusionReader.of_chain(run, chain, snapshot, crosswalk)
    names = views_to_read(run.plan.spec)
    by_resource: dict[str, list[CompiledView]] = defaultdict(list)
    for name in names:
        view = compile_view(with_labels(run, run.catalog.load("views", name)))
        by_resource[view.resource].append(view)
    reads: dict[str, SnapshotRead] = {}
    for done, (resource, views) in enumerate(sorted(by_resource.items())):
        run.progress.update(STEP, done, len(by_resource), "resource types")
        reads[resource] = _read_views(reader, resource, views)
        _quarantine(run, latest.prefix, resource, reads[resource].malformed)
    run.progress.update(STEP, len(by_resource), len(by_resource), "resource types")
    malformed = {resource: read.malformed.height for resource, read in reads.items()}
    for resource, count in malformed.items():
        lines = sum(extraction.result.resources.get(resource, 0) for extraction in chain)
        _check_malformed(run, resource, count, lines)
    queries = load_queries(run)
    for name, state in queries.items():
        pl.collect_all([_plan_view(run, snapshot, crosswalk, name, read_query(run, name, state))])
    for resource, read in reads.items():
        reader.note_unreadable(resource, read.unreadable)
    excluded = find_excluded(reader)
    references = tuple(
        describe_table(name, run.output_path(STEP, name), run.work) for name in (*names, *queries)
    )
    if [extraction.digest for extraction in load_chain(run)] != [extraction.digest for extraction in chain]:
        raise ArtifactNotFoundError(
            "Another run replaced the export while this one read it.",
            place=latest.store.child(latest.prefix),
            remedy="Run the whole study again: clear the run's first task with all downstream tasks.",
        )
    return StepResult(
        references,
        {
            "malformed": _count(malformed),
            "snapshot": {
                "exports": len(chain),
                "hidden_patients": snapshot.hidden_patients.height,
                "merged_patients": crosswalk.links.height,
                "superseded": _count({resource: read.superseded for resource, read in reads.items()}),
                "duplicates": _count({resource: read.duplicates for resource, read in reads.items()}),
                "deleted": _count({resource: read.deleted for resource, read in reads.items()}),
            },
            "transaction_time": snapshot.transaction_time.isoformat(),
            "exclusions": excluded,
            "export_digest": _combine(snapshot.digest, queries, digest_lists(run, snapshot.transaction_time)),
        },
    )


def _read_views(reader: ExclusionReader, resource: str, views: list[CompiledView]) -> SnapshotRead:
    """Compute the views of a resource type, and in the same read what exclusions and redaction go by."""
    more = reader.views(resource)
    ages = AgeReader(reader.run, resource, [view.name for view in views])

    def build(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        planned = [
            _plan_view(reader.run, reader.snapshot, reader.crosswalk, view.name, frames[view.name])
            for view in views
        ]
        excluded = reader.plans(resource, {view.name: frames[view.name] for view in more})
        return [*planned, *excluded, *ages.plans(frames)]

    return reader.snapshot.execute([*views, *more, *ages.views], build)


def _combine(digest: str, queries: Mapping[str, SqlState], lists: str) -> str:
    """Return a digest of the export, of what the database gave and of lists of people to leave out."""
    if not queries and not lists:
        return digest
    parts = [digest, *(f"{name}={state.digest}" for name, state in sorted(queries.items())), lists]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _count(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _plan_view(
    run: Run, snapshot: Snapshot, crosswalk: Crosswalk, name: str, frame: pl.LazyFrame
) -> pl.LazyFrame:
    frame = hide_subjects(frame, run.plan.datasets[name].redaction.subject, snapshot.hidden_patients)
    frame = follow_merges(frame, run.plan.datasets[name], crosswalk)
    time_column = run.plan.datasets[name].time_column
    if time_column:
        frame = before(frame, time_column, run.interval.end)
    frame = label_records(run, run.plan.datasets[name], frame)
    return plan_write(frame, run.output_path(STEP, name), run.work)


def read_cleared(run: Run, name: str) -> pl.LazyFrame:
    """Return a view's rows without what is excluded: later steps reach them in this way alone."""
    frame = read_table(run.output_path(STEP, name), run.work)
    return clear_table(run, run.plan.datasets[name], frame)


def read_view(run: Run, name: str) -> pl.LazyFrame:
    """Return a view's rows, of the cohort's subjects where the study has a cohort."""
    frame = read_cleared(run, name)
    subject = run.plan.datasets[name].redaction.subject
    if run.plan.spec.cohort is None or not subject:
        return frame
    subjects = read_table(run.output_path("select_cohort", COHORT_DATASET), run.work)
    return restrict(frame, subjects, subject)


def _quarantine(run: Run, prefix: str, resource: str, malformed: pl.DataFrame) -> None:
    path = f"{prefix}/_quarantine/{resource}.parquet"
    if malformed.height:
        write_table(malformed.lazy(), resource, path, run.raw)
    else:
        run.raw.remove(path)  # of an earlier read


def _check_malformed(run: Run, resource: str, count: int, total: int) -> None:
    limit = run.plan.spec.quality.max_malformed
    # One bad line of a small file is no trend: the share counts from the second on.
    if count > max(1, limit * total):
        raise MalformedDataError(
            f"{count} of {total} {resource} lines are malformed; the study allows a share of {limit:g}.",
            place=f"_quarantine/{resource}.parquet beside the export",
            remedy="Ask the source's operator about the listed lines, or raise 'max_malformed'.",
        )
