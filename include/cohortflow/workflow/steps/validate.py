"""Validate: expectations that every dataset must meet before any is published."""

from __future__ import annotations

from cohortflow.errors import ValidationFailedError
from cohortflow.quality import (
    Outcome,
    Severity,
    ValidationReport,
    check,
    render_validation_page,
    validate_dataset,
)
from cohortflow.workflow.run import Run, StepResult
from cohortflow.workflow.steps.risk import read_published

__all__ = ["validate_datasets"]


def validate_datasets(run: Run, _view: str = "") -> StepResult:
    """Check every redacted dataset against its suite; keep each result as JSON and as a page.

    All datasets are checked before the step fails, so that one run shows all faults. One step serves
    all of them because Great Expectations takes seconds to import and a fraction of one to check.

    Raises:
        ValidationFailedError: Critical expectations failed, in the datasets that it names.
    """
    validation, pages = {}, {}
    failures: list[ValidationFailedError] = []
    published = run.plan.published
    for done, view in enumerate(published):
        run.progress.update("validate", done, len(published), "datasets")
        suite = run.plan.datasets[view].suite
        report = validate_dataset(read_published(run, view), suite, view, catalog=run.catalog)
        pages[view] = _keep(run, view, report)
        validation[view] = {
            "passed": report.count(Outcome.PASSED),
            "warnings": len(report.broken(Severity.WARNING)),
            "critical": len(report.broken(Severity.CRITICAL)),
            "not_applicable": report.count(Outcome.NOT_APPLICABLE),
        }
        try:
            check(report)
        except ValidationFailedError as error:
            failures.append(error)
    run.progress.update("validate", len(published), len(published), "datasets")
    if failures:
        raise ValidationFailedError(
            " ".join(f"{failure.place}: {failure.message}" for failure in failures),
            place=run.datasets.child(run.report_path("")).rstrip("/"),
            remedy=failures[0].remedy,
        )
    return StepResult(facts={"validation": validation, "pages": pages})


def _keep(run: Run, view: str, report: ValidationReport) -> str:
    page = run.report_path(f"{view}.validation")
    run.datasets.write(f"{page}.json", report.model_dump_json(indent=1).encode())
    run.datasets.write(f"{page}.html", render_validation_page(report).encode())
    return run.datasets.child(f"{page}.html")
