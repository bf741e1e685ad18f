"""Cohort definitions: entry event, inclusion rules, index date, attrition."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cohortflow.cohort.definition import (
    STANDARD_TIME_COLUMNS,
    SUBJECT_COLUMNS,
    AbsentRule,
    AgeRule,
    AliveRule,
    CohortDefinition,
    EntryEvent,
    EventCriterion,
    InclusionRule,
    ObservedRule,
    SexRule,
    ValueRange,
    Window,
)

if TYPE_CHECKING:
    from cohortflow.cohort.attrition import SMALL_CELL, render_attrition, suppress_small_counts
    from cohortflow.cohort.events import CodeMatcher
    from cohortflow.cohort.filters import before, restrict
    from cohortflow.cohort.select import CohortSelection, age_expr, select_cohort

__all__ = [
    "SMALL_CELL",
    "STANDARD_TIME_COLUMNS",
    "SUBJECT_COLUMNS",
    "AbsentRule",
    "AgeRule",
    "AliveRule",
    "CodeMatcher",
    "CohortDefinition",
    "CohortSelection",
    "EntryEvent",
    "EventCriterion",
    "InclusionRule",
    "ObservedRule",
    "SexRule",
    "ValueRange",
    "Window",
    "age_expr",
    "before",
    "render_attrition",
    "restrict",
    "select_cohort",
    "suppress_small_counts",
]

# The kernels import Polars; studies are described, and DAG files parsed, without it.
_KERNELS = {
    "SMALL_CELL": "attrition",
    "CodeMatcher": "events",
    "CohortSelection": "select",
    "age_expr": "select",
    "before": "filters",
    "render_attrition": "attrition",
    "restrict": "filters",
    "select_cohort": "select",
    "suppress_small_counts": "attrition",
}


def __getattr__(name: str) -> object:
    if name in _KERNELS:
        return getattr(import_module(f"{__name__}.{_KERNELS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
