"""Clinical notes as DocumentReferences, and the record of what identifies the patient in each.

The notes hold the identifiers that free text holds in practice: the patient's and a relative's name, the
clinician, the clinic, record and social security numbers, addresses, telephone numbers and dates in
several forms. Each is listed with its place, so that the recall of a de-identification can be measured;
eponyms such as "Babinski" stand among them as decoys. The description of the resource names the patient
and the day, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from cohortflow.synthetic.codes import DOCUMENT_TYPES
from cohortflow.synthetic.names import CLINICS
from cohortflow.synthetic.patients import Identity
from cohortflow.synthetic.people import Flags
from cohortflow.synthetic.scene import HL7, US_CORE, Scene, coding, concept
from cohortflow.synthetic.streams import Ints, below, uniform
from cohortflow.synthetic.template import JsonTemplate, concat, take
from cohortflow.synthetic.timeline import Draw

__all__ = ["PLANTED_SCHEMA", "Notes", "render_notes"]

PLANTED_SCHEMA = {
    "document_id": pl.String,
    "patient_id": pl.String,
    "kind": pl.String,
    "start": pl.Int64,
    "end": pl.Int64,
    "text": pl.String,
}
"""One row per planted identifier; ``start`` and ``end`` count characters of the decoded note."""

_OLD = 90  # ages from 90 on identify (45 CFR 164.514(b)(2)(i)(C))

_PROGRESS = """{clinic:ORGANIZATION}
PROGRESS NOTE

Patient: {full_name:NAME}
Date of birth: {birth_us:DATE}
MRN: {mrn:MRN}
Date of visit: {visit_iso:DATE}

SUBJECTIVE
{title} {family:NAME} is a {age:AGE}-year-old {sex} who comes for {reason}. Accompanied by {relative:NAME}.
No chest pain, no shortness of breath. Takes medication as prescribed.

OBJECTIVE
Blood pressure {pressure} mmHg, heart rate {heart_rate}/min, weight {weight} kg.
Lungs clear, Babinski sign negative, no Heberden nodes.

PLAN
Continue current treatment. Follow-up on {next_long:DATE}. Results will be sent to {email:EMAIL};
{given:NAME} can be reached at {phone:PHONE}.

Electronically signed by {doctor:PROVIDER}, {visit_us:DATE}
"""
_TELEPHONE = """TELEPHONE ENCOUNTER

Spoke with {title} {full_name:NAME} (MRN {mrn:MRN}) on {visit_us:DATE} at {phone:PHONE}.
Address on file confirmed: {address:ADDRESS}.

Discussed home blood pressure readings, last value in clinic {pressure} mmHg. Advised to bring the
Holter recorder back. {relative:NAME} will collect the prescription. Appointment moved to
{next_long:DATE} with {doctor:PROVIDER}.

Note written by {doctor:PROVIDER}, {clinic:ORGANIZATION}
"""
_EMERGENCY = """EMERGENCY DEPARTMENT SUMMARY

{name_reversed:NAME}  DOB {birth_iso:DATE}  MRN {mrn:MRN}  SSN {ssn:SSN}
Arrival: {visit_long:DATE}

{title} {family:NAME}, {age:AGE} years, presented with wheezing and dyspnea, SpO2 {saturation} % on room
air. Given nebulized albuterol and oral prednisone with good response. No Cheyne-Stokes respiration.

Emergency contact: {relative:NAME}, {phone:PHONE}
Home address: {address:ADDRESS}
Discharged home, to see {doctor:PROVIDER} at {clinic:ORGANIZATION} by {next_us:DATE}.
"""
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a note: the column that fills it, and the kind of identifier this plants, if any."""

    name: str
    kind: str


def _parse(form: str) -> tuple[str | _Slot, ...]:
    pieces: list[str | _Slot] = []
    position = 0
    for match in _SLOT.finditer(form):
        pieces += [form[position : match.start()], _Slot(match[1], match[2] or "")]
        position = match.end()
    return (*pieces, form[position:])


_FORMS = tuple(_parse(form) for form in (_PROGRESS, _TELEPHONE, _EMERGENCY))
_REASONS = pl.Series(["a regular check-up", "a scheduled follow-up", "an acute complaint", "an emergency"])

_DOCUMENT = JsonTemplate(
    {
        "resourceType": "DocumentReference",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-documentreference"]},
        "status": "current",
        "type": concept(*(coding(c.system, c.code, c.display) for c in DOCUMENT_TYPES)),
        "category": [
            concept(
                coding(
                    "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
                    "clinical-note",
                )
            )
        ],
        "subject": {"reference": "Patient/{patient}"},
        "date": "{date}",
        "author": [{"reference": "Practitioner/{practitioner}", "display": "{doctor}"}],
        "description": "Note about {full_name}, {visit_us}",
        "securityLabel": [concept(coding(HL7 + "v3-Confidentiality", "N", "normal"))],
        "content": [{"attachment": {"contentType": "text/plain", "data": "{data}"}}],
        "context": {
            "encounter": [{"reference": "Encounter/{encounter}"}],
            "period": {"start": "{start}", "end": "{end}"},
        },
    }
)


@dataclass(frozen=True, slots=True)
class Notes:
    """Notes and what was planted in them.

    Attributes:
        lines: DocumentReferences as JSON lines, in order of patient and time.
        planted: What identifies the patient in each, by ``PLANTED_SCHEMA``.
    """

    lines: pl.Series
    planted: pl.DataFrame


def _format(day: Ints, pattern: str) -> pl.Series:
    return pl.Series(day.astype(np.int32)).cast(pl.Date).dt.strftime(pattern)


def _columns(scene: Scene, identity: Identity, visit: Ints) -> dict[str, pl.Series]:
    """Return everything that a note of a visit can say."""
    visits, vitals, staff = scene.visits, scene.vitals, scene.stage.staff
    patient = visits.patient[visit]
    own = {name: take(getattr(identity, name), patient) for name in Identity.__slots__}
    day, birth = visits.day[visit], scene.people.birth_day[patient]
    following = day + 60 + below(visits.words[visit, Draw.NEXT_VISIT], 120)
    doctors = pl.Series(
        [f"Dr. {first} {last}" for first, last in zip(staff.given, staff.family, strict=True)]
    )
    female = scene.people.female[patient].astype(np.int64)
    weight = vitals.weight[visit]
    return {
        **scene.of_visit(visit),
        **own,
        "full_name": concat(own["given"], " ", own["family"]),
        "name_reversed": concat(own["family"], ", ", own["given"], " ", own["middle"]),
        "relative": concat(own["relative"], " ", own["family"]),
        "address": concat(own["line"], ", ", own["city"], ", ", own["state"], " ", own["postal_code"]),
        "title": take(pl.Series(["Mr.", "Ms."]), female),
        "sex": take(pl.Series(["male", "female"]), female),
        "age": pl.Series(visits.age[visit]).cast(pl.String),
        "reason": take(_REASONS, visits.kind[visit]),
        "clinic": take(pl.Series([clinic.name for clinic in CLINICS]), visits.zone[visit]),
        "doctor": take(doctors, visits.practitioner[visit]),
        "pressure": concat(
            pl.Series(vitals.systolic[visit]).cast(pl.String),
            "/",
            pl.Series(vitals.diastolic[visit]).cast(pl.String),
        ),
        "heart_rate": pl.Series(vitals.heart_rate[visit]).cast(pl.String),
        "saturation": pl.Series(vitals.saturation[visit]).cast(pl.String),
        "weight": concat(
            pl.Series(weight // 10).cast(pl.String), ".", pl.Series(weight % 10).cast(pl.String)
        ),
        "birth_iso": _format(birth, "%Y-%m-%d"),
        "birth_us": _format(birth, "%m/%d/%Y"),
        "visit_iso": _format(day, "%Y-%m-%d"),
        "visit_us": _format(day, "%m/%d/%Y"),
        "visit_long": _format(day, "%B %-d, %Y"),
        "next_us": _format(following, "%m/%d/%Y"),
        "next_long": _format(following, "%B %-d, %Y"),
    }


def _plant(
    form: tuple[str | _Slot, ...], columns: dict[str, pl.Series], rows: Ints, old: Flags
) -> tuple[pl.Series, pl.DataFrame]:
    """Write the notes of one form, and list what they plant, with the number of the note as ``note``."""
    position = np.zeros(len(rows), dtype=np.int64)
    texts: list[pl.Series | str] = []
    planted = []
    for piece in form:
        if isinstance(piece, str):
            texts.append(piece)
            position = position + len(piece)
            continue
        text = columns[piece.name]
        texts.append(text)
        end = position + text.str.len_chars().to_numpy().astype(np.int64)
        if piece.kind:
            frame = pl.DataFrame({"note": rows, "start": position, "end": end, "text": text})
            frame = frame.select("note", pl.lit(piece.kind).alias("kind"), "start", "end", "text")
            planted.append(frame.filter(pl.Series(old)) if piece.kind == "AGE" else frame)
        position = end
    return concat(*texts), pl.concat(planted)


def render_notes(scene: Scene, identity: Identity) -> Notes:
    """Write the notes of all visits that have one."""
    visits = scene.visits
    written = visits.exacerbation | (
        uniform(visits.words[:, Draw.NOTE]) < np.where(visits.routine, 0.35, 0.0)
    )
    visit = np.nonzero(written)[0]
    telephone = below(visits.words[visit, Draw.NOTE_FORM], 3) == 0
    form = np.where(visits.exacerbation[visit], 2, np.where(telephone, 1, 0))
    columns = _columns(scene, identity, visit)
    old = visits.age[visit] >= _OLD
    ids = scene.people.ids.derive("DocumentReference", visits.patient[visit], visits.slot[visit])

    texts, planted, numbers = [], [], []
    for number, pieces in enumerate(_FORMS):
        rows = np.nonzero(form == number)[0]
        some = {name: take(column, rows) for name, column in columns.items()}
        text, found = _plant(pieces, some, rows, old[rows])
        texts.append(text)
        planted.append(found)
        numbers.append(rows)
    back = np.argsort(np.concatenate(numbers), kind="stable")
    text = take(pl.concat(texts), back).cast(pl.Binary)
    lines = _DOCUMENT.render(
        {
            **columns,
            "id": ids,
            "updated": scene.updated(visits.day[visit]),
            "date": scene.instant(visit, 30),
            "data": text.bin.encode("base64"),
            "start": scene.local(visit),
            "end": scene.local(visit, visits.duration[visit]),
        }
    )
    plants = pl.concat(planted).sort("note", "start")
    index = plants["note"].to_numpy()
    return Notes(
        lines=lines,
        planted=plants.select(
            take(ids, index).alias("document_id"),
            take(columns["patient"], index).alias("patient_id"),
            "kind",
            "start",
            "end",
            "text",
        ),
    )
