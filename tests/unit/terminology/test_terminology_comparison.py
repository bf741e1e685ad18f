"""Versions compared, and codes of one version."""

import polars as pl
import pytest

from cohortflow.errors import InputError
from cohortflow.terminology.comparison import compare_releases, subsumes
from cohortflow.terminology.tables import CLOSURE, CONCEPTS


def tables(*concepts, closure=()):
    """Tables of concepts (code, display, active, successor) and pairs (descendant, ancestor)."""
    rows = [("s", "1", code, name, active, None, successor) for code, name, active, successor in concepts]
    pairs = [("s", "1", below, above, 1) for below, above in closure]
    found = {"concepts": pl.LazyFrame(rows, schema=CONCEPTS, orient="row")}
    return found | ({"closure": pl.LazyFrame(pairs, schema=CLOSURE, orient="row")} if pairs else {})


def test_each_kind_of_change_is_found():
    old = tables(
        ("gone", "Gone", True, None),
        ("out", "Out", True, None),
        ("back", "Back", False, None),
        ("name", "Old name", True, None),
        ("same", "Same  name", True, None),
        ("both", "Old", True, None),
    )
    new = tables(
        ("out", "Out", False, "name"),
        ("back", "Back", True, None),
        ("name", "New name", True, None),
        ("same", "same name ", True, None),
        ("both", "New", False, None),
        ("new", "New", True, None),
    )
    assert compare_releases(old, new).collect().rows() == [
        ("new", "added", None, "New", None),
        ("gone", "removed", "Gone", None, None),
        ("both", "retired", "Old", "New", None),
        ("out", "retired", "Out", "Out", "name"),
        ("back", "reinstated", "Back", "Back", None),
        ("both", "renamed", "Old", "New", None),
        ("name", "renamed", "Old name", "New name", None),
    ]


def test_a_version_does_not_differ_from_itself():
    version = tables(("a", "A", True, None), ("b", "B", False, "a"))
    assert compare_releases(version, version).collect().is_empty()


# https://hl7.org/fhir/R4/codesystem-operation-subsumes.html: A is the first code.
@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        ("x", "x", "equivalent"),
        ("top", "x", "subsumes"),
        ("x", "top", "subsumed-by"),
        ("x", "y", "not-subsumed"),
    ],
)
def test_two_codes_are_related_as_the_closure_says(a, b, outcome):
    concepts = [(code, code, True, None) for code in ("top", "x", "y")]
    version = tables(*concepts, closure=[("x", "top"), ("y", "top")])
    assert subsumes(version, a, b) == outcome


def test_without_a_hierarchy_no_code_is_above_another():
    assert subsumes(tables(("a", "A", True, None), ("b", "B", True, None)), "a", "b") == "not-subsumed"


def test_an_unknown_code_is_refused():
    with pytest.raises(InputError, match="no code 'b'"):
        subsumes(tables(("a", "A", True, None)), "a", "b")
