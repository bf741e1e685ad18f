"""A sandbox EHR: a FHIR R4 server with SMART Backend Services and Bulk Data 2.0, for tests."""
