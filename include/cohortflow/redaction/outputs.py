"""What a column is after its redaction: name, type, class, description."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Final

from cohortflow.model import Column, ColumnType, PhiClass
from cohortflow.redaction.actions import Action, Generalization, Treatment
from cohortflow.redaction.policy import RedactionPolicy

__all__ = ["describe_output", "possible_names"]

_TYPE: Final = "ansi/type"
_RESIDUAL: Final = {
    Action.HASH: PhiClass.REFERENCE,
    Action.GENERALIZE: PhiClass.QUASI_IDENTIFIER,
    Action.MASK: PhiClass.SAFE_CODE,
}
_UNIT: Final = {
    Generalization.YEAR: "_year",
    Generalization.YEAR_MONTH: "_month",
    Generalization.BINS: "_bin",
}
_DAY: Final = "_date"
_NOTE: Final = {
    Generalization.YEAR: "year only",
    Generalization.YEAR_MONTH: "year and month only, as YYYY-MM",
    Generalization.ZIP3: "first three digits; 000 where few people live",
    Generalization.AGE: "ages above the cap are one group",
    Generalization.BINS: "in bins",
    Generalization.LIMITS: "values beyond the limits are told as the limit",
    Generalization.RARE: "rare categories are told as 'other'",
}


def describe_output(column: Column, treatment: Treatment, policy: RedactionPolicy) -> Column | None:
    """Return the column as it leaves, or ``None`` where it is dropped."""
    phi = _RESIDUAL.get(treatment.action, column.phi)
    output: Column | None = column
    match treatment.action:
        case Action.DROP:
            output = None
        case Action.SHIFT:
            output = _shifted(column, policy)
        case Action.HASH:
            output = _as_text(column, phi, "pseudonym")
        case Action.SCRUB:
            output = dataclasses.replace(column, description=_describe(column, "identifiers taken out"))
        case Action.NOISE:
            output = dataclasses.replace(column, description=_describe(column, "with noise"))
        case Action.MASK:
            output = dataclasses.replace(_as_text(column, phi, "masked"), collection=False)
        case Action.GENERALIZE:
            output = _generalized(column, treatment.to, phi)
        case Action.KEEP:
            pass
    return output


def possible_names(name: str) -> tuple[str, ...]:
    """Return the names that a column could get by some treatment."""
    return tuple(_stem(name) + unit for unit in (*_UNIT.values(), _DAY))


def _shifted(column: Column, policy: RedactionPolicy) -> Column:
    note = "dates shifted by patient"
    if policy.keep_day_of_week:
        note += ", in whole weeks"
    if column.type is ColumnType.DATETIME and policy.times == "drop":
        # A day in a column called "at" would mislead, as would midnight in one of moments.
        tags = MappingProxyType({**column.tags, _TYPE: "DATE"})
        name, kind = _stem(column.name) + _DAY, ColumnType.DATE
        return dataclasses.replace(
            column, name=name, type=kind, tags=tags, description=_describe(column, f"day only, {note}")
        )
    return dataclasses.replace(column, description=_describe(column, note))


def _generalized(column: Column, to: Generalization | None, phi: PhiClass) -> Column:
    if to is None:
        msg = "a treatment that generalizes says to what"
        raise ValueError(msg)
    if to not in _UNIT:
        return dataclasses.replace(column, phi=phi, description=_describe(column, _NOTE[to]))
    # A year in a column called "date" would mislead: the name follows the meaning.
    name = _stem(column.name) + _UNIT[to]
    kind = ColumnType.INTEGER if to is Generalization.YEAR else ColumnType.STRING
    return dataclasses.replace(_as_text(column, phi, _NOTE[to]), name=name, type=kind)


def _as_text(column: Column, phi: PhiClass, note: str) -> Column:
    tags = MappingProxyType({name: value for name, value in column.tags.items() if name != _TYPE})
    description = _describe(column, note)
    return dataclasses.replace(column, type=ColumnType.STRING, phi=phi, tags=tags, description=description)


def _stem(name: str) -> str:
    for suffix in ("_datetime", "_date", "_at", "_on"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _describe(column: Column, note: str) -> str:
    return f"{column.description} ({note})" if column.description else note.capitalize()
