"""Identifying facts: what the raw zone says of persons, and where in a resource it stands.

Which elements of a resource hold an identifier follows from the FHIR R4 element table and from the table of
PHI classes: all names, addresses, contact points, identifiers and references, wherever they stand, and every
other text whose path is a direct identifier. Only these elements are decoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import polars as pl

from cohortflow.fhir.elements import Element, base_type, is_primitive, list_elements
from cohortflow.fhir.views.reads import ReadField
from cohortflow.model import ColumnType, PhiClass
from cohortflow.redaction.phi import classify

__all__ = [
    "CONTAINED",
    "FACTS",
    "GIVEN_SEPARATOR",
    "OPAQUE_IDS",
    "PERSONS",
    "PLACES",
    "FactKind",
    "Harvest",
    "plan_harvest",
]


class FactKind(StrEnum):
    """What a fact is, with the meaning of its columns ``value``, ``second`` and ``third``."""

    NAME = "name"
    """Family name; given names, separated by ``GIVEN_SEPARATOR``."""
    DISPLAY = "display"
    """A whole name as one text; the resource type that it names, where that is known."""
    IDENTIFIER = "identifier"
    """Record, social security, account, device or study number."""
    CONTACT = "contact"
    """Phone, fax, e-mail, web address."""
    ADDRESS = "address"
    """A line of an address."""
    PLACE = "place"
    """City; state; postal code."""
    ORGANIZATION = "organization"
    """Name of an organisation or a location."""
    BIRTH_DATE = "birth_date"
    """Full date of birth, as FHIR writes it."""
    ID = "id"
    """Logical id of a resource; its type."""
    LOCAL_TEXT = "local_text"
    """Display text of a code of the source's own system."""


FACTS: Final = pl.Schema(
    {
        "kind": pl.String(),
        "value": pl.String(),
        "second": pl.String(),
        "third": pl.String(),
        "owner": pl.String(),
    }
)
"""Schema of facts; ``owner`` is the id of the Patient whose own resource states it, else null."""

GIVEN_SEPARATOR: Final = "\x1f"

CONTAINED: Final = "contained"
"""Key of the resources within a resource; they are of any type and are read by ``collect_facts``."""

PERSONS: Final = frozenset({"Patient", "Person", "RelatedPerson", "Practitioner", "PractitionerRole"})
"""Types whose ids are searched for as they are."""

PLACES: Final = frozenset({"Organization", "Location", "HealthcareService", "InsurancePlan"})
"""Types whose name is an organisation's or a place's."""

OPAQUE_IDS: Final = r"^[0-9a-f]{32}$"
"""Ids that look like pseudonyms: they are kept of every type, since a look does not tell them apart."""

_PUBLISHED: Final = (
    r"^(https?://(www\.)?(hl7\.org|terminology\.hl7\.org|loinc\.org|snomed\.info|nlm\.nih\.gov|unitsofmeasure\.org"
    r"|ama-assn\.org|dicom\.nema\.org|nucc\.org|cms\.gov|fdasis\.nlm\.nih\.gov|ncimeta\.nci\.nih\.gov)|urn:ietf:)"
)
"""Code systems whose display texts somebody published."""

_NAME_EXTENSIONS: Final = ("http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName",)
"""Extensions whose text is a name."""

_IGNORED_KEYS: Final = frozenset({"id", "implicitRules", "instantiatesUri", "issuer", "definition"})
_IGNORED_OWNERS: Final = frozenset({"CodeSystem", "Device.deviceName", "Coverage.class"})
_TEXTS: Final = frozenset({"string", "uri", "url", "uuid", "oid", "markdown", "id"})
_DEEPEST: Final = 6


@dataclass
class _Node:
    """An element to decode: what is read of it, and what kind of fact it holds itself."""

    many: bool = False
    type: ColumnType | None = None
    kind: FactKind | None = None
    shape: str = ""
    inner: dict[str, _Node] = field(default_factory=dict)

    def read(self, name: str) -> ReadField:
        return ReadField(
            name, self.type, self.many, tuple(node.read(key) for key, node in self.inner.items())
        )


def _text(kind: FactKind | None = None, *, many: bool = False) -> _Node:
    return _Node(many=many, type=ColumnType.STRING, kind=kind)


def _address() -> dict[str, _Node]:
    lines = {"line": _text(FactKind.ADDRESS, many=True), "text": _text(FactKind.ADDRESS)}
    return lines | {key: _text() for key in ("city", "state", "postalCode")}


def _extension() -> dict[str, _Node]:
    kinds = ("HumanName", "Address", "ContactPoint", "Identifier", "Reference")
    return {"url": _text(), "valueString": _text()} | {f"value{kind}": _shaped(kind) for kind in kinds}


def _shaped(shape: str, *, many: bool = False) -> _Node:
    """Return the node of a data type that always holds the same facts."""
    return _Node(shape=shape, many=many, inner=_SHAPES[shape]())


_SHAPES: Final[Mapping[str, Callable[[], dict[str, _Node]]]] = {
    "HumanName": lambda: {"family": _text(), "given": _text(many=True), "text": _text(FactKind.DISPLAY)},
    "Address": _address,
    "ContactPoint": lambda: {"value": _text(FactKind.CONTACT)},
    "Identifier": lambda: {"value": _text(FactKind.IDENTIFIER)},
    "Reference": lambda: {"reference": _text(), "display": _text(), "identifier": _shaped("Identifier")},
    "Annotation": lambda: {
        "authorString": _text(FactKind.DISPLAY),
        "authorReference": _shaped("Reference"),
    },
    "Signature": lambda: {"who": _shaped("Reference"), "onBehalfOf": _shaped("Reference")},
    "Attachment": lambda: {"url": _text(FactKind.CONTACT)},
    "Coding": lambda: {"system": _text(), "display": _text()},
    "CodeableConcept": lambda: {"coding": _shaped("Coding", many=True)},
    "Extension": _extension,
}


@functools.cache
def plan_harvest(resource: str) -> Harvest:
    """Return what to decode of a resource type, and how to take the facts from it."""
    root = _Node(inner=_walk(resource, resource, (resource,)))
    root.inner["id"] = _text()
    root.inner[CONTAINED] = _Node(many=True, inner={"id": _text()})
    return Harvest(resource, root)


def _walk(owner: str, path: str, stack: tuple[str, ...]) -> dict[str, _Node]:
    found: dict[str, _Node] = {}
    for element in _elements(owner):
        for kind in element.types:
            node = _node(element, kind, f"{path}.{element.key(kind)}", stack)
            if node is not None:
                node.many = element.many
                found[element.key(kind)] = node
    return found


def _elements(owner: str) -> Iterator[Element]:
    while owner:
        yield from list_elements(owner)
        owner = base_type(owner)


def _node(element: Element, kind: str, path: str, stack: tuple[str, ...]) -> _Node | None:
    if is_primitive(kind):
        fact = _primitive_fact(element.key(kind), kind, path)
        return None if fact is None else _text(fact)
    if kind == "Extension":  # of the resource and of its parts; not of the shapes' own elements
        return _shaped(kind) if len(stack) == 1 else None
    if kind in _SHAPES:
        return _shaped(kind)
    if not kind.startswith(stack[0]) or kind in stack or len(stack) > _DEEPEST:
        return None  # data types without identifiers, contained resources, and recursion
    inner = _walk(kind, path, (*stack, kind))
    return _Node(inner=inner) if inner else None


def _primitive_fact(key: str, kind: str, path: str) -> FactKind | None:
    resource, parent = path.partition(".")[0], path.rpartition(".")[0]
    if key == "birthDate":
        return FactKind.BIRTH_DATE
    if kind not in _TEXTS or key in _IGNORED_KEYS or {resource, parent} & _IGNORED_OWNERS:
        return None
    if classify(path) is not PhiClass.DIRECT_IDENTIFIER:
        return None
    if key in {"name", "alias"}:
        return FactKind.ORGANIZATION if resource in PLACES else FactKind.DISPLAY
    if key in {"url", "uri"} or key.endswith(("Url", "Uri")):
        return FactKind.CONTACT
    return FactKind.IDENTIFIER


@dataclass(frozen=True)
class Harvest:
    """How the facts of a resource type are read.

    Attributes:
        resource: The resource type.
        root: The elements to decode.
    """

    resource: str
    root: _Node

    @property
    def reads(self) -> tuple[ReadField, ...]:
        """The JSON keys to read."""
        return self.root.read("").fields

    def gather(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Return the facts of decoded resources, each once.

        Args:
            documents: Columns ``id`` and those of ``reads``.

        Returns:
            Rows with ``FACTS``, and one of the kind ``CONTAINED`` where resources stand within others.
        """
        owner = pl.col("id") if self.resource == "Patient" else pl.lit(None, dtype=pl.String)
        start = documents.with_columns(owner.alias("@owner"))
        parts = [self._ids(documents)]
        if documents[CONTAINED].list.len().max():
            marker = pl.DataFrame({"kind": [CONTAINED]}, schema={"kind": pl.String()})
            parts.append(pl.concat([FACTS.to_frame(), marker], how="diagonal"))
        for key, node in self.root.inner.items():
            if key not in {"id", CONTAINED}:
                parts += _visit(_step(start.select("@owner", pl.col(key).alias("@v")), node), node)
        return pl.concat(parts).unique()

    def _ids(self, documents: pl.DataFrame) -> pl.DataFrame:
        ids = documents.select(value=pl.col("id"), second=pl.lit(self.resource))
        if self.resource not in PERSONS:
            ids = ids.filter(pl.col("value").str.contains(OPAQUE_IDS))
        owner = pl.col("value") if self.resource == "Patient" else pl.lit(None)
        return _facts(ids, FactKind.ID, value="value", second="second", owner=owner)


def _step(frame: pl.DataFrame, node: _Node) -> pl.DataFrame:
    """Take a list apart, and leave out what is not there."""
    if node.many:
        frame = frame.filter(pl.col("@v").list.len() > 0).explode("@v")
    return frame.filter(pl.col("@v").is_not_null())


def _visit(frame: pl.DataFrame, node: _Node) -> list[pl.DataFrame]:
    if frame.is_empty():
        return []
    if node.kind is not None:
        return [_facts(frame, node.kind, value="@v")]
    found = _compound(frame.unique() if node.shape else frame, node)
    for key, inner in node.inner.items():
        if inner.kind is None and not inner.inner:
            continue  # a text that the compound has taken
        child = frame.select("@owner", pl.col("@v").struct.field(key).alias("@v"))
        found += _visit(_step(child, inner), inner)
    return found


def _compound(frame: pl.DataFrame, node: _Node) -> list[pl.DataFrame]:
    """Return the facts that several elements of a data type state together."""
    if node.shape in {
        "",
        "ContactPoint",
        "Identifier",
        "Annotation",
        "Attachment",
        "CodeableConcept",
        "Signature",
    }:
        return []
    parts = frame.unnest("@v")
    match node.shape:
        case "HumanName":
            parts = parts.with_columns(pl.col("given").list.join(GIVEN_SEPARATOR, ignore_nulls=True))
            parts = parts.filter(pl.col("family").is_not_null() | pl.col("given").is_not_null())
            return [_facts(parts, FactKind.NAME, value="family", second="given")]
        case "Address":
            parts = parts.filter(pl.col("postalCode").is_not_null())
            return [_facts(parts, FactKind.PLACE, value="city", second="state", third="postalCode")]
        case "Reference":
            return _reference(parts)
        case "Coding":
            local = ~pl.col("system").str.contains(_PUBLISHED).fill_null(value=False)
            parts = parts.filter(local & pl.col("display").is_not_null())
            return [_facts(parts, FactKind.LOCAL_TEXT, value="display", owner=pl.lit(None))]
        case _:  # Extension
            parts = parts.filter(pl.col("url").is_in(_NAME_EXTENSIONS) & pl.col("valueString").is_not_null())
            return [_facts(parts, FactKind.DISPLAY, value="valueString")]


def _reference(parts: pl.DataFrame) -> list[pl.DataFrame]:
    # Absolute URLs, versioned references and urn:uuid end in the id, or in the id before "/_history".
    place = pl.col("reference").str.replace(r"/_history/.*$", "")
    parts = parts.select("display", place.alias("reference")).unique()
    target = pl.col("reference").str.extract(r"(?:^|/)([A-Z][A-Za-z]+)/[^/]+$")
    parts = parts.with_columns(
        target.alias("@type"), pl.col("reference").str.extract(r"([^/:]+)$").alias("@id")
    )
    named = parts.filter(pl.col("display").is_not_null())
    ids = parts.filter(pl.col("@type").is_in(sorted(PERSONS)) & pl.col("@id").is_not_null())
    return [
        _facts(named, FactKind.DISPLAY, value="display", second="@type", owner=pl.lit(None)),
        _facts(ids, FactKind.ID, value="@id", second="@type", owner=pl.lit(None)),
    ]


def _facts(
    frame: pl.DataFrame,
    kind: FactKind,
    *,
    value: str,
    second: str = "",
    third: str = "",
    owner: pl.Expr | None = None,
) -> pl.DataFrame:
    absent = pl.lit(None, dtype=pl.String)
    return frame.select(
        pl.lit(kind.value).alias("kind"),
        pl.col(value).cast(pl.String).alias("value"),
        (pl.col(second) if second else absent).cast(pl.String).alias("second"),
        (pl.col(third) if third else absent).cast(pl.String).alias("third"),
        (pl.col("@owner") if owner is None else owner).cast(pl.String).alias("owner"),
    ).unique()
