"""Transform: the export's resources to tables, one per view."""

from __future__ import annotations

from collections import defaultdict

import polars as pl

from cohortflow.cohort import before, restrict
from cohortflow.engine import describe_table, plan_write, read_table, write_table
from cohortflow.errors import ArtifactNotFoundError, MalformedDataError
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import CompiledView, compile_view
from cohortflow.workflow.datasets import COHORT_DATASET, views_to_read
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.extract import load_extraction

__all__ = ["read_view", "transform_views"]

STEP = "transform"


def transform_views(run: Run, _view: str = "") -> StepResult:
    """Compute every view from the raw files; views of one resource share one read of them.

    Rows dated at or after the interval's end are left out. Malformed lines are listed by file and
    line in the raw zone's ``_quarantine`` and counted.

    Raises:
        ArtifactNotFoundError: Another run replaced the export meanwhile.
        MalformedDataError: A resource type has a larger share of malformed lines than the study allows.
    """
    extraction = load_extraction(run)
    names = views_to_read(run.plan.spec)
    by_resource: dict[str, list[CompiledView]] = defaultdict(list)
    for name in names:
        view = compile_view(run.catalog.load("views", name))
        by_resource[view.resource].append(view)
    malformed: dict[str, int] = {}
    for done, (resource, views) in enumerate(sorted(by_resource.items())):
        run.progress.update(STEP, done, len(by_resource), "resource types")
        read = read_views(views, extraction.uris(resource), storage_options=run.raw.polars_options)
        _, bad = read.execute(lambda frames: [_plan_view(run, name, frame) for name, frame in frames.items()])
        malformed[resource] = _quarantine(run, extraction.export.prefix, resource, bad)
    run.progress.update(STEP, len(by_resource), len(by_resource), "resource types")
    for resource, count in malformed.items():
        _check_malformed(run, resource, count, extraction.result.resources.get(resource, 0))
    references = tuple(describe_table(name, run.output_path(STEP, name), run.work) for name in names)
    if load_extraction(run).digest != extraction.digest:
        raise ArtifactNotFoundError(
            "Another run replaced the export while this one read it.",
            place=extraction.export.store.child(extraction.export.prefix),
            remedy="Run the whole study again: clear the run's first task with all downstream tasks.",
        )
    return StepResult(
        references,
        {
            "malformed": {name: count for name, count in malformed.items() if count},
            "transaction_time": extraction.result.transaction_time,
            "export_digest": extraction.digest,
        },
    )


def _plan_view(run: Run, name: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    time_column = run.plan.datasets[name].time_column
    if time_column:
        frame = before(frame, time_column, run.interval.end)
    return plan_write(frame, run.output_path(STEP, name), run.work)


def read_view(run: Run, name: str) -> pl.LazyFrame:
    """Return a view's rows, of the cohort's subjects where the study has a cohort."""
    frame = read_table(run.output_path(STEP, name), run.work)
    subject = run.plan.datasets[name].redaction.subject
    if run.plan.spec.cohort is None or not subject:
        return frame
    subjects = read_table(run.output_path("select_cohort", COHORT_DATASET), run.work)
    return restrict(frame, subjects, subject)


def _quarantine(run: Run, prefix: str, resource: str, malformed: pl.DataFrame) -> int:
    path = f"{prefix}/_quarantine/{resource}.parquet"
    if malformed.height:
        write_table(malformed.lazy(), resource, path, run.raw)
    else:
        run.raw.remove(path)  # of an earlier read
    return malformed.height


def _check_malformed(run: Run, resource: str, count: int, total: int) -> None:
    limit = run.plan.spec.quality.max_malformed
    # One bad line of a small file is no trend: the share counts from the second on.
    if count > max(1, limit * total):
        raise MalformedDataError(
            f"{count} of {total} {resource} lines are malformed; the study allows a share of {limit:g}.",
            place=f"_quarantine/{resource}.parquet beside the export",
            remedy="Ask the source's operator about the listed lines, or raise 'max_malformed'.",
        )
