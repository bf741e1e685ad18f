"""The steps of a plan: each opens its inputs, runs a kernel, writes its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.clean import clean_work
from cohortflow.workflow.steps.extract import extract_bulk
from cohortflow.workflow.steps.extract_sql import extract_queries
from cohortflow.workflow.steps.land import land_view
from cohortflow.workflow.steps.map import map_view
from cohortflow.workflow.steps.redact import redact_view
from cohortflow.workflow.steps.release import write_release
from cohortflow.workflow.steps.risk import assess_risk
from cohortflow.workflow.steps.scan import scan_for_leaks
from cohortflow.workflow.steps.select import select_subjects
from cohortflow.workflow.steps.transform import transform_views
from cohortflow.workflow.steps.validate import validate_datasets
from cohortflow.workflow.steps.withdraw import withdraw_deleted

__all__ = ["STEPS"]

STEPS: Mapping[StepKind, Callable[[Run, str], StepResult]] = MappingProxyType(
    {
        StepKind.EXTRACT: extract_bulk,
        StepKind.EXTRACT_SQL: extract_queries,
        StepKind.WITHDRAW: withdraw_deleted,
        StepKind.TRANSFORM: transform_views,
        StepKind.SELECT: select_subjects,
        StepKind.MAP: map_view,
        StepKind.REDACT: redact_view,
        StepKind.ASSESS: assess_risk,
        StepKind.VALIDATE: validate_datasets,
        StepKind.SCAN: scan_for_leaks,
        StepKind.LAND: land_view,
        StepKind.RELEASE: write_release,
        StepKind.CLEAN: clean_work,
    }
)
"""What each kind of step does, given the run and the name of its dataset."""
