"""Validate: expectations that a dataset must meet before anything is published."""

from __future__ import annotations

from cohortflow.engine import read_table
from cohortflow.quality import Outcome, Severity, check, render_validation_page, validate_dataset
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.redact import STEP as REDACT

__all__ = ["validate_view"]


def validate_view(run: Run, view: str) -> StepResult:
    """Check a redacted dataset against its suite; keep the result as JSON and as a page.

    Raises:
        ValidationFailedError: A critical expectation failed.
    """
    dataset = run.plan.datasets[view]
    frame = read_table(run.output_path(REDACT, view), run.work)
    report = validate_dataset(frame, dataset.suite, view)
    page = f"_reports/{run.interval.key}/{view}.validation"
    run.datasets.write(f"{page}.json", report.model_dump_json(indent=1).encode())
    run.datasets.write(f"{page}.html", render_validation_page(report).encode())
    check(report)
    summary = {
        "passed": report.count(Outcome.PASSED),
        "warnings": len(report.broken(Severity.WARNING)),
        "critical": len(report.broken(Severity.CRITICAL)),
        "not_applicable": report.count(Outcome.NOT_APPLICABLE),
    }
    return StepResult(facts={"validation": summary, "report": run.datasets.child(f"{page}.html")})
