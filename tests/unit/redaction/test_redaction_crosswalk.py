"""Merged records are one subject, and numbers of other systems lead to it."""

import polars as pl
import pytest

from cohortflow.redaction.crosswalk import Crosswalk, find_subjects, index_identifiers


def crosswalk(*links):
    return Crosswalk.of_links(
        pl.DataFrame(links, schema={"id": pl.String, "replaced_by": pl.String}, orient="row")
    )


def survivors(*links):
    return dict(crosswalk(*links).links.iter_rows())


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ([("a", "b")], {"a": "b"}),
        ([("a", "b"), ("b", "c"), ("c", "d")], {"a": "d", "b": "d", "c": "d"}),
        ([("c", "d"), ("b", "c"), ("a", "b")], {"a": "d", "b": "d", "c": "d"}),
        ([("a", "c"), ("b", "c")], {"a": "c", "b": "c"}),
        ([("a", "b"), ("a", "b")], {"a": "b"}),
        ([("a", "c"), ("a", "b")], {"a": "b"}),
        ([("a", "a")], {}),
        ([("a", None), (None, "b")], {}),
        ([("b", "a"), ("a", "b")], {"b": "a"}),
        ([("x", "c"), ("c", "b"), ("b", "a"), ("a", "c")], {"x": "a", "c": "a", "b": "a"}),
        ([], {}),
    ],
)
def test_merges_are_followed_to_their_end(links, expected):
    assert survivors(*links) == expected


def test_a_long_chain_of_merges_ends():
    links = [(f"{number:03}", f"{number + 1:03}") for number in range(500)]
    assert set(survivors(*links).values()) == {"500"}


def test_ids_of_merged_records_become_those_of_what_is_left():
    frame = pl.LazyFrame({"patient_id": ["a", "b", None, "x"], "other": ["a", "a", "a", "a"]})
    found = crosswalk(("a", "b")).follow_columns(frame, ["patient_id"]).collect()
    assert found["patient_id"].to_list() == ["b", "b", None, "x"]
    assert found["other"].to_list() == ["a"] * 4


@pytest.mark.parametrize(
    ("links", "same", "people"),
    [
        ([], [("a", "b")], [{"a", "b"}]),
        ([], [("a", "b"), ("c", "b"), ("d", "e")], [{"a", "b", "c"}, {"d", "e"}]),
        ([("old", "b")], [("a", "old")], [{"a", "b"}]),
        # Of a record that two others replace, the one follows, and the other is the same person all the same.
        ([("old", "a"), ("old", "b")], [], [{"a", "b"}]),
        ([("a", "b"), ("b", "a")], [], []),
        ([("a", "b")], [("a", "a"), (None, "b")], []),
    ],
)
def test_records_of_one_person_are_found_over_any_number_of_links(links, same, people):
    schema = {"id": pl.String, "other": pl.String}
    found = Crosswalk.of_links(
        pl.DataFrame(links, schema={"id": pl.String, "replaced_by": pl.String}, orient="row"),
        pl.DataFrame(same, schema=schema, orient="row"),
    )
    for person in people:
        for one in person:
            patients = found.add_same_people(pl.LazyFrame({"patient_id": [one, "x"]}))
            assert set(patients.collect()["patient_id"]) == {*person, "x"}
    assert set(found.people["id"]) == set().union(*people)


def test_merged_records_have_no_rows_of_their_own():
    frame = pl.LazyFrame({"patient_id": ["a", "b", None]})
    found = crosswalk(("a", "b")).leave_out_merged(frame, "patient_id").collect()
    assert found["patient_id"].to_list() == ["b", None]


def test_no_id_is_shown():
    merged = crosswalk(("secret-a", "secret-b"))
    frame = merged.follow_columns(pl.LazyFrame({"patient_id": ["x"]}), ["patient_id"])
    frame = merged.leave_out_merged(frame, "patient_id")
    assert "secret" not in repr(merged) + frame.explain() + frame.explain(optimized=False)


def test_without_merges_nothing_is_done():
    frame = pl.LazyFrame({"patient_id": ["a"]})
    assert Crosswalk.empty().follow_columns(frame, ["patient_id"]) is frame


def test_a_number_leads_to_the_patient_that_is_left():
    patients = pl.DataFrame(
        [("a", "mrn", "1"), ("b", "mrn", "2"), ("c", "mrn", "3"), ("d", "mrn", "3"), ("c", "ssn", "3")],
        schema=["patient_id", "system", "value"],
        orient="row",
    )
    identifiers = index_identifiers(patients, crosswalk(("a", "b")))
    assert identifiers.rows() == [("mrn", "1", "b"), ("mrn", "2", "b"), ("ssn", "3", "c")]
    messages = pl.LazyFrame({"authority": ["mrn", "mrn", "other"], "number": ["1", "3", "1"]})
    found = find_subjects(messages, identifiers, system="authority", value="number").collect()
    assert found["patient_id"].to_list() == ["b", None, None]
