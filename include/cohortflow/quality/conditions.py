"""Row conditions: which rows an expectation is about.

They have the object form of Great Expectations' suite files, and are applied here, so that rows that an
expectation is not about are never copied into its frame.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Comparison", "Condition", "Junction", "Nullity", "parse_condition"]

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _ColumnName(_Frozen):
    name: str


class Comparison(_Frozen):
    """Rows in which a column compares to a constant; a null compares to nothing."""

    type: Literal["comparison"]
    column: _ColumnName
    operator: Literal["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"]
    parameter: str | int | float | tuple[str, ...] | tuple[float, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return (self.column.name,)

    def to_expression(self) -> pl.Expr:
        """Return the filter."""
        import polars as pl

        value = pl.col(self.column.name)
        if self.operator in _OPERATORS:
            matched: pl.Expr = _OPERATORS[self.operator](value, self.parameter)
            return matched
        members = list(self.parameter) if isinstance(self.parameter, tuple) else [self.parameter]
        found = value.is_in(members)
        return found if self.operator == "IN" else ~found

    def __str__(self) -> str:
        if isinstance(self.parameter, tuple):
            sign = "is one of" if self.operator == "IN" else "is none of"
            return f"{self.column.name} {sign} {', '.join(str(item) for item in self.parameter)}"
        return f"{self.column.name} {self.operator} {self.parameter}"


class Nullity(_Frozen):
    """Rows in which a column is null, or is not."""

    type: Literal["nullity"]
    column: _ColumnName
    is_null: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return (self.column.name,)

    def to_expression(self) -> pl.Expr:
        """Return the filter."""
        import polars as pl

        value = pl.col(self.column.name)
        return value.is_null() if self.is_null else value.is_not_null()

    def __str__(self) -> str:
        return f"{self.column.name} is {'null' if self.is_null else 'not null'}"


class Junction(_Frozen):
    """Rows for which all, or any, of the conditions hold."""

    type: Literal["and", "or"]
    conditions: tuple[Annotated[Comparison | Nullity, Field(discriminator="type")], ...] = Field(min_length=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return tuple(dict.fromkeys(name for part in self.conditions for name in part.columns))

    def to_expression(self) -> pl.Expr:
        """Return the filter."""
        join = operator.and_ if self.type == "and" else operator.or_
        return reduce(join, (part.to_expression() for part in self.conditions))

    def __str__(self) -> str:
        return f" {self.type} ".join(str(part) for part in self.conditions)


Condition = Comparison | Nullity | Junction
_ADAPTER: Final[TypeAdapter[Condition]] = TypeAdapter(Annotated[Condition, Field(discriminator="type")])


def parse_condition(value: object) -> Condition:
    """Read a condition in Great Expectations' object form.

    Raises:
        pydantic.ValidationError: It is none.
    """
    return _ADAPTER.validate_python(value)
