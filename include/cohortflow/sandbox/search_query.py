"""FHIR search: reads a query, refuses what it does not know, and finds the rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import orjson

from cohortflow.sandbox.instants import FOREVER, date_range
from cohortflow.sandbox.outcome import RefusalError
from cohortflow.sandbox.persona import Persona
from cohortflow.sandbox.resource_table import ResourceTable, Rows
from cohortflow.sandbox.search_parameters import SearchParameter, search_parameters, values_at

__all__ = ["Inclusion", "SearchQuery", "parse_filter", "parse_search"]

Matcher = Callable[[dict[str, Any]], bool]

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.+)", re.DOTALL)
_COMPARE: dict[str, Callable[[int, int, int, int], bool]] = {
    # low, high: what the resource says; first, last: what the query says.
    "eq": lambda low, high, first, last: first <= low and high <= last,
    "ne": lambda low, high, first, last: not (first <= low and high <= last),
    "gt": lambda _low, high, _first, last: high > last,
    "lt": lambda low, _high, first, _last: low < first,
    "ge": lambda _low, high, first, _last: high >= first,
    "le": lambda low, _high, _first, last: low <= last,
    "sa": lambda low, _high, _first, last: low > last,
    "eb": lambda _low, high, first, _last: high < first,
    "ap": lambda low, high, first, last: low <= last and high >= first,
}
_RESULT_PARAMETERS = frozenset(
    {"_count", "_sort", "_total", "_summary", "_format", "_pretty", "_include", "_revinclude"}
)
_SPECIFICATION = Persona()


@dataclass(frozen=True, slots=True)
class Inclusion:
    """One ``_include`` or ``_revinclude``.

    Attributes:
        resource_type: Type that has the reference.
        parameter: Search parameter that looks at the reference.
        target: Type that it may point to; ``None``: any.
        reverse: Whether the resources that point are added, rather than those pointed at.
    """

    resource_type: str
    parameter: SearchParameter
    target: str | None
    reverse: bool


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search that can be answered.

    Attributes:
        resource_type: What is searched.
        patients: Per ``patient`` parameter the patient ids, of which one has to match.
        ids: Per ``_id`` parameter the ids, of which one has to match.
        matchers: Tests on the content of a resource, all of which have to hold.
        count: Resources per page that the client asks for; 0 asks for the total only.
        sort: Parameter name and whether descending, in order of weight.
        inclusions: What else is to be in the Bundle.
        total: What ``_total`` asks for: whether there is to be a total; ``None``: as usual.
        used: The parameters that took effect, as given.
        ignored: Names of parameters that took none (lenient handling).
    """

    resource_type: str
    patients: tuple[tuple[str, ...], ...] = ()
    ids: tuple[tuple[str, ...], ...] = ()
    matchers: tuple[Matcher, ...] = ()
    count: int | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    inclusions: tuple[Inclusion, ...] = ()
    total: bool | None = None
    used: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def rows(
        self, table: ResourceTable, candidates: Rows, patient_number: Callable[[str], int | None]
    ) -> Rows:
        """Find the rows among candidates, in the order asked for.

        Args:
            table: The table of this type.
            candidates: Rows that may be returned.
            patient_number: Gives the number of a patient id.
        """
        return self._sorted(table, self.matching(table, self._indexed(table, candidates, patient_number)))

    def unfiltered_rows(
        self, table: ResourceTable, candidates: Rows, patient_number: Callable[[str], int | None]
    ) -> Rows:
        """The rows of the patients and ids asked for, in order, before ``matching`` looks into them."""
        return self._sorted(table, self._indexed(table, candidates, patient_number))

    def matching(self, table: ResourceTable, rows: Rows) -> Rows:
        """Those rows whose content meets the search."""
        if not self.matchers:
            return rows
        return np.array(
            [
                row
                for row, line in zip(rows.tolist(), table.lines(rows), strict=True)
                if self._matches(orjson.loads(line))
            ],
            dtype=np.int64,
        )

    def _indexed(
        self, table: ResourceTable, candidates: Rows, patient_number: Callable[[str], int | None]
    ) -> Rows:
        rows = candidates
        for names in self.patients:
            numbers = [number for name in names if (number := patient_number(name)) is not None]
            rows = rows[np.isin(table.patients[rows], numbers)]
        for ids in self.ids:
            found = [row for name in ids if (row := table.find(name)) is not None]
            rows = rows[np.isin(rows, found)]
        return rows

    def _matches(self, resource: dict[str, Any]) -> bool:
        return all(matcher(resource) for matcher in self.matchers)

    def _sorted(self, table: ResourceTable, rows: Rows) -> Rows:
        if not self.sort:
            return rows
        known = search_parameters(self.resource_type)
        parameters = [known[name] for name, _ in self.sort]
        keys = [
            tuple(_sort_key(parameter, resource) for parameter in parameters)
            for resource in map(orjson.loads, table.lines(rows))
        ]
        order = list(range(len(rows)))
        for place, (_, descending) in reversed(list(enumerate(self.sort))):
            order.sort(key=lambda row: keys[row][place], reverse=descending)
        return rows[order]


@dataclass(slots=True)
class _Draft:
    patients: list[tuple[str, ...]] = field(default_factory=list)
    ids: list[tuple[str, ...]] = field(default_factory=list)
    matchers: list[Matcher] = field(default_factory=list)
    inclusions: list[Inclusion] = field(default_factory=list)
    count: int | None = None
    total: bool | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    used: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def parse_search(
    resource_type: str,
    query: Iterable[tuple[str, str]],
    *,
    lenient: bool,
    persona: Persona = _SPECIFICATION,
) -> SearchQuery:
    """Read the parameters of a search.

    Args:
        resource_type: What is searched.
        query: Names and values, URL-decoded.
        lenient: Whether to ignore unknown parameters instead of refusing them.
        persona: Whose parameters are known, and whether unknown ones are ever refused.

    Raises:
        RefusalError: 400, for an unknown parameter or a malformed value.
    """
    known = search_parameters(resource_type)
    draft = _Draft()
    ignores = lenient or persona.unknown_search_parameters == "ignore"
    for name, value in query:
        if name in known and name not in persona.ignored_search_parameters:
            _add(draft, name, known[name], value)
        elif name in _RESULT_PARAMETERS:
            _shape(draft, resource_type, name, value)
        elif ignores:
            draft.ignored.append(name)
            continue
        else:
            raise RefusalError(
                400, "not-supported", f"search parameter '{name}' is not supported for {resource_type}"
            )
        draft.used.append((name, value))
    return SearchQuery(
        resource_type,
        patients=tuple(draft.patients),
        ids=tuple(draft.ids),
        matchers=tuple(draft.matchers),
        count=draft.count,
        sort=draft.sort,
        inclusions=tuple(draft.inclusions),
        total=draft.total,
        used=tuple(draft.used),
        ignored=tuple(draft.ignored),
    )


def parse_filter(text: str, *, lenient: bool, persona: Persona = _SPECIFICATION) -> SearchQuery:
    """Read one query of ``_typeFilter``, such as ``Observation?category=laboratory``.

    Raises:
        RefusalError: 400, for what is no search of a type.
    """
    resource_type, mark, query = text.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if not mark or any(name in _RESULT_PARAMETERS for name, _ in pairs):
        raise RefusalError(400, "invalid", "_typeFilter has to be <ResourceType>?<search parameters>")
    return parse_search(resource_type, pairs, lenient=lenient, persona=persona)


def _shape(draft: _Draft, resource_type: str, name: str, value: str) -> None:
    # The parameters that say how the result is to look.
    known = search_parameters(resource_type)
    match name:
        case "_count":
            draft.count = _parse_count(value)
        case "_sort":
            draft.sort = tuple((key.lstrip("-"), key.startswith("-")) for key in value.split(","))
            if any(key not in known or known[key].kind not in {"date", "token"} for key, _ in draft.sort):
                raise RefusalError(400, "not-supported", f"_sort does not know this key for {resource_type}")
        case "_summary" if value == "count":
            draft.count = 0
        case "_total":
            draft.total = value != "none"
        case "_include" | "_revinclude":
            draft.inclusions.append(_parse_inclusion(name, value))
        case _:  # _format and _pretty change nothing here
            pass


def _parse_inclusion(name: str, value: str) -> Inclusion:
    resource_type, _, rest = value.partition(":")
    parameter_name, _, target = rest.partition(":")
    parameter = search_parameters(resource_type).get(parameter_name)
    if parameter is None or parameter.kind not in {"reference", "patient"}:
        raise RefusalError(400, "not-supported", f"{name} names no reference that the server knows")
    return Inclusion(resource_type, parameter, target or None, reverse=name == "_revinclude")


def _add(draft: _Draft, name: str, parameter: SearchParameter, value: str) -> None:
    if not value:
        raise RefusalError(400, "invalid", f"search parameter '{name}' has no value")
    choices = tuple(_split(value, ","))
    if parameter.kind == "patient":
        draft.patients.append(tuple(choice.rsplit("/", 1)[-1] for choice in choices))
    elif name == "_id":
        draft.ids.append(choices)
    else:
        draft.matchers.append(_matcher(name, parameter, choices))


def _matcher(name: str, parameter: SearchParameter, choices: tuple[str, ...]) -> Matcher:
    if parameter.kind == "date":
        return _date_matcher(name, parameter, choices)
    if parameter.kind == "token":
        wanted = [_parse_token(choice) for choice in choices]
        return lambda resource: any(
            _token_matches(token, system, code)
            for token in _tokens(parameter, resource)
            for system, code in wanted
        )
    if parameter.kind == "reference":
        return lambda resource: any(
            str(value.get("reference", "")).endswith(choice if "/" in choice else f"/{choice}")
            for value in _values(parameter, resource)
            for choice in choices
        )
    starts = tuple(choice.casefold() for choice in choices)
    return lambda resource: any(
        str(value).casefold().startswith(starts) for value in _values(parameter, resource)
    )


def _date_matcher(name: str, parameter: SearchParameter, choices: tuple[str, ...]) -> Matcher:
    tests = []
    for choice in choices:
        match = _PREFIX.fullmatch(choice)
        try:
            tests.append(
                (_COMPARE[(match[1] if match else None) or "eq"], *date_range(match[2] if match else ""))
            )
        except ValueError:
            raise RefusalError(400, "value", f"search parameter '{name}' is no FHIR date") from None
    return lambda resource: any(
        compare(low, high, first, last)
        for low, high in _periods(parameter, resource)
        for compare, first, last in tests
    )


def _values(parameter: SearchParameter, resource: dict[str, Any]) -> Iterator[Any]:
    for path in parameter.paths:
        yield from values_at(resource, path)


def _periods(parameter: SearchParameter, resource: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for value in _values(parameter, resource):
        try:
            if isinstance(value, str):
                yield date_range(value)
            elif isinstance(value, dict):
                low = date_range(value["start"])[0] if "start" in value else -FOREVER
                yield low, date_range(value["end"])[1] if "end" in value else FOREVER
        except ValueError:
            continue  # a malformed date in the data matches nothing


def _tokens(parameter: SearchParameter, resource: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
    for value in _values(parameter, resource):
        if isinstance(value, dict):
            for coding in value.get("coding", [value]):
                yield coding.get("system"), str(coding.get("code", coding.get("value", "")))
        else:
            yield None, str(value).lower() if isinstance(value, bool) else str(value)


def _parse_token(choice: str) -> tuple[str | None, str]:
    # (None, code): any system; ("", code): no system; (system, ""): any code.
    system, *rest = _split(choice, "|", keep=False)
    return (None, system) if not rest else (system, rest[0])


def _token_matches(token: tuple[str | None, str], system: str | None, code: str) -> bool:
    return (system is None or (token[0] or "") == system) and code in {"", token[1]}


def _sort_key(parameter: SearchParameter, resource: dict[str, Any]) -> tuple[int, int, str]:
    if parameter.kind == "date":
        low = min((low for low, _ in _periods(parameter, resource)), default=FOREVER)
        return low == FOREVER, low, ""
    code = min((code for _, code in _tokens(parameter, resource)), default="")
    return not code, 0, code


def _parse_count(value: str) -> int:
    if not value.isascii() or not value.isdecimal():
        raise RefusalError(400, "value", "_count has to be a whole number")
    return int(value)


def _split(text: str, mark: str, *, keep: bool = True) -> list[str]:
    # Splits at unescaped marks. Escapes stay for a later split (keep), or are resolved.
    parts = re.split(rf"(?<!\\){re.escape(mark)}", text)
    return parts if keep else [re.sub(r"\\([,|$\\])", r"\1", part) for part in parts]
