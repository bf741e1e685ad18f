"""A folder appears whole or not at all, and nothing of someone else's is overwritten."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import zlib
from pathlib import Path

import pytest

from cohortflow.errors import InputError
from cohortflow.synthetic import generate
from cohortflow.synthetic import population as population_module


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class Counter:
    def __init__(self):
        self.seen = []

    def update(self, task, done, total=None, unit=""):
        self.seen.append((task, done, total, unit))


def test_an_earlier_population_is_replaced(tmp_path):
    out = tmp_path / "data"
    generate(out, patients=40, seed=1)
    generate(out, patients=20, seed=2, gzip=True)
    assert {name.partition(".")[2] for name in contents(out)} == {"ndjson.gz", "csv", "json"}
    assert json.loads((out / "ground_truth/population.json").read_text())["patients"] == 20
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["notes.txt", "Patient.ndjson", "ground_truth/own.csv"])
def test_a_folder_with_other_files_is_left_alone(tmp_path, name):
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InputError, match="did not write"):
        generate(tmp_path / "data", patients=5, seed=1)
    assert contents(tmp_path) == {f"data/{name}": b"mine"}


def test_an_earlier_population_beside_other_files_is_left_alone(tmp_path):
    generate(tmp_path / "data", patients=5, seed=1)
    (tmp_path / "data" / "results.csv").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="did not write"):
        generate(tmp_path / "data", patients=6, seed=1)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(InputError, match="did not write"):
        generate(tmp_path / "data", patients=5, seed=1)
    assert (tmp_path / "data").read_text() == "mine"


@pytest.mark.parametrize("compress", [False, True])
def test_a_failure_leaves_the_earlier_population_and_no_debris(tmp_path, monkeypatch, compress):
    out = tmp_path / "data"
    generate(out, patients=20, seed=1)
    before = contents(tmp_path)

    def fail(stage):
        raise OSError("disk full")

    monkeypatch.setattr(population_module, "render_staff", fail)
    with pytest.raises(OSError, match="disk full"):
        generate(out, patients=30, seed=1, gzip=compress)
    assert contents(tmp_path) == before


def test_a_swap_that_fails_puts_the_earlier_population_back(tmp_path, monkeypatch):
    out = tmp_path / "data"
    generate(out, patients=20, seed=1)
    before = contents(tmp_path)
    replace = Path.replace

    def fail_for_drafts(self, target):
        if self.suffix == ".part":
            raise OSError("no rename")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_drafts)
    with pytest.raises(OSError, match="no rename"):
        generate(out, patients=30, seed=1)
    assert contents(tmp_path) == before


def test_gzip_files_hold_the_same_text_in_one_member(tmp_path):
    plain = generate(tmp_path / "plain", patients=60, seed=3)
    packed = generate(tmp_path / "packed", patients=60, seed=3, gzip=True)
    assert packed.counts == plain.counts
    assert packed.size < plain.size / 5
    for file in plain.files:
        text = (tmp_path / "plain" / file.name).read_bytes()
        data = (tmp_path / "packed" / f"{file.name}.gz").read_bytes()
        assert gzip.decompress(data) == text
        # Many readers stop after the first member, so there must be one only.
        reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert reader.decompress(data) == text
        assert reader.eof
        assert reader.unused_data == b""


def test_the_truth_is_not_among_the_files_that_a_server_would_offer(tmp_path):
    summary = generate(tmp_path / "data", patients=5, seed=1)
    served = sorted(path.name for path in (tmp_path / "data").glob("*.ndjson*"))
    assert served == sorted(file.name for file in summary.files)
    assert not list((tmp_path / "data" / "ground_truth").glob("*.ndjson*"))


def test_progress_counts_up_to_all_patients(tmp_path):
    counter = Counter()
    generate(tmp_path / "data", patients=25, seed=1, chunk_patients=10, progress=counter)
    assert [done for _, done, _, _ in counter.seen] == [0, 10, 20, 25]
    assert {(total, unit) for _, _, total, unit in counter.seen} == {(25, "patients")}


def test_records_end_before_the_chosen_day(tmp_path):
    as_of = dt.date(2020, 2, 29)
    generate(tmp_path / "data", patients=20, seed=1, as_of=as_of)
    starts = [
        json.loads(line)["period"]["start"][:10]
        for line in (tmp_path / "data" / "Encounter.ndjson").read_text().splitlines()
    ]
    assert max(starts) < as_of.isoformat()
    assert max(starts) > "2019-08"


@pytest.mark.parametrize(
    "arguments",
    [{"patients": 0}, {"seed": -1}, {"as_of": dt.date(1999, 1, 1)}, {"chunk_patients": 0}, {"workers": 0}],
)
def test_arguments_out_of_range_are_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(InputError):
        generate(tmp_path / "data", **{"patients": 5, "seed": 1, **arguments})
    assert list(tmp_path.iterdir()) == []
