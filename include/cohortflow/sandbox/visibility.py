"""Which records a client may see: withheld members, records behind the glass, merged patients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import orjson

from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.search_parameters import values_at
from cohortflow.sandbox.store import ResourceStore

__all__ = ["Visibility"]

Mask = npt.NDArray[np.bool_]


class Visibility:
    """What exports and searches leave out, and what reading it by id says.

    Args:
        store: The records.
        persona: Whose rules hold.
    """

    def __init__(self, store: ResourceStore, persona: Persona) -> None:
        self._store = store
        self._withheld = tuple(sorted(persona.withheld_members))
        self._targets: dict[str, tuple[ResourceTable | None, dict[str, set[str]]]] = {}
        self._masks: dict[str, tuple[tuple[ResourceTable | None, ...], Mask]] = {}
        self._behind_glass: frozenset[str] = frozenset()
        self._merged: dict[tuple[str, str], str] = {}

    def break_the_glass(self, patient_ids: Iterable[str]) -> None:
        """Let the records of these patients need a reason from now on (E16: 4130, 4134)."""
        self._behind_glass |= frozenset(patient_ids)

    def merge(self, resource_type: str, old_id: str, new_id: str) -> None:
        """Let one resource go up in another (E16: 4107)."""
        self._merged[resource_type, old_id] = new_id

    def survivor(self, resource_type: str, resource_id: str) -> str | None:
        """The id of the resource that another went up in."""
        return self._merged.get((resource_type, resource_id))

    def rows(self, resource_type: str, table: ResourceTable, rows: Rows) -> Rows:
        """Those rows that exports and searches show."""
        shown = rows[~self._members(resource_type, table)[rows]] if self._withheld else rows
        return shown[~self._hidden(table, shown)]

    def hides_any(self, table: ResourceTable, rows: Rows) -> bool:
        """Whether any of the rows is behind the glass."""
        return bool(self._hidden(table, rows).any())

    def check_patients(self, patient_ids: Iterable[str]) -> None:
        """Refuse a request that names a patient behind the glass."""
        if self._behind_glass.intersection(patient_ids):
            raise glass_refusal()

    def check_row(self, table: ResourceTable, row: int) -> None:
        """Refuse to show a row that is behind the glass."""
        if self.hides_any(table, np.array([row], dtype=np.int64)):
            raise glass_refusal()

    def _hidden(self, table: ResourceTable, rows: Rows) -> Mask:
        if not self._behind_glass:
            return np.zeros(len(rows), dtype=np.bool_)
        numbers = [
            number for name in self._behind_glass if (number := self._store.patient_number(name)) is not None
        ]
        return np.isin(table.patients[rows], numbers)

    def _members(self, resource_type: str, table: ResourceTable) -> Mask:
        # Per row of a table whether it is withheld (E14); kept for as long as the tables stay the same.
        sources = (table, *(self._store.table(element.partition(".")[0]) for element in self._withheld))
        known = self._masks.get(resource_type)
        if known is not None and all(old is new for old, new in zip(known[0], sources, strict=True)):
            return known[1]
        mask = np.zeros(len(table.live), dtype=np.bool_)
        for element in self._withheld:
            if ids := self._targets_of(element).get(resource_type):
                mask[table.with_ids(ids)] = True
        self._masks[resource_type] = (sources, mask)
        return mask

    def _targets_of(self, element: str) -> dict[str, set[str]]:
        # Ids by type that an element such as Observation.hasMember points at, as of the newest table.
        resource_type, _, path = element.partition(".")
        table = self._store.table(resource_type)
        known = self._targets.get(element)
        if known is not None and known[0] is table:
            return known[1]
        found: dict[str, set[str]] = {}
        mark = f'"{path.partition(".")[0]}"'.encode()
        for line in table.lines(table.select(until=self._store.now)) if table is not None else ():
            if mark in line:
                for value in values_at(orjson.loads(line), path):
                    parts = str(value.get("reference", "")).split("/")
                    if len(parts) > 1:
                        found.setdefault(parts[-2], set()).add(parts[-1])
        self._targets[element] = (table, found)
        return found


def glass_refusal() -> RefusalError:
    """What a request for a record behind the glass is told."""
    return RefusalError(403, "suppressed", "this record needs a reason for access", issue="4130")
