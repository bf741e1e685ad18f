"""Acceptance cases 21 to 23: one subject everywhere, planted text, ages and places; without a key nothing."""

import datetime as dt
import json

import polars as pl
import pytest

from cohortflow.errors import PolicyError, ProjectKeyError, UnknownEnvironmentError
from cohortflow.fhir.decoding import Malformation
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog, Column, ColumnType, DataInterval, EnvDeployment, PhiClass
from cohortflow.redaction import NO_AGES, Action, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.crosswalk import Crosswalk, find_subjects, index_identifiers
from cohortflow.workflow.plan import compile_plan
from cohortflow.workflow.run import Run
from cohortflow.workflow.runner import run_plan

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
OTHER = ProjectKey.from_text("1c3f8a0d5e72b6944fd1a83b6e0c97520ab5e84d73f1926c0e8d5b7a4f3c6291")
AS_OF = dt.date(2026, 6, 30)
STRING, DATE = ColumnType.STRING, ColumnType.DATE
POLICIES = CATALOG.names("redaction")
MARKER = "PLANTEDMARKER"


class TestCase21SameSubjectEverywhere:
    """One patient by id, by record number in HL7 v2 and in DICOM, and by the id of a merged record."""

    COLUMNS = (
        Column("patient_id", STRING, ("Patient.id",), tags={"cohortflow/role": "subject"}, target="Patient"),
        Column("on", DATE, ("Encounter.period.start",)),
    )

    def redact(self, frame, key=KEY):
        plan = plan_redaction("demo", self.COLUMNS, load_policy(CATALOG, "shifted_dates"))
        return redact(frame.select("patient_id", "on"), plan, key, as_of=AS_OF).collect()

    @pytest.fixture
    def sources(self):
        """Tables of three sources, each with its way to name the patient; two days, 11 apart."""
        merges = Crosswalk.of_links(pl.DataFrame({"id": ["old"], "replaced_by": ["jane"]}))
        numbers = pl.DataFrame(
            [("jane", "urn:oid:1.2", "MRN-1"), ("old", "urn:oid:1.2", "MRN-0"), ("joe", "urn:oid:1.2", "7")],
            schema=["patient_id", "system", "value"],
            orient="row",
        )
        identifiers = index_identifiers(numbers, merges)
        days = [dt.date(2020, 3, 1), dt.date(2020, 3, 12)]
        named = [
            ["MRN-1", "MRN-0"],  # PID-3 before and after A40
            ["MRN-0", "MRN-1"],  # DICOM PatientID
        ]
        tables = [
            find_subjects(
                pl.LazyFrame({"system": ["urn:oid:1.2"] * 2, "value": values, "on": days}),
                identifiers,
                system="system",
                value="value",
            )
            for values in named
        ]
        fhir = pl.LazyFrame({"patient_id": ["jane", "old"], "on": days})
        return [merges.follow_columns(fhir, ["patient_id"]), *tables]

    def test_case_21_one_pseudonym_and_one_shift_in_all_sources(self, sources):
        tables = [self.redact(source) for source in sources]
        assert {name for table in tables for name in table["patient_id"]} == {
            KEY.pseudonym("Patient", "jane")
        }
        assert all(table.equals(tables[0]) for table in tables)
        assert tables[0]["on"][0] == dt.date(2020, 3, 1) + dt.timedelta(days=KEY.shift_days("jane", 365))

    def test_case_21_intervals_are_preserved(self, sources):
        for source in sources:
            table = self.redact(source)
            assert (table["on"][1] - table["on"][0]).days == 11

    def test_case_21_another_project_key_is_unlinkable(self, sources):
        for source in sources:
            mine, theirs = self.redact(source), self.redact(source, OTHER)
            assert set(mine["patient_id"]).isdisjoint(theirs["patient_id"])
            assert mine["on"].to_list() != theirs["on"].to_list()


class TestCase22PlantedText:
    """Texts in the places where real systems write them come out of no policy."""

    RESOURCES = (
        (
            "condition",
            {
                "code": {"coding": [{"system": "urn:oid:1.2.840.114350", "code": "1", "display": MARKER}]},
                "text": {"status": "generated", "div": f"<div>{MARKER}</div>"},
                "note": [{"text": MARKER, "authorString": MARKER}],
            },
        ),
        ("observation", {"status": "final", "valueString": MARKER, "note": [{"text": MARKER}]}),
        (
            "patient",
            {
                "extension": [{"url": "http://hospital.example/vip", "valueString": MARKER}],
                "name": [{"family": MARKER, "given": [MARKER], "use": "official"}],
                "telecom": [{"system": "phone", "value": MARKER}],
                "address": [{"line": [MARKER], "district": MARKER}],
                "identifier": [{"system": MARKER, "value": MARKER}],
            },
        ),
    )

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize(("name", "content"), RESOURCES)
    def test_case_22_planted_text_is_in_no_redacted_environment(self, name, content, policy):
        view = compile_view(CATALOG.load("views", name))
        reference = {} if name == "patient" else {"subject": {"reference": "Patient/p", "display": MARKER}}
        resource = {"resourceType": view.resource, "id": "x", **reference, **content}
        table = view.collect([resource])
        assert MARKER in str(table.to_dicts()), "the marker is there before redaction"
        plan = plan_redaction(name, view.columns, load_policy(CATALOG, policy))
        redacted = redact(table.lazy(), plan, KEY, as_of=AS_OF, ages=NO_AGES).collect()
        assert redacted.height == 1
        assert MARKER not in str(redacted.to_dicts())
        assert MARKER not in str(plan.explain())

    def test_case_22_a_resource_with_an_unknown_modifier_extension_is_rejected(self, tmp_path):
        view = compile_view(CATALOG.load("views", "condition"))
        condition = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}}
        modified = {"modifierExtension": [{"url": "http://hospital.example/not", "valueString": MARKER}]}
        file = tmp_path / "Condition.ndjson"
        lines = [condition, {**condition, "id": "d", **modified}]
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        (table,), malformed = read_views([view], [str(file)]).execute(lambda frames: [frames["condition"]])
        assert table["condition_id"].to_list() == ["c"]
        assert malformed.select("line", "reason").rows() == [(2, Malformation.MODIFIED)]
        assert MARKER not in str(malformed.to_dicts())

    @pytest.mark.parametrize("policy", POLICIES)
    def test_case_22_errors_hold_no_planted_text(self, policy, caplog):
        """A date that is none, a table of another type: what fails names the column and no value."""
        columns = (
            Column("patient_id", STRING, ("Patient.id",), target="Patient"),
            Column("on", STRING, ("Condition.recordedDate",)),
        )
        plan = plan_redaction("demo", columns, load_policy(CATALOG, policy))
        frame = pl.LazyFrame({"patient_id": ["p"], "on": [f"2020-01-01T10:00 {MARKER}"]})
        assert MARKER not in str(redact(frame, plan, KEY, as_of=AS_OF, ages=NO_AGES).collect().to_dicts())
        if plan.policy.default(PhiClass.DATE).action in {Action.SHIFT, Action.GENERALIZE}:
            with pytest.raises(PolicyError) as caught:
                redact(frame.with_columns(on=pl.lit([MARKER])), plan, KEY, as_of=AS_OF)
            assert MARKER not in str(caught.value)
        assert MARKER not in caplog.text


class TestCase23AgesPlacesNotes:
    """Ages of 90 and more, ZIP code 03601 and notes, under the policies that de-identify."""

    COLUMNS = (
        Column("patient_id", STRING, ("Patient.id",), target="Patient"),
        Column("age", ColumnType.INTEGER, ("Condition.onsetAge.value",)),
        Column("birth_date", DATE, ("Patient.birthDate",)),
        Column("zip", STRING, ("Patient.address.postalCode",)),
        Column("note", STRING, ("Condition.note.text",)),
    )
    FRAME = pl.LazyFrame(
        {
            "patient_id": ["p"],
            "age": [93],
            "birth_date": [dt.date(1930, 5, 1)],
            "zip": ["03601"],
            "note": [MARKER],
        }
    )

    @pytest.mark.parametrize("name", ["safe_harbor", "shifted_dates", "expert"])
    def test_case_23_capped_zeroed_and_removed(self, name):
        plan = plan_redaction("demo", self.COLUMNS, load_policy(CATALOG, name))
        row = redact(self.FRAME, plan, KEY, as_of=AS_OF).collect().row(0, named=True)
        assert (row["age"], row["zip"], "note" in row) == (90, "000", False)
        birth = row.get("birth_year") or row["birth_date"].year
        assert birth == AS_OF.year - 90

    def test_case_23_the_list_of_zip_codes_can_be_changed(self):
        policy = load_policy(CATALOG, "safe_harbor")
        longer = policy.model_copy(update={"also_restricted_zip3": frozenset({"021"})})
        plan = plan_redaction("demo", self.COLUMNS, longer)
        frame = self.FRAME.with_columns(pl.lit("02139").alias("zip"))
        assert redact(frame, plan, KEY, as_of=AS_OF).collect()["zip"].item() == "000"

    def test_case_23_a_missing_key_refuses_to_start(self, project, tmp_path):
        plan = compile_plan(project.load_study("diabetes_nightly"), "dev", project)
        deployment = EnvDeployment({"AIRFLOW_VAR_COHORTFLOW_LAKE": str(tmp_path / "lake")})
        run = Run(plan, DataInterval.of_day(AS_OF), "r1", deployment, project.catalog)
        with pytest.raises(ProjectKeyError, match="The project key is missing"):
            run_plan(run)
        written = [path for path in (tmp_path / "lake" / "dev").rglob("*") if path.is_file()]
        assert {path.relative_to(tmp_path / "lake" / "dev").parts[0] for path in written} <= {"audit"}

    def test_case_23_an_unknown_environment_refuses_to_start(self, project):
        with pytest.raises(UnknownEnvironmentError):
            compile_plan(project.load_study("diabetes_nightly"), "production", project)
