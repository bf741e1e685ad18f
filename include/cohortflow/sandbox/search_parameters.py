"""The search parameters of FHIR R4 that the sandbox evaluates, as element paths per type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["SearchParameter", "search_parameters", "values_at"]

Kind = Literal["token", "date", "reference", "string", "patient"]


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """How one parameter looks into a resource.

    Attributes:
        kind: FHIR search parameter type; ``patient`` is a reference that the index answers.
        paths: Element paths, any of which may match.
    """

    kind: Kind
    paths: tuple[str, ...]


def _parameter(kind: Kind, *paths: str) -> SearchParameter:
    return SearchParameter(kind, paths)


_EVERY_TYPE = {
    "_id": _parameter("token", "id"),
    "_lastUpdated": _parameter("date", "meta.lastUpdated"),
    "identifier": _parameter("token", "identifier"),
}
_CODE = {"code": _parameter("token", "code")}
_STATUS = {"status": _parameter("token", "status")}
_CATEGORY = {"category": _parameter("token", "category")}
_ENCOUNTER = {"encounter": _parameter("reference", "encounter")}
_SUBJECT = {"subject": _parameter("patient", "subject"), "patient": _parameter("patient", "subject")}
_PATIENT = {"patient": _parameter("patient", "patient")}
_CLINICAL = {
    "clinical-status": _parameter("token", "clinicalStatus"),
    "verification-status": _parameter("token", "verificationStatus"),
}
_EFFECTIVE = {"date": _parameter("date", "effectiveDateTime", "effectivePeriod", "effectiveInstant")}
_EVENT = _SUBJECT | _ENCOUNTER | _STATUS | _CATEGORY | _CODE
_PERFORMER = {"performer": _parameter("reference", "performer", "performer.actor")}

_BY_TYPE: dict[str, dict[str, SearchParameter]] = {
    "AllergyIntolerance": _PATIENT
    | _CODE
    | _CATEGORY
    | _CLINICAL
    | {
        "date": _parameter("date", "recordedDate"),
        "criticality": _parameter("token", "criticality"),
        "onset": _parameter("date", "onsetDateTime", "onsetPeriod"),
        "type": _parameter("token", "type"),
    },
    "CarePlan": _SUBJECT | _ENCOUNTER | _STATUS | _CATEGORY | {"date": _parameter("date", "period")},
    "CareTeam": _SUBJECT | _ENCOUNTER | _STATUS | _CATEGORY | {"date": _parameter("date", "period")},
    "Claim": _PATIENT
    | _STATUS
    | {"created": _parameter("date", "created"), "use": _parameter("token", "use")},
    "Condition": _SUBJECT
    | _ENCOUNTER
    | _CATEGORY
    | _CODE
    | _CLINICAL
    | {
        "onset-date": _parameter("date", "onsetDateTime", "onsetPeriod"),
        "abatement-date": _parameter("date", "abatementDateTime", "abatementPeriod"),
        "recorded-date": _parameter("date", "recordedDate"),
    },
    "Coverage": _STATUS | {"patient": _parameter("patient", "beneficiary")},
    "Device": _PATIENT | _STATUS | {"type": _parameter("token", "type")},
    "DiagnosticReport": _EVENT
    | _EFFECTIVE
    | _PERFORMER
    | {"issued": _parameter("date", "issued"), "result": _parameter("reference", "result")},
    "DocumentReference": _SUBJECT
    | _STATUS
    | _CATEGORY
    | {
        "date": _parameter("date", "date"),
        "encounter": _parameter("reference", "context.encounter"),
        "period": _parameter("date", "context.period"),
        "type": _parameter("token", "type"),
    },
    "EpisodeOfCare": _PATIENT | _STATUS | {"type": _parameter("token", "type")},
    "Encounter": _SUBJECT
    | _STATUS
    | {
        "location": _parameter("reference", "location.location"),
        "participant": _parameter("reference", "participant.individual"),
        "service-provider": _parameter("reference", "serviceProvider"),
        "class": _parameter("token", "class"),
        "date": _parameter("date", "period"),
        "reason-code": _parameter("token", "reasonCode"),
        "type": _parameter("token", "type"),
    },
    "ExplanationOfBenefit": _PATIENT | _STATUS | _ENCOUNTER | {"created": _parameter("date", "created")},
    "Goal": _SUBJECT | _CATEGORY | {"lifecycle-status": _parameter("token", "lifecycleStatus")},
    "Group": _CODE | {"type": _parameter("token", "type"), "actual": _parameter("token", "actual")},
    "ImagingStudy": _SUBJECT
    | _ENCOUNTER
    | _STATUS
    | {
        "started": _parameter("date", "started"),
        "modality": _parameter("token", "modality", "series.modality"),
    },
    "Immunization": _PATIENT
    | _STATUS
    | {"date": _parameter("date", "occurrenceDateTime"), "vaccine-code": _parameter("token", "vaccineCode")},
    "Location": {"name": _parameter("string", "name"), "type": _parameter("token", "type")},
    "Medication": _CODE | _STATUS,
    "MedicationAdministration": _SUBJECT
    | _STATUS
    | {
        "code": _parameter("token", "medicationCodeableConcept"),
        "effective-time": _parameter("date", "effectiveDateTime", "effectivePeriod"),
    },
    "MedicationRequest": _SUBJECT
    | _ENCOUNTER
    | _STATUS
    | _CATEGORY
    | {
        "authoredon": _parameter("date", "authoredOn"),
        "medication": _parameter("reference", "medicationReference"),
        "requester": _parameter("reference", "requester"),
        "code": _parameter("token", "medicationCodeableConcept"),
        "intent": _parameter("token", "intent"),
    },
    "Observation": _EVENT
    | _EFFECTIVE
    | _PERFORMER
    | {
        "derived-from": _parameter("reference", "derivedFrom"),
        "has-member": _parameter("reference", "hasMember"),
        "combo-code": _parameter("token", "code", "component.code"),
        "value-date": _parameter("date", "valueDateTime", "valuePeriod"),
    },
    "Organization": {"name": _parameter("string", "name", "alias"), "type": _parameter("token", "type")},
    "Patient": {
        "active": _parameter("token", "active"),
        "birthdate": _parameter("date", "birthDate"),
        "family": _parameter("string", "name.family"),
        "gender": _parameter("token", "gender"),
        "general-practitioner": _parameter("reference", "generalPractitioner"),
        "organization": _parameter("reference", "managingOrganization"),
        "given": _parameter("string", "name.given"),
        "name": _parameter("string", "name.family", "name.given", "name.text"),
    },
    "Practitioner": {
        "family": _parameter("string", "name.family"),
        "name": _parameter("string", "name.family", "name.given", "name.text"),
    },
    "Procedure": _EVENT | _PERFORMER | {"date": _parameter("date", "performedDateTime", "performedPeriod")},
    "Provenance": {
        "recorded": _parameter("date", "recorded"),
        "target": _parameter("reference", "target"),
    },
    "ServiceRequest": _EVENT
    | {"authored": _parameter("date", "authoredOn"), "intent": _parameter("token", "intent")},
    "Specimen": _SUBJECT
    | _STATUS
    | {
        "type": _parameter("token", "type"),
        "collected": _parameter("date", "collection.collectedDateTime", "collection.collectedPeriod"),
    },
}


def search_parameters(resource_type: str) -> dict[str, SearchParameter]:
    """The parameters of a type, by name."""
    return _EVERY_TYPE | _BY_TYPE.get(resource_type, {})


def values_at(resource: dict[str, Any], path: str) -> Iterator[Any]:
    """The values at a dotted path, lists flattened."""
    values: list[Any] = [resource]
    for step in path.split("."):
        found: list[Any] = []
        for value in values:
            inner = value.get(step) if isinstance(value, dict) else None
            if isinstance(inner, list):
                found.extend(inner)
            elif inner is not None:
                found.append(inner)
        values = found
    return iter(values)
