"""Who is crawled: members of a Group, a given list, or what a search finds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import orjson

from cohortflow.connectors.crawl.request import PatientSelection
from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.search.client import SearchClient, SearchQuery, SearchRefusedError
from cohortflow.connectors.search.parts import read_lines
from cohortflow.errors import ExportRejectedError

__all__ = ["read_patients", "resolve_patients", "write_patients"]

_PLAN = "_plan/patients.ndjson"


async def resolve_patients(search: SearchClient, selection: PatientSelection) -> tuple[str, ...]:
    """Return the ids of the patients, each once.

    Raises:
        ExportRejectedError: The Group cannot be read, or there are no patients.
        SourceError: The server failed.
    """
    if selection.ids:
        return selection.ids
    if selection.group_id:
        found = list(await _members(search, selection.group_id))
    else:
        query = SearchQuery("Patient", selection.search or ())
        found = []
        async with aclosing(search.pages(query)) as pages:
            async for page in pages:
                found.extend(item.id for item in page.resources if item.type == "Patient")
    if not found:
        raise ExportRejectedError(
            "There is no patient to crawl.",
            place=search.host,
            remedy="Check the group or the search; some servers do not list a group's members: give a list.",
        )
    return tuple(dict.fromkeys(found))


async def write_patients(folder: RawFolder, patients: Iterable[str]) -> None:
    """Keep the list, so that a resumed crawl has the same one."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"".join(orjson.dumps({"id": name}, option=orjson.OPT_APPEND_NEWLINE) for name in patients)

    await folder.write_file(_PLAN, chunks())


async def read_patients(folder: RawFolder) -> tuple[str, ...]:
    """Return the list that a crawl keeps in its folder.

    Raises:
        ArtifactNotFoundError: There is none.
    """
    return tuple([str(orjson.loads(line)["id"]) async for line in read_lines(folder, _PLAN)])


async def _members(search: SearchClient, group_id: str) -> Iterator[str]:
    try:
        found, _ = await search.read("Group", group_id)
    except SearchRefusedError as error:
        raise ExportRejectedError(
            f"The group cannot be read ({error.reason}).",
            place=search.host,
            remedy="Give the patients as a list, such as those of a former export, or export in bulk.",
        ) from None
    return _patient_ids(orjson.loads(found.line))


def _patient_ids(group: dict[str, Any]) -> Iterator[str]:
    for member in group.get("member") or ():
        entity = member.get("entity") or {}
        reference = entity.get("reference")
        if member.get("inactive") is True or not isinstance(reference, str):
            continue
        kind, _, name = reference.partition("/_history/")[0].rpartition("/")
        if kind.rpartition("/")[2] == "Patient" and name:
            yield name
