"""The shipped ICD-10-CM against another reader of the same file, on all its codes."""

import importlib
import itertools
import warnings
from pathlib import Path

import polars as pl
import pytest

from cohortflow.terminology.hierarchy import close_hierarchy
from cohortflow.terminology.loaders import LOADERS


@pytest.fixture(scope="module")
def peer():
    """The other reader, which takes seconds to read all codes when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of how it reads its data
        return importlib.import_module("simple_icd_10_cm")


@pytest.fixture(scope="module")
def tables(peer):
    """The tables of the release, collected."""
    folder = Path(peer.__file__).parent / "data"
    (release,) = LOADERS["icd10cm"](folder)
    return {name: frame.collect() for name, frame in release.tables.items()}


def without_blanks(text):
    """Return a text without blanks: the file has tabs in some, which we turn into blanks."""
    return "".join(text.split())


def block_of(code):
    """Return our code of a block that has the code of its only category."""
    return f"{code}-{code}"


@pytest.fixture(scope="module")
def parents(peer):
    """The peer's parent of every concept, by our codes."""
    found = {}
    for code in peer.get_all_codes():
        parent = peer.get_parent(code)
        if parent == code:
            found[block_of(code)] = peer.get_parent(code, prioritize_blocks=True)
        found[code] = block_of(code) if parent == code else parent
    return found


def test_all_codes_are_there(tables, parents, peer):
    assert sorted(tables["concepts"]["code"]) == sorted(parents)
    assert len(parents) == len(peer.get_all_codes()) > 98_000


def test_every_parent_is_the_same(tables, parents):
    ours = dict(tables["edges"].select("child", "parent").iter_rows())
    assert ours == {code: parent for code, parent in parents.items() if parent}


def test_every_ancestor_is_the_same(tables, peer):
    closure = close_hierarchy(tables["edges"].select("child", "parent"), place="tabular list").to_frame()
    ours = dict(closure.group_by("descendant").agg(pl.col("ancestor").sort()).iter_rows())
    for code in set(peer.get_all_codes()):
        line = itertools.pairwise([code, *peer.get_ancestors(code)])
        theirs = sorted(block_of(name) if name == below else name for below, name in line)
        assert ours.get(code, []) == theirs, code


def test_names_are_the_same(tables, peer):
    for code, name in tables["concepts"].select("code", "display").iter_rows():
        short = code.split("-")[0]
        block = code == block_of(short)
        theirs = peer.get_description(short if block else code, prioritize_blocks=block)
        assert without_blanks(name) == without_blanks(theirs), code


def test_inclusion_terms_are_the_same(tables, peer):
    terms = tables["synonyms"].filter(pl.col("kind") == "synonym")
    ours = {(code, without_blanks(term)) for code, term in terms.select("code", "term").iter_rows()}
    theirs = {
        (code, without_blanks(term))
        for code in peer.get_all_codes()
        for term in peer.get_inclusion_term(code)
    }
    assert ours == theirs


def test_leaves_are_the_billable_codes(tables, peer):
    billable = (pl.col("attribute") == "billable") & (pl.col("value") == "true")
    ours = set(tables["attributes"].filter(billable)["code"])
    theirs = {code for code in peer.get_all_codes() if peer.is_leaf(code)}
    assert ours == {code for code in theirs if peer.is_category_or_subcategory(code)}
