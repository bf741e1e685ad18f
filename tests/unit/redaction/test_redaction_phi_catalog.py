"""Classes of the elements that the catalog's further views read."""

import pytest

from cohortflow.model import PhiClass
from cohortflow.redaction import classify


@pytest.mark.parametrize(
    ("path", "phi"),
    [
        ("Coverage.subscriberId", PhiClass.DIRECT_IDENTIFIER),
        ("ImagingStudy.series.uid", PhiClass.DIRECT_IDENTIFIER),
        ("Device.serialNumber", PhiClass.DIRECT_IDENTIFIER),
        ("Device.udiCarrier.deviceIdentifier", PhiClass.DIRECT_IDENTIFIER),
        ("Practitioner.identifier.value", PhiClass.DIRECT_IDENTIFIER),
        ("RelatedPerson.name.family", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.contact.address.line", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.identifier.system", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.contact.address.postalCode", PhiClass.GEOGRAPHIC),
        ("Location.position.latitude", PhiClass.GEOGRAPHIC),
        ("RelatedPerson.birthDate", PhiClass.DATE),
        ("ImagingStudy.series.started", PhiClass.DATE),
        ("QuestionnaireResponse.authored", PhiClass.DATE),
        ("FamilyMemberHistory.condition.onsetAge.value", PhiClass.AGE),
        ("FamilyMemberHistory.deceasedAge.value", PhiClass.AGE),
        ("QuestionnaireResponse.item.text", PhiClass.FREE_TEXT),
        ("QuestionnaireResponse.item.answer.valueString", PhiClass.FREE_TEXT),
        ("DiagnosticReport.conclusion", PhiClass.FREE_TEXT),
        ("RelatedPerson.gender", PhiClass.QUASI_IDENTIFIER),
        ("Claim.total.value", PhiClass.NUMBER),
        ("ExplanationOfBenefit.payment.amount.value", PhiClass.NUMBER),
        ("Claim.use", PhiClass.SAFE_CODE),
        ("Patient.name.use", PhiClass.SAFE_CODE),
        ("CodeSystem.url", PhiClass.SAFE_CODE),
        # What looks alike stays as strict as its type makes it.
        ("Medication.batch.lotNumber", PhiClass.FREE_TEXT),
        ("Organization.url", PhiClass.DIRECT_IDENTIFIER),
        ("Patient.name", PhiClass.NUMBER),
        ("Organization.name", PhiClass.DIRECT_IDENTIFIER),
    ],
)
def test_elements_have_the_class_that_the_rule_gives(path, phi):
    assert classify(path) is phi
