"""Records that are written so that somebody who must not be published might be published all the same."""

import copy
import json
from datetime import date

import polars as pl
import pytest
from exclusion_records import (
    HL7,
    SMALL_TEMPLATE,
    STUDY,
    condition,
    denial,
    encounter,
    label,
    patient,
    permission,
    pseudonyms,
    published,
    write_study,
)

from cohortflow.errors import ConfigurationError, MalformedDataError
from cohortflow.sandbox import Fault
from cohortflow.workflow.runner import run_plan
from cohortflow.workflow.steps.release import read_release

pytestmark = pytest.mark.integration

MODIFIED = {"modifierExtension": [{"url": "http://hospital.example/not", "valueBoolean": True}]}
RESEARCH = [{"system": HL7 + "v3-ActReason", "code": "HRESCH"}]
HIV = [{"value_set": "sensitivity_hiv", "action": "exclude_patient"}]


def link(kind, other):
    return {"link": [{"type": kind, "other": {"reference": f"Patient/{other}"}}]}


def with_records(*people):
    """Return people, each with a Condition; of those whose Patient is no mapping, only the Condition."""
    return [
        *(one for one in people if isinstance(one, dict)),
        *(
            condition(
                f"c-{one if isinstance(one, str) else one['id']}", one if isinstance(one, str) else one["id"]
            )
            for one in people
        ),
    ]


@pytest.fixture
def run_small(small_site):
    """Runs a study on records; returns whose rows it published, by the ids that were asked for."""

    def work(exclusions, *resources, template=SMALL_TEMPLATE):
        site, _ = small_site(*resources)
        write_study(site, exclusions, template)
        run, _ = site.run(STUDY)
        everybody = {one["id"] for one in resources if one["resourceType"] == "Patient"}
        everybody |= {one["subject"]["reference"].rpartition("/")[2] for one in resources if "subject" in one}
        rows = {view: published(site, run, view) for view in run.plan.published}
        return {
            view: {one for one in everybody if run.key.pseudonym("Patient", one) in found}
            for view, found in rows.items()
        }

    return work


def test_denials_reach_their_patients_however_they_are_written(run_small):
    # The gate for leaks would find plain words, such as those of a report.
    wishes = {
        "pt-absolute": {"patient": {"reference": "https://ehr.example/fhir/Patient/pt-absolute"}},
        "pt-versioned": {"patient": {"reference": "Patient/pt-versioned/_history/2"}},
        "pt-both": {"patient": {"reference": "https://ehr.example/fhir/Patient/pt-both/_history/2"}},
        "pt-by-policy": {
            "provision": {},
            "policyRule": {"coding": [{"system": HL7 + "v3-ActCode", "code": "OPTOUT"}]},
        },
        "pt-contradicted": {"provision": {"type": "permit"}, "policyRule": {"coding": [{"code": "OPTOUT"}]}},
        "pt-no-type": {"provision": {}},
        "pt-no-provision": {"provision": None},
        "pt-rejected": {"status": "rejected", "provision": {"type": "permit"}},
        "pt-in-part": {
            "provision": {"type": "permit", "provision": [{"type": "deny", "code": [{"text": "x"}]}]}
        },
        "pt-to-somebody": {
            "provision": {"type": "deny", "actor": [{"role": {"text": "x"}, "reference": {"display": "y"}}]}
        },
        "pt-some-data": {
            "provision": {"type": "deny", "data": [{"meaning": "instance", "reference": {"display": "x"}}]}
        },
        "pt-ends-later": {"provision": {"type": "deny", "period": {"end": "2099"}}},
        "pt-nested": {
            "provision": {
                "type": "deny",
                "provision": [{"type": "permit", "purpose": RESEARCH, "provision": [{"type": "deny"}]}],
            }
        },
    }
    idle = {
        "pt-ended": {"provision": {"type": "deny", "period": {"end": "2020-12-31"}}},
        "pt-not-begun": {"provision": {"type": "deny", "period": {"start": "2099-01-01"}}},
        "pt-in-error": {"status": "entered-in-error"},
        "pt-inactive": {"status": "inactive"},
        "pt-proposed": {"status": "proposed"},
        "pt-treatment": {"scope": {"coding": [{"system": HL7 + "consentscope", "code": "treatment"}]}},
        "pt-but-research": {
            "provision": {"type": "deny", "provision": [{"type": "permit", "purpose": RESEARCH}]}
        },
        "pt-permits": {"provision": {"type": "permit"}},
    }
    consents = [
        {key: value for key, value in denial(f"d-{who}", who, **how).items() if value is not None}
        for who, how in (wishes | idle).items()
    ]
    people = with_records(*(patient(who) for who in wishes | idle))
    found = run_small({"consent": "opt_out"}, *people, *consents)
    assert found == {"patient": set(idle), "condition": set(idle)}


def test_of_two_decisions_the_newer_counts_and_in_doubt_the_denial(run_small):
    times = {
        # When each of them denied and permitted.
        "first": ("2026-01-01", "2026-01-02"),
        "last": ("2026-01-02", "2026-01-01"),
        "same": ("2026-01-01", "2026-01-01"),
        "zones": ("2026-01-01T23:30:00-05:00", "2026-01-02T04:00:00Z"),
        "vague": ("2026", "2026-06-01"),
        "never": (None, "2026-06-01"),
        "later": ("2026-01-01", "2099-01-01"),
    }
    consents = [
        {key: value for key, value in one.items() if value is not None}
        for who, (denied, permitted) in times.items()
        for one in (
            denial(f"d-{who}", who, dateTime=denied),
            permission(f"p-{who}", who, dateTime=permitted),
        )
    ]
    found = run_small({"consent": "opt_out"}, *with_records(*map(patient, times)), *consents)
    assert found == {"patient": {"first"}, "condition": {"first"}}


@pytest.mark.parametrize(
    "subject",
    [
        {"reference": "#p"},
        {"identifier": {"system": "urn:mrn", "value": "1"}},
        {"reference": "urn:uuid:0b8a1f0c-6a34-4a3a-9e0e-0b8a1f0c6a34"},
        {"reference": "Patient?identifier=urn:mrn|1"},
        {"reference": "Patient/a "},
        {"reference": "patient/a"},
        {"display": "a"},
    ],
)
def test_a_denial_of_nobody_knows_whom_stops_the_study(small_site, subject):
    site, _ = small_site(
        *with_records(patient("a"), patient("b")),
        denial("x", "b"),
        denial("y", "a", patient=subject, contained=[{"resourceType": "Patient", "id": "p"}]),
    )
    write_study(site, {"consent": "opt_out"}, SMALL_TEMPLATE)
    run = site.open_run(STUDY)
    with pytest.raises(MalformedDataError, match="do not refer to a Patient by its id"):
        run_plan(run)
    assert not run.datasets.list("patient")


@pytest.mark.parametrize("without", ["stop", "publish"])
def test_an_export_that_may_lack_consents_stops_the_study(small_site, without):
    site, _ = small_site(*with_records(patient("a"), patient("b")), denial("x", "a"))
    write_study(site, {"consent": "opt_out", "without_consents": without}, SMALL_TEMPLATE)
    site.sandbox.faults.add(Fault(kind="export-outcome", on="kickoff", severity="error"))
    run = site.open_run(STUDY)
    with pytest.raises(MalformedDataError, match="The export of Consent is partial"):
        run_plan(run)
    assert not run.datasets.list("patient")


def test_denials_that_reach_nobody_at_all_stop_the_study(small_site):
    site, _ = small_site(*with_records(patient("pat-1")), denial("x", "1"))
    write_study(site, {"consent": "opt_out"}, SMALL_TEMPLATE)
    run = site.open_run(STUDY)
    with pytest.raises(MalformedDataError, match="reach nobody"):
        run_plan(run)
    assert not run.datasets.list("patient")


def test_denials_of_others_than_the_exports_patients_are_told(small_site, caplog):
    site, _ = small_site(*with_records(patient("a"), patient("b")), denial("x", "b"), denial("y", "stranger"))
    write_study(site, {"consent": "opt_out"}, SMALL_TEMPLATE)
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, {"a"})
    assert "whom the export does not hold" in caplog.text
    assert "stranger" not in caplog.text


def test_a_denial_holds_for_every_record_of_a_person(run_small):
    people = [
        # Merged, told from either side, over several steps, and into two.
        patient("old", active=False, **link("replaced-by", "new")),
        patient("new"),
        patient("winner", **link("replaces", "loser")),
        patient("loser"),
        patient("one", **link("replaced-by", "two")),
        patient("two", **link("replaced-by", "three")),
        patient("three"),
        patient("split", link=[*link("replaced-by", "left")["link"], *link("replaced-by", "right")["link"]]),
        patient("left"),
        patient("right"),
        # Another record of the same person, and both are used.
        patient("here", **link("seealso", "there")),
        patient("there", **link("refer", "elsewhere")),
        patient("elsewhere"),
        patient("other"),
    ]
    denied = ["old", "loser", "one", "split", "elsewhere"]
    found = run_small({"consent": "opt_out"}, *with_records(*people), *(denial(f"d-{n}", n) for n in denied))
    assert found == {"patient": {"other"}, "condition": {"other"}}


def test_a_permission_does_not_spread_to_another_record(run_small):
    people = [
        patient("a", **link("seealso", "b")),
        patient("b"),
        patient("c", **link("seealso", "d")),
        patient("d"),
    ]
    consents = [permission("1", "a"), permission("2", "c"), denial("3", "d")]
    found = run_small({"consent": "opt_in"}, *with_records(*people), *consents)
    assert found["patient"] == set()


@pytest.mark.parametrize(
    "exclusions",
    [{"consent": "opt_out"}, {"vip": {}}, {"labels": [{"value_set": "sensitivity_hiv"}]}, {"minors": {}}],
    ids=["consent", "vip", "labels", "minors"],
)
def test_without_a_patient_that_can_be_read_there_are_no_rows(run_small, exclusions):
    # Whether they are on a list, labelled, young or merged is in the Patient.
    people = [patient("a"), patient("modified", **MODIFIED), "stranger"]
    found = run_small(exclusions, *with_records(*people), permission("p", "a"))
    assert found == {"patient": {"a"}, "condition": {"a"}}


@pytest.mark.parametrize(
    ("action", "left"),
    [("exclude_record", {"patient": {"b"}, "condition": {"b"}}), ("exclude_patient", None)],
)
def test_the_label_of_a_patient_protects_the_patient(run_small, action, left):
    people = [
        patient("a", **label("HIV")),
        patient("b"),
        patient("c", **label("PROCESSINLINELABEL")),
        patient("d", **link("seealso", "a")),
    ]
    found = run_small(
        {"labels": [{"value_set": "sensitivity_hiv", "action": action}]}, *with_records(*people)
    )
    assert found == (left or {"patient": {"b"}, "condition": {"b"}})


def test_the_masked_patient_is_masked_everywhere(small_site):
    site, _ = small_site(*with_records(patient("a", **label("R", "v3-Confidentiality")), patient("b")))
    write_study(
        site, {"labels": [{"value_set": "confidentiality_restricted", "action": "mask"}]}, SMALL_TEMPLATE
    )
    run, _ = site.run(STUDY)
    codes = site.rows(run, "condition").group_by("patient_id").agg(pl.col("code").drop_nulls())
    (a,), (b,) = (pseudonyms(run, {one}) for one in "ab")
    assert {one: len(found) for one, found in codes.iter_rows()} == {a: 0, b: 1}


def test_what_belongs_to_a_labelled_encounter_goes_with_it(small_site):
    def within(number):
        return {"encounter": {"reference": f"Encounter/{number}"}}

    document = {
        "resourceType": "DocumentReference",
        "id": "d1",
        "status": "current",
        "subject": {"reference": "Patient/a"},
        "date": "2026-01-01T00:00:00Z",
        "content": [{"attachment": {"title": "x"}}],
        "context": {"encounter": [{"reference": "Encounter/plain"}, {"reference": "Encounter/ward"}]},
    }
    site, _ = small_site(
        patient("a"),
        encounter("plain", "a"),
        encounter("clinic", "a", **label("42CFRPart2")),
        encounter("ward", "a", partOf={"reference": "Encounter/clinic"}),
        encounter("visit", "a", partOf={"reference": "Encounter/ward"}),
        encounter("quiet", "a", **label("R", "v3-Confidentiality")),
        *(condition(f"c-{one}", "a", **within(one)) for one in ("plain", "clinic", "ward", "visit", "quiet")),
        condition(
            "c-absolute", "a", encounter={"reference": "https://ehr.example/fhir/Encounter/visit/_history/3"}
        ),
        condition("c-none", "a"),
        document,
        document | {"id": "d2", "context": {"encounter": [{"reference": "Encounter/plain"}]}},
    )
    rules = [
        {"value_set": "sensitivity_42cfr_part2", "action": "exclude_record"},
        {"value_set": "confidentiality_restricted", "action": "mask"},
    ]
    # No view reads Encounter here: its labels count where it is exported.
    template = copy.deepcopy(SMALL_TEMPLATE)
    template["workflow"]["views"] = ["patient", "condition", "document_reference"]
    template["workflow"]["source"]["resource_types"] = ["Encounter"]
    write_study(site, {"labels": rules}, template)
    run, _ = site.run(STUDY)

    def left(view, key, resource, *numbers):
        rows = site.rows(run, view)
        names = {run.key.pseudonym(resource, number): number for number in numbers}
        return {names[one]: code for one, code in rows.select(key, "code").iter_rows()}

    conditions = [f"c-{one}" for one in ("plain", "clinic", "ward", "visit", "quiet", "absolute", "none")]
    found = left("condition", "condition_id", "Condition", *conditions)
    assert found == {"c-plain": "195967001", "c-none": "195967001", "c-quiet": None}
    assert set(left("document_reference", "document_id", "DocumentReference", "d1", "d2")) == {"d2"}


def test_a_labelled_record_of_nobody_knows_whom_stops_the_study(small_site):
    bad = condition("x", "a", **label("HIV")) | {"subject": {"identifier": {"value": "1"}}}
    site, _ = small_site(*with_records(patient("a")), bad)
    write_study(site, {"labels": HIV}, SMALL_TEMPLATE)
    with pytest.raises(MalformedDataError, match="do not refer to a Patient"):
        site.run(STUDY)


def test_where_a_label_leaves_its_patient_out_every_record_must_be_readable(small_site):
    site, _ = small_site(
        *with_records(patient("a"), patient("b")), condition("x", "a", **label("HIV"), **MODIFIED)
    )
    write_study(site, {"labels": HIV}, SMALL_TEMPLATE)
    with pytest.raises(MalformedDataError, match="may bear a label"):
        site.run(STUDY)
    write_study(site, {"labels": [HIV[0] | {"action": "exclude_record"}]}, SMALL_TEMPLATE)
    run, _ = site.run(STUDY)
    assert published(site, run) == pseudonyms(run, {"a", "b"})
    assert site.rows(run, "condition").height == 2


def test_who_is_young_or_died_young_is_left_out_and_so_are_all_records_of_them(run_small):
    people = [
        patient("adult"),
        patient("child", birthDate="2015-05-05"),
        patient("no-date", birthDate=None),
        patient("partial", birthDate="2008"),
        patient("died-young", birthDate="1990-01-01", deceasedDateTime="2001-01-01"),
        patient("died", birthDate="1940-01-01", deceasedDateTime="2010"),
        patient("died-once", birthDate="1940-01-01", deceasedBoolean=True),
        patient("double", **link("seealso", "child")),
        "stranger",
    ]
    records = [
        {key: value for key, value in one.items() if value is not None} for one in with_records(*people)
    ]
    found = run_small({"minors": {}}, *records)
    assert found == {"patient": {"adult", "died"}, "condition": {"adult", "died"}}


def test_a_list_protects_people_by_their_numbers_however_it_is_written(small_site):
    numbers = {"a": "MRN-1", "b": "MRN-2 ", "c": "3", "old": "MRN-4", "e": "MRN-5", "z": "MRN-9"}
    people = [
        patient(one, identifier=[{"system": "urn:mrn", "value": number}]) for one, number in numbers.items()
    ]
    people[3] |= link("replaced-by", "new")
    site, _ = small_site(*with_records(*people, patient("new")))
    write_study(site, {"vip": {"list": "people.txt", "labels": None}}, SMALL_TEMPLATE)
    run = site.open_run(STUDY)
    lines = [
        "\ufeff# people",
        "mrn-1 # the mayor",
        " urn:mrn | MRN-2",
        '"Patient/c"',
        "",
        "urn:mrn|MRN-4",
        "Patient/e",
    ]
    run.raw.write("people.txt", "\r\n".join(lines).encode())
    run_plan(run)
    assert published(site, run, "condition") == published(site, run) == pseudonyms(run, {"z"})


def test_a_line_of_a_list_without_a_number_stops_the_study(small_site):
    site, _ = small_site(*with_records(patient("a")))
    write_study(site, {"vip": {"list": "people.txt", "labels": None}}, SMALL_TEMPLATE)
    run = site.open_run(STUDY)
    run.raw.write("people.txt", b"a\nurn:mrn|\n")
    with pytest.raises(ConfigurationError, match="Line 2"):
        run_plan(run)
    assert not run.datasets.list("patient")


@pytest.fixture
def lasting_site(small_site):
    """Returns a site under a policy that keeps several intervals, and its template."""

    def make(*resources):
        site, template = small_site(*resources)
        template = copy.deepcopy(template)
        template["workflow"]["redaction"] = {"policy": "synthetic_only"}
        return site, template

    return make


def test_who_opts_out_does_not_come_back_when_an_older_interval_is_repeated(lasting_site):
    site, template = lasting_site(*with_records(patient("a"), patient("b")), permission("p", "b"))
    write_study(site, {"consent": "opt_out"}, template)
    site.run(STUDY, day=date(2026, 10, 30))
    site.sandbox.put(denial("late", "a", dateTime="2026-10-31"))
    site.run(STUDY, day=date(2026, 10, 31))
    again, _ = site.run(STUDY, day=date(2026, 10, 30), run_id="again")
    rows = site.rows(again, "condition")
    assert set(rows["data_interval"]) == {"2026-10-30", "2026-10-31"}
    assert set(rows["patient_id"]) == pseudonyms(again, {"b"})
    # It does not matter which other rules the study has got meanwhile.
    write_study(site, {"consent": "opt_out", "vip": {}}, template)
    again, _ = site.run(STUDY, day=date(2026, 10, 30), run_id="otherwise")
    assert published(site, again, "condition") == pseudonyms(again, {"b"})
    write_study(site, {"consent": "opt_out"}, template)
    # Who opts in again comes back, also there.
    site.sandbox.put(permission("later", "a", dateTime="2026-11-02"))
    site.run(STUDY, day=date(2026, 11, 2))
    again, _ = site.run(STUDY, day=date(2026, 10, 30), run_id="and again")
    assert published(site, again, "condition") == pseudonyms(again, {"a", "b"})


def test_whose_record_is_labelled_later_does_not_come_back_either(lasting_site):
    site, template = lasting_site(*with_records(patient("a"), patient("b")))
    write_study(site, {"labels": HIV}, template)
    site.run(STUDY, day=date(2026, 10, 30))
    site.sandbox.put(condition("c-a", "a", **label("HIV")))
    site.run(STUDY, day=date(2026, 10, 31))
    again, _ = site.run(STUDY, day=date(2026, 10, 30), run_id="again")
    rows = site.rows(again, "patient")
    assert set(rows["data_interval"]) == {"2026-10-30", "2026-10-31"}
    assert set(rows["patient_id"]) == pseudonyms(again, {"b"})


def test_an_older_version_is_not_published_for_one_that_cannot_be_read(lasting_site):
    site, template = lasting_site(*with_records(patient("a"), patient("b")))
    template["workflow"]["source"]["incremental"] = {"full_every": 30}
    write_study(site, {}, template)
    run, _ = site.run(STUDY, day=date(2026, 10, 30))
    assert published(site, run, "condition") == pseudonyms(run, {"a", "b"})
    site.sandbox.put(condition("c-a", "a", **MODIFIED))
    run, results = site.run(STUDY, day=date(2026, 10, 31))
    assert results["extract"].facts["kind"] == "incremental"
    rows = site.rows(run, "condition").filter(pl.col("data_interval") == "2026-10-31")
    assert set(rows["patient_id"]) == pseudonyms(run, {"b"})


def test_a_consent_that_was_mended_since_stops_nothing(lasting_site):
    site, template = lasting_site(*with_records(patient("a"), patient("b")), denial("x", "a", **MODIFIED))
    template["workflow"]["source"]["incremental"] = {"full_every": 30}
    write_study(site, {"consent": "opt_out"}, template)
    with pytest.raises(MalformedDataError, match="may be a denial"):
        site.run(STUDY, day=date(2026, 10, 30))
    site.sandbox.put(denial("x", "a"))
    run, results = site.run(STUDY, day=date(2026, 10, 31))
    assert results["extract"].facts["kind"] == "incremental"
    assert published(site, run) == pseudonyms(run, {"b"})


def test_one_person_who_opted_out_is_not_told_by_any_count(small_site):
    people = [patient(f"p{number:02}") for number in range(30)]
    site, _ = small_site(*with_records(*people), denial("x", "p07"))
    write_study(site, {"consent": "opt_out", "minors": {}}, SMALL_TEMPLATE)
    run, results = site.run(STUDY)
    release = read_release(run.datasets, run.interval.key)
    (step,) = release["attrition"]
    assert (step["n_before"], step["n_excluded"], step["n_after"]) == ("not shown", "<11", "not shown")
    facts = results["transform"].facts["exclusions"]
    assert [reason["n_excluded"] for reason in facts["patients"]] == ["<11", "0"]
    # With the rows of the datasets, which anybody counts, the number of all patients would tell it.
    assert site.rows(run, "patient").height == 29
    shown = [
        release["exclusions"],
        release["extraction"] | {"transaction_time": ""},
        release["snapshot"],
        facts,
    ]
    assert "30" not in json.dumps(shown)
