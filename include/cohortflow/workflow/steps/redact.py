"""Redact: what leaves the zones of patient data, column by column."""

from __future__ import annotations

from cohortflow.engine import read_table, write_table
from cohortflow.redaction import redact
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.map import STEP as MAP
from cohortflow.workflow.steps.transform import read_view

__all__ = ["redact_view"]

STEP = "redact"


def redact_view(run: Run, view: str) -> StepResult:
    """Carry out the redaction plan of a dataset."""
    dataset = run.plan.datasets[view]
    if view == COHORT_DATASET:
        frame = read_table(run.output_path("select_cohort", view), run.work)
    elif dataset.mappings:
        frame = read_table(run.output_path(MAP, view), run.work)
    else:
        frame = read_view(run, view)
    plan = dataset.redaction
    redacted = redact(frame, plan, run.key, as_of=run.interval.end.date())
    reference = write_table(redacted, view, run.output_path(STEP, view), run.work)
    return StepResult(
        (reference,),
        {
            "policy": plan.policy.name,
            "actions": {entry.column.name: str(entry.treatment) for entry in plan.columns},
            "overridden": [entry.column.name for entry in plan.columns if entry.overridden],
        },
    )
