"""What redaction does to each column of a table, decided before any data are read."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cohortflow.errors import PolicyError
from cohortflow.model import Column, ColumnType, PhiClass
from cohortflow.redaction.phi import classify_columns
from cohortflow.redaction.policy import Action, Generalization, Override, RedactionPolicy, Rule, Treatment

__all__ = ["ColumnRedaction", "RedactionPlan", "find_subject", "plan_redaction"]

_ROLE: Final = "cohortflow/role"
_TYPE: Final = "ansi/type"

_DROP: Final = Treatment(action=Action.DROP)

_DATES: Final = frozenset({ColumnType.DATE, ColumnType.DATETIME})
_INPUT_TYPES: Final[dict[Treatment, frozenset[ColumnType]]] = {
    Treatment(action=Action.SHIFT): _DATES,
    Treatment(action=Action.HASH): frozenset({ColumnType.STRING, ColumnType.INTEGER}),
    Treatment(action=Action.GENERALIZE, to=Generalization.YEAR): _DATES | {ColumnType.STRING},
    Treatment(action=Action.GENERALIZE, to=Generalization.YEAR_MONTH): _DATES | {ColumnType.STRING},
    Treatment(action=Action.GENERALIZE, to=Generalization.ZIP3): frozenset({ColumnType.STRING}),
    Treatment(action=Action.GENERALIZE, to=Generalization.AGE): frozenset(
        {ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.DECIMAL}
    ),
}
"""Physical types that a treatment can read; the others read any."""

_RESIDUAL: Final = {
    Action.HASH: PhiClass.REFERENCE,
    Action.GENERALIZE: PhiClass.QUASI_IDENTIFIER,
    Action.MASK: PhiClass.SAFE_CODE,
}
_UNIT: Final = {Generalization.YEAR: "_year", Generalization.YEAR_MONTH: "_month"}
_NOTE: Final = {
    Generalization.YEAR: "year only",
    Generalization.YEAR_MONTH: "year and month only, as YYYY-MM",
    Generalization.ZIP3: "first three digits; 000 where few people live",
    Generalization.AGE: "ages above the cap are one group",
}


@dataclass(frozen=True, slots=True)
class ColumnRedaction:
    """What happens to one column.

    Attributes:
        column: The column as it comes, with its class.
        treatment: What happens to it.
        reason: Why, in one sentence.
        output: The column as it leaves; ``None`` where it is dropped.
        kind: Kind of identifier of a hashed column: ids of one kind get the same pseudonyms everywhere.
        overridden: Whether the study asked for it, against the policy.
    """

    column: Column
    treatment: Treatment
    reason: str
    output: Column | None
    kind: str = ""
    overridden: bool = False


@dataclass(frozen=True, slots=True)
class RedactionPlan:
    """What happens to each column of a table.

    Attributes:
        view: Name of the table.
        policy: The policy that decided.
        subject: Column that holds the patient's id, empty where the table has none.
        columns: One entry per column, in the table's order.
    """

    view: str
    policy: RedactionPolicy
    subject: str
    columns: tuple[ColumnRedaction, ...]

    @property
    def output_columns(self) -> tuple[Column, ...]:
        """Columns of the redacted table, in order."""
        return tuple(entry.output for entry in self.columns if entry.output is not None)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the columns that are left out."""
        return tuple(entry.column.name for entry in self.columns if entry.output is None)

    @property
    def known_columns(self) -> tuple[str, ...]:
        """Names that the table's columns have before redaction, or could have after it, under any policy."""
        names = (entry.column.name for entry in self.columns)
        return tuple(possible for name in names for possible in (name, *_possible_names(name)))

    @property
    def renamed(self) -> Mapping[str, str]:
        """Old to new name, for columns whose name changes with their meaning."""
        return MappingProxyType(
            {
                entry.column.name: entry.output.name
                for entry in self.columns
                if entry.output is not None and entry.output.name != entry.column.name
            }
        )

    def explain(self) -> list[dict[str, str]]:
        """Return one row per column for a table: column, output, paths, class, action, reason."""
        return [
            {
                "column": entry.column.name,
                "output": entry.output.name if entry.output else "",
                "paths": ", ".join(entry.column.paths),
                "class": entry.column.phi.name,
                "action": str(entry.treatment),
                "reason": entry.reason,
            }
            for entry in self.columns
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form for the documents of a release."""
        return {
            "view": self.view,
            "policy": self.policy.name,
            "standard": str(self.policy.standard),
            "guarantee": self.policy.guarantee,
            "columns": self.explain(),
            "overridden": [entry.column.name for entry in self.columns if entry.overridden],
        }


def find_subject(columns: Iterable[Column]) -> str:
    """Return the name of the column that holds the patient's id, or an empty text.

    It is the one whose ``cohortflow/role`` is ``subject``, else the one that holds ``Patient.id``.
    """
    columns = tuple(columns)
    for column in columns:
        if column.tags.get(_ROLE) == "subject":
            return column.name
    return next((column.name for column in columns if column.paths == ("Patient.id",)), "")


def plan_redaction(
    view: str,
    columns: Iterable[Column],
    policy: RedactionPolicy,
    overrides: Mapping[str, Override] | None = None,
) -> RedactionPlan:
    """Decide what happens to each column.

    The most specific rule with a path wins, then a rule for the column's role, then the default of its
    class. A column is dropped, and the reason says so, where nothing decides, where its paths call for
    different treatments, or where its type does not allow the treatment.

    Args:
        view: Name of the table.
        columns: Its columns; those with paths are classified here.
        policy: The policy.
        overrides: What the study asks for instead, by column name.

    Raises:
        PolicyError: An override names no column, lacks a reason, is not permitted or does not fit the
            column's type; the policy does less than its standard asks; two columns would have one name.
    """
    classified = classify_columns(columns)
    overrides = overrides or {}
    _check_names(view, classified, overrides)
    subject = find_subject(classified)
    entries = tuple(
        _override_column(view, column, subject, policy, overrides[column.name])
        if column.name in overrides
        else _plan_column(view, column, subject, policy)
        for column in classified
    )
    plan = RedactionPlan(view=view, policy=policy, subject=subject, columns=entries)
    _check_unique(plan)
    return plan


def _plan_column(view: str, column: Column, subject: str, policy: RedactionPolicy) -> ColumnRedaction:
    candidates = {_decide(path, column, policy) for path in column.paths or ("",)}
    if len({treatment for treatment, _ in candidates}) > 1:
        return _drop(column, "Its paths call for different treatments.")
    treatment, reason = min(candidates, key=lambda candidate: candidate[1])
    if not policy.permits(column.phi, treatment):
        raise PolicyError(
            f"Policy '{policy.name}' would {treatment} a column of class {column.phi.name}, "
            f"which its standard '{policy.standard}' does not permit.",
            place=f"{view}.{column.name}",
            remedy="Mend the policy's rule for this path or role.",
        )
    obstacle = _find_obstacle(column, treatment, subject)
    if obstacle:
        return _drop(column, obstacle)
    return _redaction(column, treatment, reason)


def _decide(path: str, column: Column, policy: RedactionPolicy) -> tuple[Treatment, str]:
    rule = _find_rule(path, column, policy)
    if rule is not None:
        return rule.treatment, rule.reason
    if column.phi is PhiClass.UNKNOWN:
        return policy.default(column.phi), "No rule knows its path."
    return policy.default(column.phi), f"Default of {column.phi.name}."


def _find_rule(path: str, column: Column, policy: RedactionPolicy) -> Rule | None:
    covering = [
        (rule.pattern.specificity, rule)
        for rule in policy.rules
        if rule.pattern and rule.pattern.matches(path)
    ]
    if covering:
        return max(covering, key=lambda item: item[0])[1]
    role = column.tags.get(_ROLE)
    return next((rule for rule in policy.rules if rule.role is not None and rule.role == role), None)


def _override_column(
    view: str, column: Column, subject: str, policy: RedactionPolicy, override: Override
) -> ColumnRedaction:
    place = f"{view}.{column.name}"
    treatment = Treatment(action=override.action, to=override.to)
    planned = _plan_column(view, column, subject, policy)
    if treatment == planned.treatment:
        return planned
    if treatment.action not in {Action.DROP, Action.MASK}:
        if column.phi not in policy.overridable:
            raise PolicyError(
                f"Policy '{policy.name}' does not let a study {treatment} a {column.phi.name} column.",
                place=place,
                remedy=f"Leave the column to the policy, which would {planned.treatment} it.",
            )
        if not override.reason.strip():
            raise PolicyError(
                f"The override '{treatment}' gives no reason.",
                place=place,
                remedy="Write into 'reason' why the values cannot identify a person.",
            )
    obstacle = _find_obstacle(column, treatment, subject)
    if obstacle:
        raise PolicyError(f"Cannot {treatment}: {obstacle}", place=place, remedy="Choose another action.")
    reason = f"The study asks for it: {override.reason.strip() or 'no reason given'}"
    return dataclasses.replace(_redaction(column, treatment, reason), overridden=True)


def _find_obstacle(column: Column, treatment: Treatment, subject: str) -> str:
    """Say why a treatment cannot be carried out, or return an empty text."""
    readable = _INPUT_TYPES.get(treatment)
    if readable is None:
        return ""
    if column.collection:
        return f"'{treatment}' does not work on lists."
    if column.type not in readable:
        known = ", ".join(sorted(readable))
        return f"'{treatment}' needs type {known}, not {column.type}; see the view's tag {_TYPE}."
    if treatment.action is Action.SHIFT and not subject:
        return "Dates are shifted by patient, and no column holds the patient's id."
    return ""


def _drop(column: Column, reason: str) -> ColumnRedaction:
    return ColumnRedaction(column=column, treatment=_DROP, reason=reason, output=None)


def _redaction(column: Column, treatment: Treatment, reason: str) -> ColumnRedaction:
    kind = _kind(column) if treatment.action is Action.HASH else ""
    return ColumnRedaction(column, treatment, reason, _output(column, treatment), kind)


def _kind(column: Column) -> str:
    """Name the kind of identifier: the resource type whose id it is, else the paths."""
    if column.target:
        return column.target
    owners = {path.removesuffix(".id") for path in column.paths if path.endswith(".id")}
    if len(owners) == 1 and all(path.endswith(".id") for path in column.paths):
        return owners.pop()
    return "|".join(sorted(column.paths)) or column.name


def _output(column: Column, treatment: Treatment) -> Column | None:
    phi = _RESIDUAL.get(treatment.action, column.phi)
    match treatment.action:
        case Action.DROP:
            return None
        case Action.KEEP:
            return column
        case Action.SHIFT:
            note = "dates shifted by patient"
            return dataclasses.replace(column, phi=phi, description=_describe(column, note))
        case Action.HASH:
            return _as_text(column, phi, "pseudonym")
        case Action.MASK:
            return dataclasses.replace(_as_text(column, phi, "masked"), collection=False)
        case Action.GENERALIZE:
            return _generalized(column, treatment.to, phi)


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


def _possible_names(name: str) -> tuple[str, ...]:
    return tuple(_stem(name) + unit for unit in _UNIT.values())


def _stem(name: str) -> str:
    for suffix in ("_datetime", "_date", "_at", "_on"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def _describe(column: Column, note: str) -> str:
    return f"{column.description} ({note})" if column.description else note.capitalize()


def _check_names(view: str, columns: tuple[Column, ...], overrides: Mapping[str, Override]) -> None:
    names = [column.name for column in columns]
    for name in overrides:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise PolicyError(
                f"A redaction override names column '{name}', which view '{view}' does not have.",
                place=f"{view}.{name}",
                remedy=f"Did you mean '{near[0]}'?" if near else f"The columns are {', '.join(names)}.",
            )


def _check_unique(plan: RedactionPlan) -> None:
    names = [column.name for column in plan.output_columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PolicyError(
            f"Two columns would be called '{twice[0]}' after redaction.",
            place=f"{plan.view}.{twice[0]}",
            remedy="Rename one of them in the view.",
        )
