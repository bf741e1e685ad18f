"""Snapshots: what a chain of exports says of each resource, taken together.

A source delivers a full export and then incremental ones; a resource may stand in several of them, and
in one of them several times. Of each resource exactly one occurrence is valid:

1. The export with the later transaction time wins, whatever ``meta.lastUpdated`` says.
2. In one export the greater ``meta.lastUpdated`` wins where all occurrences have one, compared as
   instants; otherwise, and among equals, the last in the order of manifest, file and line.
3. A deletion removes the occurrences in its export and in earlier ones. An export cannot tell whether a
   resource that it also holds was deleted before or after, so the deletion wins. A later export that
   holds the resource brings it back.
4. A deleted Patient hides every resource of that patient, in all exports, until a later export holds the
   Patient again.

A malformed line that tells its resource's type and id is an occurrence like others, of which nothing can be
read: where it is the valid one, the resource is left out, because what came before is not what the source
says now. So it is with a ``modifierExtension``. A line that does not tell them is none.

The usual chain, one export without duplicates, costs one 64-bit hash per resource, made in the read of the
views. Only when two hashes are equal are ids compared and the views computed again. Later exports are
read beforehand for their ids, which stay in memory; the first export, the great one, is not.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cohortflow.fhir.ndjson import GOOD, LINES, OCCURRENCES, read_views
from cohortflow.fhir.views.compile import CompiledView, compile_view

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "TOMBSTONE_SCHEMA",
    "Snapshot",
    "SnapshotExport",
    "SnapshotRead",
    "hide_subjects",
]

TOMBSTONE_SCHEMA = pl.Schema({"type": pl.String(), "id": pl.String(), "deleted_at": pl.Datetime("us", "UTC")})
"""Schema of tombstones: resource type, id, and transaction time of the export that reported the deletion."""

_PATIENT = "Patient"
# FHIR's instant: always with seconds and an offset.
_INSTANTS = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.fZ")

_FILE, _LINE, _FATE, _ID, _META = "@file", "@line", "@fate", "id", "meta"
# Columns of the plans in between.
_ORDINAL, _UNTIL, _GONE, _HASH, _UPDATED = "@ordinal", "@until", "@gone", "@hash", "@updated"
_PLACE, _LINES_OF_A_FILE = "@place", 2**40
_DELETED, _SUPERSEDED, _DUPLICATE = "deleted", "superseded", "duplicate"
_FATES = pl.Enum([_DELETED, _SUPERSEDED, _DUPLICATE])

Build = Callable[[Mapping[str, pl.LazyFrame]], Sequence[pl.LazyFrame]]
_Judge = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True, slots=True)
class SnapshotExport:
    """One export of a chain.

    Attributes:
        transaction_time: The source's time of its data, with an offset.
        digest: Of its content; decides the order of exports of one transaction time.
        files: Paths or URIs of the NDJSON files by resource type, in the manifest's order.
    """

    transaction_time: datetime
    digest: str
    files: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class SnapshotRead:
    """What a read of one resource type met.

    Attributes:
        malformed: The malformed lines, with ``MALFORMED_SCHEMA``.
        unreadable: How many of them are the valid occurrence of their resource, or may be one.
        superseded: Occurrences left out because a later export holds the resource.
        duplicates: Occurrences left out because their own export holds the resource again.
        deleted: Occurrences left out because the resource was deleted.
    """

    malformed: pl.DataFrame
    unreadable: int = 0
    superseded: int = 0
    duplicates: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A chain of exports and the deletions that are known of their source; see the module.

    Attributes:
        exports: The chain, in any order.
        tombstones: Deletions, with ``TOMBSTONE_SCHEMA``; also of exports that are not in the chain.
        storage_options: For remote files, as Polars takes them.
    """

    exports: tuple[SnapshotExport, ...]
    tombstones: pl.DataFrame = field(default_factory=TOMBSTONE_SCHEMA.to_frame, repr=False)
    storage_options: Mapping[str, str | int] | None = field(default=None, repr=False)

    @functools.cached_property
    def _chain(self) -> tuple[SnapshotExport, ...]:
        """The exports, oldest first, each once."""
        by_identity = {(export.transaction_time, export.digest): export for export in self.exports}
        return tuple(by_identity[identity] for identity in sorted(by_identity))

    @property
    def transaction_time(self) -> datetime:
        """That of the latest export."""
        return self._chain[-1].transaction_time

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides the rows: of one export without deletions, its own digest."""
        types = {_PATIENT, *(resource for export in self._chain for resource in export.files)}
        deletions = [f"hidden {number}" for number in self.hidden_patients[_ID]]
        for resource in sorted(types):
            reached = self._deletions(resource).filter(pl.col(_GONE) >= 0).sort(_ID)
            deletions += [f"{resource}/{number} {ordinal}" for number, ordinal in reached.iter_rows()]
        if len(self._chain) == 1 and not deletions:
            return self._chain[0].digest
        parts = [*(export.digest for export in self._chain), *deletions]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @functools.cached_property
    def hidden_patients(self) -> pl.DataFrame:
        """Ids of the patients that were deleted and have not come back, ``id: str``, sorted.

        Whether a patient came back is known only where the exports hold Patients.
        """
        gone = self._deletions(_PATIENT)
        first = gone.select(pl.col(_GONE).min()).item()
        files = self._files(_PATIENT, after=first) if first is not None else {}
        if files:
            read = read_views([_index_view(_PATIENT)], files, storage_options=self.storage_options)
            (seen,), _ = read.execute(lambda frames: [_last_seen(frames[LINES], files)])
            back = gone.join(seen, on=_ID).filter(pl.col(_ORDINAL) > pl.col(_GONE))
            gone = gone.join(back, on=_ID, how="anti")
        return gone.select(_ID).sort(_ID)

    def execute(self, views: Iterable[CompiledView], build: Build) -> SnapshotRead:
        """Run plans on top of views over the valid occurrences of one resource type.

        Resources of hidden patients are still among them: see ``hide_subjects``.

        Args:
            views: Views of one resource type.
            build: Gets the views by name and returns plans, such as lazy sinks. It may be called several
                times; the last call's plans are the ones that count.

        Raises:
            CohortflowError: See ``ViewsRead.execute``.
        """
        views = tuple(views)
        resource = views[0].resource
        judge = self._judge_chain(views)
        read, hashes = self._run(views, judge, build)
        candidates = _find_equal(hashes)
        if candidates.is_empty():
            return read
        files = list(self._files(resource))
        losers = self._find_losers(views, judge, candidates, files)
        if losers.is_empty():  # unequal ids with equal hashes
            return read
        return self._run(views, _judge_duplicates(judge, losers, files), build)[0]

    def _run(
        self, views: tuple[CompiledView, ...], judge: _Judge | None, build: Build
    ) -> tuple[SnapshotRead, pl.Series]:
        """Run the plans; return what was met, and a hash of the id of every valid occurrence."""

        def plan(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
            # One plan for both, since two of them would have more in common than the decoding alone, and
            # Polars would decode anew for the views.
            key, fate = pl.col(_ID).hash().alias(_HASH), pl.col(_FATE).cast(_FATES)
            met = frames[OCCURRENCES].select(key, fate, GOOD)
            return [met, *build({view.name: frames[view.name] for view in views})]

        files = self._files(views[0].resource)
        (met, *_), malformed = self._read(views, files, judge, plan)
        counts = dict(met.filter(GOOD)[_FATE].value_counts().iter_rows())
        replaced = met.filter(~pl.col(GOOD) & pl.col(_FATE).is_not_null()).height
        read = SnapshotRead(
            malformed,
            malformed.height - replaced,
            counts.get(_SUPERSEDED, 0),
            counts.get(_DUPLICATE, 0),
            counts.get(_DELETED, 0),
        )
        return read, met.filter(pl.col(_FATE).is_null())[_HASH]

    def _read(
        self, views: tuple[CompiledView, ...], files: Iterable[str], judge: _Judge | None, plan: Build
    ) -> tuple[list[pl.DataFrame], pl.DataFrame]:
        # Every read has the same views, so that a line is malformed in all of them or in none.
        index = _index_view(views[0].resource)
        read = read_views((*views, index), files, storage_options=self.storage_options, judge=judge)
        return read.execute(plan)

    def _files(self, resource: str, *, after: int = -1) -> dict[str, int]:
        """Return the files of a resource type in their order, with the ordinals of their exports."""
        return {
            file: ordinal
            for ordinal, export in enumerate(self._chain)
            for file in export.files.get(resource, ())
            if ordinal > after
        }

    def _deletions(self, resource: str) -> pl.DataFrame:
        """Return ids with the ordinal of the last export that a deletion reaches; -1 is before the first."""
        # An export is as of its transaction time: it is reached by deletions reported then or later.
        times = pl.Series([export.transaction_time for export in self._chain], dtype=pl.Datetime("us", "UTC"))
        reached = times.search_sorted(self.tombstones["deleted_at"], side="right").cast(pl.Int32) - 1
        gone = self.tombstones.with_columns(reached.alias(_GONE)).filter(pl.col("type") == resource)
        return gone.group_by(_ID).agg(pl.col(_GONE).max())

    def _judge_chain(self, views: tuple[CompiledView, ...]) -> _Judge | None:
        """Return what marks the occurrences that deletions and later exports leave behind."""
        resource = views[0].resource
        files = self._files(resource)
        gone = self._deletions(resource).filter(pl.col(_GONE) >= 0)
        first = min(files.values(), default=0)
        later = {file: ordinal for file, ordinal in files.items() if ordinal > first}
        last = pl.DataFrame(schema={_ID: pl.String(), _ORDINAL: pl.Int32()})
        if later:
            (last,), _ = self._read(
                views, later, None, lambda frames: [_last_seen(frames[OCCURRENCES], later)]
            )
        if gone.is_empty() and last.is_empty():
            return None
        limits = last.join(gone, on=_ID, how="full", coalesce=True).rename({_ORDINAL: _UNTIL})
        fate = _Limits.of(limits).fate(_ordinal(files))
        return lambda lines: lines.with_columns(fate.alias(_FATE))

    def _find_losers(
        self,
        views: tuple[CompiledView, ...],
        judge: _Judge | None,
        candidates: pl.Series,
        files: list[str],
    ) -> pl.Series:
        """Return the places of the occurrences that lose to another one of their own export."""
        updated = pl.col(_META).struct.field("lastUpdated").alias(_UPDATED)

        def plan(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
            equal = _is_among(candidates, pl.col(_ID).hash())
            found = frames[OCCURRENCES].filter(pl.col(_FATE).is_null() & equal)
            return [found.select(_FILE, _LINE, _ID, updated)]

        (found,), _ = self._read(views, files, judge, plan)
        instants = [
            pl.col(_UPDATED).str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
            for form in _INSTANTS
        ]
        instant = pl.coalesce(instants)
        comparable = instant.is_not_null().all().over(_ID)
        place = _place(files).alias(_PLACE)
        order = found.sort(_ID, pl.when(comparable).then(instant), place)
        return order.filter(~pl.col(_ID).is_last_distinct()).select(place)[_PLACE].sort()


def hide_subjects(frame: pl.LazyFrame, subject: str, hidden: pl.DataFrame) -> pl.LazyFrame:
    """Leave out the rows of patients.

    Args:
        frame: A view's rows.
        subject: Column with the patient's id; empty where the view has none.
        hidden: ``Snapshot.hidden_patients``.
    """
    if not subject or hidden.is_empty():
        return frame
    return frame.filter(~pl.col(subject).is_in(hidden[_ID].implode()).fill_null(value=False))


def _index_view(resource: str) -> CompiledView:
    """Return a view that makes a read decode what decides between occurrences."""
    columns = [
        {"name": "id", "path": "getResourceKey()"},
        {"name": "last_updated", "path": "meta.lastUpdated"},
    ]
    return compile_view(
        {
            "resourceType": "ViewDefinition",
            "name": "snapshot_index",
            "status": "active",
            "resource": resource,
            "select": [{"column": columns}],
        }
    )


def _ordinal(files: Mapping[str, int]) -> pl.Expr:
    """Return the ordinal of the export that a line's file belongs to."""
    # Within a function, because as an expression of a streamed plan it would hold all rows in memory.
    return pl.col(_FILE).map_batches(
        lambda names: names.replace_strict(list(files), list(files.values()), return_dtype=pl.Int32),
        return_dtype=pl.Int32,
        is_elementwise=True,
    )


def _last_seen(lines: pl.LazyFrame, files: Mapping[str, int]) -> pl.LazyFrame:
    """Return ids with the ordinal of the last export that holds them."""
    return lines.group_by(_ID).agg(_ordinal(files).alias(_ORDINAL).max())


def _find_equal(hashes: pl.Series) -> pl.Series:
    """Return the hashes that occur more than once, sorted."""
    ordered = hashes.sort()
    return ordered.filter(ordered == ordered.shift()).unique().sort()


def _place(files: Sequence[str]) -> pl.Expr:
    """Return a number for each line, in the order of files and lines."""
    number = _ordinal({file: number for number, file in enumerate(files)}).cast(pl.UInt64)
    return number * _LINES_OF_A_FILE + pl.col(_LINE).cast(pl.UInt64)


def _judge_duplicates(judge: _Judge | None, losers: pl.Series, files: Sequence[str]) -> _Judge:
    lost = pl.when(_is_among(losers, _place(files))).then(pl.lit(_DUPLICATE))

    def judge_all(lines: pl.LazyFrame) -> pl.LazyFrame:
        judged = lines if judge is None else judge(lines)
        return judged.with_columns(pl.coalesce(_FATE, lost).alias(_FATE))

    return judge_all


def _search(known: npt.NDArray[np.uint64], keys: pl.Series) -> npt.NDArray[np.intp]:
    """Return where each key is among known ones, which are sorted; -1 where it is not."""
    wanted = keys.fill_null(0).to_numpy()
    found = np.searchsorted(known, wanted)
    found[found == len(known)] = 0
    return np.where(known[found] == wanted, found, -1)


def _is_among(known: pl.Series, key: pl.Expr) -> pl.Expr:
    """Return whether a key is among known ones, which are sorted and at least one."""
    numbers = known.to_numpy()
    return key.map_batches(
        lambda keys: pl.Series(keys.name, _search(numbers, keys) >= 0),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )


@dataclass(frozen=True, slots=True)
class _Limits:
    """For each id that later exports or deletions concern: which exports they leave behind.

    Looked up batch by batch: the cost depends on the batch, and hardly on the number of ids.

    Attributes:
        rows: ``id``, ``@until``: the last export that holds it, ``@gone``: the last that a deletion
            reaches; either may be null. In the order of ``hashes``.
        hashes: Of the ids: sorted, each once.
        seed: Of the hash.
    """

    rows: pl.DataFrame
    hashes: npt.NDArray[np.uint64]
    seed: int

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Limits:
        """Choose a hash that tells the ids apart; the first one does, as good as always."""
        seed = 0
        while (hashes := rows[_ID].hash(seed)).n_unique() < rows.height:
            seed += 1
        order = hashes.arg_sort()
        return cls(rows[order], hashes.gather(order).to_numpy(), seed)

    def fate(self, ordinal: pl.Expr) -> pl.Expr:
        """Return what becomes of an occurrence in the export of an ordinal."""
        occurrence = pl.struct(_ID, ordinal.alias(_ORDINAL))
        return occurrence.map_batches(self._judge, return_dtype=pl.String, is_elementwise=True)

    def _judge(self, occurrences: pl.Series) -> pl.Series:
        frame = occurrences.struct.unnest()
        found = _search(self.hashes, frame[_ID].hash(self.seed))
        hits = np.flatnonzero(found >= 0)
        fates = pl.Series(occurrences.name, [None], dtype=pl.String).new_from_index(0, len(frame))
        if not len(hits):
            return fates
        fate = (
            pl.when(pl.col(_ID).ne_missing(pl.col("id_right")))
            .then(None)
            .when(pl.col(_ORDINAL) <= pl.col(_GONE))
            .then(pl.lit(_DELETED))
            .when(pl.col(_ORDINAL) < pl.col(_UNTIL))
            .then(pl.lit(_SUPERSEDED))
        )
        limits = self.rows[found[hits]].rename({_ID: "id_right"})
        return fates.scatter(hits, frame[hits].hstack(limits).select(fate).to_series())
