"""Which searches a persona refuses."""

from __future__ import annotations

from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.search_query import SearchQuery

__all__ = ["check_search", "page_size"]


def check_search(query: SearchQuery, persona: Persona) -> None:
    """Refuse a search that the persona does not answer.

    Raises:
        RefusalError: 400, with the vendor's issue code.
    """
    resource_type = query.resource_type
    names = {name.partition(":")[0] for name, _ in query.used}
    if resource_type in persona.unsearchable_types:  # E1
        raise RefusalError(400, "not-supported", f"{resource_type} cannot be searched for", issue="4111")
    required = persona.required_search.get(resource_type)
    if required is not None and not names.intersection(required.names):  # E1, E13, E20
        raise RefusalError(
            400,
            "required",
            f"a search of {resource_type} needs one of {', '.join(required.names)}",
            issue=required.issue,
        )
    refused = persona.refused_categories.get(resource_type, frozenset())
    for name, value in query.used:  # E13
        if name == "category" and refused.intersection(part.rpartition("|")[2] for part in value.split(",")):
            raise RefusalError(400, "value", "this category cannot be searched for", issue="4112")
    for pair in persona.exclusive_parameters:  # O13
        if names.issuperset(pair):
            raise RefusalError(400, "invalid", f"{' and '.join(pair)} cannot be combined", issue="4112")
    most = persona.max_search_patients
    if most is not None and any(len(patients) > most for patients in query.patients):  # E16
        raise RefusalError(400, "too-costly", "the request names too many patients", issue="4127")


def page_size(query: SearchQuery, persona: Persona) -> int:
    """Resources per page; 0 asks for the total only."""
    limit = persona.page_limits.get(query.resource_type)
    usual = persona.page_size if limit is None else limit.usual
    most = persona.max_page_size if limit is None else min(limit.most, persona.max_page_size)
    if limit is not None and query.ids:  # O12: _count has no say then
        return most
    return min(usual if query.count is None else query.count, most)
