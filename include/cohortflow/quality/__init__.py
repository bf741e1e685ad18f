"""Great Expectations suites that gate a release, and their reports.

The order of use: ``load_suite``, ``bind_suite`` (both before any data are read), ``validate_dataset``,
``render_validation_page``, ``check``. Great Expectations and Polars are imported by
``validate_dataset`` only.
"""

from cohortflow.quality.page import render_validation_page
from cohortflow.quality.report import ExpectationResult, Outcome, ValidationReport, check
from cohortflow.quality.suite import (
    BoundSuite,
    Expectation,
    ExpectationSuite,
    Severity,
    bind_suite,
    load_suite,
)
from cohortflow.quality.validate import validate_dataset

__all__ = [
    "BoundSuite",
    "Expectation",
    "ExpectationResult",
    "ExpectationSuite",
    "Outcome",
    "Severity",
    "ValidationReport",
    "bind_suite",
    "check",
    "load_suite",
    "render_validation_page",
    "validate_dataset",
]
