"""Expression constraints, evaluated by joins over the tables of a SNOMED CT release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from cohortflow.errors import ConfigurationError
from cohortflow.terminology import ecl

__all__ = ["evaluate_ecl", "need_table"]

_CODES = pl.Schema({"code": pl.String()})
_HOLDS = {
    "closure": "hierarchy",
    "edges": "hierarchy",
    "members": "reference sets",
    "attributes": "attributes",
    "concepts": "concepts",
}


def need_table(tables: Mapping[str, pl.LazyFrame], name: str, release: str) -> pl.LazyFrame:
    """Return a table of a release.

    Args:
        tables: Tables of the release.
        name: Of the table.
        release: System and version, for the message.

    Raises:
        ConfigurationError: The release has no such table.
    """
    if name not in tables:
        raise ConfigurationError(
            f"{release} is loaded without {_HOLDS.get(name, name)}, which the value set needs.",
            place=release,
            remedy="Load the whole release again with 'cohortflow terminology load FORMAT PATH --replace'.",
        )
    return tables[name]


def evaluate_ecl(
    expression: ecl.Expression, tables: Mapping[str, pl.LazyFrame], *, release: str
) -> pl.LazyFrame:
    """Return the active concepts that satisfy an expression, each once.

    Args:
        expression: From `ecl.parse_ecl`.
        tables: Tables of the release; those are read that the expression needs.
        release: System and version, for messages.

    Returns:
        One column, ``code``.

    Raises:
        ConfigurationError: A table that the expression needs is not loaded.
    """
    evaluation = _Evaluation(tables, release)
    return evaluation.codes(expression).join(evaluation.active, on="code", how="semi").unique()


@dataclass(frozen=True)
class _Evaluation:
    tables: Mapping[str, pl.LazyFrame]
    release: str

    @property
    def active(self) -> pl.LazyFrame:
        return self.table("concepts").filter("active").select("code")

    def table(self, name: str) -> pl.LazyFrame:
        return need_table(self.tables, name, self.release)

    def codes(self, expression: ecl.Expression) -> pl.LazyFrame:  # noqa: PLR0911 - one for each node
        """Return the codes of an expression; a code may stand several times."""
        match expression:
            case ecl.Concept(code):
                return pl.LazyFrame({"code": [code]}, schema=_CODES)
            case ecl.Any():
                return self.active
            case ecl.Constraint(operator, operand):
                return self.related(operator, operand)
            case ecl.MemberOf(ecl.Any()):
                return self.table("members").select("code")
            case ecl.MemberOf(operand):
                sets = self.codes(operand)
                return (
                    self.table("members")
                    .join(sets, left_on="refset", right_on="code", how="semi")
                    .select("code")
                )
            case ecl.Compound(operator, operands):
                frames = [self.codes(operand) for operand in operands]
                return _combine(operator, frames)
            case ecl.Refined(focus, refinement):
                return self.codes(focus).join(self.refined(refinement), on="code", how="semi")

    def related(self, operator: ecl.Operator, operand: ecl.Expression) -> pl.LazyFrame:
        down = operator.startswith("<")
        direct = operator.endswith("!")
        if direct:
            pairs = self.table("edges").select(lower="child", upper="parent")
        else:
            pairs = self.table("closure").select(lower="descendant", upper="ancestor")
        start, end = ("upper", "lower") if down else ("lower", "upper")
        if isinstance(operand, ecl.Any):
            found = pairs.select(pl.col(end).alias("code"))
        else:
            found = pairs.join(self.codes(operand), left_on=start, right_on="code", how="semi").select(
                pl.col(end).alias("code")
            )
        return pl.concat([found, self.codes(operand)]) if operator[:2] in {"<<", ">>"} else found

    def refined(self, refinement: ecl.Refinement) -> pl.LazyFrame:
        if isinstance(refinement, ecl.RefinementGroup):
            return _combine(refinement.operator, [self.refined(operand) for operand in refinement.operands])
        rows = self.table("attributes").select("code", "attribute", "value")
        if not isinstance(refinement.name, ecl.Any):
            names = self.codes(refinement.name)
            rows = rows.join(names, left_on="attribute", right_on="code", how="semi")
        if refinement.equal and isinstance(refinement.value, ecl.Any):
            return rows.select("code")
        values = self.codes(refinement.value)
        how = "semi" if refinement.equal else "anti"
        return rows.join(values, left_on="value", right_on="code", how=how).select("code")  # type: ignore[arg-type]  # both are


def _combine(operator: str, frames: list[pl.LazyFrame]) -> pl.LazyFrame:
    if operator == "OR":
        return pl.concat(frames)
    first, *others = frames
    for other in others:
        first = first.join(other, on="code", how="anti" if operator == "MINUS" else "semi")
    return first
