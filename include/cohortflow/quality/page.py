"""The validation page of a release: one HTML file that needs nothing else."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from importlib import resources
from itertools import groupby
from string import Template
from typing import Final

from cohortflow.quality.report import ExpectationResult, Outcome, ValidationReport
from cohortflow.quality.suite import Severity

__all__ = ["render_validation_page"]

_SIGNS: Final = {
    Outcome.PASSED: "\N{CHECK MARK} passed",
    Outcome.FAILED: "\N{MULTIPLICATION X} failed",
    Outcome.ERROR: "\N{MULTIPLICATION X} not evaluated",
    Outcome.NOT_APPLICABLE: "\N{EN DASH} not applicable",
}


def render_validation_page(report: ValidationReport) -> str:
    """Return the page: verdict and counts first, then every expectation by column."""
    tone, verdict, explanation = _judge(report)
    return _template().substitute(
        dataset=escape(report.dataset),
        suite=escape(report.suite),
        rows=f"{report.rows:,}",
        engine=escape(report.engine),
        tone=tone,
        verdict=verdict,
        explanation=explanation,
        summary="\n".join(_render_summary(report)),
        body="\n".join(_render_groups(report)),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    return Template(resources.files("cohortflow.quality").joinpath("page.html").read_text(encoding="utf-8"))


def _judge(report: ValidationReport) -> tuple[str, str, str]:
    critical = len(report.broken(Severity.CRITICAL))
    warnings = len(report.broken(Severity.WARNING))
    if critical:
        return "failed", "Not fit to publish", f"{_count(critical, 'critical expectation')} failed."
    if warnings:
        return "warned", "Fit to publish, with warnings", f"{_count(warnings, 'expectation')} to look at."
    return "passed", "Fit to publish", "Every expectation that applies is met."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _render_summary(report: ValidationReport) -> list[str]:
    figures = {
        "Passed": report.count(Outcome.PASSED),
        "Failed, critical": len(report.broken(Severity.CRITICAL)),
        "Failed, warning": len(report.broken(Severity.WARNING)),
        "Failed, info": len(report.broken(Severity.INFO)),
        "Not applicable": report.count(Outcome.NOT_APPLICABLE),
    }
    return [f"<div><dt>{name}</dt><dd>{number}</dd></div>" for name, number in figures.items()]


def _render_groups(report: ValidationReport) -> list[str]:
    ordered = sorted(report.results, key=_columns)
    return [_render_group(columns, list(items)) for columns, items in groupby(ordered, _columns)]


def _columns(item: ExpectationResult) -> tuple[str, ...]:
    return item.columns


def _render_group(columns: tuple[str, ...], items: list[ExpectationResult]) -> str:
    heading = ", ".join(f"<code>{escape(name)}</code>" for name in columns) or "whole table"
    span = f' rowspan="{len(items)}"' if len(items) > 1 else ""
    first = f'<th scope="rowgroup"{span}>{heading}</th>'
    rows = [f"<tr>\n{first}\n{_render_cells(items[0])}\n</tr>"]
    rows += [f"<tr>\n{_render_cells(item)}\n</tr>" for item in items[1:]]
    return "<tbody>\n" + "\n".join(rows) + "\n</tbody>"


def _render_cells(item: ExpectationResult) -> str:
    tone = _tone(item)
    return "\n".join(
        [
            f"<td>{escape(item.description)}<br><code class='soft'>{escape(item.type)}</code></td>",
            f"<td>{item.severity}</td>",
            f'<td class="outcome {tone}">{_SIGNS[item.outcome]}</td>',
            f'<td class="number {tone}">{_render_count(item)}</td>',
            f"<td>{escape(item.reason)}</td>",
        ]
    )


def _tone(item: ExpectationResult) -> str:
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
    bar = f'<span class="bar" aria-hidden="true"><span style="width: {max(share, 1):.1f}%"></span></span>'
    return f"{text} ({_show_share(share)}){bar}"


def _show_share(share: float) -> str:
    least = 0.1
    return f"{share:.1f}%" if share >= least else f"under {least}%"
