"""What each kind of server can do and how it departs from the standard: data, no code."""

from cohortflow.connectors.profiles.search import SearchProfile, search_profile
from cohortflow.connectors.profiles.server import GENERIC, PROFILES, Level, ServerProfile

__all__ = [
    "GENERIC",
    "PROFILES",
    "Level",
    "SearchProfile",
    "ServerProfile",
    "search_profile",
]
