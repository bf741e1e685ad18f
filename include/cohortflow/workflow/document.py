"""YAML files that people write: read with places, checked by pydantic, errors that name the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cohortflow.errors import StudyError
from cohortflow.model.located_yaml import LocatedYaml, Location, parse_located, read_located

__all__ = ["PARAMETER", "Document", "StrictModel", "nearest", "substitute"]

M = TypeVar("M", bound=BaseModel)

_REMEDY = "See docs/studies.md."


class StrictModel(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Document(LocatedYaml):
    """A study, template or environment file."""

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file.

        Raises:
            StudyError: It is missing, not YAML, or not a mapping.
        """
        return cls._of(read_located(path, StudyError, remedy=_REMEDY))

    @classmethod
    def parse(cls, text: str, path: str = "<text>") -> Document:
        """Parse a text; see ``read``."""
        return cls._of(parse_located(text, path, StudyError, remedy=_REMEDY))

    @classmethod
    def _of(cls, located: LocatedYaml) -> Document:
        return cls(located.path, located.data, located.lines)

    def validate(self, model: type[M], data: Mapping[str, Any] | None = None, at: Location = ()) -> M:
        """Check data against a model.

        Args:
            model: A pydantic model.
            data: What to check instead of the document's own data, such as after substitution.
            at: Where ``data`` stands in the document.

        Raises:
            StudyError: The first fault, with its line and, for an unknown key, the nearest valid one.
        """
        try:
            return model.model_validate(self.data if data is None else data)
        except ValidationError as error:
            raise self._explain(model, error, at) from None

    def _explain(self, model: type[BaseModel], error: ValidationError, at: Location) -> StudyError:
        # An unknown key explains a missing one (a misspelt key is both), so it goes first.
        faults = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        fault = faults[0]
        location = at + tuple(fault["loc"])
        name = ".".join(str(part) for part in location)
        if fault["type"] == "extra_forbidden":
            key = str(location[-1])
            known = _known_keys(model, tuple(fault["loc"])[:-1])
            return StudyError(
                f"Unknown key '{key}'.", place=self._place_fault(location), remedy=nearest(key, known, "key")
            )
        message = fault["msg"].removeprefix("Value error, ").rstrip(".")
        return StudyError(
            f"'{name}': {message}.",
            place=self._place_fault(location),
            remedy="See docs/studies.md for what is allowed.",
        )

    def _place_fault(self, location: Location) -> str:
        """Return the place of a fault, whose path pydantic lengthens by the tags of unions."""
        written: Location = ()
        for part in location:
            if (*written, part) in self.lines:
                written = (*written, part)
        return self.place(written)


def nearest(word: str, known: list[str], noun: str) -> str:
    """Return a remedy that names the nearest valid name, or all of them."""
    match = difflib.get_close_matches(word, known, n=1)
    if match:
        return f"Did you mean '{match[0]}'?"
    return f"Valid {noun}s: {', '.join(sorted(known)) or 'none'}."


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """Return the field names of the model at a location; falls back to the root's."""
    current: list[type[BaseModel]] = [model]
    for part in location:
        found = [
            inner
            for candidate in current
            if isinstance(part, str) and part in candidate.model_fields
            for inner in _models_in(candidate.model_fields[part].annotation)
        ]
        current = found or current
    return sorted({name for candidate in current for name in candidate.model_fields})


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


PARAMETER = re.compile(r"\$\{([a-z][a-z0-9_]*)\}")
"""A reference to a parameter in a template: ``${name}``."""


def substitute(value: Any, parameters: Mapping[str, Any], document: Document, at: Location = ()) -> Any:  # noqa: ANN401  # any YAML value
    """Replace parameter references; a text that is nothing but a reference takes the value's own type.

    Raises:
        StudyError: A reference names no parameter.
    """
    if isinstance(value, str):
        return _substitute_text(value, parameters, document, at)
    if isinstance(value, dict):
        return {key: substitute(inner, parameters, document, (*at, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [substitute(inner, parameters, document, (*at, i)) for i, inner in enumerate(value)]
    return value


def _substitute_text(text: str, parameters: Mapping[str, Any], document: Document, at: Location) -> Any:  # noqa: ANN401  # a parameter's value
    for name in PARAMETER.findall(text):
        if name not in parameters:
            raise StudyError(
                f"'${{{name}}}' is not a parameter of this template.",
                place=document.place(at),
                remedy=nearest(name, list(parameters), "parameter"),
            )
    whole = PARAMETER.fullmatch(text)
    if whole:
        return parameters[whole[1]]
    return PARAMETER.sub(lambda match: str(parameters[match[1]]), text)
