"""The transitive closure of a hierarchy of concepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from cohortflow.errors import MalformedDataError

__all__ = ["CLOSURE_SCHEMA", "Closure", "close_hierarchy"]

CLOSURE_SCHEMA = pl.Schema({"descendant": pl.String(), "ancestor": pl.String(), "distance": pl.UInt16()})
"""One row per concept and proper ancestor; ``distance`` is the least number of edges between them."""

_FRAME_ROWS = 4_000_000

_Ids = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Closure:
    """All ancestors of all concepts, as numbers.

    Attributes:
        codes: Codes, sorted; a concept's number is its place.
        offsets: Where the ancestors of each concept begin, and after the last one the end; ``int64``.
        ancestors: Numbers of the ancestors, ascending for each concept.
        distances: Least number of edges to each of them.
    """

    codes: pl.Series
    offsets: npt.NDArray[np.int64]
    ancestors: _Ids
    distances: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.ancestors)

    def frames(self, rows: int = _FRAME_ROWS) -> Iterator[pl.DataFrame]:
        """Yield the pairs as tables of ``CLOSURE_SCHEMA`` with at most so many rows, sorted by both codes."""
        for start in range(0, len(self), rows):
            stop = min(start + rows, len(self))
            places = np.arange(start, stop)
            descendants = np.searchsorted(self.offsets, places, side="right") - 1
            yield pl.DataFrame(
                {
                    "descendant": self.codes.gather(descendants),
                    "ancestor": self.codes.gather(self.ancestors[start:stop]),
                    "distance": self.distances[start:stop],
                },
                schema=CLOSURE_SCHEMA,
            )

    def to_frame(self) -> pl.DataFrame:
        """Return all pairs as one table."""
        return pl.concat([pl.DataFrame(schema=CLOSURE_SCHEMA), *self.frames()])


def close_hierarchy(edges: pl.DataFrame, *, place: str) -> Closure:
    """Find every pair of a concept and an ancestor of it.

    Concepts are taken in layers, each after all its parents, so that a concept's ancestors are its parents
    and the ancestors that these already have: every pair is made once per parent and looked up never.

    Args:
        edges: ``child: String`` and ``parent: String``, one row per edge; repeated edges count once.
        place: The source of the edges, for messages.

    Raises:
        MalformedDataError: A concept is its own ancestor, or an edge lacks an end.
    """
    if edges.select(pl.any_horizontal(pl.col("child", "parent").is_null()).any()).item():
        raise MalformedDataError(
            "An edge of the hierarchy has no child or no parent.",
            place=place,
            remedy="Get the file again: a line is cut or has other columns.",
        )
    codes = pl.concat([edges["child"].rename("code"), edges["parent"].rename("code")]).unique().sort()
    children, parents = _number(edges, codes)
    layers = _layer(children, parents, len(codes))
    if (layers < 0).any():
        code = codes[_find_loop(children, parents, layers)]
        raise MalformedDataError(
            f"The hierarchy has a cycle: the concept {code} is its own ancestor.",
            place=place,
            remedy="Load the distributor's current release; in a hierarchy of your own, remove an edge.",
        )
    return _close(codes, children, parents, layers)


def _number(edges: pl.DataFrame, codes: pl.Series) -> tuple[_Ids, _Ids]:
    """Return the edges as numbers, sorted by child, each once."""
    numbers = pl.LazyFrame({"code": codes}).with_row_index("number")
    steps = (
        edges.lazy()
        .join(numbers.rename({"number": "from"}), left_on="child", right_on="code")
        .join(numbers.rename({"number": "to"}), left_on="parent", right_on="code")
        .select("from", "to")
        .unique()
        .sort("from", "to")
        .collect()
    )
    return steps["from"].to_numpy(), steps["to"].to_numpy()


def _layer(children: _Ids, parents: _Ids, size: int) -> npt.NDArray[np.int64]:
    """Return the layer of each concept: 0 without parents, else one more than the deepest parent's.

    Concepts on a cycle, and below one, have none: -1.
    """
    layers = np.full(size, -1, dtype=np.int64)
    missing = np.bincount(children, minlength=size)
    order = np.argsort(parents, kind="stable")
    below, starts = children[order], np.searchsorted(parents[order], np.arange(size + 1))
    current, depth = np.flatnonzero(missing == 0), 0
    while len(current):
        layers[current] = depth
        reached = below[_ranges(starts[current], starts[current + 1] - starts[current])]
        missing -= np.bincount(reached, minlength=size)
        current = np.unique(reached[missing[reached] == 0])
        depth += 1
    return layers


def _find_loop(children: _Ids, parents: _Ids, layers: npt.NDArray[np.int64]) -> int:
    """Return a concept on a cycle: climbing from one without a layer must come to one twice."""
    open_edges = (layers[children] < 0) & (layers[parents] < 0)
    up = dict(zip(children[open_edges].tolist(), parents[open_edges].tolist(), strict=True))
    concept, seen = next(iter(up)), set()
    while concept not in seen:
        seen.add(concept)
        concept = up[concept]
    return int(concept)


def _close(codes: pl.Series, children: _Ids, parents: _Ids, layers: npt.NDArray[np.int64]) -> Closure:
    size = len(codes)
    # Per concept: where its ancestors begin, and how many there are.
    begins, counts = np.zeros(size, np.int64), np.zeros(size, np.int64)
    edge_layers = layers[children]
    ancestors = np.empty(0, np.uint32)
    distances = np.empty(0, np.uint16)
    for depth in range(1, int(layers.max(initial=0)) + 1):
        here = edge_layers == depth
        child, parent = children[here], parents[here]
        places = _ranges(begins[parent], counts[parent])
        pairs = pl.DataFrame(
            {
                "pair": np.concatenate(
                    [
                        _join(child, parent),
                        _join(np.repeat(child, counts[parent]), ancestors[places]),
                    ]
                ),
                "distance": np.concatenate(
                    [np.ones(len(child), np.uint16), distances[places] + np.uint16(1)]
                ),
            }
        )
        found = pairs.group_by("pair").agg(pl.col("distance").min()).sort("pair")
        keys = found["pair"].to_numpy()
        owners = (keys >> np.uint64(32)).astype(np.int64)
        concepts, first, number = np.unique(owners, return_index=True, return_counts=True)
        begins[concepts], counts[concepts] = len(ancestors) + first, number
        ancestors = np.concatenate([ancestors, (keys & np.uint64(0xFFFF_FFFF)).astype(np.uint32)])
        distances = np.concatenate([distances, found["distance"].to_numpy()])
    order = _ranges(begins, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Closure(codes, offsets, ancestors[order], distances[order])


def _join(high: npt.NDArray[np.uint32], low: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Return two numbers as one, so that pairs are grouped and sorted by a single key."""
    return (high.astype(np.uint64) << np.uint64(32)) | low


def _ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of all ranges, one after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shifts: npt.NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    return shifts + np.arange(total)
