"""Boundaries of partial values, and decimals that keep the digits they were written with."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.errors import FhirPathError, ViewError
from cohortflow.fhir.ndjson import Malformation, read_views
from cohortflow.fhir.views import compile_view

DECIMALS = [
    ("1.587.lowBoundary()", 1.5865),
    ("1.587.highBoundary()", 1.5875),
    ("1.587.lowBoundary(8)", 1.5865),
    ("1.587.lowBoundary(2)", 1.58),
    ("1.587.highBoundary(2)", 1.59),
    ("1.587.lowBoundary(0)", 1.0),
    ("1.587.highBoundary(0)", 2.0),
    ("1.587.lowBoundary(-1)", None),
    ("1.587.highBoundary(32)", None),
    ("(-1.587).lowBoundary()", -1.5875),
    ("(-1.587).highBoundary()", -1.5865),
    ("(-1.587).lowBoundary(2)", -1.59),
    ("(-1.587).highBoundary(2)", -1.58),
    ("(-1.587).lowBoundary(0)", -2.0),
    ("(-1.587).highBoundary(0)", -1.0),
    ("12.500.highBoundary(4)", 12.5005),
    ("120.highBoundary(2)", 120.5),
    ("(-120).highBoundary(2)", -119.5),
    ("0.0034.lowBoundary(1)", 0.0),
    ("0.0034.highBoundary(1)", 0.1),
    ("(-0.0034).lowBoundary(1)", -0.1),
    ("(-0.0034).highBoundary(1)", 0.0),
    ("1.lowBoundary()", 0.5),
    ("1.lowBoundary(0)", 0.0),
    ("1.highBoundary(0)", 2.0),
    ("0.lowBoundary()", -0.5),
    ("9.5.highBoundary(0)", 10.0),
    ("99999999999999.99.highBoundary()", 99999999999999.995),
    ("{}.lowBoundary()", None),
]
TIMES = [
    ("@2014.lowBoundary()", "date", "2014-01-01"),
    ("@2014.highBoundary()", "date", "2014-12-31"),
    ("@2014.lowBoundary(6)", "date", "2014-01"),
    ("@2014.highBoundary(6)", "date", "2014-12"),
    ("@2014.lowBoundary(4)", "date", "2014"),
    ("@2019-02.highBoundary(8)", "date", "2019-02-28"),
    ("@2020-02.highBoundary()", "date", "2020-02-29"),
    ("@2014-05-06.lowBoundary(6)", "date", "2014-05"),
    ("@2014.lowBoundary(5)", "date", None),
    ("@2014T.lowBoundary()", "dateTime", "2014-01-01T00:00:00.000+14:00"),
    ("@2014-02T.highBoundary()", "dateTime", "2014-02-28T23:59:59.999-12:00"),
    ("@2014T.highBoundary(8)", "dateTime", "2014-12-31"),
    ("@2014-01-01T08.lowBoundary(17)", "dateTime", "2014-01-01T08:00:00.000+14:00"),
    ("@2014-01-01T08.highBoundary(17)", "dateTime", "2014-01-01T08:59:59.999-12:00"),
    ("@2014-01-01T08:05+08:00.lowBoundary(17)", "dateTime", "2014-01-01T08:05:00.000+08:00"),
    ("@2014-01-01T08:05-05:00.highBoundary()", "dateTime", "2014-01-01T08:05:59.999-05:00"),
    ("@2014-01-01T08:05:06Z.highBoundary()", "dateTime", "2014-01-01T08:05:06.999Z"),
    ("@2014-01-01T08:05:06.5Z.highBoundary()", "dateTime", "2014-01-01T08:05:06.599Z"),
    ("@2014-01-01T08:05:06.25Z.lowBoundary()", "dateTime", "2014-01-01T08:05:06.250Z"),
    ("@2014-01-01T08:05:06.123456Z.lowBoundary()", "dateTime", "2014-01-01T08:05:06.123456Z"),
    ("@2014-01-01T08:05:06.123456Z.lowBoundary(17)", "dateTime", "2014-01-01T08:05:06.123Z"),
    ("@2014-01-01T08:05:06.lowBoundary(12)", "dateTime", "2014-01-01T08:05+14:00"),
    ("@2014-01-01T08.highBoundary(16)", "dateTime", None),
    ("@T10:30.lowBoundary(9)", "time", "10:30:00.000"),
    ("@T10:30.highBoundary(9)", "time", "10:30:59.999"),
    ("@T10.highBoundary()", "time", "10:59:59.999"),
    ("@T10:30:15.lowBoundary(4)", "time", "10:30"),
    ("@T10:30.lowBoundary(8)", "time", None),
]


def values(columns, *resources, resource="Observation"):
    declared = [
        {"name": f"c{n}", "path": path, "type": kind, **more} for n, (path, kind, more) in enumerate(columns)
    ]
    view = compile_view({"resource": resource, "select": [{"column": declared}]})
    return view.collect(resources).rows()


def observation(value, key="o", **more):
    return {"resourceType": "Observation", "id": key, "valueQuantity": {"value": value, **more}}


def test_boundaries_of_decimals_by_precision():
    columns = [(path, "decimal", {}) for path, _ in DECIMALS]
    (row,) = values(columns, {"resourceType": "Observation", "id": "o"})
    assert dict(zip([path for path, _ in DECIMALS], row, strict=True)) == dict(DECIMALS)


def test_boundaries_of_dates_and_times_by_precision():
    columns = [(path, kind, {}) for path, kind, _ in TIMES]
    (row,) = values(columns, {"resourceType": "Observation", "id": "o"})
    assert dict(zip([path for path, *_ in TIMES], row, strict=True)) == {
        path: value for path, _, value in TIMES
    }


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("1.0", 0.95, 1.05),
        ("1.50", 1.495, 1.505),
        ("1", 0.5, 1.5),
        ("-0.10", -0.105, -0.095),
        ("0.000", -0.0005, 0.0005),
        ("-0.0", -0.05, 0.05),
        ("1.50E3", 1495.0, 1505.0),
        ("1e-2", 0.005, 0.015),
        ("null", None, None),
    ],
)
def test_boundaries_of_decimals_as_written(tmp_path, text, low, high):
    number = "value.ofType(Quantity).value"
    columns = [{"name": n, "path": f"{number}.{n}()"} for n in ("lowBoundary", "highBoundary", "toString")]
    view = compile_view(
        {
            "name": "v",
            "resource": "Observation",
            "select": [{"column": [*columns, {"name": "v", "path": number}]}],
        }
    )
    file = tmp_path / "o.ndjson"
    note = r"a \"value\": 7 and \"value\":7.25"
    file.write_text(
        f'{{"resourceType":"Observation","id":"o","note":[{{"text":"{note}"}}],'
        f'"valueQuantity":{{"unit":"{note}","value" : {text}}}}}'
    )
    frames, malformed = read_views([view], [file]).collect()
    assert malformed.is_empty()
    written = None if text == "null" else text
    assert frames["v"].rows() == [(low, high, written, written and float(text))]


@pytest.mark.parametrize("text", ["01", "1.", "--1", '1 "x"', "1.2.3", '"1.5"', "1}}", "[1.5]"])
def test_digits_do_not_mend_a_malformed_number(tmp_path, text):
    columns = [{"name": "low", "path": "value.ofType(Quantity).value.lowBoundary()"}]
    columns.append({"name": "v", "path": "value.ofType(Quantity).value"})
    view = compile_view({"name": "v", "resource": "Observation", "select": [{"column": columns}]})
    file = tmp_path / "o.ndjson"
    file.write_text(f'{{"resourceType":"Observation","id":"o","valueQuantity":{{"value":{text}}}}}\n')
    frames, malformed = read_views([view], [file]).collect()
    assert frames["v"].is_empty()
    assert malformed["reason"].to_list() in ([Malformation.NOT_JSON], [Malformation.WRONG_JSON_TYPE])


def test_a_column_of_decimals_keeps_every_digit():
    number, tag = "value.ofType(Quantity).value", {"tag": [{"name": "ansi/type", "value": "DECIMAL"}]}
    columns = [(number, "decimal", tag), (f"component.{number}", "decimal", {**tag, "collection": True})]
    long = Decimal("1234567890123456789.0123456789")
    resource = observation(long) | {
        "component": [{"valueQuantity": {"value": one}} for one in (1, 2.5, long)]
    }
    assert values(columns, resource) == [(long, [Decimal(1), Decimal("2.5"), long])]


def test_digits_behind_iterations_filters_and_positions():
    number = "value.ofType(Quantity).value"
    select = [
        {"column": [{"name": "where", "path": f"component.where(code.text = 'b').{number}.lowBoundary()"}]},
        {"column": [{"name": "last", "path": f"component.{number}.last().lowBoundary()"}]},
        {
            "column": [
                {"name": "all", "path": f"component.select({number}.lowBoundary())", "collection": True}
            ]
        },
        {"forEach": "component", "column": [{"name": "each", "path": f"{number}.highBoundary()"}]},
    ]
    components = [
        {"code": {"text": name}, "valueQuantity": {"value": Decimal(text)}}
        for name, text in (("a", "1.0"), ("b", "1.00"))
    ]
    resource = {"resourceType": "Observation", "id": "o", "component": components}
    found = compile_view({"resource": "Observation", "select": select}).collect([resource])
    assert found.rows() == [
        (0.995, 0.995, [0.95, 0.995], 1.05),
        (0.995, 0.995, [0.95, 0.995], 1.005),
    ]


def test_lineage_of_a_boundary_is_the_elements():
    path = "value.ofType(Quantity).value.lowBoundary()"
    view = compile_view({"resource": "Observation", "select": [{"column": [{"name": "low", "path": path}]}]})
    assert view.lineage == {"low": ("Observation.valueQuantity.value",)}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("(value.ofType(Quantity).value + 1).lowBoundary()", "computed decimal"),
        ("(value.ofType(Quantity).value * 2).toString()", "computed decimal"),
        ("status.lowBoundary()", "has no boundary"),
        ("value.ofType(Quantity).value.lowBoundary('1')", "whole number"),
    ],
)
def test_what_has_no_boundary_is_refused(path, message):
    with pytest.raises(FhirPathError, match=message):
        compile_view({"resource": "Observation", "select": [{"column": [{"name": "c", "path": path}]}]})


NUMBERS = st.builds(
    lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.integers(-20, 6),
)
BOUNDED = "value.ofType(Quantity).value"
BOUNDS = compile_view(
    {
        "resource": "Observation",
        "select": [
            {
                "column": [
                    {"name": name.replace("(", "").replace(")", ""), "path": f"{BOUNDED}.{name}"}
                    for name in ("lowBoundary()", "highBoundary()", "lowBoundary(2)", "highBoundary(2)")
                ]
            }
        ],
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_boundaries_of_any_decimal_are_those_of_exact_arithmetic(numbers):
    exact = Context(prec=100)
    expected = []
    for number in numbers:
        half = Decimal(5).scaleb(number.as_tuple().exponent - 1)
        low, high = exact.subtract(number, half), exact.add(number, half)
        rounded = [
            bound.quantize(Decimal("0.01"), rounding=rounding, context=exact)
            if bound.as_tuple().exponent < -2
            else bound
            for bound, rounding in ((low, ROUND_FLOOR), (high, ROUND_CEILING))
        ]
        expected.append(tuple(map(float, (low, high, *rounded))))
    assert BOUNDS.collect([observation(number) for number in numbers]).rows() == expected


def test_what_json_has_not_is_an_error_without_the_value():
    with pytest.raises(ViewError, match="JSON has not") as caught:
        BOUNDS.collect([observation({"secret"})])
    assert "secret" not in str(caught.value)
