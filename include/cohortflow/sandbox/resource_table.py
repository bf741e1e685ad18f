"""The resources of one type: immutable arrays over indexed files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.sandbox.ndjson_index import NO_PATIENT, IndexedFile, Offsets

__all__ = ["ResourceTable", "Rows"]

Rows = npt.NDArray[np.int64]

_BLOCK = 8 << 20


@dataclass(frozen=True, eq=False)
class ResourceTable:
    """All rows of one resource type, in the order of the files; a change makes a new table.

    Attributes:
        files: Where the lines are.
        live: Per row, whether the resource still stands (not replaced, not deleted).
    """

    files: tuple[IndexedFile, ...]
    live: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, files: tuple[IndexedFile, ...]) -> ResourceTable:
        """A table in which all rows stand."""
        return cls(files, np.ones(sum(len(file.id_hashes) for file in files), dtype=np.bool_))

    def with_file(self, file: IndexedFile) -> ResourceTable:
        """A table with the rows of one more file."""
        added = np.ones(len(file.id_hashes), dtype=np.bool_)
        return ResourceTable((*self.files, file), np.concatenate([self.live, added]))

    def without(self, rows: list[int]) -> ResourceTable:
        """A table in which these rows no longer stand."""
        live = self.live.copy()
        live[rows] = False
        return replace(self, live=live)

    @cached_property
    def _firsts(self) -> Offsets:
        sizes = [len(file.id_hashes) for file in self.files]
        return np.cumsum([0, *sizes], dtype=np.int64)

    @cached_property
    def patients(self) -> npt.NDArray[np.int32]:
        """Per row the number of its patient, or ``NO_PATIENT``."""
        return np.concatenate([np.empty(0, np.int32), *(file.patients for file in self.files)])

    @cached_property
    def updated(self) -> Offsets:
        """Per row when it last changed, in microseconds since 1970."""
        return np.concatenate([np.empty(0, np.int64), *(file.updated for file in self.files)])

    @cached_property
    def _stated(self) -> npt.NDArray[np.bool_]:
        return np.concatenate([np.empty(0, np.bool_), *(file.stated for file in self.files)])

    @cached_property
    def _by_hash(self) -> tuple[Offsets, Rows]:
        hashes = np.concatenate([np.empty(0, np.int64), *(file.id_hashes for file in self.files)])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    @property
    def has_patients(self) -> bool:
        """Whether any row belongs to a patient."""
        return bool((self.patients != NO_PATIENT).any())

    def select(
        self,
        *,
        until: int,
        since: int | None = None,
        patients: npt.NDArray[np.int32] | None = None,
    ) -> Rows:
        """Rows that stand at a moment.

        Args:
            until: The moment; a row with a later ``meta.lastUpdated`` does not exist yet.
            since: Only rows that changed after this.
            patients: Only rows of these patients.
        """
        mask = self.live & ((self.updated <= until) | ~self._stated)
        if since is not None:
            mask &= self.updated > since
        if patients is not None:
            mask &= self.patients == patients[0] if len(patients) == 1 else np.isin(self.patients, patients)
        return np.flatnonzero(mask)

    def stands(self, row: int, until: int) -> bool:
        """Whether one row stands at a moment."""
        return bool(self.live[row] and (self.updated[row] <= until or not self._stated[row]))

    def find(self, resource_id: str) -> int | None:
        """The row with this id, standing or not; the newest one."""
        hashes, order = self._by_hash
        key = hash(resource_id)
        span = order[np.searchsorted(hashes, key, "left") : np.searchsorted(hashes, key, "right")]
        for row in sorted(span.tolist(), key=lambda row: (bool(self.live[row]), row), reverse=True):
            if orjson.loads(self.line(row))["id"] == resource_id:
                return int(row)
        return None

    def with_ids(self, ids: Collection[str]) -> Rows:
        """The rows with any of these ids, by the hashes of the ids."""
        hashes, order = self._by_hash
        return order[np.isin(hashes, np.array([hash(name) for name in ids], dtype=np.int64))]

    def line(self, row: int) -> bytes:
        """The resource of one row, with its line feed."""
        return next(self.lines(np.array([row], dtype=np.int64)))

    def lines(self, rows: Rows) -> Iterator[bytes]:
        """The resources of rows, each with its line feed, read in blocks."""
        for file, low, high in self._blocks(rows):
            starts = file.starts[low : high + 1].tolist()
            block = os.pread(file.descriptor, starts[-1] - starts[0], starts[0])
            for begin, end in pairwise(starts):
                yield block[begin - starts[0] : end - starts[0]]

    def copy(self, rows: Rows, target: BinaryIO) -> None:
        """Write the lines of rows to a file, in blocks of neighbours."""
        for file, low, high in self._blocks(rows):
            begin = int(file.starts[low])
            target.write(os.pread(file.descriptor, int(file.starts[high]) - begin, begin))

    def _blocks(self, rows: Rows) -> Iterator[tuple[IndexedFile, int, int]]:
        # Neighbouring rows of one file, as [low, high) within it, of _BLOCK bytes or one line.
        if not len(rows):
            return
        holders = np.searchsorted(self._firsts, rows, side="right") - 1
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(holders) != 0)) + 1
        bounds = [0, *breaks.tolist(), len(rows)]
        for begin, end in pairwise(bounds):
            holder = int(holders[begin])
            file = self.files[holder]
            low = int(rows[begin] - self._firsts[holder])
            stop = low + end - begin
            while low < stop:
                fitting = int(np.searchsorted(file.starts, file.starts[low] + _BLOCK, side="right")) - 1
                high = min(max(fitting, low + 1), stop)
                yield file, low, high
                low = high
