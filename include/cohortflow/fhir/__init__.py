"""FHIR R4: FHIRPath, SQL-on-FHIR views, NDJSON."""
