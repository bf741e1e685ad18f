"""Who and what is left out of a study, from a FHIR server to published datasets."""

import csv
import dataclasses
import json
from datetime import date

import polars as pl
import pytest
from exclusion_records import (
    STUDY,
    TEMPLATE,
    condition,
    denial,
    patient,
    permission,
    pseudonyms,
    published,
    write_study,
)
from integration_data import read_ndjson

from cohortflow.errors import ConfigurationError, MalformedDataError
from cohortflow.sandbox import SandboxConfig, running_sandbox
from cohortflow.synthetic import generate
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import read_release

pytestmark = pytest.mark.integration

PATIENTS = 150


@pytest.fixture(scope="session")
def wary(tmp_path_factory):
    """Patients of whom some do not want to take part."""
    folder = tmp_path_factory.mktemp("wary") / "data"
    generate(folder, patients=PATIENTS, seed=7, privacy=True)
    return folder


@pytest.fixture
def site(wary, tmp_path, project_copy, make_site):
    with running_sandbox(SandboxConfig(data=wary, export_seconds=0.1, resources_per_file=5000)) as sandbox:
        yield dataclasses.replace(make_site(sandbox, str(tmp_path / "lake"), tmp_path), project=project_copy)


@pytest.fixture
def wishes(wary):
    with (wary / "ground_truth" / "privacy.csv").open() as file:
        return {row["patient_id"]: row for row in csv.DictReader(file)}


def run_study(site, exclusions, **options):
    write_study(site, exclusions)
    return site.run(STUDY, **options)


def who(wishes, *decisions):
    return {patient for patient, row in wishes.items() if row["decision"] in decisions}


def labelled(wary, resource, *codes):
    """Return the labelled resources."""
    return [
        item
        for item in read_ndjson(wary, resource)
        if codes and any(label["code"] in codes for label in item["meta"].get("security", ()))
    ]


def test_patients_who_opted_out_are_in_no_dataset(site, wishes):
    run, _ = run_study(site, {"consent": "opt_out"})
    gone = pseudonyms(run, who(wishes, "deny", "revoked"))
    stay = pseudonyms(run, who(wishes, "permit", "exception", "none"))
    assert gone
    assert published(site, run) == stay
    for view in run.plan.published:
        assert published(site, run, view) <= stay, view


def test_only_those_who_opted_in_are_in_a_dataset(site, wishes):
    run, _ = run_study(site, {"consent": "opt_in"})
    assert published(site, run) == pseudonyms(run, who(wishes, "permit", "exception"))


def test_labelled_records_are_left_out_and_their_patients_stay(site, wary, wishes):
    run, _ = run_study(site, {"labels": [{"value_set": "sensitivity_hiv", "action": "exclude_record"}]})
    gone = labelled(wary, "Observation", "HIV")
    assert gone
    left = set(site.rows(run, "observation")["observation_id"])
    assert not left & {run.key.pseudonym("Observation", item["id"]) for item in gone}
    assert len(left) == len(read_ndjson(wary, "Observation")) - len(gone)
    assert published(site, run) == pseudonyms(run, wishes)


def test_a_label_on_any_record_leaves_its_patient_out(site, wary, wishes):
    # No view of the study reads MedicationRequest; a label there counts where it is exported.
    template = json.loads(json.dumps(TEMPLATE))
    template["workflow"]["views"] = ["patient"]
    template["workflow"]["source"]["resource_types"] = ["MedicationRequest"]
    write_study(site, {"labels": [{"value_set": "sensitivity_hiv", "action": "exclude_patient"}]}, template)
    run, _ = site.run(STUDY)
    gone = {item["subject"]["reference"][8:] for item in labelled(wary, "MedicationRequest", "HIV")}
    assert gone
    assert published(site, run) == pseudonyms(run, set(wishes) - gone)


def test_masked_records_keep_their_rows_and_lose_what_they_say(site, wary):
    rules = [{"value_set": "confidentiality_restricted", "action": "mask"}]
    run, _ = run_study(site, {"labels": rules})
    keys = {run.key.pseudonym("Observation", item["id"]) for item in labelled(wary, "Observation", "R")}
    rows = site.rows(run, "observation")
    masked = rows.filter(pl.col("observation_id").is_in(keys))
    assert set(masked["observation_id"]) == keys != set()
    for column in ("code", "code_system", "category_code", "value_quantity", "value_unit"):
        assert masked[column].null_count() == masked.height, column
    assert masked["status"].null_count() == masked["effective_year"].null_count() == 0
    assert rows.filter(~pl.col("observation_id").is_in(keys))["code"].null_count() == 0


def test_people_on_a_list_or_marked_are_left_out(site, wary, wishes):
    marked = {patient for patient, row in wishes.items() if row["vip"] == "true"}
    patients = read_ndjson(wary, "Patient")
    by_id, by_number = patients[0], patients[1]
    mrn = by_number["identifier"][0]
    write_study(site, {"vip": {"list": "protected/people.txt"}})
    run = site.open_run(STUDY)
    lines = ["# people to protect", by_id["id"], "", f"{mrn['system']}|{mrn['value']}", "nobody"]
    run.raw.write("protected/people.txt", "\n".join(lines).encode())
    run_plan(run)
    gone = marked | {by_id["id"], by_number["id"]}
    assert published(site, run) == pseudonyms(run, set(wishes) - gone)


def test_another_list_makes_other_datasets_of_the_same_export(site, wary, wishes):
    site.environ["AIRFLOW_VAR_PROTECTED"] = "people.txt"
    write_study(site, {"vip": {"variable": "protected", "labels": None}})
    first, second = (patient["id"] for patient in read_ndjson(wary, "Patient")[:2])
    run = site.open_run(STUDY)
    run.raw.write("people.txt", first.encode())
    run_plan(run)
    run.raw.write("people.txt", f"{first}\n{second}".encode())
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, set(wishes) - {first, second})
    assert site.sandbox.log.count("kickoff") == 1


@pytest.mark.parametrize("content", [None, b"# nobody\n", b"\xff\xfe"])
def test_without_a_list_that_protects_nothing_is_published(site, content):
    write_study(site, {"vip": {"list": "people.txt"}})
    run = site.open_run(STUDY)
    if content is not None:
        run.raw.write("people.txt", content)
    with pytest.raises(ConfigurationError, match="list"):
        run_plan(run)
    assert not run.datasets.list("patient")


def test_minors_are_left_out(site, wary):
    run, _ = run_study(site, {"minors": {"below": 18}})

    def last_day(one):
        """Return the day until which somebody grew older, or the first of all days where nobody knows."""
        if one.get("deceasedBoolean"):
            return "0001-01-01"
        return min(one.get("deceasedDateTime", "9999-01-01")[:10], run.interval.end.date().isoformat())

    def is_adult(one):
        born, end = one["birthDate"], last_day(one)
        return (int(end[:4]) - int(born[:4]) - (end[5:] < born[5:])) >= 18

    adults = {one["id"] for one in read_ndjson(wary, "Patient") if is_adult(one)}
    assert 0 < len(adults) < PATIENTS
    assert published(site, run) == pseudonyms(run, adults)


def test_the_release_counts_reasons_without_small_numbers(site, wishes, caplog):
    caplog.set_level("INFO")
    run, results = run_study(
        site,
        {
            "consent": "opt_out",
            "vip": {},
            "minors": {},
            "labels": [{"value_set": "sensitivity_hiv", "action": "exclude_record"}],
        },
    )
    release = read_release(run.datasets, run.interval.key)
    attrition = release["attrition"]
    assert attrition[0]["criterion"] == "Opted out of research by Consent"
    assert attrition[0]["n_before"] == str(PATIENTS)
    assert attrition[0]["n_excluded"] == str(len(who(wishes, "deny", "revoked")))
    # Celebrities are fewer than eleven: they are counted together with the minors.
    assert "protected people" in attrition[1]["criterion"]
    assert "Younger than 18" in attrition[1]["criterion"]
    assert attrition[-1]["n_after"] == str(site.rows(run, "patient").height)
    assert release["exclusions"]["rules"]["consent"] == "opt_out"
    records = {entry["resource"]: entry["count"] for entry in release["exclusions"]["records"]}
    assert set(records) >= {"Condition", "Observation"}
    assert all(count.startswith("<") or int(count.replace(",", "")) > 10 for count in records.values())
    assert "resources" not in release["extraction"]
    assert results["transform"].facts["exclusions"]["patients"]
    assert "Opted out of research by Consent" in caplog.text
    assert not [patient for patient in wishes if patient in caplog.text]


def test_who_opts_out_later_leaves_earlier_intervals(site, wishes):
    # Under a policy that keeps several intervals.
    connection = json.loads(site.environ["AIRFLOW_CONN_FHIR_DEFAULT"])
    connection["extra"]["synthetic"] = True
    site.environ["AIRFLOW_CONN_FHIR_DEFAULT"] = json.dumps(connection)
    template = json.loads(json.dumps(TEMPLATE))
    template["workflow"]["redaction"] = {"policy": "synthetic_only"}
    write_study(site, {"consent": "opt_out"}, template)
    run, _ = site.run(STUDY, day=date(2026, 10, 30))
    patient = next(
        one
        for one in sorted(who(wishes, "none"))
        if run.key.pseudonym("Patient", one) in published(site, run)
    )
    site.sandbox.put(
        {
            "resourceType": "Consent",
            "id": "late",
            "status": "active",
            "scope": {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}
                ]
            },
            "category": [{"text": "research"}],
            "patient": {"reference": f"Patient/{patient}"},
            "dateTime": "2026-10-31",
            "provision": {"type": "deny"},
        }
    )
    again, results = site.run(STUDY, day=date(2026, 10, 31))
    assert results["withdraw"].facts["withdrawn"]["patient"] == 1
    for view in again.plan.published:
        assert run.key.pseudonym("Patient", patient) not in published(site, again, view), view
    assert set(site.rows(again, "patient")["data_interval"]) == {"2026-10-30", "2026-10-31"}


def test_a_consent_that_cannot_be_read_or_attributed_stops_the_study(site):
    site.sandbox.put(
        {"resourceType": "Consent", "id": "x", "status": "active", "provision": {"type": "deny"}}
    )
    write_study(site, {"consent": "opt_out"})
    template = json.loads(json.dumps(TEMPLATE))
    template["workflow"]["source"] = {"connection": "fhir_default", "level": "system"}
    write_study(site, {"consent": "opt_out"}, template)
    with pytest.raises(MalformedDataError, match="do not refer to a Patient"):
        site.run(STUDY)


def test_prod_leaves_out_who_opted_out_whatever_the_study_says(site, wishes):
    key = site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_DEV"]
    site.environ["AIRFLOW_CONN_COHORTFLOW_KEY_PROD"] = key
    template = json.loads(json.dumps(TEMPLATE))
    template["workflow"]["risk"] = {"on_failure": "suppress"}
    write_study(site, {}, template)
    run, _ = site.run(STUDY, environment="prod")
    assert published(site, run)
    assert not published(site, run) & pseudonyms(run, who(wishes, "deny", "revoked"))


def test_a_denial_of_a_merged_record_counts_for_the_one_that_is_left(small_site):
    link = [{"type": "replaced-by", "other": {"reference": "Patient/new"}}]
    site, template = small_site(
        patient("old", link=link, active=False),
        patient("new"),
        patient("other"),
        condition("1", "old"),
        condition("2", "new"),
        condition("3", "other"),
        denial("c", "old"),
    )
    write_study(site, {"consent": "opt_out"}, template)
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, {"other"})
    assert published(site, run, "condition") == pseudonyms(run, {"other"})


def test_rows_of_nobody_known_go_where_only_permission_counts(small_site):
    site, template = small_site(
        patient("known"), condition("1", "known"), condition("2", "stranger"), permission("c", "known")
    )
    write_study(site, {"consent": "opt_in"}, template)
    run, _ = site.run(STUDY)
    assert published(site, run, "condition") == pseudonyms(run, {"known"})


def test_a_malformed_consent_stops_the_study(small_site):
    site, template = small_site(patient("a"), denial("c", "a"))
    write_study(site, {"consent": "opt_out"}, template)
    run = site.open_run(STUDY)

    def damage(step, result):
        if step.kind == "extract" and result is not None:
            (path,) = (path for path in run.raw.list() if "Consent" in path and path.endswith(".ndjson"))
            run.raw.write(path, (run.raw.read(path) or b"") + b'{"resourceType": "Consent", "id": "x"\n')

    with pytest.raises(MalformedDataError, match="may be a denial"):
        run_plan(run, on_step=damage)
    assert not run.datasets.list("patient")


@pytest.mark.parametrize("mode", ["opt_out", "opt_in"])
def test_an_export_without_consents_stops_the_study(small_site, mode):
    site, template = small_site(patient("a"), condition("1", "a"))
    write_study(site, {"consent": mode}, template)
    run = site.open_run(STUDY)
    with pytest.raises(ConfigurationError, match="holds no Consent") as caught:
        run_plan(run)
    assert "without_consents: publish" in str(caught.value)
    assert not run.datasets.list("patient")


def test_a_site_that_keeps_no_consents_may_say_so(small_site, caplog):
    site, template = small_site(patient("a"), condition("1", "a"))
    write_study(site, {"consent": "opt_out", "without_consents": "publish"}, template)
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, {"a"})
    assert read_release(run.datasets, run.interval.key)["exclusions"]["consents_exported"] is False
    assert "holds no Consent" in caplog.text


def test_a_list_may_lie_elsewhere_in_object_storage(small_site, tmp_path):
    site, template = small_site(patient("a"), patient("b"))
    (tmp_path / "people.txt").write_text("a\n")
    write_study(site, {"vip": {"list": f"{tmp_path}/people.txt", "labels": None}}, template)
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, {"b"})
