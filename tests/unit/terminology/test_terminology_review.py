"""Review files are read as they were written, checked, and become a ConceptMap."""

import re

import pytest
from fhir.resources.conceptmap import ConceptMap as ConceptMapR5
from fhir.resources.R4B.conceptmap import ConceptMap as ConceptMapR4
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.errors import CatalogError, InputError
from cohortflow.terminology import parse_concept_map
from cohortflow.terminology.review import Target, check_review
from cohortflow.terminology.review_file import REVIEW_COLUMNS, format_review, read_review
from cohortflow.terminology.reviewed_map import build_reviewed_map

LAB, LOINC = "https://hospital.example.org/lab", "http://loinc.org"
TARGETS = {
    (LOINC, "2160-0"): Target("Creatinine in Serum or Plasma", active=True),
    (LOINC, "2161-8"): Target("Creatinine in Urine", active=True),
    (LOINC, "1-8"): Target("Retired", active=False),
}
SYSTEMS = {LOINC: "LOINC 2.81"}
ACCEPTED = {
    "source_system": LAB,
    "source_code": "CRE",
    "source_display": "Creatinine, serum",
    "target_system": LOINC,
    "target_code": "2160-0",
    "decision": "accept",
    "relationship": "equivalent",
    "reviewer": "Reviewer One",
    "date": "2026-11-20",
    "comment": "method does not matter here",
}


def write(path, *rows):
    path.write_text(format_review(rows, path.suffix), encoding="utf-8")
    return path


@pytest.fixture(params=[".csv", ".yaml"])
def path(request, tmp_path):
    return tmp_path / f"review{request.param}"


def check(path):
    return check_review(read_review(path), TARGETS, SYSTEMS, path.name)


def build(path, **options):
    return build_reviewed_map(check(path), TARGETS, name="lab_to_loinc", **options)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)


@given(code=TEXT, display=TEXT, suffix=st.sampled_from([".csv", ".yaml"]))
def test_what_is_written_is_read(tmp_path_factory, code, display, suffix):
    file = tmp_path_factory.mktemp("review") / f"review{suffix}"
    write(file, {"source_system": LAB, "source_code": code, "source_display": display, "comment": "c"})
    (row,) = read_review(file)
    assert (row.source_code, row.source_display) == (code, display)


@pytest.mark.parametrize(
    "code", ["0012", "NA", "no", "1e5", "2026-11-20", "=1+1", "'=1", "@x", "-3", 'a,b;c"d']
)
def test_codes_stay_text(path, code):
    (row,) = read_review(write(path, ACCEPTED | {"source_code": code}))
    assert row.source_code == code


def test_a_spreadsheet_finds_no_formula(tmp_path):
    text = write(tmp_path / "review.csv", ACCEPTED | {"source_display": '=HYPERLINK("http://x")'}).read_text()
    assert ",=HYPERLINK" not in text
    assert ',"=HYPERLINK' not in text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_may_write_their_own_csv(tmp_path, delimiter):
    file = tmp_path / "review.csv"
    names = [name.upper() for name in REVIEW_COLUMNS]
    values = [str(ACCEPTED.get(name, "")).replace(",", "") for name in REVIEW_COLUMNS]
    file.write_text(f"\ufeff{delimiter.join(names)}\r\n{delimiter.join(values)}\r\n", encoding="utf-8")
    (row,) = read_review(file)
    assert (row.line, row.source_code, row.decision) == (2, "CRE", "accept")


def test_systems_and_codes_are_read_in_canonical_spelling(path):
    row = ACCEPTED | {"target_system": "ICD-10-CM", "target_code": "e1165", "decision": "ACCEPT"}
    (read,) = read_review(write(path, row))
    assert read.target == ("http://hl7.org/fhir/sid/icd-10-cm", "E11.65")
    assert read.decision == "accept"


FAULTS = {
    "unknown decision": ({"decision": "maybe"}, "decision is unknown"),
    "no reviewer": ({"reviewer": ""}, "reviewer is missing"),
    "no reviewer of a rejection": ({"decision": "reject", "reviewer": ""}, "reviewer is missing"),
    "no date": ({"date": ""}, "date is missing"),
    "a spreadsheet's date": ({"date": "11/20/2026"}, "not written as"),
    "another ISO date": ({"date": "20261120"}, "not written as"),
    "a day to come": ({"date": "2999-01-01"}, "in the future"),
    "no relationship": ({"relationship": ""}, "relationship is missing"),
    "an R4 equivalence": ({"relationship": "wider"}, "relationship is unknown"),
    "no relation": ({"relationship": "not-related-to"}, "relationship is unknown"),
    "no target": ({"target_code": ""}, "no target code"),
    "a code of nowhere": ({"target_code": "9999-9"}, "not in LOINC 2.81"),
    "a retired code": ({"target_code": "1-8"}, "retired in LOINC 2.81"),
    "a system that is not loaded": ({"target_system": "SNOMED"}, "not loaded"),
    "no target system": ({"target_system": ""}, "no code system"),
    "no source system": ({"source_system": ""}, "no system or no code"),
}


@pytest.mark.parametrize(("change", "problem"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told_with_line_and_remedy_and_without_codes(path, change, problem):
    write(path, {"source_system": LAB, "source_code": "open", "target_system": LOINC}, ACCEPTED | change)
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = (
        3 if path.suffix == ".csv" else 1 + next(n for n, text in enumerate(lines) if n and text[0] == "-")
    )
    with pytest.raises(InputError, match=problem) as caught:
        check(path)
    assert caught.value.place == f"{path.name}:{expected}"
    assert caught.value.remedy
    assert "CRE" not in str(caught.value)
    assert "9999-9" not in str(caught.value)


NO_TARGET = ACCEPTED | {"decision": "no-target", "target_code": "", "relationship": ""}
CONTRADICTIONS = {
    "accepted and rejected": (ACCEPTED | {"decision": "reject"}, "decides otherwise"),
    "two relationships": (ACCEPTED | {"relationship": "related-to"}, "decides otherwise"),
    "two equivalents": (ACCEPTED | {"target_code": "2161-8"}, "equivalent to another target"),
    "a target and none": (NO_TARGET, "has no target"),
}


@pytest.mark.parametrize(("other", "problem"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_name_both_lines(tmp_path, other, problem):
    file = write(tmp_path / "review.csv", ACCEPTED, other)
    with pytest.raises(InputError, match=problem) as caught:
        check(file)
    assert "ine 2" in str(caught.value)
    assert caught.value.place == "review.csv:3"


def test_all_faults_are_told_at_once(tmp_path):
    file = write(
        tmp_path / "review.csv", ACCEPTED | {"reviewer": "", "date": ""}, ACCEPTED | {"decision": "x"}
    )
    with pytest.raises(InputError, match="nothing was written") as caught:
        check(file)
    assert [
        text in str(caught.value) for text in ("line 2: The date", "line 2: The reviewer", "line 3: ")
    ] == [True] * 3


def test_an_open_review_accepts_nothing(path):
    write(path, ACCEPTED | {"decision": ""})
    with pytest.raises(InputError, match="No row is accepted"):
        check(path)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("r.csv", "source_code,decision\nCRE,accept\n", "no column 'source_system'"),
        ("r.csv", ",".join(REVIEW_COLUMNS) + "\n" + "x," * 20 + "\n", "more cells"),
        ("r.csv", ",".join(REVIEW_COLUMNS) + '\n"x\n', "Not a CSV file"),
        ("r.csv", "", "no column"),
        ("r.yaml", "- {a: 1}\n", "no column"),
        ("r.yaml", "- [1]\n", "Not a row"),
        ("r.yaml", "text\n", "Not a row"),
        ("r.yaml", "", "Not a row"),
        ("r.yaml", "- {a: 1\n", "Not valid YAML"),
        ("r.yaml", "- source_code: [1]\n", "Not a row"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        read_review(tmp_path / name)
    assert name in caught.value.place


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_review(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"\xe4")
    with pytest.raises(InputError, match="UTF-8"):
        read_review(tmp_path / "latin.csv")


@pytest.mark.parametrize(("fhir", "model"), [("R5", ConceptMapR5), ("R4", ConceptMapR4)])
def test_the_map_is_fhir_with_authors_and_date(path, fhir, model):
    narrower = ACCEPTED | {
        "target_code": "2161-8",
        "relationship": "source-is-narrower-than-target",
        "reviewer": "Reviewer Two",
        "date": "2026-11-21",
    }
    none = NO_TARGET | {"source_code": "XYZ"}
    document = build(write(path, narrower, ACCEPTED, none), fhir=fhir, title="Our laboratory")
    model.model_validate(document)
    assert (document["status"], document["date"], document["title"]) == (
        "active",
        "2026-11-21",
        "Our laboratory",
    )
    assert re.fullmatch("r[0-9a-f]{8}", document["version"])
    assert "Reviewer One" in str(document.get("author", document.get("extension")))
    assert "Reviewer One, 2026-11-20: method does not matter here" in str(document["group"])
    parsed = parse_concept_map(document, name="lab_to_loinc", place="lab_to_loinc.json")
    assert [
        (e.source_code, e.target_code, e.target_display, e.relationship.value) for e in parsed.entries
    ] == [
        ("CRE", "2160-0", "Creatinine in Serum or Plasma", "equivalent"),
        ("CRE", "2161-8", "Creatinine in Urine", "source-is-narrower-than-target"),
        ("XYZ", None, None, "not-related-to"),
    ]


def test_the_same_decisions_are_the_same_version_and_others_another(path):
    first = build(write(path, ACCEPTED))
    assert build(path) == first
    assert build(write(path, ACCEPTED | {"relationship": "related-to"}))["version"] != first["version"]


@pytest.mark.parametrize("fhir", ["R5", "R4"])
def test_an_update_keeps_what_was_not_decided_anew(path, fhir):
    other = ACCEPTED | {"source_code": "CRU", "target_code": "2161-8", "date": "2026-11-01"}
    earlier = build(write(path, other, ACCEPTED), fhir=fhir) | {"publisher": "A laboratory"}
    later = ACCEPTED | {"relationship": "related-to", "reviewer": "Reviewer Two", "date": "2026-11-22"}
    document = build(write(path, later), earlier=earlier, fhir="R5")
    parsed = parse_concept_map(document, name="m", place="m.json")
    assert [(e.source_code, e.target_code, e.relationship.value) for e in parsed.entries] == [
        ("CRE", "2160-0", "related-to"),
        ("CRU", "2161-8", "equivalent"),
    ]
    assert document["publisher"] == "A laboratory"
    assert document["version"] != earlier["version"]
    assert document["date"] == "2026-11-22"
    named = str(document.get("author", document.get("extension")))
    assert named.count("Reviewer One") == named.count("Reviewer Two") == 1
    assert ("equivalence" in str(document)) == (fhir == "R4")


def test_a_shipped_map_can_be_added_to(project, path):
    earlier = project.catalog.load("conceptmaps", "lab_local_to_loinc")
    document = build(write(path, ACCEPTED), earlier=earlier)
    assert len(parse_concept_map(document, name="m", place="m").entries) == 2


def test_a_map_needs_a_name_of_the_catalog_and_a_sound_earlier_one(path):
    rows = check(write(path, ACCEPTED))
    with pytest.raises(InputError, match="cannot name a map"):
        build_reviewed_map(rows, TARGETS, name="no-name")
    with pytest.raises(CatalogError):
        build_reviewed_map(rows, TARGETS, name="m", earlier={"resourceType": "ValueSet"})
