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
from cohortflow.redaction.actions import Action, Generalization, Override, Rule, Treatment
from cohortflow.redaction.dicom import DICOM
from cohortflow.redaction.outputs import describe_output, possible_names
from cohortflow.redaction.phi import classify_columns, decide_class, find_rule, split_path
from cohortflow.redaction.policy import RedactionPolicy
from cohortflow.redaction.results import AgeReading, Place, find_record_key, read_ages_of

__all__ = ["ColumnRedaction", "RedactionPlan", "find_subject", "plan_redaction"]

_ROLE: Final = "cohortflow/role"
_TYPE: Final = "ansi/type"
_ROW: Final = "key"

_DROP: Final = Treatment(action=Action.DROP)

_DATES: Final = frozenset({ColumnType.DATE, ColumnType.DATETIME})
_TEXT: Final = frozenset({ColumnType.STRING})
_NUMBERS: Final = frozenset({ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.DECIMAL})
_INPUT_TYPES: Final[dict[tuple[Action, Generalization | None], frozenset[ColumnType]]] = {
    (Action.SHIFT, None): _DATES | _TEXT,
    (Action.HASH, None): _TEXT | {ColumnType.INTEGER},
    (Action.SCRUB, None): _TEXT,
    (Action.NOISE, None): _NUMBERS,
    (Action.GENERALIZE, Generalization.YEAR): _DATES | _TEXT,
    (Action.GENERALIZE, Generalization.YEAR_MONTH): _DATES | _TEXT,
    (Action.GENERALIZE, Generalization.ZIP3): _TEXT,
    (Action.GENERALIZE, Generalization.AGE): _NUMBERS,
    (Action.GENERALIZE, Generalization.BINS): _NUMBERS,
    (Action.GENERALIZE, Generalization.LIMITS): _NUMBERS,
    (Action.GENERALIZE, Generalization.RARE): _TEXT,
}
"""Physical types that a treatment can read; the others read any."""
_BY_FORM: Final = frozenset(
    {
        (Action.SHIFT, None),
        (Action.GENERALIZE, Generalization.YEAR),
        (Action.GENERALIZE, Generalization.YEAR_MONTH),
        (Action.GENERALIZE, Generalization.ZIP3),
        (Action.GENERALIZE, Generalization.AGE),
    }
)
"""Treatments that know what to leave of a value because it is a date, a postal code or an age."""
_FORMED: Final = frozenset({PhiClass.DATE, PhiClass.AGE, PhiClass.GEOGRAPHIC})
_CLASSES: Final = {Action.SHIFT: PhiClass.DATE, Action.SCRUB: PhiClass.FREE_TEXT}
"""Class that a text must have for an action."""
_BY_PATIENT: Final = {
    (Action.SHIFT, None): "Dates are shifted",
    (Action.GENERALIZE, Generalization.RARE): "Rare categories are counted",
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
        ages: That some of its values may be ages that were recorded as results, which are capped before
            the treatment; ``None`` where the policy caps no ages.
    """

    column: Column
    treatment: Treatment
    reason: str
    output: Column | None
    kind: str = ""
    overridden: bool = False
    ages: AgeReading | None = None


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
        return tuple(possible for name in names for possible in (name, *possible_names(name)))

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

    @property
    def age_places(self) -> tuple[Place, ...]:
        """Where the results stand of which the table shows some, so that ages among them are capped."""
        shown = {entry.ages.place for entry in self.columns if entry.ages and entry.output is not None}
        return tuple(place for place in Place if place in shown)

    def record_key(self, place: Place) -> str:
        """Column with the id of the record that holds a result, empty where the table has none."""
        return find_record_key((entry.column for entry in self.columns), place)

    def explain(self) -> list[dict[str, str]]:
        """Return one row per column, all texts.

        ``column``, ``output`` (its new name, empty where it is dropped), ``paths``, ``class``, ``source``
        (of the class, in the regulation), ``because`` (of the class), ``action``, ``reason`` (of the action).
        """
        rows = []
        for entry in self.columns:
            rule = decide_class(entry.column)
            row = {
                "column": entry.column.name,
                "output": entry.output.name if entry.output else "",
                "paths": ", ".join((*entry.column.paths, *(f"({path})" for path in entry.column.tested))),
                "class": entry.column.phi.name,
                "source": rule.source,
                "because": rule.note,
                "action": str(entry.treatment),
                "reason": entry.reason,
            }
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form for the documents of a release."""
        return {
            "view": self.view,
            "policy": self.policy.name,
            "standard": str(self.policy.standard),
            "guarantee": self.policy.guarantee,
            "columns": self.explain(),
            "overridden": [entry.column.name for entry in self.columns if entry.overridden],
            "capped_ages": [e.column.name for e in self.columns if e.ages and e.output is not None],
        }

    @property
    def row_key(self) -> str:
        """Column that tells the table's rows apart, empty where none is tagged so."""
        tagged = (entry.column.name for entry in self.columns if entry.column.tags.get(_ROLE) == _ROW)
        return next(tagged, "")

    @property
    def overrides(self) -> list[dict[str, str]]:
        """What the study asked for against the policy: column, class, action, reason; for the release."""
        return [
            {
                "column": entry.column.name,
                "class": entry.column.phi.name,
                "action": str(entry.treatment),
                "reason": entry.reason,
            }
            for entry in self.columns
            if entry.overridden
        ]


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
    different treatments, or where its type does not allow the treatment; under a policy that caps ages also
    where it holds results of records whose id is in no column.

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
        _read_ages(
            view,
            _override_column(view, column, subject, policy, overrides[column.name])
            if column.name in overrides
            else _plan_column(view, column, subject, policy),
            classified,
            policy,
        )
        for column in classified
    )
    plan = RedactionPlan(view=view, policy=policy, subject=subject, columns=entries)
    _check_unique(plan)
    return plan


def _read_ages(
    view: str, entry: ColumnRedaction, columns: Iterable[Column], policy: RedactionPolicy
) -> ColumnRedaction:
    """Let ages be capped that are results, as the policy caps all others."""
    reading = read_ages_of(entry.column)
    cap = policy.age_cap
    # A masked column says no more than whether there is a value.
    if reading is None or cap is None or entry.treatment.action in {Action.DROP, Action.MASK}:
        return entry
    if not find_record_key(columns, reading.place):
        missing = f"No column holds {reading.place.resource}.id, by which ages among the results are found."
        if entry.overridden:
            place = f"{view}.{entry.column.name}"
            raise PolicyError(f"Cannot {entry.treatment}: {missing}", place=place, remedy="Add that column.")
        return _drop(entry.column, missing)
    return dataclasses.replace(entry, ages=reading, reason=f"{entry.reason} {reading.describe(cap)}")


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
    return _redaction(column, treatment, reason, policy)


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
    treatment = override.treatment
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
    return dataclasses.replace(_redaction(column, treatment, reason, policy), overridden=True)


def _find_obstacle(column: Column, treatment: Treatment, subject: str) -> str:
    """Say why a treatment cannot be carried out, or return an empty text."""
    readable = _INPUT_TYPES.get(treatment.kind)
    if readable is None:
        return ""
    if column.collection:
        return f"'{treatment}' does not work on lists."
    if column.type not in readable:
        known = ", ".join(sorted(readable))
        return f"'{treatment}' needs type {known}, not {column.type}; see the view's tag {_TYPE}."
    by_patient = _BY_PATIENT.get(treatment.kind)
    if by_patient and not subject:
        return f"{by_patient} by patient, and no column holds the patient's id."
    return _find_other_content(column, treatment)


def _find_other_content(column: Column, treatment: Treatment) -> str:
    """Say where a column of the right type need not hold what a treatment expects."""
    text = _CLASSES.get(treatment.action)
    if text is not None and column.type is ColumnType.STRING and column.phi is not text:
        return f"'{treatment}' needs a text of class {text.name}, not {column.phi.name}."
    computed = [path for path in column.computed if find_rule(path).phi in _FORMED]
    if treatment.kind in _BY_FORM and computed:
        # The last three digits of a ZIP code would pass for the first, a month after "20" for a year.
        return f"'{treatment}' needs a value as it stands, and this one is computed from {computed[0]}."
    return ""


def _drop(column: Column, reason: str) -> ColumnRedaction:
    return ColumnRedaction(column=column, treatment=_DROP, reason=reason, output=None)


def _redaction(column: Column, treatment: Treatment, reason: str, policy: RedactionPolicy) -> ColumnRedaction:
    kind = _kind(column) if treatment.action is Action.HASH else ""
    return ColumnRedaction(column, treatment, reason, describe_output(column, treatment, policy), kind)


def _kind(column: Column) -> str:
    """Name the kind of identifier: the resource type whose id it is, else the paths."""
    if column.target:
        return column.target
    if column.paths and all(split_path(path)[0] == DICOM for path in column.paths):
        return DICOM  # a UID is the same wherever it stands
    owners = {path.removesuffix(".id") for path in column.paths if path.endswith(".id")}
    if len(owners) == 1 and all(path.endswith(".id") for path in column.paths):
        return owners.pop()
    return "|".join(sorted(column.paths)) or column.name


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
