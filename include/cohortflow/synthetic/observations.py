"""Observations, and the diagnostic reports that collect them, as JSON lines."""

# ruff: noqa: PLR2004  the numbers are the model: ages, rates and limits, each used once

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import orjson
import polars as pl

from cohortflow.synthetic.codes import (
    LOCAL_OBSERVATIONS,
    OBSERVATIONS,
    PANELS,
    SMOKING_STATUS,
    UCUM,
    Code,
)
from cohortflow.synthetic.people import Flags, Trait
from cohortflow.synthetic.scene import HL7, US_CORE, Scene, coding, concept, lookup
from cohortflow.synthetic.streams import Ints, below, uniform
from cohortflow.synthetic.template import JsonTemplate, take
from cohortflow.synthetic.timeline import Draw

__all__ = ["render_observations", "render_reports"]

_BY_NAME = {code.name: code for code in (*OBSERVATIONS, *LOCAL_OBSERVATIONS)}
_LAB, _VITAL, _SOCIAL, _SURVEY = "laboratory", "vital-signs", "social-history", "survey"
_PROFILES = {
    _LAB: "us-core-observation-lab",
    _SOCIAL: "us-core-smokingstatus",
    _SURVEY: "us-core-observation-screening-assessment",
}
_LOCAL_CODES_CLINIC = 2  # its laboratory sends its own code beside LOINC for creatinine
_ADULT = 18

_NORMAL, _LOW, _HIGH = 1, 2, 3
_FLAGS = {_NORMAL: ("N", "Normal"), _LOW: ("L", "Low"), _HIGH: ("H", "High")}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is the same for all observations of a kind.

    Attributes:
        name: Name in ``codes``, or of a variant of it.
        category: Category code.
        profile: US Core profile; by default that of the category.
        codings: Names of its codes; by default its own.
        decimals: Decimal places of a quantity.
        low: Lower limit of the reference range, in units of the last digit.
        high: Upper limit.
        value: Which ``value[x]`` it has.
    """

    name: str
    category: str
    profile: str = ""
    codings: tuple[str, ...] = ()
    decimals: int = 0
    low: int | None = None
    high: int | None = None
    value: str = "Quantity"
    codes: tuple[Code, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", tuple(_BY_NAME[name] for name in self.codings or (self.name,)))

    @property
    def unit(self) -> str:
        return self.codes[0].unit

    def decimal(self, value: int) -> float | int:
        return value if self.decimals == 0 else value / 10**self.decimals


_KINDS = (
    _Kind("height", _VITAL, "us-core-body-height", decimals=1),
    _Kind("weight", _VITAL, "us-core-body-weight", decimals=1),
    _Kind("bmi", _VITAL, "us-core-bmi", decimals=1),
    _Kind("heart_rate", _VITAL, "us-core-heart-rate"),
    _Kind("temperature", _VITAL, "us-core-body-temperature", decimals=1),
    _Kind("spo2", _VITAL, "us-core-pulse-oximetry", codings=("spo2_oximetry", "spo2")),
    _Kind("blood_pressure", _VITAL, "us-core-blood-pressure", value="components"),
    _Kind("a1c", _LAB, codings=("hba1c",), decimals=1, low=40, high=56),
    _Kind("glucose", _LAB, low=70, high=99),
    _Kind("creatinine", _LAB, decimals=2, low=60, high=130),
    _Kind("creatinine_local", _LAB, codings=("creatinine_local", "creatinine"), decimals=2, low=60, high=130),
    _Kind("egfr", _LAB, low=60),
    _Kind("potassium", _LAB, decimals=1, low=35, high=51),
    _Kind("potassium_absent", _LAB, codings=("potassium",), value="absent"),
    _Kind("cholesterol", _LAB, high=199),
    _Kind("triglycerides", _LAB, high=149),
    _Kind("hdl", _LAB, low=40),
    _Kind("ldl", _LAB, high=129),
    _Kind("uacr", _LAB, high=29),
    _Kind("fasting", _LAB, value="Boolean"),
    _Kind("specimen_comment", _LAB, value="String"),
    _Kind("peak_flow", _LAB, "us-core-observation-clinical-result"),
    _Kind("fev1", _LAB, "us-core-observation-clinical-result", decimals=2),
    _Kind("smoking", _SOCIAL, value="CodeableConcept"),
    _Kind("phq2", _SURVEY, value="Integer"),
    _Kind("lmp", _SOCIAL, "us-core-simple-observation", value="DateTime"),
)
_NUMBER = {kind.name: number for number, kind in enumerate(_KINDS)}
_PER_VISIT = 64  # more than the kinds: an observation's number within its patient is slot * 64 + kind

_COMMENTS = ("Specimen slightly hemolyzed", "Specimen lipemic", "Collected by outside laboratory")

_TEMPLATE = JsonTemplate(
    {
        "resourceType": "Observation",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": ["{profile}"]},
        "status": "final",
        "category": "{=category}",
        "code": "{=code}",
        "subject": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "effectiveDateTime": "{effective}",
        "issued": "{issued}",
        "{+before}": None,
        "{+first}": None,
        "{+between}": None,
        "{+second}": None,
        "{+after}": None,
        "performer": [{"reference": "Organization/{organization}"}],
    }
)
_REPORT = JsonTemplate(
    {
        "resourceType": "DiagnosticReport",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-diagnosticreport-lab"]},
        "status": "final",
        "category": [concept(coding(HL7 + "v2-0074", "LAB", "Laboratory"))],
        "code": "{=code}",
        "subject": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "effectiveDateTime": "{effective}",
        "issued": "{issued}",
        "performer": [{"reference": "Organization/{organization}"}],
        "result": [{"reference": f"Observation/{{result{place}}}"} for place in range(4)],
    }
)
_PANEL_MEMBERS = {
    "metabolic": ("glucose", "creatinine", "egfr", "potassium"),
    "lipids": ("cholesterol", "triglycerides", "hdl", "ldl"),
}


def _quantity(unit: str) -> tuple[str, str]:
    text = orjson.dumps({"value": 0, "unit": unit, "system": UCUM, "code": unit}).decode()
    before, after = text.split("0", 1)
    return before, after


def _value_parts(kind: _Kind, flag: int) -> tuple[str, str, str]:
    """Return what stands before, between and after the values of an observation."""
    if kind.value == "components":
        parts = []
        for name in ("systolic", "diastolic"):
            code = _BY_NAME[name]
            head = orjson.dumps(concept(coding(code.system, code.code, code.display))).decode()
            before, after = _quantity(code.unit)
            parts += [f'{{"code":{head},"valueQuantity":{before}', after + "}"]
        return f'"component":[{parts[0]}', f"{parts[1]},{parts[2]}", f"{parts[3]}],"
    if kind.value == "absent":
        reason = concept(coding(HL7 + "data-absent-reason", "error", "Error"), text="Specimen hemolyzed")
        return f'"dataAbsentReason":{orjson.dumps(reason).decode()},', "", ""
    if kind.value != "Quantity":
        quote = '"' if kind.value in {"String", "DateTime"} else ""
        return f'"value{kind.value}":{quote}', "", f"{quote},"
    before, after = _quantity(kind.unit)
    members: dict[str, object] = {}
    if flag:
        members["interpretation"] = [concept(coding(HL7 + "v3-ObservationInterpretation", *_FLAGS[flag]))]
    limits = {
        name: {"value": kind.decimal(value), "unit": kind.unit, "system": UCUM, "code": kind.unit}
        for name, value in (("low", kind.low), ("high", kind.high))
        if value is not None
    }
    if limits:
        members["referenceRange"] = [limits]
    tail = orjson.dumps(members).decode()[1:-1]
    return f'"valueQuantity":{before}', "", f"{after}," + (f"{tail}," if tail else "")


_FLAG_STATES = 4
_PARTS = [_value_parts(kind, flag) for kind in _KINDS for flag in range(_FLAG_STATES)]
_BEFORE, _BETWEEN, _AFTER = (pl.Series([parts[place] for parts in _PARTS]) for place in range(3))
_PROFILE = pl.Series([US_CORE + (kind.profile or _PROFILES[kind.category]) for kind in _KINDS])
_CATEGORY = lookup([[concept(coding(HL7 + "observation-category", kind.category))] for kind in _KINDS])
_CODE = lookup(
    [
        concept(*(coding(c.system, c.code, c.display) for c in kind.codes), text=kind.codes[0].display)
        for kind in _KINDS
    ]
)

# Every value that can be written, in one column: numbers with 0, 1 and 2 decimals, then the rest.
_NUMBERS = 5000
_ATOMS = pl.Series(
    [
        *(str(value) for value in range(_NUMBERS)),
        *(f"{value // 10}.{value % 10}" for value in range(_NUMBERS)),
        *(f"{value // 100}.{value % 100:02}" for value in range(_NUMBERS)),
        *("false", "true", ""),
        *_COMMENTS,
        *(
            orjson.dumps(concept(coding(c.system, c.code, c.display), text=c.display)).decode()
            for c in SMOKING_STATUS
        ),
    ]
)
_BOOLEANS = 3 * _NUMBERS
_NOTHING = _BOOLEANS + 2
_COMMENT_TEXTS = _NOTHING + 1
_SMOKING = _COMMENT_TEXTS + len(_COMMENTS)


@dataclass(slots=True)
class _Rows:
    """Observations in the making: parallel arrays, one entry per kind."""

    kind: list[Ints] = field(default_factory=list)
    visit: list[Ints] = field(default_factory=list)
    first: list[Ints] = field(default_factory=list)
    second: list[Ints] = field(default_factory=list)
    flag: list[Ints] = field(default_factory=list)

    def add(self, name: str, visit: Ints, first: Ints, second: Ints | None = None) -> None:
        """Add the observations of a kind; quantities come in units of their last digit."""
        kind = _KINDS[_NUMBER[name]]
        flag = np.zeros(len(visit), dtype=np.int64)
        if kind.low is not None or kind.high is not None:
            flag[:] = _NORMAL
            if kind.low is not None:
                flag[first < kind.low] = _LOW
            if kind.high is not None:
                flag[first > kind.high] = _HIGH
        if kind.value == "Quantity":
            first = np.clip(first, 0, _NUMBERS - 1) + kind.decimals * _NUMBERS
        self.kind.append(np.full(len(visit), _NUMBER[name], dtype=np.int64))
        self.visit.append(visit)
        self.first.append(first)
        self.second.append(np.full(len(visit), _NOTHING, dtype=np.int64) if second is None else second)
        self.flag.append(flag)


def _collect_vitals(scene: Scene, rows: _Rows) -> None:
    visits, vitals = scene.visits, scene.vitals
    every = np.arange(visits.count)
    measured = {
        "height": vitals.height,
        "weight": vitals.weight,
        "bmi": vitals.bmi,
        "heart_rate": vitals.heart_rate,
        "temperature": vitals.temperature,
        "spo2": vitals.saturation,
    }
    for name, values in measured.items():
        rows.add(name, every, values)
    older = every[visits.age >= 3]  # blood pressure is measured from the age of three
    rows.add("blood_pressure", older, vitals.systolic[older], vitals.diastolic[older])

    blows = every[
        scene.people.asthma[visits.patient] & (visits.age >= 5) & (visits.exacerbation | visits.routine)
    ]
    rows.add("peak_flow", blows, vitals.peak_flow[blows])
    spirometry = blows[visits.routine[blows] & (visits.slot[blows] % 2 == 0)]
    rows.add("fev1", spirometry, vitals.fev1[spirometry])


def _collect_questions(scene: Scene, rows: _Rows) -> None:
    visits, people = scene.visits, scene.people
    every = np.arange(visits.count)
    yearly = every[visits.routine & (visits.slot % 2 == 0) & (visits.age >= _ADULT)]
    habit = people.choose(Trait.SMOKING, 20)[visits.patient[yearly]]
    status = np.select([habit < 12, habit < 17], [0, 1], 2)
    rows.add("smoking", yearly, _SMOKING + status)
    score = below(visits.words[yearly, Draw.MOOD], 4) * below(visits.words[yearly, Draw.INTEREST], 3)
    rows.add("phq2", yearly, score)
    asked = every[
        people.female[visits.patient] & (visits.age >= 14) & (visits.age < 50) & (visits.complaint >= 0)
    ]
    days_ago = 1 + below(visits.words[asked, Draw.MENSTRUATION], 28)
    # Dates stand behind the other atoms, as days before the day on which all records end.
    rows.add("lmp", asked, len(_ATOMS) + scene.stage.as_of - (visits.day[asked] - days_ago))


def _drawn(scene: Scene, panel: Flags) -> tuple[tuple[Ints, Ints], Ints]:
    """Return patients and slots in which a panel was drawn, and the rows of their visits."""
    patient, slot = np.nonzero(panel)
    return (patient, slot), scene.visits.row_of[patient, slot]


def _collect_labs(scene: Scene, rows: _Rows) -> None:
    labs, visits = scene.courses.labs, scene.visits
    at, visit = _drawn(scene, labs.draws_a1c)
    rows.add("a1c", visit, labs.a1c[at])
    at, visit = _drawn(scene, labs.draws_uacr)
    rows.add("uacr", visit, labs.uacr[at])
    at, visit = _drawn(scene, labs.draws_lipids)
    for name, values in (
        ("cholesterol", labs.cholesterol),
        ("triglycerides", labs.triglycerides),
        ("hdl", labs.hdl),
        ("ldl", labs.ldl),
    ):
        rows.add(name, visit, values[at])
    fasting = uniform(visits.words[visit, Draw.FASTING]) < 0.75
    rows.add("fasting", visit, _BOOLEANS + fasting.astype(np.int64))

    at, visit = _drawn(scene, labs.draws_metabolic)
    rows.add("glucose", visit, labs.glucose[at])
    rows.add("egfr", visit, labs.egfr[at])
    local = visits.zone[visit] == _LOCAL_CODES_CLINIC
    creatinine = labs.creatinine[at]
    rows.add("creatinine", visit[~local], creatinine[~local])
    rows.add("creatinine_local", visit[local], creatinine[local])
    lost = uniform(visits.words[visit, Draw.LOST_SPECIMEN]) < 0.01
    rows.add("potassium", visit[~lost], labs.potassium[at][~lost])
    rows.add("potassium_absent", visit[lost], np.full(lost.sum(), _NOTHING))
    commented = visit[lost | (uniform(visits.words[visit, Draw.COMMENT]) < 0.03)]
    comment = below(visits.words[commented, Draw.COMMENT_TEXT], len(_COMMENTS))
    rows.add("specimen_comment", commented, _COMMENT_TEXTS + comment)


def render_observations(scene: Scene) -> pl.Series:
    """Write the observations of all visits, in order of patient and time."""
    rows = _Rows()
    _collect_vitals(scene, rows)
    _collect_questions(scene, rows)
    _collect_labs(scene, rows)
    kind, visit = np.concatenate(rows.kind), np.concatenate(rows.visit)
    order = np.argsort(visit * _PER_VISIT + kind, kind="stable")
    kind, visit = kind[order], visit[order]
    first, second = np.concatenate(rows.first)[order], np.concatenate(rows.second)[order]
    part = kind * _FLAG_STATES + np.concatenate(rows.flag)[order]
    dates = scene.stage.calendar.date(np.arange(scene.stage.as_of, scene.stage.as_of - 4000, -1))
    atoms = pl.concat([_ATOMS, dates])

    visits = scene.visits
    in_lab = np.array([kind.category == _LAB for kind in _KINDS])[kind]
    return _TEMPLATE.render(
        {
            **scene.of_visit(visit),
            "id": _observation_ids(scene, visit, kind),
            "updated": take(scene.updated(visits.day), visit),
            "profile": take(_PROFILE, kind),
            "category": take(_CATEGORY, kind),
            "code": take(_CODE, kind),
            "effective": take(scene.local(np.arange(visits.count), 5), visit),
            "issued": scene.instant(visit, np.where(in_lab, 185, 5)),
            "before": take(_BEFORE, part),
            "first": take(atoms, first),
            "between": take(_BETWEEN, part),
            "second": take(atoms, second),
            "after": take(_AFTER, part),
        }
    )


def _observation_ids(scene: Scene, visit: Ints, kind: Ints) -> pl.Series:
    # Variants of a kind are the same observation with another code or without a value.
    kind = np.where(kind == _NUMBER["creatinine_local"], _NUMBER["creatinine"], kind)
    kind = np.where(kind == _NUMBER["potassium_absent"], _NUMBER["potassium"], kind)
    visits = scene.visits
    return scene.people.ids.derive(
        "Observation", visits.patient[visit], visits.slot[visit] * _PER_VISIT + kind
    )


def render_reports(scene: Scene) -> pl.Series:
    """Write a diagnostic report for each panel that was drawn."""
    labs = scene.courses.labs
    visits = [_drawn(scene, panel)[1] for panel in (labs.draws_metabolic, labs.draws_lipids)]
    panel = np.repeat(np.arange(2), [len(visit) for visit in visits])
    visit = np.concatenate(visits)
    order = np.lexsort((panel, visit))
    panel, visit = panel[order], visit[order]
    members = np.array([[_NUMBER[name] for name in _PANEL_MEMBERS[code.name]] for code in PANELS])[panel]
    at = scene.visits
    return _REPORT.render(
        {
            **scene.of_visit(visit),
            "id": scene.people.ids.derive("DiagnosticReport", at.patient[visit], at.slot[visit] * 4 + panel),
            "updated": scene.updated(at.day[visit]),
            "code": take(
                lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in PANELS]), panel
            ),
            "effective": scene.local(visit, 5),
            "issued": scene.instant(visit, 185),
            **{f"result{place}": _observation_ids(scene, visit, members[:, place]) for place in range(4)},
        }
    )
