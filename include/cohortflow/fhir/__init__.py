"""FHIR R4: FHIRPath, ViewDefinitions compiled to Polars, NDJSON."""
