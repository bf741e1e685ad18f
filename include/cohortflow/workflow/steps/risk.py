"""Assess: how many subjects share what others may know of them, and what is suppressed where too few do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from cohortflow.engine import read_table, write_table
from cohortflow.errors import ReidentificationRiskError
from cohortflow.model import SMALL_CELL
from cohortflow.redaction.risk import (
    SUBJECT,
    RiskMeasure,
    RiskReport,
    Suppression,
    Verdict,
    apply_changes,
    find_changes,
    gather_subjects,
    measure_risk,
    meet_demand,
    publish_risk,
    render_risk_page,
    show_count,
)
from cohortflow.workflow.risk_plan import published_subject
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.redact import STEP as REDACT

if TYPE_CHECKING:
    from cohortflow.model import DatasetRef
    from cohortflow.workflow.risk_plan import RiskPlan

__all__ = ["assess_risk", "load_removed", "read_published"]

STEP = "assess_risk"
_EXACT = f"{STEP}/measures.json"
"""In the work zone: counts that are too small to be shown."""


def assess_risk(run: Run, _view: str = "") -> StepResult:
    """Measure the risk of all datasets together; suppress or refuse what misses the demand.

    What is suppressed goes into new tables in the work zone; the redacted ones stay, so that a repetition
    measures the same. The report is kept as JSON and as a page among the study's reports, also where the
    step then fails. Exact counts stay in the work zone.

    Raises:
        ReidentificationRiskError: The demand is missed, and the study does not say ``suppress``, or
            nobody would be left.
    """
    plan = run.plan.risk
    run.work.delete(STEP)  # of an earlier attempt
    if not plan.quasi_identifiers:
        return _finish(run, _describe(run, "unknown"), {"removed": 0})
    subjects = _gather(run)
    before = _measure(subjects, plan)
    failures = before.find_failures(plan.demand)
    suppression = _suppress(subjects, plan) if failures and plan.suppress else None
    if suppression is None or suppression.subjects.is_empty():
        verdict: Verdict = "missed" if failures else _praise(plan)
        result = _finish(run, _describe(run, verdict, before, before, failures=failures), {"removed": 0})
        if failures:
            raise _refuse(run, failures, nobody=suppression is not None)
        return result
    names = [column.name for column in plan.quasi_identifiers]
    changes = find_changes(subjects, suppression.subjects, names)
    after = _measure(suppression.subjects, plan)
    if after.find_failures(plan.demand):  # suppression would be at fault: never publish on trust
        _finish(run, _describe(run, "missed", before, before, failures=failures), {"removed": 0})
        raise _refuse(run, failures, nobody=False)
    written = _apply(run, changes, whole=after.subjects == before.subjects)
    report = _describe(run, "suppressed", before, after, changes=changes)
    return _finish(run, report, {"removed": before.subjects - after.subjects}, written)


def read_published(run: Run, view: str) -> pl.LazyFrame:
    """Return a dataset as it is published: redacted, and suppressed where the risk was too great."""
    path = run.output_path(STEP, view)
    return read_table(path if run.work.size(path) is not None else run.output_path(REDACT, view), run.work)


def load_removed(run: Run) -> int:
    """Return how many subjects were left out; exact, so not for publication.

    Raises:
        ArtifactNotFoundError: The risk was not assessed.
    """
    return int(run.load_json(_EXACT, "The assessment of the risk is missing")["removed"])


def _gather(run: Run) -> pl.DataFrame:
    datasets, subjects = {}, {}
    for name in dict.fromkeys(column.dataset for column in run.plan.risk.columns):
        datasets[name] = read_table(run.output_path(REDACT, name), run.work)
        subjects[name] = published_subject(run.plan.datasets[name])
    return gather_subjects(datasets, subjects, run.plan.risk.columns).collect(engine="streaming")


def _measure(subjects: pl.DataFrame, plan: RiskPlan) -> RiskMeasure:
    return measure_risk(
        subjects.lazy(),
        [column.name for column in plan.quasi_identifiers],
        [column.name for column in plan.sensitive],
        demand=plan.demand,
        population=None if plan.population is None else _read_population(plan.population),
        small_cell=SMALL_CELL,
    )


def _read_population(path: Path) -> pl.LazyFrame:
    return pl.scan_csv(path, infer_schema=False)


def _suppress(subjects: pl.DataFrame, plan: RiskPlan) -> Suppression:
    return meet_demand(
        subjects.lazy(),
        [column.name for column in plan.quasi_identifiers],
        [column.name for column in plan.sensitive],
        plan.demand,
        suppressible=plan.suppressible,
    )


def _apply(run: Run, changes: pl.DataFrame, *, whole: bool) -> tuple[DatasetRef, ...]:
    """Write the datasets that change: those with suppressed values, and all where subjects are left out."""
    touched = {
        column.name: column for column in run.plan.risk.quasi_identifiers if bool(changes[column.name].any())
    }
    written = []
    for done, view in enumerate(run.plan.published):
        run.progress.update(STEP, done, len(run.plan.published), "datasets")
        columns = {name: column.column for name, column in touched.items() if column.dataset == view}
        subject = published_subject(run.plan.datasets[view])
        if not subject or (whole and not columns):
            continue
        frame = read_table(run.output_path(REDACT, view), run.work)
        changed = apply_changes(frame, subject, changes.select(SUBJECT, *columns), columns)
        written.append(write_table(changed, view, run.output_path(STEP, view), run.work))
    run.progress.update(STEP, len(run.plan.published), len(run.plan.published), "datasets")
    return tuple(written)


def _praise(plan: RiskPlan) -> Verdict:
    demand = plan.demand
    return "measured" if demand.k == 1 and demand.l is None and demand.t is None else "met"


def _describe(
    run: Run,
    verdict: Verdict,
    before: RiskMeasure | None = None,
    after: RiskMeasure | None = None,
    *,
    failures: tuple[str, ...] = (),
    changes: pl.DataFrame | None = None,
) -> RiskReport:
    plan = run.plan.risk
    shown_before, shown_after, columns, removed = (
        publish_risk(before, after, plan.quasi_identifiers, changes)
        if before is not None and after is not None
        else (None, None, (), show_count(0))
    )
    return RiskReport(
        study=run.plan.name,
        title=run.plan.title,
        environment=run.plan.environment.environment,
        policy=run.plan.policy.name,
        interval=run.interval.key,
        verdict=verdict,
        failures=failures,
        demand=plan.demand.describe(),
        quasi_identifiers=columns,
        excluded=plan.excluded,
        unpublished=plan.unpublished,
        population=plan.population_name,
        small_cell=SMALL_CELL,
        removed=removed,
        before=shown_before,
        after=shown_after,
    )


def _finish(
    run: Run, report: RiskReport, exact: Mapping[str, Any], written: tuple[DatasetRef, ...] = ()
) -> StepResult:
    """Keep the report and the exact counts, each in its zone."""
    run.work.write(_EXACT, json.dumps(exact).encode())
    path = run.report_path("risk")
    run.datasets.write(f"{path}.json", json.dumps(report.to_dict(), indent=1).encode())
    run.datasets.write(f"{path}.html", render_risk_page(report).encode())
    page = run.datasets.child(f"{path}.html")
    return StepResult(written, {"risk": {**report.to_dict(), "page": page}, "page": page})


def _refuse(run: Run, failures: tuple[str, ...], *, nobody: bool) -> ReidentificationRiskError:
    plan = run.plan.risk
    demanded = ", ".join(f"{name} = {value}" for name, value in plan.demand.describe().items())
    environment = run.plan.environment
    text = f"Demanded is {demanded}"
    if environment.minimum_k > run.plan.spec.risk.k:
        text += f" (k by environment '{environment.environment}')"
    text += f"; missed is {', '.join(failures)} over {len(plan.quasi_identifiers)} quasi-identifiers."
    if nobody:
        text += " Suppression would leave nobody."
    remedy = "Widen the cohort, publish fewer columns (redaction.overrides)"
    remedy += "." if nobody else ", or set 'risk.on_failure: suppress'."
    return ReidentificationRiskError(
        text, place=run.datasets.child(f"{run.report_path('risk')}.html"), remedy=remedy
    )
