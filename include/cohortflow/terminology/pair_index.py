"""Pairs of system and code, indexed for batches of rows."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

__all__ = ["PairIndex", "hash_pairs"]

_PAIR = ("system", "code")
_SLOTS = 4
"""Slots for each pair of a level, at least: about one pair in nine then finds its slot taken."""


def hash_pairs(pairs: pl.DataFrame, seed: int = 0, *, columns: tuple[str, str] = _PAIR) -> pl.Series:
    """Return a number for each system and code, equal for equal pairs; the next seed has other numbers."""
    system, code = columns
    # Two seeds: else a system and a code that are one text would cancel each other out.
    number = pl.col(system).hash(2 * seed) ^ pl.col(code).hash(2 * seed + 1)
    return pairs.select(number.alias("hash"))["hash"]


@dataclass(frozen=True)
class PairIndex:
    """Finds pairs of system and code, row by row.

    A hash table in several levels, made once: a pair whose slot is taken stands in the next level, where it
    has another slot. What stands in a slot is compared with the row, text by text. A join hashes its table
    anew for every batch, or is slow where it must keep the order of the rows.

    Attributes:
        pairs: Columns ``system`` and ``code``.
        levels: Of each level, by slot the place of a pair in ``pairs``; null where the slot is free.
    """

    pairs: pl.DataFrame
    levels: tuple[pl.Series, ...]

    @classmethod
    def build(cls, pairs: pl.DataFrame) -> PairIndex:
        """Index the columns ``system`` and ``code`` of distinct pairs."""
        pairs = pairs.select(_PAIR).rechunk()  # rows of one chunk are found faster
        places = pl.int_range(pairs.height, dtype=pl.UInt32, eager=True)
        levels: list[pl.Series] = []
        while len(places):
            table = pl.repeat(None, 1 << (_SLOTS * len(places) - 1).bit_length(), dtype=pl.UInt32, eager=True)
            slots = _find_slots(pairs[places], table, len(levels))
            levels.append(table.scatter(slots, places))
            places = places.filter(levels[-1][slots] != places)
        return cls(pairs, tuple(levels))

    def find(self, values: pl.DataFrame) -> pl.Series:
        """Return the place of each row's pair; null for one that is not there as it is spelled."""
        none = pl.repeat(None, values.height, dtype=pl.UInt32, eager=True).alias("pair")
        if not self.levels:
            return none
        found = self._probe(values, 0)
        left = found.is_null().arg_true()
        for level in range(1, len(self.levels)):
            if not len(left):
                break
            more = self._probe(values[left], level)
            found = found.scatter(left, more)
            left = left.filter(more.is_null())
        return found

    def _probe(self, values: pl.DataFrame, level: int) -> pl.Series:
        table = self.levels[level]
        places = table[_find_slots(values, table, level)]
        there = self.pairs[places]
        same = (there["code"] == values["code"]) & (there["system"] == values["system"])
        # Not so for nulls either: they are in no pair.
        return pl.select(pl.when(same).then(places).alias("pair"))["pair"]


def _find_slots(values: pl.DataFrame, table: pl.Series, level: int) -> pl.Series:
    return (hash_pairs(values, level) & (len(table) - 1)).cast(pl.UInt32)
