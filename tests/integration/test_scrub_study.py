"""Notes in a study: scrubbed, searched for leaks, published."""

import base64
import csv
import dataclasses
import json
from datetime import date

import pytest
import yaml

from cohortflow.errors import LeakError
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import read_release

pytestmark = pytest.mark.integration

STUDY = "what_notes_say"
TEMPLATE = {
    "template": "notes",
    "title": "Notes",
    "description": "The notes of everybody.",
    "parameters": {"source": {"type": "string", "default": "fhir_default", "help": "Connection"}},
    "workflow": {
        "source": {"connection": "${source}", "level": "group", "group": "all-patients"},
        "views": ["patient", "document_reference"],
        "redaction": {
            "policy": "synthetic_only",
            "overrides": {
                "document_reference": {
                    column: {"action": "scrub", "reason": "The study reads what notes say."}
                    for column in ("content_data", "description")
                }
            },
        },
    },
}
KINDS = {"NAME", "PROVIDER", "MRN", "SSN", "PHONE", "EMAIL", "ADDRESS"}
"""What is taken out: dates are kept by the policy, and the study fetches no organisations."""


@pytest.fixture
def site(folder_site, project_copy):
    root = project_copy.root
    (root / "templates" / "notes.yaml").write_text(yaml.safe_dump(TEMPLATE))
    study = {"study": STUDY, "title": "Notes", "template": "notes", "start_date": date(2026, 1, 1)}
    (root / "dags/studies" / f"{STUDY}.yaml").write_text(yaml.safe_dump(study))
    return dataclasses.replace(folder_site, project=project_copy)


@pytest.fixture
def planted(patients):
    with (patients / "ground_truth" / "planted.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] in KINDS]


def test_notes_are_published_without_what_was_planted_in_them(site, planted):
    run, _ = site.run(STUDY)
    rows = site.rows(run, "document_reference")
    notes = {
        key: base64.b64decode(data).decode()
        for key, data in rows.select("document_id", "content_data").iter_rows()
    }
    assert len(notes) > 20
    assert all("mmHg" in note or "SpO2" in note for note in notes.values())  # what a study reads is left
    left = [
        row["kind"]
        for row in planted
        if row["text"] in notes.get(run.key.pseudonym("DocumentReference", row["document_id"]), "")
    ]
    assert left == []
    assert rows["description"].str.starts_with("Note about [NAME], ").all()

    document = read_release(run.datasets, run.interval.key)
    counts = document["scrubbed"]["document_reference"]["content_data"]
    assert counts["values"] == counts["changed"] == rows.height
    assert counts["left_out"] == 0
    assert counts["tags"]["NAME"] > rows.height
    assert document["leak_scan"]["clean"]
    assert "The study reads what notes say." in json.dumps(document["overrides"])


def test_the_leak_gate_stops_notes_that_were_not_scrubbed(site, monkeypatch):
    monkeypatch.setattr(
        "cohortflow.redaction.scrub.columns.TextScrubber.scrub", lambda _self, texts, *_rest: texts
    )
    run = site.open_run(STUDY)
    with pytest.raises(LeakError):
        run_plan(run)
    assert not [path for path in run.datasets.list() if path.endswith(".parquet")]
