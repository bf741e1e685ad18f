"""Throughput of the kernels, each beside a limit or a plain equivalent measured in the same run.

Times drift with the machine, ratios hold: the table gives both. Usage: ``make bench`` or
``python tests/bench/run.py --patients 3000 --repeat 3 --json result.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from cohortflow.cli.console import print_json, print_table, stderr
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import CompiledView, compile_view
from cohortflow.lake import Landing, land_dataset, open_store
from cohortflow.model import Catalog, EnvDeployment
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, ProjectKey, classify_columns, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import LeakScan, collect_facts, load_common_words
from cohortflow.synthetic import generate
from cohortflow.terminology import CodeMapping, load_concept_map, map_codes

MEGABYTE = 1_000_000
VIEW = "observation"
TEN_COLUMNS = Path(__file__).with_name("ten_columns.json")
CODES = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        name: What was measured.
        rate: Units per second, best of the repetitions.
        unit: Its unit.
        reference: What it is compared with.
        reference_rate: The same of that.
    """

    name: str
    rate: float
    unit: str
    reference: str
    reference_rate: float

    @property
    def ratio(self) -> float:
        """Our rate as a share of the reference's."""
        return self.rate / self.reference_rate


class Bench:
    """Runs the comparisons in a folder of its own."""

    def __init__(self, folder: Path, patients: int, repeat: int) -> None:
        self.folder = folder
        self.patients = patients
        self.repeat = repeat
        self.catalog = Catalog.default()
        self.data = folder / "data"

    def run(self) -> list[Result]:
        """Run all comparisons."""
        return [
            self.synth(),
            self.view(VIEW, self.catalog.load("views", VIEW)),
            self.view("ten_columns", json.loads(TEN_COLUMNS.read_text(encoding="utf-8"))),
            self.command(),
            self.views_by_code(),
            self.copies_of_a_view(),
            self.redaction(),
            self.leak_scan(),
            self.mapping(),
            self.landing(),
        ]

    def synth(self) -> Result:
        """Compare making NDJSON with copying the same files."""

        def make() -> None:
            shutil.rmtree(self.data, ignore_errors=True)
            generate(self.data, patients=self.patients, seed=1)

        def copy() -> None:
            shutil.rmtree(self.folder / "copy", ignore_errors=True)
            shutil.copytree(self.data, self.folder / "copy")

        seconds = self.best(make)
        size = sum(path.stat().st_size for path in self.data.glob("*.ndjson")) / MEGABYTE
        limit = self.best(copy)
        shutil.rmtree(self.folder / "copy")
        return Result(f"synth, {size:.0f} MB", size / seconds, "MB/s", "copying the files", size / limit)

    def view(self, name: str, definition: Mapping[str, Any]) -> Result:
        """Compare a view to Parquet with decoding the same fields and nothing else."""
        view = compile_view(definition)
        file = self.data / "Observation.ndjson"
        size = file.stat().st_size / MEGABYTE
        dtype = pl.Struct(dict(view.read_schema))

        def bare() -> None:
            decoded = pl.scan_lines(file, name="line").select(
                pl.col("line").str.json_decode(dtype).alias("r")
            )
            decoded.unnest("r").sink_parquet(self.folder / "bare.parquet")

        return Result(
            f"view '{name}', {size:.0f} MB",
            size / self.best(lambda: self.write([view])),
            "MB/s",
            "json_decode to Parquet",
            size / self.best(bare),
        )

    def command(self) -> Result:
        """Compare the command, with the start of its process, with the same in this process."""
        size = (self.data / "Observation.ndjson").stat().st_size / MEGABYTE
        view = compile_view(json.loads(TEN_COLUMNS.read_text(encoding="utf-8")))
        command = [
            str(Path(sys.executable).with_name("cohortflow")),
            *("view", "run", str(TEN_COLUMNS), str(self.data / "Observation.ndjson")),
            *("--out", str(self.folder / "command.parquet")),
        ]
        ours = self.best(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        alone = self.best(lambda: self.write([view]))
        return Result("the same as a command", size / ours, "MB/s", "in this process", size / alone)

    def views_by_code(self) -> Result:
        """Compare a view for each of the commonest codes, in one pass, with one view of all codes."""
        definition = json.loads(TEN_COLUMNS.read_text(encoding="utf-8"))
        whole = compile_view(definition)
        (frame,), _ = read_views([whole], [self.data / "Observation.ndjson"]).execute(
            lambda frames: [frames[whole.name].select(pl.col("code").value_counts(sort=True)).unnest("code")]
        )
        views = [
            compile_view(
                {
                    **definition,
                    "name": f"code_{number}",
                    "where": [{"path": f"code.coding.exists(code = '{code}')"}],
                }
            )
            for number, code in enumerate(frame["code"].drop_nulls().head(CODES))
        ]
        return self.compare(f"{CODES} views, a code each", views, whole)

    def copies_of_a_view(self) -> Result:
        """Compare the same view many times, in one pass, with once: all tables are as long as the first."""
        definition = json.loads(TEN_COLUMNS.read_text(encoding="utf-8"))
        views = [compile_view({**definition, "name": f"copy_{number}"}) for number in range(CODES)]
        return self.compare(f"{CODES} views, all rows each", views, views[0])

    def compare(self, name: str, views: Sequence[CompiledView], one: CompiledView) -> Result:
        """Compare one pass for several views with one pass for one."""
        size = (self.data / "Observation.ndjson").stat().st_size / MEGABYTE
        several, alone = self.best(lambda: self.write(views)), self.best(lambda: self.write([one]))
        return Result(name, size / several, "MB/s", "one view", size / alone)

    def write(self, views: Sequence[CompiledView]) -> None:
        """Write views of the observations to Parquet."""
        targets = {view.name: self.folder / f"{view.name}.parquet" for view in views}
        read_views(views, [self.data / "Observation.ndjson"]).sink_parquet(targets)

    def redaction(self) -> Result:
        """Compare view and redaction in one plan with the view alone."""
        view = compile_view(self.catalog.load("views", VIEW))
        file = self.data / "Observation.ndjson"
        size = file.stat().st_size / MEGABYTE
        plan = plan_redaction(
            VIEW, classify_columns(view.columns), load_policy(self.catalog, "shifted_dates")
        )
        key = ProjectKey.from_text(secrets.token_hex(32))
        target = self.folder / "redacted.parquet"

        def both() -> None:
            read_views([view], [file]).execute(
                lambda frames: [
                    redact(frames[VIEW], plan, key, as_of=date(2026, 11, 1), ages=NO_AGES).sink_parquet(
                        target, lazy=True
                    )
                ]
            )

        alone = self.best(
            lambda: read_views([view], [file]).sink_parquet({VIEW: self.folder / "view.parquet"})
        )
        return Result(
            "the same with redaction", size / self.best(both), "MB/s", "without redaction", size / alone
        )

    def leak_scan(self) -> Result:
        """Compare the leak scan of a redacted table with a bare search for one text in its text columns."""
        view = compile_view(self.catalog.load("views", VIEW))
        plan = plan_redaction(
            VIEW, classify_columns(view.columns), load_policy(self.catalog, "shifted_dates")
        )
        files = sorted(self.data.glob("*.ndjson"))
        facts = pl.concat(collect_facts(file.stem, [str(file)]) for file in files)
        common, patterns = load_common_words(self.catalog), load_patterns(self.catalog)
        # Several times the table: the terms are made once, whatever they are searched in.
        table = pl.concat([pl.scan_parquet(self.folder / "redacted.parquet")] * 8)
        size = table.collect().estimated_size() / MEGABYTE

        def scan() -> None:
            gate = LeakScan(facts, common=common, patterns=patterns, as_of_year=2026)
            gate.add_table(VIEW, table, plan)
            gate.finish()

        def search() -> None:
            found = pl.col(pl.String).str.contains_any(["nobody's name"]).any()
            table.select(found).collect(engine="streaming")

        return Result(
            f"leak scan, {facts.height:,} identifiers, {size:.0f} MB",
            size / self.best(scan),
            "MB/s",
            "contains_any of one text",
            size / self.best(search),
        )

    def mapping(self) -> Result:
        """Compare mapping SNOMED CT to ICD-10-CM with a plain join on two columns."""
        rows = 5_000_000
        mapping = CodeMapping(maps=("snomed_to_icd10cm",), prefix="icd10cm")
        concept_map = load_concept_map(self.catalog, "snomed_to_icd10cm")
        entries = concept_map.to_frame()
        code, system = (
            next(name for name in entries.columns if name.startswith("source") and part in name)
            for part in ("code", "system")
        )
        keys = entries.select(pl.col(system).alias("code_system"), pl.col(code).alias("code")).unique(
            maintain_order=True
        )
        pairs = keys.sample(rows, with_replacement=True, seed=1)
        targets = (
            entries.unique([system, code], maintain_order=True)
            .rename({system: "code_system", code: "code"})
            .lazy()
        )

        def join() -> None:
            pairs.lazy().join(targets, on=["code_system", "code"], how="left").sink_parquet(
                self.folder / "joined.parquet"
            )

        ours = self.best(
            lambda: map_codes(pairs.lazy(), mapping, [concept_map]).sink_parquet(
                self.folder / "mapped.parquet"
            )
        )
        millions = rows / 1e6
        return Result(
            "map, 5 million rows",
            millions / ours,
            "M rows/s",
            "a two-column join",
            millions / self.best(join),
        )

    def landing(self) -> Result:
        """Compare an atomic landing with writing one Parquet file."""
        table = pl.scan_parquet(self.folder / "redacted.parquet")
        rows = int(table.select(pl.len()).collect().item())
        store = open_store(str(self.folder / "lake"), EnvDeployment({}))
        times = iter(range(1_000))

        def land() -> None:
            moment = datetime.fromtimestamp(1_800_000_000 + next(times), UTC)
            landing = Landing(
                "observation", "observation", "bench", "2026-11-01", moment, content=str(moment)
            )
            land_dataset(table, landing, store)

        ours = self.best(land)
        plain = self.best(lambda: table.sink_parquet(self.folder / "plain.parquet"))
        millions = rows / 1e6
        return Result(
            f"land, {rows:,} rows", millions / ours, "M rows/s", "one Parquet file", millions / plain
        )

    def best(self, work: Callable[[], object]) -> float:
        """Return the least seconds of several repetitions."""
        spent = []
        for _ in range(self.repeat):
            start = time.perf_counter()
            work()
            spent.append(time.perf_counter() - start)
        return min(spent)


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=3000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, stderr.status("measuring"):
        results = Bench(Path(folder), options.patients, options.repeat).run()
    if options.json:
        print_json([{**dataclasses.asdict(result), "ratio": round(result.ratio, 2)} for result in results])
        return 0
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, Polars {pl.__version__}"
    print_table(
        f"{machine}, best of {options.repeat}",
        ["what", "rate", "unit", "beside", "its rate", "ratio"],
        [
            (r.name, round(r.rate, 1), r.unit, r.reference, round(r.reference_rate, 1), round(r.ratio, 2))
            for r in results
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
