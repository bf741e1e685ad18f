import pytest
from pydantic import ValidationError

from cohortflow.cohort import (
    STANDARD_TIME_COLUMNS,
    SUBJECT_COLUMNS,
    AgeRule,
    CohortDefinition,
    ObservedRule,
    ValueRange,
    Window,
)
from cohortflow.model import Catalog, PhiClass

ENTRY = {"view": "condition", "value_set": "type_2_diabetes"}


def define(*inclusion, **entry):
    return CohortDefinition.model_validate({"name": "c", "entry": ENTRY | entry, "inclusion": inclusion})


def test_a_definition_says_which_views_and_value_sets_it_needs():
    definition = define(
        {"kind": "observed", "view": "observation", "value_set": "hba1c"},
        {"kind": "absent", "view": "condition", "value_set": "asthma"},
        {"kind": "age", "at_least": 18},
    )
    assert definition.views == ("condition", "observation", "patient")
    assert definition.value_sets == ("asthma", "hba1c", "type_2_diabetes")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "age", "at_least": 18, "at_most": 64}, "Age >= 18 and <= 64 at index date"),
        ({"kind": "age", "at_most": 64, "at": "as_of"}, "Age <= 64 at end of the data interval"),
        ({"kind": "sex", "any_of": ["female", "other"]}, "Administrative gender female or other"),
        ({"kind": "alive"}, "Alive at end of the data interval"),
        (
            {
                "kind": "observed",
                "view": "observation",
                "value_set": "hba1c",
                "value": {"at_least": 6.5, "less_than": 20, "units": ["%"]},
                "window": {"from_day": -365, "to_day": 0},
                "count": 2,
            },
            "Has hba1c >= 6.5 and < 20 % on 2 days, day -365 to 0",
        ),
        (
            {"kind": "absent", "view": "condition", "value_set": "asthma", "window": {"to_day": -1}},
            "Has no asthma, up to day -1",
        ),
        ({"kind": "absent", "view": "condition", "value_set": "asthma", "name": "No asthma"}, "No asthma"),
    ],
)
def test_a_rule_describes_itself_for_the_attrition(rule, text):
    assert define(rule).inclusion[0].describe() == text


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        ({"kind": "weight"}, "inclusion.0"),
        ({"kind": "age"}, "inclusion.0.age"),
        ({"kind": "age", "at_least": 65, "at_most": 18}, "inclusion.0.age"),
        ({"kind": "age", "at_least": 18, "unit": "y"}, "inclusion.0.age.unit"),
        ({"kind": "sex", "any_of": []}, "inclusion.0.sex.any_of"),
        ({"kind": "sex", "any_of": ["f"]}, "inclusion.0.sex.any_of.0"),
        (
            {"kind": "observed", "view": "observation", "value_set": "x", "count": 0},
            "inclusion.0.observed.count",
        ),
        ({"kind": "observed", "view": "observation"}, "inclusion.0.observed.value_set"),
        (
            {"kind": "absent", "view": "v", "value_set": "x", "window": {"from_day": 1, "to_day": 0}},
            "inclusion.0.absent.window",
        ),
    ],
)
def test_a_faulty_rule_is_refused_by_its_place(rule, place):
    with pytest.raises(ValidationError) as caught:
        define(rule)
    assert ".".join(str(step) for step in caught.value.errors()[0]["loc"]) == place


@pytest.mark.parametrize(
    "value",
    [
        {"units": ["%"]},
        {"at_least": 6.5, "units": []},
        {"at_least": 6.5},
        {"at_least": 6, "greater_than": 5, "units": ["%"]},
        {"at_least": 7, "less_than": 6, "units": ["%"]},
        {"at_least": float("nan"), "units": ["%"]},
    ],
)
def test_a_range_without_sense_is_refused(value):
    with pytest.raises(ValidationError):
        ValueRange.model_validate(value)


def test_a_definition_cannot_be_changed():
    rule = ObservedRule(view="observation", value_set="hba1c", window=Window(to_day=0))
    with pytest.raises(ValidationError):
        rule.window.to_day = 5
    with pytest.raises(ValidationError):
        AgeRule(at_least=18).at_least = 0


def test_a_definition_survives_json():
    definition = define(
        {"kind": "observed", "view": "observation", "value_set": "hba1c", "where": {"status": ["final"]}},
        {"kind": "age", "at_least": 18},
    )
    assert CohortDefinition.model_validate_json(definition.model_dump_json()) == definition


def test_the_time_columns_are_those_of_the_catalog():
    catalog = Catalog.default()
    if not (catalog.root / "views").is_dir():
        pytest.skip("the catalog has no views")
    found = {
        name: list(_time_columns(catalog.load("views", name)["select"])) for name in catalog.names("views")
    }
    assert {name: columns for name, columns in found.items() if columns} == {
        name: [column] for name, column in STANDARD_TIME_COLUMNS.items()
    }


def _time_columns(selects):
    for select in selects:
        for column in select.get("column", ()):
            if {"name": "cohortflow/role", "value": "time"} in column.get("tag", ()):
                yield column["name"]
        yield from _time_columns(select.get("select", ()))
        yield from _time_columns(select.get("unionAll", ()))


def test_the_columns_of_the_subjects_are_classified():
    assert {column.name: column.phi for column in SUBJECT_COLUMNS} == {
        "patient_id": PhiClass.REFERENCE,
        "index_date": PhiClass.DATE,
        "age_at_index": PhiClass.AGE,
    }
