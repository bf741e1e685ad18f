"""Security labels: ``Resource.meta.security`` against sets of codes.

A label is a coding of a sensitivity (``v3-ActCode``), of a confidentiality (``v3-Confidentiality``) or of a
law. The law that a label rests on may stand in an extension of it (Data Segmentation for Privacy,
http://hl7.org/fhir/uv/security-label-ds4p), so that is read as well.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cohortflow.errors import StudyError
from cohortflow.fhir.elements import find_element

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LABELS", "add_labels", "has_label", "label_view", "spell_labels", "subject_path"]

LABELS: Final = "cohortflow_labels"
"""Column with the labels of a row's resource, each as ``system|code``."""

_BASIS: Final = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-sec-label-basis"
_COLUMN: Final[dict[str, Any]] = {
    "name": LABELS,
    "path": "meta.security.select(system & '|' & code).combine("
    f"meta.security.extension('{_BASIS}').value.ofType(Coding).select(system & '|' & code))",
    "collection": True,
}
# Elements by which a resource names its patient.
_SUBJECTS: Final = ("subject", "patient", "beneficiary", "individual")
_SPELLINGS: Final = {
    "http://terminology.hl7.org/CodeSystem/v3-ActCode": (
        "http://hl7.org/fhir/v3/ActCode",
        "urn:oid:2.16.840.1.113883.5.4",
    ),
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality": (
        "http://hl7.org/fhir/v3/Confidentiality",
        "urn:oid:2.16.840.1.113883.5.25",
    ),
}


def add_labels(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ViewDefinition with the column ``LABELS``, so that the view's own read yields it.

    Raises:
        StudyError: The view has a column of this name.
    """
    document = copy.deepcopy(dict(view))
    if f'"{LABELS}"' in str(document).replace("'", '"'):
        raise StudyError(
            f"The view '{document.get('name')}' has a column '{LABELS}'.", remedy="Rename that column."
        )
    document["select"] = [*document["select"], {"column": [_COLUMN]}]
    return document


def label_view(resource: str) -> dict[str, Any]:
    """Return a ViewDefinition of a resource type's labels: ``record_id, patient_id, LABELS``.

    ``patient_id`` is missing where resources of the type name no patient.
    """
    columns: list[dict[str, Any]] = [{"name": "record_id", "path": "getResourceKey()"}, _COLUMN]
    if path := subject_path(resource):
        columns.insert(1, {"name": "patient_id", "path": path})
    return {
        "resourceType": "ViewDefinition",
        "name": "exclusions_labels",
        "status": "active",
        "resource": resource,
        "select": [{"column": columns}],
    }


def subject_path(resource: str) -> str:
    """Return the FHIRPath of the patient that resources of a type belong to, or an empty text."""
    if resource == "Patient":
        return "getResourceKey()"
    for name in _SUBJECTS:
        element = find_element(resource, name)
        if element is None or element.many or element.types != ("Reference",):
            continue
        if not element.targets or "Patient" in element.targets:
            return f"{name}.getReferenceKey(Patient)"
    return ""


def spell_labels(codings: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return codings in all spellings that labels have: with older names of their system, or with none.

    Args:
        codings: Canonical system and code.
    """
    return frozenset(
        f"{spelling}|{code}"
        for system, code in codings
        for spelling in (system, *_SPELLINGS.get(system, ()), "")
    )


def has_label(labels: pl.Expr, known: Sequence[str] | frozenset[str]) -> pl.Expr:
    """Return whether a resource bears one of the labels, never null.

    Args:
        labels: ``LABELS``.
        known: As ``spell_labels`` gives them.
    """
    import polars as pl

    return labels.list.eval(pl.element().is_in(sorted(known))).list.any().fill_null(value=False)
