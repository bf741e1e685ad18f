"""What FHIR's own examples of $translate, $expand and $subsumes state (terminology/operations.json)."""

import json
from pathlib import Path

import polars as pl
import pytest

from cohortflow.lake import TerminologyStore, open_store
from cohortflow.model import EnvDeployment
from cohortflow.terminology import (
    CodeMapping,
    expand,
    map_codes,
    parse_compose,
    parse_concept_map,
    subsumes,
)
from cohortflow.terminology.loaders.fhir import load_fhir

EXAMPLES = json.loads((Path(__file__).parent / "terminology" / "operations.json").read_text(encoding="utf-8"))


def titled(cases):
    return [pytest.param(case, id=case["title"]) for case in cases]


def load(folder, code_systems):
    store = TerminologyStore(open_store(str(folder / "lake"), EnvDeployment({})))
    for number, code_system in enumerate(code_systems):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(code_system))
        store.load_all(load_fhir(file))
    return store


@pytest.mark.parametrize("case", titled(EXAMPLES["expand"]))
def test_expand(case, tmp_path):
    sets = {
        value_set["url"]: parse_compose(value_set, name="referred", place="referred")
        for value_set in case.get("valueSets", ())
    }
    compose = parse_compose(case["valueSet"], name="example", place="example", find=sets.get)
    rows = expand(compose, load(tmp_path, case["codeSystems"])).collect()
    assert set(rows.rows()) == {tuple(member) for member in case["expansion"]}
    assert rows.height == len(case["expansion"])


@pytest.fixture(scope="module")
def code_systems(tmp_path_factory):
    return load(tmp_path_factory.mktemp("subsumes"), EXAMPLES["subsumes"]["codeSystems"])


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c['codeA']} {c['codeB']}") for c in EXAMPLES["subsumes"]["cases"]]
)
def test_subsumes(case, code_systems):
    found = subsumes(code_systems.tables(case["system"]), case["codeA"], case["codeB"])
    assert found == case["outcome"]


@pytest.mark.parametrize("case", titled(EXAMPLES["translate"]))
def test_translate(case):
    concept_map = parse_concept_map(case["conceptMap"], name="example", place="example")
    (group,) = case["conceptMap"]["group"]
    codes = list(dict.fromkeys(code for code, _, _ in case["matches"]))
    frame = pl.LazyFrame({"code_system": [group["source"]] * len(codes), "code": codes})
    mapping = CodeMapping(maps=("example",), prefix="to", cardinality="all")
    rows = map_codes(frame, mapping, [concept_map]).collect()
    assert rows["to_system"].unique().to_list() == [group["target"]]
    found = rows.select("code", "to_code", "to_relationship").rows()
    assert [row[:2] for row in found] == [tuple(match[:2]) for match in case["matches"]]
    for (*_, relationship), (*_, stated) in zip(found, case["matches"], strict=True):
        assert stated in {None, relationship}
