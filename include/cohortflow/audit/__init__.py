"""Audit events: what an outside compliance product is told of every run. See docs/audit.md."""

from cohortflow.audit.event import Activity, AuditEvent
from cohortflow.audit.fhir_event import ACTIVITY_SYSTEM, to_fhir
from cohortflow.audit.ocsf_event import OCSF_VERSION, to_ocsf
from cohortflow.audit.signature import sign

__all__ = ["ACTIVITY_SYSTEM", "OCSF_VERSION", "Activity", "AuditEvent", "sign", "to_fhir", "to_ocsf"]
