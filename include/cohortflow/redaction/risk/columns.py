"""Columns of a table of subjects, described before any data are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Precision", "SubjectColumn"]

Precision = Literal["exact", "month", "year"]
"""How closely others can know a value: a date that was moved by an unknown number of days, hardly."""


@dataclass(frozen=True, slots=True)
class SubjectColumn:
    """What others may know of a subject, or must not learn.

    Attributes:
        name: Name in the table of subjects and in reports, such as ``patient.gender``.
        dataset: Dataset that it comes from.
        column: Its column as published; empty for the number of the subject's rows.
        precision: How closely a date is compared.
        many: Whether a subject may have several rows: compared is the set of their different values.
    """

    name: str
    dataset: str
    column: str
    precision: Precision = "exact"
    many: bool = False

    @property
    def compared(self) -> str:
        """How closely it is compared, for people."""
        if self.precision == "exact":
            return "as published"
        return f"{self.precision}, as dates are moved by an unknown number of days"
