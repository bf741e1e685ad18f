"""How resources look when they leave: what a persona leaves out of them or changes in them."""

from __future__ import annotations

import re
from collections.abc import Collection

import orjson

from cohortflow.sandbox.persona import Persona

__all__ = ["Shaper"]

# Together with any id this is longer than the 64 characters that FHIR allows (E18).
_LONG_ID_START = "eLong-" + "0123456789" * 6
_ALWAYS_KEPT = frozenset({"resourceType", "id", "meta"})
_SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}


class Shaper:
    """Turns stored resources into what the persona shows.

    Args:
        persona: Whose manners to follow.
    """

    def __init__(self, persona: Persona) -> None:
        self._persona = persona
        self._long = persona.long_id_types
        names = "|".join(sorted(self._long))
        self._reference = re.compile(rf'"reference"\s*:\s*"(?:[^"]*/)?(?:{names})/'.encode())
        self._hooked = type(persona).shape_resource is not Persona.shape_resource

    @property
    def changes_nothing(self) -> bool:
        """Whether every resource is shown as it is stored."""
        return not self._hooked and not self._long and self._persona.states_last_updated

    def shown_id(self, resource_type: str, stored_id: str) -> str:
        """The id that clients see."""
        return _LONG_ID_START + stored_id if resource_type in self._long else stored_id

    def stored_id(self, resource_type: str, shown_id: str) -> str:
        """The id of the stored resource that clients know by another."""
        return shown_id.removeprefix(_LONG_ID_START) if resource_type in self._long else shown_id

    def stored_value(self, value: str) -> str:
        """A search value in which long ids are replaced by those that are stored."""
        return value.replace(_LONG_ID_START, "") if self._long else value

    def line(self, resource_type: str, line: bytes, elements: Collection[str] | None = None) -> bytes:
        """The resource as it is shown.

        Args:
            resource_type: Its type.
            line: As stored, without a line feed.
            elements: What ``_elements`` keeps of it; ``None``: everything.
        """
        shown = self._persona.shape_resource(resource_type, line)
        if self._long:
            shown = self._reference.sub(lambda match: match[0] + _LONG_ID_START.encode(), shown)
        if elements is None and self._persona.states_last_updated and resource_type not in self._long:
            return shown
        resource = orjson.loads(shown)
        resource["id"] = self.shown_id(resource_type, resource["id"])
        if not self._persona.states_last_updated and "meta" in resource:  # E3
            resource["meta"].pop("lastUpdated", None)
            if not resource["meta"]:
                del resource["meta"]
        if elements is not None:
            resource = {
                name: value for name, value in resource.items() if name in elements or name in _ALWAYS_KEPT
            }
            meta = resource.setdefault("meta", {})
            meta["tag"] = [*meta.get("tag", []), _SUBSETTED]
        return orjson.dumps(resource)
