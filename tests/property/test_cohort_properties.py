"""Laws of the selection: it agrees with a plain reading of the definition, patient by patient."""

import itertools
from datetime import UTC, date, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.cohort import CohortDefinition, restrict, select_cohort, suppress_small_counts

AS_OF = datetime(2022, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
PEOPLE = "abcde"

times = st.one_of(
    st.none(),
    st.integers(-40, 5).map(lambda hours: AS_OF + timedelta(hours=11 * hours)),
)
patients = st.fixed_dictionaries(
    {},
    optional={
        person: st.tuples(
            st.one_of(st.none(), st.dates(date(1990, 1, 1), date(2010, 1, 1))),
            st.sampled_from(["male", "female", None]),
            st.sampled_from([True, False, None]),
            times,
        )
        for person in PEOPLE
    },
)
events = st.lists(
    st.tuples(
        st.sampled_from([*PEOPLE, "stranger"]),
        st.sampled_from(["X", "Y", None]),
        times,
        st.sampled_from([1.0, 2.0, 3.0, float("nan"), None]),
        st.sampled_from(["%", "mg", None]),
        st.sampled_from(["final", "entered-in-error", None]),
    ),
    max_size=25,
)
ranges = st.one_of(
    st.none(),
    st.sampled_from(
        [
            {"at_least": 2.0, "units": ["%"]},
            {"less_than": 2.0, "units": ["%", "mg"]},
            {"greater_than": 1.0, "at_most": 2.0, "units": ["mg"]},
        ]
    ),
)
criteria = st.fixed_dictionaries(
    {"view": st.just("event"), "value_set": st.sampled_from(["x", "y"]), "value": ranges}
)
windows = st.sampled_from([{}, {"from_day": -2, "to_day": 2}, {"to_day": -1}, {"from_day": 0}])
event_rules = st.builds(
    lambda criterion, kind, window, count: (
        criterion | {"kind": kind, "window": window} | ({"count": count} if kind == "observed" else {})
    ),
    criteria,
    st.sampled_from(["observed", "absent"]),
    windows,
    st.integers(1, 2),
)
rules = st.one_of(
    event_rules,
    st.sampled_from(
        [
            {"kind": "age", "at_least": 18},
            {"kind": "age", "at_most": 25, "at": "as_of"},
            {"kind": "sex", "any_of": ["female"]},
            {"kind": "alive"},
        ]
    ),
)
definitions = st.builds(
    lambda entry, occurrence, inclusion: CohortDefinition.model_validate(
        {"name": "c", "entry": entry | {"occurrence": occurrence}, "inclusion": inclusion}
    ),
    criteria,
    st.sampled_from(["first", "last"]),
    st.lists(rules, max_size=3),
)


class Exactly:
    def __init__(self, code):
        self.code = code

    def matches(self, system, code):
        return (code == self.code).fill_null(value=False)


SETS = {"x": Exactly("X"), "y": Exactly("Y")}


def run(people, rows, definition):
    patient = pl.LazyFrame(
        [(person, *facts) for person, facts in people.items()],
        schema={
            "patient_id": pl.String,
            "birth_date": pl.Date,
            "gender": pl.String,
            "deceased": pl.Boolean,
            "deceased_at": TIME,
        },
        orient="row",
    )
    event = pl.LazyFrame(
        rows,
        schema={
            "patient_id": pl.String,
            "code": pl.String,
            "at": TIME,
            "value_quantity": pl.Float64,
            "value_unit": pl.String,
            "status": pl.String,
        },
        orient="row",
    ).with_columns(pl.lit("s").alias("code_system"))
    views = {"patient": patient, "event": event}
    return select_cohort(views, definition, SETS, AS_OF, time_columns={"event": "at"}).collect()


def find(criterion, person, rows):
    """Days of the person's events, read one by one."""
    days = []
    for who, code, at, value, unit, status in rows:
        if who != person or code != criterion.value_set.upper() or at is None or at >= AS_OF:
            continue
        if status == "entered-in-error":
            continue
        limits = criterion.value
        if limits is not None:
            if value is None or value != value or unit not in limits.units:  # noqa: PLR0124 - NaN
                continue
            if limits.at_least is not None and value < limits.at_least:
                continue
            if limits.greater_than is not None and value <= limits.greater_than:
                continue
            if limits.at_most is not None and value > limits.at_most:
                continue
            if limits.less_than is not None and value >= limits.less_than:
                continue
        days.append(at.date())
    return days


def age(born, on):
    years = on.year - born.year
    return years - 1 if (on.month, on.day) < (born.month, born.day) else years


def holds(rule, person, facts, index, rows):
    born, gender, deceased, deceased_at = facts
    if rule.kind == "age":
        if born is None:
            return False
        years = age(born, index if rule.at == "index" else AS_OF.date())
        return (rule.at_least is None or years >= rule.at_least) and (
            rule.at_most is None or years <= rule.at_most
        )
    if rule.kind == "sex":
        return gender in rule.any_of
    if rule.kind == "alive":
        return deceased_at >= AS_OF if deceased_at is not None else deceased is not True
    low, high = rule.window.from_day, rule.window.to_day
    inside = {
        day
        for day in find(rule, person, rows)
        if (low is None or (day - index).days >= low) and (high is None or (day - index).days <= high)
    }
    return not inside if rule.kind == "absent" else len(inside) >= rule.count


@given(patients, events, definitions)
@settings(max_examples=150, deadline=None)
def test_the_cohort_and_its_attrition_are_those_of_a_plain_reading(people, rows, definition):
    left = {}
    for person in people:
        days = find(definition.entry, person, rows)
        if days:
            left[person] = min(days) if definition.entry.occurrence == "first" else max(days)
    sizes = [len(people), len(left)]
    for rule in definition.inclusion:
        left = {p: index for p, index in left.items() if holds(rule, p, people[p], index, rows)}
        sizes.append(len(left))
    subjects, attrition = run(people, rows, definition)
    assert subjects.rows() == [
        (p, left[p], age(people[p][0], left[p]) if people[p][0] else None) for p in sorted(left)
    ]
    assert attrition["n_before"].to_list() == sizes[:-1]
    assert attrition["n_after"].to_list() == sizes[1:]
    assert attrition["n_excluded"].to_list() == [
        before - after for before, after in itertools.pairwise(sizes)
    ]
    assert attrition["criterion"].to_list() == [
        definition.entry.describe(),
        *(rule.describe() for rule in definition.inclusion),
    ]


@given(patients, events, definitions, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_rows_and_what_comes_later_do_not_matter(people, rows, definition, random):
    subjects, attrition = run(people, rows, definition)
    shuffled = [*rows, *[(who, code, AS_OF, *rest) for who, code, _, *rest in rows]]
    random.shuffle(shuffled)
    again, attrition_again = run(dict(reversed(people.items())), shuffled, definition)
    assert again.equals(subjects)
    assert attrition_again.equals(attrition)


@given(patients, events, definitions)
@settings(max_examples=30, deadline=None)
def test_restricting_twice_is_restricting_once(people, rows, definition):
    subjects, _ = run(people, rows, definition)
    frame = pl.LazyFrame({"patient_id": [row[0] for row in rows]}, schema={"patient_id": pl.String})
    once = restrict(frame, subjects.lazy())
    assert restrict(once, subjects.lazy()).collect().equals(once.collect())
    assert set(once.collect()["patient_id"]) <= set(subjects["patient_id"])


def derive(table):
    """Return every count that a reader can compute from the published table."""
    chain = [None] * (table.height + 1)
    excluded = [None] * table.height
    for i, (before, out, after) in enumerate(table.select("n_before", "n_excluded", "n_after").rows()):
        for store, index, text in ((chain, i, before), (excluded, i, out), (chain, i + 1, after)):
            if text.isdigit():
                store[index] = int(text)
    for _ in range(2 * table.height):
        for i in range(table.height):
            before, out, after = chain[i], excluded[i], chain[i + 1]
            if out is None and before is not None and after is not None:
                excluded[i] = before - after
            elif before is None and out is not None and after is not None:
                chain[i] = after + out
            elif after is None and before is not None and out is not None:
                chain[i + 1] = before - out
    known = [n for n in chain if n is not None]
    differences = [a - b for a in known for b in known]
    return [n for n in (*known, *excluded, *differences) if n is not None]


@given(st.integers(0, 60), st.lists(st.one_of(st.integers(0, 25), st.integers(0, 3)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_no_small_count_can_be_computed_from_what_is_published(start, exclusions):
    rows, before = [], start
    for step, wanted in enumerate(exclusions, start=1):
        out = min(wanted, before)
        rows.append((step, f"rule {step}", before, out, before - out, 0, 0))
        before -= out
    names = ["step", "criterion", "n_before", "n_excluded", "n_after", "n_unit_mismatch", "n_unknown"]
    table = suppress_small_counts(pl.DataFrame(rows, schema=names, orient="row"))
    assert not [n for n in derive(table) if 0 < n < 11]
    assert "; ".join(table["criterion"]).split("; ") == [row[1] for row in rows]
