"""Patients, clinics, practitioners and groups as JSON lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from cohortflow.synthetic.names import (
    CITIES,
    CLINICS,
    FAMILY_NAMES,
    FEMALE_NAMES,
    LANGUAGES,
    MALE_NAMES,
    RACES,
    STREETS,
    City,
)
from cohortflow.synthetic.people import People, Trait, draw_clinics
from cohortflow.synthetic.scene import HL7, US_CORE, Scene, Stage, coding, concept, lookup
from cohortflow.synthetic.staff import PRACTITIONERS_PER_CLINIC
from cohortflow.synthetic.streams import Ids, Ints
from cohortflow.synthetic.template import JsonTemplate, concat, take

__all__ = ["MRN_SYSTEM", "Identity", "identify", "render_group", "render_patients", "render_staff"]

MRN_SYSTEM = "https://hospital.example.org/fhir/identifier/mrn"
_SSN_SYSTEM = "http://hl7.org/fhir/sid/us-ssn"
_MARITAL = (("S", "Never Married"), ("M", "Married"), ("D", "Divorced"), ("W", "Widowed"))


def _plain(name: str) -> str:
    """Return a name as it stands in an e-mail address."""
    letters = unicodedata.normalize("NFD", name).encode("ascii", "ignore").decode()
    return letters.replace("'", "").lower()


_GIVEN = pl.Series([*FEMALE_NAMES, *MALE_NAMES])
_GIVEN_PLAIN = pl.Series([_plain(name) for name in _GIVEN])
_FAMILY = pl.Series(FAMILY_NAMES)
_FAMILY_PLAIN = pl.Series([_plain(name) for name in FAMILY_NAMES])
_STREET = pl.Series(STREETS)
_CITY = pl.Series([city.name for city in CITIES])
_STATE = pl.Series([city.state for city in CITIES])
_POSTAL_CODE = pl.Series([city.postal_code for city in CITIES])
_AREA_CODE = pl.Series([city.area_code for city in CITIES])


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies each patient, as text; notes repeat it.

    Attributes:
        given: First name.
        middle: Second given name.
        family: Family name.
        relative: First name of a relative.
        mrn: Medical record number.
        ssn: Social security number from the range that is never issued (9xx).
        phone: Telephone number from the range kept for fiction (555-01xx).
        email: E-mail address of a reserved domain (RFC 2606).
        line: House number and street.
        city: City.
        state: State.
        postal_code: ZIP code.
        birth_date: Date of birth.
    """

    given: pl.Series
    middle: pl.Series
    family: pl.Series
    relative: pl.Series
    mrn: pl.Series
    ssn: pl.Series
    phone: pl.Series
    email: pl.Series
    line: pl.Series
    city: pl.Series
    state: pl.Series
    postal_code: pl.Series
    birth_date: pl.Series


def _digits(values: Ints, width: int) -> pl.Series:
    return pl.Series(values).cast(pl.String).str.zfill(width)


def identify(scene: Scene) -> Identity:
    """Return what identifies the patients of a scene."""
    people = scene.people
    names = len(FEMALE_NAMES)
    own = np.where(people.female, 0, names)
    given, family = own + people.first_name, people.family_name
    serial = people.serial
    return Identity(
        given=take(_GIVEN, given),
        middle=take(_GIVEN, own + people.middle_name),
        family=take(_FAMILY, family),
        relative=take(_GIVEN, names - own + people.relative_name),
        mrn=_digits(serial, 8),
        # Groups 10-49 of area 9xx are neither social security nor taxpayer numbers.
        ssn=concat(
            _digits(900 + serial % 100, 3),
            "-",
            _digits(10 + serial // 100 % 40, 2),
            "-",
            _digits(1 + serial // 4000 % 9999, 4),
        ),
        phone=concat(
            "(", take(_AREA_CODE, people.city), ") 555-01", _digits(people.choose(Trait.PHONE, 100), 2)
        ),
        email=concat(
            take(_GIVEN_PLAIN, given),
            ".",
            take(_FAMILY_PLAIN, family),
            _digits(serial % 1000, 3),
            "@example.org",
        ),
        line=concat(_digits(people.house, 1), " ", take(_STREET, people.street)),
        city=take(_CITY, people.city),
        state=take(_STATE, people.city),
        postal_code=take(_POSTAL_CODE, people.city),
        birth_date=scene.stage.calendar.date(people.birth_day),
    )


def _omb_extension(name: str, code: str, display: str) -> dict[str, object]:
    return {
        "url": US_CORE + name,
        "extension": [
            {"url": "ombCategory", "valueCoding": coding("urn:oid:2.16.840.1.113883.6.238", code, display)},
            {"url": "text", "valueString": display},
        ],
    }


_RACE = lookup([_omb_extension("us-core-race", *race) for race in RACES])
_ETHNICITY = lookup(
    [
        _omb_extension("us-core-ethnicity", "2186-5", "Not Hispanic or Latino"),
        _omb_extension("us-core-ethnicity", "2135-2", "Hispanic or Latino"),
    ]
)
_GENDER = pl.Series(["male", "female"])
_BIRTH_SEX = pl.Series(["M", "F"])
_MARITAL_STATUS = lookup(
    [concept(coding(HL7 + "v3-MaritalStatus", code, display), text=display) for code, display in _MARITAL]
)
_LANGUAGE = lookup(
    [concept(coding("urn:ietf:bcp:47", code, display), text=display) for code, display in LANGUAGES]
)
_ALIVE = pl.Series(["", '"deceasedBoolean":false,', '"deceasedBoolean":true,'])

_PATIENT = JsonTemplate(
    {
        "resourceType": "Patient",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-patient"]},
        "extension": [
            "{=race}",
            "{=ethnicity}",
            {"url": US_CORE + "us-core-birthsex", "valueCode": "{birth_sex}"},
        ],
        "identifier": [
            {
                "use": "usual",
                "type": concept(coding(HL7 + "v2-0203", "MR", "Medical record number")),
                "system": MRN_SYSTEM,
                "value": "{mrn}",
            },
            {
                "use": "official",
                "type": concept(coding(HL7 + "v2-0203", "SS", "Social Security number")),
                "system": _SSN_SYSTEM,
                "value": "{ssn}",
            },
        ],
        "active": True,
        "name": [{"use": "official", "family": "{family}", "given": ["{given}", "{middle}"]}],
        "telecom": [
            {"system": "phone", "value": "{phone}", "use": "home"},
            {"system": "email", "value": "{email}"},
        ],
        "gender": "{gender}",
        "birthDate": "{birth_date}",
        "{+deceased}": None,
        "address": [
            {
                "use": "home",
                "line": ["{line}"],
                "city": "{city}",
                "state": "{state}",
                "postalCode": "{postal_code}",
                "country": "US",
            }
        ],
        "maritalStatus": "{=marital}",
        "communication": [{"language": "{=language}", "preferred": True}],
        "generalPractitioner": [{"reference": "Practitioner/{practitioner}"}],
        "managingOrganization": {"reference": "Organization/{organization}"},
    }
)


def render_patients(scene: Scene, identity: Identity) -> pl.Series:
    """Write the patients, in order of their number."""
    people, calendar = scene.people, scene.stage.calendar
    last_visit = np.zeros(people.count, dtype=np.int64)
    np.maximum.at(last_visit, scene.visits.patient, scene.visits.day)
    dead = people.death_day >= 0
    hour = np.full(people.count, 240)
    when = calendar.local(np.maximum(people.death_day, people.birth_day), hour, people.clinic)
    stated = take(_ALIVE, np.where(dead, 2, people.choose(Trait.STATED_ALIVE, 2)))
    dated = concat('"deceasedDateTime":"', when, '",')
    deceased = pl.select(
        pl.when(pl.Series(dead & people.death_dated)).then(dated).otherwise(stated)
    ).to_series()
    female = people.female.astype(np.int64)
    return _PATIENT.render(
        {
            "id": scene.patient_ids,
            "updated": scene.updated(np.maximum(last_visit, people.death_day)),
            "race": take(_RACE, people.race),
            "ethnicity": take(_ETHNICITY, people.hispanic.astype(np.int64)),
            "birth_sex": take(_BIRTH_SEX, female),
            "gender": take(_GENDER, female),
            "deceased": deceased,
            "marital": take(_MARITAL_STATUS, people.marital),
            "language": take(_LANGUAGE, people.language),
            "practitioner": take(scene.stage.practitioner_ids, _own_practitioner(people)),
            "organization": take(scene.stage.organization_ids, people.clinic),
            **{
                name: getattr(identity, name)
                for name in ("mrn", "ssn", "family", "given", "middle", "phone", "email", "birth_date")
            },
            **{name: getattr(identity, name) for name in ("line", "city", "state", "postal_code")},
        }
    )


def _own_practitioner(people: People) -> Ints:
    return people.clinic * PRACTITIONERS_PER_CLINIC + people.choose(
        Trait.PRACTITIONER, PRACTITIONERS_PER_CLINIC
    )


_ORGANIZATION = JsonTemplate(
    {
        "resourceType": "Organization",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-organization"]},
        "active": True,
        "type": [concept(coding(HL7 + "organization-type", "prov", "Healthcare Provider"))],
        "name": "{name}",
        "telecom": [{"system": "phone", "value": "({area_code}) 555-0100", "use": "work"}],
        "address": [
            {
                "line": ["1 Hospital Plaza"],
                "city": "{city}",
                "state": "{state}",
                "postalCode": "{postal_code}",
                "country": "US",
            }
        ],
    }
)
_PRACTITIONER = JsonTemplate(
    {
        "resourceType": "Practitioner",
        "id": "{id}",
        "meta": {"lastUpdated": "{updated}", "profile": [US_CORE + "us-core-practitioner"]},
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": "{npi}"}],
        "active": True,
        "name": [{"use": "official", "family": "{family}", "given": ["{given}"], "prefix": ["Dr."]}],
        "telecom": [{"system": "email", "value": "{email}", "use": "work"}],
        "gender": "{gender}",
    }
)


def _place(city: City) -> dict[str, str]:
    return {
        "city": city.name,
        "state": city.state,
        "postal_code": city.postal_code,
        "area_code": city.area_code,
    }


def render_staff(stage: Stage) -> dict[str, str]:
    """Write the clinics and the practitioners: file contents by resource type."""
    staff = stage.staff
    updated = stage.calendar.date(np.array([stage.as_of - 3650]))[0] + "T10:00:00Z"
    organizations = [
        _ORGANIZATION.render_one({"id": id_, "updated": updated, "name": clinic.name, **_place(clinic.city)})
        for id_, clinic in zip(staff.organization_ids, CLINICS, strict=True)
    ]
    practitioners = [
        _PRACTITIONER.render_one(
            {
                "id": id_,
                "updated": updated,
                "npi": staff.npis[number],
                "family": staff.family[number],
                "given": staff.given[number],
                "email": f"{_plain(staff.given[number])}.{_plain(staff.family[number])}@hospital.example.org",
                "gender": "female" if staff.female[number] else "male",
            }
        )
        for number, id_ in enumerate(staff.practitioner_ids)
    ]
    return {"Organization": "".join(organizations), "Practitioner": "".join(practitioners)}


def render_group(stage: Stage, patients: int, clinic: int | None, chunk: int) -> Iterator[str]:
    """Write the group of all patients, or of one clinic, piece by piece.

    Args:
        stage: What all patients share.
        patients: Size of the population.
        clinic: Number of the clinic, or ``None`` for all patients.
        chunk: Patients per piece, which bounds the memory and does not change the text.
    """
    name = "all-patients" if clinic is None else f"clinic-{clinic + 1}"
    title = "All patients" if clinic is None else f"Patients of {CLINICS[clinic].name}"
    updated = stage.calendar.date(np.array([stage.as_of - 1]))[0] + "T10:00:00Z"
    yield (
        f'{{"resourceType":"Group","id":"{name}","meta":{{"lastUpdated":"{updated}"}},"active":true,'
        f'"type":"person","actual":true,"name":"{title}","member":['
    )
    count = 0
    for first in range(0, patients, chunk):
        rows = min(chunk, patients - first)
        ids = Ids.of_patients(stage.streams, first, rows).text()
        if clinic is not None:
            ids = ids.filter(pl.Series(draw_clinics(stage.streams, first, rows) == clinic))
        if len(ids):
            entries = pl.select('{"entity":{"reference":"Patient/' + pl.lit(ids) + '"}}').to_series()
            yield ("," if count else "") + entries.str.join(",")[0]
            count += len(ids)
    yield f'],"quantity":{count}}}\n'
