"""Pairs of system and code are found as they are spelled, and no others."""

import random

import polars as pl

from cohortflow.terminology import map_lookup
from cohortflow.terminology.pair_index import PairIndex, hash_pairs

SCHEMA = {"system": pl.String, "code": pl.String}


def frame(rows):
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_every_pair_is_found_and_no_other():
    chance = random.Random(1)
    # Few texts for many pairs: codes of many systems, and systems that look like codes.
    texts = ["", "0", "NA", *(str(number) for number in range(300))]
    pairs = [(system, code) for system in texts for code in texts]
    known = chance.sample(pairs, 40_000)
    index = PairIndex.build(frame(known))
    assert len(index.levels) > 2  # or nothing was displaced
    place = {pair: number for number, pair in enumerate(known)}
    asked = [*pairs, (None, "0"), ("0", None), (None, None), ("0", " 0")]
    chance.shuffle(asked)
    assert index.find(frame(asked)).to_list() == [place.get(pair) for pair in asked]


def test_an_index_of_nothing_finds_nothing():
    found = PairIndex.build(frame([])).find(frame([("a", "b"), (None, None)]))
    assert found.to_list() == [None, None]
    assert PairIndex.build(frame([("a", "b")])).find(frame([])).to_list() == []


def test_hashes_tell_pairs_apart():
    pairs = frame([("a", "b"), ("b", "a"), ("a", "a"), ("b", "b")])
    assert hash_pairs(pairs).n_unique() == 4
    assert set(hash_pairs(pairs, 1)).isdisjoint(hash_pairs(pairs))


def test_sources_with_the_same_hash_are_kept_apart(monkeypatch):
    rows = [("s", "b", 1), ("s", "a", 2), ("s", "b", 3), ("t", "a", 4), ("s", "a", 5)]
    entries = pl.DataFrame(rows, schema=["source_system", "source_code", "order"], orient="row")
    monkeypatch.setattr(
        map_lookup, "hash_pairs", lambda pairs, **_: pl.repeat(7, pairs.height, eager=True).alias("hash")
    )
    assert map_lookup._sort_by_source(entries)["order"].to_list() == [2, 5, 1, 3, 4]
