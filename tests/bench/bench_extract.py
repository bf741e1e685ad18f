"""Throughput and memory of an export: download and land, beside curl in parallel in the same run.

Usage: ``python tests/bench/bench_extract.py --gigabytes 2 --json result.json``. The files come from the
sandbox EHR on loopback, uncompressed, and go into a folder and into a real S3 store. curl fetches the same
URLs in as many processes as the connector has downloads; for S3 each file is then sent on by curl, too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from stack import ProcessGroup, S3Server, start_s3

from cohortflow.cli.console import print_json, print_table, stderr
from cohortflow.connectors import (
    BulkExport,
    ExportRequest,
    FhirSource,
    InProgress,
    connect,
    download_all,
    ensure_started,
    poll_once,
)
from cohortflow.lake import RawExport, open_store, prepare_lake
from cohortflow.model import EnvDeployment
from cohortflow.sandbox import SandboxConfig, running_sandbox

MEGABYTE = 1_000_000
TYPES = ("Condition", "Observation", "Procedure", "Immunization")
PARALLEL = 4
LAKE = "AIRFLOW_CONN_COHORTFLOW_LAKE"


@dataclasses.dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        target: Where the files went.
        megabytes: How much.
        seconds: How long the connector took, best of the repetitions.
        curl_seconds: How long curl took.
        peak_megabytes: Most memory that the connector's process held.
    """

    target: str
    megabytes: float
    seconds: float
    curl_seconds: float
    peak_megabytes: float

    @property
    def ratio(self) -> float:
        """Our rate as a share of curl's."""
        return self.curl_seconds / self.seconds


def make_data(folder: Path, size: int) -> None:
    """Write about so many bytes of NDJSON with distinct ids."""
    folder.mkdir(parents=True)
    for kind in TYPES:
        text = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam nonumy eirmod. " * 12
        line = json.dumps(
            {
                "resourceType": kind,
                "id": "#",
                "meta": {"lastUpdated": "2026-01-01T00:00:00Z"},
                "text": {"status": "generated", "div": text},
                "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
                "subject": {"reference": "Patient/#"},
            }
        )
        with (folder / f"{kind}.ndjson").open("w", encoding="ascii") as file:
            for number in range(size // len(TYPES) // len(line)):
                file.write(line.replace("#", f"{number:09d}") + "\n")


def serve(data: Path, ready: Path) -> None:
    """Serve the data until the process is stopped."""
    config = SandboxConfig(data=data, open=True, export_seconds=0, gzip_files=False, retry_after=0)
    with running_sandbox(config) as sandbox:
        ready.with_suffix(".new").write_text(sandbox.base_url)
        ready.with_suffix(".new").replace(ready)
        time.sleep(1e6)


def extract(base_url: str, lake: str) -> None:
    """Run one export and print what it took as JSON."""
    source = FhirSource("bench", base_url, concurrency=PARALLEL)
    sink = RawExport(open_store(lake, EnvDeployment(os.environ)), "bench")

    async def run() -> tuple[int, float]:
        async with connect(source) as client:
            bulk = BulkExport(client)
            await ensure_started(bulk, ExportRequest(types=TYPES), sink)
            while isinstance(answer := await poll_once(bulk, sink), InProgress):
                await client.clock.sleep(answer.retry_after)
            # The server's part is over.
            start = time.perf_counter()
            result = await download_all(bulk, sink)
            return result.bytes, time.perf_counter() - start

    size, seconds = asyncio.run(run())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    value = {"seconds": seconds, "bytes": size, "peak": usage.ru_maxrss * 1024}
    print(json.dumps(value | {"cpu": usage.ru_utime + usage.ru_stime}))  # noqa: T201


class Bench:
    """Runs the comparisons in a folder of its own."""

    def __init__(self, folder: Path, base_url: str, s3: S3Server, repeat: int) -> None:
        self.folder = folder
        self.base_url = base_url
        self.s3 = s3
        self.repeat = repeat

    def compare(self, target: str) -> Result:
        """Measure both in turn, so that neither has the quieter machine."""
        ours, curls, peaks = [], [], []
        size = 0
        for number in range(self.repeat):
            lake = str(self.folder / f"lake{number}") if target == "folder" else f"s3://bench/{number}"
            value = self.run_connector(lake)
            ours.append(value["seconds"])
            peaks.append(value["peak"] / MEGABYTE)
            size = int(value["bytes"])
            curls.append(self.run_curl(to_s3=target == "s3"))
            shutil.rmtree(self.folder / f"lake{number}", ignore_errors=True)
        return Result(target, size / MEGABYTE, min(ours), min(curls), max(peaks))

    def run_connector(self, lake: str) -> dict[str, float]:
        """Run the connector in a process of its own."""
        process = subprocess.run(  # our own file
            [sys.executable, __file__, "--extract", self.base_url, lake],
            env={**os.environ, LAKE: self.s3.connection()},
            check=True,
            capture_output=True,
        )
        value: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
        return value

    def run_curl(self, *, to_s3: bool) -> float:
        """Return the seconds of curl for the same export, its waiting time left out."""
        target = self.folder / "curl"
        target.mkdir()
        urls = self.export_urls()
        with ThreadPoolExecutor(PARALLEL) as pool:
            start = time.perf_counter()
            list(pool.map(lambda item: self._curl(item[1], target / str(item[0]), to_s3), enumerate(urls)))
            seconds = time.perf_counter() - start
        shutil.rmtree(target)
        return seconds

    def _curl(self, url: str, path: Path, to_s3: bool) -> None:
        command = f"curl -sSf -o {shlex.quote(str(path))} {shlex.quote(url)}"
        if to_s3:
            user = shlex.quote(f"{self.s3.login}:{self.s3.password}")
            command += (
                f" && curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user {user} "
                f"-H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T {shlex.quote(str(path))} "
                f"{self.s3.endpoint}/bench/curl/{path.name}"
            )
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)

    def export_urls(self) -> list[str]:
        """Start an export by hand and return the URLs of its files."""
        url = f"{self.base_url}/$export?_type={','.join(TYPES)}"
        headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            status = answer.headers["Content-Location"]
        while True:
            with urllib.request.urlopen(status) as answer:
                if answer.status == 200:
                    return [item["url"] for item in json.load(answer)["output"]]
            time.sleep(0.2)


def run(gigabytes: float, repeat: int, targets: list[str]) -> list[Result]:
    """Start the servers, make the data, and compare."""
    with tempfile.TemporaryDirectory() as name, ProcessGroup(Path(name) / "log") as group:
        folder = Path(name)
        make_data(folder / "data", int(gigabytes * 1e9))
        ready = folder / "ready"
        group.start("sandbox", [sys.executable, __file__, "--serve", str(folder / "data"), str(ready)])
        s3 = start_s3(group, folder / "s3")
        prepare_lake("s3://bench", EnvDeployment({LAKE: s3.connection()}))
        while not ready.exists():
            time.sleep(0.2)
        bench = Bench(folder, ready.read_text(), s3, repeat)
        return [bench.compare(target) for target in targets]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--target", choices=["folder", "s3"], action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--extract", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(Path(arguments.serve[0]), Path(arguments.serve[1]))
        return
    if arguments.extract:
        extract(*arguments.extract)
        return
    results = run(arguments.gigabytes, arguments.repeat, arguments.target or ["folder", "s3"])
    stderr.print(f"{os.cpu_count()} cores, {platform.platform()}")
    rows = [
        (
            item.target,
            f"{item.megabytes:,.0f}",
            f"{item.megabytes / item.seconds:,.0f}",
            f"{item.megabytes / item.curl_seconds:,.0f}",
            f"{item.ratio:.0%}",
            f"{item.peak_megabytes:,.0f}",
        )
        for item in results
    ]
    print_table("Export", ["to", "MB", "MB/s", "curl, MB/s", "ratio", "peak, MB"], rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(item) for item in results], indent=1))
    else:
        print_json([dataclasses.asdict(item) | {"ratio": item.ratio} for item in results])


if __name__ == "__main__":
    main()
