"""Values in canonical units: what a study's table gets, and what is reported of it."""

import dataclasses

import polars as pl
import pytest

from cohortflow.errors import CoverageError, StudyError
from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.terminology import (
    UnitMapping,
    UnitTable,
    check_units,
    harmonize_units,
    load_unit_catalog,
    measure_units,
    unit_columns,
)

LOINC = "http://loinc.org"
ROWS = [
    (LOINC, "2345-7", 5.5, "mmol/L"),
    ("urn:oid:2.16.840.1.113883.6.1", " 2345-7 ", 100.0, "MG/DL"),
    (LOINC, "2345-7", 100.0, "mg/dL"),
    (LOINC, "2345-7", 100.0, None),
    (LOINC, "2345-7", 100.0, "see comment"),
    (LOINC, "2345-7", 100.0, "kg"),
    (LOINC, "2345-7", 0.1, "mg/dL"),
    (LOINC, "2345-7", None, "mg/dL"),
    (LOINC, "8310-5", 98.6, "F"),
    ("https://lab.example.org", "CRE", 1.0, "mg/dL"),
    (None, None, 1.0, None),
]
SCHEMA = {"code_system": pl.String, "code": pl.String, "value_quantity": pl.Float64, "value_unit": pl.String}


@pytest.fixture(scope="module")
def table():
    return UnitTable(load_unit_catalog(Catalog.default()))


@pytest.fixture
def frame():
    return pl.LazyFrame(ROWS, schema=SCHEMA, orient="row")


def test_every_row_stays_and_says_what_became_of_it(frame, table):
    result = harmonize_units(frame, UnitMapping(), table).collect()
    assert result.select(*SCHEMA).equals(frame.collect())
    assert result.select(pl.exclude(*SCHEMA)).rows() == [
        (pytest.approx(99.0858), "mg/dL", "converted", True),
        (100.0, "mg/dL", "synonym", True),
        (100.0, "mg/dL", "canonical", True),
        (None, None, "missing", None),
        (None, None, "unknown_unit", None),
        (None, None, "incompatible", None),
        (0.1, "mg/dL", "canonical", False),
        (None, None, None, None),
        (37.0, "Cel", "converted", True),
        (None, None, "no_canonical_unit", None),
        (None, None, "no_canonical_unit", None),
    ]


def test_added_columns_are_those_that_are_announced(frame, table):
    mapping = UnitMapping(prefix="lab_")
    columns = unit_columns(mapping, [Column("value_quantity", ColumnType.FLOAT, phi=PhiClass.NUMBER)])
    result = harmonize_units(frame, mapping, table).collect_schema()
    types = {ColumnType.FLOAT: pl.Float64, ColumnType.STRING: pl.String, ColumnType.BOOLEAN: pl.Boolean}
    assert list(result.items())[len(SCHEMA) :] == [(c.name, types[c.type]()) for c in columns]


def test_what_is_computed_is_protected_as_its_value_is():
    source = Column("age_value", ColumnType.FLOAT, ("Observation.valueQuantity.value",), PhiClass.AGE)
    value, unit, status, plausible = unit_columns(UnitMapping(value="age_value"), [source])
    assert {value.phi, plausible.phi} == {PhiClass.AGE}
    assert value.paths == plausible.paths == source.paths
    assert {unit.phi, status.phi} == {PhiClass.SAFE_CODE}
    assert unit_columns(UnitMapping(), [])[0].phi is PhiClass.UNKNOWN


def test_a_view_without_systems_has_loinc_codes(frame, table):
    mapping = UnitMapping(system=None)
    result = harmonize_units(frame.drop("code_system"), mapping, table)
    assert result.collect()["unit_status"].to_list()[:2] == ["converted", "synonym"]
    assert measure_units(result, mapping).rows_usable == 5


@pytest.mark.parametrize("dtype", [pl.Decimal(38, 10), pl.Float32, pl.Int64])
def test_numbers_of_any_type_convert(table, dtype):
    frame = pl.LazyFrame({"code": ["8302-2"], "value_quantity": [2], "value_unit": ["m"]})
    result = harmonize_units(
        frame.with_columns(pl.col("value_quantity").cast(dtype)), UnitMapping(system=None), table
    )
    assert result.collect()["value_quantity_canonical"].to_list() == [200.0]


def test_numbers_that_are_none_are_not_plausible(table):
    values = [float("nan"), float("inf"), -0.0]
    frame = pl.LazyFrame({"code": ["8302-2"] * 3, "value_quantity": values, "value_unit": ["cm"] * 3})
    result = harmonize_units(frame, UnitMapping(system=None), table).collect()
    assert result["plausible"].to_list() == [False] * 3


def test_decimals_are_not_blurred(table):
    """One rounding at most: the result is the number that a person would write."""
    values = [n / 10 for n in range(10, 2000)]
    frame = pl.LazyFrame({"code": ["718-7"] * len(values), "value_quantity": values})
    result = harmonize_units(
        frame.with_columns(value_unit=pl.lit("g/L")), UnitMapping(system=None), table
    ).collect()
    assert result["value_quantity_canonical"].to_list() == [value / 10 for value in values]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (UnitMapping(unit="units"), "read the unit from a missing column 'units'"),
        (UnitMapping(value="code"), "read values from 'code', which holds String"),
    ],
)
def test_columns_that_do_not_fit_are_refused(frame, table, mapping, message):
    with pytest.raises(StudyError, match=message):
        harmonize_units(frame, mapping, table)


def test_columns_are_not_replaced(frame, table):
    once = harmonize_units(frame, UnitMapping(), table)
    with pytest.raises(StudyError, match="would replace the columns value_quantity_canonical"):
        harmonize_units(once, UnitMapping(), table)


class TestCoverage:
    @pytest.fixture
    def coverage(self, frame, table):
        return measure_units(harmonize_units(frame, UnitMapping(), table), UnitMapping())

    def test_counts_rows_codes_and_units(self, coverage):
        assert (coverage.rows, coverage.rows_with_value) == (11, 10)
        assert (coverage.rows_with_unit, coverage.rows_usable, coverage.implausible) == (8, 5, 1)
        assert coverage.unknown_share == pytest.approx(3 / 8)
        counts = {count.status: (count.rows, count.codes, count.units) for count in coverage.statuses}
        assert counts == {
            "canonical": (2, 1, 1),
            "converted": (2, 2, 2),
            "no_canonical_unit": (2, 1, 1),
            "synonym": (1, 1, 1),
            "missing": (1, 1, 0),
            "unknown_unit": (1, 1, 1),
            "incompatible": (1, 1, 1),
        }
        glucose, temperature = coverage.codes
        assert (glucose.code, glucose.unit, glucose.rows) == ("2345-7", "mg/dL", 7)
        assert (glucose.converted, glucose.unusable, glucose.implausible) == (1, 3, 1)
        assert (temperature.code, temperature.converted, temperature.unusable) == ("8310-5", 1, 0)

    def test_shows_no_unit_of_the_source_and_no_rare_code(self, coverage):
        shown = str(coverage.to_dict())
        assert "see comment" not in shown
        assert "MG/DL" not in shown
        assert [code.code for code in coverage.hide_rare(2).codes] == ["2345-7"]

    def test_a_share_that_is_the_limit_is_within_it(self, coverage):
        for usable in range(1001):
            known = dataclasses.replace(coverage, rows_with_unit=1000, rows_usable=usable)
            check_units(known, (1000 - usable) / 1000)

    def test_a_share_of_unknown_units_stops_a_study(self, coverage):
        check_units(coverage, None)
        check_units(coverage, 0.375)
        with pytest.raises(CoverageError) as caught:
            check_units(coverage, 0.37, place="report.json")
        assert str(caught.value).startswith(
            "report.json: 37.5% of 8 values in 'value_quantity' have no canonical unit; the study allows "
            "37.0%. Rows by reason: missing: 1, unknown_unit: 1, incompatible: 1."
        )
        assert "2345-7" in caught.value.remedy
        assert "see comment" not in str(caught.value)

    def test_without_such_values_nothing_is_demanded(self, table):
        frame = harmonize_units(pl.LazyFrame(schema=SCHEMA), UnitMapping(), table)
        coverage = measure_units(frame, UnitMapping())
        assert coverage.unknown_share is None
        assert coverage.to_dict()["statuses"] == ()
        check_units(coverage, 0.0)
