"""Every element of every type of FHIR R4 has a class, with a source or a reason."""

import re
from collections.abc import Iterator

import pytest

from cohortflow.fhir.elements import is_primitive, is_resource, list_elements, list_types
from cohortflow.model import PhiClass
from cohortflow.redaction.elements import load_element_rules
from cohortflow.redaction.phi import classify, find_rule, load_rules

RESOURCES = sorted(name for name in list_types() if is_resource(name))
DATA_TYPES = sorted(
    name for name in list_types() if not is_resource(name) and not is_resource(name.partition(".")[0])
)
OPAQUE = {"contained", "extension", "modifierExtension"}
TEXT_TYPES = {"string", "markdown", "xhtml", "base64Binary"}
DATE_TYPES = {"date", "dateTime", "instant", "time"}
NAME_TYPES = {"uri", "url", "canonical", "id", "oid", "uuid"}
RELEASABLE = {PhiClass.SAFE_CODE, PhiClass.NUMBER, PhiClass.QUASI_IDENTIFIER}
# Texts and URIs that the specification or a terminology fills, or that the regulation allows.
ALLOWED = {
    ("Coding", "system"),
    ("Coding", "version"),
    ("Quantity", "system"),
    ("Quantity", "unit"),
    ("Reference", "type"),
    ("Address", "state"),
    ("Address", "country"),
    ("CodeSystem", "url"),
    ("Immunization", "lotNumber"),
    ("Device", "manufacturer"),
    ("Device", "modelNumber"),
    ("QuestionnaireResponse", "questionnaire"),
    ("QuestionnaireResponse.item", "linkId"),
}


def below(owner: str, path: str, above: tuple[str, ...], depth: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, owner, key and type of each element below a type, some types deep."""
    yield from inherited(owner, path, above, depth, owner)


def inherited(owner, path, above, depth, declared):
    from cohortflow.fhir.elements import base_type

    while declared:
        for element in list_elements(declared):
            for kind in element.types:
                key = element.key(kind)
                yield f"{path}.{key}", declared, key, kind
                if not is_primitive(kind) and key not in OPAQUE and kind not in above and depth:
                    yield from below(kind, f"{path}.{key}", (*above, kind), depth - 1)
        declared = base_type(declared)


@pytest.mark.parametrize("name", [*RESOURCES, *DATA_TYPES])
def test_every_element_has_a_class_with_a_source_or_a_reason(name):
    found = list(below(name, name, (name,), 2 if is_resource(name) else 0))
    assert found
    undecided = [path for path, *_ in found if not (rule := find_rule(path)).source + rule.note]
    assert undecided == []
    unknown = {
        path
        for path, _, key, kind in found
        if classify(path) is PhiClass.UNKNOWN and key not in OPAQUE and kind not in {"Extension", "Resource"}
    }
    assert {path for path in unknown if not re.search(r"\.(resource|outcome|event)\.", path)} == set()


@pytest.mark.parametrize("name", RESOURCES)
def test_no_text_name_or_date_is_classed_as_releasable(name):
    wrong = [
        path
        for path, owner, key, kind in below(name, name, (name,), 3)
        if kind in TEXT_TYPES | DATE_TYPES | NAME_TYPES
        and classify(path) in RELEASABLE
        and (owner, key) not in ALLOWED
    ]
    assert wrong == []


@pytest.mark.parametrize("name", RESOURCES)
def test_what_holds_names_numbers_and_addresses_is_never_releasable(name):
    wrong = [
        path
        for path, _, _, kind in below(name, name, (name,), 3)
        if re.search(r"\.(identifier|name|telecom|photo)\.", path)
        and is_primitive(kind)
        and classify(path) in RELEASABLE
        and not re.search(r"\.use$|oding\.(code|system|version|userSelected)$", path)
        and not re.search(r"\.photo\.(contentType|size|language)$|\.type\.(code|system|version)$", path)
    ]
    assert wrong == []


def test_every_rule_is_for_something_that_exists():
    types = {*list_types(), "*"}
    for name, element in load_element_rules():
        assert is_primitive(name) or name in types
        if element not in {"", "**"}:
            assert element in {item.key(kind) for item in list_elements(name) for kind in item.types} or (
                name,
                element,
            ) == ("Age", "value")


def test_every_rule_has_a_source_or_a_reason():
    rules = [*load_element_rules().values(), *load_rules()]
    assert [rule for rule in rules if not rule.source and not rule.note] == []
    strict = {PhiClass.DATE, PhiClass.AGE, PhiClass.GEOGRAPHIC, PhiClass.FREE_TEXT, PhiClass.REFERENCE}
    strict |= {PhiClass.DIRECT_IDENTIFIER, PhiClass.UNKNOWN}
    assert [rule for rule in rules if rule.phi in strict and not rule.source.startswith("45 CFR")] == []


@pytest.mark.parametrize(
    ("path", "phi", "pattern"),
    [
        ("Appointment.comment", PhiClass.FREE_TEXT, "**.comment"),
        ("Flag.author.display", PhiClass.DIRECT_IDENTIFIER, "**.display"),
        ("Specimen.accessionIdentifier.value", PhiClass.DIRECT_IDENTIFIER, "Identifier.**"),
        ("Consent.sourceAttachment.hash", PhiClass.DIRECT_IDENTIFIER, "Attachment.hash"),
        ("MolecularSequence.variant.observedAllele", PhiClass.DIRECT_IDENTIFIER, "MolecularSequence.**"),
        ("Task.input.valueCode", PhiClass.FREE_TEXT, "Task.input.**"),
        ("QuestionnaireResponse.item.item.linkId", PhiClass.SAFE_CODE, "QuestionnaireResponse.item.linkId"),
        ("Observation.valueSampledData.data", PhiClass.FREE_TEXT, "**.data"),
        ("Goal.target.detailRange.low.value", PhiClass.NUMBER, "**.*Range.low.value"),
        ("Appointment.participant", PhiClass.NUMBER, "*"),
        ("Bundle.entry.resource", PhiClass.UNKNOWN, "Resource"),
        ("Bundle.entry.resource.id", PhiClass.UNKNOWN, ""),
        ("Flag.extension", PhiClass.UNKNOWN, "Extension"),
        ("Flag.extension.valueString", PhiClass.UNKNOWN, ""),
        ("Patient.favouriteColour", PhiClass.UNKNOWN, ""),
    ],
)
def test_the_rule_that_decides_is_named(path, phi, pattern):
    rule = find_rule(path)
    assert (rule.phi, rule.pattern.text) == (phi, pattern)
