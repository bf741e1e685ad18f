"""Medication requests, procedures, immunizations and allergies as JSON lines."""

# ruff: noqa: PLR2004  the numbers are the model: ages, rates and limits, each used once

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from cohortflow.synthetic.clinical import condition_ids
from cohortflow.synthetic.codes import ALLERGIES, IMMUNIZATIONS, MEDICATIONS, PROCEDURES
from cohortflow.synthetic.courses import NEVER
from cohortflow.synthetic.people import Flags, Trait
from cohortflow.synthetic.scene import HL7, US_CORE, Scene, coding, concept, lookup
from cohortflow.synthetic.streams import Ints, below, uniform
from cohortflow.synthetic.template import JsonTemplate, concat, take
from cohortflow.synthetic.timeline import COMPLAINTS, ROUTINE, Draw

__all__ = ["render_allergies", "render_immunizations", "render_medications", "render_procedures"]

_DRUG = {code.name: number for number, code in enumerate(MEDICATIONS)}
_PER_VISIT = 16  # more than the drugs, the procedures or the vaccines
_CKD4 = 2

_DOSAGES = {
    "metformin": "Take 1 tablet by mouth twice daily with meals",
    "empagliflozin": "Take 1 tablet by mouth every morning",
    "insulin_glargine": "Inject 10 units under the skin at bedtime",
    "lisinopril": "Take 1 tablet by mouth once daily",
    "amlodipine": "Take 1 tablet by mouth once daily",
    "atorvastatin": "Take 1 tablet by mouth at bedtime",
    "albuterol": "Inhale 2 puffs every 4 to 6 hours as needed for wheezing",
    "fluticasone": "Inhale 2 puffs twice daily",
    "prednisone": "Take 2 tablets by mouth once daily for 5 days",
    "amoxicillin": "Take 1 capsule by mouth three times daily for 10 days",
    "acetaminophen": "Take 2 tablets by mouth every 6 hours as needed for pain or fever",
    "ibuprofen": "Take 2 tablets by mouth every 8 hours as needed for pain",
}
_COMPLAINT_DRUG = {
    "common_cold": "acetaminophen",
    "pharyngitis": "amoxicillin",
    "sinusitis": "amoxicillin",
    "otitis_media": "amoxicillin",
    "ankle_sprain": "ibuprofen",
    "low_back_pain": "ibuprofen",
}
_ACTIVE, _COMPLETED, _STOPPED = 0, 1, 2

_MEDICATION = JsonTemplate(
    {
        "resourceType": "MedicationRequest",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-medicationrequest"]},
        "status": "{status}",
        "intent": "order",
        "medicationCodeableConcept": "{=code}",
        "subject": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "authoredOn": "{authored}",
        "requester": {"reference": "Practitioner/{practitioner}"},
        "{+reason}": None,
        "dosageInstruction": [{"text": "{dosage}"}],
    }
)
_STATUS = pl.Series(["active", "completed", "stopped"])
_CODE = lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in MEDICATIONS])
_DOSAGE = pl.Series([_DOSAGES[code.name] for code in MEDICATIONS])


@dataclass(slots=True)
class _Orders:
    """Medication requests in the making: parallel lists of arrays."""

    drug: list[Ints] = field(default_factory=list)
    visit: list[Ints] = field(default_factory=list)
    status: list[Ints] = field(default_factory=list)
    reason: list[pl.Series] = field(default_factory=list)

    def add(self, drug: str, visit: Ints, status: Ints, reason: pl.Series | None = None) -> None:
        self.drug.append(np.full(len(visit), _DRUG[drug], dtype=np.int64))
        self.visit.append(visit)
        self.status.append(status)
        if reason is None:
            self.reason.append(pl.Series([""]).new_from_index(0, len(visit)))
        else:
            self.reason.append(concat('"reasonReference":[{"reference":"Condition/', reason, '"}],'))


def _order_for_years(
    scene: Scene, orders: _Orders, drug: str, start: Ints, condition: str, stop: Ints | None = None
) -> None:
    """Order a drug at a visit and again each year, until a visit at which it is stopped."""
    people, slots = scene.people, np.arange(ROUTINE)
    begins, ends = start[:, None], np.full((people.count, 1), ROUTINE) if stop is None else stop[:, None]
    ends = np.where(ends < 0, ROUTINE, ends)
    came = scene.visits.row_of[:, :ROUTINE] >= 0
    ordered = (
        came & (begins >= 0) & (slots >= begins) & (slots < ends) & ((slots == begins) | (slots % 2 == 0))
    )
    patient, slot = np.nonzero(ordered)
    last = ROUTINE - 1 - ordered[:, ::-1].argmax(axis=1)
    stopped = (ends[:, 0] < ROUTINE)[patient]
    dead = (people.death_day >= 0)[patient]
    status = np.select([slot != last[patient], stopped, dead], [_COMPLETED, _STOPPED, _COMPLETED], _ACTIVE)
    orders.add(drug, scene.visit_at(patient, slot), status, condition_ids(scene, patient, condition))


def _second_visit(scene: Scene, slot: Ints, some: Flags) -> Ints:
    """Return the first routine visit after a slot, for some patients."""
    slots = np.arange(ROUTINE)
    later = (scene.visits.row_of[:, :ROUTINE] >= 0) & (slots > slot[:, None]) & ((slot >= 0) & some)[:, None]
    return np.where(later.any(axis=1), later.argmax(axis=1), NEVER)


def render_medications(scene: Scene) -> pl.Series:
    """Write the medication requests, in order of patient and time."""
    people, courses, visits = scene.people, scene.courses, scene.visits
    orders = _Orders()
    severe = courses.ckd_slot[:, _CKD4:]
    # Metformin is contraindicated below 30 mL/min/1.73 m2.
    stop = np.where((severe >= 0).any(axis=1), np.where(severe < 0, ROUTINE, severe).min(axis=1), NEVER)
    starts = np.where((stop >= 0) & (stop <= courses.t2d_slot), NEVER, courses.t2d_slot)
    _order_for_years(scene, orders, "metformin", starts, "t2d", stop)
    _order_for_years(scene, orders, "empagliflozin", _attended(scene, courses.second_drug_slot), "t2d")
    _order_for_years(scene, orders, "insulin_glargine", _attended(scene, courses.insulin_slot), "t2d")
    _order_for_years(scene, orders, "lisinopril", courses.hypertension_slot, "hypertension")
    second = _second_visit(scene, courses.hypertension_slot, people.choose(Trait.SECOND_DRUG, 5) < 2)
    _order_for_years(scene, orders, "amlodipine", second, "hypertension")
    _order_for_years(scene, orders, "atorvastatin", courses.lipids_slot, "hyperlipidemia")
    asthma = np.where(people.asthma, 0, NEVER)
    _order_for_years(scene, orders, "albuterol", asthma, "asthma")
    persistent = np.where(people.choose(Trait.CONTROLLER_INHALER, 2) == 0, asthma, NEVER)
    _order_for_years(scene, orders, "fluticasone", persistent, "asthma")

    attacks = np.nonzero(visits.exacerbation)[0]
    done = np.full(len(attacks), _COMPLETED)
    orders.add("prednisone", attacks, done, condition_ids(scene, visits.patient[attacks], "asthma"))
    amoxicillin_allergy = _draw_allergies(scene)[0] == 1
    for name, prescribed in _COMPLAINT_DRUG.items():
        visit = np.nonzero(visits.complaint == COMPLAINTS.index(name))[0]
        if prescribed == "amoxicillin":
            visit = visit[~amoxicillin_allergy[visits.patient[visit]]]
        orders.add(prescribed, visit, np.full(len(visit), _COMPLETED))

    drug, visit = np.concatenate(orders.drug), np.concatenate(orders.visit)
    order = np.lexsort((drug, visit))
    drug, visit = drug[order], visit[order]
    return _MEDICATION.render(
        {
            **scene.of_visit(visit),
            "id": scene.people.ids.derive(
                "MedicationRequest", visits.patient[visit], visits.slot[visit] * _PER_VISIT + drug
            ),
            "updated": scene.updated(visits.day[visit]),
            "status": take(_STATUS, np.concatenate(orders.status)[order]),
            "code": take(_CODE, drug),
            "authored": scene.local(visit, 15),
            "reason": take(pl.concat(orders.reason), order),
            "dosage": take(_DOSAGE, drug),
        }
    )


def _attended(scene: Scene, slot: Ints) -> Ints:
    rows = scene.visits.row_of[np.arange(scene.people.count), np.maximum(slot, 0)]
    return np.where((slot >= 0) & (rows >= 0), slot, NEVER)


_PROCEDURE = JsonTemplate(
    {
        "resourceType": "Procedure",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-procedure"]},
        "status": "completed",
        "code": "{=code}",
        "subject": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "{+performed}": None,
        "performer": [{"actor": {"reference": "Practitioner/{practitioner}"}}],
    }
)
_PROCEDURE_CODE = lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in PROCEDURES])
_LASTS = np.array([code.name in {"colonoscopy", "spirometry"} for code in PROCEDURES])


def render_procedures(scene: Scene) -> pl.Series:
    """Write the procedures, in order of patient and time."""
    people, visits, courses = scene.people, scene.visits, scene.courses
    patient, slot, age, words = visits.patient, visits.slot, visits.age, visits.words
    yearly = visits.routine & (slot % 2 == 0)
    t2d_slot = courses.t2d_slot[patient]
    diabetic = yearly & (t2d_slot >= 0) & (slot >= t2d_slot)
    chosen = {
        "foot_exam": diabetic,
        "retinal_screening": diabetic & (uniform(words[:, Draw.RETINAL_SCREENING]) < 0.7),
        "spirometry": yearly & people.asthma[patient] & (age >= 5),
        "colonoscopy": (slot == 4)
        & (age >= 45)
        & (age <= 75)
        & (people.choose(Trait.COLONOSCOPY, 2)[patient] == 0),
        "electrocardiogram": slot == courses.hypertension_slot[patient],
        "medication_reconciliation": yearly & (age >= 65) & (uniform(words[:, Draw.RECONCILIATION]) < 0.6),
    }
    visit, number = np.nonzero(np.stack([chosen[code.name] for code in PROCEDURES], axis=1))
    start, end = scene.local(visit, 5), scene.local(visit, 15)
    period = concat('"performedPeriod":{"start":"', start, '","end":"', end, '"},')
    moment = concat('"performedDateTime":"', start, '",')
    lasts = pl.Series(_LASTS[number])
    return _PROCEDURE.render(
        {
            **scene.of_visit(visit),
            "id": people.ids.derive("Procedure", patient[visit], slot[visit] * _PER_VISIT + number),
            "updated": scene.updated(visits.day[visit]),
            "code": take(_PROCEDURE_CODE, number),
            "performed": pl.select(pl.when(lasts).then(period).otherwise(moment)).to_series(),
        }
    )


_IMMUNIZATION = JsonTemplate(
    {
        "resourceType": "Immunization",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-immunization"]},
        "{+status}": None,
        "vaccineCode": "{=code}",
        "patient": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "occurrenceDateTime": "{occurred}",
        "primarySource": True,
        "{+lot}": None,
        "performer": [{"actor": {"reference": "Practitioner/{practitioner}"}}],
    }
)
_VACCINE = lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in IMMUNIZATIONS])
_REFUSED = concept(coding(HL7 + "v3-ActReason", "PATOBJ", "patient objection"))
_GIVEN_OR_NOT = pl.Series(
    [
        '"status":"completed",',
        f'"status":"not-done","statusReason":{lookup([_REFUSED])[0]},',
    ]
)


def render_immunizations(scene: Scene) -> pl.Series:
    """Write the immunizations, in order of patient and time; a few were refused."""
    people, visits = scene.people, scene.visits
    patient, slot, age, words = visits.patient, visits.slot, visits.age, visits.words
    month = visits.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    autumn = visits.routine & (month >= 8) & (age >= 1)  # September
    toddler = np.nonzero(visits.routine & (age == 1))[0]
    first_as_toddler = np.zeros(visits.count, dtype=np.bool_)
    first_as_toddler[toddler[np.unique(patient[toddler], return_index=True)[1]]] = True
    some = people.choose(Trait.VACCINES, 3)[patient]
    chosen = {
        "influenza": autumn & (uniform(words[:, Draw.INFLUENZA]) < 0.6),
        "tdap": (slot == 2) & (age >= 11) & (some == 0),
        "pneumococcal": (slot == 1) & (age >= 65),
        "zoster": (slot == 3) & (age >= 50) & (some > 0),
        "mmr": first_as_toddler,
        "varicella": first_as_toddler,
    }
    visit, number = np.nonzero(np.stack([chosen[code.name] for code in IMMUNIZATIONS], axis=1))
    refused = uniform(words[visit, Draw.REFUSAL]) < 0.03
    lot = pl.Series(10_000 + below(words[visit, Draw.LOT], 90_000)).cast(pl.String)
    return _IMMUNIZATION.render(
        {
            **scene.of_visit(visit),
            "id": people.ids.derive("Immunization", patient[visit], slot[visit] * _PER_VISIT + number),
            "updated": scene.updated(visits.day[visit]),
            "status": take(_GIVEN_OR_NOT, refused.astype(np.int64)),
            "code": take(_VACCINE, number),
            "occurred": scene.local(visit, 10),
            "lot": pl.select(
                pl.when(pl.Series(refused)).then(pl.lit("")).otherwise(concat('"lotNumber":"LOT', lot, '",'))
            ).to_series(),
        }
    )


_ALLERGY = JsonTemplate(
    {
        "resourceType": "AllergyIntolerance",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-allergyintolerance"]},
        "clinicalStatus": concept(coding(HL7 + "allergyintolerance-clinical", "active")),
        "verificationStatus": concept(coding(HL7 + "allergyintolerance-verification", "confirmed")),
        "{+kind}": None,
        "code": "{=code}",
        "patient": {"reference": "Patient/{patient}"},
        "encounter": {"reference": "Encounter/{encounter}"},
        "{+onset}": None,
        "recordedDate": "{recorded}",
        "recorder": {"reference": "Practitioner/{practitioner}"},
    }
)
_ALLERGY_CODE = lookup([concept(coding(c.system, c.code, c.display), text=c.display) for c in ALLERGIES])
_ALLERGY_CATEGORY = ("", *["medication"] * 4, "food", "environment", "environment")
_ALLERGY_KIND = pl.Series(
    [
        f'"type":"allergy","category":["{category}"],'
        f'"criticality":"{"high" if category == "food" else "low"}",'
        if category
        else ""
        for category in _ALLERGY_CATEGORY
    ]
)


def _draw_allergies(scene: Scene) -> tuple[Ints, Flags]:
    """Return each patient's allergy (0: none known) and whether the record says anything about it."""
    words = scene.stage.streams.words("allergy", scene.people.first, scene.people.count, 2)
    u = uniform(words[:, 0])
    allergy = np.where(u < 0.3, 1 + below(words[:, 1], len(ALLERGIES) - 1), 0)
    return allergy, u < 0.7


def render_allergies(scene: Scene) -> pl.Series:
    """Write the allergies, and the statements that there are none, in order of patient."""
    people, visits = scene.people, scene.visits
    allergy, stated = _draw_allergies(scene)
    patient = np.nonzero(stated)[0]
    allergy = allergy[patient]
    visit = scene.visit_at(patient, np.zeros(len(patient), dtype=np.int64))
    # The year alone, and only where it cannot fall before birth.
    year = scene.stage.calendar.date(visits.day[visit] - 400).str.head(4)
    remembered = (
        (allergy > 0) & (visits.age[visit] >= 3) & (people.choose(Trait.ALLERGY_MEMORY, 2)[patient] == 0)
    )
    return _ALLERGY.render(
        {
            **scene.of_visit(visit),
            "id": people.ids.derive("AllergyIntolerance", patient, np.zeros(len(patient), dtype=np.int64)),
            "updated": scene.updated(visits.day[visit]),
            "kind": take(_ALLERGY_KIND, allergy),
            "code": take(_ALLERGY_CODE, allergy),
            "onset": pl.select(
                pl.when(pl.Series(remembered))
                .then(concat('"onsetDateTime":"', year, '",'))
                .otherwise(pl.lit(""))
            ).to_series(),
            "recorded": scene.local(visit, 10),
        }
    )
