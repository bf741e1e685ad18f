"""Whatever is loaded, in whatever order: equal content is one release, and its closure is the hierarchy's."""

import tempfile

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.lake import TerminologyStore, open_store
from cohortflow.lake.terminology_release import slug, version_key
from cohortflow.model import EnvDeployment
from cohortflow.terminology.tables import CONCEPTS, EDGES, Release

SYSTEM = "http://hospital.example.org/x"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def hierarchies(draw):
    """Names of concepts, and edges that lead from a concept to one before it."""
    names = draw(st.lists(NAMES, min_size=1, max_size=8))
    last = len(names) - 1
    pairs = st.tuples(st.integers(0, last), st.integers(0, last)).filter(lambda pair: pair[0] > pair[1])
    edges = draw(st.lists(pairs, max_size=12)) if last else []
    return names, edges


def make_release(names, edges):
    concepts = [(SYSTEM, "1", str(code), name, True, None, None) for code, name in enumerate(names)]
    rows = [(SYSTEM, "1", str(child), str(parent)) for child, parent in edges]
    tables = {
        "concepts": pl.LazyFrame(concepts, schema=CONCEPTS, orient="row"),
        "edges": pl.LazyFrame(rows, schema=EDGES, orient="row"),
    }
    return Release(SYSTEM, "1", "X", "Free.", ("x.csv",), tables)


def ancestors(code, edges):
    """Search the edges, recursively."""
    above = {parent for child, parent in edges if child == code}
    return above.union(*(ancestors(parent, edges) for parent in above))


@settings(max_examples=30)
@given(hierarchy=hierarchies(), order=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_and_the_closure_is_complete(hierarchy, order):
    names, edges = hierarchy
    with tempfile.TemporaryDirectory() as folder:
        store = TerminologyStore(open_store(folder, EnvDeployment({})))
        first = store.load(make_release(names, edges))
        shuffled = make_release(names, order.sample(edges, len(edges)))
        assert store.load(shuffled) == first
        tables = store.tables(SYSTEM)
        assert tables["concepts"].collect()["display"].to_list() == names
        expected = {(str(code), str(above)) for code in range(len(names)) for above in ancestors(code, edges)}
        if not edges:
            assert "closure" not in tables
            return
        found = tables["closure"].select("descendant", "ancestor").collect().rows()
        assert len(found) == len(expected)
        assert set(found) == expected


@given(versions=st.lists(st.from_regex(r"v?[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True), max_size=6))
def test_versions_are_ordered_by_their_numbers(versions):
    found = sorted(versions, key=version_key)
    numbers = [[int(part) for part in version.removeprefix("v").split(".")] for version in found]
    assert numbers == sorted(numbers)


@given(one=NAMES, other=NAMES)
def test_two_texts_never_share_a_folder(one, other):
    assert (slug(one).lower() == slug(other).lower()) == (one == other)
    assert not set(slug(one)) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert slug(one) not in {"", ".", ".."}
