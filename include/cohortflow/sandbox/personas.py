"""The servers that the sandbox can play: the specification, Epic, Oracle Health and two of its kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import get_args

from cohortflow.errors import ConfigurationError
from cohortflow.sandbox.persona import BulkVersion, PageLimit, Persona, RequiredParameters
from cohortflow.sandbox.resource_types import RESOURCE_TYPES

__all__ = ["CERNER", "EPIC", "GENERIC", "HDR", "PERSONAS", "SOARIAN", "persona_named", "persona_variant"]

_DAY = 86_400.0

GENERIC = Persona()
"""Bulk Data 3.0, which serves clients of 2.0, and FHIR search as the specifications have them."""

EPIC = Persona(
    name="epic",
    software="Epic",
    longest_token_id=151,  # E8
    client_header="Epic-Client-ID",  # E10
    issue_system="urn:oid:1.2.840.114350.1.13.861.1.7.2.657369",  # E16: 861 stands for the site
    bulk_version="2.0",
    export_levels=frozenset({"group"}),  # E1
    missing_level_status=400,
    unsupported_parameters=frozenset({"_elements", "patient", "includeAssociatedData"}),
    ignored_parameters=frozenset({"_since"}),  # E3
    unexported_types=frozenset({"MedicationAdministration"}),  # E20
    commas_split_filters=True,  # E12
    kickoff_window=_DAY,  # E4
    resources_per_file=3000,  # E5
    lists_deleted=False,
    progress="Processing patients",
    states_last_updated=False,  # E3
    long_id_types=frozenset({"DiagnosticReport"}),  # E18
    withheld_members=frozenset({"Observation.hasMember", "DiagnosticReport.result"}),  # E14
    unsearchable_types=frozenset({"Group"}),  # E1
    absent_types=frozenset({"MedicationAdministration"}),  # E20
    unknown_search_parameters="ignore",  # E16: 4122
    ignored_search_parameters=frozenset({"_lastUpdated"}),  # E3
    required_search={
        "Observation": RequiredParameters(("category", "code", "_id"), "59108"),  # E13
        "Patient": RequiredParameters(("_id", "identifier", "family", "given", "name", "birthdate")),  # E1
        "EpisodeOfCare": RequiredParameters(("type", "_id")),  # E20
    },
    refused_categories={"Observation": frozenset({"procedure", "therapy", "activity"})},  # E13
    max_search_patients=100,  # E16: 4127
    filters_pages_late=True,  # E15
    states_total=False,
    expired_page_status=400,
    says_when_empty=True,  # E16: 4101
)
"""Epic: one export per Group and day, vendor issue codes, short pages, withheld members."""

_CLINICAL = frozenset(
    """
    AllergyIntolerance CarePlan CareTeam Condition Device DiagnosticReport DocumentReference Encounter
    Goal Immunization MedicationRequest Observation Patient Procedure
    """.split()  # noqa: SIM905 - a list of quoted names is harder to read
)
_REFERENCE = frozenset({"Location", "Organization", "Practitioner"})

CERNER = Persona(
    name="cerner",
    software="Oracle Health Millennium",
    token_seconds=570,
    wildcard_scopes=False,  # O1
    bulk_version="2.0",
    export_levels=frozenset({"group"}),
    unsupported_parameters=frozenset({"_elements", "patient"}),  # O7
    type_lists=frozenset({"comma"}),  # O5
    unexported_types=RESOURCE_TYPES - _CLINICAL - _REFERENCE - {"Provenance"},  # O10: Binary and others
    refuses_unexported=True,
    clinical_types_needed=True,  # O5
    filter_needs_type=True,  # O6
    one_filter_per_type=True,
    unfiltered_types=_REFERENCE | {"Patient", "Provenance"},
    forbidden_filter_parameters=frozenset(
        {"_id", "_lastUpdated", "patient", "subject", "encounter", "identifier"}
    ),
    bad_filter_status=422,
    max_running_exports=1,  # O3
    max_group_patients=20_000,  # O4
    new_member_history=False,
    lists_deleted=False,
    repeats_resources=True,  # O14
    progress="in-progress",
    file_delivery="redirect",  # O8
    compression="stored",  # O9
    exclusive_parameters=(("_lastUpdated", "date"),),  # O13
    page_limits={  # O12
        "Observation": PageLimit(50, 200),
        "DocumentReference": PageLimit(10, 100),
        "DiagnosticReport": PageLimit(10, 100),
        "Patient": PageLimit(20, 20),
    },
    first_page_category={"Observation": "social-history"},  # O12
)
"""Oracle Health (Cerner) Millennium: strict filters, one export at a time, files in S3."""

SOARIAN = replace(
    CERNER,
    name="soarian",
    software="Soarian Clinicals",
    missing_level_status=501,
    refuses_repeats=True,
)
"""Oracle Health Soarian Clinicals (O15)."""

HDR = replace(
    GENERIC,
    name="hdr",
    software="Oracle Healthcare Data Repository",
    recent_seconds=_DAY,
)
"""Oracle Healthcare Data Repository: without ``_since`` only the last 24 hours (O15)."""

PERSONAS: Mapping[str, Persona] = MappingProxyType(
    {persona.name: persona for persona in (GENERIC, EPIC, CERNER, SOARIAN, HDR)}
)
"""All personas by name."""


def persona_named(name: str) -> Persona:
    """The persona of a name.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return PERSONAS[name]
    except KeyError:
        raise ConfigurationError(
            "the sandbox knows no such persona", place=name, remedy=f"Choose one of: {', '.join(PERSONAS)}."
        ) from None


def persona_variant(
    name: str, *, bulk_version: str | None = None, kickoff_window: float | None = None
) -> Persona:
    """A persona with what the command line changes in it.

    Args:
        name: The persona.
        bulk_version: Edition of the Bulk Data specification; ``None``: the persona's own.
        kickoff_window: Seconds between exports of a Group; ``None``: the persona's own.

    Raises:
        ConfigurationError: There is no such persona or edition.
    """
    persona = persona_named(name)
    if bulk_version is not None:
        versions: tuple[BulkVersion, ...] = get_args(BulkVersion)
        found = next((version for version in versions if version == bulk_version), None)
        if found is None:
            raise ConfigurationError(
                "the sandbox knows no such edition of Bulk Data",
                place=bulk_version,
                remedy=f"Choose one of: {', '.join(versions)}.",
            )
        persona = replace(persona, bulk_version=found)
    return persona if kickoff_window is None else replace(persona, kickoff_window=kickoff_window)
