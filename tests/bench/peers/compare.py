"""Whole processes side by side: ten columns of Observation NDJSON to Parquet, by us and by others.

Every contender is started anew for each repetition, in turn, so that a drift of the machine meets all of
them. Others live in environments of their own below ``.cohortflow/bench`` and are never dependencies.
cumulus-etl has no views: it de-identifies the same file and writes NDJSON.

Usage: ``make bench-peers`` or ``python tests/bench/peers/compare.py --megabytes 480 --repeat 3``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

from cohortflow.cli.console import stderr, stdout

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
WORK = ROOT / ".cohortflow" / "bench"
VIEW = HERE / "observation.json"
MEGABYTE = 1_000_000
# Observations of one synthetic patient, about.
PATIENT_BYTES = 120_000


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the job.

    Attributes:
        name: For the table.
        command: Words of the command; ``{source}`` and ``{out}`` are put in.
        table: Whether it writes the ten columns as Parquet, to be compared with ours.
    """

    name: str
    command: tuple[str, ...]
    table: bool = True


@dataclasses.dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        seconds: Wall time.
        cpu: Processor seconds.
        peak: Largest resident set in bytes.
    """

    seconds: float
    cpu: float
    peak: int


def make_contenders() -> list[Contender]:
    """Make the environments and return the contenders, ours first."""
    ours = Path(sys.executable).parent / "cohortflow"
    view = str(VIEW)
    cumulus = ("etl", "{source_folder}", "{out}", "{out}.phi", "--task", "observation")
    options = (
        "--output-format=ndjson",
        "--export-group=bench",
        "--export-timestamp=2026-01-01",
        "--allow-missing-resources",
    )
    return [
        Contender("Cohortflow", (str(ours), "view", "run", view, "{source}", "--out", "{out}")),
        Contender(
            "Cohortflow, redacted",
            (sys.executable, str(HERE / "redact_view.py"), view, "{source}", "{out}"),
            False,
        ),
        Contender(
            "DuckDB, SQL by hand", (environment("duckdb"), str(HERE / "duckdb_sql.py"), "{source}", "{out}")
        ),
        Contender(
            "cumulus-etl",
            (str(Path(environment("cumulus-etl")).parent / "cumulus-etl"), *cumulus, *options),
            False,
        ),
        Contender(
            "fhir4ds-v2",
            (environment("fhir4ds"), str(HERE / "fhir4ds_view.py"), view, "{source}", "{out}"),
        ),
    ]


def environment(name: str) -> str:
    """Make an environment from its requirements unless it is there; return its Python."""
    folder = WORK / name
    python = folder / "bin" / "python"
    marker = folder / ".ready"
    wanted = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    if not marker.is_file() or marker.read_text(encoding="utf-8") != wanted:
        uv = str(ROOT / ".tools" / "bin" / "uv")
        subprocess.run([uv, "venv", "--quiet", "--allow-existing", "--python", "python3", folder], check=True)
        requirements = HERE / "requirements" / f"{name}.txt"
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", requirements], check=True)
        marker.write_text(wanted, encoding="utf-8")
    return str(python)


def make_data(megabytes: int) -> Path:
    """Make synthetic observations of about this size, once; return the file."""
    folder = WORK / f"data-{megabytes}"
    source = folder / "only" / "Observation.000.ndjson"
    if not source.is_file():
        patients = str(max(10, megabytes * MEGABYTE // PATIENT_BYTES))
        synth = [str(Path(sys.executable).parent / "cohortflow"), "synth", "--patients", patients]
        subprocess.run([*synth, "--out", folder / "all"], check=True, stdout=subprocess.DEVNULL)
        source.parent.mkdir(parents=True, exist_ok=True)
        (folder / "all" / "Observation.ndjson").rename(source)
        shutil.rmtree(folder / "all")
    return source


def run(contender: Contender, source: Path, out: Path) -> Run:
    """Run one process to its end and take its figures from the operating system.

    Raises:
        SystemExit: It failed; its messages are shown.
    """
    for path in (out, Path(f"{out}.phi")):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    names = {"source": source, "source_folder": source.parent, "out": out}
    command = [word.format(**names) for word in contender.command]
    log = WORK / "process.log"
    start = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{contender.name} failed:\n{log.read_text(errors='replace')[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def compare_tables(ours: Path, theirs: Path) -> str:
    """Say in which of the ten columns two results agree, row by row."""
    left, right = (pl.read_parquet(path) for path in (ours, theirs))
    if left.height != right.height:
        return f"{right.height:,} rows instead of {left.height:,}"
    order = ["code", "effective_at", "value_quantity", "status", "value_unit", "category_code"]
    left, right = (
        frame.with_columns(
            pl.col("^.*_id$").str.replace(r"^[A-Za-z]+/", "")  # fhir4ds keeps the type in keys
        ).sort("observation_id", *order)
        for frame in (left, right)
    )
    differing = [name for name in left.columns if not left[name].equals(right[name].cast(left[name].dtype))]
    return "differs in " + ", ".join(differing) if differing else "equal"


def measure(contenders: list[Contender], source: Path, repeat: int) -> dict[str, list[Run]]:
    """Run the contenders in turn and check their results against ours."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    outs = {
        contender.name: WORK / f"out-{number}{'.parquet' if contender.table else ''}"
        for number, contender in enumerate(contenders)
    }
    for repetition in range(repeat):
        for contender in contenders:
            result = run(contender, source, outs[contender.name])
            runs[contender.name].append(result)
            stderr.print(
                f"{repetition + 1}/{repeat} {contender.name}: {result.seconds:.2f} s", highlight=False
            )
    ours = outs[contenders[0].name]
    for contender in contenders[1:]:
        if contender.table:
            stderr.print(f"{contender.name}: {compare_tables(ours, outs[contender.name])}", highlight=False)
    return runs


def summarize(runs: dict[str, list[Run]], size: int) -> list[dict[str, float | str]]:
    """Return one row per contender: median figures, and our rate as a multiple of its rate.

    The multiple is the median of the repetitions' own ratios, each of runs that followed one another.
    """
    ours = next(iter(runs.values()))
    return [
        {
            "name": name,
            "seconds": round(statistics.median(item.seconds for item in taken), 2),
            "rate": round(size / MEGABYTE / statistics.median(item.seconds for item in taken), 1),
            "cpu": round(statistics.median(item.cpu for item in taken), 2),
            "peak": round(max(item.peak for item in taken) / MEGABYTE),
            "ratio": round(
                statistics.median(item.seconds / own.seconds for item, own in zip(taken, ours, strict=True)),
                2,
            ),
        }
        for name, taken in runs.items()
    ]


def write_table(rows: list[dict[str, float | str]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| contender | seconds | MB/s | CPU seconds | peak memory, MB | Cohortflow's rate is |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "-" if row["name"] == "Cohortflow" else f"{row['ratio']} x"
        lines.append(
            f"| {row['name']} | {row['seconds']} | {row['rate']} | {row['cpu']} | {row['peak']} | {ratio} |"
        )
    return "\n".join(lines)


def draw_chart(rows: list[dict[str, float | str]]) -> str:
    """Return a bar chart of the rates as SVG."""
    top = max(float(row["rate"]) for row in rows)
    bars = []
    for number, row in enumerate(rows):
        y, width = 44 + number * 36, max(1.0, 420 * float(row["rate"]) / top)
        colour = "#00695c" if number == 0 else "#90a4ae"
        bars.append(
            f'<text x="150" y="{y + 17}" text-anchor="end">{row["name"]}</text>'
            f'<rect x="160" y="{y}" width="{width:.0f}" height="24" fill="{colour}"/>'
            f'<text x="{168 + width:.0f}" y="{y + 17}">{row["rate"]:g}</text>'
        )
    height = 56 + 36 * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {height}" font-family="sans-serif"'
        ' font-size="14" role="img" aria-label="Megabytes per second, by contender">'
        f'<rect width="660" height="{height}" fill="#fff"/>'
        '<text x="160" y="26" font-weight="bold">Observation NDJSON to ten columns, MB/s</text>'
        + "".join(bars)
        + "</svg>\n"
    )


def measure_memory(source: Path, copies: int) -> Run:
    """Run our command once on the file under many names."""
    folder = WORK / "copies"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number in range(copies):
        os.link(source, folder / f"Observation.{number:03d}.ndjson")
    ours = Path(sys.executable).parent / "cohortflow"
    words = [str(ours), "view", "run", str(VIEW), *map(str, sorted(folder.iterdir())), "--out", "{out}"]
    return run(Contender("Cohortflow", tuple(words)), source, WORK / "out-copies.parquet")


def show(text: str) -> None:
    """Print as it is, to be copied into a page."""
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Compare, and print the table; files on demand."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=480, help="size of the input, about")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of contenders besides Cohortflow")
    parser.add_argument("--copies", type=int, default=9, help="inputs of the memory run; 0: none")
    parser.add_argument("--chart", type=Path, help="SVG file to write")
    parser.add_argument("--json", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    source = make_data(arguments.megabytes)
    contenders = [
        item
        for number, item in enumerate(make_contenders())
        if number == 0 or not arguments.only or item.name in arguments.only
    ]
    rows = summarize(measure(contenders, source, arguments.repeat), source.stat().st_size)
    show(f"{source.stat().st_size / MEGABYTE:.0f} MB, {os.cpu_count()} processors, {platform.platform()}\n")
    show(write_table(rows))
    if arguments.copies:
        taken = measure_memory(source, arguments.copies)
        size = source.stat().st_size * arguments.copies
        show(
            f"\n{size / 1e9:.1f} GB in {arguments.copies} files: {taken.seconds:.1f} s,"
            f" {size / MEGABYTE / taken.seconds:.0f} MB/s, peak {taken.peak / MEGABYTE:.0f} MB"
        )
    if arguments.chart:
        arguments.chart.write_text(draw_chart(rows), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
