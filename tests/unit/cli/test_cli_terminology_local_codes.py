"""cohortflow terminology coverage, suggest and accept."""

import json
import stat
from pathlib import Path

import polars as pl
import pytest
import yaml

from cohortflow.terminology.review_file import read_review

GOLDEN = Path(__file__).resolve().parents[2] / "golden/terminology"
LOCAL, LOINC, SNOMED = "https://lab.example.org/codes", "http://loinc.org", "http://snomed.info/sct"
CODES = [
    *[(LOCAL, "CRE", "Creatinine, serum")] * 12,
    *[(LOCAL, "WID", "Widgetin, serum")] * 15,
    *[(LOCAL, "WEIRD", "=danger()")] * 3,
    (None, "NA", "Nothing"),
    *[(LOINC, "9900001-0", "Widgetin")] * 20,
]
DECISION = {"decision": "accept", "relationship": "equivalent", "reviewer": "Reviewer", "date": "2026-11-20"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "lab.parquet"
    columns = ("code_system", "code", "code_display")
    pl.DataFrame(CODES, schema=dict.fromkeys(columns, pl.String), orient="row").write_parquet(path)
    return path


@pytest.fixture
def report(terminology, table, tmp_path):
    path = tmp_path / "coverage.json"
    code, _, error = terminology("coverage", table, "--map", "lab_local_to_loinc", "--all-codes", "-o", path)
    assert code == 0, error
    return path


@pytest.fixture
def loinc(terminology):
    code, _, error = terminology("load", "loinc", GOLDEN / "loinc/input")
    assert code == 0, error


def decide(path, decisions):
    """Fill in the reviewer's columns of the rows with a source and target."""
    rows = yaml.safe_load(path.read_text())
    for row in rows:
        row.update(decisions.get((row["source_code"], row["target_code"]), {}))
    path.write_text(yaml.safe_dump(rows, sort_keys=False))


def test_coverage_of_a_table_by_a_map(terminology, table):
    code, text, _ = terminology("coverage", table, "--map", "lab_local_to_loinc", "--json")
    assert code == 0
    (measured,) = json.loads(text)["coverage"]["lab"].values()
    assert (measured["rows"], measured["rows_with_code"], measured["rows_mapped"]) == (51, 51, 32)
    assert measured["versions"] == ["lab_local_to_loinc|1.0.0"]
    code, text, _ = terminology("coverage", table, "--map", "lab_local_to_loinc")
    assert code == 0
    assert "62.7%" in text
    assert "WID" not in text


def test_coverage_names_local_codes_on_request_for_the_owner_alone(report):
    document = json.loads(report.read_text())
    (measured,) = document["coverage"]["lab"].values()
    assert document["all_codes"] is True
    assert [(c["code"], c["rows"], c["display"]) for c in measured["top_unmapped"]] == [
        ("WID", 15, "Widgetin, serum"),
        ("WEIRD", 3, "=danger()"),
        ("NA", 1, "Nothing"),
    ]
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


def test_coverage_of_a_csv_with_counts(terminology, tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("code,system,display,count\nCRE,https://lab.example.org/codes,Creatinine,40\nNA,x,,2\n")
    code, text, error = terminology(
        "coverage", path, "--system", "system", "--rows", "count", "--map", "lab_local_to_loinc", "--json"
    )
    assert code == 0, error
    (measured,) = json.loads(text)["coverage"]["codes"].values()
    assert (measured["rows"], measured["rows_mapped"]) == (42, 40)


def test_coverage_of_views_over_ndjson_by_maps_of_their_own(terminology, tmp_path):
    coding = {"coding": [{"system": SNOMED, "code": "59621000"}]}
    rows = [{"resourceType": "Condition", "id": str(n), "code": coding} for n in range(12)]
    lines = [*map(json.dumps, rows), "{"]
    (tmp_path / "Condition.ndjson").write_text("\n".join(lines) + "\n")
    (tmp_path / "Procedure.ndjson").write_text(json.dumps(rows[0] | {"resourceType": "Procedure"}) + "\n")
    page = tmp_path / "pages/coverage.html"
    code, text, error = terminology(
        "coverage", tmp_path, "--view", "condition", "--view", "procedure",
        "--map", "condition=snomed_to_icd10cm", "--html", page,
    )  # fmt: skip
    assert code == 0, error
    assert "1 malformed lines" in error
    assert "snomed_to_icd10cm|1.0.0" in text
    assert "loaded terminologies" in text
    assert "snomed_to_icd10cm|1.0.0" in page.read_text()


def test_coverage_without_a_map_looks_codes_up(terminology, table, loinc):
    code, text, _ = terminology("coverage", table, "--json")
    assert code == 0
    measured = json.loads(text)["coverage"]["lab"]["known"]
    assert measured["rows_mapped"] == 20
    assert {part["outcome"] for part in measured["systems"]} == {"mapped", "system not in map"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "either inputs or --study"),
        (("x.parquet", "--study", "s"), "either inputs or --study"),
        (("none.parquet",), "no such table"),
        (("none.txt",), "no table"),
        (("--study", "none"), "released nothing"),
        (("--study", "s", "--all-codes"), "does not hold"),
    ],
)
def test_coverage_says_what_it_needs(terminology, lake, arguments, problem):
    code, _, error = terminology("coverage", *arguments)
    assert code == 2
    assert problem in error


def test_coverage_names_the_columns_that_are_there(terminology, table):
    code, _, error = terminology("coverage", table, "--code", "nothing")
    assert code == 2
    assert "code_display" in error


@pytest.mark.parametrize("suffix", [".csv", ".yaml"])
def test_suggest_proposes_concepts_of_a_loaded_terminology(terminology, report, loinc, tmp_path, suffix):
    review = tmp_path / f"review{suffix}"
    code, text, error = terminology("suggest", report, "--target", "LOINC", "-o", review)
    assert code == 0, error
    assert "1 codes without a code system were left out" in text
    rows = read_review(review)
    first = {row.source_code: row for row in reversed(rows)}
    assert set(first) == {"WID", "WEIRD"}
    assert first["WID"].source_display == "Widgetin, serum"
    assert first["WID"].target_system == LOINC
    assert not any(row.decision or row.reviewer for row in rows)
    assert stat.S_IMODE(review.stat().st_mode) == 0o600


def test_suggest_takes_names_of_the_catalog_where_nothing_is_loaded(terminology, tmp_path):
    codes = tmp_path / "codes.csv"
    codes.write_text(f"code,system,display,count\nCRE,{LOCAL},Creatinine serum,40\nXX,{LOCAL},qqqq,2\n")
    review = tmp_path / "review.csv"
    code, text, error = terminology("suggest", codes, "--target", "LOINC", "-o", review, "--json")
    assert code == 0, error
    facts = json.loads(text)
    assert facts["vocabulary"] == "the catalog's maps and value sets"
    assert (facts["codes"], facts["without_candidate"]) == (2, 1)
    rows = read_review(review)
    assert rows[0].target == (LOINC, "2160-0")
    assert (rows[-1].source_code, rows[-1].target_code) == ("XX", "")


def test_suggest_never_overwrites_a_review(terminology, report, loinc, tmp_path):
    review = tmp_path / "review.csv"
    review.write_text("decisions")
    code, _, error = terminology("suggest", report, "--target", "LOINC", "-o", review)
    assert code == 2
    assert "--replace" in error
    assert review.read_text() == "decisions"
    assert terminology("suggest", report, "--target", "LOINC", "-o", review, "--replace")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("codes.csv", "a,b\n1,2\n", "no column 'code'"),
        ("codes.csv", f"code,system,count\nX,{LOCAL},many\n", "whole number"),
        ("codes.json", "[]", "Not a report"),
        ("codes.json", "{", "Not a report"),
    ],
)
def test_suggest_refuses_other_files(terminology, loinc, tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)
    code, _, error = terminology("suggest", tmp_path / name, "--target", "LOINC", "-o", tmp_path / "r.csv")
    assert code == 2
    assert problem in error
    assert not (tmp_path / "r.csv").exists()


def test_a_map_for_what_is_no_input_is_refused(terminology, tmp_path):
    table = tmp_path / "results.csv"
    table.write_text(f"code,code_system\nX,{LOCAL}\n")
    code, _, error = terminology("coverage", table, "--map", "observation=lab_local_to_loinc")
    assert code == 2
    assert "'observation', which is none of the inputs: results" in error
    assert terminology("coverage", table, "--map", "results=lab_local_to_loinc")[0] == 0


def test_codes_of_the_target_system_need_no_candidates_and_are_not_counted(terminology, loinc, tmp_path):
    codes = tmp_path / "codes.csv"
    codes.write_text(f"code,system,display\n2345-7,LOINC,Glucose\nX,{LOCAL},Glucose\nY,,Glucose\n")
    code, text, _ = terminology(
        "suggest", codes, "--target", "LOINC", "-o", tmp_path / "r.csv", "--limit", "1", "--json"
    )
    facts = json.loads(text)
    assert (code, facts["codes"], facts["left_out"], facts["over_limit"]) == (0, 1, 1, 0)


def test_suggest_refuses_a_system_that_nobody_knows(terminology, report, tmp_path):
    code, _, error = terminology("suggest", report, "--target", "NDC", "-o", tmp_path / "r.csv")
    assert code == 2
    assert "terminology load" in error


def test_accepted_codes_are_mapped_from_then_on(terminology, report, loinc, tmp_path, project_copy):
    review = tmp_path / "review.yaml"
    assert terminology("suggest", report, "--target", "LOINC", "-o", review)[0] == 0
    known = json.loads(terminology("translate", LOCAL, "WID", "--map", "lab_local_to_loinc", "--json")[1])
    assert known[0]["unmapped_reason"] == "code not in map"
    target = next(row.target_code for row in read_review(review) if row.source_code == "WID")
    decide(review, {("WID", target): DECISION})
    catalog = project_copy.root / "include/catalog/conceptmaps"
    out = catalog / "our_lab_to_loinc.json"
    code, text, error = terminology("accept", review, "-o", out, "--json")
    assert code == 0, error
    assert json.loads(text)["entries"] == 1
    mapped = json.loads(terminology("translate", LOCAL, "WID", "--map", "our_lab_to_loinc", "--json")[1])
    assert mapped[0]["code"] == target
    code, _, error = terminology("accept", review, "-o", out)
    assert code == 2
    assert "--update" in error
    assert "Put it into" not in terminology("accept", review, "-o", out, "--update")[1]
    assert "Put it into" in terminology("accept", review, "-o", tmp_path / "elsewhere.json")[1]
    shipped = catalog / "lab_local_to_loinc.json"
    assert terminology("accept", review, "-o", shipped, "--update")[0] == 0
    both = json.loads(
        terminology("translate", LOCAL, "WID", "CRE", "--map", "lab_local_to_loinc", "--json")[1]
    )
    assert [row["code"] for row in both] == [target, "2160-0"]


def test_a_refused_review_writes_nothing(terminology, report, loinc, tmp_path):
    review = tmp_path / "review.yaml"
    assert terminology("suggest", report, "--target", "LOINC", "-o", review)[0] == 0
    target = next(row.target_code for row in read_review(review) if row.source_code == "WID")
    decide(review, {("WID", target): DECISION | {"reviewer": ""}})
    out = tmp_path / "map.json"
    code, _, error = terminology("accept", review, "-o", out)
    assert code == 2
    assert "reviewer is missing" in error
    assert "review.yaml:" in error
    assert list(tmp_path.glob("*map.json*")) == []


def test_a_map_that_is_no_map_is_not_updated(terminology, report, loinc, tmp_path):
    review = tmp_path / "review.yaml"
    assert terminology("suggest", report, "--target", "LOINC", "-o", review)[0] == 0
    target = next(row.target_code for row in read_review(review) if row.source_code == "WID")
    decide(review, {("WID", target): DECISION})
    out = tmp_path / "map.json"
    for content in ("[]", "{", "{}"):
        out.write_text(content)
        assert terminology("accept", review, "-o", out, "--update")[0] == 2
        assert out.read_text() == content
