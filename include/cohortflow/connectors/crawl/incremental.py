"""Increments: what changed since a former extraction, by ``_lastUpdated``.

The watermark is the server's own time when the former extraction began, and the search begins a while
before it, because an index may lag behind the records. What changed while the former extraction ran is
found by both; rows of the lake are keyed by id, so that is no harm.

What ``_lastUpdated`` does not find: deletions, on any server; edits of an Observation that Oracle Health
does not hold clinically significant (O13); anything at all on Epic, which states no such time (E3). A full
extraction from time to time finds what increments miss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime, timedelta

from cohortflow.connectors.crawl.request import CrawlRequest
from cohortflow.errors import InputError

__all__ = ["increment"]


def increment(
    request: CrawlRequest,
    watermark: str,
    *,
    known_patients: Collection[str] | None = None,
    overlap: timedelta | None = None,
) -> CrawlRequest:
    """Return the request for what changed since a former extraction.

    Args:
        request: What the former extraction asked for.
        watermark: Its ``transaction_time``.
        known_patients: Whose records it fetched; others are fetched with their whole history, as new
            members of a group have to be (B10). ``None``: everybody's.
        overlap: How far before the watermark the search begins.

    Raises:
        InputError: The watermark is no FHIR instant.
    """
    try:
        since = datetime.fromisoformat(watermark)
    except ValueError:
        since = None
    if since is None or since.tzinfo is None:
        raise InputError(
            "The watermark is no FHIR instant.", remedy="Give the transaction time of a former extraction."
        )
    return dataclasses.replace(
        request,
        since=since,
        known_patients=None if known_patients is None else frozenset(known_patients),
        overlap=request.overlap if overlap is None else overlap,
    )
