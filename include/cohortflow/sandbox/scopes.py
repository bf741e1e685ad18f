"""SMART system scopes, version 1 (``system/Patient.read``) and 2 (``system/Patient.rs``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cohortflow.sandbox.outcome import OAuthRefusalError
from cohortflow.sandbox.resource_types import RESOURCE_TYPES

__all__ = ["EVERYTHING", "Scope", "allows", "grant_scopes", "parse_scopes"]

_SCOPE = re.compile(r"system/(\*|[A-Za-z]+)\.(read|write|\*|(?=[cruds])c?r?u?d?s?)")
_V1_ACTIONS = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be done with a resource type.

    Attributes:
        resource_type: A type, or ``*``.
        actions: Of ``r`` (read) and ``s`` (search); the sandbox grants no writing.
        version: In which version of the syntax it was written.
    """

    resource_type: str
    actions: frozenset[str]
    version: int = 2

    def __str__(self) -> str:
        read = "read" if self.version == 1 and len(self.actions) > 1 else "".join(sorted(self.actions))
        return f"system/{self.resource_type}.{read}"


EVERYTHING = (Scope("*", frozenset("rs")),)


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Read a scope string.

    Raises:
        OAuthRefusalError: ``invalid_scope``: there is none, or one is no system scope of a FHIR type.
    """
    scopes = []
    for word in text.split():
        match = _SCOPE.fullmatch(word)
        if match is None or (match[1] != "*" and match[1] not in RESOURCE_TYPES):
            raise OAuthRefusalError(
                "invalid_scope", "use system scopes such as system/Patient.rs or system/*.read"
            )
        actions = _V1_ACTIONS.get(match[2], match[2])
        scopes.append(Scope(match[1], frozenset(actions), 1 if match[2] in _V1_ACTIONS else 2))
    if not scopes:
        raise OAuthRefusalError("invalid_scope", "the request names no scope")
    return tuple(scopes)


def grant_scopes(requested: Iterable[Scope], allowed: Iterable[Scope]) -> tuple[Scope, ...]:
    """What of the requested scopes the client may have.

    Raises:
        OAuthRefusalError: ``invalid_scope``: nothing of it.
    """
    limits = tuple(allowed)
    granted: dict[Scope, None] = {}
    for scope in requested:
        for limit in limits:
            actions = scope.actions & limit.actions & frozenset("rs")
            if actions and "*" in {scope.resource_type, limit.resource_type}:
                narrow = limit.resource_type if scope.resource_type == "*" else scope.resource_type
                granted[Scope(narrow, actions, scope.version)] = None
            elif actions and scope.resource_type == limit.resource_type:
                granted[Scope(scope.resource_type, actions, scope.version)] = None
    if not granted:
        raise OAuthRefusalError("invalid_scope", "the client is registered for none of these scopes")
    return tuple(granted)


def allows(scopes: Iterable[Scope], resource_type: str, actions: str) -> bool:
    """Whether scopes allow all these actions on a type."""
    held: set[str] = set()
    for scope in scopes:
        if scope.resource_type in {"*", resource_type}:
            held |= scope.actions
    return held.issuperset(actions)
