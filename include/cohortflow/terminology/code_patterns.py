"""Ranges and wildcards of hierarchical codes, as regular expressions of the whole canonical code.

FHIR has no filter for them; value sets of cohorts are full of them. In ICD-10 the code itself tells where it
belongs, so that no table is needed: a category has three characters, and what is below it begins with them.
"""

from __future__ import annotations

import re
from itertools import groupby

from cohortflow.terminology.systems import ICD10, ICD10CM, STANDARD_SYSTEMS, canonical_code

__all__ = ["code_list_pattern", "subtree_pattern"]

_ICD10 = frozenset({ICD10.uri, ICD10CM.uri})
_THIRD = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CATEGORY = re.compile(r"[A-Z][0-9][0-9A-Z]")


def subtree_pattern(system: str, code: str) -> str:
    """Return the pattern of an ICD-10 code and all codes below it."""
    stem = canonical_code(system, code)
    return re.escape(stem) + (r"[0-9A-Z]*" if "." in stem else r"(?:\.[0-9A-Z]+)?")


def code_list_pattern(system: str, text: str) -> str:
    """Return the pattern of a list of codes.

    Args:
        system: Canonical URI.
        text: Codes with commas between them. ``E11.*`` stands for all codes that begin with ``E11.``, and in
            ICD-10 ``E10-E14`` for these categories, those between them, and all codes below.

    Raises:
        ValueError: A code, a range or a wildcard is malformed. The message tells the problem.
    """
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise ValueError("A code of the list is empty.")
    return "|".join(_item_pattern(system, item) for item in items)


def _item_pattern(system: str, item: str) -> str:
    if "*" in item:
        stem = item.rstrip("*")
        if "*" in stem or not stem:
            raise ValueError(f"The wildcard '{item}' must stand at the end of a code.")
        # The dot belongs to the spelling; E11.* has the code E11 itself not among its codes.
        return re.escape(stem.upper() if system in _ICD10 else stem) + ".+"
    first, separator, last = item.partition("-")
    if separator and system in _ICD10:
        return _range_pattern(first.strip().upper(), last.strip().upper())
    code = canonical_code(system, item)
    known = STANDARD_SYSTEMS.get(system)
    if known is not None and known.syntax and not re.fullmatch(known.syntax, code):
        raise ValueError(f"'{item}' is no code of {known.title}.")
    return re.escape(code)


def _range_pattern(first: str, last: str) -> str:
    for end in (first, last):
        if not _CATEGORY.fullmatch(end):
            raise ValueError(f"The range {first}-{last} must be of categories, such as E10-E14.")
    if first > last:
        raise ValueError(f"The range {first}-{last} ends before it begins.")
    categories = (
        f"{letter}{digit}{third}" for letter in _LETTERS for digit in _THIRD[:10] for third in _THIRD
    )
    inside = [category for category in categories if first <= category <= last]
    stems = [
        f"{stem}[{''.join(category[2] for category in group)}]"
        for stem, group in groupby(inside, key=lambda category: category[:2])
    ]
    return f"(?:{'|'.join(stems)})(?:\\.[0-9A-Z]+)?"
