"""The Great Expectations types that a suite may use: those whose results hold counts, not data.

Types whose result is a value of the data (minimum, quantile, most common value and so on) are left out,
since a report is read by more people than the data.

One type is our own: ``expect_column_values_to_match_pattern`` names a pattern of the catalog, whose check
digits no regular expression can verify. Polars evaluates it, and Great Expectations judges the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

__all__ = ["EXPECTATION_TYPES", "MATCH_PATTERN", "ExpectationType", "describe"]

MATCH_PATTERN: Final = "expect_column_values_to_match_pattern"
"""The one type that Great Expectations does not know."""

_ROWS: Final = frozenset({"row_condition", "ignore_row_if"})


@dataclass(frozen=True, slots=True)
class ExpectationType:
    """What a suite may write for one type.

    Attributes:
        required: Arguments that must be there.
        optional: Arguments that may be there.
        column_arguments: Those that name a column or list columns.
        phrase: Says what is expected, with the arguments in braces.
        observes_count: Whether the result's observed value is a count or a share, and so may be shown.
    """

    required: frozenset[str]
    optional: frozenset[str]
    column_arguments: tuple[str, ...]
    phrase: str
    observes_count: bool = False

    @property
    def arguments(self) -> frozenset[str]:
        """All arguments."""
        return self.required | self.optional


def _column(phrase: str, *required: str, optional: tuple[str, ...] = ()) -> ExpectationType:
    return ExpectationType(
        required=frozenset({"column", *required}),
        optional=frozenset({*optional, "mostly", "row_condition"}),
        column_arguments=("column",),
        phrase=phrase,
    )


def _aggregate(phrase: str) -> ExpectationType:
    return ExpectationType(
        required=frozenset({"column"}),
        optional=frozenset({"min_value", "max_value", "row_condition"}),
        column_arguments=("column",),
        phrase=phrase,
        observes_count=True,
    )


_BOUNDS: Final = ("min_value", "max_value", "strict_min", "strict_max")

EXPECTATION_TYPES: Final[Mapping[str, ExpectationType]] = MappingProxyType(
    {
        "expect_table_row_count_to_be_between": ExpectationType(
            frozenset(), frozenset({"min_value", "max_value"}), (), "has {range} rows", observes_count=True
        ),
        "expect_table_row_count_to_equal": ExpectationType(
            frozenset({"value"}), frozenset(), (), "has {value} rows", observes_count=True
        ),
        "expect_column_to_exist": ExpectationType(
            frozenset({"column"}), frozenset(), ("column",), "is a column of the table"
        ),
        "expect_column_values_to_not_be_null": _column("is not null"),
        "expect_column_values_to_be_null": _column("is null"),
        "expect_column_values_to_be_unique": _column("is unique"),
        "expect_column_values_to_be_in_set": _column("is one of {value_set}", "value_set"),
        "expect_column_values_to_not_be_in_set": _column("is none of {value_set}", "value_set"),
        "expect_column_values_to_be_between": _column("is {range}", optional=_BOUNDS),
        "expect_column_values_to_match_regex": _column("matches {regex}", "regex"),
        "expect_column_values_to_not_match_regex": _column("does not match {regex}", "regex"),
        MATCH_PATTERN: _column("is a {pattern}", "pattern"),
        "expect_column_value_lengths_to_equal": _column("has {value} characters", "value"),
        "expect_column_value_lengths_to_be_between": _column("has {range} characters", optional=_BOUNDS),
        "expect_column_unique_value_count_to_be_between": _aggregate("has {range} distinct values"),
        "expect_column_proportion_of_unique_values_to_be_between": _aggregate(
            "has a share of distinct values {range}"
        ),
        "expect_compound_columns_to_be_unique": ExpectationType(
            frozenset({"column_list"}), _ROWS | {"mostly"}, ("column_list",), "are unique together"
        ),
        "expect_select_column_values_to_be_unique_within_record": ExpectationType(
            frozenset({"column_list"}), _ROWS | {"mostly"}, ("column_list",), "differ within a row"
        ),
        "expect_column_pair_values_a_to_be_greater_than_b": ExpectationType(
            frozenset({"column_A", "column_B"}),
            _ROWS | {"or_equal", "mostly"},
            ("column_A", "column_B"),
            "{column_A} comes after {column_B}",
        ),
        "expect_column_pair_values_to_be_equal": ExpectationType(
            frozenset({"column_A", "column_B"}),
            _ROWS | {"mostly"},
            ("column_A", "column_B"),
            "{column_A} equals {column_B}",
        ),
    }
)
"""By the name that Great Expectations gives it in a suite file."""


def describe(kind: str, kwargs: Mapping[str, Any]) -> str:
    """Say in words what is expected: the suite's own constants, no data.

    ``expect_column_values_to_be_between`` with 0 and 350 reads "is between 0 and 350".
    """
    values = {name: _show(value) for name, value in kwargs.items()}
    phrase = EXPECTATION_TYPES[kind].phrase.format_map({"range": _show_range(kwargs), **values})
    if kwargs.get("or_equal"):
        phrase = phrase.replace(" comes after ", " does not come before ")
    if "mostly" in kwargs:
        phrase += f", in at least {float(kwargs['mostly']):.4g} of rows"
    return phrase


def _show(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _show_range(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"between {low} and {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else "any number of"
