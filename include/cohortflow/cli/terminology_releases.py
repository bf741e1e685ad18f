"""cohortflow terminology load, list and lookup: what is there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortflow.cli.console import BarProgress, print_json, print_table
from cohortflow.cli.terminology_options import (
    JsonOption,
    StoreOption,
    SystemArgument,
    VersionOption,
    open_store_option,
)
from cohortflow.errors import InputError
from cohortflow.terminology.loaders import LOADERS
from cohortflow.terminology.systems import canonical_code, canonical_system

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.lake import StoredRelease

__all__ = ["list_releases", "load", "lookup"]

_GROUP = 10
"""Of more terminologies from one file, such as a package of FHIR, people see their number."""


def load(
    format_: Annotated[
        str, typer.Argument(metavar="FORMAT", help=f"Format of the files: {', '.join(LOADERS)}.")
    ],
    path: Annotated[
        str, typer.Argument(help="The distributor's file or folder; '-' reads a file from the input.")
    ] = "",
    version: Annotated[
        str, typer.Option("--version", help="Name of the version, where the files do not tell it.")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other content of the same version.")
    ] = False,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Load a distributor's files: all of them, or nothing."""
    loader = LOADERS.get(format_)
    if loader is None:
        raise InputError(f"No format is named '{format_}'.", remedy=f"Use one of: {', '.join(LOADERS)}.")
    if not path and format_ != "shipped":
        raise InputError("No file is named.", remedy=f"{format_} reads: {loader.reads}.")
    terminologies = open_store_option(store)
    with tempfile.TemporaryDirectory() as scratch, BarProgress() as progress:
        progress.update(f"read {format_}", 0)
        releases = loader(_read_input(Path(scratch)) if path == "-" else Path(path), version=version or None)
        stored = terminologies.load_all(releases, replace=replace, progress=progress)
    _print_releases("Loaded", stored, json=json)


def list_releases(
    system: Annotated[str, typer.Argument(help="Only this code system.")] = "",
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """List what is loaded, with the licences; --json has all of it, with the digests."""
    releases = open_store_option(store).releases()
    if system:
        releases = tuple(release for release in releases if release.system == canonical_system(system))
    _print_releases("Terminologies", releases, json=json)


def lookup(
    system: SystemArgument,
    code: Annotated[str, typer.Argument(help="A code, in any spelling.")],
    version: VersionOption = "",
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Show a concept: its names, its place in the hierarchy, its attributes."""
    terminologies = open_store_option(store)
    release = terminologies.release(system, version or None)
    tables = terminologies.tables(release.system, release.version)
    found = _look_up(tables, canonical_code(release.system, code), release)
    if json:
        print_json(found)
        return
    print_table(
        f"{found['code']} {found['display']}",
        ["", ""],
        [
            (name.replace("_", " "), line)
            for name, value in found.items()
            for line in _lines(value if isinstance(value, list) else [value])
        ],
    )


def _read_input(folder: Path) -> Path:
    """Write the standard input to a file, as loaders may read theirs more than once."""
    file = folder / "input"
    with file.open("wb") as target:
        shutil.copyfileobj(sys.stdin.buffer, target)
    return file


def _look_up(tables: Mapping[str, pl.LazyFrame], code: str, release: StoredRelease) -> dict[str, Any]:
    import polars as pl

    if "concepts" not in tables:
        raise InputError(f"{release.system} has no concepts.", remedy="Look codes of a code system up.")
    found = tables["concepts"].filter(pl.col("code") == code).collect().to_dicts()
    if not found:
        raise InputError(
            f"{release.title} {release.version} has no code '{code}'.",
            remedy="Check the code, or name another version.",
        )
    concept: dict[str, Any] = found[0]
    for name, table, key, columns in (
        ("synonyms", "synonyms", "code", ["term", "kind"]),
        ("parents", "edges", "child", ["parent"]),
        ("children", "edges", "parent", ["child"]),
        ("attributes", "attributes", "code", ["attribute", "value"]),
    ):
        if table in tables:
            rows = tables[table].filter(pl.col(key) == code).select(columns).sort(columns).collect()
            concept[name] = rows.to_dicts() if len(columns) > 1 else rows.to_series().to_list()
    return concept


def _lines(values: list[Any]) -> list[str]:
    """Return values as text: a synonym or attribute after its kind, and nothing for what is not known."""
    lines = []
    for value in values:
        if isinstance(value, dict):
            lines.append(": ".join(reversed(value.values()) if "term" in value else value.values()))
        elif isinstance(value, bool):
            lines.append("yes" if value else "no")
        elif value is not None:
            lines.append(str(value))
    return lines


def _print_releases(title: str, releases: tuple[StoredRelease, ...], *, json: bool) -> None:
    if json:
        print_json([release.to_dict() for release in releases])
        return
    groups: dict[tuple[str, ...], list[StoredRelease]] = {}
    for release in releases:
        groups.setdefault(release.source, []).append(release)
    rows = []
    for source, group in groups.items():
        if len(group) > _GROUP:
            name = f"{len(group):,} terminologies of {', '.join(source)}"
            rows.append((name, "", *_count(group), _moment(max(release.loaded_at for release in group))))
        else:
            rows += [
                (release.title, release.version, *_count([release]), _moment(release.loaded_at))
                for release in group
            ]
    print_table(title, ["terminology", "version", "concepts", "mappings", "loaded"], rows)
    licences: dict[str, list[str]] = {}
    for release in releases:
        licences.setdefault(release.licence, []).append(release.title)
    if licences:
        print_table("Licences", ["of", "licence"], [(_name(of), text) for text, of in licences.items()])


def _count(releases: list[StoredRelease]) -> tuple[int, int]:
    """Return the number of concepts and of mappings."""
    return (
        sum(release.concepts for release in releases),
        sum(release.tables["maps"].rows for release in releases if "maps" in release.tables),
    )


def _moment(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%MZ}"


def _name(titles: list[str]) -> str:
    """Return a few names, and how many more there are."""
    names = sorted(set(titles))
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"  # noqa: PLR2004 - as above
