"""OperationOutcome: what a server says went wrong, without the words that may name a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

__all__ = ["SEVERITIES", "Issue", "count_severities", "describe_issues", "parse_outcome"]

SEVERITIES = ("fatal", "error", "warning", "information")
"""Worst first (http://hl7.org/fhir/issue-severity); R5's ``success`` counts as information."""

# Codes are shown in messages and logs, so anything that does not look like a code is left out.
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of an OperationOutcome: its codes only, never ``diagnostics``, texts or expressions.

    Attributes:
        severity: One of ``SEVERITIES``.
        code: ``issue.code``, such as ``throttled``; empty when missing or malformed.
        details: The codes of ``issue.details.coding``, where vendors put their own.
    """

    severity: str
    code: str = ""
    details: tuple[str, ...] = ()


def parse_outcome(body: bytes | str) -> tuple[Issue, ...]:
    """Return the issues of an OperationOutcome in JSON; none when the body is anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(value, dict) or value.get("resourceType") != "OperationOutcome":
        return ()
    return tuple(_issue(item) for item in _items(value.get("issue")))


def describe_issues(issues: Iterable[Issue]) -> str:
    """Return the codes of some issues for a message, such as ``processing/59108``; empty for none."""
    texts = {"/".join(part for part in (issue.code, *issue.details) if part): None for issue in issues}
    return ", ".join(text for text in list(texts)[:5] if text)


def count_severities(issues: Iterable[Issue], warning_codes: frozenset[str] = frozenset()) -> dict[str, int]:
    """Count issues by severity.

    Args:
        issues: The issues.
        warning_codes: Vendor codes that count as warnings whatever severity they came with.
    """
    counts: dict[str, int] = {}
    for issue in issues:
        severity = "warning" if warning_codes.intersection(issue.details) else issue.severity
        counts[severity] = counts.get(severity, 0) + 1
    return counts


def _issue(item: Mapping[str, Any]) -> Issue:
    severity = item.get("severity")
    if severity == "success":
        severity = "information"
    details = item.get("details")
    codings = _items(details.get("coding")) if isinstance(details, dict) else ()
    codes = tuple(code for coding in codings if (code := _code(coding.get("code"))))
    # A severity that cannot be read must not pass as harmless.
    return Issue(severity if severity in SEVERITIES else "error", _code(item.get("code")), codes)


def _items(value: object) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
