"""Terminologies in object storage, one version beside another.

    <system>/<version>/manifest.json               what the release is, and its files
    <system>/<version>/<table>-<load>.parquet      one file for each table

A release exists from the moment its manifest does, which is written last and in one piece. Files that no
manifest names are what a load left that died; a load of the release a day later removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from cohortflow.errors import CohortflowError, InputError, LakeError, MalformedDataError
from cohortflow.lake.store import storage_errors
from cohortflow.lake.terminology_release import (
    StoredRelease,
    StoredTable,
    read_manifest,
    slug,
    version_key,
)
from cohortflow.model import NoProgress
from cohortflow.terminology.hierarchy import Closure, close_hierarchy
from cohortflow.terminology.integrity import check_edges, collect_table, digest_table
from cohortflow.terminology.systems import STANDARD_SYSTEMS, canonical_system
from cohortflow.terminology.tables import CLOSURE, TABLES, Release

if TYPE_CHECKING:
    from cohortflow.lake.store import Store
    from cohortflow.model import Progress

__all__ = ["TerminologyStore"]

_MANIFEST = "manifest.json"
# Row groups are small, so that the look-up of a code reads one of them.
_GROUP_ROWS = 131_072
# A load or a reader may still use a file that no manifest names any more.
_GRACE = timedelta(days=1)
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class TerminologyStore:
    """The terminologies of a lake.

    Attributes:
        store: Their folder; it holds no patient data.
    """

    store: Store

    def load(
        self, release: Release, *, replace: bool = False, progress: Progress | None = None
    ) -> StoredRelease:
        """Store a release; see `load_all`."""
        return self.load_all([release], replace=replace, progress=progress)[0]

    def load_all(
        self, releases: Sequence[Release], *, replace: bool = False, progress: Progress | None = None
    ) -> tuple[StoredRelease, ...]:
        """Store releases: all of them, or nothing.

        The closure is computed where there are edges. One table at a time is in memory. A release whose
        content is there already is left as it is, so that a repeated load changes nothing.

        Args:
            releases: What a loader read.
            replace: Whether other content of the same version may be replaced.
            progress: Takes the number of finished releases, or of tables where there is one release.

        Raises:
            MalformedDataError: A table is not as it must be, or a hierarchy has a cycle.
            InputError: A version is there with other content.
            StoreUnavailableError: The object store failed.
        """
        load = uuid.uuid4().hex[:12]
        bar = NoProgress() if progress is None else progress
        written: dict[str, list[str]] = {_folder(release): [] for release in releases}
        if len(written) < len(releases):
            raise MalformedDataError(
                "The same version of a terminology stands twice among the files.",
                place=", ".join(sorted({name for release in releases for name in release.source})),
                remedy="Load the files one by one.",
            )
        staged: list[StoredRelease] = []
        try:
            for done, release in enumerate(releases):
                if len(releases) > 1:
                    bar.update("releases", done, len(releases), "releases")
                tables = NoProgress() if len(releases) > 1 else bar
                staged.append(self._write_tables(release, load, written[_folder(release)], tables))
            present = [self._find_present(release, replace=replace) for release in staged]
            stored = tuple(
                self._publish(release, replace=replace) if found is None else found
                for release, found in zip(staged, present, strict=True)
            )
        except BaseException:
            # The first error is the one to report, and the store may be what failed.
            with contextlib.suppress(Exception):
                self._clean(written)
            raise
        # The releases are there; what could not be removed goes with a later load.
        with contextlib.suppress(CohortflowError):
            self._clean(written)
        bar.update("releases", len(releases), len(releases), "releases")
        return stored

    def releases(self) -> tuple[StoredRelease, ...]:
        """Return all releases, by system and then from the oldest version to the newest."""
        return self._list("")

    def release(self, system: str, version: str | None = None) -> StoredRelease:
        """Return one release.

        Args:
            system: The code system in any known spelling.
            version: The newest one where none is named.

        Raises:
            InputError: It is not there; the remedy says what is.
        """
        uri = canonical_system(system)
        if version is not None:
            path = f"{slug(uri)}/{slug(version)}/{_MANIFEST}"
            found = read_manifest(self.store.read(path), self.store.child(path))
            if found is not None:
                return found
        versions = self._list(slug(uri))
        if versions and version is None:
            return versions[-1]
        if versions:
            raise InputError(
                f"Version '{version}' of {uri} is not loaded.",
                place=self.store.uri,
                remedy=f"Load it, or use one of: {', '.join(release.version for release in versions)}.",
            )
        loaded = {release.system for release in self.releases()}
        known = sorted(loaded, key=lambda other: (other not in STANDARD_SYSTEMS, other))
        more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
        raise InputError(
            f"No version of {uri} is loaded.",
            place=self.store.uri,
            remedy="Load one with 'cohortflow terminology load'; "
            + (f"loaded are: {', '.join(known[:_MOST_NAMED])}{more}." if known else "nothing is loaded yet."),
        )

    def has(self, system: str) -> bool:
        """Return whether any version of a code system, in any known spelling, is loaded."""
        return bool(self._list(slug(canonical_system(system))))

    def tables(self, system: str, version: str | None = None) -> Mapping[str, pl.LazyFrame]:
        """Open the tables of a release.

        Args:
            system: The code system in any known spelling.
            version: The newest one where none is named.

        Returns:
            Tables by name, of the schemas of `cohortflow.terminology.tables.TABLES`, sorted by their columns
            from the first to the last.

        Raises:
            InputError: The release is not there.
            LakeError: A file of it was removed.
        """
        release = self.release(system, version)
        folder = _folder(release)
        present = set(self.store.list(folder))
        for name, table in release.tables.items():
            if f"{folder}/{table.file}" not in present:
                raise LakeError(
                    f"The terminology {release.system} {release.version} lacks its table of {name}.",
                    place=self.store.child(folder, table.file),
                    remedy="Remove its folder and load the release again.",
                )
        return MappingProxyType(
            {
                name: pl.scan_parquet(
                    self.store.child(folder, table.file),
                    schema=TABLES[name],
                    storage_options=self.store.polars_options,
                    glob=False,
                )
                for name, table in release.tables.items()
            }
        )

    def _list(self, prefix: str) -> tuple[StoredRelease, ...]:
        found = (
            read_manifest(self.store.read(path), self.store.child(path))
            for path in self.store.list(prefix)
            if path.endswith(f"/{_MANIFEST}")
        )
        return tuple(
            sorted(
                (release for release in found if release is not None),
                key=lambda release: (release.system, version_key(release.version)),
            )
        )

    def _write_tables(
        self, release: Release, load: str, written: list[str], progress: Progress
    ) -> StoredRelease:
        folder = _folder(release)
        tables: dict[str, StoredTable] = {}
        names = [name for name in TABLES if name in release.tables]
        if "edges" in names:
            names = [name for name in names if name != "closure"] + ["closure"]
        concepts: pl.DataFrame | None = None
        closure: Closure | None = None
        task, place = f"{release.title} {release.version}", ", ".join(release.source)
        for done, name in enumerate(names):
            progress.update(task, done, len(names), "tables")
            file = f"{name}-{load}.parquet"
            written.append(f"{folder}/{file}")
            if name == "closure" and "edges" in release.tables:
                if closure is not None:
                    self._write(_stream_closure(closure, release), written[-1])
                    tables[name] = StoredTable(file, len(closure), "")
                continue
            table = collect_table(release, name)
            if table.is_empty():
                continue
            if name == "concepts":
                concepts = table.select("code")
            if name == "edges":
                if concepts is not None:
                    check_edges(table, concepts, place)
                closure = close_hierarchy(table.select("child", "parent"), place=place)
            self._write(table.lazy(), written[-1])
            tables[name] = StoredTable(file, table.height, digest_table(table))
        progress.update(task, len(names), len(names), "tables")
        return StoredRelease(
            system=release.system,
            version=release.version,
            title=release.title,
            licence=release.licence,
            source=release.source,
            digest=_digest(release, tables),
            loaded_at=datetime.now(UTC),
            tables=tables,
        )

    def _write(self, frame: pl.LazyFrame, path: str) -> None:
        uri = self.store.child(path)
        with storage_errors(uri):
            frame.sink_parquet(
                uri,
                storage_options=self.store.polars_options,
                mkdir=not self.store.options,
                row_group_size=_GROUP_ROWS,
                engine="streaming",
            )

    def _find_present(self, release: StoredRelease, *, replace: bool) -> StoredRelease | None:
        """Return the release of the same content that is there already; ``None``: it is to be written.

        Raises:
            InputError: There is one of other content, which must not be replaced.
        """
        path = f"{_folder(release)}/{_MANIFEST}"
        present = read_manifest(self.store.read(path), self.store.child(path))
        if present is None or present.digest == release.digest:
            return present
        if replace:
            return None
        raise InputError(
            f"Version '{release.version}' of {release.system} is loaded already, with other content.",
            place=self.store.child(path),
            remedy="Give this one a version of its own with --version, or add --replace.",
        )

    def _publish(self, release: StoredRelease, *, replace: bool) -> StoredRelease:
        """Write the manifest, unless another writer has published the same content meanwhile."""
        path = f"{_folder(release)}/{_MANIFEST}"
        content = json.dumps(release.to_dict(), indent=1, ensure_ascii=False).encode()
        if self.store.create(path, content):
            return release
        found = self._find_present(release, replace=replace)
        if found is None:
            self.store.write(path, content)
        return found or release

    def _clean(self, written: Mapping[str, Sequence[str]]) -> None:
        """Remove what this load wrote in vain, and after some time what earlier ones left."""
        for folder, paths in written.items():
            present = read_manifest(self.store.read(f"{folder}/{_MANIFEST}"), folder)
            kept = {f"{folder}/{table.file}" for table in present.tables.values()} if present else set()
            found = set(paths)
            if present is None or present.loaded_at < datetime.now(UTC) - _GRACE:
                old = self.store.list(folder, older_than=_GRACE)
                found.update(path for path in old if path.endswith(".parquet"))
            for path in found - kept:
                self.store.remove(path)


def _folder(release: Release | StoredRelease) -> str:
    return f"{slug(release.system)}/{slug(release.version)}"


def _digest(release: Release, tables: Mapping[str, StoredTable]) -> str:
    facts = [release.system, release.version, *(f"{name} {table.digest}" for name, table in tables.items())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _stream_closure(closure: Closure, release: Release) -> pl.LazyFrame:
    """Return the closure's pairs as rows that are made while they are written."""

    def produce(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        del predicate, rows, size  # a sink asks for all of it
        for frame in closure.frames():
            table = frame.select(
                pl.lit(release.system).alias("system"),
                pl.lit(release.version).alias("version"),
                "descendant",
                "ancestor",
                "distance",
            )
            yield table if columns is None else table.select(columns)

    return register_io_source(produce, schema=CLOSURE)
