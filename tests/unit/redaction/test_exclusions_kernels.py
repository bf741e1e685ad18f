"""Labels, lists, age and masking: who and what is left out, and what stays of the rest."""

import json
from datetime import date
from types import MappingProxyType

import polars as pl
import pytest

from cohortflow.errors import ConfigurationError, StudyError
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.redaction.exclusions import (
    ENCOUNTERS,
    EXCLUDED,
    LABELS,
    MASKED,
    PERSON_VIEW,
    UNCLEAR,
    Reason,
    add_labels,
    clear_rows,
    count_steps,
    encounter_path,
    find_listed,
    find_minors,
    gather_subjects,
    has_label,
    label_view,
    mask_rows,
    maskable_columns,
    parse_list,
    spell_labels,
    subject_path,
)

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
BASIS = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-sec-label-basis"
HIV = spell_labels([(ACT_CODE, "HIV")])


def ids(*names):
    return pl.LazyFrame({"patient_id": list(names)}, schema={"patient_id": pl.String})


def read(view, tmp_path, *resources):
    compiled = compile_view(view)
    path = tmp_path / "rows.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in resources))
    return compiled.lazy(pl.scan_ndjson(path, schema=compiled.read_schema))


def condition(number, *labels, **elements):
    meta = {"security": list(labels)} if labels else {}
    return {
        "resourceType": "Condition",
        "id": number,
        "meta": meta,
        "subject": {"reference": "Patient/p1"},
        **elements,
    }


@pytest.mark.parametrize(
    "label",
    [
        {"system": ACT_CODE, "code": "HIV"},
        {"system": "urn:oid:2.16.840.1.113883.5.4", "code": "HIV"},
        {"system": "http://hl7.org/fhir/v3/ActCode", "code": "HIV"},
        {"code": "HIV"},
        {"system": ACT_CODE, "code": "R", "extension": [{"url": BASIS, "valueCoding": {"code": "HIV"}}]},
    ],
)
def test_a_label_is_found_in_every_spelling(tmp_path, label):
    rows = read(label_view("Condition"), tmp_path, condition("1", {"code": "N"}, label), condition("2"))
    found = rows.filter(has_label(pl.col(LABELS), HIV)).collect()
    assert found.select("record_id", "patient_id").rows() == [("1", "p1")]


@pytest.mark.parametrize(
    "label", [{"system": "http://x.example", "code": "HIV"}, {"system": ACT_CODE, "code": "HIVX"}, {}]
)
def test_another_label_is_none(tmp_path, label):
    rows = read(label_view("Condition"), tmp_path, condition("1", label))
    assert rows.select(has_label(pl.col(LABELS), HIV)).collect().to_series().to_list() == [False]


def test_every_view_yields_the_labels_of_its_records():
    catalog = Catalog.default()
    for name in catalog.names("views"):
        document = catalog.load("views", name)
        before, after = compile_view(document), compile_view(add_labels(document))
        names = [column.name for column in before.columns]
        belongs = [ENCOUNTERS] if encounter_path(after.resource) else []
        assert [column.name for column in after.columns] == [*names, LABELS, *belongs], name


def test_a_view_with_a_column_of_the_same_name_is_refused():
    view = label_view("Condition")
    with pytest.raises(StudyError, match=LABELS):
        add_labels(view)


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("Patient", "getResourceKey()"),
        ("Observation", "subject.getReferenceKey(Patient)"),
        ("Immunization", "patient.getReferenceKey(Patient)"),
        ("Coverage", "beneficiary.getReferenceKey(Patient)"),
        ("Practitioner", ""),
        ("Organization", ""),
    ],
)
def test_the_patient_of_a_resource_type(resource, path):
    assert subject_path(resource) == path


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("Observation", "encounter.getReferenceKey(Encounter)"),
        ("MedicationAdministration", "context.getReferenceKey(Encounter)"),
        ("DocumentReference", "context.encounter.getReferenceKey(Encounter)"),
        ("Encounter", "partOf.getReferenceKey(Encounter)"),
        ("Patient", ""),
        ("Location", ""),
    ],
)
def test_the_encounters_of_a_resource_type(resource, path):
    assert encounter_path(resource) == path


@pytest.mark.parametrize(
    ("subject", "unclear"),
    [
        ({"reference": "Patient/p1"}, False),
        ({"reference": "Patient/p1/_history/2"}, False),
        ({"reference": "https://ehr.example/fhir/Patient/p1"}, False),
        ({"reference": "Group/g1"}, False),
        ({"reference": "#p1"}, True),
        ({"reference": "urn:uuid:0b8a1f0c-6a34-4a3a-9e0e-0b8a1f0c6a34"}, True),
        ({"identifier": {"system": "urn:mrn", "value": "1"}}, True),
        ({"display": "somebody"}, True),
        (None, False),
    ],
)
def test_a_reference_that_gives_no_id_is_told(tmp_path, subject, unclear):
    one = condition("1", {"code": "HIV"}) | {"subject": subject}
    rows = read(label_view("Condition"), tmp_path, {key: value for key, value in one.items() if value})
    assert rows.select(UNCLEAR).collect().to_series().fill_null(value=False).to_list() == [unclear]


@pytest.mark.parametrize(
    ("birth", "minor"),
    [
        ("2008-11-01", False),
        ("2008-11-02", True),
        ("2008-10", False),
        ("2008-11", True),
        ("2007", False),
        ("2008", True),
        ("2008-02-29", False),
        ("1930-01-01", False),
        (None, True),
        ("unknown", True),
    ],
)
def test_minors_by_the_latest_day_that_a_birth_date_may_mean(tmp_path, birth, minor):
    patient = {"resourceType": "Patient", "id": "p1"} | ({"birthDate": birth} if birth else {})
    people = read(PERSON_VIEW, tmp_path, patient)
    found = find_minors(people, below=18, on=date(2026, 11, 1)).collect()
    assert found["patient_id"].to_list() == (["p1"] if minor else [])


@pytest.mark.parametrize(
    ("birth", "death", "minor"),
    [
        ("2000-01-01", {"deceasedDateTime": "2017-12-31"}, True),
        ("2000-01-01", {"deceasedDateTime": "2018-01-01T03:00:00-05:00"}, False),
        ("2000-01-01", {"deceasedDateTime": "2018"}, False),
        ("2000-06-01", {"deceasedDateTime": "2018"}, True),
        ("2000-06-01", {"deceasedDateTime": "2018-06"}, False),
        ("2000", {"deceasedDateTime": "2018-12-30"}, True),
        ("1930-01-01", {"deceasedDateTime": "lately"}, True),
        ("1930-01-01", {"deceasedDateTime": "2020-01-01"}, False),
        ("2015-01-01", {"deceasedDateTime": "2040-01-01"}, True),
        ("1990-01-01", {"deceasedDateTime": "2040-01-01"}, False),
        ("1930-01-01", {"deceasedBoolean": True}, True),
        ("1930-01-01", {"deceasedBoolean": False}, False),
    ],
)
def test_who_died_young_is_no_adult(tmp_path, birth, death, minor):
    people = read(PERSON_VIEW, tmp_path, {"resourceType": "Patient", "id": "p1", "birthDate": birth, **death})
    found = find_minors(people, below=18, on=date(2026, 11, 1)).collect()
    assert found["patient_id"].to_list() == (["p1"] if minor else [])


def test_the_leap_day_comes_of_age_on_the_first_of_march(tmp_path):
    people = read(PERSON_VIEW, tmp_path, {"resourceType": "Patient", "id": "p1", "birthDate": "2008-02-29"})
    on = [
        find_minors(people, below=18, on=date(2026, month, day)).collect().height
        for month, day in ((2, 28), (3, 1))
    ]
    assert on == [1, 0]


def test_a_list_names_patients_by_id_number_or_system_and_number():
    text = "\ufeff# people\np1\n\n 123 \nurn:mrn|456\nurn:mrn|123|4\np1\n"
    entries = parse_list(text.encode(), place="list")
    assert entries.rows() == [(None, "p1"), (None, "123"), ("urn:mrn", "456"), ("urn:mrn|123", "4")]
    assert parse_list(text.replace("\n", "\r\n").encode(), place="list").equals(entries)
    identifiers = pl.LazyFrame(
        [("p2", "urn:a", "123"), ("p3", "urn:mrn", "456"), ("p4", "urn:b", "456"), ("p5", None, "9")],
        schema=["patient_id", "system", "value"],
        orient="row",
    )
    found, unmatched = find_listed(ids("p1", "p2", "p3", "p4", "p5"), identifiers, entries)
    assert set(found.collect()["patient_id"]) == {"p1", "p2", "p3"}
    assert unmatched.collect().rows() == [("urn:mrn|123", "4")]


@pytest.mark.parametrize(
    "line",
    [
        "urn:mrn | A12",
        "  urn:mrn|A12  ",
        "URN:MRN|a12",
        "a12",
        "A12 # the mayor",
        "A12\t#the mayor",
        '"A12"',
        '"urn:mrn|A12"',
        "|A12",
        "Patient/p1",
        "\ufeffA12\u200b",
        "\u00a0A12\u00a0",
    ],
)
def test_a_list_protects_however_it_is_written(line):
    entries = parse_list(f"nobody\r\n{line}\r\n".encode(), place="list")
    identifiers = pl.LazyFrame(
        [("p1", " urn:mrn", "A12 "), ("p2", "urn:mrn", "A1"), ("p3", "urn:mrn", "A12#")],
        schema=["patient_id", "system", "value"],
        orient="row",
    )
    found, unmatched = find_listed(ids("p1", "p2", "p3"), identifiers, entries)
    assert found.collect()["patient_id"].to_list() == ["p1"]
    assert unmatched.collect()["value"].to_list() == ["nobody"]


def test_a_sign_within_a_number_begins_no_remark():
    assert parse_list(b"A#12\n", place="list")["value"].to_list() == ["A#12"]


@pytest.mark.parametrize("line", ["urn:mrn|", "urn:mrn| ", "|"])
def test_a_line_of_a_list_that_names_nobody_is_refused_by_its_number(line):
    with pytest.raises(ConfigurationError, match=r"Line 3 .* names nobody") as caught:
        parse_list(f"p1\n\n{line}\np2".encode(), place="people.txt")
    assert "urn" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# p1\n", b"urn:mrn|\n", b"\xff\xfep1"])
def test_a_list_of_nobody_is_refused_and_not_quoted(content):
    with pytest.raises(ConfigurationError) as caught:
        parse_list(content, place="people.txt")
    assert "p1" not in str(caught.value)
    assert "people.txt" in str(caught.value)


def test_the_first_reason_counts_and_masking_leaves_nobody_out():
    known = ids("a", "b", "c", "d", "e")
    reasons = [
        Reason("one", ids("a", "b", "a")),
        Reason("masks", ids("b", "c", "d"), masks=True),
        Reason("two", ids("b", "c", "x")),
    ]
    subjects = gather_subjects(known, reasons)
    rows = {row[0]: row[1:] for row in subjects.collect().iter_rows()}
    assert rows == {
        "a": (True, False, 0),
        "b": (True, True, 0),
        "c": (True, True, 2),
        "d": (False, True, None),
        "e": (False, False, None),
        "x": (True, False, 2),
    }
    steps = count_steps(subjects, known, reasons)
    assert steps.select("step", "criterion", "n_before", "n_excluded", "n_after").rows() == [
        (1, "one", 5, 2, 3),
        (2, "two", 3, 1, 2),
    ]


@pytest.fixture
def subjects():
    return pl.LazyFrame(
        {
            "patient_id": ["gone", "masked", "here"],
            EXCLUDED: [True, False, False],
            MASKED: [False, True, False],
        }
    )


@pytest.fixture
def rows():
    return pl.LazyFrame(
        {
            "patient_id": ["here", "gone", None, "masked", "stranger"],
            "code": ["1", "2", "3", "4", "5"],
            "related_id": ["gone", "here", "here", "gone", "masked"],
        }
    )


def test_rows_of_excluded_patients_and_of_nobody_go(rows, subjects):
    cleared = clear_rows(rows, subjects, "patient_id", maskable=["code"], others=["related_id"]).collect()
    assert cleared.rows() == [("here", "1", None), ("masked", None, None), ("stranger", "5", "masked")]


@pytest.mark.parametrize(
    ("known_only", "left"),
    [(False, [["here", "stranger"], [], None]), (True, [["here"], [], None])],
)
def test_lists_lose_the_ids_of_patients_whose_rows_go(subjects, known_only, left):
    rows = pl.LazyFrame(
        {"patient_id": ["here", "here", "here"], "with": [["gone", "here", "stranger"], ["gone"], None]}
    )
    cleared = clear_rows(rows, subjects, "patient_id", known_only=known_only, others=["with"]).collect()
    assert [one and sorted(one) for one in cleared["with"].to_list()] == [one or [] for one in left]


def test_rows_of_strangers_go_where_nothing_may_be_assumed(rows, subjects):
    cleared = clear_rows(rows, subjects, "patient_id", known_only=True).collect()
    assert cleared["patient_id"].to_list() == ["here", "masked"]


def test_masking_keeps_ids_time_and_status_and_empties_the_rest():
    def column(name, path="", role="", target="", *, collection=False):
        tags = MappingProxyType({"cohortflow/role": role} if role else {})
        return Column(
            name, ColumnType.STRING, (path,) if path else (), tags=tags, target=target, collection=collection
        )

    columns = [
        column("id", "Observation.id", "key", "Observation"),
        column("patient_id", "Observation.subject.reference", "subject", "Patient"),
        column("encounter_id", "Observation.encounter.reference", target="Encounter"),
        column("at", "Observation.effectiveDateTime", "time"),
        column("status", "Observation.status"),
        column("inner_status", "Observation.component.status"),
        column("code", "Observation.code.coding.code"),
        column("notes", "Observation.note.text", collection=True),
        column("derived"),
    ]
    names = maskable_columns(columns)
    assert names == ("inner_status", "code", "notes", "derived")
    frame = pl.LazyFrame(
        {
            "code": ["a", "b", "c"],
            "notes": [["x"], ["y"], []],
            "status": ["f", "f", "f"],
            "hide": [True, None, False],
        }
    )
    masked = mask_rows(frame, names, pl.col("hide")).collect()
    assert masked["code"].to_list() == [None, "b", "c"]
    assert masked["notes"].to_list() == [[], ["y"], []]
    assert masked["status"].null_count() == 0
