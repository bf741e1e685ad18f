"""Classes of DICOM attributes, after the Basic Application Level Confidentiality Profile.

A column that holds a DICOM attribute has a path such as ``DICOM.PatientName`` or ``DICOM.00100010``, with
the sequences that it lies in: ``DICOM.RequestAttributesSequence.ScheduledProcedureStepID``.

``dicom_elements.csv`` holds the attributes of DICOM PS3.15 Annex E, Table E.1-1, with the profile's action
code (X remove, Z empty, D dummy, U replace UID), and attributes that describe an image and not a patient,
with K. What is not listed, private attributes among them, has no class and is dropped.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from cohortflow.model import PhiClass

__all__ = ["DICOM", "Attribute", "find_attribute", "load_attributes"]

DICOM: Final = "DICOM"
"""First segment of the path of an attribute."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One line of the table.

    Attributes:
        keyword: DICOM keyword, such as ``PatientName``.
        tag: Group and element, such as ``0010,0010``.
        code: Action of the Basic Profile, or ``K``.
        phi: The class.
        source: Paragraph of the regulation, empty where none makes it an identifier.
    """

    keyword: str
    tag: str
    code: str
    phi: PhiClass
    source: str

    @property
    def note(self) -> str:
        """Why, for people."""
        if self.code == "K":
            return "describes the image; not in DICOM PS3.15 Table E.1-1"
        return f"DICOM PS3.15 Table E.1-1, Basic Profile: {self.code}"


@lru_cache(maxsize=1)
def load_attributes() -> dict[str, Attribute]:
    """Read the shipped table, by keyword and by the eight digits of the tag."""
    text = resources.files("cohortflow.redaction").joinpath("dicom_elements.csv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines()):
        attribute = Attribute(row["keyword"], row["tag"], row["code"], PhiClass[row["class"]], row["source"])
        found[attribute.keyword] = found[attribute.tag.replace(",", "")] = attribute
    return found


def find_attribute(segments: tuple[str, ...]) -> Attribute | None:
    """Return the strictest attribute of a path, or ``None`` where one of them is not listed.

    A sequence that only leads to an attribute counts where the profile keeps none of its items.
    """
    known = load_attributes()
    found = [known.get(segment.upper() if segment[:1].isdigit() else segment) for segment in segments[1:]]
    attributes = [attribute for attribute in found if attribute is not None]
    if not attributes or len(attributes) < len(found):
        return None
    return max(attributes, key=lambda attribute: attribute.phi)
