"""Acceptance: chains of exports, deletions and duplicates, from the raw zone to the published datasets."""

import copy
import dataclasses
import hashlib
import json
import logging
from datetime import UTC, date, datetime

import polars as pl
import pytest
from deltalake import DeltaTable
from integration_data import read_ndjson, truth

from cohortflow.connectors import ExtractionResult
from cohortflow.errors import MalformedDataError
from cohortflow.lake import RawExport, load_tombstones
from cohortflow.workflow import steps as steps_module
from cohortflow.workflow.plan import StepKind
from cohortflow.workflow.run import StepResult
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.spec import IncrementalSpec
from cohortflow.workflow.steps import identifiers, transform, withdraw
from cohortflow.workflow.steps.extract import Extraction
from cohortflow.workflow.steps.release import list_releases, read_release

pytestmark = pytest.mark.integration

TYPES = (
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "MedicationRequest",
    "Procedure",
    "Immunization",
)
DAY_1, DAY_2, DAY_3 = date(2026, 10, 29), date(2026, 10, 30), date(2026, 10, 31)


def at(day):
    """Return the transaction time of the export of the night after a day."""
    return datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)


class Source:
    """A source's exports, written into the raw zone by hand."""

    def __init__(self, site, monkeypatch):
        self.site = site
        self.chain = ()
        self.raw = site.open_run().raw
        for module in (identifiers, transform, withdraw):
            monkeypatch.setattr(module, "load_chain", lambda _run: self.chain)
        steps = {**steps_module.STEPS, StepKind.EXTRACT: lambda _run, _view: StepResult()}
        monkeypatch.setattr(steps_module, "STEPS", steps)

    def export(self, name, time, files, deleted=()):
        """Write an export: lists of resources by type, one per file, and references to what was deleted."""
        export = RawExport(self.raw, f"fhir_default/diabetes_nightly/{name}")
        names, counts, digest = {}, {}, hashlib.sha256(str(time).encode())
        for resource, parts in files.items():
            names[resource] = tuple(
                f"{resource}/{resource}.{number:04d}.ndjson" for number in range(len(parts))
            )
            counts[resource] = sum(map(len, parts))
            for path, resources in zip(names[resource], parts, strict=True):
                digest.update(self._write(export, path, resources))
        entries = [{"request": {"method": "DELETE", "url": reference}} for reference in deleted]
        bundles = ("_deleted/Bundle.0001.ndjson",) if deleted else ()
        for path in bundles:
            digest.update(self._write(export, path, [{"resourceType": "Bundle", "entry": entries}]))
        result = ExtractionResult(
            transaction_time=time.isoformat(), files=names, resources=counts, deleted_files=bundles
        )
        return Extraction(export, result, digest.hexdigest())

    def _write(self, export, path, resources):
        content = "".join(f"{json.dumps(resource)}\n" for resource in resources).encode()
        export.store.write(f"{export.prefix}/{path}", content)
        return content

    def run(self, day, *chain, **options):
        """Run the study for a day on a chain; return the run and the steps' results."""
        self.chain = chain
        run = self.site.open_run(day=day, **options)
        return run, run_plan(run)


@pytest.fixture
def source(folder_site, monkeypatch):
    return Source(folder_site, monkeypatch)


@pytest.fixture
def records(patients):
    """The hospital's resources by type, to be changed."""
    return copy.deepcopy({resource: read_ndjson(patients, resource) for resource in TYPES})


@pytest.fixture
def someone(patients):
    """A patient of the cohort."""
    return min(truth(patients, DAY_1))


def one_file(records):
    return {resource: [resources] for resource, resources in records.items()}


def without(records, patient):
    """Return the records of a hospital that never saw a patient."""
    reference = f"Patient/{patient}"
    return {
        resource: [
            one
            for one in resources
            if reference not in (f"Patient/{one['id']}", *_subjects(one)) or resource == "Organization"
        ]
        for resource, resources in records.items()
    }


def _subjects(resource):
    return [resource[name]["reference"] for name in ("subject", "patient") if name in resource]


def of_interval(rows, day):
    return {
        view: frame.filter(pl.col("data_interval") == day.isoformat()).drop("data_interval")
        for view, frame in rows.items()
    }


def assert_same(rows, expected):
    assert rows.keys() == expected.keys()
    assert all(frame.height for frame in expected.values()), "empty datasets would prove nothing"
    for view, frame in rows.items():
        assert frame.equals(expected[view]), view


def holds(rows, pseudonym):
    return {view for view, frame in rows.items() if pseudonym in set(frame["patient_id"])}


class TestCase08DeletedPatient:
    @pytest.fixture
    def nights(self, source, records, someone):
        """Two nights: all is exported, then the patient is deleted."""
        full = source.export("full", at(DAY_1), one_file(records))
        gone = source.export("gone", at(DAY_2), {}, deleted=[f"Patient/{someone}"])
        return full, gone

    def test_case_08_deleted_patient_is_absent_from_all_outputs(self, source, nights, records, someone):
        full, gone = nights
        run, _ = source.run(DAY_1, full)
        pseudonym = run.key.pseudonym("Patient", someone)
        before = source.site.all_rows(run)
        assert {"cohort", "patient", "encounter", "condition", "observation"} <= holds(before, pseudonym)

        run, results = source.run(DAY_2, full, gone)
        after = source.site.all_rows(run)
        assert holds(after, pseudonym) == set()
        others = {view: frame.filter(pl.col("patient_id") != pseudonym) for view, frame in before.items()}
        assert_same(of_interval(after, DAY_1), of_interval(others, DAY_1))

        source.site.environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] += "-never"
        other, _ = source.run(DAY_2, source.export("never", at(DAY_2), one_file(without(records, someone))))
        assert_same(of_interval(after, DAY_2), of_interval(source.site.all_rows(other), DAY_2))
        assert results["transform"].facts["snapshot"]["hidden_patients"] == 1
        assert results["transform"].facts["snapshot"]["deleted"] == {"Patient": 1}

    def test_case_08_deleted_patient_is_tombstoned(self, source, nights, someone):
        full, gone = nights
        source.run(DAY_2, full, gone)
        tombstones = load_tombstones(source.raw, "fhir_default")
        assert list(tombstones.iter_rows()) == [("Patient", someone, at(DAY_2))]
        # A repeat of the earlier night knows it, though its exports do not.
        run, _ = source.run(DAY_1, full)
        rows = source.site.all_rows(run)
        assert all(frame.height for frame in of_interval(rows, DAY_1).values())
        assert holds(rows, run.key.pseudonym("Patient", someone)) == set()

    def test_case_08_release_documents_follow(self, source, nights):
        full, gone = nights
        run, _ = source.run(DAY_1, full)
        before = source.site.all_rows(run)
        assert read_release(run.datasets, DAY_1.isoformat())["deletions"]["withdrawn"] == {}
        run, _ = source.run(DAY_2, full, gone)
        old = read_release(run.datasets, DAY_1.isoformat())
        for dataset in old["datasets"]:
            uri = run.datasets.child(dataset["name"])
            frame = pl.read_delta(uri, version=dataset["version"])
            assert frame.height == dataset["rows"]
        withdrawn = {entry["dataset"]: entry["rows"] for entry in old["withdrawals"]}
        rows = {dataset["name"]: dataset["rows"] for dataset in old["datasets"]}
        assert {name: frame.height for name, frame in before.items()} == {
            name: count + withdrawn.get(name, 0) for name, count in rows.items()
        }
        new = read_release(run.datasets, DAY_2.isoformat())
        assert new["deletions"] == {
            "deletions_reported": 1,
            "deletions_known": 1,
            "withdrawn": withdrawn,
            "untraceable": [],
        }
        assert "withdrawals" not in new

    def test_case_08_repeated_it_changes_nothing(self, source, nights):
        full, gone = nights
        source.run(DAY_1, full)
        run, _ = source.run(DAY_2, full, gone)
        before = source.site.all_rows(run)
        versions = {view: DeltaTable(run.datasets.child(view)).version() for view in before}
        documents = [read_release(run.datasets, key) for key in list_releases(run.datasets)]
        _, results = source.run(DAY_2, full, gone)
        assert results["withdraw"].facts["withdrawn"] == {}
        assert_same(source.site.all_rows(run), before)
        assert versions == {view: DeltaTable(run.datasets.child(view)).version() for view in before}
        assert read_release(run.datasets, DAY_1.isoformat()) == documents[0]

    def test_case_08_deletions_do_not_wait_for_good_data(self, source, nights, records, someone):
        full, gone = nights
        run, _ = source.run(DAY_1, full)
        damaged = {"Observation": [[{"resourceType": "Observation"}] * 500]}
        with pytest.raises(MalformedDataError):
            source.run(DAY_2, full, gone, source.export("damaged", at(DAY_2), damaged))
        assert holds(source.site.all_rows(run), run.key.pseudonym("Patient", someone)) == set()
        assert list_releases(run.datasets) == [DAY_1.isoformat()]

    def test_case_08_unreadable_deletions_stop_the_run(self, source, nights):
        full, gone = nights
        path = f"{gone.export.prefix}/_deleted/Bundle.0001.ndjson"
        gone.export.store.write(path, gone.export.store.read(path)[:-9])
        with pytest.raises(MalformedDataError, match="list of deletions"):
            source.run(DAY_2, full, gone)

    def test_case_08_patient_who_comes_back_is_in_later_intervals_only(
        self, source, nights, records, someone
    ):
        full, gone = nights
        source.run(DAY_1, full)
        source.run(DAY_2, full, gone)
        patient = [one for one in records["Patient"] if one["id"] == someone]
        back = source.export("back", at(DAY_3), {"Patient": [patient]})
        run, _ = source.run(DAY_3, full, gone, back)
        rows = source.site.all_rows(run)
        pseudonym = run.key.pseudonym("Patient", someone)
        present = {
            view: set(frame.filter(pl.col("patient_id") == pseudonym)["data_interval"])
            for view, frame in rows.items()
        }
        assert present["patient"] == present["cohort"] == present["observation"] == {DAY_3.isoformat()}
        assert all(intervals <= {DAY_3.isoformat()} for intervals in present.values())

    def test_case_08_deleted_resource_leaves_its_dataset_only(self, source, records, someone):
        full = source.export("full", at(DAY_1), one_file(records))
        run, _ = source.run(DAY_1, full)
        before = source.site.all_rows(run)
        gone = next(
            one["id"] for one in records["Encounter"] if one["subject"]["reference"] == f"Patient/{someone}"
        )
        run, results = source.run(
            DAY_2, full, source.export("gone", at(DAY_2), {}, deleted=[f"Encounter/{gone}"])
        )
        after = source.site.all_rows(run)
        pseudonym = run.key.pseudonym("Encounter", gone)
        assert pseudonym in set(before["encounter"]["encounter_id"])
        assert pseudonym not in set(after["encounter"]["encounter_id"])
        left = before | {"encounter": before["encounter"].filter(pl.col("encounter_id") != pseudonym)}
        assert_same(of_interval(after, DAY_1), of_interval(left, DAY_1))
        assert results["transform"].facts["snapshot"]["deleted"] == {"Encounter": 1}
        assert set(results["withdraw"].facts["withdrawn"]) == {"encounter"}

    def test_case_08_nothing_names_the_deleted_patient(self, source, nights, someone, caplog):
        full, gone = nights
        caplog.set_level(logging.DEBUG)
        source.run(DAY_1, full)
        run, results = source.run(DAY_2, full, gone)
        pseudonym = run.key.pseudonym("Patient", someone)
        told = [caplog.text, *(json.dumps(result.to_dict()) for result in results.values())]
        told += [run.datasets.read(path).decode() for path in run.datasets.list("_releases")]
        assert not [text for text in told if someone in text or pseudonym in text]
        commits = [
            facts
            for view in run.plan.published
            for facts in DeltaTable(run.datasets.child(view)).history()
            if "withdrawn" in facts.get("cohortflow", {})
        ]
        assert len(commits) == len(results["withdraw"].facts["withdrawn"]) > 3
        assert pseudonym not in json.dumps(commits, default=str)

    def test_case_08_rows_leave_a_lake_in_s3(self, s3_site, monkeypatch, records, someone):
        source = Source(s3_site, monkeypatch)
        full = source.export("full", at(DAY_1), one_file(records))
        gone = source.export("gone", at(DAY_2), {}, deleted=[f"Patient/{someone}"])
        run, _ = source.run(DAY_1, full)
        before = s3_site.all_rows(run)
        pseudonym = run.key.pseudonym("Patient", someone)
        run, results = source.run(DAY_2, full, gone)
        after = of_interval(s3_site.all_rows(run), DAY_1)
        others = {view: frame.filter(pl.col("patient_id") != pseudonym) for view, frame in before.items()}
        assert_same(after, of_interval(others, DAY_1))
        assert results["withdraw"].facts["withdrawn"]["cohort"] == 1

    def test_case_08_deleted_at_a_server_between_two_nights(self, folder_site, someone):

        def run_night(day):
            run = folder_site.open_run(day=day)
            incremental = IncrementalSpec(full_every=30)
            spec = run.plan.spec.model_copy(
                update={"source": run.plan.spec.source.model_copy(update={"incremental": incremental})}
            )
            run = dataclasses.replace(run, plan=dataclasses.replace(run.plan, spec=spec))
            return run, run_plan(run)

        run, _ = run_night(DAY_1)
        before = folder_site.all_rows(run)
        assert folder_site.sandbox.delete("Patient", someone)
        run, results = run_night(DAY_2)
        assert results["extract"].facts["kind"] == "incremental"
        pseudonym = run.key.pseudonym("Patient", someone)
        assert {"cohort", "patient", "observation"} <= holds(before, pseudonym)
        after = folder_site.all_rows(run)
        assert holds(after, pseudonym) == set()
        assert after["cohort"].height == 2 * (before["cohort"].height - 1)
        assert load_tombstones(run.raw, "fhir_default")["id"].to_list() == [someone]


class TestCase11Replay:
    @pytest.mark.parametrize("timestamps", [True, False], ids=["with lastUpdated", "without lastUpdated"])
    def test_case_11_replayed_and_late_exports_give_identical_rows(self, source, records, timestamps):
        if not timestamps:
            for one in (one for resources in records.values() for one in resources):
                one.pop("meta", None)
        full = source.export("full", at(DAY_1), one_file(records))
        changed = copy.deepcopy(records["Encounter"][::3])
        for one in changed:
            one["status"] = "entered-in-error"
        newer = source.export("newer", at(DAY_2), {"Encounter": [changed]})
        run, _ = source.run(DAY_3, full, newer)
        rows = source.site.all_rows(run)
        kinds = rows["encounter"]["status"].value_counts(sort=True)
        assert "entered-in-error" in set(kinds["status"])
        for chain in [(newer, full), (full, newer, newer), (full, newer, full)]:
            source.site.environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] += "-again"
            again, _ = source.run(DAY_3, *chain)
            assert_same(source.site.all_rows(again), rows)

    def test_case_11_the_same_chain_is_not_landed_twice(self, source, records):
        full = source.export("full", at(DAY_1), one_file(records))
        newer = source.export("newer", at(DAY_2), {"Encounter": [records["Encounter"][:5]]})
        run, first = source.run(DAY_3, full, newer)
        _, second = source.run(DAY_3, newer, full)
        assert first["land.encounter"].facts["committed"]
        assert not second["land.encounter"].facts["committed"]
        assert DeltaTable(run.datasets.child("encounter")).version() == 0


class TestCase12Duplicates:
    @pytest.mark.parametrize("timestamps", [True, False], ids=["with lastUpdated", "without lastUpdated"])
    def test_case_12_duplicate_ids_across_files_give_one_row(self, source, records, timestamps):
        if not timestamps:
            for one in (one for resources in records.values() for one in resources):
                one.pop("meta", None)
        plain = source.export("plain", at(DAY_3), one_file(records))
        run, _ = source.run(DAY_3, plain)
        rows = source.site.all_rows(run)
        # Every resource again, in another file and in another order, and some within their file.
        doubled = {
            resource: [[*resources, *resources[::7]], resources[::-1]]
            for resource, resources in records.items()
        }
        source.site.environ["AIRFLOW_VAR_COHORTFLOW_LAKE"] += "-doubled"
        again, results = source.run(DAY_3, source.export("doubled", at(DAY_3), doubled))
        assert_same(source.site.all_rows(again), rows)
        counted = results["transform"].facts["snapshot"]["duplicates"]
        expected = {resource: len(resources) + len(resources[::7]) for resource, resources in records.items()}
        assert counted == {resource: expected[resource] for resource in counted}
        assert {"Patient", "Observation", "Encounter"} <= counted.keys()
