"""cohortflow terminology translate and expand."""

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "terminology"
ORDER = GOLDEN / "icd10cm_order/input/icd10cm_order_2026.txt"


def write(path, include):
    path.write_text(
        json.dumps({"resourceType": "ValueSet", "title": "A set", "compose": {"include": [include]}})
    )
    return path


def test_a_code_is_translated_by_a_map_of_the_catalog(terminology):
    code, text, _ = terminology(
        "translate", "SNOMED", "59621000", "NA", "--map", "snomed_to_icd10cm", "--json"
    )
    assert code == 0
    known, unknown = json.loads(text)
    assert (known["source"], known["code"], known["map"]) == ("59621000", "I10", "snomed_to_icd10cm|1.0.0")
    assert (unknown["code"], unknown["unmapped_reason"]) == (None, "code not in map")
    code, text, _ = terminology("translate", "SNOMED", "59621000", "--map", "snomed_to_icd10cm")
    assert code == 0
    assert "I10" in text
    assert "unmapped reason" not in text


def test_a_map_of_a_loaded_terminology_is_found_by_name(terminology):
    assert terminology("load", "gems", GOLDEN / "gems/input")[0] == 0
    (release,) = [r for r in json.loads(terminology("list", "--json")[1]) if "maps" in r["tables"]][:1]
    code, _, error = terminology("translate", "ICD-9-CM", "250.00", "--map", "terminology:no_such_map")
    assert code == 2
    assert "terminology load" in error
    name = error.rsplit("use one of: ", 1)[1].rstrip(".\n").split(", ")[0]
    code, text, _ = terminology(
        "translate", "ICD-9-CM", "NA", "--map", f"terminology:{name}|{release['version']}", "--json"
    )
    assert code == 0
    assert json.loads(text)[0]["unmapped_reason"]


def test_a_set_is_expanded_in_the_loaded_version_and_kept(terminology, lake, tmp_path):
    assert terminology("load", "icd10cm_order", ORDER)[0] == 0
    include = {
        "system": "http://hl7.org/fhir/sid/icd-10-cm",
        "filter": [{"property": "code", "op": "in", "value": "A00-B99"}],
    }
    path = write(tmp_path / "set.json", include)
    code, text, _ = terminology("expand", path, "--json")
    assert code == 0
    members = json.loads(text)
    assert members
    assert {member["version"] for member in members} == {"2026"}
    (kept,) = (lake / "terminology/expansions").glob("*.parquet")
    kept.write_bytes(b"damaged")
    assert json.loads(terminology("expand", path, "--json")[1]) == members
    code, text, _ = terminology("expand", path, "--count", "1")
    assert f"1 of {len(members)} members" in text


def test_what_is_not_loaded_is_named(terminology):
    code, _, error = terminology("expand", "http://snomed.info/sct?fhir_vs=isa/73211009")
    assert code == 2
    assert "http://snomed.info/sct, which is not loaded" in error
    assert "cohortflow terminology load" in error


@pytest.mark.parametrize(
    ("content", "problem"),
    [("[]", "object"), ("{", "JSON"), (None, "read"), ('{"resourceType": "Patient"}', "ValueSet")],
)
def test_a_faulty_file_is_refused(terminology, tmp_path, content, problem):
    path = tmp_path / "set.json"
    if content is not None:
        path.write_text(content)
    code, _, error = terminology("expand", path)
    assert code == 2
    assert problem in error
    assert "set.json" in error
