"""Code systems: one canonical URI and one spelling of a code for each.

Canonical URIs and OIDs are those of HL7 Terminology (https://terminology.hl7.org, "External Code Systems");
the short names are those of HL7 v2 table 0396 and those that hospitals write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "ALIASES",
    "CPT",
    "CVX",
    "HCPCS",
    "ICD9CM",
    "ICD10",
    "ICD10CM",
    "ICD10PCS",
    "LOINC",
    "NDC",
    "RXNORM",
    "SNOMED_CT",
    "STANDARD_SYSTEMS",
    "UCUM",
    "CodeSystem",
    "canonical_code",
    "canonical_system",
    "segment_pattern",
    "system_key",
]


@dataclass(frozen=True, slots=True)
class CodeSystem:
    """A published code system.

    Attributes:
        uri: Canonical URI, as FHIR's ``Coding.system`` should have it.
        title: Name for people.
        oid: Object identifier without ``urn:oid:``, or empty.
        names: Short names and other URIs in use.
        syntax: Regular expression of a whole canonical code. A text that does not match cannot be a code of
            this system, whatever the record claims. Empty where the syntax is too wide to tell.
        dotted: Whether a dot follows the third character (ICD-10) and may be missing at the source.
        uppercase: Whether case carries no meaning and upper case is canonical.
        digits: Least number of digits; shorter codes are padded with zeros.
        segments: Digits of each part of a code that may be written with hyphens and without leading zeros;
            canonical is the whole, padded, without hyphens.
    """

    uri: str
    title: str
    oid: str = ""
    names: tuple[str, ...] = ()
    syntax: str = ""
    dotted: bool = False
    uppercase: bool = False
    digits: int = 0
    segments: tuple[int, ...] = ()


SNOMED_CT = CodeSystem(
    "http://snomed.info/sct",
    "SNOMED CT",
    "2.16.840.1.113883.6.96",
    ("SNOMED CT", "SNOMED", "SNOMEDCT_US", "SCT", "SNM3"),
    r"[1-9][0-9]{5,17}",
)
LOINC = CodeSystem(
    "http://loinc.org",
    "LOINC",
    "2.16.840.1.113883.6.1",
    ("LOINC", "LN", "LNC"),
    r"(?:L[APG])?[0-9]{1,7}-[0-9]",
    uppercase=True,
)
RXNORM = CodeSystem(
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "RxNorm",
    "2.16.840.1.113883.6.88",
    ("RxNorm", "RXNORM", "RXN"),
    r"[1-9][0-9]{0,6}",
)
ICD10CM = CodeSystem(
    "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD-10-CM",
    "2.16.840.1.113883.6.90",
    ("ICD-10-CM", "I10C", "http://terminology.hl7.org/CodeSystem/icd10CM"),
    r"[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?",
    dotted=True,
    uppercase=True,
)
ICD10 = CodeSystem(
    "http://hl7.org/fhir/sid/icd-10",
    "ICD-10 (WHO)",
    "2.16.840.1.113883.6.3",
    ("ICD-10", "I10"),
    r"[A-Z][0-9]{2}(?:\.[0-9]{1,2})?",
    dotted=True,
    uppercase=True,
)
ICD9CM = CodeSystem(
    "http://hl7.org/fhir/sid/icd-9-cm",
    "ICD-9-CM",
    "2.16.840.1.113883.6.103",
    ("ICD-9-CM", "I9C", "I9CDX", "http://terminology.hl7.org/CodeSystem/icd9cm"),
    r"(?:E[0-9]{3}|V[0-9]{2}|[0-9]{3})(?:\.[0-9]{1,2})?",
    uppercase=True,
)
ICD10PCS = CodeSystem(
    "http://www.cms.gov/Medicare/Coding/ICD10",
    "ICD-10-PCS",
    "2.16.840.1.113883.6.4",
    ("ICD-10-PCS", "I10P", "http://hl7.org/fhir/sid/icd-10-pcs"),
    uppercase=True,
)
CVX = CodeSystem(
    "http://hl7.org/fhir/sid/cvx",
    "CVX",
    "2.16.840.1.113883.12.292",
    ("CVX", "http://www2a.cdc.gov/vaccines/iis/iisstandards/vaccines.asp?rpt=cvx"),
    r"[0-9]{2,3}",
    digits=2,
)
NDC = CodeSystem(
    "http://hl7.org/fhir/sid/ndc",
    "NDC",
    "2.16.840.1.113883.6.69",
    ("NDC",),
    # Ten digits without hyphens are 4-4-2, 5-3-2 or 5-4-1: which of them, only the hyphens tell.
    r"[0-9]{11}",
    segments=(5, 4, 2),
)
CPT = CodeSystem(
    "http://www.ama-assn.org/go/cpt",
    "CPT",
    "2.16.840.1.113883.6.12",
    ("CPT", "CPT-4", "C4", "CPT4"),
    r"[0-9]{4}[0-9A-Z]",
    uppercase=True,
)
HCPCS = CodeSystem(
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "HCPCS Level II",
    "2.16.840.1.113883.6.285",
    ("HCPCS", "HCPC", "HPC", "http://terminology.hl7.org/CodeSystem/HCPCS-all-codes"),
    r"[A-V][0-9]{4}",
    uppercase=True,
)
UCUM = CodeSystem(
    "http://unitsofmeasure.org",
    "UCUM",
    "2.16.840.1.113883.6.8",
    ("UCUM",),
)

STANDARD_SYSTEMS: Mapping[str, CodeSystem] = MappingProxyType(
    {
        system.uri: system
        for system in (
            SNOMED_CT,
            LOINC,
            RXNORM,
            ICD10CM,
            ICD10,
            ICD9CM,
            ICD10PCS,
            CVX,
            NDC,
            CPT,
            HCPCS,
            UCUM,
        )
    }
)
"""Published systems by canonical URI. Codes of any other system may be a hospital's own text."""

# The steps of `system_key`, shared with the Polars form of it: pattern and replacement, in this order.
KEY_STEPS: tuple[tuple[str, str], ...] = (
    (r"\|.*$", ""),  # a version: http://snomed.info/sct|http://snomed.info/sct/731000124108
    (r"^https?://(?:www\.)?", ""),
    (r"^urn:oid:", ""),
    (r"^(snomed\.info/sct)/.*$", "${1}"),  # an edition, or a version of one
    (r"/+$", ""),
)
SHORT_NAME = r"^[a-z0-9 _\-]+$"
"""A key of this form is a short name: blanks, hyphens and underscores in it carry no meaning."""
DOTTED_CODE = r"[0-9A-Z][0-9A-Z.]*"
"""Upper-case text whose dots may be moved; any other text in place of a code is left as it is."""
BARE_OID = r"^[0-2](?:\.(?:0|[1-9][0-9]*)){2,}$"


def system_key(text: str) -> str:
    """Return the form in which two spellings of a system are compared."""
    key = text.strip().lower()
    for pattern, replacement in KEY_STEPS:
        key = re.sub(pattern, replacement.replace("${1}", r"\1"), key)
    return re.sub(r"[ _\-]", "", key) if re.match(SHORT_NAME, key) else key


ALIASES: Mapping[str, str] = MappingProxyType(
    {
        system_key(name): system.uri
        for system in STANDARD_SYSTEMS.values()
        for name in (system.uri, system.oid, *system.names)
    }
)
"""Key of every known spelling to the canonical URI."""


def canonical_system(text: str) -> str:
    """Return the canonical URI of a code system.

    OID, ``urn:oid:``, ``https``, trailing slash, version suffix and short names all lead to one URI. A system
    that is not known keeps its spelling, but a bare OID gets its ``urn:oid:``.
    """
    known = ALIASES.get(system_key(text))
    if known is not None:
        return known
    stripped = re.sub(r"\|.*$", "", text.strip()).strip()
    return f"urn:oid:{stripped}" if re.match(BARE_OID, stripped) else stripped


def canonical_code(system: str, code: str) -> str:
    """Return the canonical spelling of a code.

    Args:
        system: Canonical URI of the system.
        code: A code as a source wrote it: ``E1165``, ``e11.65`` and ``E11.65`` are one in ICD-10-CM.
    """
    code = code.strip()
    known = STANDARD_SYSTEMS.get(system)
    if known is None:
        return code
    if known.uppercase:
        code = code.upper()
    if known.dotted and re.fullmatch(DOTTED_CODE, code):
        code = code.replace(".", "")
        code = f"{code[:3]}.{code[3:]}" if len(code) > 3 else code  # noqa: PLR2004 - the dot's place in ICD-10
    if known.segments and re.fullmatch(segment_pattern(known), code):
        code = "".join(part.zfill(n) for part, n in zip(code.split("-"), known.segments, strict=True))
    return code.zfill(known.digits) if known.digits and code else code


def segment_pattern(system: CodeSystem) -> str:
    """Return the pattern of a code with hyphens between its segments, each of which is a group.

    A segment lacks one leading zero at most, as in the 10-digit forms of NDC.
    """
    return "-".join(f"([0-9]{{{max(n - 1, 1)},{n}}})" for n in system.segments)
