"""The ConceptMaps and ValueSets that come with Cohortflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from fhir.resources.R4B.conceptmap import ConceptMap
from fhir.resources.R4B.valueset import ValueSet

from cohortflow.model import Catalog
from cohortflow.synthetic import codes
from cohortflow.terminology import (
    STANDARD_SYSTEMS,
    CodeMapping,
    load_concept_map,
    load_value_set,
    map_codes,
    well_formed_expr,
)

CATALOG = Catalog.default()
MAPS = CATALOG.names("conceptmaps")
SETS = CATALOG.names("valuesets")
NOTICES = {"http://snomed.info/sct": "SNOMED International", "http://loinc.org": "Regenstrief Institute"}
SNOMED, ICD10CM, RXNORM, LOINC = codes.SNOMED, codes.ICD10CM, codes.RXNORM, codes.LOINC


def map_rows(name, system, source_codes, cardinality="best"):
    mapping = CodeMapping(maps=(name,), prefix="to", cardinality=cardinality)
    rows = pl.LazyFrame({"code": source_codes, "code_system": [system] * len(source_codes)})
    return map_codes(rows, mapping, [load_concept_map(CATALOG, name)]).collect()


def members(name, pairs):
    value_set = load_value_set(CATALOG, name)
    rows = pl.LazyFrame(pairs, schema=["system", "code"], orient="row")
    found = rows.filter(value_set.matches(pl.col("system"), pl.col("code"))).collect()
    return set(found["code"])


@pytest.mark.parametrize("name", MAPS)
def test_a_concept_map_is_valid_fhir_and_says_who_owns_its_codes(name):
    data = CATALOG.load("conceptmaps", name)
    resource = ConceptMap.model_validate(data)
    assert resource.publisher == "Cohortflow"
    assert resource.title
    assert resource.description
    for group in data["group"]:
        for system in (group["source"], group["target"]):
            assert NOTICES.get(system, "") in data["copyright"]


@pytest.mark.parametrize("name", SETS)
def test_a_value_set_is_valid_fhir_and_says_who_owns_its_codes(name):
    data = CATALOG.load("valuesets", name)
    resource = ValueSet.model_validate(data)
    assert resource.publisher == "Cohortflow"
    assert resource.title
    assert resource.description
    for part in data["compose"]["include"]:
        assert NOTICES.get(part.get("system"), "") in data["copyright"]
    assert load_value_set(CATALOG, name).url == data["url"]


@pytest.mark.parametrize("name", MAPS)
def test_every_code_of_a_map_has_the_syntax_of_its_system(name):
    entries = load_concept_map(CATALOG, name).to_frame()
    for side in ("source", "target"):
        system, code = pl.col(f"{side}_system"), pl.col(f"{side}_code")
        published = entries.filter(system.is_in(list(STANDARD_SYSTEMS)), code.is_not_null())
        assert published.filter(~well_formed_expr(system, code)).height == 0


def test_every_synthetic_condition_maps_to_the_icd10cm_code_beside_it():
    result = map_rows("snomed_to_icd10cm", SNOMED, [c.snomed for c in codes.CONDITIONS])
    assert result["to_code"].to_list() == [c.icd10cm for c in codes.CONDITIONS]
    assert result["to_display"].to_list() == [c.icd10cm_display for c in codes.CONDITIONS]


def test_every_synthetic_medication_maps_to_an_ingredient_in_its_name():
    result = map_rows("rxnorm_to_ingredient", RXNORM, [m.code for m in codes.MEDICATIONS])
    named = [m.display.casefold() for m in codes.MEDICATIONS]
    assert [i in name for i, name in zip(result["to_display"], named, strict=True)] == [True] * len(named)


def test_every_synthetic_vaccine_has_a_group_and_every_rxnorm_allergen_is_an_ingredient():
    vaccines = [v.code for v in codes.IMMUNIZATIONS]
    assert map_rows("cvx_to_group", codes.CVX, vaccines)["to_code"].null_count() == 0
    allergens = [a.code for a in codes.ALLERGIES if a.system == RXNORM]
    assert map_rows("rxnorm_to_ingredient", RXNORM, allergens)["to_code"].to_list() == allergens


def test_the_local_creatinine_is_loinc_and_a_comment_stays_unmapped():
    local = [c.code for c in codes.LOCAL_OBSERVATIONS]
    result = map_rows("lab_local_to_loinc", codes.LOCAL_LAB, local)
    assert dict(zip(local, result["to_code"], strict=True)) == {"CRE": "2160-0", "SPCOM": None}


def test_a_combination_has_all_its_ingredients():
    result = map_rows("rxnorm_to_ingredient", RXNORM, ["999967", "746030"], "all")
    assert result["to_display"].to_list() == [
        "olmesartan",
        "amlodipine",
        "hydrochlorothiazide",
        "atenolol",
        "chlorthalidone",
    ]


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        (
            "type_2_diabetes",
            [(SNOMED, "44054006"), (SNOMED, "368581000119106"), (ICD10CM, "E11"), (ICD10CM, "E1122")],
            [(SNOMED, "46635009"), (SNOMED, "15777000"), (ICD10CM, "E10.9"), (ICD10CM, "R73.03")],
        ),
        ("hypertension", [(SNOMED, "59621000"), (ICD10CM, "I10")], [(ICD10CM, "I20.9"), (ICD10CM, "I1")]),
        ("asthma", [(SNOMED, "195967001"), (ICD10CM, "J45.909")], [(ICD10CM, "J44.9")]),
        ("chronic_kidney_disease", [(SNOMED, "700378005"), (ICD10CM, "N18.31")], [(ICD10CM, "N17.9")]),
        ("hba1c", [(LOINC, "4548-4"), (LOINC, "17856-6"), (LOINC, "59261-8")], [(LOINC, "2345-7")]),
        ("kidney_labs", [(LOINC, "2160-0"), (LOINC, "98979-8"), (LOINC, "9318-7")], [(LOINC, "4548-4")]),
        ("lipid_labs", [(LOINC, "13457-7"), (LOINC, "2571-8")], [(LOINC, "2160-0")]),
        ("diabetes_medications", [(RXNORM, "861007"), (RXNORM, "6809")], [(RXNORM, "314076")]),
    ],
)
def test_a_value_set_holds_what_its_title_says(name, inside, outside):
    assert members(name, inside + outside) == {code for _, code in inside}


def test_value_sets_agree_with_the_map_between_their_code_systems():
    entries = load_concept_map(CATALOG, "snomed_to_icd10cm").to_frame()
    for name in ("type_2_diabetes", "asthma", "chronic_kidney_disease", "hypertension"):
        value_set = load_value_set(CATALOG, name)
        sources = entries.filter(value_set.matches(pl.col("source_system"), pl.col("source_code")))
        assert sources.height > 0
        assert sources.filter(
            ~value_set.matches(pl.col("target_system"), pl.col("target_code"))
        ).is_empty(), name


def test_nearly_all_synthea_rows_are_mapped():
    folder = Path(os.environ.get("COHORTFLOW_SHARED", "/nonexistent")) / "data" / "synthea-100"
    if not folder.is_dir():
        pytest.skip("COHORTFLOW_SHARED has no Synthea data")
    lines = pl.read_ndjson(folder / "Condition.ndjson.gz", infer_schema_length=None)
    coding = lines.select(pl.col("code").struct.field("coding").explode()).unnest("coding")
    result = map_rows("snomed_to_icd10cm", SNOMED, coding["code"].to_list())
    assert 1 - result["to_code"].null_count() / result.height > 0.99


def test_configuration_is_read_without_polars():
    program = """
import sys
import cohortflow.terminology as t, cohortflow.cohort as c
from cohortflow.model import Catalog
t.mapped_columns(t.CodeMapping(maps=("snomed_to_icd10cm",), prefix="icd10cm"))
for name in Catalog.default().names("conceptmaps"): t.load_concept_map(Catalog.default(), name)
for name in Catalog.default().names("valuesets"): t.load_value_set(Catalog.default(), name)
c.CohortDefinition.model_validate({"name": "x", "entry": {"view": "condition", "value_set": "asthma"}})
sys.exit(bool({"polars", "numpy", "pyarrow"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["conceptmaps", "valuesets"])
def test_files_are_named_and_versioned_alike(kind):
    for name in CATALOG.names(kind):
        data = json.loads(CATALOG.path(kind, name).read_text(encoding="utf-8"))
        assert data["id"] == name.replace("_", "-")
        assert data["url"].endswith(f"/{data['resourceType']}/{data['id']}")
        assert data["name"] == "".join(word.capitalize() for word in name.split("_"))
        assert data["version"]
