"""Where a vendor's server differs from the specification: mostly data, and a few methods.

``Persona()`` keeps to the specification. The field comments name the behaviour as docs/sandbox.md
numbers it: E of Epic, O of Oracle Health, B of Bulk Data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cohortflow.sandbox.authorization import Grant
    from cohortflow.sandbox.export_request import ExportRequest
    from cohortflow.sandbox.resource_table import Rows
    from cohortflow.sandbox.search_query import SearchQuery

__all__ = ["BulkVersion", "ExportLevel", "FileDelivery", "PageLimit", "Persona", "RequiredParameters"]

BulkVersion = Literal["2.0", "3.0", "4.0"]
ExportLevel = Literal["system", "patient", "group"]
FileDelivery = Literal["token", "open", "redirect"]
Compression = Literal["negotiated", "stored", "none"]
ListForm = Literal["comma", "repeat"]

_VERSION_2 = frozenset(
    {"_outputFormat", "_since", "_type", "_typeFilter", "_elements", "patient", "includeAssociatedData"}
)
_VERSION_3 = frozenset({"_until", "allowPartialManifests", "organizeOutputBy"})


@dataclass(frozen=True, slots=True)
class PageLimit:
    """Search page sizes of a resource type.

    Attributes:
        usual: Resources per page when the client names no ``_count``.
        most: Most resources per page.
    """

    usual: int
    most: int


@dataclass(frozen=True, slots=True)
class RequiredParameters:
    """Search parameters of which a search of a type has to have one.

    Attributes:
        names: Any of these will do.
        issue: The vendor's code for a search that has none.
    """

    names: tuple[str, ...]
    issue: str = "4111"


@dataclass(frozen=True, kw_only=True)
class Persona:
    """A server's manners; the defaults are those of the specification.

    Make a variant with ``dataclasses.replace(EPIC, kickoff_window=2.0)``.

    Attributes:
        name: What ``--persona`` calls it.
        software: ``software.name`` of the CapabilityStatement.

        token_seconds: Life of an access token (E9).
        longest_token_id: Most characters of a ``jti`` (E8).
        wildcard_scopes: Whether ``system/*.read`` may be asked for (O1).
        jwks_url_only: Whether clients have to host their keys (E7).
        client_header: A header that has to carry the client id on every FHIR request (E10).
        issue_system: System of the vendor's issue codes; ``None``: outcomes carry none (E16).

        requests_per_second: Kick-offs, polls, searches and reads after which more get 429.

        bulk_version: Edition of the Bulk Data specification; 3.0 serves clients of 2.0 (B8, B11).
        export_levels: Kinds of kick-off that exist (E1, O15).
        missing_level_status: Status of the others; 501 is how Soarian says it (O15).
        unsupported_parameters: Kick-off parameters that are refused, or ignored under
            ``handling=lenient`` (O7).
        ignored_parameters: Kick-off parameters without effect, which only the error file tells (E3).
        type_lists: How ``_type`` may name several types (O5, B11).
        unexported_types: Types that no export has (E20, O10).
        refuses_unexported: Whether asking for one is an error; otherwise there are just none.
        clinical_types_needed: Whether ``_type`` has to name more than supporting types (O5).
        filter_needs_type: Whether ``_typeFilter`` needs ``_type`` (O6).
        one_filter_per_type: Whether a type may have only one ``_typeFilter`` (O6).
        unfiltered_types: Types that no ``_typeFilter`` may name (O6).
        forbidden_filter_parameters: Search parameters that no ``_typeFilter`` may use (O6).
        bad_filter_status: Status for a ``_typeFilter`` that the server cannot use (O6).
        commas_split_filters: Whether each unescaped comma ends a ``_typeFilter`` (E12).
        kickoff_window: Seconds for which a client may not export the same Group again (E4).
        kickoff_window_status: Status of a kick-off within that time.
        kickoff_window_retry_after: Whether that answer has ``Retry-After``.
        max_running_exports: Unfinished exports per client; one more is refused with 429 (O3).
        max_group_patients: Most members of a Group that is exported (O4).
        refuses_repeats: Whether a kick-off with the ``_since`` and ``_type`` of an earlier one is
            refused with 409 (O15).
        recent_seconds: What an export without ``_since`` is limited to (O15).
        new_member_history: Whether an export with ``_since`` has the full history of those who
            became members later (B10).
        lists_deleted: Whether exports with ``_since`` list deletions (B4).
        resources_per_file: Resources after which a new export file starts (E5).
        manifest_files: Files per manifest for clients that allow partial manifests (B8).
        repeats_resources: Whether files hold some resources twice, within and across files (O14).
        progress: Text of ``X-Progress``; ``{share}`` is the share that is done (B7).
        cancel_status: Answer to the deletion of an export (O11).
        file_delivery: ``token``: files need the access token; ``open``: the URL suffices, and a
            request with a token is refused (B2); ``redirect``: the file URL needs the token, and
            leads to storage on another port, which refuses it (O8).
        compression: ``negotiated``: gzip for clients that accept it; ``stored``: the files are gzip
            and say so whoever asks, ranges count their bytes (O9); ``none``.
        serves_ranges: Whether files can be had in ranges; otherwise ``Range`` is ignored.
        link_seconds: Seconds for which the file URLs of a manifest work; a manifest fetched again
            has new ones (B9). ``None``: as long as the export is kept.

        states_last_updated: Whether resources have ``meta.lastUpdated`` (E3).
        long_id_types: Types whose ids are longer than 64 characters (E18).
        withheld_members: Elements, such as ``Observation.hasMember``, whose targets are in no export
            and in no search result, and can only be read by id (E14).
        unsearchable_types: Types that can be read but not searched (E1).
        absent_types: Types that the server does not have (E20).
        unknown_search_parameters: ``refuse`` them, or ``ignore`` them and say so in the Bundle (E16).
        ignored_search_parameters: Search parameters that count as unknown (E3).
        required_search: Per type, of which parameters one is needed (E1, E13, E20).
        refused_categories: Per type, values of ``category`` that are an error (E13).
        exclusive_parameters: Pairs of search parameters that cannot be combined (O13).
        max_search_patients: Most patients that one request may name (E16: 4127).
        page_size: Resources per search page when the client names no ``_count``.
        max_page_size: Most resources per search page.
        page_limits: Page sizes of single types (O12).
        first_page_category: Per type, the category of which page 1 has all there is (O12).
        filters_pages_late: Whether pages are cut before they are filtered, so that they come out
            short, even empty, with a ``next`` link (E15).
        states_total: Whether ``Bundle.total`` is given without being asked for.
        expired_page_status: Status of a ``next`` link that no longer works (E16: 4113).
        says_when_empty: Whether an empty result has an OperationOutcome (E16: 4101).
        missing_sub_apis: Per type, the part of it that the client is not authorized for (E17).
        max_documents: Most Binary reads of a client (E16: 4135).
    """

    name: str = "generic"
    software: str = "Cohortflow sandbox EHR"

    token_seconds: int = 300
    longest_token_id: int | None = None
    wildcard_scopes: bool = True
    jwks_url_only: bool = False
    client_header: str | None = None
    issue_system: str | None = None

    requests_per_second: int | None = None

    bulk_version: BulkVersion = "3.0"
    export_levels: frozenset[ExportLevel] = frozenset({"system", "patient", "group"})
    missing_level_status: int = 404
    unsupported_parameters: frozenset[str] = frozenset()
    ignored_parameters: frozenset[str] = frozenset()
    type_lists: frozenset[ListForm] = frozenset({"comma", "repeat"})
    unexported_types: frozenset[str] = frozenset()
    refuses_unexported: bool = False
    clinical_types_needed: bool = False
    filter_needs_type: bool = False
    one_filter_per_type: bool = False
    unfiltered_types: frozenset[str] = frozenset()
    forbidden_filter_parameters: frozenset[str] = frozenset()
    bad_filter_status: int = 400
    commas_split_filters: bool = False
    kickoff_window: float | None = None
    kickoff_window_status: int = 429
    kickoff_window_retry_after: bool = False
    max_running_exports: int | None = None
    max_group_patients: int | None = None
    refuses_repeats: bool = False
    recent_seconds: float | None = None
    new_member_history: bool = True
    lists_deleted: bool = True
    resources_per_file: int = 50_000
    manifest_files: int = 5
    repeats_resources: bool = False
    progress: str = "{share:.0%} of the resource types written"
    cancel_status: Literal[202, 204] = 202
    file_delivery: FileDelivery = "token"
    compression: Compression = "negotiated"
    serves_ranges: bool = True
    link_seconds: float | None = None

    states_last_updated: bool = True
    long_id_types: frozenset[str] = frozenset()
    withheld_members: frozenset[str] = frozenset()
    unsearchable_types: frozenset[str] = frozenset()
    absent_types: frozenset[str] = frozenset()
    unknown_search_parameters: Literal["refuse", "ignore"] = "refuse"
    ignored_search_parameters: frozenset[str] = frozenset()
    required_search: Mapping[str, RequiredParameters] = field(default_factory=dict)
    refused_categories: Mapping[str, frozenset[str]] = field(default_factory=dict)
    exclusive_parameters: tuple[tuple[str, str], ...] = ()
    max_search_patients: int | None = None
    page_size: int = 100
    max_page_size: int = 1000
    page_limits: Mapping[str, PageLimit] = field(default_factory=dict)
    first_page_category: Mapping[str, str] = field(default_factory=dict)
    filters_pages_late: bool = False
    states_total: bool = True
    expired_page_status: int = 410
    says_when_empty: bool = False
    missing_sub_apis: Mapping[str, str] = field(default_factory=dict)
    max_documents: int | None = None

    @property
    def export_parameters(self) -> frozenset[str]:
        """The kick-off parameters that are understood, whether or not they have an effect."""
        known = _VERSION_2 if self.bulk_version == "2.0" else _VERSION_2 | _VERSION_3
        return known - self.unsupported_parameters

    @property
    def list_forms(self) -> frozenset[ListForm]:
        """How lists may be written; Bulk Data 4.0 knows no commas (B11)."""
        return frozenset({"repeat"}) if self.bulk_version == "4.0" else self.type_lists

    def check_export(self, request: ExportRequest, grant: Grant) -> None:
        """Refuse a kick-off by raising ``RefusalError``."""

    def check_search(self, query: SearchQuery, grant: Grant) -> None:
        """Refuse a search by raising ``RefusalError``."""

    def shape_page(self, query: SearchQuery, rows: Rows) -> Rows:  # noqa: ARG002 - for those that override
        """Leave rows out of a page; the page after it starts where it would have anyway."""
        return rows

    def shape_resource(self, resource_type: str, line: bytes) -> bytes:  # noqa: ARG002 - likewise
        """Change a resource that is read, found or exported; ``line`` has no line feed."""
        return line
