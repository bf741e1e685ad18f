"""The closure of a hierarchy equals a search from every concept."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.errors import MalformedDataError
from cohortflow.terminology.hierarchy import CLOSURE_SCHEMA, close_hierarchy

NODES = st.integers(0, 14)
EDGES = st.lists(st.tuples(NODES, NODES), max_size=40)


def to_frame(edges):
    return pl.DataFrame(
        [(f"c{child:02}", f"c{parent:02}") for child, parent in edges],
        schema={"child": pl.String(), "parent": pl.String()},
        orient="row",
    )


def search(edges):
    """Breadth first from every concept, in plain Python."""
    pairs = {}
    for start in {child for child, _ in edges}:
        reached, front, distance = {}, {start}, 0
        while front:
            distance += 1
            front = {parent for child, parent in edges if child in front} - set(reached)
            reached |= dict.fromkeys(front, distance)
        pairs |= {(f"c{start:02}", f"c{concept:02}"): steps for concept, steps in reached.items()}
    return pairs


@given(EDGES)
def test_the_closure_is_what_a_search_finds(edges):
    downward = [(max(edge), min(edge)) for edge in edges if edge[0] != edge[1]]
    closure = close_hierarchy(to_frame(downward), place="x")
    frame = closure.to_frame()
    assert frame.schema == CLOSURE_SCHEMA
    assert frame.rows() == sorted((*pair, distance) for pair, distance in search(downward).items())
    assert [frame.rows() for frame in closure.frames(rows=3)] == [
        frame.rows()[start : start + 3] for start in range(0, frame.height, 3)
    ]


@given(EDGES)
def test_a_concept_above_itself_is_named(edges):
    loops = {left for left, right in search(edges) if left == right}
    if not loops:
        close_hierarchy(to_frame(edges), place="x")
        return
    with pytest.raises(MalformedDataError) as caught:
        close_hierarchy(to_frame(edges), place="release.txt")
    assert any(f"the concept {code} is its own ancestor" in caught.value.message for code in loops)
    assert caught.value.place == "release.txt"


def test_an_edge_without_an_end_is_refused():
    edges = pl.DataFrame({"child": ["a", "b"], "parent": ["b", None]})
    with pytest.raises(MalformedDataError, match="no child or no parent"):
        close_hierarchy(edges, place="x")


def test_no_edges_make_no_pairs():
    assert close_hierarchy(to_frame([]), place="x").to_frame().is_empty()
