"""Classes of FHIR elements."""

import pytest

from cohortflow.model import Column, ColumnType, PhiClass
from cohortflow.redaction.phi import PathPattern, classify, classify_columns, load_rules, split_path

US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition"


@pytest.mark.parametrize(
    ("path", "phi"),
    [
        ("Patient.id", PhiClass.REFERENCE),
        ("Observation.subject.reference", PhiClass.REFERENCE),
        ("Patient.gender", PhiClass.QUASI_IDENTIFIER),
        ("Patient.birthDate", PhiClass.DATE),
        ("Patient.deceasedBoolean", PhiClass.QUASI_IDENTIFIER),
        ("Patient.deceasedDateTime", PhiClass.DATE),
        ("Patient.name.family", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.telecom.value", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.identifier.value", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.contact.name.given", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.address.line", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.address.city", PhiClass.GEOGRAPHIC),
        ("Patient.address.postalCode", PhiClass.GEOGRAPHIC),
        ("Patient.address.state", PhiClass.QUASI_IDENTIFIER),
        (
            f"Patient.extension({US_CORE}/us-core-race).extension(ombCategory).valueCoding.code",
            PhiClass.QUASI_IDENTIFIER,
        ),
        (f"Patient.extension({US_CORE}/us-core-race).extension(text).valueString", PhiClass.FREE_TEXT),
        (f"Patient.extension({US_CORE}/us-core-birthsex).valueCode", PhiClass.QUASI_IDENTIFIER),
        ("Condition.code.coding.code", PhiClass.SAFE_CODE),
        ("Condition.code.coding.system", PhiClass.SAFE_CODE),
        ("Condition.code.coding.display", PhiClass.FREE_TEXT),
        ("Condition.code.text", PhiClass.FREE_TEXT),
        ("Condition.onsetAge.value", PhiClass.AGE),
        ("Condition.onsetRange.low.value", PhiClass.AGE),
        ("Encounter.class.code", PhiClass.SAFE_CODE),
        ("Encounter.period.start", PhiClass.DATE),
        ("Observation.effectivePeriod.start", PhiClass.DATE),
        ("Observation.valueQuantity.value", PhiClass.NUMBER),
        ("Observation.valueString", PhiClass.FREE_TEXT),
        ("Observation.component.valueCodeableConcept.coding.display", PhiClass.FREE_TEXT),
        ("MedicationRequest.dosageInstruction.text", PhiClass.FREE_TEXT),
        ("MedicationRequest.requester.display", PhiClass.DIRECT_IDENTIFIER),
        ("DocumentReference.content.attachment.data", PhiClass.FREE_TEXT),
        ("DocumentReference.content.attachment.url", PhiClass.DIRECT_IDENTIFIER),
        ("DocumentReference.description", PhiClass.FREE_TEXT),
        ("Immunization.lotNumber", PhiClass.QUASI_IDENTIFIER),
        ("Device.lotNumber", PhiClass.DIRECT_IDENTIFIER),
    ],
)
def test_known_paths(path, phi):
    assert classify(path) is phi


@pytest.mark.parametrize(
    "path",
    [
        "Patient.favouriteColour",
        "Patient.extension(http://hospital.example/vip).valueCode",
        "Patient.extension(http://hospital.example/vip).valueCodeableConcept.coding.code",
        "Patient.extension(http://hospital.example/admitted).valueDateTime",
        f"Patient.extension({US_CORE}/us-core-race).extension(secret).valueCoding.code",
        f"Observation.extension({US_CORE}/us-core-race).extension(ombCategory).valueCoding.code",
        "Observation.modifierExtension(http://hospital.example/x).valueBoolean",
        "Observation.contained.code.coding.code",
        "",
    ],
)
def test_what_no_rule_knows_is_unknown(path):
    assert classify(path) is PhiClass.UNKNOWN


def test_the_dots_of_an_extension_url_do_not_split_it():
    assert split_path("Patient.extension(http://a.b/c.d).extension(e).valueCode") == (
        "Patient",
        "extension(http://a.b/c.d)",
        "extension(e)",
        "valueCode",
    )


def test_the_most_specific_pattern_wins():
    generic, named, exact = (
        PathPattern("**.code"),
        PathPattern("**.coding.code"),
        PathPattern("A.coding.code"),
    )
    assert generic.specificity < named.specificity < exact.specificity
    assert all(pattern.matches("A.coding.code") for pattern in (generic, named, exact))
    assert not named.matches("A.code")


def test_between_equally_specific_rules_the_strictest_comes_first():
    ordered = [(rule.pattern.specificity, rule.phi) for rule in load_rules()]
    assert ordered == sorted(ordered, reverse=True)


def test_every_identifier_class_cites_the_regulation():
    identifiers = {PhiClass.DATE, PhiClass.AGE, PhiClass.GEOGRAPHIC, PhiClass.FREE_TEXT, PhiClass.REFERENCE}
    identifiers.add(PhiClass.DIRECT_IDENTIFIER)
    uncited = [rule.pattern.text for rule in load_rules() if rule.phi in identifiers and not rule.source]
    assert uncited == []


def test_no_pattern_stands_twice():
    texts = [rule.pattern.text for rule in load_rules()]
    assert len(texts) == len(set(texts))


def test_a_column_takes_the_strictest_of_its_paths():
    column = Column("when", ColumnType.STRING, ("Condition.onsetDateTime", "Condition.onsetString"))
    assert classify_columns([column])[0].phi is PhiClass.FREE_TEXT


def test_a_column_without_paths_keeps_its_class():
    derived = Column("target_code", ColumnType.STRING, phi=PhiClass.SAFE_CODE)
    unstated = Column("mystery", ColumnType.STRING)
    assert [column.phi for column in classify_columns([derived, unstated])] == [
        PhiClass.SAFE_CODE,
        PhiClass.UNKNOWN,
    ]


def test_a_flag_derived_from_a_date_tells_no_date():
    paths = ("Patient.deceasedDateTime", "Patient.deceasedBoolean")
    flag = Column("deceased", ColumnType.BOOLEAN, paths)
    assert classify_columns([flag])[0].phi is PhiClass.QUASI_IDENTIFIER


def test_a_flag_derived_from_something_else_is_classed_as_its_path():
    flag = Column("vip", ColumnType.BOOLEAN, ("Patient.extension(http://hospital.example/vip).valueBoolean",))
    assert classify_columns([flag])[0].phi is PhiClass.UNKNOWN


def test_a_column_is_as_strict_as_what_decides_whether_it_has_a_value():
    paths, tested = ("Patient.name.use",), ("Patient.name.family",)
    column = Column("use", ColumnType.STRING, paths, tested=tested)
    assert classify_columns([column])[0].phi is PhiClass.DIRECT_IDENTIFIER


def test_a_value_that_depends_on_a_date_identifies_in_combination():
    column = Column("kind", ColumnType.STRING, ("Encounter.class.code",), tested=("Encounter.period.start",))
    assert classify_columns([column])[0].phi is PhiClass.QUASI_IDENTIFIER
