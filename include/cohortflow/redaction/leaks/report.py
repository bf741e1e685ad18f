"""What a leak scan found: column, rule and count, never a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cohortflow.errors import LeakError

__all__ = ["Leak", "LeakReport", "check_leaks"]

_SHOWN = 12


@dataclass(frozen=True, slots=True, order=True)
class Leak:
    """One rule that one column or document breaks.

    Attributes:
        place: ``<table>.<column>``, or the name of a document.
        rule: What was found there.
        count: In how many cells; in a document, how many different terms.
    """

    place: str
    rule: str
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return {"place": self.place, "rule": self.rule, "count": self.count}


@dataclass(frozen=True, slots=True)
class LeakReport:
    """The outcome of a scan.

    Attributes:
        leaks: What was found, by place and rule.
        identifiers: How many different identifying facts of the source were searched for.
        tables: How many tables were searched.
        columns: How many of their columns.
        cells: How many of their cells, nulls included.
        values: How many different texts in these were searched for identifiers.
        candidates: How many different values of a column hold something that the column may not hold,
            before it was asked whose row it is.
        documents: Names of the documents that were searched.
        decided: By column, what the study lets out of it with a written reason, and was not counted there.
    """

    leaks: tuple[Leak, ...] = ()
    identifiers: int = 0
    tables: int = 0
    columns: int = 0
    cells: int = 0
    values: int = 0
    candidates: int = 0
    documents: tuple[str, ...] = ()
    decided: Mapping[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.leaks

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form for the documents of a release."""
        return {
            "clean": self.clean,
            "leaks": [leak.to_dict() for leak in self.leaks],
            "identifiers": self.identifiers,
            "tables": self.tables,
            "columns": self.columns,
            "cells": self.cells,
            "values": self.values,
            "candidates": self.candidates,
            "documents": list(self.documents),
            "decided": dict(self.decided),
        }


def check_leaks(report: LeakReport, *, place: str) -> None:
    """Stop what would publish a leak.

    Args:
        report: The outcome.
        place: Where the whole report is, for the message.

    Raises:
        LeakError: Something was found. It names columns, rules and counts.
    """
    if report.clean:
        return
    shown = "; ".join(f"{leak.place}: {leak.rule} ({leak.count:,})" for leak in report.leaks[:_SHOWN])
    more = f"; and {len(report.leaks) - _SHOWN} more" if len(report.leaks) > _SHOWN else ""
    raise LeakError(
        f"Identifiers of the source are left, and nothing was published. {shown}{more}.",
        place=place,
        remedy="Drop or mask these columns in the redaction policy or by an override of the study, then run "
        "again. The page 'The leak gate' of the documentation says what each rule means.",
    )
