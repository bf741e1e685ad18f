"""Withdraw: what the source has deleted, and who is excluded now, leaves what was published before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.fhir.snapshot import TOMBSTONE_SCHEMA
from cohortflow.lake import Withdrawal, list_tables, list_withdrawals, load_tombstones, withdraw_rows
from cohortflow.redaction import Action, ColumnRedaction, redact
from cohortflow.workflow.exclusions import ExclusionReader, date_excluded
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.snapshot import keep_deletions, open_snapshot
from cohortflow.workflow.steps.extract import load_chain
from cohortflow.workflow.steps.land import name_application
from cohortflow.workflow.steps.release import amend_releases
from cohortflow.workflow.subjects import read_subjects

if TYPE_CHECKING:
    from cohortflow.workflow.datasets import DatasetPlan
    from cohortflow.workflow.steps.extract import Extraction

__all__ = ["withdraw_deleted"]

_TRACEABLE = frozenset({Action.HASH, Action.KEEP})


def withdraw_deleted(run: Run, _view: str = "") -> StepResult:
    """Keep the deletions that the exports report, and remove their rows from every published dataset.

    It comes before everything that could fail for the new data's sake. Rows go from intervals that
    landed before the deletion: all rows of a deleted Patient, and the rows of other deleted resources.
    Release documents follow, so that a reader who takes versions from them does not see the rows.
    Then go all rows of patients who are excluded by Consent, by a list or by a label of their Patient.
    Repeated, it removes what is left, which is nothing.

    Raises:
        MalformedDataError: A list of deletions, or a Consent, cannot be read.
        ConfigurationError: A list of protected people is missing.
        CommitConflictError: Other writers kept winning.
    """
    chain = load_chain(run)
    reported = keep_deletions(run, chain)
    tombstones = load_tombstones(run.raw, run.plan.spec.source.connection)
    # Datasets that the study has published and no longer plans cannot be traced: nothing says how.
    untraceable = [name for name in list_tables(run.datasets) if name not in run.plan.published]
    for name in run.plan.published:
        dataset = run.plan.datasets[name]
        subject = dataset.redaction.subject
        if subject and subject not in (entry.column.name for entry in _traceable(dataset)):
            untraceable.append(name)
    withdrawn = _withdraw(run, tombstones)
    excluded = _withdraw(run, _find_excluded(run, chain))
    return StepResult(
        facts={
            "deletions_reported": reported,
            "deletions_known": tombstones.height,
            "withdrawn": {
                name: withdrawn.get(name, 0) + excluded.get(name, 0) for name in withdrawn | excluded
            },
            "untraceable": sorted(untraceable),
        }
    )


def _find_excluded(run: Run, chain: Sequence[Extraction]) -> pl.DataFrame:
    """Return the patients who are excluded as of the export, dated like deletions."""
    if not run.plan.exclusions.concerns_patients:
        return TOMBSTONE_SCHEMA.to_frame()
    snapshot = open_snapshot(run, chain)
    exported = {resource for extraction in chain for resource in extraction.result.files}
    crosswalk = read_subjects(run, snapshot, exported)
    return date_excluded(ExclusionReader.of_chain(run, chain, snapshot, crosswalk))


def _withdraw(run: Run, tombstones: pl.DataFrame) -> dict[str, int]:
    """Remove the rows of what is gone from every published dataset; return how many, by dataset."""
    withdrawn: dict[str, int] = {}
    if tombstones.is_empty():
        return withdrawn
    for done, name in enumerate(run.plan.published):
        run.progress.update("withdraw", done, len(run.plan.published), "datasets")
        values = _find_values(run, run.plan.datasets[name], tombstones)
        rows = withdraw_rows(Withdrawal(name, name_application(run), values), run.datasets)
        withdrawn |= {name: sum(rows.values())} if rows else {}
        amend_releases(run.datasets, name, list_withdrawals(name, run.datasets))
    run.progress.update("withdraw", len(run.plan.published), len(run.plan.published), "datasets")
    return withdrawn


def _traceable(dataset: DatasetPlan) -> list[ColumnRedaction]:
    """Return the columns whose published values say which patient or which resource a row is of."""
    return [
        entry
        for entry in dataset.redaction.columns
        if entry.output is not None
        and entry.treatment.action in _TRACEABLE
        and (entry.column.name == dataset.redaction.subject or _is_key(entry))
    ]


def _is_key(entry: ColumnRedaction) -> bool:
    return entry.column.tags.get("cohortflow/role") == "key"


def _find_values(run: Run, dataset: DatasetPlan, tombstones: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return for each published column what the deleted ids have become in it, and when they went."""
    values = {}
    for entry in _traceable(dataset):
        of_patient = entry.column.name == dataset.redaction.subject
        resource = "Patient" if of_patient else entry.column.target
        deleted = tombstones.filter(pl.col("type") == resource)
        ids = deleted.lazy().select(pl.col("id").alias(entry.column.name))
        plan = dataclasses.replace(dataset.redaction, columns=(entry,), subject="")
        published = redact(ids, plan, run.key, as_of=run.interval.end.date()).collect().to_series()
        values[published.name] = deleted.select(published.alias("value"), "deleted_at")
    return values
