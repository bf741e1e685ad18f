"""The clinics and their practitioners: the same for every size of population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohortflow.patterns import luhn_digit
from cohortflow.synthetic.names import CLINICS, FAMILY_NAMES, FEMALE_NAMES, MALE_NAMES
from cohortflow.synthetic.streams import Ids, Streams, below

__all__ = ["PRACTITIONERS_PER_CLINIC", "Staff", "npi"]

PRACTITIONERS_PER_CLINIC = 5
_NPI_PREFIX = "80840"  # ISO 7812 issuer that NPIs are checked with (45 CFR 162.406)


@dataclass(frozen=True, slots=True)
class Staff:
    """Who gives care; a practitioner's number is ``clinic * PRACTITIONERS_PER_CLINIC + place``.

    Attributes:
        organization_ids: Resource ids of the clinics, as in ``names.CLINICS``.
        practitioner_ids: Resource ids of the practitioners.
        given: First names.
        family: Family names.
        female: Sexes.
        npis: National provider identifiers.
    """

    organization_ids: tuple[str, ...]
    practitioner_ids: tuple[str, ...]
    given: tuple[str, ...]
    family: tuple[str, ...]
    female: tuple[bool, ...]
    npis: tuple[str, ...]

    @classmethod
    def draw(cls, streams: Streams) -> Staff:
        """Draw the staff of all clinics."""
        count = len(CLINICS) * PRACTITIONERS_PER_CLINIC
        words = streams.words("staff", 0, count, 4)
        female = [bool(word % np.uint64(2)) for word in words[:, 0]]
        first = below(words[:, 1], len(FEMALE_NAMES))
        family = below(words[:, 2], len(FAMILY_NAMES))
        organizations = Ids(streams.words("organization", 0, len(CLINICS), 2))
        practitioners = Ids(streams.words("practitioner", 0, count, 2))
        return cls(
            organization_ids=tuple(organizations.text()),
            practitioner_ids=tuple(practitioners.text()),
            given=tuple((FEMALE_NAMES if f else MALE_NAMES)[i] for f, i in zip(female, first, strict=True)),
            family=tuple(FAMILY_NAMES[i] for i in family),
            female=tuple(female),
            npis=tuple(npi(number) for number in range(1, count + 1)),
        )


def npi(number: int) -> str:
    """Return a National Provider Identifier with a valid check digit that is never issued.

    Issued identifiers begin with 1 or 2; these begin with 9.
    """
    body = f"9{number:08}"
    return f"{body}{luhn_digit(_NPI_PREFIX + body)}"
