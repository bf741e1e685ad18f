"""Audit events as OCSF Datastore Activity, class 6005 (schema.ocsf.io)."""

from __future__ import annotations

from typing import Any, Final

from cohortflow import __version__
from cohortflow.audit.event import Activity, AuditEvent

__all__ = ["OCSF_VERSION", "to_ocsf"]

OCSF_VERSION: Final = "1.3.0"
"""The version of the schema that events are written by."""

_CATEGORY, _CLASS = 6, 6005
_READ, _WRITE, _DELETE, _OTHER = 1, 5, 7, 99
_ACTIVITIES: Final = {"R": _READ, "C": _WRITE, "D": _DELETE}
_INFORMATIONAL, _MEDIUM, _HIGH = 1, 3, 4
_DATABUCKET = 2


def to_ocsf(event: AuditEvent) -> dict[str, Any]:
    """Return an event as Datastore Activity; what OCSF has no place for is under ``unmapped``."""
    activity = _ACTIVITIES.get(event.activity.action, _OTHER)
    failure = _HIGH if event.activity is Activity.LEAK_FOUND else _MEDIUM
    return {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": activity,
        "activity_name": str(event.activity),
        "type_uid": _CLASS * 100 + activity,
        "time": int(event.recorded.timestamp() * 1000),
        "severity_id": _INFORMATIONAL if event.succeeded else failure,
        "status_id": 1 if event.succeeded else 2,
        "type_id": _DATABUCKET,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": event.id,
            "correlation_uid": event.run_id or event.id,
            "product": {"name": "Cohortflow", "vendor_name": "Cohortflow", "version": __version__},
        },
        "actor": {"user": {"name": event.actor}, "app_name": "Cohortflow"},
        "src_endpoint": {"name": event.source or event.environment},
        "databucket": {
            "name": f"{event.environment}/{event.study}" if event.study else event.environment,
            "type_id": 0,
        },
        "unmapped": {
            "environment": event.environment,
            "study": event.study,
            "run": event.run_id,
            "policy": event.policy,
            **event.facts,
        },
    }
