"""cohortflow terminology coverage: what maps do to the codes of a release, a table or NDJSON files."""

from __future__ import annotations

import json as json_format
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stderr
from cohortflow.cli.terminology_options import JsonOption, StoreOption, open_store_option
from cohortflow.cohort.attrition import SMALL_CELL
from cohortflow.errors import InputError
from cohortflow.model import Catalog, EnvDeployment
from cohortflow.terminology.coverage import Coverage, Tally, hide_rare_codes

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.lake import TerminologyStore
    from cohortflow.terminology.map_table import CodeMap

__all__ = ["coverage", "write_private"]

_TABLES = (".parquet", ".csv")
_KNOWN = "known"
"""Prefix of the mapping where codes are only looked up among the loaded terminologies."""


def coverage(  # noqa: PLR0913, PLR0917 - the options of the command
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="With --view: NDJSON files, patterns, or folders that hold them. Otherwise one table: "
            ".parquet, .csv, or the folder of a Delta table.",
        ),
    ] = None,
    view: Annotated[
        list[str] | None, typer.Option("--view", help="View of the catalog to read; several are allowed.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="A map of the catalog, 'terminology:NAME[|VERSION]' of what is loaded, or 'A > B'; as "
            "VIEW=MAP for one view. Of several, the first with a target counts. Without one, codes are "
            "looked up among the loaded terminologies.",
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="Report a release of this study, in place of an input.")] = "",
    env: Annotated[
        str, typer.Option("--env", help="Of the study; COHORTFLOW_ENVIRONMENT or dev by default.")
    ] = "",
    interval: Annotated[str, typer.Option(help="Interval of the release; the last by default.")] = "",
    code: Annotated[str, typer.Option(help="Column with the code.")] = "code",
    system: Annotated[str, typer.Option(help="Column with the code system.")] = "code_system",
    display: Annotated[str, typer.Option(help="Column with its name, if there is one.")] = "code_display",
    rows: Annotated[
        str, typer.Option(help="Column with a number of rows, where a row stands for many.")
    ] = "",
    top: Annotated[int, typer.Option(min=0, help="Most unmapped codes to list; --all-codes lists all.")] = 20,
    all_codes: Annotated[
        bool,
        typer.Option(
            "--all-codes",
            help="Also name rare codes and those of the hospital's own systems, with their displays, as "
            "'suggest' needs them. They may be text of a record: keep the output like the input.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the report, JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for the report as a page.")] = None,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Count mapped, unmapped, ambiguous and retired codes, and list the top misses."""
    if bool(study) == bool(inputs):
        raise InputError(
            "Name either inputs or --study.", remedy="See 'cohortflow terminology coverage --help'."
        )
    if study:
        if all_codes:
            raise InputError(
                "A release does not hold what --all-codes shows.",
                remedy="Measure the export itself: name its files and --view.",
            )
        title, found = _read_release(study, env, interval)
    else:
        title = "; ".join(inputs or ())
        columns = {"code": code, "system": system, "display": display, "rows": rows}
        tallies = _read_inputs(inputs or [], view or [], columns)
        terminologies = open_store_option(store)
        found = {
            name: [
                _measure(
                    tally, _maps_of(name, maps or [], list(tallies)), terminologies, top, all_codes=all_codes
                )
            ]
            for name, tally in tallies.items()
        }
    document = {
        "all_codes": all_codes,
        "coverage": {
            name: {measured.prefix: measured.to_dict() for measured in parts} for name, parts in found.items()
        },
    }
    if out:
        write_private(out, json_format.dumps(document, indent=1) + "\n")
    if html:
        from cohortflow.terminology import render_coverage_page

        write_private(html, render_coverage_page(title, found, all_codes=all_codes))
    if json:
        print_json(document)
    else:
        _print_coverage(found)


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner alone; it appears when it is complete.

    Raises:
        InputError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(text)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"The file cannot be written: {error.strerror}.", place=str(path), remedy="Name another one."
        ) from None


def _read_release(study: str, env: str, interval: str) -> tuple[str, dict[str, list[Coverage]]]:
    from cohortflow.workflow.environment import load_environment, name_environment
    from cohortflow.workflow.run import open_zone
    from cohortflow.workflow.steps.release import list_releases, read_release

    environment = load_environment(env or name_environment(), Catalog.default())
    datasets = open_zone(f"{environment.zones.datasets}/{study}", EnvDeployment())
    released = list_releases(datasets)
    if not released:
        raise InputError(
            f"'{study}' has released nothing here.",
            place=datasets.uri,
            remedy="Check its name, and the environment (--env).",
        )
    document = read_release(datasets, interval or released[-1])
    parts = {
        name: [Coverage.from_dict(value) for value in prefixes.values()]
        for name, prefixes in document["coverage"].items()
    }
    return f"{document['title']}, {document['interval']['key']}", parts


def _read_inputs(
    inputs: Sequence[str], views: Sequence[str], columns: Mapping[str, str]
) -> dict[str, pl.DataFrame]:
    """Return the codes of each input with their numbers of rows."""
    if views:
        return _read_views(inputs, views, columns)
    if len(inputs) > 1 or not _is_table(inputs[0]):
        raise InputError(
            "The input is no table.",
            place=inputs[0],
            remedy=f"Name one {', '.join(_TABLES)} or Delta table, or --view with NDJSON files.",
        )
    frame = _scan(inputs[0])
    return {Path(inputs[0]).stem: _count(frame, columns, inputs[0]).collect(engine="streaming")}


def _read_views(
    inputs: Sequence[str], views: Sequence[str], columns: Mapping[str, str]
) -> dict[str, pl.DataFrame]:
    from cohortflow.fhir.ndjson import read_views
    from cohortflow.fhir.sources import find_ndjson
    from cohortflow.fhir.views import compile_view

    catalog = Catalog.default()
    compiled = [compile_view(catalog.load("views", name)) for name in dict.fromkeys(views)]
    found: dict[str, pl.DataFrame] = {}
    malformed = 0
    for resource in dict.fromkeys(one.resource for one in compiled):
        named = [one for one in compiled if one.resource == resource]
        read = read_views(named, find_ndjson(inputs, resource))
        tallies, bad = read.execute(partial(_count_views, [one.name for one in named], columns))
        malformed += bad.height
        found |= {one.name: tally for one, tally in zip(named, tallies, strict=True)}
    if malformed:
        stderr.print(f"[yellow]{malformed:,} malformed lines were left out[/]")
    return {name: found[name] for name in dict.fromkeys(one.name for one in compiled)}


def _count_views(
    names: Sequence[str], columns: Mapping[str, str], frames: Mapping[str, pl.LazyFrame]
) -> list[pl.LazyFrame]:
    return [_count(frames[name], columns, name) for name in names]


def _is_table(text: str) -> bool:
    return Path(text).suffix in _TABLES or (Path(text) / "_delta_log").is_dir()


def _scan(text: str) -> pl.LazyFrame:
    import polars as pl

    path = Path(text)
    if not path.exists():
        raise InputError("There is no such table.", place=text, remedy="Name one that is there.")
    if path.suffix == ".parquet":
        return pl.scan_parquet(path, glob=False)
    if path.suffix == ".csv":
        # Every cell is text: a code is never a number, and NA is a code.
        return pl.scan_csv(path, glob=False, infer_schema=False)
    return pl.scan_delta(text)


def _count(frame: pl.LazyFrame, columns: Mapping[str, str], place: str) -> pl.LazyFrame:
    import polars as pl

    from cohortflow.terminology.coverage_measure import count_codes

    known = frame.collect_schema().names()
    for option in ("code", "system", "rows"):
        if columns[option] and columns[option] not in known:
            raise InputError(
                f"There is no column '{columns[option]}'.",
                place=place,
                remedy=f"Name it with --{option}; there are: {', '.join(known)}.",
            )
    rows = columns["rows"]
    if rows:
        frame = frame.with_columns(pl.col(rows).cast(pl.Int64))
    display = columns["display"] if columns["display"] in known else None
    return count_codes(
        frame, code=columns["code"], system=columns["system"], display=display, rows=rows or None
    )


def _maps_of(view: str, maps: Sequence[str], views: Sequence[str]) -> list[str]:
    """Return the maps that the option names for a view."""
    named = [text.partition("=") for text in maps]
    for before, mark, _ in named:
        if mark and before.isidentifier() and before not in views:
            raise InputError(
                f"A map is named for '{before}', which is none of the inputs: {', '.join(views)}.",
                remedy="Write --map VIEW=MAP with a view that is read.",
            )
    split = [
        (before, after) if mark and before in views else ("", before + mark + after)
        for before, mark, after in named
    ]
    return [name for of, name in split if of in {"", view}]


def _measure(
    tally: pl.DataFrame, names: Sequence[str], terminologies: TerminologyStore, top: int, *, all_codes: bool
) -> Coverage:
    from cohortflow.terminology import CodeMapping, map_codes, measure_coverage
    from cohortflow.terminology.normalize import spell
    from cohortflow.workflow.code_maps import load_code_map, load_concepts
    from cohortflow.workflow.local_codes import loaded_codes

    maps: Sequence[CodeMap]
    if names:
        maps = [load_code_map(Catalog.default(), name, lambda: terminologies) for name in names]
    else:
        spelled = spell(tally.select(system="code_system", code="code"))
        maps = loaded_codes(terminologies, spelled["system"].drop_nulls())
    mapping = CodeMapping(maps=tuple(one.name for one in maps), prefix=_name_mapping(names))
    measured = measure_coverage(
        map_codes(tally.lazy(), mapping, maps),
        mapping,
        maps,
        concepts=load_concepts(maps, lambda: terminologies),
        rows="rows",
        display="code_display" if all_codes else None,
        top=None if all_codes else top,
        all_codes=all_codes,
    )
    return measured if all_codes else hide_rare_codes(measured, SMALL_CELL)


def _name_mapping(names: Sequence[str]) -> str:
    """Return the name of a mapping by certain maps: that of the first, as a prefix of columns may be."""
    if not names:
        return _KNOWN
    name = re.sub(r"[^a-z0-9]+", "_", names[0].partition("|")[0].lower()).strip("_")
    return name if name[:1].isalpha() else f"map_{name}"


def _print_coverage(found: Mapping[str, Sequence[Coverage]]) -> None:
    parts = [(name, measured) for name, maps in found.items() for measured in maps]
    print_table(
        "Mapping coverage: rows (codes)",
        ["dataset", "map", "rows with a code", "mapped", "share", "unmapped", "ambiguous", "retired"],
        [
            (
                name,
                ", ".join(measured.versions or measured.maps),
                measured.rows_with_code,
                _tally(measured.mapped),
                "-" if measured.share is None else f"{measured.share:.1%}",
                *(_tally(tally) for tally in (measured.unmapped, measured.ambiguous, measured.retired)),
            )
            for name, measured in parts
        ],
    )
    systems: list[tuple[Any, ...]] = [
        (
            name,
            total.system,
            total.rows,
            total.codes,
            *(_tally(tally) for tally in (total.mapped, total.unmapped, total.ambiguous, total.retired)),
        )
        for name, measured in parts
        for total in measured.totals
    ]
    print_table(
        "By code system: rows (codes)",
        ["dataset", "code system", "rows", "codes", "mapped", "unmapped", "ambiguous", "retired"],
        systems,
    )
    misses = [
        (name, code.code, code.display or "", code.system, code.reason, code.rows)
        for name, measured in parts
        for code in measured.top_unmapped
    ]
    if misses:
        columns = ["dataset", "code", "display", "system", "reason", "rows"]
        print_table("Unmapped codes of most rows", columns, misses)


def _tally(tally: Tally | None) -> str:
    return "not known" if tally is None else f"{tally.rows:,} ({tally.codes:,})"
