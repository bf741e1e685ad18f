"""cohortflow patterns, as a user runs it."""

import json

import polars as pl
import pytest

from cohortflow.cli.main import run

TABLE = pl.DataFrame(
    {"mrn": ["00123456", "00123457"], "note": ["call 617-555-0123", "stable"], "dx": ["E11.65", "E78.5"]}
)


@pytest.fixture(params=["csv", "tsv", "parquet", "ndjson"])
def file(request, tmp_path):
    path = tmp_path / f"unknown.{request.param}"
    match request.param:
        case "csv":
            TABLE.write_csv(path)
        case "tsv":
            TABLE.write_csv(path, separator="\t")
        case "parquet":
            TABLE.write_parquet(path)
        case "ndjson":
            TABLE.write_ndjson(path)
    return path


def test_a_scan_counts_and_suggests_without_values(file, capsys):
    assert run(["patterns", "scan", str(file), "--json"]) == 0
    output = capsys.readouterr().out
    result = json.loads(output)
    counts = {(row["column"], row["pattern"]): (row["whole"], row["inside"]) for row in result["counts"]}
    assert counts["mrn", "mrn"] == (2, 0)
    assert counts["note", "phone_us"] == (0, 1)
    assert {"column": "dx", "pattern": "icd10cm", "share": 1.0, "named": False} in result["suggestions"]
    assert "00123456" not in output
    assert "555-0123" not in output
    assert run(["patterns", "scan", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "icd10cm (100%)" in shown
    assert "00123456" not in shown


def test_a_text_is_scanned_line_by_line(tmp_path, capsys):
    file = tmp_path / "note.txt"
    file.write_text("MRN: 00123456\nstable, no change\nSSN 123-45-6789", encoding="utf-8")
    assert run(["patterns", "scan", str(file), "--pattern", "mrn", "--pattern", "ssn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [
        {"column": "text", "pattern": "mrn", "values": 3, "whole": 0, "inside": 1},
        {"column": "text", "pattern": "ssn", "values": 3, "whole": 0, "inside": 1},
    ]


def test_nested_fields_are_scanned_even_where_only_a_late_line_has_them(tmp_path, capsys):
    plain = {"id": "1", "name": [], "telecom": [{"value": "none"}]}
    late = {"id": "2", "contact": {"telecom": [{"value": "617-555-0123"}, {"value": "617-555-0124"}]}}
    file = tmp_path / "Patient.ndjson"
    file.write_text("\n".join(map(json.dumps, [*[plain] * 300, late])), encoding="utf-8")
    assert run(["patterns", "scan", str(file), "--pattern", "phone_us", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [
        {"column": "contact.telecom.value", "pattern": "phone_us", "values": 2, "whole": 2, "inside": 2}
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "There is no such file."),
        ("sheet.xlsx", b"SECRET", "cannot be scanned"),
        ("table.parquet", b"SECRET-VALUE", "not of the format"),
        ("rows.ndjson", b'{"a": SECRET-VALUE', "not of the format"),
    ],
)
def test_files_that_cannot_be_scanned_are_refused_without_their_content(
    tmp_path, capsys, name, content, message
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(["patterns", "scan", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "SECRET" not in error


def test_values_are_tried(capsys):
    assert run(["patterns", "test", "loinc", "4548-4", "4548-5", "LOINC 2345-7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"value": "4548-4", "matches": True, "found": ["4548-4"]},
        {"value": "4548-5", "matches": False, "found": []},
        {"value": "LOINC 2345-7", "matches": False, "found": ["2345-7"]},
    ]
    assert run(["patterns", "test", "loinc", "4548-5"]) == 1
    assert run(["patterns", "test", "loin", "4548-5"]) == 2
    assert "Did you mean 'loinc'" in capsys.readouterr().err


def test_patterns_are_listed(capsys):
    assert run(["patterns", "list", "--kind", "date", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows} == {"date"}
    assert "age_over_89" in {row["name"] for row in rows}
    assert run(["patterns", "list"]) == 0
    assert "loinc" in capsys.readouterr().out
    assert run(["patterns", "list", "--kind", "thing"]) == 2
