import copy
import json

import polars as pl
import pytest

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.terminology import load_concept_map, parse_concept_map

R4 = {
    "resourceType": "ConceptMap",
    "version": "2",
    "title": "Test",
    "status": "active",
    "group": [
        {
            "source": "urn:oid:2.16.840.1.113883.6.96",
            "target": "http://hl7.org/fhir/sid/icd-10-cm",
            "element": [
                {
                    "code": "44054006",
                    "target": [
                        {"code": "E119", "display": "T2D", "equivalence": "narrower"},
                        {"code": "E11.8", "equivalence": "wider"},
                    ],
                },
                {"code": "1", "target": [{"equivalence": "unmatched"}]},
                {"code": "2"},
            ],
        }
    ],
}
R5 = {
    "resourceType": "ConceptMap",
    "group": [
        {
            "source": "http://snomed.info/sct",
            "target": "http://hl7.org/fhir/sid/icd-10-cm|2026",
            "element": [
                {"code": "44054006", "target": [{"code": "E11.9", "relationship": "equivalent"}]},
                {"code": "2", "noMap": True},
            ],
        }
    ],
}


def read(data):
    return parse_concept_map(data, name="test", place="test.json")


def change(path, value):
    """Return R4 with the element at ``path`` replaced."""
    data = copy.deepcopy(R4)
    node = data
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return data


def test_r4_is_read_as_r5_relationships_in_canonical_spelling():
    expected = pl.DataFrame(
        {
            "source_system": ["http://snomed.info/sct"] * 4,
            "source_code": ["44054006", "44054006", "1", "2"],
            "target_system": ["http://hl7.org/fhir/sid/icd-10-cm"] * 4,
            "target_code": ["E11.9", "E11.8", None, None],
            "target_display": ["T2D", None, None, None],
            "relationship": [
                "source-is-broader-than-target",
                "source-is-narrower-than-target",
                "not-related-to",
                "not-related-to",
            ],
            "order": [0, 1, 2, 3],
        },
        schema_overrides={"order": pl.UInt32},
    )
    concept_map = read(R4)
    assert concept_map.to_frame().equals(expected)
    assert concept_map.label == "test|2"


def test_r5_relationships_and_no_map_are_read():
    entries = read(R5).entries
    assert [(e.source_code, e.target_code, e.relationship.value) for e in entries] == [
        ("44054006", "E11.9", "equivalent"),
        ("2", None, "not-related-to"),
    ]
    assert {e.target_system for e in entries} == {"http://hl7.org/fhir/sid/icd-10-cm"}
    assert read(R5).label == "test"


TARGET = ("group", 0, "element", 0, "target", 0)


@pytest.mark.parametrize(
    ("data", "element"),
    [
        ({"resourceType": "ValueSet"}, "ValueSet"),
        ({"resourceType": "ConceptMap"}, "group"),
        ({"resourceType": "ConceptMap", "group": []}, "group"),
        (change(("group", 0, "source"), None), "group[0].source"),
        (change(("group", 0, "element"), "x"), "group[0].element"),
        (change(("group", 0, "element", 1), {"display": "x"}), "group[0].element[1]"),
        (change(("group", 0, "unmapped"), {"mode": "provided"}), "group[0].unmapped"),
        (change((*TARGET, "equivalence"), "same"), "group[0].element[0].target[0]"),
        (change((*TARGET, "relationship"), "wider"), "group[0].element[0].target[0]"),
        (change((*TARGET, "dependsOn"), [{"property": "x"}]), "group[0].element[0].target[0]"),
        (change((*TARGET, "code"), ""), "group[0].element[0].target[0]"),
        (change((*TARGET, "code"), "E11.8"), "group[0].element[0].target[1]"),
        (change(("group", 0, "element", 0, "noMap"), True), "group[0].element[0].target[0]"),
    ],
)
def test_a_faulty_map_is_refused_by_file_and_element(data, element):
    with pytest.raises(CatalogError) as caught:
        read(data)
    assert caught.value.place == "test.json"
    assert element in caught.value.message
    assert caught.value.remedy


def test_a_map_is_found_in_the_catalog(tmp_path):
    (tmp_path / "conceptmaps").mkdir()
    (tmp_path / "conceptmaps" / "mine.json").write_text(json.dumps(R4))
    assert load_concept_map(Catalog(tmp_path), "mine").label == "mine|2"
    with pytest.raises(CatalogError, match="mine"):
        load_concept_map(Catalog(tmp_path), "mina")
