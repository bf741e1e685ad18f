"""What a cohort is: an entry event, then inclusion rules, each one line of the attrition.

The words are those of OHDSI's cohort definitions: the *entry event* sets the *index date*, *inclusion rules*
are judged relative to it. Only facts dated before the end of the data interval (``as_of``) count.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cohortflow.model import Column, ColumnType, PhiClass

__all__ = [
    "STANDARD_TIME_COLUMNS",
    "SUBJECT_COLUMNS",
    "AbsentRule",
    "AgeRule",
    "AliveRule",
    "CohortDefinition",
    "EntryEvent",
    "EventCriterion",
    "InclusionRule",
    "ObservedRule",
    "SexRule",
    "ValueRange",
    "Window",
]

STANDARD_TIME_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "encounter": "started_at",
        "condition": "recorded_at",
        "observation": "effective_at",
        "observation_component": "effective_at",
        "medication_request": "authored_at",
        "procedure": "started_at",
        "immunization": "occurred_at",
        "allergy": "recorded_at",
        "document_reference": "documented_at",
        "allergy_reaction": "recorded_at",
        "care_plan": "started_at",
        "care_plan_activity": "started_at",
        "care_team": "started_at",
        "claim": "created_at",
        "claim_item": "created_at",
        "condition_flat": "recorded_at",
        "condition_wide": "recorded_at",
        "coverage": "started_at",
        "diagnostic_report": "effective_at",
        "diagnostic_report_result": "effective_at",
        "encounter_diagnosis": "started_at",
        "encounter_flat": "period_start",
        "encounter_location": "started_at",
        "encounter_participant": "started_at",
        "explanation_of_benefit": "created_at",
        "explanation_of_benefit_item": "created_at",
        "family_member_history": "recorded_at",
        "imaging_study": "started_at",
        "medication_administration": "started_at",
        "medication_dispense": "handed_over_at",
        "medication_statement": "asserted_at",
        "observation_loinc": "effective_at",
        "provenance": "recorded_at",
        "questionnaire_response": "authored_at",
        "questionnaire_response_items": "authored",
        "service_request": "authored_at",
        "specimen": "collected_at",
        "us_core_blood_pressures": "effective_date_time",
    }
)
"""The column with the role ``time`` in each view of the catalog."""

SUBJECT_COLUMNS: tuple[Column, ...] = (
    Column(
        "patient_id",
        ColumnType.STRING,
        paths=("Patient.id",),
        phi=PhiClass.REFERENCE,
        target="Patient",
        description="Patient of the cohort.",
    ),
    Column(
        "index_date",
        ColumnType.DATE,
        phi=PhiClass.DATE,
        description="Day of the entry event, UTC.",
    ),
    Column(
        "age_at_index",
        ColumnType.INTEGER,
        phi=PhiClass.AGE,
        description="Completed years at the index date.",
    ),
)
"""The columns of a cohort's subjects."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ValueRange(_Model):
    """A measured value in a unit.

    Attributes:
        column: Column of the value.
        unit_column: Column of its UCUM unit.
        units: UCUM codes in which the limits are meant. A value in another unit does not qualify, and the
            attrition counts the patients it concerns; a value without unit counts as another unit.
        at_least: Lower limit, included.
        at_most: Upper limit, included.
        greater_than: Lower limit, excluded.
        less_than: Upper limit, excluded.
    """

    column: str = "value_quantity"
    unit_column: str = "value_unit"
    units: Annotated[tuple[str, ...], Field(min_length=1)]
    at_least: float | None = None
    at_most: float | None = None
    greater_than: float | None = None
    less_than: float | None = None

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        lower = [limit for limit in (self.at_least, self.greater_than) if limit is not None]
        upper = [limit for limit in (self.at_most, self.less_than) if limit is not None]
        if not lower and not upper:
            msg = "give at least one of at_least, at_most, greater_than, less_than"
            raise ValueError(msg)
        if len(lower) > 1 or len(upper) > 1:
            msg = "give one lower and one upper limit at most"
            raise ValueError(msg)
        if lower and upper and lower[0] > upper[0]:
            msg = "the lower limit lies above the upper limit"
            raise ValueError(msg)
        return self

    def describe(self) -> str:
        """Return the range as text, such as ``>= 6.5 %``."""
        limits = (
            (">=", self.at_least),
            (">", self.greater_than),
            ("<=", self.at_most),
            ("<", self.less_than),
        )
        stated = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
        return f"{stated} {' or '.join(self.units)}"


class Window(_Model):
    """Calendar days relative to the index date (day 0), both ends included; ``None`` has no limit.

    ``from_day: -365, to_day: -1`` is the year before the index date.
    """

    from_day: int | None = None
    to_day: int | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.from_day is not None and self.to_day is not None and self.from_day > self.to_day:
            msg = "the window ends before it starts"
            raise ValueError(msg)
        return self

    def describe(self) -> str:
        """Return the window as text."""
        if self.from_day is None and self.to_day is None:
            return "at any time"
        if self.from_day is None:
            return f"up to day {self.to_day}"
        if self.to_day is None:
            return f"from day {self.from_day}"
        return f"day {self.from_day} to {self.to_day}"


class EventCriterion(_Model):
    """Which rows of a view are events.

    Attributes:
        view: View to look into.
        value_set: Value set that holds the row's code.
        code: Column of the code.
        system: Column of its code system.
        date: Column that dates the event; the view's time column if not given. Undated rows do not count.
        value: Range that the value must be in.
        where: Column to allowed values, such as ``verification_status: [confirmed]``. Rows that say that
            nothing happened (entered in error, refuted, not done, cancelled) never count.
    """

    view: str
    value_set: str
    code: str = "code"
    system: str = "code_system"
    date: str | None = None
    value: ValueRange | None = None
    where: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)

    def describe_event(self) -> str:
        """Return the event as text, such as ``hba1c >= 6.5 %``."""
        return f"{self.value_set} {self.value.describe()}" if self.value else self.value_set


class EntryEvent(EventCriterion):
    """The event that lets a patient into the cohort; its day is the index date.

    Attributes:
        occurrence: The first or the last such event before ``as_of``.
    """

    occurrence: Literal["first", "last"] = "first"

    def describe(self) -> str:
        """Return the criterion as text."""
        return f"Has {self.describe_event()}"


class _Rule(_Model):
    name: str | None = None
    """Criterion for the attrition; a description of the rule if not given."""


class ObservedRule(EventCriterion, _Rule):
    """Keeps patients with the event.

    Attributes:
        window: Where it must lie; at any time before ``as_of`` if not given.
        count: On how many different days at least. Days are counted, because one event may stand in
            several rows, one for each coding.
    """

    kind: Literal["observed"] = "observed"
    window: Window = Window()
    count: Annotated[int, Field(ge=1)] = 1

    def describe(self) -> str:
        """Return the criterion as text."""
        times = f" on {self.count} days" if self.count > 1 else ""
        return self.name or f"Has {self.describe_event()}{times}, {self.window.describe()}"


class AbsentRule(EventCriterion, _Rule):
    """Keeps patients without the event.

    Attributes:
        window: Where it must not lie; nowhere before ``as_of`` if not given.
    """

    kind: Literal["absent"] = "absent"
    window: Window = Window()

    def describe(self) -> str:
        """Return the criterion as text."""
        return self.name or f"Has no {self.describe_event()}, {self.window.describe()}"


class AgeRule(_Rule):
    """Keeps patients of an age in completed years; a patient without birth date is excluded.

    Attributes:
        at: When.
        at_least: Lower limit, included.
        at_most: Upper limit, included.
    """

    kind: Literal["age"] = "age"
    at: Literal["index", "as_of"] = "index"
    at_least: Annotated[int, Field(ge=0)] | None = None
    at_most: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.at_least is None and self.at_most is None:
            msg = "give at_least, at_most or both"
            raise ValueError(msg)
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            msg = "at_least lies above at_most"
            raise ValueError(msg)
        return self

    def describe(self) -> str:
        """Return the criterion as text."""
        limits = ((">=", self.at_least), ("<=", self.at_most))
        stated = " and ".join(f"{sign} {limit}" for sign, limit in limits if limit is not None)
        when = "index date" if self.at == "index" else "end of the data interval"
        return self.name or f"Age {stated} at {when}"


class SexRule(_Rule):
    """Keeps patients of an administrative gender; a patient without one is excluded."""

    kind: Literal["sex"] = "sex"
    any_of: Annotated[tuple[Literal["female", "male", "other", "unknown"], ...], Field(min_length=1)]

    def describe(self) -> str:
        """Return the criterion as text."""
        return self.name or f"Administrative gender {' or '.join(self.any_of)}"


class AliveRule(_Rule):
    """Keeps patients not known to have died before ``as_of``; a death without a date counts as before."""

    kind: Literal["alive"] = "alive"

    def describe(self) -> str:
        """Return the criterion as text."""
        return self.name or "Alive at end of the data interval"


InclusionRule = Annotated[
    ObservedRule | AbsentRule | AgeRule | SexRule | AliveRule, Field(discriminator="kind")
]


class CohortDefinition(_Model):
    """Who is in a cohort.

    Attributes:
        name: Name of the cohort.
        entry: Sets the index date.
        inclusion: Applied in this order.
    """

    name: Annotated[str, Field(min_length=1)]
    entry: EntryEvent
    inclusion: tuple[InclusionRule, ...] = ()

    @property
    def value_sets(self) -> tuple[str, ...]:
        """Names of the value sets that it uses, sorted."""
        return tuple(sorted({criterion.value_set for criterion in self._criteria()}))

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that it reads, sorted; ``patient`` always is one."""
        return tuple(sorted({"patient", *(criterion.view for criterion in self._criteria())}))

    def _criteria(self) -> list[EventCriterion]:
        return [self.entry, *(rule for rule in self.inclusion if isinstance(rule, EventCriterion))]
