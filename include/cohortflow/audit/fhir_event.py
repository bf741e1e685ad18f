"""Audit events as FHIR R4 AuditEvent (hl7.org/fhir/R4/auditevent.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from cohortflow import __version__
from cohortflow.audit.event import Activity, AuditEvent

__all__ = ["ACTIVITY_SYSTEM", "to_fhir"]

ACTIVITY_SYSTEM: Final = "urn:cohortflow:audit-activity"
"""Code system of AuditEvent.subtype: the values of ``Activity``."""

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
# DICOM PS3.16, context group 400: what kind of event.
_TYPES: Final = {
    Activity.SOURCE_EXPORTED: ("110107", "Import"),
    Activity.DATASETS_RELEASED: ("110106", "Export"),
    Activity.SUBJECTS_REIDENTIFIED: ("110110", "Patient Record"),
    Activity.LEAK_FOUND: ("110113", "Security Alert"),
}
_APPLICATION: Final = ("110100", "Application Activity")
# Codes of AuditEvent.outcome: success; serious failure, the action was not done.
_SUCCESS, _FAILURE = "0", "8"


def to_fhir(event: AuditEvent) -> dict[str, Any]:
    """Return an event as an AuditEvent resource of FHIR R4."""
    code, display = _TYPES.get(event.activity, _APPLICATION)
    return {
        "resourceType": "AuditEvent",
        "id": event.id,
        "type": {"system": _DCM, "code": code, "display": display},
        "subtype": [{"system": ACTIVITY_SYSTEM, "code": str(event.activity)}],
        "action": event.activity.action,
        "recorded": event.recorded.isoformat(timespec="milliseconds"),
        "outcome": _SUCCESS if event.succeeded else _FAILURE,
        "agent": [
            {"who": {"display": event.actor}, "requestor": True},
            {
                "type": {"coding": [{"system": _DCM, "code": "110150", "display": "Application"}]},
                "who": {"display": f"Cohortflow {__version__}"},
                "requestor": False,
            },
        ],
        "source": {"site": event.environment, "observer": {"display": "Cohortflow"}},
        "entity": list(_entities(event)),
    }


def _entities(event: AuditEvent) -> Iterator[dict[str, Any]]:
    kinds = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
    roles = "http://terminology.hl7.org/CodeSystem/object-role"
    system = {"system": kinds, "code": "2", "display": "System Object"}
    details = [("run", event.run_id), *((name, _text(value)) for name, value in event.facts.items())]
    job: dict[str, Any] = {
        "type": system,
        "role": {"system": roles, "code": "20", "display": "Job"},
        "name": event.study or str(event.activity),
    }
    found = [{"type": name, "valueString": text} for name, text in details if text]
    if found:
        job["detail"] = found
    yield job
    if event.source:
        yield {"type": system, "name": event.source, "description": "Connection of the source"}
    if event.policy:
        yield {
            "type": system,
            "role": {"system": roles, "code": "13", "display": "Security Resource"},
            "name": event.policy,
            "description": "Redaction policy",
        }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
