"""Redact: what leaves the zones of patient data, column by column."""

from __future__ import annotations

from cohortflow.engine import read_table, write_table
from cohortflow.patterns import load_patterns
from cohortflow.redaction import RedactionPlan, redact
from cohortflow.redaction.scrub import (
    ColumnScrubber,
    TextScrubber,
    collect_identities,
    load_lexicon,
    plan_dates,
    scrubs_texts,
)
from cohortflow.workflow.ages import read_ages
from cohortflow.workflow.datasets import COHORT_DATASET
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.identifiers import collect_identifiers
from cohortflow.workflow.steps.map import STEP as MAP
from cohortflow.workflow.steps.transform import read_view

__all__ = ["redact_view"]

STEP = "redact"


def redact_view(run: Run, view: str) -> StepResult:
    """Carry out the redaction plan of a dataset."""
    dataset = run.plan.datasets[view]
    if view == COHORT_DATASET:
        frame = read_table(run.output_path("select_cohort", view), run.work)
    elif dataset.is_mapped:
        frame = read_table(run.output_path(MAP, view), run.work)
    else:
        frame = read_view(run, view)
    plan = dataset.redaction
    scrub = _make_scrubber(run, plan) if scrubs_texts(plan) else None
    ages = read_ages(run, view, frame)
    redacted = redact(frame, plan, run.key, as_of=run.interval.end.date(), scrub=scrub, ages=ages)
    reference = write_table(redacted, view, run.output_path(STEP, view), run.work)
    return StepResult(
        (reference,),
        {
            "policy": plan.policy.name,
            "actions": {entry.column.name: str(entry.treatment) for entry in plan.columns},
            "overridden": [entry.column.name for entry in plan.columns if entry.overridden],
            "overrides": plan.overrides,
            "capped_ages": [e.column.name for e in plan.columns if e.ages and e.output is not None],
            "scrubbed": {} if scrub is None else scrub.count(),
        },
    )


def _make_scrubber(run: Run, plan: RedactionPlan) -> ColumnScrubber:
    """Return what scrubs texts of all that the raw zone says of persons."""
    lexicon = load_lexicon(run.catalog)
    # The patterns of the leak gate: what it would stop at is taken out.
    patterns = load_patterns(run.catalog).select(kinds=("identifier", "contact", "date"))
    known = collect_identities(collect_identifiers(run), lexicon)
    dates = plan_dates(plan.policy, run.key, run.interval.end.date())
    return ColumnScrubber(TextScrubber(known, lexicon, patterns, dates), plan.subject)
