"""Encounters and conditions as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from cohortflow.synthetic.codes import CONDITIONS, ENCOUNTER_TYPES, ICD10CM, SNOMED
from cohortflow.synthetic.courses import NEVER
from cohortflow.synthetic.names import CLINICS
from cohortflow.synthetic.people import Flags, Trait
from cohortflow.synthetic.scene import HL7, US_CORE, Scene, coding, concept, lookup
from cohortflow.synthetic.streams import Ints, below
from cohortflow.synthetic.template import JsonTemplate, concat, take
from cohortflow.synthetic.timeline import COMPLAINTS, Draw, Kind

__all__ = ["CONDITION_NUMBER", "condition_ids", "render_conditions", "render_encounters"]

CONDITION_NUMBER = {condition.name: number for number, condition in enumerate(CONDITIONS)}
_ACUTE_FROM = 64  # conditions of acute visits are numbered by slot from here, chronic ones by their kind
_REFUTED = 63
_CKD = ("ckd3a", "ckd3b", "ckd4", "ckd5")
_NO_CODE = len(CONDITIONS)

_CODINGS = [
    (coding(SNOMED, c.snomed, c.snomed_display), coding(ICD10CM, c.icd10cm, c.icd10cm_display))
    for c in CONDITIONS
]
_CODE = lookup([concept(*both, text=both[1]["display"]) for both in _CODINGS])
_REASON = pl.concat(
    [
        pl.select(
            '"reasonCode":[' + pl.lit(lookup([concept(both[0]) for both in _CODINGS])) + "],"
        ).to_series(),
        pl.Series([""]),
    ]
)

_ENCOUNTER = JsonTemplate(
    {
        "resourceType": "Encounter",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-encounter"]},
        "status": "finished",
        "class": "{=class}",
        "type": ["{=type}"],
        "subject": {"reference": "Patient/{patient}"},
        "participant": [
            {
                "type": [concept(coding(HL7 + "v3-ParticipationType", "PPRF", "primary performer"))],
                "individual": {"reference": "Practitioner/{practitioner}", "display": "{practitioner_name}"},
            }
        ],
        "period": {"start": "{start}", "end": "{end}"},
        "{+reason}": None,
        "serviceProvider": {"reference": "Organization/{organization}", "display": "{clinic}"},
    }
)
_CLASS = lookup(
    [
        coding(HL7 + "v3-ActCode", "EMER", "emergency")
        if number == Kind.EMERGENCY
        else coding(HL7 + "v3-ActCode", "AMB", "ambulatory")
        for number in range(len(ENCOUNTER_TYPES))
    ]
)
_TYPE = lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in ENCOUNTER_TYPES])
_CLINIC = pl.Series([clinic.name for clinic in CLINICS])


def render_encounters(scene: Scene) -> pl.Series:
    """Write the visits, in order of patient and time."""
    visits, courses, staff = scene.visits, scene.courses, scene.stage.staff
    every = np.arange(visits.count)
    names = pl.Series(
        [f"Dr. {given} {family}" for given, family in zip(staff.given, staff.family, strict=True)]
    )

    def follows(slot: Ints) -> Flags:
        own = slot[visits.patient]
        return visits.routine & (own >= 0) & (visits.slot >= own)

    complaints = np.array([*(CONDITION_NUMBER[name] for name in COMPLAINTS), _NO_CODE])
    reason = np.select(
        [
            visits.exacerbation,
            visits.complaint >= 0,
            follows(courses.t2d_slot),
            follows(courses.hypertension_slot),
            follows(courses.prediabetes_slot),
        ],
        [
            np.full(visits.count, CONDITION_NUMBER["asthma_exacerbation"]),
            complaints[visits.complaint],
            *(
                np.full(visits.count, CONDITION_NUMBER[name])
                for name in ("t2d", "hypertension", "prediabetes")
            ),
        ],
        _NO_CODE,
    )
    return _ENCOUNTER.render(
        {
            **scene.of_visit(every),
            "id": scene.encounter_ids,
            "updated": scene.updated(visits.day),
            "class": take(_CLASS, visits.kind),
            "type": take(_TYPE, visits.kind),
            "practitioner_name": take(names, visits.practitioner),
            "start": scene.local(every),
            "end": scene.local(every, visits.duration),
            "reason": take(_REASON, reason),
            "clinic": take(_CLINIC, visits.zone),
        }
    )


_ACTIVE, _INACTIVE, _RESOLVED = 0, 1, 2
_CONDITION = JsonTemplate(
    {
        "resourceType": "Condition",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": ["{profile}"]},
        "clinicalStatus": "{=clinical}",
        "verificationStatus": "{=verification}",
        "category": [concept(coding(HL7 + "condition-category", "{category}"))],
        "code": "{=code}",
        "subject": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "onsetDateTime": "{onset}",
        "{+abatement}": None,
        "recordedDate": "{recorded}",
        "recorder": {"reference": "Practitioner/{practitioner}"},
    }
)
_CLINICAL = lookup(
    [concept(coding(HL7 + "condition-clinical", code)) for code in ("active", "inactive", "resolved")]
)
_VERIFICATION = lookup(
    [concept(coding(HL7 + "condition-ver-status", code)) for code in ("confirmed", "refuted")]
)
_PROFILE = pl.Series(
    [
        US_CORE + "us-core-condition-problems-health-concerns",
        US_CORE + "us-core-condition-encounter-diagnosis",
    ]
)
_CATEGORY = pl.Series(["problem-list-item", "encounter-diagnosis"])


@dataclass(slots=True)
class _Rows:
    """Conditions in the making: parallel lists of arrays."""

    code: list[Ints] = field(default_factory=list)
    number: list[Ints] = field(default_factory=list)
    visit: list[Ints] = field(default_factory=list)
    onset: list[Ints] = field(default_factory=list)
    abatement: list[Ints] = field(default_factory=list)
    status: list[Ints] = field(default_factory=list)

    def add(
        self, code: int | Ints, number: int | Ints, visit: Ints, onset: Ints, abatement: Ints, ended: int
    ) -> None:
        rows = len(visit)
        self.code.append(np.broadcast_to(np.asarray(code, dtype=np.int64), rows))
        self.number.append(np.broadcast_to(np.asarray(number, dtype=np.int64), rows))
        self.visit.append(visit)
        self.onset.append(onset)
        self.abatement.append(abatement)
        self.status.append(np.where(abatement >= 0, ended, _ACTIVE))


def condition_ids(scene: Scene, patient: Ints, name: str) -> pl.Series:
    """Return the ids of a chronic condition of patients who have it."""
    number = np.full(len(patient), CONDITION_NUMBER[name], dtype=np.int64)
    return scene.people.ids.derive("Condition", patient, number)


def _collect_chronic(scene: Scene, rows: _Rows) -> None:
    people, visits, courses = scene.people, scene.visits, scene.courses
    asthma_slot = np.where(people.asthma, 0, NEVER)
    nothing = np.full(people.count, NEVER, dtype=np.int64)
    chronic: list[tuple[str, Ints, Ints | None, Ints]] = [
        ("t2d", courses.t2d_slot, courses.t2d_onset, nothing),
        ("prediabetes", courses.prediabetes_slot, None, nothing),
        ("hypertension", courses.hypertension_slot, courses.hypertension_onset, nothing),
        ("hyperlipidemia", courses.lipids_slot, None, nothing),
        ("asthma", asthma_slot, courses.asthma_onset, nothing),
    ]
    ends = nothing
    for place in reversed(range(len(_CKD))):
        slot = courses.ckd_slot[:, place]
        chronic.append((_CKD[place], slot, None, ends))
        ends = np.where(slot >= 0, scene.day_at(slot), ends)
    for name, slot, onset, end in chronic:
        patient = np.nonzero(slot >= 0)[0]
        visit = scene.visit_at(patient, slot[patient])
        begins = visits.day[visit] if onset is None else onset[patient]
        number = CONDITION_NUMBER[name]
        rows.add(number, number, visit, begins, end[patient], _INACTIVE)

    obese = np.nonzero(scene.vitals.first_obese)[0]
    number = CONDITION_NUMBER["obesity"]
    rows.add(number, number, obese, visits.day[obese], np.full(len(obese), NEVER), _INACTIVE)

    patient = np.nonzero(courses.refuted_slot >= 0)[0]
    visit = scene.visit_at(patient, courses.refuted_slot[patient])
    day = visits.day[visit]
    rows.add(CONDITION_NUMBER["t2d"], _REFUTED, visit, day, day, _INACTIVE)


def _collect_acute(scene: Scene, rows: _Rows) -> None:
    people, visits = scene.people, scene.visits
    complaints = np.array([CONDITION_NUMBER[name] for name in COMPLAINTS])
    visit = np.nonzero((visits.complaint >= 0) | visits.exacerbation)[0]
    attack = visits.exacerbation[visit]
    code = np.where(attack, CONDITION_NUMBER["asthma_exacerbation"], complaints[visits.complaint[visit]])
    day, words = visits.day[visit], visits.words[visit]
    onset = day - np.where(attack, 0, below(words[:, Draw.ONSET], 4))
    abatement = day + 5 + below(words[:, Draw.ABATEMENT], 14)
    over = abatement < people.end_day[visits.patient[visit]] - 1
    rows.add(
        code, _ACUTE_FROM + visits.slot[visit], visit, onset, np.where(over, abatement, NEVER), _RESOLVED
    )


def render_conditions(scene: Scene) -> pl.Series:
    """Write the conditions, in order of patient and time of record."""
    rows = _Rows()
    _collect_chronic(scene, rows)
    _collect_acute(scene, rows)
    visit, number = np.concatenate(rows.visit), np.concatenate(rows.number)
    order = np.lexsort((number, visit))
    visit, number = visit[order], number[order]
    code, onset, abatement, status = (
        np.concatenate(column)[order] for column in (rows.code, rows.onset, rows.abatement, rows.status)
    )
    visits, calendar = scene.visits, scene.stage.calendar
    patient = visits.patient[visit]

    # The history of every third patient remembers the month only.
    dates = calendar.date(onset)
    vague = scene.people.choose(Trait.MONTH_MEMORY, 3)[patient] == 0
    months = (onset < visits.day[visit]) & (number < _REFUTED) & vague
    onsets = pl.select(
        pl.when(pl.Series(months)).then(pl.lit(dates).str.head(7)).otherwise(pl.lit(dates))
    ).to_series()
    ended = abatement >= 0
    endings = concat('"abatementDateTime":"', calendar.date(np.where(ended, abatement, onset)), '",')
    diagnosis = (number >= _ACUTE_FROM).astype(np.int64)
    return _CONDITION.render(
        {
            **scene.of_visit(visit),
            "id": scene.people.ids.derive("Condition", patient, number),
            "updated": scene.updated(np.maximum(abatement, visits.day[visit])),
            "profile": take(_PROFILE, diagnosis),
            "clinical": take(_CLINICAL, status),
            "verification": take(_VERIFICATION, (number == _REFUTED).astype(np.int64)),
            "category": take(_CATEGORY, diagnosis),
            "code": take(_CODE, code),
            "onset": onsets,
            "abatement": pl.select(pl.when(pl.Series(ended)).then(endings).otherwise(pl.lit(""))).to_series(),
            "recorded": scene.local(visit, 10),
        }
    )
