"""A ConceptMap, R4 or R5, of what reviewers accepted.

R5 has the authors as an element; R4 gets them by the cross-version extension of it
(http://hl7.org/fhir/5.0/StructureDefinition/extension-ConceptMap.author).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from cohortflow.errors import InputError
from cohortflow.terminology.concept_map import Relationship, parse_concept_map
from cohortflow.terminology.review import Decision, Target
from cohortflow.terminology.review_file import ReviewRow
from cohortflow.terminology.systems import canonical_code, canonical_system

__all__ = ["FhirVersion", "build_reviewed_map"]

FhirVersion = Literal["R4", "R5"]

_AUTHOR: Final = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ConceptMap.author"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_EQUIVALENCE: Mapping[str, str] = {
    Relationship.EQUIVALENT: "equivalent",
    Relationship.NARROWER: "wider",
    Relationship.BROADER: "narrower",
    Relationship.RELATED: "relatedto",
}
_RANK = [str(relationship) for relationship in Relationship]


def build_reviewed_map(
    rows: Sequence[ReviewRow],
    targets: Mapping[tuple[str, str], Target],
    *,
    name: str,
    title: str = "",
    fhir: FhirVersion = "R5",
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a map of accepted rows.

    Its version is a digest of the mappings: other content, another version. It holds no date, because it
    stands in published rows, where a date is taken for a patient's.

    Args:
        rows: What ``check_review`` returned.
        targets: The concepts that they map to, with their names.
        name: Of the map in the catalog.
        title: Name for people.
        fhir: Version of FHIR; of an earlier map its own.
        earlier: A map to add to. What the rows say of a source and a target system takes the place of what it
            said of them.

    Raises:
        InputError: The name is not one of the catalog.
        CatalogError: The earlier map is malformed.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name a map.",
            remedy="Use small letters, digits and underscores: lab_to_loinc.json.",
        )
    if earlier is not None:
        parse_concept_map(earlier, name=name, place=f"{name}.json")
        fhir = _version_of(earlier)
    groups = _keep_groups(earlier, rows) if earlier else {}
    for row in rows:
        elements = groups.setdefault((row.source_system, row.target_system), {})
        element = elements.setdefault(row.source_code, {"code": row.source_code})
        if row.source_display:
            element["display"] = row.source_display
        _add_target(element, row, targets.get(row.target), fhir)
    written = [
        {"source": source, "target": target, "element": [elements[code] for code in sorted(elements)]}
        for (source, target), elements in sorted(groups.items())
        if elements
    ]
    authors = sorted({*(_authors(earlier) if earlier else ()), *(row.reviewer for row in rows)})
    day = max([row.date for row in rows] + ([str(earlier.get("date", ""))] if earlier else []))
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:8]
    return {
        **_describe(name, title),
        **(earlier or {}),
        "version": f"r{digest}",
        "date": day,
        **_name_authors(authors, fhir, earlier or {}),
        "group": written,
    }


def _describe(name: str, title: str) -> dict[str, Any]:
    return {
        "resourceType": "ConceptMap",
        "id": name.replace("_", "-")[:64],
        "version": "",
        "name": "".join(word.capitalize() for word in name.split("_")),
        "title": title or name.replace("_", " ").capitalize(),
        "status": "active",
        "experimental": False,
        "date": "",
    }


def _add_target(element: dict[str, Any], row: ReviewRow, target: Target | None, fhir: FhirVersion) -> None:
    comment = f"{row.reviewer}, {row.date}" + (f": {row.comment}" if row.comment else "")
    if row.decision == Decision.NO_TARGET:
        if fhir == "R5":
            element["noMap"] = True
        else:
            element["target"] = [{"equivalence": "unmatched", "comment": comment}]
        return
    added = {"code": row.target_code}
    if target is not None and target.display:
        added["display"] = target.display
    if fhir == "R5":
        added["relationship"] = row.relationship
    else:
        added["equivalence"] = _EQUIVALENCE[row.relationship]
    others = [known for known in element.get("target", []) if known["code"] != row.target_code]
    element["target"] = sorted([*others, {**added, "comment": comment}], key=_order)


def _order(target: Mapping[str, Any]) -> tuple[int, str]:
    equivalences = list(_EQUIVALENCE.values())
    rank = (
        _RANK.index(target["relationship"])
        if "relationship" in target
        else equivalences.index(target["equivalence"])
    )
    return rank, target["code"]


def _keep_groups(
    earlier: Mapping[str, Any], rows: Iterable[ReviewRow]
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Return the elements of a map by source and target system and code, but for those decided anew."""
    decided = {(row.source, row.target_system) for row in rows}
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for group in earlier["group"]:
        source, target = canonical_system(group["source"]), canonical_system(group["target"])
        elements = groups.setdefault((source, target), {})
        for element in group["element"]:
            code = canonical_code(source, element["code"])
            if ((source, code), target) not in decided:
                elements[code] = element
    return groups


def _version_of(earlier: Mapping[str, Any]) -> FhirVersion:
    targets = [
        target
        for group in earlier["group"]
        for element in group["element"]
        for target in element.get("target", ())
    ]
    return "R4" if any("equivalence" in target for target in targets) else "R5"


def _authors(earlier: Mapping[str, Any]) -> list[str]:
    extensions = [
        part["valueContactDetail"] for part in earlier.get("extension", ()) if part["url"] == _AUTHOR
    ]
    return [detail["name"] for detail in (*earlier.get("author", ()), *extensions) if detail.get("name")]


def _name_authors(authors: Sequence[str], fhir: FhirVersion, earlier: Mapping[str, Any]) -> dict[str, Any]:
    details = [{"name": name} for name in authors]
    if fhir == "R5":
        return {"author": details}
    others = [part for part in earlier.get("extension", ()) if part["url"] != _AUTHOR]
    return {"extension": [*others, *({"url": _AUTHOR, "valueContactDetail": detail} for detail in details)]}
