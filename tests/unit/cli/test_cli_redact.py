"""cohortflow redact: explanations, and re-identification on request."""

import json
import logging
import os
import pwd
import stat

import pytest

from cohortflow.cli.main import run
from cohortflow.redaction import ProjectKey

STUDY = "diabetes_nightly"
SECRET = "8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083"
KEY = ProjectKey.from_text(SECRET)


class TestExplain:
    def test_every_published_column_has_paths_class_action_reason_and_source(self, project_copy, capsys):
        assert run(["redact", "explain", STUDY, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["policy"], document["snapshots"]) == ("safe_harbor", "latest")
        rows = {row["column"]: row for row in document["columns"]["patient"]}
        assert rows["birth_date"] == {
            "column": "birth_date",
            "output": "birth_year",
            "paths": "Patient.birthDate",
            "class": "DATE",
            "source": "45 CFR 164.514(b)(2)(i)(C)",
            "because": rows["birth_date"]["because"],
            "action": "generalize to year",
            "reason": "Default of DATE.",
        }
        assert rows["ssn"]["paths"] == "Patient.identifier.value, (Patient.identifier.system)"
        every = [row for columns in document["columns"].values() for row in columns]
        assert all(row["action"] and row["reason"] and (row["source"] or row["because"]) for row in every)

    def test_people_read_the_guarantee_first(self, project_copy, capsys):
        assert run(["redact", "explain", STUDY, "--env", "staging"]) == 0
        output = capsys.readouterr().out
        assert output.startswith("Dates shifted per patient (shifted_dates, expert_determination) in staging")

    def test_an_override_is_shown_with_its_reason(self, project_copy, capsys):
        template = project_copy.templates / "observational_cohort.yaml"
        override = "city: {action: mask, reason: Not needed.}"
        template.write_text(
            template.read_text().replace(
                "  redaction:\n", f"  redaction:\n    overrides: {{patient: {{{override}}}}}\n"
            )
        )
        assert run(["redact", "explain", STUDY, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["overrides"] == {
            "patient": [
                {
                    "column": "city",
                    "class": "GEOGRAPHIC",
                    "action": "mask",
                    "reason": "The study asks for it: Not needed.",
                }
            ]
        }


class TestClasses:
    def test_the_elements_of_a_type_are_listed(self, capsys):
        assert run(["redact", "classes", "Coverage", "--json"]) == 0
        rows = {row["path"]: row for row in json.loads(capsys.readouterr().out)}
        assert rows["Coverage.subscriberId"]["class"] == "DIRECT_IDENTIFIER"
        assert rows["Coverage.subscriberId"]["source"].endswith("(I)")

    def test_an_unknown_type_is_answered_with_the_nearest(self, capsys):
        assert run(["redact", "classes", "Patiant"]) == 2
        assert "Did you mean 'Patient'?" in capsys.readouterr().err


class TestReidentify:
    @pytest.fixture
    def site(self, project_copy, tmp_path, monkeypatch):
        lake = tmp_path / "lake"
        monkeypatch.setenv("AIRFLOW_VAR_COHORTFLOW_LAKE", str(lake))
        connection = json.dumps({"conn_type": "generic", "password": SECRET})
        monkeypatch.setenv("AIRFLOW_CONN_COHORTFLOW_KEY_DEV", connection)
        for night, ids in {"2026-11-01": ["jane", "joe"], "2026-11-02": ["jane", "mary"]}.items():
            folder = lake / "dev" / "raw" / "fhir_default" / night / "abc" / "Patient"
            folder.mkdir(parents=True)
            lines = [json.dumps({"resourceType": "Patient", "id": name}) for name in ids]
            (folder / "Patient.0001.ndjson").write_text("\n".join(lines) + "\n")
        datasets = lake / "dev" / "datasets" / STUDY
        datasets.mkdir(parents=True)
        (datasets / "_key.json").write_text(json.dumps({"fingerprint": KEY.fingerprint}))
        wanted = [KEY.pseudonym("Patient", "mary"), "0" * 32, KEY.pseudonym("Patient", "jane")]
        (tmp_path / "wanted.txt").write_text("\n".join(wanted) + "\n")
        return tmp_path

    def arguments(self, site, **changed):
        given = {
            "--pseudonyms": str(site / "wanted.txt"),
            "--reason": "A finding to report",
            "--approved-by": "Board 7",
            "--out": str(site / "found.csv"),
        } | changed
        return ["redact", "reidentify", STUDY, *(part for pair in given.items() for part in pair)]

    def test_ids_go_to_a_private_file_and_nowhere_else(self, site, capsys, caplog):
        caplog.set_level(logging.INFO)
        assert run(self.arguments(site)) == 0
        found = site / "found.csv"
        mary, jane = KEY.pseudonym("Patient", "mary"), KEY.pseudonym("Patient", "jane")
        assert found.read_text().split() == ["pseudonym,id", f"{mary},mary", f"{jane},jane"]
        assert stat.S_IMODE(found.stat().st_mode) == 0o600
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "2 of 3 found" in shown.err
        for secret in ("mary", "jane", mary, jane, SECRET):
            assert secret not in shown.err + caplog.text
        assert "Board 7" in caplog.text
        assert "A finding to report" in caplog.text

    def test_a_file_that_is_there_is_not_overwritten(self, site, capsys):
        (site / "found.csv").write_text("mine")
        assert run(self.arguments(site)) == 2
        assert (site / "found.csv").read_text() == "mine"

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"--reason": " "}, "needs a reason"),
            ({"--approved-by": ""}, "needs a reason"),
            ({"--type": "Patiant"}, "Did you mean 'Patient'?"),
            ({"--type": "Device"}, "The raw zone holds no Device"),
        ],
    )
    def test_a_request_that_lacks_something_is_refused(self, site, capsys, changed, message):
        assert run(self.arguments(site, **changed)) != 0
        assert message in capsys.readouterr().err
        assert not (site / "found.csv").exists()

    def test_another_key_is_refused(self, site, capsys, monkeypatch):
        other = json.dumps({"conn_type": "generic", "password": SECRET[::-1]})
        monkeypatch.setenv("AIRFLOW_CONN_COHORTFLOW_KEY_DEV", other)
        assert run(self.arguments(site)) == 2
        assert "was made with project key" in capsys.readouterr().err
        assert not (site / "found.csv").exists()

    def test_what_cannot_be_recorded_is_not_handed_out(self, site, capsys, monkeypatch):
        def fail(*_):
            raise OSError

        monkeypatch.setattr("cohortflow.workflow.reidentify.record_reidentification", fail)
        with pytest.raises(OSError):
            run(self.arguments(site))
        assert not (site / "found.csv").exists()

    def test_each_request_is_an_audit_event_without_ids_and_pseudonyms(self, site, monkeypatch):
        monkeypatch.setenv("LOGNAME", "somebody-else")
        for name in ("first.csv", "second.csv"):
            assert run(self.arguments(site, **{"--out": str(site / name)})) == 0
        events = [
            path.read_text() for path in sorted((site / "lake" / "dev" / "audit" / "log").rglob("*.json"))
        ]
        assert len(events) == 2, "two requests that look the same are two events"
        event = json.loads(events[0])
        assert event["subtype"][0]["code"] == "subjects-reidentified"
        assert event["agent"][0]["who"]["display"] == pwd.getpwuid(os.getuid()).pw_name
        details = {detail["type"]: detail["valueString"] for detail in event["entity"][0]["detail"]}
        assert details == {
            "resource": "Patient",
            "asked": "3",
            "found": "2",
            "reason": "A finding to report",
            "approved_by": "Board 7",
            "key": KEY.fingerprint,
        }
        for secret in ("mary", "jane", KEY.pseudonym("Patient", "mary"), SECRET):
            assert secret not in "".join(events)

    def test_without_a_place_for_audit_nothing_is_handed_out(self, site, capsys):
        (site / "lake" / "dev" / "audit").write_text("a file where the folder should be")
        assert run(self.arguments(site)) != 0
        assert not (site / "found.csv").exists()

    def test_a_line_that_is_no_pseudonym_is_not_quoted(self, site, capsys):
        (site / "wanted.txt").write_text("0" * 32 + "\nmary\n")
        assert run(self.arguments(site)) == 2
        shown = capsys.readouterr().err
        assert "wanted.txt:2: This is no pseudonym" in shown
        assert "mary" not in shown
