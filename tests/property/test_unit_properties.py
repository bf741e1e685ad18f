"""Laws of units, for any rows."""

from fractions import Fraction

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cohortflow.model import Catalog
from cohortflow.terminology import UnitMapping, UnitStatus, UnitTable, harmonize_units, load_unit_catalog
from cohortflow.terminology.ucum import convert, parse_unit

TABLE = UnitTable(load_unit_catalog(Catalog.default()))
CODES = sorted(TABLE.catalog.codes)
UNITS = sorted(TABLE.catalog.spellings)
SPELLINGS = sorted({text for texts in TABLE.catalog.spellings.values() for text in texts})
SOURCE = {"system": pl.String, "code": pl.String, "value": pl.Float64, "unit": pl.String}
MAPPING = UnitMapping(value="value", unit="unit", code="code", system="system")

units = st.one_of(
    st.none(), st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS).map(str.upper), st.text(max_size=20)
)
values = st.none() | st.floats(allow_nan=False, width=64)
rows = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(CODES),
            st.tuples(st.none() | st.text(max_size=9), st.none() | st.text(max_size=9)),
        ),
        values,
        units,
    ),
    max_size=30,
)


def table_of(drawn):
    return pl.DataFrame([(*key, value, unit) for key, value, unit in drawn], schema=SOURCE, orient="row")


@given(rows)
@settings(max_examples=150)
def test_every_row_stays_with_its_value_and_unit(drawn):
    source = table_of(drawn)
    result = harmonize_units(source.lazy(), MAPPING, TABLE).collect()
    assert result.select(*SOURCE).equals(source)
    streamed = harmonize_units(source.lazy(), MAPPING, TABLE).collect(engine="streaming")
    assert streamed.equals(result)


@given(rows)
@settings(max_examples=150)
def test_status_value_and_unit_agree(drawn):
    result = harmonize_units(table_of(drawn).lazy(), MAPPING, TABLE).collect()
    usable = [UnitStatus.CANONICAL, UnitStatus.SYNONYM, UnitStatus.CONVERTED]
    for row in result.iter_rows(named=True):
        assert (row["unit_status"] is None) == (row["value"] is None)
        converted = row["unit_status"] in usable
        assert (row["value_canonical"] is not None) == converted
        assert (row["unit_canonical"] is not None) == converted
        assert (row["plausible"] is not None) == converted
        if row["unit_status"] in {UnitStatus.CANONICAL, UnitStatus.SYNONYM}:
            assert row["value_canonical"] == row["value"]


@given(rows)
@settings(max_examples=100)
def test_canonical_values_stay_as_they_are(drawn):
    once = harmonize_units(table_of(drawn).lazy(), MAPPING, TABLE).collect()
    again = harmonize_units(
        once.lazy().select("system", "code", value="value_canonical", unit="unit_canonical"), MAPPING, TABLE
    ).collect()
    assert again["value_canonical"].equals(once["value_canonical"])
    assert again["unit_canonical"].equals(once["unit_canonical"])
    assert again["plausible"].equals(once["plausible"])
    assert set(again["unit_status"].drop_nulls()) <= {UnitStatus.CANONICAL}


@given(st.sampled_from(UNITS), st.sampled_from(UNITS))
@example("[degF]", "Cel")
def test_there_and_back_is_the_same_number(first, second):
    source, target = parse_unit(first), parse_unit(second)
    there = convert(source, target, molar_mass=Fraction("180.156"), valence=2)
    back = convert(target, source, molar_mass=Fraction("180.156"), valence=2)
    assert (there is None) == (back is None)
    if there is not None:
        number = Fraction(37, 10)
        assert ((number * there.factor + there.offset) * back.factor) + back.offset == number


@given(st.text(max_size=70))
@example("5.4")
@example("{" * 40)
@example("/" * 40)
def test_no_text_breaks_the_reading(text):
    for system, code in CODES[::40]:
        reading = TABLE.resolve(system, code, text)
        assert (reading.conversion is None) == (
            reading.status in {UnitStatus.MISSING, UnitStatus.UNKNOWN_UNIT, UnitStatus.INCOMPATIBLE}
        )


@given(st.floats(-50, 60))
def test_fahrenheit_is_exact_to_the_last_digits(celsius):
    frame = pl.LazyFrame({"code": ["8310-5"], "value": [celsius * 1.8 + 32], "unit": ["[degF]"]})
    mapping = UnitMapping(value="value", unit="unit", system=None)
    result = harmonize_units(frame, mapping, TABLE).collect()["value_canonical"].item()
    assert result == pytest.approx(celsius, rel=1e-13, abs=1e-13)
