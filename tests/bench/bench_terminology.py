"""Throughput of the terminology kernels.

Translation of (system, code) pairs by `map_codes` stands beside a plain two-column Polars join of the same
pairs and targets in the same run: times drift with the machine, the ratio holds. It is measured twice: for
the target code alone, and for all the columns that a study writes, beside a join that brings as many. Where
other work shares the machine, look at the CPU seconds. The closure is that of a random hierarchy of the size
of SNOMED CT. Usage::

    python tests/bench/bench_terminology.py --rows 50000000 --entries 500000 --concepts 350000
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl

from cohortflow.cli.console import print_json, print_table
from cohortflow.terminology import CodeMapping, map_codes
from cohortflow.terminology.hierarchy import close_hierarchy
from cohortflow.terminology.map_table import MapTable
from cohortflow.terminology.mapping import mapped_columns
from cohortflow.terminology.tables import MAPS

SNOMED, ICD10CM = "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm"
MAPPING = CodeMapping(maps=("bench",), prefix="to")
MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Result:
    """One measurement; ratios of 0 where there is nothing to compare with."""

    name: str
    seconds: float
    millions_per_second: float
    ratio: float
    cpu_seconds: float
    cpu_ratio: float


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds by the clock, and of all cores together."""

    clock: float
    cpu: float


def make_map(entries: int, seed: int) -> MapTable:
    """Make a one-to-one map."""
    codes = np.random.default_rng(seed).choice(8_999_999_999, entries, replace=False) + 1_000_000_000
    rows = pl.DataFrame({"source_code": codes}).select(
        pl.lit("bench").alias("map"),
        pl.lit("1").alias("version"),
        pl.lit(SNOMED).alias("source_system"),
        pl.col("source_code").cast(pl.String),
        pl.lit(ICD10CM).alias("target_system"),
        pl.concat_str(pl.lit("E"), pl.int_range(pl.len()).cast(pl.String)).alias("target_code"),
        pl.lit(None).alias("target_display"),
        pl.lit("equivalent").alias("relationship"),
        pl.lit(1).alias("group"),
        pl.lit(1).alias("priority"),
        pl.lit(None).alias("rule"),
        pl.lit(None).alias("advice"),
        pl.int_range(pl.len()).alias("order"),
    )
    return MapTable("bench", "bench|1", rows.cast(dict(MAPS)))


def make_pairs(code_map: MapTable, rows: int, unknown: float, seed: int) -> pl.DataFrame:
    """Make rows with codes of the map, and a share of codes that it does not have."""
    random = np.random.default_rng(seed)
    codes = code_map.entries["source_code"].gather(random.integers(0, code_map.entries.height, rows))
    missing = pl.Series(random.random(rows) < unknown)
    return pl.DataFrame({"code": codes, "missing": missing}).select(
        pl.lit(SNOMED).alias("code_system"),
        pl.when("missing").then(pl.lit("99999999")).otherwise("code").alias("code"),
    )


def measure(work: Callable[[], object], repeat: int) -> Time:
    """Return the best times of some repetitions, in seconds."""
    times = []
    for _ in range(repeat):
        clock, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - clock, time.process_time() - cpu))
    return Time(*(min(values) for values in zip(*times, strict=True)))


def bench_translate(rows: int, entries: int, unknown: float, repeat: int) -> list[Result]:
    """Translate pairs, and join them."""
    code_map = make_map(entries, 1)
    pairs = make_pairs(code_map, rows, unknown, 2).lazy()
    outputs = [column.name for column in mapped_columns(MAPPING)]
    sources = {
        "to_code": "target_code",
        "to_system": "target_system",
        "to_display": "target_display",
        "to_relationship": "relationship",
        "to_map": "map",
        "to_unmapped_reason": "rule",  # a join gives no reasons; another column takes their place
    }
    targets = code_map.entries.lazy().select(
        pl.col("source_system").alias("code_system"),
        pl.col("source_code").alias("code"),
        *(pl.col(source).alias(name) for name, source in sources.items()),
    )
    keys = ["code_system", "code"]
    results = []
    for label, columns in (("target code alone", ["to_code"]), ("all columns", outputs)):
        # Both must bring forth every target, and keep none of them.
        plain = pairs.join(targets.select(*keys, *columns), on=keys, how="left", maintain_order="left")
        joined = measure(partial(_drain, plain, columns), repeat)
        mapped = measure(partial(_translate, pairs, code_map, columns), repeat)
        results += [
            _compare(f"plain two-column join, {label}", joined, rows),
            _compare(f"map_codes, {label}", mapped, rows, joined),
        ]
    return results


def _compare(name: str, measured: Time, items: int, other: Time | None = None) -> Result:
    return Result(
        name,
        measured.clock,
        items / measured.clock / MILLION,
        other.clock / measured.clock if other else 0,
        measured.cpu,
        other.cpu / measured.cpu if other else 0,
    )


def bench_closure(concepts: int) -> list[Result]:
    """Close a random hierarchy; every concept has one parent among the earlier ones, and some have more."""
    random = np.random.default_rng(3)
    children = np.repeat(np.arange(1, concepts), random.integers(1, 3, concepts - 1))
    # Parents close to the root make the hierarchy as flat, and as wide, as SNOMED CT's: about 15 layers.
    parents = (children * random.random(len(children)) ** 1.5).astype(np.int64)
    edges = pl.DataFrame({"child": children, "parent": parents}).select(pl.all().cast(pl.String)).unique()
    sizes: list[int] = []
    measured = measure(lambda: sizes.append(len(close_hierarchy(edges, place="bench"))), 1)
    return [_compare(f"closure, {sizes[0]:,} pairs", measured, sizes[0])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--unknown", type=float, default=0.01, help="share of rows whose code is in no map")
    parser.add_argument("--concepts", type=int, default=350_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = bench_translate(arguments.rows, arguments.entries, arguments.unknown, arguments.repeat)
    if arguments.concepts:
        results += bench_closure(arguments.concepts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.json:
        machine = {"python": platform.python_version(), "polars": pl.__version__, "cpus": os.cpu_count()}
        print_json(
            {"arguments": vars(arguments), "machine": machine, "peak_megabytes": round(peak)}
            | {"results": [dataclasses.asdict(result) for result in results]}
        )
        return
    print_table(
        f"Terminology, {arguments.rows:,} rows, {arguments.entries:,} entries; peak {peak:,.0f} MB",
        ["what", "seconds", "million/s", "of the join", "CPU seconds", "of the join's CPU"],
        [
            (
                r.name,
                round(r.seconds, 2),
                round(r.millions_per_second, 2),
                round(r.ratio, 2) or "",
                round(r.cpu_seconds, 2),
                round(r.cpu_ratio, 2) or "",
            )
            for r in results
        ],
    )


def _translate(pairs: pl.LazyFrame, code_map: MapTable, columns: Sequence[str]) -> dict[str, object]:
    """Translate, the preparation of the map included."""
    return _drain(map_codes(pairs, MAPPING, [code_map]), columns)


def _drain(frame: pl.LazyFrame, columns: Sequence[str]) -> dict[str, object]:
    summary = frame.select(*(pl.col(name).is_not_null().sum() for name in columns), pl.len().alias("rows"))
    return json.loads(summary.collect(engine="streaming").write_json())[0]


if __name__ == "__main__":
    sys.exit(main())
