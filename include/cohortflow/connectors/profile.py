"""What sets one kind of server apart from another: data, no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["GENERIC", "PROFILES", "Level", "ServerProfile"]

Level = Literal["system", "patient", "group"]

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """How a kind of server departs from the Bulk Data specification.

    Attributes:
        name: What the ``profile`` field of a connection calls it.
        levels: Export operations that exist.
        unsupported_parameters: Parameters that the server would refuse or, worse, ignore.
        kick_off_method: ``GET``, or ``POST`` with a Parameters resource (the only form in Bulk Data 4.0).
        kick_off_attempts: How often a kick-off is tried; ``None``: as often as other requests.
        encode_filter_commas: Whether commas within a ``_typeFilter`` are percent-encoded once more.
        poll_seconds: Wait between polls where the server does not say.
        max_wait_seconds: How long an export may take.
        max_outage_seconds: How long the server may stay unreachable while an export runs.
        trust_counts: Whether the manifest's ``count`` is the number of resources in a file.
        fatal_codes: Issue codes that mean that a filter or parameter was ignored: the export is refused.
        warning_codes: Issue codes that are warnings whatever their severity says.
    """

    name: str = "generic"
    levels: frozenset[Level] = frozenset({"system", "patient", "group"})
    unsupported_parameters: frozenset[str] = frozenset()
    kick_off_method: Literal["GET", "POST"] = "GET"
    kick_off_attempts: int | None = None
    encode_filter_commas: bool = False
    poll_seconds: float = 30.0
    max_wait_seconds: float = 30 * _DAY
    max_outage_seconds: float = _DAY / 4
    trust_counts: bool = True
    fatal_codes: frozenset[str] = frozenset()
    warning_codes: frozenset[str] = frozenset()


GENERIC = ServerProfile()
"""A server that keeps to Bulk Data 2.0 or 3.0."""

PROFILES = {GENERIC.name: GENERIC}
"""Profiles by name."""
