"""Terminologies in the lake: whole or not at all, one version beside another."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cohortflow.errors import InputError, LakeError, MalformedDataError, StoreUnavailableError
from cohortflow.lake import open_store, terminology
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.lake.terminology_release import version_key
from cohortflow.model import EnvDeployment
from cohortflow.terminology.tables import CLOSURE, TABLES, Release

SYSTEM = "http://hospital.example.org/stage"
NAMES = {"any": "Any stage", "I": "Stage I", "Ia": "Stage Ia"}
EDGES = [("I", "any"), ("Ia", "I")]


def frame(schema, rows, version="1"):
    columns = {name: dtype for name, dtype in schema.items() if name not in {"system", "version"}}
    return (
        pl.LazyFrame(rows, schema=columns, orient="row")
        .with_columns(system=pl.lit(SYSTEM), version=pl.lit(version))
        .select(schema.names())
    )


def release(version="1", names=NAMES, edges=EDGES, **changes):
    concepts = [(code, name, True, None, None) for code, name in names.items()]
    tables = {
        "concepts": frame(TABLES["concepts"], concepts, version),
        "edges": frame(TABLES["edges"], edges, version),
    }
    values = {
        "system": SYSTEM,
        "version": version,
        "title": "Stages",
        "licence": "Free to use.",
        "source": ("stages.json",),
        "tables": tables,
    }
    return Release(**values | changes)


@pytest.fixture
def terminologies(store):
    return TerminologyStore(store)


def files(terminologies):
    return [path for path in terminologies.store.list() if not path.endswith("manifest.json")]


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


def test_files_of_a_replaced_release_go_after_a_day(terminologies, monkeypatch):
    terminologies.load(release())
    other = release(names=NAMES | {"I": "Stage one"})
    terminologies.load(other, replace=True)
    assert len(files(terminologies)) == 6
    monkeypatch.setattr(terminology, "_GRACE", timedelta(microseconds=1))
    terminologies.load(other)
    assert len(files(terminologies)) == 3


@pytest.mark.parametrize("version", [None, "3"])
def test_what_is_not_loaded_is_told_with_what_is(terminologies, version):
    with pytest.raises(InputError, match="nothing is loaded yet"):
        terminologies.tables("LOINC", version)
    terminologies.load(release())
    with pytest.raises(InputError, match=SYSTEM):
        terminologies.tables("LOINC", version)
    with pytest.raises(InputError, match="use one of: 1"):
        terminologies.tables(SYSTEM, "3")


class TestRefusal:
    """Nothing of a release that is refused is left."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, terminologies):
        yield
        assert terminologies.releases() == ()
        assert terminologies.store.list() == []

    def test_a_cycle(self, terminologies):
        with pytest.raises(MalformedDataError, match="cycle"):
            terminologies.load(release(edges=[*EDGES, ("any", "Ia")]))

    def test_an_edge_to_a_code_of_another_version(self, terminologies):
        with pytest.raises(MalformedDataError, match="1 codes that are no concepts, the first is IX"):
            terminologies.load(release(edges=[*EDGES, ("IX", "any")]))

    def test_rows_of_two_versions(self, terminologies):
        tables = dict(release().tables)
        other = frame(TABLES["concepts"], [("II", "Stage II", True, None, None)], "2")
        tables["concepts"] = pl.concat([tables["concepts"], other])
        with pytest.raises(MalformedDataError, match="version '2' in a release of '1'"):
            terminologies.load(release(tables=tables))

    def test_a_code_that_stands_twice(self, terminologies):
        tables = dict(release().tables)
        tables["concepts"] = pl.concat([tables["concepts"], tables["concepts"].head(1)])
        with pytest.raises(MalformedDataError, match="any stands twice"):
            terminologies.load(release(tables=tables))

    def test_a_concept_without_a_name(self, terminologies):
        with pytest.raises(MalformedDataError, match="1 of 1 rows of concepts have no 'display'"):
            terminologies.load(release(names={"x": None}, edges=[]))

    def test_a_file_without_concepts(self, terminologies):
        with pytest.raises(MalformedDataError, match="no concept"):
            terminologies.load(release(names={}, edges=[]))

    def test_a_column_of_another_type(self, terminologies):
        tables = {"concepts": release().tables["concepts"].with_columns(effective=pl.lit("2020"))}
        with pytest.raises(MalformedDataError, match="'effective' is String, not Date"):
            terminologies.load(release(tables=tables))

    def test_a_column_that_is_missing(self, terminologies):
        tables = {"concepts": release().tables["concepts"].drop("active")}
        with pytest.raises(MalformedDataError, match="'active' is missing"):
            terminologies.load(release(tables=tables))

    def test_a_file_that_proves_malformed_while_it_is_read(self, terminologies, tmp_path):
        file = tmp_path / "concepts.csv"
        file.write_text("code,display\nI,Stage I\nII,Stage,II,too many\n")
        concepts = (
            pl.scan_csv(file)
            .with_columns(
                system=pl.lit(SYSTEM),
                version=pl.lit("1"),
                active=True,
                effective=pl.lit(None, pl.Date),
                replaced_by=pl.lit(None, pl.String),
            )
            .select(TABLES["concepts"].names())
        )
        with pytest.raises(MalformedDataError, match="cannot be read"):
            terminologies.load(release(tables={"concepts": concepts}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"system": "ICD-10-CM"}, "not http://hl7.org/fhir/sid/icd-10-cm"),
            ({"version": " "}, "no version"),
            ({"tables": {"codes": pl.LazyFrame()}}, "no table 'codes'"),
        ],
    )
    def test_a_release_that_could_not_be_found_again(self, changes, message):
        with pytest.raises(MalformedDataError, match=message):
            release(**changes)

    def test_the_second_of_two_releases(self, terminologies):
        with pytest.raises(MalformedDataError, match="cycle"):
            terminologies.load_all([release("1"), release("2", edges=[("I", "Ia"), ("Ia", "I")])])

    def test_one_version_twice(self, terminologies):
        with pytest.raises(MalformedDataError, match="stands twice"):
            terminologies.load_all([release(), release()])


class TestDeath:
    """The store, or the loading process, dies at some step."""

    STEPS = 5  # three tables, the look for a manifest, the manifest

    @pytest.fixture
    def failing(self, terminologies, monkeypatch):
        """Let the store fail from its n-th use on."""

        def fail_from(step, error):
            uses = 0

            def guard(method):
                def use(*arguments, **options):
                    nonlocal uses
                    uses += 1
                    if uses >= step:
                        raise error
                    return method(*arguments, **options)

                return use

            kind = type(terminologies.store)
            for name in ("read", "create", "write", "list", "remove"):
                monkeypatch.setattr(kind, name, guard(getattr(kind, name)))
            monkeypatch.setattr(TerminologyStore, "_write", guard(TerminologyStore._write))

        return fail_from

    @pytest.mark.parametrize("step", range(1, STEPS + 1))
    @pytest.mark.parametrize(
        "error", [StoreUnavailableError("The store is gone."), KeyboardInterrupt()], ids=["error", "kill"]
    )
    def test_no_release_is_there_and_the_next_load_succeeds(
        self, terminologies, failing, monkeypatch, step, error
    ):
        with monkeypatch.context():
            failing(step, error)
            with pytest.raises(type(error)):
                terminologies.load(release())
            monkeypatch.undo()
        assert terminologies.releases() == ()
        with pytest.raises(InputError):
            terminologies.tables(SYSTEM)
        terminologies.load(release())
        assert terminologies.tables(SYSTEM)["concepts"].collect().height == 3

    @pytest.mark.parametrize("step", range(1, STEPS + 1))
    def test_a_replacement_that_dies_leaves_the_old_release(self, terminologies, failing, monkeypatch, step):
        first = terminologies.load(release())
        with monkeypatch.context():
            failing(step, StoreUnavailableError("The store is gone."))
            with pytest.raises(StoreUnavailableError):
                terminologies.load(release(names=NAMES | {"I": "Stage one"}), replace=True)
            monkeypatch.undo()
        assert terminologies.releases() == (first,)
        assert "Stage I" in terminologies.tables(SYSTEM)["concepts"].collect()["display"]

    def test_a_store_that_dies_when_all_is_done_has_the_release(self, terminologies, failing, monkeypatch):
        with monkeypatch.context():
            failing(self.STEPS + 1, StoreUnavailableError("The store is gone."))
            stored = terminologies.load(release())
            monkeypatch.undo()
        assert terminologies.releases() == (stored,)

    def test_what_a_dead_load_left_is_removed_by_a_later_one(self, terminologies, monkeypatch):
        folder = terminology._folder(release())
        terminologies.store.write(f"{folder}/concepts-dead.parquet", b"half")
        terminologies.load(release())
        assert f"{folder}/concepts-dead.parquet" in files(terminologies)
        monkeypatch.setattr(terminology, "_GRACE", timedelta(microseconds=1))
        terminologies.load(release())
        assert len(files(terminologies)) == 3


def test_loads_at_the_same_time_leave_one_whole_release(terminologies):
    barrier = threading.Barrier(4)
    stages = [release(names=NAMES | {"I": f"Stage {number}"}) for number in range(4)]

    def load(stage):
        barrier.wait()
        try:
            return terminologies.load(stage)
        except InputError:
            return None

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(load, stages))
    (winner,) = [outcome for outcome in outcomes if outcome is not None]
    assert terminologies.releases() == (winner,)
    assert len(files(terminologies)) == 3
    number = outcomes.index(winner)
    assert f"Stage {number}" in terminologies.tables(SYSTEM)["concepts"].collect()["display"]


def test_loads_of_the_same_content_at_the_same_time_all_succeed(terminologies):
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: terminologies.load(release()), range(4)))
    assert len({(outcome.digest, outcome.loaded_at) for outcome in outcomes}) == 1
    assert len(files(terminologies)) == 3


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


def test_a_map_that_contradicts_itself_is_refused(terminologies):
    def entry(target, relationship, rule=None):
        return (
            "m",
            "1",
            SYSTEM,
            "I",
            "http://b.example.org",
            target,
            None,
            relationship,
            1,
            1,
            rule,
            None,
            1,
        )

    def load(*entries):
        maps = pl.LazyFrame(entries, schema=TABLES["maps"], orient="row")
        return terminologies.load(release(tables={"maps": maps}))

    with pytest.raises(MalformedDataError, match="says of I and x both 'equivalent' and 'related-to'"):
        load(entry("x", "equivalent"), entry("x", "related-to"))
    assert terminologies.releases() == ()
    load(
        entry("x", "equivalent"),
        entry("y", "related-to"),
        entry("z", "equivalent", "TRUE"),
        entry("z", "related-to", "OTHERWISE TRUE"),
    )
    assert len(terminologies.releases()) == 1
