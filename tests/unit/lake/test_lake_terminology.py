"""Terminologies in the lake: found by any name, one version beside another."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from terminology_releases import NAMES, SYSTEM, files, frame, release

from cohortflow.errors import InputError, LakeError, MalformedDataError
from cohortflow.lake import open_store
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.lake.terminology_release import version_key
from cohortflow.model import EnvDeployment
from cohortflow.terminology.tables import CLOSURE, TABLES


def test_tables_come_back_with_the_closure(terminologies):
    stored = terminologies.load(release())
    tables = terminologies.tables(SYSTEM)
    assert tables["concepts"].select("code", "display").collect().rows() == sorted(NAMES.items())
    pairs = tables["closure"].select("descendant", "ancestor", "distance").collect().rows()
    assert pairs == [("I", "any", 1), ("Ia", "I", 1), ("Ia", "any", 2)]
    assert tables["closure"].collect_schema() == CLOSURE
    assert {name: table.rows for name, table in stored.tables.items()} == {
        "concepts": 3,
        "edges": 2,
        "closure": 3,
    }
    assert (stored.licence, stored.source, stored.concepts) == ("Free to use.", ("stages.json",), 3)
    assert terminologies.releases() == (stored,)


def test_versions_stand_side_by_side_and_the_newest_is_the_default(terminologies):
    for version in ("2.10", "2.9", "2.9.1"):
        terminologies.load(release(version, names=NAMES | {"any": f"Any of {version}"}))
    assert [found.version for found in terminologies.releases()] == ["2.9", "2.9.1", "2.10"]
    for version, expected in ((None, "2.10"), ("2.9", "2.9")):
        concepts = terminologies.tables(SYSTEM, version)["concepts"].filter(pl.col("code") == "any").collect()
        assert concepts["display"].item() == f"Any of {expected}"


@pytest.mark.parametrize(
    "versions",
    [
        ["2.9", "2.9.1", "2.10"],
        ["2026", "2026-04-01", "2026-10-01", "2027"],
        ["2026AA", "2026AB", "2027AA"],
        ["2.9-fragment", "2025-07-15", "CVX 20260201", "2026-03-01"],
        [f"http://snomed.info/sct/731000124108/version/{date}" for date in ("20250901", "20260301")],
    ],
)
def test_versions_sort_as_their_distributors_mean_them(versions):
    for order in itertools.permutations(versions):
        assert sorted(order, key=version_key) == versions


def test_a_system_is_found_by_any_of_its_names(terminologies):
    icd = "http://hl7.org/fhir/sid/icd-10-cm"
    concept = frame(TABLES["concepts"], [("A00", "Cholera", True, None, None)])
    terminologies.load(release(system=icd, tables={"concepts": concept.with_columns(system=pl.lit(icd))}))
    for name in ("ICD-10-CM", "urn:oid:2.16.840.1.113883.6.90", icd):
        assert terminologies.release(name).system == icd


def test_names_that_fold_to_one_folder_stay_apart(terminologies):
    for version in ("A/1", "a-1", "a 1", "a:1"):
        terminologies.load(release(version))
    assert len(terminologies.releases()) == 4
    assert terminologies.release(SYSTEM, "a:1").version == "a:1"


def test_the_same_content_is_loaded_once(terminologies):
    first = terminologies.load(release())
    before = files(terminologies)
    shuffled = {name: table.reverse() for name, table in release().tables.items()}
    again = terminologies.load(release(tables=shuffled))
    assert again == first
    assert files(terminologies) == before


def test_other_content_needs_to_be_replaced_on_purpose(terminologies):
    first = terminologies.load(release())
    other = release(names=NAMES | {"I": "Stage one"})
    before = files(terminologies)
    with pytest.raises(InputError, match="other content") as caught:
        terminologies.load(other)
    assert "--replace" in caught.value.remedy
    assert files(terminologies) == before
    # A reader that opened the old release goes on reading it.
    opened = terminologies.tables(SYSTEM)["concepts"]
    second = terminologies.load(other, replace=True)
    assert second.digest != first.digest
    assert "Stage I" in opened.collect()["display"]
    assert "Stage one" in terminologies.tables(SYSTEM)["concepts"].collect()["display"]


@pytest.mark.parametrize("version", [None, "3"])
def test_what_is_not_loaded_is_told_with_what_is(terminologies, version):
    with pytest.raises(InputError, match="nothing is loaded yet"):
        terminologies.tables("LOINC", version)
    terminologies.load(release())
    with pytest.raises(InputError, match=SYSTEM):
        terminologies.tables("LOINC", version)
    with pytest.raises(InputError, match="use one of: 1"):
        terminologies.tables(SYSTEM, "3")


def test_a_damaged_manifest_is_told(terminologies):
    terminologies.load(release())
    (path,) = [path for path in terminologies.store.list() if path.endswith("manifest.json")]
    content = terminologies.store.read(path)
    terminologies.store.write(path, content[:50])
    with pytest.raises(MalformedDataError, match="damaged"):
        terminologies.releases()
    terminologies.store.write(path, json.dumps(json.loads(content) | {"format": 99}).encode())
    with pytest.raises(LakeError, match="format 99"):
        terminologies.releases()


def test_the_digest_is_that_of_the_content_alone(terminologies, tmp_path):
    digest = terminologies.load(release()).digest
    elsewhere = TerminologyStore(open_store(str(tmp_path / "other"), EnvDeployment({})))
    assert elsewhere.load(replace(release(), licence="Changed.", source=("b.json",))).digest == digest
    # Null and empty, and texts that hold the delimiter, are told apart.
    for number, display in enumerate(("", ",", '"', "Stage I,true", "Stage\nI")):
        other = elsewhere.load(release(names=NAMES | {"I": display}), replace=True)
        assert other.digest != digest, number


def test_a_closure_without_edges_is_kept_as_it_is(terminologies):
    closure = frame(CLOSURE, [("Ia", "any", 7)])
    terminologies.load(release(tables={"concepts": release().tables["concepts"], "closure": closure}))
    assert_frame_equal(terminologies.tables(SYSTEM)["closure"].collect(), closure.collect())


def test_progress_counts_tables_or_releases(terminologies):
    class Recorder(list):
        def update(self, task, done, total=None, unit=""):
            self.append((task, done, total, unit))

    one, many = Recorder(), Recorder()
    terminologies.load(release(), progress=one)
    assert ("Stages 1", 3, 3, "tables") in one
    terminologies.load_all([release("2"), release("3")], progress=many)
    assert many == [("releases", done, 2, "releases") for done in range(3)]


def test_a_manifest_says_when_and_what(terminologies):
    terminologies.load(release())
    (path,) = Path(terminologies.store.uri).rglob("manifest.json")
    manifest = json.loads(path.read_text())
    assert datetime.now(UTC) - datetime.fromisoformat(manifest["loaded_at"]) < timedelta(hours=1)
    assert manifest["licence"] == "Free to use."
    assert all((path.parent / table["file"]).is_file() for table in manifest["tables"].values())


def test_a_file_that_was_removed_is_named(terminologies):
    stored = terminologies.load(release())
    terminologies.store.remove(next(path for path in files(terminologies) if "/edges-" in path))
    with pytest.raises(LakeError, match="lacks its table of edges") as caught:
        terminologies.tables(SYSTEM)
    assert stored.tables["edges"].file in caught.value.place
    assert "load the release again" in caught.value.remedy


def test_of_many_systems_the_published_ones_are_named_first(terminologies):
    for system in [*(f"http://a.example.org/{number}" for number in range(9)), "http://loinc.org"]:
        tables = {"concepts": release().tables["concepts"].with_columns(system=pl.lit(system))}
        terminologies.load(release(system=system, tables=tables))
    with pytest.raises(InputError) as caught:
        terminologies.tables("SNOMED")
    assert "loaded are: http://loinc.org, http://a.example.org/0," in caught.value.remedy
    assert caught.value.remedy.endswith("http://a.example.org/6 and 2 more.")
