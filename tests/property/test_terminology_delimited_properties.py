"""Tables of text: every row and every character of it comes through."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohortflow.errors import MalformedDataError
from cohortflow.terminology.loaders.delimited import LINE, Delimited

# Any character but separators and line ends; words that other readers take for nothing among them.
VALUE = st.one_of(
    st.sampled_from(
        ["NA", "null", "None", "NaN", "#N/A", "", '"', "'", '"x', " ", "-", "0", "00", "1e5", "true"]
    ),
    st.text(
        st.characters(codec="utf-8", exclude_characters="\t\r\n|\ufeff", exclude_categories=["Cs", "Cc"]),
        max_size=6,
    ),
)
# A row of empty values in a table of one column would be a blank line.
ROW = st.tuples(st.sampled_from(["1", "22", "x"]), VALUE, VALUE)
NAMES = ("id", "first", "last")
SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def read(rows, separator, *, end="\n", mark="", final=True, header=True):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.txt"
        lines = [
            separator.join((*row, *([] if header else [""]))) for row in ([NAMES, *rows] if header else rows)
        ]
        file.write_bytes((mark + end.join(lines) + (end if final else "")).encode())
        table = Delimited.open(file, NAMES) if header else Delimited.open_rrf(file, NAMES)
        return table.scan().collect()


@SETTINGS
@given(st.lists(ROW, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_rows_with_tabs_come_through_as_they_are(rows, end, mark, final):
    found = read(rows, "\t", end=end, mark="\ufeff" if mark else "", final=final)
    assert found[LINE].to_list() == list(range(2, len(rows) + 2))
    assert [tuple(value or "" for value in row) for row in found.select(NAMES).iter_rows()] == rows


@SETTINGS
@given(st.lists(ROW, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_rows_with_bars_come_through_as_they_are(rows, end):
    found = read(rows, "|", end=end, header=False)
    assert found[LINE].to_list() == list(range(1, len(rows) + 1))
    assert [tuple(value or "" for value in row) for row in found.select(NAMES).iter_rows()] == rows


@SETTINGS
@given(st.lists(ROW, min_size=1, max_size=12), st.data())
def test_a_line_with_another_number_of_columns_is_named(rows, data):
    place = data.draw(st.integers(0, len(rows) - 1))
    broken = [*rows]
    broken[place] = data.draw(st.sampled_from([rows[place][:2], (*rows[place], "more")]))
    with pytest.raises(MalformedDataError) as caught:
        read(broken, "\t")
    assert caught.value.place.endswith(f"rows.txt:{place + 2}")
