"""Runs that share the exports of a source, and what they asked of it."""

import json
from datetime import date, timedelta

OTHER = "kidney_lab_registry"
DAY = date(2026, 10, 31)
ONE_DAY = timedelta(days=1)


def name_profile(site, name, **overrides):
    connection = json.loads(site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    connection["extra"] |= {"profile": name, "profile_overrides": overrides}
    site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)


def requests(site):
    """Return the kick-offs and removals of exports, in their order."""
    return [
        "end" if record.method == "DELETE" else "kickoff"
        for record in site.sandbox.log.records()
        if record.path_class == "kickoff" or record.method == "DELETE"
    ]
