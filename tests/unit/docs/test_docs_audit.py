"""The contract with the outside compliance product says what is sent."""

import json
import re
from pathlib import Path

import yaml
from fhir.resources.R4B.auditevent import AuditEvent

from cohortflow.audit import ACTIVITY_SYSTEM, Activity
from cohortflow.workflow.environment import AuditSettings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")


def test_all_activities_are_documented():
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(Activity)


def test_the_example_is_a_valid_event():
    (text,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    event = AuditEvent.model_validate(json.loads(text))
    assert event.subtype[0].system == ACTIVITY_SYSTEM
    assert event.subtype[0].code in set(Activity)


def test_the_settings_are_those_of_an_environment():
    (text,) = re.findall(r"^```yaml.*?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert AuditSettings.model_validate(yaml.safe_load(text)["audit"]).webhook == "cohortflow_audit"
