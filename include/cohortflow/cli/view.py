"""cohortflow view: run, explain and check SQL-on-FHIR views."""

from __future__ import annotations

import json as json_format
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cohortflow.cli.console import BarProgress, print_json, print_table, stderr, stdout
from cohortflow.errors import CohortflowError, InputError, ViewError
from cohortflow.fhir.sources import find_ndjson
from cohortflow.fhir.views import analyze_view
from cohortflow.model import ZSTD_LEVEL, Catalog

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.fhir.views import CompiledView

__all__ = ["app"]

app = typer.Typer(help="Run, explain and check SQL-on-FHIR views.", no_args_is_help=True)

ViewArgument = Annotated[str, typer.Argument(help="Name of a view of the catalog, or its file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_FORMATS = (".parquet", ".csv", ".ndjson")
_MEGA = 1_000_000


@app.command()
def run(
    view: ViewArgument,
    inputs: Annotated[list[str], typer.Argument(help="NDJSON files, patterns, or folders that hold them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .parquet, .csv or .ndjson.")],
    malformed: Annotated[
        Path | None, typer.Option(help="File for the list of malformed lines: .parquet, .csv or .ndjson.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a view over NDJSON files to a table; malformed lines are left out and counted."""
    for target in (out, *([malformed] if malformed else [])):
        _check_target(target)
    from cohortflow.fhir.views import compile_view

    compiled = compile_view(_load(view))
    lists = [column.name for column in compiled.columns if column.collection]
    if out.suffix == ".csv" and lists:
        raise InputError(
            f"CSV cannot hold the lists of {', '.join(lists)}.",
            remedy="Write .parquet or .ndjson, or join() the values in the view.",
            place=str(out),
        )
    files = find_ndjson(inputs, compiled.resource)
    bad = _write(compiled, files, out)
    if malformed:
        _write_table(bad.lazy(), malformed)
    rows = _count_rows(out)
    if json:
        print_json(
            {"view": compiled.name, "files": files, "out": str(out), "rows": rows, "malformed": bad.height}
        )
        return
    stdout.print(
        f"[green]{escape(str(out))}[/] {rows:,} rows of {compiled.name} from {len(files)} files",
        highlight=False,
        soft_wrap=True,
    )
    if bad.height:
        shown = escape(str(malformed)) if malformed else "--malformed FILE lists them"
        stdout.print(f"[yellow]{bad.height:,} malformed lines were left out[/] ({shown})", soft_wrap=True)
        reasons = bad["reason"].value_counts(sort=True).rows()
        print_table("Malformed lines", ["reason", "lines"], reasons)


@app.command()
def explain(view: ViewArgument, json: JsonOption = False) -> None:
    """Show what a view yields, where each column comes from, what it reads, and its plan."""
    import polars as pl

    from cohortflow.fhir.views import compile_view

    compiled = compile_view(_load(view))
    plan = compiled.lazy(pl.LazyFrame(schema=compiled.read_schema)).explain()
    reads = {name: str(dtype) for name, dtype in compiled.read_schema.items()}
    if json:
        columns = [
            {
                "name": column.name,
                "type": str(compiled.schema[column.name]),
                "paths": column.paths,
                "tags": dict(column.tags),
                "description": column.description,
            }
            for column in compiled.columns
        ]
        document = {"view": compiled.name, "resource": compiled.resource, "columns": columns}
        print_json({**document, "reads": reads, "plan": plan})
        return
    print_table(
        f"{compiled.name}: columns, from {compiled.resource}",
        ["column", "type", "element paths", "tags"],
        [
            (
                column.name,
                str(compiled.schema[column.name]),
                escape("\n".join(column.paths)),
                escape(", ".join(f"{name}={value}" for name, value in column.tags.items())),
            )
            for column in compiled.columns
        ],
    )
    print_table("Read of each resource", ["key", "type"], list(reads.items()))
    stdout.print("[bold]Plan[/]")
    stdout.print(plan, markup=False, highlight=False, soft_wrap=True)


@app.command()
def lint(
    views: Annotated[
        list[str] | None, typer.Argument(help="Views, by name or file; those of the catalog by default.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Compile views and say what is wrong with them."""
    results = []
    for name in views or Catalog.default().names("views"):
        try:
            analyzed = analyze_view(_load(name))
        except CohortflowError as error:
            found = {"message": error.message, "place": error.place, "remedy": error.remedy}
            results.append({"view": name, "ok": False, "error": found})
            if not json:
                stderr.print(
                    f"[bold red]{escape(name)}[/] {escape(str(error))}", highlight=False, soft_wrap=True
                )
        else:
            results.append({"view": name, "ok": True, "columns": len(analyzed.columns)})
            if not json:
                stdout.print(f"[green]{escape(name)}[/] ok", soft_wrap=True)
    if json:
        print_json(results)
    return 0 if all(result["ok"] for result in results) else 2


@app.command()
def conformance(
    tests: Annotated[Path, typer.Argument(metavar="TESTS_DIR", help="Folder of the official test files.")],
    report: Annotated[Path | None, typer.Option(help="File for the report, JSON.")] = None,
    json: JsonOption = False,
) -> int:
    """Run the official tests of SQL-on-FHIR; exit code 1 if one failed."""
    from cohortflow.fhir.conformance import run_suites

    found = run_suites(tests)
    if report:
        _make_folder(report)
        report.write_text(json_format.dumps(found, indent=1) + "\n", encoding="utf-8")
    if json:
        print_json(found)
    counts = {file: _count_passed(suite["tests"]) for file, suite in found.items()}
    failures = [
        (file, test["name"], test["result"]["reason"])
        for file, suite in found.items()
        for test in suite["tests"]
        if not test["result"]["passed"]
    ]
    if not json:
        print_table(
            "Conformance", ["file", "passed", "of"], [(file, *count) for file, count in counts.items()]
        )
        for file, name, reason in failures:
            text = f"[bold red]{escape(file)}[/] {escape(name)}: {escape(reason)}"
            stderr.print(text, highlight=False, soft_wrap=True)
        passed, total = (sum(count) for count in zip(*counts.values(), strict=True))
        stdout.print(f"{passed} of {total} tests passed")
    return 1 if failures else 0


def _count_passed(tests: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    return sum(test["result"]["passed"] for test in tests), len(tests)


def _load(view: str) -> Mapping[str, Any]:
    """Read a view of the catalog, or of a file where the name looks like one."""
    path = Path(view)
    if path.suffix != ".json" and not path.is_file():
        return Catalog.default().load("views", view)
    try:
        document = json_format.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ViewError(
            f"The file cannot be read: {error.strerror}.", remedy="Name a file that is there.", place=view
        ) from None
    except ValueError as error:
        raise ViewError(f"Not JSON: {error}.", remedy="Mend the file.", place=view) from None
    if not isinstance(document, dict):
        raise ViewError("A ViewDefinition must be an object.", remedy="Mend the file.", place=view)
    return document


def _check_target(target: Path) -> None:
    if target.suffix not in _FORMATS:
        raise InputError(
            f"'{target.suffix}' is no format that can be written.",
            remedy=f"Name a file that ends in {', '.join(_FORMATS)}.",
            place=str(target),
        )
    _make_folder(target)


def _make_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder cannot be made: {error.strerror}.", remedy="Name another one.", place=str(target)
        ) from None


def _write(view: CompiledView, files: Sequence[str], out: Path) -> pl.DataFrame:
    """Write a view to a file that appears when it is complete; return the malformed lines."""
    from cohortflow.fhir.ndjson import read_views

    partial = out.with_name(f".{out.name}.partial")
    lock, done = threading.Lock(), 0
    total = _size(files)

    def build(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        nonlocal done
        done = 0  # the read may begin again
        return [_sink(frames[view.name], partial, out.suffix)]

    with BarProgress() as progress:

        def advance(size: int) -> None:
            nonlocal done
            with lock:
                shown = done // _MEGA
                done += size
                if done // _MEGA > shown:
                    progress.update(view.name, done // _MEGA, total, "MB")

        read = read_views([view], files, on_batch=advance)
        try:
            _, bad = read.execute(build)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    return bad


def _size(files: Sequence[str]) -> int | None:
    """Return the megabytes to read, if that is known beforehand."""
    paths = [Path(file) for file in files]
    if not all(path.is_file() and path.suffix != ".gz" for path in paths):
        return None
    return sum(path.stat().st_size for path in paths) // _MEGA


def _sink(frame: pl.LazyFrame, target: Path, suffix: str) -> pl.LazyFrame:
    if suffix == ".parquet":
        return frame.sink_parquet(target, compression_level=ZSTD_LEVEL, lazy=True)
    return frame.sink_csv(target, lazy=True) if suffix == ".csv" else frame.sink_ndjson(target, lazy=True)


def _write_table(frame: pl.LazyFrame, target: Path) -> None:
    _sink(frame, target, target.suffix).collect()


def _count_rows(table: Path) -> int:
    import polars as pl

    if table.suffix == ".parquet":
        frame = pl.scan_parquet(table, glob=False)
    elif table.suffix == ".csv":
        frame = pl.scan_csv(table, glob=False, infer_schema=False)
    else:
        frame = pl.scan_lines(table, glob=False)
    return int(frame.select(pl.len()).collect(engine="streaming").item())
