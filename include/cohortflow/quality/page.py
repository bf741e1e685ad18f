"""The validation page of a release: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Final

from cohortflow.quality.report import ExpectationResult, Outcome, ValidationReport
from cohortflow.quality.suite import Severity
from cohortflow.report import (
    Tone,
    callout,
    code,
    concat,
    count_noun,
    element,
    join,
    list_figures,
    render_page,
    render_table,
    soft,
)

__all__ = ["render_validation_page"]

_SIGNS: Final = {
    Outcome.PASSED: "\N{CHECK MARK} passed",
    Outcome.FAILED: "\N{MULTIPLICATION X} failed",
    Outcome.ERROR: "\N{MULTIPLICATION X} not evaluated",
    Outcome.NOT_APPLICABLE: "\N{EN DASH} not applicable",
}
_COLUMNS: Final = ("Column", "Expectation", "Severity", "Outcome", "Unexpected rows", "Note")


def render_validation_page(report: ValidationReport) -> str:
    """Return the page: verdict and counts first, then every expectation by column."""
    tone, verdict, explanation = _judge(report)
    rows = (_render_row(item) for item in sorted(report.results, key=lambda item: item.columns))
    return render_page(
        f"Validation of {report.dataset}: {verdict}",
        concat("Validation of ", code(report.dataset)),
        concat("Suite ", code(report.suite), f", {report.rows:,} rows, evaluated by {report.engine}."),
        [
            callout(tone, verdict, explanation),
            list_figures(_count_outcomes(report)),
            element("h2", "Expectations by column"),
            render_table(
                "The bar shows the share of rows that do not meet the expectation."
                " This page holds no values of the data.",
                _COLUMNS,
                rows,
                numbers={_COLUMNS.index("Unexpected rows")},
            ),
        ],
    )


def _judge(report: ValidationReport) -> tuple[Tone, str, str]:
    critical = len(report.broken(Severity.CRITICAL))
    warnings = len(report.broken(Severity.WARNING))
    if critical:
        return "failed", "Not fit to publish", f"{count_noun(critical, 'critical expectation')} failed."
    if warnings:
        return "warned", "Fit to publish, with warnings", f"{count_noun(warnings, 'expectation')} to look at."
    return "passed", "Fit to publish", "Every expectation that applies is met."


def _count_outcomes(report: ValidationReport) -> dict[str, str]:
    return {
        "Passed": str(report.count(Outcome.PASSED)),
        "Failed, critical": str(len(report.broken(Severity.CRITICAL))),
        "Failed, warning": str(len(report.broken(Severity.WARNING))),
        "Failed, info": str(len(report.broken(Severity.INFO))),
        "Not applicable": str(report.count(Outcome.NOT_APPLICABLE)),
    }


def _render_row(item: ExpectationResult) -> tuple[str, ...]:
    tone = _tone(item)
    return (
        join(map(code, item.columns), ", ") or "whole table",
        concat(item.description, soft(code(item.type))),
        item.severity.value,
        element("strong", _SIGNS[item.outcome], class_=tone),
        element("span", _render_count(item), class_=tone),
        item.reason,
    )


def _tone(item: ExpectationResult) -> Tone:
    if item.broken:
        return "failed" if item.severity is Severity.CRITICAL else "warned"
    return "passed" if item.outcome is Outcome.PASSED else "idle"


def _render_count(item: ExpectationResult) -> str:
    if item.unexpected_count is None or item.evaluated_rows is None:
        return "" if item.observed_count is None else f"counted {item.observed_count:,.6g}"
    text = f"{item.unexpected_count:,} of {item.evaluated_rows:,}"
    if not item.unexpected_count:
        return text
    share = 100 * item.unexpected_count / item.evaluated_rows
    # A share that is not nothing stays visible.
    bar = element("span", style=f"width: {max(share, 1):.1f}%")
    return concat(f"{text} ({_show_share(share)})", element("span", bar, class_="share", aria_hidden="true"))


def _show_share(share: float) -> str:
    least = 0.1
    return f"{share:.1f}%" if share >= least else f"under {least}%"
