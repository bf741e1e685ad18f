"""What stands in the Bundle of a search besides what was found: other resources and remarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from cohortflow.sandbox.hospital import Call
from cohortflow.sandbox.outcome import Severity, operation_outcome
from cohortflow.sandbox.pages import PageSession
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.scopes import allows
from cohortflow.sandbox.search_parameters import values_at
from cohortflow.sandbox.search_query import Inclusion, SearchQuery

__all__ = ["find_rows", "included", "page_rows", "remarks"]


def find_rows(call: Call, query: SearchQuery, table: ResourceTable) -> tuple[Rows, int]:
    """The rows to page through, and by how many the first page is longer than the others.

    Where the persona filters late (E15), they are more than match.
    """
    hospital, persona = call.hospital, call.hospital.persona
    standing = table.select(until=hospital.store.now)
    if persona.filters_pages_late:
        return query.unfiltered_rows(table, standing, hospital.store.patient_number), 0
    rows = query.rows(table, standing, hospital.store.patient_number)
    rows = hospital.visibility.rows(query.resource_type, table, rows)
    category = persona.first_page_category.get(query.resource_type)
    if category is None:
        return rows, 0
    mark = f'"{category}"'.encode()  # O12: page 1 has all of this category, however many there are
    first = np.array([mark in line for line in table.lines(rows)], dtype=np.bool_)
    return np.concatenate([rows[first], rows[~first]]), int(first.sum())


def page_rows(call: Call, session: PageSession, offset: int) -> Rows:
    """The rows of the page that starts at an offset."""
    rows = session.rows[offset : session.after(offset)]
    if call.hospital.persona.filters_pages_late:
        rows = session.query.matching(session.table, rows)
        rows = call.hospital.visibility.rows(session.query.resource_type, session.table, rows)
    return call.hospital.persona.shape_page(session.query, rows)


def included(
    call: Call, query: SearchQuery, table: ResourceTable, rows: Rows
) -> Iterator[tuple[str, ResourceTable, int]]:
    """What ``_include`` and ``_revinclude`` add to a page: type, table and row, each once."""
    seen = {(query.resource_type, int(row)) for row in rows}
    for inclusion in query.inclusions:
        added = (
            _pointing(call, inclusion, query.resource_type, table, rows)
            if inclusion.reverse
            else _pointed_at(call, inclusion, query.resource_type, table, rows)
        )
        for resource_type, other, row in added:
            if (resource_type, row) not in seen and allows(call.grant.scopes, resource_type, "r"):
                seen.add((resource_type, row))
                yield resource_type, other, row


def remarks(call: Call, query: SearchQuery, *, empty: bool) -> Iterator[dict[str, Any]]:
    """The OperationOutcomes of the first page."""
    system = call.hospital.persona.issue_system

    def remark(severity: Severity, code: str, text: str, issue: str | None) -> dict[str, Any]:
        return operation_outcome(severity, code, text, system=system, issue=issue)

    if system is None and query.ignored:
        text = f"ignored search parameters: {', '.join(query.ignored)}"
        yield remark("warning", "not-supported", text, None)
    elif query.ignored:
        for name in query.ignored:  # E16
            outcome = remark("warning", "informational", f"parameter '{name}' was ignored", "4122")
            outcome["issue"][0]["location"] = [f"http.{name}"]
            yield outcome
    if part := call.hospital.persona.missing_sub_apis.get(query.resource_type):  # E17
        yield remark("warning", "suppressed", f"Client not authorized for {part}", "59204")
    if empty and call.hospital.persona.says_when_empty:
        yield remark("warning", "processing", "no results", "4101")
    fault = call.fault
    if fault is not None and fault.kind == "outcome-entry":
        yield remark(fault.severity, fault.code or "informational", "the server has a remark", fault.issue)


def _pointed_at(
    call: Call, inclusion: Inclusion, resource_type: str, table: ResourceTable, rows: Rows
) -> Iterator[tuple[str, ResourceTable, int]]:
    if inclusion.resource_type != resource_type:
        return
    for line in table.lines(rows):
        for target_type, target_id in _references(inclusion, line):
            other = call.hospital.store.table(target_type)
            row = None if other is None else other.find(target_id)
            if other is None or row is None or inclusion.target not in {None, target_type}:
                continue
            if other.stands(row, call.hospital.store.now):
                for shown in _shown(call, target_type, other, row):
                    yield target_type, other, shown


def _pointing(
    call: Call, inclusion: Inclusion, resource_type: str, table: ResourceTable, rows: Rows
) -> Iterator[tuple[str, ResourceTable, int]]:
    other = call.hospital.store.table(inclusion.resource_type)
    if other is None:
        return
    wanted = {(resource_type, orjson.loads(line)["id"]) for line in table.lines(rows)}
    # What points at a patient's record is in that patient's compartment or in nobody's.
    patients = np.append(np.unique(table.patients[rows]), -1) if table.has_patients else None
    candidates = other.select(until=call.hospital.store.now, patients=patients)
    for row, line in zip(candidates.tolist(), other.lines(candidates), strict=True):
        if not wanted.isdisjoint(_references(inclusion, line)):
            for shown in _shown(call, inclusion.resource_type, other, row):
                yield inclusion.resource_type, other, shown


def _shown(call: Call, resource_type: str, table: ResourceTable, row: int) -> Iterator[int]:
    rows = np.array([row], dtype=np.int64)
    yield from call.hospital.visibility.rows(resource_type, table, rows).tolist()


def _references(inclusion: Inclusion, line: bytes) -> Iterator[tuple[str, str]]:
    resource = orjson.loads(line)
    for path in inclusion.parameter.paths:
        for value in values_at(resource, path):
            reference = value.get("reference", "") if isinstance(value, dict) else ""
            parts = reference.split("/_history/")[0].split("/")
            if len(parts) > 1:
                yield parts[-2], parts[-1]
