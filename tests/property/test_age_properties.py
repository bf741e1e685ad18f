"""Ages among results: no age over 89 is told, and no other result is touched."""

import datetime as dt

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.redaction import ProjectKey, age_views, find_ages, load_policy, plan_redaction, redact

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
POLICY = load_policy(CATALOG, "safe_harbor")
AGES = ["30525-0", "21612-7", "424144002"]
OTHERS = ["8480-6", "2339-0", "AGE", "age", "30525", "0-30525", "x|30525-0"]
YEARS = {"a": 1, "mo": 12, "wk": 365.25 / 7, "d": 365.25, "h": 8766}
VIEWS = {name: compile_view(CATALOG.load("views", name)) for name in ("observation", "observation_component")}
FINDERS = {place: compile_view(view) for place, view in age_views("Observation", POLICY.age_codes).items()}

numbers = st.floats(0, 1e6) | st.integers(0, 200).map(float) | st.sampled_from([89.5, 90.0, 1080.0, 32872.0])
quantities = st.builds(
    lambda value, unit: {"valueQuantity": {"value": value, **({"code": unit} if unit else {})}},
    numbers,
    st.sampled_from([*YEARS, "mg/dL", "mm[Hg]", "{score}", None]),
)
values = quantities | st.integers(0, 200).map(lambda value: {"valueInteger": value}) | st.just({})


def concepts(codes):
    return st.lists(st.sampled_from(codes), min_size=1, max_size=2).map(
        lambda chosen: {"coding": [{"system": "http://x.example", "code": code} for code in chosen]}
    )


codings = concepts(OTHERS) | concepts([*AGES, *OTHERS])
# Of one record no two numbers are the same: a neighbour with just the number of an age is capped with it.
components = st.lists(
    st.builds(lambda code, value: {"code": code, **value}, codings, values),
    max_size=3,
    unique_by=lambda part: part.get("valueInteger", part.get("valueQuantity", {}).get("value", id(part))),
)
records = st.lists(st.tuples(codings, values, components), max_size=5).map(
    lambda made: [
        {
            "resourceType": "Observation",
            "id": f"o{number}",
            "subject": {"reference": "Patient/p"},
            "code": code,
            "component": parts,
            **value,
        }
        for number, (code, value, parts) in enumerate(made)
    ]
)


def is_age(code):
    return any(coding["code"] in AGES for coding in code["coding"])


def meant(view, resources):
    """Return for each row of a view whether its value is an age, and in which unit."""
    rows = []
    for resource in resources:
        for part in [resource] if view == "observation" else resource["component"]:
            unit = part.get("valueQuantity", {}).get("code", "a" if "valueInteger" in part else None)
            rows += [(is_age(part["code"]), unit)] * len(part["code"]["coding"])
    return rows


@given(records, st.sampled_from(sorted(VIEWS)))
def test_ages_over_89_are_one_group_and_other_results_stay(resources, name):
    view = VIEWS[name]
    plan = plan_redaction(name, view.columns, POLICY)
    ages = pl.concat(
        find_ages(finder.collect(resources).lazy(), place, POLICY.age_codes, POLICY.age_cap)
        for place, finder in FINDERS.items()
    )
    before = view.collect(resources)
    after = redact(before.lazy(), plan, KEY, as_of=dt.date(2026, 6, 30), ages=ages).collect()
    assert after.height == before.height
    columns = [column for column in ("value_quantity", "value_integer") if column in after.columns]
    for row, (age, unit) in enumerate(meant(name, resources)):
        for column in columns:
            true, told = before[column][row], after[column][row]
            if not age or true is None:
                assert told == true
            elif unit not in YEARS:
                assert told is None or (unit is None and told == true < 90)
            else:
                assert told <= 90 * YEARS[unit]
                assert told == true or true >= int(90 * YEARS[unit])
