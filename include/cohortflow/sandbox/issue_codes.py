"""The issue codes that Epic puts into ``issue.details.coding`` (E16)."""

from __future__ import annotations

from typing import Any

__all__ = ["ISSUE_TEXTS", "issue_details"]

ISSUE_TEXTS = {
    "4101": "The request returned no results.",
    "4102": "The request names a resource that does not exist.",
    "4103": "The resource was deleted.",
    "4107": "The resource was merged into another one.",
    "4111": "A search parameter that is required is missing.",
    "4112": "These search parameters cannot be combined.",
    "4113": "The session of this page is unknown or has expired.",
    "4118": "The client may not see these records.",
    "4119": "There may be more records than were returned.",
    "4122": "The client sent a query parameter that is not known; it was ignored.",
    "4127": "The request names more than 100 patients.",
    "4130": "Access to this patient's record needs a reason (break the glass).",
    "4131": "Access to this patient's record is restricted (break the glass).",
    "4134": "Records were left out, because access to them needs a reason (break the glass).",
    "4135": "The client has read as many documents as it may in one day.",
    "59100": "A parameter has a value that is not known; it was ignored.",
    "59108": "A required element is missing.",
    "59204": "The client is not authorized for a part of this resource, which is left out.",
}


def issue_details(system: str, code: str) -> dict[str, Any]:
    """The ``details`` of an issue: a coding, with the same text twice as Epic has it.

    Args:
        system: The site's OID, such as ``urn:oid:1.2.840.114350.1.13.861.1.7.2.657369``.
        code: A code of Epic.
    """
    text = ISSUE_TEXTS.get(code, "The server has something to say.")
    return {"coding": [{"system": system, "code": code, "display": text}], "text": text}
