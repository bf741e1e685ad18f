"""Where a vendor's server differs from the specification.

The sandbox follows the specification. A persona overrides the methods in which a vendor does not:
it refuses what that vendor refuses, and shapes pages as that vendor does.
"""

from __future__ import annotations

from cohortflow.sandbox.authorization import Grant
from cohortflow.sandbox.export_request import ExportRequest
from cohortflow.sandbox.resource_table import Rows
from cohortflow.sandbox.search_query import SearchQuery

__all__ = ["Persona"]


class Persona:
    """The specification itself; the base of all others."""

    name = "specification"

    def check_export(self, request: ExportRequest, grant: Grant) -> None:
        """Refuse a kick-off by raising ``RefusalError``."""

    def check_search(self, query: SearchQuery, grant: Grant) -> None:
        """Refuse a search by raising ``RefusalError``."""

    def shape_page(self, query: SearchQuery, rows: Rows) -> Rows:  # noqa: ARG002 - for those that override
        """Leave rows out of a page; the page after it starts where it would have anyway."""
        return rows

    def shape_resource(self, resource_type: str, line: bytes) -> bytes:  # noqa: ARG002 - likewise
        """Change a resource that is read or found."""
        return line
