"""Snapshots: which occurrence of a resource is valid, what deletions are, and what that costs."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from cohortflow.errors import MalformedDataError
from cohortflow.fhir import snapshot as module
from cohortflow.fhir.deletions import read_deletions
from cohortflow.fhir.snapshot import (
    TOMBSTONE_SCHEMA,
    Snapshot,
    SnapshotExport,
    hide_subjects,
)
from cohortflow.fhir.views import compile_view

MARKER = "Wilhelmina-Testperson"
VIEW = compile_view(
    {
        "resourceType": "ViewDefinition",
        "name": "statuses",
        "status": "active",
        "resource": "Observation",
        "select": [
            {"column": [{"name": "id", "path": "getResourceKey()"}, {"name": "status", "path": "status"}]}
        ],
    }
)


def day(number):
    return datetime(2026, 11, number, tzinfo=UTC)


def observation(key, status, updated=None):
    meta = {"meta": {"lastUpdated": updated}} if updated else {}
    return {"resourceType": "Observation", "id": key, "status": status, **meta}


UNREADABLE = {
    "a modifierExtension": observation("a", "final")
    | {"modifierExtension": [{"url": "http://hospital.example/not", "valueBoolean": True}]},
    "a modifierExtension within": observation("a", "final")
    | {"component": [{"modifierExtension": [{"url": "http://hospital.example/not", "valueBoolean": True}]}]},
    "a wrong type": observation("a", {"x": 1}),
}


@pytest.fixture
def write(tmp_path):
    """Writes an NDJSON file; returns its path."""
    made = iter(range(100))

    def make(*lines):
        path = tmp_path / f"{next(made)}.ndjson"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts))
        return str(path)

    return make


def export(number, *files, digest=""):
    return SnapshotExport(day(number), digest or str(number), {"Observation": files})


def tombstones(*rows):
    return pl.DataFrame(rows, schema=TOMBSTONE_SCHEMA, orient="row")


def read(*exports, deleted=()):
    """Return statuses by id, the read, and how often the plans were built."""
    results, calls = [], []

    def build(frames):
        calls.append(set(frames))
        results.clear()
        return [frames["statuses"].map_batches(lambda frame: results.append(frame) or frame)]

    met = Snapshot(exports, tombstones(*deleted)).execute([VIEW], build)
    rows = pl.concat([VIEW.schema.to_frame(), *results])
    assert rows["id"].is_unique().all()
    assert calls[0] == {"statuses"}, "what a snapshot needs itself is not shown to its caller"
    return dict(rows.iter_rows()), met, len(calls)


class TestOneExport:
    def test_without_duplicates_is_read_once(self, write):
        rows, met, calls = read(export(1, write(observation("a", "x"), observation("b", "y"))))
        assert (rows, calls) == ({"a": "x", "b": "y"}, 1)
        assert (met.superseded, met.duplicates, met.deleted) == (0, 0, 0)

    def test_ids_of_equal_hash_are_not_taken_for_one(self, write, monkeypatch):
        monkeypatch.setattr(module, "_find_equal", lambda hashes: hashes.sort())
        rows, met, calls = read(export(1, write(observation("a", "x"), observation("b", "y"))))
        assert (rows, met.duplicates, calls) == ({"a": "x", "b": "y"}, 0, 1)

    def test_a_duplicate_in_another_file_gives_one_row(self, write):
        first = write(observation("a", "old"), observation("b", "y"))
        rows, met, calls = read(export(1, first, write(observation("a", "new"))))
        assert (rows, met.duplicates, calls) == ({"a": "new", "b": "y"}, 1, 2)

    @pytest.mark.parametrize(
        ("first", "second", "winner"),
        [
            ("2026-01-01T00:30:00+01:00", "2025-12-31T23:29:59Z", "first"),
            ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.5Z", "second"),
            ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00Z", "second"),  # equal: the last in order
            ("2026-01-01T00:30:00Z", None, "second"),
            (None, "2020-01-01T00:30:00Z", "second"),
            ("2026-01-01T00:30:00Z", "yesterday", "second"),
            (None, None, "second"),
        ],
    )
    def test_last_updated_is_compared_as_instants(self, write, first, second, winner):
        file = write(observation("a", "first", first), observation("a", "second", second))
        assert read(export(1, file))[0] == {"a": winner}

    def test_files_follow_the_manifest_and_not_their_names(self, write):
        earlier, later = write(observation("a", "x")), write(observation("a", "y"))
        assert read(export(1, later, earlier))[0] == {"a": "x"}

    @pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
    def test_an_older_line_is_not_taken_for_one_that_cannot_be_read(self, write, unreadable):
        file = write(observation("a", "old"), observation("b", "y"), unreadable)
        rows, met, _ = read(export(1, file))
        assert (rows, met.malformed.height, met.duplicates) == ({"b": "y"}, 1, 1)

    @pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
    def test_a_newer_line_counts_where_the_older_cannot_be_read(self, write, unreadable):
        rows, met, _ = read(export(1, write(unreadable, observation("a", "mended"))))
        assert (rows, met.malformed.height, met.duplicates) == ({"a": "mended"}, 1, 0)

    def test_of_lines_that_tell_their_times_the_newer_counts_though_it_cannot_be_read(self, write):
        file = write(
            observation("a", {"x": 1}, "2026-02-01T00:00:00Z"),
            observation("a", "old", "2026-01-01T00:00:00Z"),
        )
        assert read(export(1, file))[0] == {}

    @pytest.mark.parametrize(
        "line", ["{", '{"resourceType":"Patient","id":"a"}', '{"resourceType":"Observation"}']
    )
    def test_a_line_that_does_not_tell_whose_it_is_changes_nothing(self, write, line):
        rows, met, _ = read(export(1, write(observation("a", "good"), line)))
        assert (rows, met.malformed.height, met.duplicates) == ({"a": "good"}, 1, 0)

    def test_duplicates_in_files_that_are_not_utf8(self, write, tmp_path):
        damaged = tmp_path / "damaged.ndjson"
        damaged.write_bytes(b'{"resourceType":"Observation","id":"z","status":"\xff"}\n')
        file = write(observation("a", "x"), observation("a", "y"))
        rows, met, _ = read(export(1, str(damaged), file))
        assert (rows, met.malformed.height, met.duplicates) == ({"a": "y"}, 1, 1)


class TestChain:
    @pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
    def test_what_a_later_export_says_unreadably_is_not_what_an_earlier_said(self, write, unreadable):
        full = export(1, write(observation("a", "old"), observation("b", "y")))
        later = export(2, write(unreadable))
        rows, met, _ = read(full, later)
        assert (rows, met.malformed.height, met.unreadable, met.superseded) == ({"b": "y"}, 1, 1, 1)
        rows, met, _ = read(full, later, export(3, write(observation("a", "mended"))))
        assert rows == {"a": "mended", "b": "y"}
        assert (met.malformed.height, met.unreadable) == (1, 0)

    def test_an_unreadable_line_of_bytes_that_are_no_text_counts_too(self, write, tmp_path):
        damaged = tmp_path / "damaged.ndjson"
        damaged.write_bytes(b'{"resourceType":"Observation","id":"a","status":"\xff"}\n')
        rows, _, _ = read(export(1, write(observation("a", "old"))), export(2, str(damaged)))
        assert rows == {}

    def test_the_later_export_wins_whatever_last_updated_says(self, write):
        full = export(1, write(observation("a", "old", "2026-11-09T00:00:00Z"), observation("b", "y")))
        rows, met, calls = read(full, export(2, write(observation("a", "new", "2020-01-01T00:00:00Z"))))
        assert (rows, met.superseded, calls) == ({"a": "new", "b": "y"}, 1, 1)

    def test_an_older_export_after_a_newer_changes_nothing(self, write):
        full = export(1, write(observation("a", "old"), observation("b", "y")))
        newer = export(2, write(observation("a", "new")))
        assert read(full, newer)[0] == read(newer, full)[0] == read(newer, full, newer)[0]

    def test_exports_of_one_time_have_an_order_of_their_own(self, write):
        one = export(1, write(observation("a", "one")), digest="1")
        two = export(1, write(observation("a", "two")), digest="2")
        assert read(one, two)[0] == read(two, one)[0]

    def test_an_export_without_the_type_is_no_matter(self, write):
        full = export(2, write(observation("a", "x")))
        rows, met, _ = read(SnapshotExport(day(1), "e", {}), full, SnapshotExport(day(3), "f", {}))
        assert (rows, met.superseded) == ({"a": "x"}, 0)

    def test_no_files_at_all_give_no_rows(self):
        assert read(SnapshotExport(day(1), "e", {}))[0] == {}


class TestDeletion:
    @pytest.mark.parametrize(("when", "stays"), [(1, True), (2, True), (3, False)])
    def test_reaches_its_own_export_and_earlier_ones(self, write, when, stays):
        deleted = [("Observation", "a", day(when))]
        full, later = export(1, write(observation("a", "old"))), export(3, write(observation("a", "new")))
        rows, met, _ = read(full, deleted=deleted)
        assert (rows, met.deleted) == ({}, 1)
        assert read(full, later, deleted=deleted)[0] == ({"a": "new"} if stays else {})

    def test_of_another_type_with_the_same_id_is_no_matter(self, write):
        full = export(1, write(observation("a", "x")))
        assert read(full, deleted=[("Encounter", "a", day(2)), ("Patient", "a", day(2))])[0] == {"a": "x"}

    def test_an_earlier_deletion_does_not_cancel_a_later_one(self, write):
        full = export(2, write(observation("a", "x")))
        rows = read(full, deleted=[("Observation", "a", day(3)), ("Observation", "a", day(1))])[0]
        assert rows == {}


class TestHiddenPatients:
    def patients(self, number, *files):
        return SnapshotExport(day(number), str(number), {"Patient": files})

    def test_stay_hidden_until_a_later_export_holds_them(self, write):
        file = write({"resourceType": "Patient", "id": "p"})
        gone = tombstones(("Patient", "p", day(2)), ("Patient", "q", day(2)))
        assert Snapshot((self.patients(1, file),), gone).hidden_patients["id"].to_list() == ["p", "q"]
        back = Snapshot((self.patients(1, file), self.patients(3, file)), gone)
        assert back.hidden_patients["id"].to_list() == ["q"]

    def test_stay_hidden_where_the_exports_hold_no_patients(self):
        chain = (SnapshotExport(day(3), "e", {}),)
        assert Snapshot(chain, tombstones(("Patient", "p", day(2)))).hidden_patients["id"].to_list() == ["p"]

    def test_rows_without_a_subject_stay(self):
        frame = pl.LazyFrame({"patient_id": ["p", None, "q"], "n": [1, 2, 3]})
        hidden = pl.DataFrame({"id": ["p"]})
        assert hide_subjects(frame, "patient_id", hidden).collect()["n"].to_list() == [2, 3]
        assert hide_subjects(frame, "", hidden).collect().height == 3


class TestDigest:
    def test_of_one_export_is_its_own(self):
        assert Snapshot((export(1, digest="abc"),)).digest == "abc"
        earlier = tombstones(("Observation", "a", datetime(2026, 10, 1, tzinfo=UTC)))
        assert Snapshot((export(1, digest="abc"),), earlier).digest == "abc", "it decides nothing"

    def test_changes_with_what_decides_the_rows(self):
        base = export(1, digest="abc")
        digests = {
            Snapshot((base,)).digest,
            Snapshot((base, export(2))).digest,
            Snapshot((base,), tombstones(("Observation", "a", day(2)))).digest,
            Snapshot((base,), tombstones(("Patient", "a", day(2)))).digest,
        }
        assert len(digests) == 4
        assert Snapshot((export(2), base)).digest == Snapshot((base, export(2), base)).digest

    def test_transaction_time_is_that_of_the_latest(self):
        assert Snapshot((export(3), export(1))).transaction_time == day(3)


def bundle(*urls, method="DELETE", **more):
    entries = [{"request": {"method": method, "url": url}} for url in urls]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries, **more}


class TestReadDeletions:
    def test_reads_types_and_ids_once_each(self, write):
        long = "e" * 90  # ids of real servers may be longer than FHIR allows
        first = write(bundle("Patient/a", "Observation/b.1-2"), "", bundle("Patient/a", f"Encounter/{long}"))
        second = write(bundle("https://ehr.example/fhir/R4/Condition/c", "Procedure/d/_history/3"))
        assert list(read_deletions([first, second]).iter_rows()) == [
            ("Condition", "c"),
            ("Encounter", long),
            ("Observation", "b.1-2"),
            ("Patient", "a"),
            ("Procedure", "d"),
        ]

    def test_other_entries_delete_nothing(self, write):
        file = write(bundle("Patient/a", method="PUT"), {"resourceType": "Bundle"}, bundle())
        assert read_deletions([file]).is_empty()
        assert read_deletions([]).schema == {"type": pl.String, "id": pl.String}

    def test_a_byte_order_mark_is_tolerated(self, write):
        assert read_deletions([write("\ufeff" + json.dumps(bundle("Patient/a")))]).height == 1

    @pytest.mark.parametrize(
        "line",
        [
            f'{{"resourceType":"Bundle","entry":[{{"request":{{"method":"DELETE","url":"{MARKER}',
            f'{{"resourceType":"Bundle","entry":"{MARKER}"}}',
            json.dumps({"resourceType": "OperationOutcome", "id": MARKER}),
            "null",
            json.dumps(bundle(f"Patient?name={MARKER}")),
            json.dumps(bundle(MARKER)),
            json.dumps({"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE"}}]}),
        ],
        ids=["truncated", "wrong type", "other resource", "null", "conditional", "no reference", "no url"],
    )
    def test_what_cannot_be_read_stops_the_run_and_is_not_quoted(self, write, line):
        file = write(bundle("Patient/a"), line)
        with pytest.raises(MalformedDataError, match="list of deletions cannot be read") as caught:
            read_deletions([file])
        assert MARKER not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert caught.value.place == file
