"""Discovery: what the columns of an unknown table hold."""

import polars as pl
import pytest

from cohortflow.model import Catalog
from cohortflow.patterns import SCAN_SCHEMA, PatternLibrary, load_patterns, scan_table, suggest_contents

TABLE = pl.DataFrame(
    {
        "PatientMRN": ["00123456", "00123457", None, "00123458"],
        "provider": [1234567893, 1245319599, 1234567893, 1234567893],
        "provider_npi": [1234567893, 1245319599, 1234567893, 1234567893],
        "dx": ["E11.65", "I10", "J45.909", "E78.5"],
        "platelets": [60601, 2115, 90210, 10001],
        "zip": ["60601", "02115", "90210", "10001"],
        "taxpayer": ["123-45-6789", "123-45-6780", "000-45-6789", "123-45-6789"],
        "lab": ["4548-4", "2345-7", "2345-7", "4548-4"],
        "note": ["stable", "call 617-555-0123 or 617-555-0199", "stable", "his MRN 00123456"],
        "value": [1.5, 2.5, 3.5, 4.5],
    }
)


@pytest.fixture(scope="module")
def library():
    return load_patterns(Catalog.default())


@pytest.fixture(scope="module")
def counts(library):
    return scan_table(TABLE.lazy(), library)


def count(counts, column, pattern):
    found = counts.filter(column=column, pattern=pattern).select("values", "whole", "inside").rows()
    return found[0] if found else None


def test_values_and_texts_are_counted(counts):
    assert counts.schema == SCAN_SCHEMA
    assert count(counts, "note", "phone_us") == (4, 0, 1)
    assert count(counts, "note", "mrn") == (4, 0, 1)
    assert count(counts, "PatientMRN", "mrn") == (3, 3, 0)
    assert count(counts, "taxpayer", "ssn") == (4, 3, 3)
    assert count(counts, "provider_npi", "npi") == (4, 4, 0)
    assert count(counts, "lab", "loinc") == (4, 4, 4)
    assert "value" not in counts["column"]


def test_no_value_is_in_the_counts(counts):
    text = counts.write_ndjson()
    assert not any(
        str(value) in text for column in ("PatientMRN", "taxpayer", "note") for value in TABLE[column]
    )


def test_contents_are_suggested_by_form_and_name(counts, library):
    best = {}
    for item in suggest_contents(counts, library):
        best.setdefault(item.column, (item.pattern, item.share, item.named))
    assert best == {
        "PatientMRN": ("mrn", 1.0, True),
        "provider_npi": ("npi", 1.0, True),
        "dx": ("icd10cm", 1.0, False),
        "zip": ("zip_code", 1.0, True),
        "taxpayer": ("ssn_shaped", 1.0, False),
        "lab": ("loinc", 1.0, False),
    }


def test_a_lower_share_suggests_more(counts, library):
    suggested = suggest_contents(counts, library, min_share=0.7)
    assert ("taxpayer", "ssn") in {(item.column, item.pattern) for item in suggested}


def test_tables_without_text_and_without_rows_hold_nothing(library):
    assert scan_table(pl.LazyFrame({"value": [1.5]}), library).is_empty()
    assert scan_table(TABLE.clear().lazy(), library).is_empty()
    assert scan_table(pl.LazyFrame(), library).is_empty()
    assert scan_table(TABLE.lazy(), PatternLibrary([])).is_empty()
