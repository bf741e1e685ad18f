"""Synthetic patients as FHIR R4 NDJSON."""
