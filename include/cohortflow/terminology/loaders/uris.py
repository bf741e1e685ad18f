"""Canonical URIs of code systems that loaders meet, and whose codes have no spelling of their own.

Source: HL7 Terminology, "External Code Systems". ICD-9-CM's volume 3, procedures, has an OID and no URI.
"""

from __future__ import annotations

__all__ = ["ATC", "ICD9CM_PROCEDURES"]

ATC = "http://www.whocc.no/atc"
ICD9CM_PROCEDURES = "urn:oid:2.16.840.1.113883.6.104"
