"""The same seed gives the same bytes, however the work is divided."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.synthetic import generate
from cohortflow.synthetic.streams import Streams, below, normal, uniform

SEEDS = st.integers(0, 2**63 - 1)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(1, 70), st.integers(1, 3), st.booleans())
def test_chunks_and_threads_leave_no_trace(seed, patients, chunk, workers, compress):
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        generate(whole, patients=patients, seed=seed, gzip=compress, workers=1)
        generate(parts, patients=patients, seed=seed, gzip=compress, chunk_patients=chunk, workers=workers)
        assert contents(parts) == contents(whole)


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.integers(1, 50), st.integers(1, 50))
def test_a_smaller_population_begins_a_larger_one(seed, patients, more):
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        generate(small, patients=patients, seed=seed)
        generate(large, patients=patients + more, seed=seed)
        beginnings, texts = contents(small), contents(large)
        for name, text in beginnings.items():
            if name not in {"Group.ndjson", "ground_truth/population.json"}:
                assert texts[name].startswith(text), name


@settings(max_examples=8, deadline=None)
@given(st.lists(SEEDS, min_size=2, max_size=2, unique=True))
def test_seeds_share_no_patient(seeds):
    with tempfile.TemporaryDirectory() as folder:
        ids = []
        for seed in seeds:
            generate(Path(folder, str(seed)), patients=20, seed=seed)
            truth = Path(folder, str(seed), "ground_truth/patients.csv").read_text().splitlines()[1:]
            ids.append({line.partition(",")[0] for line in truth})
        assert ids[0].isdisjoint(ids[1])


@given(SEEDS, st.integers(0, 10_000), st.integers(1, 50), st.integers(0, 40), st.integers(1, 9))
def test_a_row_of_a_stream_depends_on_its_patient_only(seed, first, rows, skip, width):
    streams = Streams(seed)
    whole = streams.words("test", first, rows + skip, width)
    assert np.array_equal(whole[skip:], streams.words("test", first + skip, rows, width))


@given(SEEDS, st.integers(1, 2**31 - 1))
def test_draws_stay_in_their_range(seed, limit):
    words = Streams(seed).words("test", 0, 50, 4)
    assert ((uniform(words) >= 0) & (uniform(words) < 1)).all()
    assert (np.abs(normal(words)) < 3.5).all()
    assert ((below(words, limit) >= 0) & (below(words, limit) < limit)).all()


def test_normal_deviates_have_mean_zero_and_deviation_one():
    deviates = normal(Streams(1).words("test", 0, 50_000, 4))
    assert abs(deviates.mean()) < 0.01
    assert abs(deviates.std() - 1) < 0.01
