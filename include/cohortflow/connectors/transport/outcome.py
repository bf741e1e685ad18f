"""OperationOutcome: what a server says went wrong, without the words that may name a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cohortflow.connectors.profiles.server import CodeAction
from cohortflow.fhir.elements import is_resource

__all__ = [
    "FILTERS",
    "SEVERITIES",
    "Issue",
    "describe_issues",
    "find_action",
    "ignored_filters",
    "judge_severity",
    "parse_outcome",
    "says_too_recent",
]

SEVERITIES = ("fatal", "error", "warning", "information")
"""Worst first (http://hl7.org/fhir/issue-severity); R5's ``success`` counts as information."""

# Codes are shown in messages and logs, so anything that does not look like a code is left out.
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")

FILTERS = ("_type", "_typeFilter", "_since", "_until", "patient")
"""Parameters of a kick-off that choose resources: a server that ignores one exports something else."""

# Texts are searched for these words only, and nothing of them is kept.
_FILTER_WORDS = {name: re.compile(rf"(?<![\w.]){name}(?!\w)") for name in FILTERS}
# "patient" is a word like any other, so it has to be called a parameter or stand in quotes.
_FILTER_WORDS["patient"] = re.compile(r"(?:parameter:?\s+|[\"'`])patient(?!\w)|^patient$")
_IGNORED = re.compile(r"ignor|not supported|unsupported|not recogni[sz]ed|unknown param", re.IGNORECASE)
_TOO_RECENT = re.compile(rb"too recently", re.IGNORECASE)
_EXPRESSION_TYPE = re.compile(r"([A-Z][A-Za-z]{1,63})(?:$|[.\[])")


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of an OperationOutcome: its codes only, never ``diagnostics``, texts or expressions.

    Attributes:
        severity: One of ``SEVERITIES``.
        code: ``issue.code``, such as ``throttled``; empty when missing or malformed.
        details: The codes of ``issue.details.coding``, where vendors put their own. The systems are
            left out: Epic's differ from site to site.
        type: Resource type that ``expression`` or ``location`` begins with; empty where none does.
        ignored: Those of ``FILTERS`` that the issue says the server does not heed.
    """

    severity: str
    code: str = ""
    details: tuple[str, ...] = ()
    type: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The codes for a message, such as ``processing/59108``; empty where there are none."""
        return "/".join(part for part in (self.code, *self.details) if part)


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
    return ", ".join(list({issue.label: None for issue in issues if issue.label})[:5])


def find_action(issue: Issue, codes: Mapping[str, CodeAction]) -> CodeAction | None:
    """Return what a profile's code table says of an issue; ``None`` where it says nothing."""
    return next((codes[code] for code in (*issue.details, issue.code) if code in codes), None)


def judge_severity(issue: Issue, codes: Mapping[str, CodeAction]) -> str:
    """Return an issue's severity, as the profile's code table corrects it."""
    match find_action(issue, codes):
        case None:
            return issue.severity
        case "ignore":
            return "information"
        case "warn":
            return "warning"
        case _:
            return "fatal" if issue.severity == "fatal" else "error"


def ignored_filters(
    issues: Iterable[Issue], requested: Iterable[str], codes: Mapping[str, CodeAction]
) -> tuple[str, ...]:
    """Return what shows that a part of a request was not heeded.

    Args:
        issues: What the server said.
        requested: Names of the parameters of the request.
        codes: The profile's code table: its code ``fail`` tells of any parameter.

    Returns:
        Vendor codes and names of parameters; empty where all is well.
    """
    sent = set(requested)
    found: dict[str, None] = {}
    for issue in issues:
        if find_action(issue, codes) == "fail":
            found[issue.label] = None
        found.update({name: None for name in issue.ignored if name in sent})
    return tuple(found)


def says_too_recent(body: bytes) -> bool:
    """Tell whether a refusal says that this Group was requested too recently, in whatever form."""
    return _TOO_RECENT.search(body) is not None


def _issue(item: Mapping[str, Any]) -> Issue:
    severity = item.get("severity")
    if severity == "success":
        severity = "information"
    details = item.get("details")
    details = details if isinstance(details, dict) else {}
    codes = tuple(code for coding in _items(details.get("coding")) if (code := _code(coding.get("code"))))
    code = _code(item.get("code"))
    paths = [*_texts(item.get("expression")), *_texts(item.get("location"))]
    # Only FHIR's own names pass: anything else in this place may be somebody's.
    kinds = [match[1] for path in paths if (match := _EXPRESSION_TYPE.match(path)) and is_resource(match[1])]
    words = " ".join([*_texts([item.get("diagnostics"), details.get("text")]), *paths])
    unheeded = code == "not-supported" or _IGNORED.search(words)
    ignored = tuple(name for name, word in _FILTER_WORDS.items() if word.search(words)) if unheeded else ()
    # A severity that cannot be read must not pass as harmless.
    return Issue(
        severity if severity in SEVERITIES else "error", code, codes, kinds[0] if kinds else "", ignored
    )


def _items(value: object) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
