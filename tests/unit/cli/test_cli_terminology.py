"""cohortflow terminology: what a person sees and a machine reads."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "terminology"
ORDER = GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt"


@pytest.fixture
def loaded(terminology):
    assert terminology("load", "icd10cm_order", ORDER)[0] == 0


def test_a_load_is_listed_with_its_licence(terminology, lake):
    code, text, _ = terminology("load", "icd10cm_order", ORDER)
    assert code == 0
    assert "ICD-10-CM" in text
    assert "Public domain" in text
    assert (lake / "terminology").is_dir()
    _, text, _ = terminology("list", "--json")
    (found,) = json.loads(text)
    assert (found["version"], found["source"]) == ("2026", ["icd10cm_order_2026.txt"])
    assert found["tables"]["concepts"]["rows"] == 7
    assert json.loads(terminology("list", "LOINC", "--json")[1]) == []


def test_a_store_may_be_named(terminology, tmp_path, lake):
    assert terminology("load", "icd10cm_order", ORDER, "--store", tmp_path / "own")[0] == 0
    assert json.loads(terminology("list", "--store", tmp_path / "own", "--json")[1])
    assert not lake.exists()


def test_a_file_may_come_from_the_input(terminology, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ORDER.read_bytes())))
    code, text, _ = terminology("load", "icd10cm_order", "-", "--version", "2026", "--json")
    assert code == 0
    assert json.loads(text)[0]["version"] == "2026"


def test_many_terminologies_of_one_file_are_one_line(terminology, tmp_path):
    entries = [
        {
            "resource": {
                "resourceType": "CodeSystem",
                "url": f"http://hospital.example.org/{number}",
                "version": "1",
                "concept": [{"code": "a"}, {"code": "b"}],
            }
        }
        for number in range(12)
    ]
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
    _, text, _ = terminology("load", "fhir", file)
    assert "12 terminologies of all.json" in text
    assert " 24 " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "icd11", ORDER], "No format is named 'icd11'"),
        (["load", "cvx"], "cvx reads"),
        (["load", "cvx", ORDER], "bars between the fields"),
        (["load", "shipped", "--version", "1"], "versions of its own"),
        (["lookup", "LOINC", "1-8"], "No version of http://loinc.org is loaded"),
    ],
)
def test_bad_input_has_exit_code_2_and_a_remedy(terminology, arguments, message):
    code, text, error = terminology(*arguments)
    assert (code, text) == (2, "")
    assert message in error
    assert "->" in error
    assert json.loads(terminology("list", "--json")[1]) == []


def test_without_a_lake_the_variable_is_named(terminology, monkeypatch):
    monkeypatch.delenv("AIRFLOW_VAR_COHORTFLOW_LAKE")
    code, _, error = terminology("list")
    assert code == 2
    assert "cohortflow_lake" in error


@pytest.mark.usefixtures("loaded")
def test_a_code_is_looked_up_in_any_spelling(terminology):
    code, text, _ = terminology("lookup", "ICD-10-CM", "e1165", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["display"] == "Type 2 diabetes mellitus with hyperglycemia"
    assert found["parents"] == ["E11"]
    assert {"attribute": "billable", "value": "true"} in found["attributes"]
    _, text, _ = terminology("lookup", "ICD-10-CM", "T36.0")
    for line in ("T36.0X1A", "synonym: Penicillins", "billable: false", "active"):
        assert line in text
    code, _, error = terminology("lookup", "ICD-10-CM", "E11.66")
    assert code == 2
    assert "no code 'E11.66'" in error


@pytest.mark.usefixtures("loaded")
def test_codes_are_compared(terminology):
    assert terminology("subsumes", "ICD-10-CM", "E11", "e1165")[1].strip() == "subsumes"
    _, text, _ = terminology("subsumes", "ICD-10-CM", "E11.65", "E11", "--json")
    assert json.loads(text)["outcome"] == "subsumed-by"


@pytest.mark.usefixtures("loaded")
def test_versions_are_compared(terminology, tmp_path):
    file = tmp_path / "icd10cm_order_2027.txt"
    lines = ORDER.read_text().splitlines()
    added = f"00008 A001    1 {'Cholera eltor':<60} Cholera due to Vibrio cholerae 01, biovar eltor"
    file.write_text("\n".join([*(line for line in lines if "E1165" not in line), added]))
    assert terminology("load", "icd10cm_order", file)[0] == 0
    code, text, _ = terminology("diff", "ICD-10-CM", "2026", "2027", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["counts"] == {"added": 1, "removed": 1, "retired": 0, "reinstated": 0, "renamed": 0}
    assert [(change["change"], change["code"]) for change in found["changes"]] == [
        ("added", "A00.1"),
        ("removed", "E11.65"),
    ]
    _, text, _ = terminology("diff", "ICD-10-CM", "2026", "2027", "--limit", "1")
    assert "The first 1 of 2 changes" in text
    assert "A00.1" in text
    assert "E11.65" not in text


@pytest.mark.usefixtures("loaded")
def test_other_content_of_a_version_needs_replace(terminology, tmp_path):
    file = tmp_path / ORDER.name
    shutil.copy(ORDER, file)
    assert terminology("load", "icd10cm_order", file)[0] == 0
    file.write_text(ORDER.read_text().replace("Cholera", "CHOLERA"))
    code, _, error = terminology("load", "icd10cm_order", file)
    assert code == 2
    assert "--replace" in error
    assert terminology("load", "icd10cm_order", file, "--replace")[0] == 0
    assert json.loads(terminology("lookup", "ICD-10-CM", "A00", "--json")[1])["display"] == "CHOLERA"
