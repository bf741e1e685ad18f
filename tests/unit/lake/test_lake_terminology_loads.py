"""Loads of terminologies: whole or not at all, whatever is refused, dies or happens at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import polars as pl
import pytest
from terminology_releases import EDGES, NAMES, SYSTEM, files, frame, release

from cohortflow.errors import InputError, MalformedDataError, StoreUnavailableError
from cohortflow.lake import terminology
from cohortflow.lake.terminology import TerminologyStore
from cohortflow.terminology.tables import TABLES


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


def test_files_of_a_replaced_release_go_after_a_day(terminologies, monkeypatch):
    terminologies.load(release())
    other = release(names=NAMES | {"I": "Stage one"})
    terminologies.load(other, replace=True)
    assert len(files(terminologies)) == 6
    monkeypatch.setattr(terminology, "_GRACE", timedelta(microseconds=1))
    terminologies.load(other)
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
