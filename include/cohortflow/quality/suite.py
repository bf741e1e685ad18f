"""Expectation suites of the catalog, checked before any data are read.

A suite is a file ``catalog/expectations/<name>.json`` in the form that Great Expectations itself writes:
``name`` and ``expectations``, each with ``type``, ``kwargs``, ``severity`` and ``meta``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.patterns import pattern_names
from cohortflow.quality.conditions import Condition, parse_condition
from cohortflow.quality.expectation_types import EXPECTATION_TYPES, MATCH_PATTERN, describe

__all__ = [
    "BoundSuite",
    "Expectation",
    "ExpectationSuite",
    "Severity",
    "bind_suite",
    "load_suite",
]


class Severity(StrEnum):
    """What a failure means."""

    CRITICAL = "critical"
    """Nothing is published."""
    WARNING = "warning"
    """It is published, and the report says so."""
    INFO = "info"
    """Good to know."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Arguments(_Frozen):
    """The types of all arguments, whatever the expectation."""

    column: str | None = None
    column_A: str | None = None  # noqa: N815 - Great Expectations calls it so
    column_B: str | None = None  # noqa: N815
    column_list: list[str] | None = Field(default=None, min_length=2)
    value_set: list[str | int | float | bool] | None = None
    value: int | None = None
    regex: re.Pattern[str] | None = None
    pattern: str | None = None
    min_value: int | float | str | None = None
    max_value: int | float | str | None = None
    strict_min: bool = False
    strict_max: bool = False
    or_equal: bool = False
    mostly: float = Field(default=1, ge=0, le=1)
    ignore_row_if: (
        Literal[
            "both_values_are_missing",
            "either_value_is_missing",
            "all_values_are_missing",
            "any_value_is_missing",
            "never",
        ]
        | None
    ) = None
    row_condition: Condition | None = Field(default=None, discriminator="type")


class Expectation(_Frozen):
    """One expectation.

    Attributes:
        type: A name of ``EXPECTATION_TYPES``.
        kwargs: Its arguments; a ``row_condition`` has Great Expectations' object form.
        severity: What a failure means.
        meta: Free notes; ``meta.reason`` is shown in the report.
    """

    type: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    severity: Severity = Severity.CRITICAL
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        if value not in EXPECTATION_TYPES:
            near = difflib.get_close_matches(value, EXPECTATION_TYPES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(EXPECTATION_TYPES)}"
            msg = f"unknown expectation type '{value}'; {hint}"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _check_arguments(self) -> Expectation:
        known = EXPECTATION_TYPES[self.type]
        for name in self.kwargs:
            if name not in known.arguments:
                near = difflib.get_close_matches(name, known.arguments, n=1)
                hint = (
                    f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known.arguments))}"
                )
                msg = f"'{self.type}' takes no argument '{name}'; {hint}"
                raise ValueError(msg)
        missing = sorted(known.required - self.kwargs.keys())
        if missing:
            msg = f"'{self.type}' needs {', '.join(missing)}"
            raise ValueError(msg)
        _Arguments.model_validate(self.kwargs)
        return self

    @property
    def condition(self) -> Condition | None:
        """Rows that it is about; ``None`` for all."""
        value = self.kwargs.get("row_condition")
        return None if value is None else parse_condition(value)

    @property
    def pattern(self) -> str | None:
        """Pattern of the catalog that it names."""
        return str(self.kwargs["pattern"]) if self.type == MATCH_PATTERN else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it is about, in the order of its arguments; empty for the table as a whole."""
        named: list[str] = []
        for argument in EXPECTATION_TYPES[self.type].column_arguments:
            value = self.kwargs[argument]
            named.extend(value if isinstance(value, list) else [value])
        return tuple(named)

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns that it reads, those of its row condition included."""
        conditional = self.condition.columns if self.condition else ()
        return tuple(dict.fromkeys((*self.columns, *conditional)))

    @property
    def description(self) -> str:
        """What is expected, in words."""
        text = describe(self.type, self.kwargs)
        return f"{text}, where {self.condition}" if self.condition else text


class ExpectationSuite(_Frozen):
    """A suite.

    Attributes:
        name: Name in the catalog.
        expectations: In the order of the report.
        meta: Free notes.
    """

    name: str
    expectations: tuple[Expectation, ...]
    meta: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BoundSuite:
    """A suite with the columns of one dataset.

    Attributes:
        suite: The suite.
        columns: The dataset's columns.
        missing: For each expectation, in order, the columns that the dataset was made without: empty
            where it applies.
    """

    suite: ExpectationSuite
    columns: tuple[str, ...]
    missing: tuple[tuple[str, ...], ...]

    @property
    def needed_columns(self) -> tuple[str, ...]:
        """Columns that must be read to validate, in the dataset's order."""
        pairs = zip(self.suite.expectations, self.missing, strict=True)
        needed = {name for item, missing in pairs if not missing for name in item.needed_columns}
        return tuple(name for name in self.columns if name in needed)


def load_suite(catalog: Catalog, name: str) -> ExpectationSuite:
    """Read a suite of the catalog.

    Raises:
        CatalogError: There is none of this name, or it is malformed; the message names the expectation.
    """
    value = catalog.load("expectations", name)
    place = str(catalog.path("expectations", name))
    try:
        suite = ExpectationSuite.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        text = "; ".join(
            f"{'.'.join(str(step) for step in fault['loc'])}: {fault['msg']}" for fault in faults
        )
        raise CatalogError(text, place=place, remedy="Mend the suite.") from error
    if suite.name != name:
        raise CatalogError(
            f"The suite calls itself '{suite.name}'.", place=place, remedy=f"Name it '{name}', as its file."
        )
    _check_patterns(suite, catalog, place)
    return suite


def _check_patterns(suite: ExpectationSuite, catalog: Catalog, place: str) -> None:
    named = {item.pattern: position for position, item in enumerate(suite.expectations) if item.pattern}
    known = pattern_names(catalog) if named else ()
    for name, position in named.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise CatalogError(
                f"There is no pattern '{name}'.",
                place=f"{place}, expectations.{position}",
                remedy=f"Did you mean '{near[0]}'?" if near else "'cohortflow patterns list' shows all.",
            )


def bind_suite(suite: ExpectationSuite, columns: Iterable[str], *, known: Iterable[str] = ()) -> BoundSuite:
    """Decide which expectations apply to a dataset, from its columns alone.

    Args:
        suite: The suite.
        columns: Columns of the dataset, after redaction.
        known: Columns that the dataset could have had under another redaction policy: expectations on
            them do not apply, and the report says so.

    Raises:
        CatalogError: An expectation names a column that is neither; the remedy names the nearest one.
    """
    present = tuple(columns)
    possible = dict.fromkeys((*present, *known))
    missing: list[tuple[str, ...]] = []
    for position, expectation in enumerate(suite.expectations):
        absent = tuple(name for name in expectation.needed_columns if name not in present)
        strange = [name for name in absent if name not in possible]
        if strange:
            raise _unknown_column(suite.name, position, expectation, strange[0], possible)
        missing.append(absent)
    return BoundSuite(suite=suite, columns=present, missing=tuple(missing))


def _unknown_column(
    suite: str, position: int, expectation: Expectation, name: str, possible: Mapping[str, None]
) -> CatalogError:
    near = difflib.get_close_matches(name, possible, n=1)
    return CatalogError(
        f"'{expectation.type}' names column '{name}', which the dataset cannot have.",
        place=f"expectations/{suite}, expectations.{position}",
        remedy=f"Did you mean '{near[0]}'?" if near else f"The columns are {', '.join(possible)}.",
    )
