import json

import polars as pl
import pytest

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.terminology import load_value_set, parse_compose, parse_value_set

SNOMED = "http://snomed.info/sct"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
RARE = "http://example.org/ValueSet/rare"


def make(*include, exclude=(), **extra):
    return {
        "resourceType": "ValueSet",
        "compose": {"include": list(include), "exclude": list(exclude)},
        **extra,
    }


def read(data, **kwargs):
    return parse_value_set(data, name="test", place="test.json", **kwargs)


def members(value_set, rows):
    frame = pl.LazyFrame(rows, schema=["system", "code"], orient="row")
    return frame.select(value_set.matches(pl.col("system"), pl.col("code"))).collect().to_series().to_list()


def part(system, *codes):
    return {"system": system, "concept": [{"code": code} for code in codes]}


def rule(system, prop, op, value):
    return {"system": system, "filter": [{"property": prop, "op": op, "value": value}]}


ROWS = [
    (SNOMED, "44054006"),
    ("SNOMED", "44054006"),
    ("ICD10CM", "44054006"),
    (ICD10CM, "E11"),
    ("urn:oid:2.16.840.1.113883.6.90", "e1165"),
    (ICD10CM, "E10.9"),
    (ICD10CM, "XE11.9"),
    ("local", "E11.9"),
    (None, "E11.9"),
    (ICD10CM, None),
]


def test_concepts_and_patterns_match_in_any_spelling_and_never_give_null():
    value_set = read(make(part(SNOMED, "44054006"), rule(ICD10CM, "code", "regex", r"E11(\..*)?")))
    assert members(value_set, ROWS) == [True, True, False, True, True, False, False, False, False, False]


def test_a_pattern_matches_the_whole_code_even_with_alternatives():
    value_set = read(make(rule(ICD10CM, "code", "regex", "E10|E11")))
    assert members(value_set, [(ICD10CM, "E11"), (ICD10CM, "E11.9"), (ICD10CM, "E10")]) == [True, False, True]


def test_is_a_in_icd10_is_the_code_and_what_is_below_it():
    category = read(make(rule(ICD10CM, "concept", "is-a", "E11")))
    rows = [(ICD10CM, "E11"), (ICD10CM, "E1165"), (ICD10CM, "E11.6"), (ICD10CM, "E12"), (ICD10CM, "E1")]
    assert members(category, rows) == [True, True, True, False, False]
    assert members(read(make(rule(ICD10CM, "concept", "is-a", "E116"))), rows) == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_excludes_are_taken_out():
    value_set = read(
        make(rule(ICD10CM, "code", "regex", r"E11(\..*)?"), exclude=[part(ICD10CM, "E1165", "E11.9")])
    )
    assert members(value_set, [(ICD10CM, "E11.9"), (ICD10CM, "E11.65"), (ICD10CM, "E11.8")]) == [
        False,
        False,
        True,
    ]


def test_a_whole_system_has_all_its_codes_but_no_missing_one():
    assert members(read(make({"system": SNOMED})), [(SNOMED, "1"), (ICD10CM, "1"), (SNOMED, None)]) == [
        True,
        False,
        False,
    ]


def test_parts_of_one_include_are_intersected():
    rare = parse_compose(make(part(SNOMED, "1", "2")), name="rare", place="rare.json")
    value_set = read(make({**part(SNOMED, "2", "3"), "valueSet": [RARE]}), find={RARE: rare}.get)
    assert members(value_set, [(SNOMED, "1"), (SNOMED, "2"), (SNOMED, "3")]) == [False, True, False]


@pytest.mark.parametrize(
    ("data", "element"),
    [
        ({"resourceType": "ConceptMap"}, "ConceptMap"),
        ({"resourceType": "ValueSet"}, "compose"),
        (make(), "compose.include"),
        (make({"concept": [{"code": "1"}]}), "compose.include[0]"),
        (make({}), "compose.include[0]"),
        (make({"system": SNOMED, "concept": [{"display": "x"}]}), "compose.include[0].concept[0].code"),
        (make({**part(SNOMED, "1"), **rule(SNOMED, "code", "regex", "1")}), "compose.include[0]"),
        (make(rule(SNOMED, "concept", "is-a", "73211009")), "compose.include[0].filter[0]"),
        (make(rule(ICD10CM, "code", "in", "x")), "compose.include[0].filter[0]"),
        (make(rule(ICD10CM, "code", "regex", "E11(")), "compose.include[0].filter[0]"),
        (make(rule(ICD10CM, "code", "regex", "E(?=11).*")), "compose.include[0].filter[0]"),
        (make(rule(ICD10CM, "code", "regex", r"(E)\1")), "compose.include[0].filter[0]"),
        (make({"valueSet": [RARE]}), "compose.include[0]"),
    ],
)
def test_a_faulty_set_is_refused_by_file_and_element(data, element):
    with pytest.raises(CatalogError) as caught:
        read(data)
    assert caught.value.place == "test.json"
    assert element in caught.value.message
    assert caught.value.remedy


def write(folder, name, data):
    (folder / "valuesets").mkdir(exist_ok=True)
    (folder / "valuesets" / f"{name}.json").write_text(json.dumps(data))


def url(name, version=""):
    return f"http://example.org/ValueSet/{name}{version}"


def test_included_sets_are_found_by_url_and_version(tmp_path):
    write(tmp_path, "part", make(part(SNOMED, "1"), url=url("part"), version="2"))
    write(tmp_path, "whole", make({"valueSet": [url("part", "|2")]}, part(SNOMED, "2"), url=url("whole")))
    whole = load_value_set(Catalog(tmp_path), "whole")
    assert members(whole, [(SNOMED, "1"), (SNOMED, "2"), (SNOMED, "3")]) == [True, True, False]
    write(tmp_path, "other", make({"valueSet": [url("part", "|1")]}))
    with pytest.raises(CatalogError, match="has the URL"):
        load_value_set(Catalog(tmp_path), "other")


def test_a_set_that_includes_itself_is_refused(tmp_path):
    write(tmp_path, "a", make({"valueSet": [url("b")]}, url=url("a")))
    write(tmp_path, "b", make({"valueSet": [url("a")]}, url=url("b")))
    with pytest.raises(CatalogError, match="a > b > a"):
        load_value_set(Catalog(tmp_path), "a")


def test_what_is_wrong_with_an_included_set_names_the_included_file(tmp_path):
    write(tmp_path, "part", make(rule(SNOMED, "concept", "is-a", "73211009"), url=url("part")))
    write(tmp_path, "whole", make({"valueSet": [url("part")]}, url=url("whole")))
    with pytest.raises(CatalogError) as caught:
        load_value_set(Catalog(tmp_path), "whole")
    assert caught.value.place.endswith("part.json")
    assert "compose.include[0].filter[0]" in caught.value.message
