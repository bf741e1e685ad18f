"""Quantities compared with literals: only within one unit."""

import pytest

from cohortflow.fhir.views import compile_view

UCUM = "http://unitsofmeasure.org"
QUANTITY = {"value": 5.5, "unit": "milligram", "code": "mg", "system": UCUM}


@pytest.mark.parametrize(
    ("path", "changed", "result"),
    [
        ("value.ofType(Quantity) > 5 'mg'", {}, True),
        ("value.ofType(Quantity) < 5 'mg'", {}, False),
        ("value.ofType(Quantity) = 5.5 'mg'", {}, True),
        ("value.ofType(Quantity) != 5.5 'mg'", {}, False),
        ("5 'mg' < value.ofType(Quantity)", {}, True),
        ("5 'mg' >= value.ofType(Quantity)", {}, False),
        ("value.ofType(Quantity) > 5 'g'", {}, None),
        ("value.ofType(Quantity) > 5 'mg'", {"code": "g"}, None),
        ("value.ofType(Quantity) > 5 'mg'", {"system": "http://example.org/units"}, None),
        ("value.ofType(Quantity) > 5 'mg'", {"comparator": "<"}, None),
        ("value.ofType(Quantity) > 5 'mg'", {"value": None}, None),
        ("value.ofType(Quantity) > 5 days", {"code": "d"}, True),
        ("value.ofType(Quantity) > 5 's'", {"code": "s"}, True),
        ("component.value.ofType(Quantity).where($this > 5 'mg').exists()", {}, True),
    ],
)
def test_comparison_with_a_literal(path, changed, result):
    view = compile_view({"resource": "Observation", "select": [{"column": [{"name": "c", "path": path}]}]})
    value = {**QUANTITY, **changed}
    resource = {"resourceType": "Observation", "id": "o", "valueQuantity": value}
    resource["component"] = [{"valueQuantity": {**value, "value": 1}}, {"valueQuantity": value}]
    assert view.collect([resource]).item() is result
