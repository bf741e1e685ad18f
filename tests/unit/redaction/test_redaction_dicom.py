"""DICOM attributes under the Basic Profile."""

import datetime as dt

import polars as pl
import pytest
from pydicom.datadict import keyword_for_tag

from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.redaction import ProjectKey, classify, find_rule, load_policy, plan_redaction, redact
from cohortflow.redaction.dicom import load_attributes

KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
BASIC = load_policy(Catalog.default(), "dicom_basic")


def test_keywords_and_tags_agree_with_the_dictionary():
    attributes = set(load_attributes().values())
    assert len(attributes) > 650
    wrong = [a.keyword for a in attributes if keyword_for_tag(int(a.tag.replace(",", ""), 16)) != a.keyword]
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "phi"),
    [
        ("DICOM.PatientName", PhiClass.DIRECT_IDENTIFIER),
        ("DICOM.00100010", PhiClass.DIRECT_IDENTIFIER),
        ("DICOM.StudyDate", PhiClass.DATE),
        ("DICOM.StudyInstanceUID", PhiClass.REFERENCE),
        ("DICOM.0020000d", PhiClass.REFERENCE),
        ("DICOM.StudyDescription", PhiClass.FREE_TEXT),
        ("DICOM.PatientAge", PhiClass.AGE),
        ("DICOM.Modality", PhiClass.SAFE_CODE),
        ("DICOM.SliceThickness", PhiClass.NUMBER),
        ("DICOM.RequestAttributesSequence.Modality", PhiClass.UNKNOWN),
        ("DICOM.00091001", PhiClass.UNKNOWN),
        ("DICOM.FavouriteColour", PhiClass.UNKNOWN),
        ("DICOM", PhiClass.UNKNOWN),
    ],
)
def test_attributes_have_classes(path, phi):
    assert classify(path) is phi


def test_the_action_of_the_profile_is_told():
    assert find_rule("DICOM.PatientName").note == "DICOM PS3.15 Table E.1-1, Basic Profile: Z"


@pytest.mark.parametrize("keyword", sorted({a.keyword for a in load_attributes().values()}))
def test_the_policy_does_what_the_profile_asks(keyword):
    attribute = load_attributes()[keyword]
    plan = plan_redaction("instance", [Column("value", ColumnType.STRING, (f"DICOM.{keyword}",))], BASIC)
    expected = {"K": "keep", "U": "hash"}.get(attribute.code, "drop")
    assert str(plan.columns[0].treatment) == expected


def test_uids_have_one_pseudonym_wherever_the_attribute_stands():
    columns = [
        Column("study_uid", ColumnType.STRING, ("DICOM.StudyInstanceUID",)),
        Column("prior_uid", ColumnType.STRING, ("DICOM.ReferencedSOPInstanceUID",)),
        Column("name", ColumnType.STRING, ("DICOM.PatientName",)),
        Column("modality", ColumnType.STRING, ("DICOM.Modality",)),
    ]
    plan = plan_redaction("instance", columns, BASIC)
    frame = pl.LazyFrame(
        {"study_uid": ["1.2.3"], "prior_uid": ["1.2.3"], "name": ["Roe^Jane"], "modality": ["MR"]}
    )
    redacted = redact(frame, plan, KEY, as_of=dt.date(2026, 1, 1)).collect()
    pseudonym = KEY.pseudonym("DICOM", "1.2.3")
    assert redacted.rows() == [(pseudonym, pseudonym, "MR")]
