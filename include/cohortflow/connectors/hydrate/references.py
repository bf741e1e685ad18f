"""Which resources others refer to, found in lines of NDJSON.

Source: http://hl7.org/fhir/R4/references.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson

__all__ = [
    "REFERENCE_RULES",
    "Attachment",
    "Reference",
    "ReferenceRule",
    "find_attachments",
    "find_references",
]

_REFERENCE = re.compile(rb'"reference"\s*:\s*"([^"\\]+)"')
_RELATIVE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-._]{1,255})(?:/_history/[A-Za-z0-9\-.]{1,64})?")


@dataclass(frozen=True, slots=True)
class ReferenceRule:
    """References worth following.

    Attributes:
        targets: Types that are fetched.
        elements: Elements per type of the referring resource; empty: any reference of any type.
    """

    targets: frozenset[str]
    elements: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


REFERENCE_RULES: Mapping[str, ReferenceRule] = MappingProxyType(
    {
        # E14: exports withhold the members of panels.
        "members": ReferenceRule(
            frozenset({"Observation"}),
            MappingProxyType({"Observation": "hasMember", "DiagnosticReport": "result"}),
        ),
        "medications": ReferenceRule(
            frozenset({"Medication"}),
            MappingProxyType(
                dict.fromkeys(
                    (
                        "MedicationAdministration",
                        "MedicationDispense",
                        "MedicationRequest",
                        "MedicationStatement",
                    ),
                    "medicationReference",
                )
            ),
        ),
        "staff": ReferenceRule(frozenset({"Location", "Organization", "Practitioner", "PractitionerRole"})),
    }
)
"""Rules by name."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference that a rule speaks of.

    Attributes:
        type: Target type.
        id: Target id; empty where it cannot be fetched.
        fault: Why not: ``other-server`` or ``unresolvable``.
    """

    type: str
    id: str = field(default="", repr=False)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Content that is kept apart from its resource.

    Attributes:
        binary_id: Id of the Binary; empty where it cannot be fetched.
        content_type: MIME type that the resource states, without parameters, in lower case.
        fault: Why it cannot be fetched: ``other-server`` or ``unresolvable``.
    """

    binary_id: str = field(repr=False)
    content_type: str
    fault: str = ""


def find_references(
    line: bytes, resource_type: str, rules: Collection[ReferenceRule], base_url: str
) -> Iterator[Reference]:
    """Yield the references of one resource that rules speak of.

    Args:
        line: The resource as JSON.
        resource_type: Its type.
        rules: What to look for.
        base_url: Of the server that it comes from; absolute references to others are faults.
    """
    for rule in rules:
        if not rule.elements:
            for match in _REFERENCE.finditer(line):
                yield from _resolve(match[1].decode("utf-8", "replace"), rule.targets, base_url)
            continue
        element = rule.elements.get(resource_type)
        if element is None or f'"{element}"'.encode() not in line:
            continue
        for value in _objects(_decode(line).get(element)):
            if isinstance(text := value.get("reference"), str):
                yield from _resolve(text, rule.targets, base_url)


def find_attachments(line: bytes, resource_type: str, base_url: str) -> Iterator[Attachment]:
    """Yield the attachments of a DocumentReference or DiagnosticReport whose content is elsewhere."""
    if resource_type == "DocumentReference":
        attachments = [content.get("attachment") for content in _objects(_decode(line).get("content"))]
    elif resource_type == "DiagnosticReport" and b'"presentedForm"' in line:
        attachments = list(_objects(_decode(line).get("presentedForm")))
    else:
        return
    for attachment in _objects(attachments):
        url = attachment.get("url")
        if not isinstance(url, str) or attachment.get("data"):
            continue
        kind = attachment.get("contentType")
        content_type = main_type(kind) if isinstance(kind, str) else ""
        for target in _resolve(url, frozenset({"Binary"}), base_url, certain=True):
            yield Attachment(target.id, content_type, target.fault)


def main_type(content_type: str) -> str:
    """Return a MIME type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _resolve(
    text: str, targets: frozenset[str], base_url: str, *, certain: bool = False
) -> Iterator[Reference]:
    """Yield what a reference points to, where that is of a wanted type.

    Args:
        text: The reference.
        targets: Wanted types.
        base_url: Of our server.
        certain: Whether it is of a wanted type even where its text does not say so.
    """
    local = text.removeprefix(f"{base_url}/")
    if match := _RELATIVE.fullmatch(local):
        if match[1] in targets:
            yield Reference(match[1], match[2])
        return
    if text.startswith("#"):
        return  # contained: it is there
    named = next((kind for kind in targets if f"/{kind}/" in text or text.startswith(f"{kind}?")), "")
    if named or certain:
        fault = "other-server" if re.match(r"https?://", text) else "unresolvable"
        yield Reference(named or min(targets), "", fault)


def _decode(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}  # a malformed line is for the reader of the file to judge
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> tuple[dict[str, Any], ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, dict))
