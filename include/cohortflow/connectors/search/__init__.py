"""FHIR search: queries and their pages, part files, and the workers that fill them."""

from cohortflow.connectors.search.client import DailyLimitError, SearchClient, SearchQuery, SearchRefusedError

__all__ = [
    "DailyLimitError",
    "SearchClient",
    "SearchQuery",
    "SearchRefusedError",
]
