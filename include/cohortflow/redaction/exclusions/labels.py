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

__all__ = [
    "ENCOUNTERS",
    "INLINE_LABEL",
    "LABELS",
    "UNCLEAR",
    "add_labels",
    "encounter_path",
    "has_label",
    "label_view",
    "names_any",
    "spell_labels",
    "subject_path",
]

LABELS: Final = "cohortflow_labels"
"""Column with the labels of a row's resource, each as ``system|code``."""

ENCOUNTERS: Final = "cohortflow_encounters"
"""Column with the ids of the encounters that a row's resource belongs to, or is a part of."""

UNCLEAR: Final = "cohortflow_unclear"
"""Column of ``label_view``: whether a resource names its patient in a way that gives no id."""

INLINE_LABEL: Final = ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "PROCESSINLINELABEL")
"""The label that says: parts of the resource bear labels of their own. Which ones is not read."""

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

    Where resources of the view's type belong to encounters, it has the column ``ENCOUNTERS``, too.

    Raises:
        StudyError: The view has a column of one of these names.
    """
    document = copy.deepcopy(dict(view))
    text = str(document).replace("'", '"')
    if taken := [name for name in (LABELS, ENCOUNTERS) if f'"{name}"' in text]:
        raise StudyError(
            f"The view '{document.get('name')}' has a column '{taken[0]}'.", remedy="Rename that column."
        )
    columns = [_COLUMN, *_encounter_columns(str(document["resource"]))]
    document["select"] = [*document["select"], {"column": columns}]
    return document


def _encounter_columns(resource: str) -> list[dict[str, Any]]:
    path = encounter_path(resource)
    return [{"name": ENCOUNTERS, "path": path, "collection": True}] if path else []


def label_view(resource: str) -> dict[str, Any]:
    """Return a ViewDefinition of a resource type's labels: ``record_id, patient_id, UNCLEAR, LABELS``.

    ``patient_id`` and ``UNCLEAR`` are missing where resources of the type name no patient. Of Encounters it
    has ``ENCOUNTERS``, too.
    """
    columns: list[dict[str, Any]] = [{"name": "record_id", "path": "getResourceKey()"}]
    if path := subject_path(resource):
        columns.append({"name": "patient_id", "path": path})
    if name := _subject_element(resource):
        # A Group or a Device is no patient; a contained resource or a logical identifier may be one.
        unclear = f"{name}.exists() and {name}.getReferenceKey().empty()"
        columns.append({"name": UNCLEAR, "path": unclear})
    columns.append(_COLUMN)
    if resource == "Encounter":
        columns += _encounter_columns(resource)
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
    name = _subject_element(resource)
    return f"{name}.getReferenceKey(Patient)" if name else ""


def _subject_element(resource: str) -> str:
    for name in _SUBJECTS:
        element = find_element(resource, name)
        if element is None or element.many or element.types != ("Reference",):
            continue
        if not element.targets or "Patient" in element.targets:
            return name
    return ""


def encounter_path(resource: str) -> str:
    """Return the FHIRPath of the encounters that resources of a type belong to, or an empty text."""
    if resource == "Encounter":
        return "partOf.getReferenceKey(Encounter)"
    for name in ("encounter", "context"):
        element = find_element(resource, name)
        if element is not None and element.types != ("Reference",):
            # DocumentReference.context.encounter
            name, element = f"{name}.encounter", find_element(element.types[0], "encounter")  # noqa: PLW2901
        if element is not None and "Encounter" in element.targets:
            return f"{name}.getReferenceKey(Encounter)"
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


def names_any(ids: pl.Expr, known: pl.Series) -> pl.Expr:
    """Return whether a list holds one of some ids, never null; none of them appears in the query plan.

    Args:
        ids: Such as ``ENCOUNTERS``.
        known: The ids.
    """
    import polars as pl

    return ids.map_batches(
        lambda lists: lists.list.eval(pl.element().is_in(known.implode())).list.any().fill_null(value=False),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )


def has_label(labels: pl.Expr, known: Sequence[str] | frozenset[str]) -> pl.Expr:
    """Return whether a resource bears one of the labels, never null.

    Args:
        labels: ``LABELS``.
        known: As ``spell_labels`` gives them.
    """
    import polars as pl

    return labels.list.eval(pl.element().is_in(sorted(known))).list.any().fill_null(value=False)
