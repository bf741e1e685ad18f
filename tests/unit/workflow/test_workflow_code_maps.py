"""Maps and value sets of a study: of the catalog, and of loaded terminologies."""

import json

import polars as pl
import pytest

from cohortflow.errors import CatalogError, ConfigurationError
from cohortflow.lake import open_store
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.model import Catalog, EnvDeployment
from cohortflow.terminology import CodeMapping, map_codes
from cohortflow.terminology.tables import CONCEPTS, EDGES, MAPS, Release
from cohortflow.workflow.code_maps import load_code_map, load_map_content, map_sources, open_value_set

SNOMED, ICD10CM, ICD9 = (
    "http://snomed.info/sct",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://hl7.org/fhir/sid/icd-9-cm",
)


@pytest.fixture
def store(tmp_path):
    return TerminologyStore(open_store(str(tmp_path / "terminology"), EnvDeployment()))


@pytest.fixture
def catalog(tmp_path):
    for kind in ("valuesets", "conceptmaps"):
        (tmp_path / "catalog" / kind).mkdir(parents=True)
    return Catalog(tmp_path / "catalog")


def load_map(store, version, target):
    rows = [("gem", version, ICD9, "250.00", ICD10CM, target, None, "equivalent", 1, 1, None, None, 0)]
    tables = {"maps": pl.LazyFrame(rows, MAPS, orient="row")}
    store.load(Release(f"{ICD9}/gem", version, "GEM", "public domain", ("gem.txt",), tables))


def load_snomed(store):
    concepts = [
        (SNOMED, "2026", "73211009", "Diabetes", True, None, None),
        (SNOMED, "2026", "44054006", "Type 2", True, None, None),
        (SNOMED, "2026", "190372001", "Old", False, None, "44054006"),
    ]
    edges = [(SNOMED, "2026", "44054006", "73211009")]
    tables = {
        "concepts": pl.LazyFrame(concepts, CONCEPTS, orient="row"),
        "edges": pl.LazyFrame(edges, EDGES, orient="row"),
    }
    store.load(Release(SNOMED, "2026", "SNOMED CT", "licence", ("sct.txt",), tables))


def translate(mapping, catalog, store):
    maps = [load_code_map(catalog, name, lambda: store) for name in mapping.maps]
    content = load_map_content(mapping, maps, lambda: store)
    frame = pl.LazyFrame({"code_system": [ICD9], "code": ["250.00"]})
    return map_codes(frame, mapping, maps, content=content).collect().row(0, named=True)


def test_the_newest_version_is_used_unless_one_is_named(catalog, store):
    load_map(store, "2017", "E11.8")
    load_map(store, "2018", "E11.9")
    newest = translate(CodeMapping(maps=("terminology:gem",), prefix="to"), catalog, store)
    assert (newest["to_code"], newest["to_map"]) == ("E11.9", "gem|2018")
    pinned = translate(CodeMapping(maps=("terminology:gem|2017",), prefix="to"), catalog, store)
    assert (pinned["to_code"], pinned["to_map"]) == ("E11.8", "gem|2017")


def test_a_path_may_lead_from_a_loaded_map_to_one_of_the_catalog(catalog, store):
    load_map(store, "2018", "E11.9")
    own = {
        "resourceType": "ConceptMap",
        "version": "3",
        "group": [
            {
                "source": ICD10CM,
                "target": SNOMED,
                "element": [
                    {"code": "E11.9", "target": [{"code": "44054006", "relationship": "equivalent"}]}
                ],
            }
        ],
    }
    (catalog.root / "conceptmaps/back.json").write_text(json.dumps(own))
    mapping = CodeMapping(maps=("terminology:gem > back",), prefix="to")
    result = translate(mapping, catalog, store)
    assert (result["to_code"], result["to_map"]) == ("44054006", "gem|2018 > back|3")
    assert set(map_sources(catalog, mapping)) == {"conceptmaps/terminology:gem", "conceptmaps/back"}


def test_what_is_missing_is_named_when_the_plan_is_made_or_at_the_latest_when_it_runs(catalog, store):
    with pytest.raises(CatalogError):
        map_sources(catalog, CodeMapping(maps=("typo",), prefix="to"))
    load_map(store, "2018", "E11.9")
    for name in ("terminology:other", "terminology:gem|1999"):
        with pytest.raises(ConfigurationError, match="not loaded"):
            load_code_map(catalog, name, lambda: store)


def test_the_tables_of_loaded_systems_are_given_where_they_are_asked_for(catalog, store):
    load_map(store, "2018", "E11.9")
    load_snomed(store)
    plain = CodeMapping(maps=("terminology:gem",), prefix="to")
    assert load_map_content(plain, (), lambda: pytest.fail("opened")).concepts is None
    onward = {
        "resourceType": "ConceptMap",
        "group": [{"source": SNOMED, "target": ICD10CM, "element": [{"code": "44054006", "noMap": True}]}],
    }
    (catalog.root / "conceptmaps/sct.json").write_text(json.dumps(onward))
    maps = [load_code_map(catalog, "sct", lambda: store)]
    content = load_map_content(plain.model_copy(update={"replace_retired": True}), maps, lambda: store)
    assert content.concepts.filter(pl.col("replaced_by").is_not_null()).collect()["code"].to_list() == [
        "190372001"
    ]


def test_a_value_set_by_hierarchy_is_expanded_and_others_need_no_store(catalog, store):
    def write(name, rule):
        part = {"system": SNOMED, "filter": [rule]}
        data = {"resourceType": "ValueSet", "compose": {"include": [part]}}
        (catalog.root / f"valuesets/{name}.json").write_text(json.dumps(data))

    write("below", {"property": "concept", "op": "is-a", "value": "73211009"})
    write("pattern", {"property": "code", "op": "regex", "value": "7.*"})
    write("faulty", {"property": "constraint", "op": "=", "value": "<<"})
    frame = pl.DataFrame({"s": ["SNOMED CT"] * 2, "c": ["44054006", "22298006"]})
    pattern = open_value_set(catalog, "pattern", lambda: pytest.fail("opened"))
    assert not frame.select(pattern.matches(pl.col("s"), pl.col("c"))).to_series().any()
    with pytest.raises(ConfigurationError, match="not loaded"):
        open_value_set(catalog, "below", lambda: store)
    with pytest.raises(CatalogError, match="character"):
        open_value_set(catalog, "faulty", lambda: store)
    load_snomed(store)
    below = open_value_set(catalog, "below", lambda: store)
    assert frame.select(below.matches(pl.col("s"), pl.col("c"))).to_series().to_list() == [True, False]
