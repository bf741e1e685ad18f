"""Withdraw: what the source has deleted leaves the datasets that were published before."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl

from cohortflow.lake import Withdrawal, list_tables, list_withdrawals, load_tombstones, withdraw_rows
from cohortflow.redaction import Action, ColumnRedaction, redact
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.snapshot import keep_deletions
from cohortflow.workflow.steps.extract import load_chain
from cohortflow.workflow.steps.land import name_application
from cohortflow.workflow.steps.release import amend_releases

if TYPE_CHECKING:
    from cohortflow.workflow.datasets import DatasetPlan

__all__ = ["withdraw_deleted"]

_TRACEABLE = frozenset({Action.HASH, Action.KEEP})


def withdraw_deleted(run: Run, _view: str = "") -> StepResult:
    """Keep the deletions that the exports report, and remove their rows from every published dataset.

    It comes before everything that could fail for the new data's sake. Rows go from intervals that
    landed before the deletion: all rows of a deleted Patient, and the rows of other deleted resources.
    Release documents follow, so that a reader who takes versions from them does not see the rows.
    Repeated, it removes what is left, which is nothing.

    Raises:
        MalformedDataError: A list of deletions cannot be read.
        CommitConflictError: Other writers kept winning.
    """
    reported = keep_deletions(run, load_chain(run))
    tombstones = load_tombstones(run.raw, run.plan.spec.source.connection)
    withdrawn: dict[str, int] = {}
    # Datasets that the study has published and no longer plans cannot be traced: nothing says how.
    untraceable = [name for name in list_tables(run.datasets) if name not in run.plan.published]
    for done, name in enumerate(run.plan.published):
        run.progress.update("withdraw", done, len(run.plan.published), "datasets")
        dataset = run.plan.datasets[name]
        subject = dataset.redaction.subject
        if subject and subject not in (entry.column.name for entry in _traceable(dataset)):
            untraceable.append(name)
        if tombstones.is_empty():
            continue
        values = _find_values(run, dataset, tombstones)
        rows = withdraw_rows(Withdrawal(name, name_application(run), values), run.datasets)
        withdrawn |= {name: sum(rows.values())} if rows else {}
        amend_releases(run.datasets, name, list_withdrawals(name, run.datasets))
    run.progress.update("withdraw", len(run.plan.published), len(run.plan.published), "datasets")
    return StepResult(
        facts={
            "deletions_reported": reported,
            "deletions_known": tombstones.height,
            "withdrawn": withdrawn,
            "untraceable": sorted(untraceable),
        }
    )


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
