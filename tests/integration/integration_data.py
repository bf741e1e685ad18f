"""Writes records of a hospital, and reads them independently of the pipeline."""

import gzip
import json
from datetime import date, datetime


def read_ndjson(folder, resource):
    """Return all resources of a type."""
    path = folder / f"{resource}.ndjson"
    text = (
        path.read_text()
        if path.exists()
        else gzip.decompress((folder / f"{path.name}.gz").read_bytes()).decode()
    )
    return [json.loads(line) for line in text.splitlines()]


def _codes(concept):
    return {(coding.get("system"), coding["code"]) for coding in concept.get("coding", ())}


def _is_diabetes(concept):
    snomed = {"44054006"}
    return any(
        (system.endswith("icd-10-cm") and code.startswith("E11"))
        or (system == "http://snomed.info/sct" and code in snomed)
        for system, code in _codes(concept)
    )


def truth(folder, as_of: date, minimum: float = 6.5) -> set[str]:
    """Return who belongs to the nightly diabetes cohort, computed row by row from the NDJSON."""
    births = {
        patient["id"]: date.fromisoformat(patient["birthDate"]) for patient in read_ndjson(folder, "Patient")
    }

    def subject(resource):
        return resource["subject"]["reference"].removeprefix("Patient/")

    def day(text):
        return datetime.fromisoformat(text).date()

    index: dict[str, date] = {}
    for condition in read_ndjson(folder, "Condition"):
        recorded = day(condition["recordedDate"])
        if _is_diabetes(condition["code"]) and recorded < as_of:
            patient = subject(condition)
            index[patient] = min(index.get(patient, recorded), recorded)
    confirmed = {
        subject(observation)
        for observation in read_ndjson(folder, "Observation")
        if ("http://loinc.org", "4548-4") in _codes(observation["code"])
        and observation.get("valueQuantity", {}).get("value", 0) >= minimum
        and day(observation["effectiveDateTime"]) < as_of
    }

    def age(patient):
        born, on = births[patient], index[patient]
        return on.year - born.year - ((on.month, on.day) < (born.month, born.day))

    return {patient for patient in index if patient in confirmed and 18 <= age(patient) <= 89}


def write_records(folder, *resources):
    """Write resources as NDJSON by type, last changed at the beginning of 2026 where they do not say."""
    folder.mkdir()
    for item in resources:
        with (folder / f"{item['resourceType']}.ndjson").open("a") as file:
            file.write(json.dumps({"meta": {"lastUpdated": "2026-01-01T00:00:00Z"}, **item}) + "\n")
    return folder
