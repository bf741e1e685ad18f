"""FHIR terminology resources as files: shape checks that name the file and the element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cohortflow.errors import CatalogError

__all__ = ["Element", "refuse", "validate_resource"]


class Element(BaseModel):
    """A FHIR element; what Cohortflow has no use for (narrative, contacts, extensions) is left unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")


ElementT = TypeVar("ElementT", bound=Element)


def validate_resource(
    model: type[ElementT], resource_type: str, data: Mapping[str, Any], place: str
) -> ElementT:
    """Read a resource into its model.

    Args:
        model: What to read of it.
        resource_type: The expected ``resourceType``.
        data: The resource as JSON.
        place: File, for messages.

    Raises:
        CatalogError: It is another resource, or an element is missing or has the wrong type.
    """
    found = data.get("resourceType")
    if found != resource_type:
        raise CatalogError(
            f"The file holds {found or 'no FHIR resource'}, not a {resource_type}.",
            place=place,
            remedy=f'Give it "resourceType": "{resource_type}".',
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise refuse(place, _path(first["loc"]), first["msg"], "Mend the element.") from None


def refuse(place: str, element: str, problem: str, remedy: str) -> CatalogError:
    """Return the error for an element, such as ``group[0].element[2]``, of the file ``place``."""
    return CatalogError(f"{element}: {problem}", place=place, remedy=remedy)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.lstrip(".")
