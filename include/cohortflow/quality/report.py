"""What a validation found: counts and verdicts, never values of the data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from cohortflow.errors import ValidationFailedError
from cohortflow.quality.suite import Severity

__all__ = ["ExpectationResult", "Outcome", "ValidationReport", "check"]


class Outcome(StrEnum):
    """How one expectation came out."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """It could not be evaluated on these columns; counts as a failure."""
    NOT_APPLICABLE = "not_applicable"
    """The dataset was made without a column that it needs."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectationResult(_Frozen):
    """The result of one expectation.

    Attributes:
        type: Its type.
        columns: Columns that it is about; empty for the table as a whole.
        description: What is expected, in words.
        severity: What a failure means.
        outcome: How it came out.
        evaluated_rows: Rows that it looked at, those that its row condition left out not counted.
        unexpected_count: Rows that do not meet it.
        unexpected_percent: Share of these among the rows with a value, 0 to 100.
        observed_count: What was counted, for expectations on a count or a share.
        reason: Why it matters, from the suite, or why it does not apply.
    """

    type: str
    columns: tuple[str, ...]
    description: str
    severity: Severity
    outcome: Outcome
    evaluated_rows: int | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    observed_count: float | None = None
    reason: str = ""

    @property
    def broken(self) -> bool:
        """Whether it was evaluated, or tried, and not met."""
        return self.outcome in {Outcome.FAILED, Outcome.ERROR}


class ValidationReport(_Frozen):
    """The results of one suite on one dataset.

    Attributes:
        dataset: Name of the dataset.
        suite: Name of the suite.
        rows: Rows of the dataset.
        results: In the order of the suite.
        engine: Program and version that evaluated.
    """

    dataset: str
    suite: str
    rows: int
    results: tuple[ExpectationResult, ...]
    engine: str

    @property
    def success(self) -> bool:
        """Whether no critical expectation is broken."""
        return not self.broken(Severity.CRITICAL)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, with the verdict."""
        return {"success": self.success, **self.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ValidationReport:
        """Read what ``to_dict`` wrote."""
        return cls.model_validate({name: item for name, item in value.items() if name != "success"})

    def broken(self, severity: Severity) -> tuple[ExpectationResult, ...]:
        """Return the broken expectations of a severity."""
        return tuple(item for item in self.results if item.broken and item.severity is severity)

    def count(self, outcome: Outcome) -> int:
        """Return how many expectations came out so."""
        return sum(item.outcome is outcome for item in self.results)


def check(report: ValidationReport) -> None:
    """Stop a release whose data are not fit to publish.

    Raises:
        ValidationFailedError: A critical expectation is broken; the message names each with its columns.
    """
    broken = report.broken(Severity.CRITICAL)
    if not broken:
        return
    listed = "; ".join(_summarize(item) for item in broken)
    raise ValidationFailedError(
        f"{len(broken)} critical expectation{'s' if len(broken) > 1 else ''} of suite '{report.suite}' "
        f"failed: {listed}.",
        place=report.dataset,
        remedy="See the validation page, mend the source or the view, and run again. Nothing was published.",
    )


def _summarize(item: ExpectationResult) -> str:
    where = f" on {', '.join(item.columns)}" if item.columns else ""
    if item.outcome is Outcome.ERROR:
        return f"{item.type}{where} (could not be evaluated)"
    if item.unexpected_count is None:
        return f"{item.type}{where}"
    return f"{item.type}{where} ({item.unexpected_count} of {item.evaluated_rows} rows)"
