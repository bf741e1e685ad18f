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


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("4 'mg' = 4.0 'mg'", True),
        ("4 'mg' = 4 'g'", None),
        ("4 days < 5 'd'", True),
        ("component[0].value.ofType(Quantity) < component[1].value.ofType(Quantity)", True),
        ("component[0].value.ofType(Quantity) = component[2].value.ofType(Quantity)", None),
        ("component[0].value.ofType(Quantity) ~ component[2].value.ofType(Quantity)", False),
        ("component[3].value.ofType(Quantity) ~ component[4].value.ofType(Quantity)", True),
        ("value.ofType(Quantity) > 5.toQuantity()", None),
        ("value.ofType(Quantity).value.toQuantity() > 5.toQuantity()", True),
        ("'5.0 \\'mg\\''.toQuantity() < value.ofType(Quantity)", True),
        ("'5.6'.toQuantity().value", 5.6),
        ("'5 days'.toQuantity().unit", "d"),
        ("'5 hands'.toQuantity().value", None),
        ("'many'.toQuantity().exists()", False),
        ("true.toQuantity() = 1 '1'", True),
    ],
)
def test_quantities_of_all_kinds(path, result):
    view = compile_view({"resource": "Observation", "select": [{"column": [{"name": "c", "path": path}]}]})
    parts = [{"value": 1.0}, {"value": 2.0}, {"value": 1.0, "code": "g"}]
    components = [{"valueQuantity": {**QUANTITY, **part}} for part in parts]
    resource = {"resourceType": "Observation", "id": "o", "valueQuantity": QUANTITY, "component": components}
    assert view.collect([resource]).item() == result
