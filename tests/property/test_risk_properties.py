"""Re-identification risk: the kernels against a plain reading of the definitions, class by class."""

import math
from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.redaction.risk import (
    DISTANCE,
    DISTINCT_L,
    ENTROPY_L,
    POPULATION_SIZE,
    RECURSIVE_C,
    SIZE,
    SUBJECT,
    RiskDemand,
    apply_changes,
    count_classes,
    find_changes,
    map_population,
    measure_closeness,
    measure_diversity,
    measure_risk,
    meet_demand,
    order_columns,
    show_counts,
    suppress_rows,
    suppress_values,
)

SCHEMA = {"sex": pl.String, "year": pl.Int64, "area": pl.String, "disease": pl.String, "cost": pl.Float64}
QUASI = ["sex", "year", "area"]
ROW = st.tuples(
    st.sampled_from(["f", "m", None]),
    st.sampled_from([1950, 1960, None]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["flu", "asthma", "diabetes", None]),
    st.sampled_from([0.5, 1.0, 2.0, 10.0, None]),
)
TABLES = st.lists(ROW, min_size=1, max_size=40).map(lambda rows: pl.DataFrame(rows, SCHEMA, orient="row"))


def classes_of(table, column):
    """Return the values of a column by class."""
    found = defaultdict(list)
    for row in table.iter_rows(named=True):
        found[tuple(row[name] for name in QUASI)].append(row[column])
    return found


def by_class(frame, column):
    return {tuple(row[name] for name in QUASI): row[column] for row in frame.collect().iter_rows(named=True)}


def entropy_l(values):
    return math.exp(-sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values()))


def recursive_c(values, least):
    counts = sorted(Counter(values).values(), reverse=True)
    rest = sum(counts[least - 1 :])
    return counts[0] / rest if rest else math.inf


def equal_distance(values, everybody):
    mine, all_of_them = Counter(values), Counter(everybody)
    differences = (mine[v] / len(values) - n / len(everybody) for v, n in all_of_them.items())
    return sum(map(abs, differences)) / 2


def ordered_distance(values, everybody):
    order = sorted(set(everybody), key=lambda value: (value is not None, value or 0))
    total, summed = 0.0, 0.0
    for value in order:
        summed += values.count(value) / len(values) - everybody.count(value) / len(everybody)
        total += abs(summed)
    return total / (len(order) - 1) if len(order) > 1 else 0.0


def assert_equal(measured, expected):
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, abs=1e-9), key


@given(table=TABLES)
def test_classes_are_counted(table):
    expected = {key: len(rows) for key, rows in classes_of(table, "sex").items()}
    assert by_class(count_classes(table.lazy(), QUASI), SIZE) == expected


@given(table=TABLES, least=st.integers(1, 4))
def test_diversity_is_that_of_the_definitions(table, least):
    measured = measure_diversity(table.lazy(), QUASI, "disease", recursive_l=least)
    groups = classes_of(table, "disease")
    assert by_class(measured, DISTINCT_L) == {key: len(set(values)) for key, values in groups.items()}
    assert_equal(by_class(measured, ENTROPY_L), {key: entropy_l(v) for key, v in groups.items()})
    assert_equal(by_class(measured, RECURSIVE_C), {key: recursive_c(v, least) for key, v in groups.items()})


@settings(max_examples=60)
@given(table=TABLES)
def test_distances_are_those_of_the_definitions(table):
    for column, distance in (("disease", equal_distance), ("cost", ordered_distance)):
        everybody = table[column].to_list()
        expected = {key: distance(v, everybody) for key, v in classes_of(table, column).items()}
        assert_equal(by_class(measure_closeness(table.lazy(), QUASI, column), DISTANCE), expected)


@given(table=TABLES, people=st.lists(st.tuples(ROW, st.integers(0, 9)), min_size=1, max_size=20))
def test_the_population_is_looked_up_with_untold_values_fitting_everybody(table, people):
    population = [(row[0], row[1], count) for row, count in people]
    frame = pl.DataFrame(population, {"sex": pl.String, "year": pl.Int64, "count": pl.Int64}, orient="row")
    expected = {}
    for (sex, year, area), values in classes_of(table, "sex").items():
        fitting = sum(count for s, y, count in population if sex in (s, None) and year in (y, None))
        expected[sex, year, area] = max(fitting, len(values))
    assert by_class(map_population(table.lazy(), QUASI, frame.lazy()), POPULATION_SIZE) == expected


@given(table=TABLES)
def test_the_measure_is_made_of_the_classes(table):
    sizes = [len(rows) for rows in classes_of(table, "sex").values()]
    measure = measure_risk(table.lazy(), QUASI, ["disease", "cost"], demand=RiskDemand(k=3), small_cell=5)
    assert (measure.subjects, measure.classes, measure.k) == (len(table), len(sizes), min(sizes))
    assert measure.unique == sizes.count(1)
    assert measure.small == sum(size for size in sizes if size < 5)
    assert measure.below == sum(size for size in sizes if size < 3)
    assert sum(count for _, _, count in measure.sizes) == len(table)
    assert measure.prosecutor == 1 / min(sizes)
    assert measure.average == measure.marketer == len(sizes) / len(table)
    assert [item.t for item in measure.sensitive] == [
        pytest.approx(max(distance(v, table[c].to_list()) for v in classes_of(table, c).values()), abs=1e-9)
        for c, distance in (("disease", equal_distance), ("cost", ordered_distance))
    ]


@given(table=TABLES, k=st.integers(1, 8), suppressible=st.sets(st.sampled_from(QUASI)))
def test_suppression_reaches_k_and_touches_nothing_else(table, k, suppressible):
    table = table.with_row_index("id")
    order = order_columns(table.lazy(), QUASI, k, suppressible)
    assert set(order) <= suppressible
    values = suppress_values(table.lazy(), QUASI, k, order).collect()
    assert values["id"].equals(table["id"])
    big = {key for key, rows in classes_of(table, "sex").items() if len(rows) >= k}
    for before, after in zip(table.iter_rows(named=True), values.iter_rows(named=True), strict=True):
        if tuple(before[name] for name in QUASI) in big:
            assert after == before
        assert all(after[name] in (before[name], None) for name in QUASI)
        assert all(after[name] == before[name] for name in set(table.columns) - set(suppressible))
    rows = suppress_rows(values.lazy(), QUASI, k).collect()
    assert all(len(ids) >= k for ids in classes_of(rows, "sex").values())
    assert set(rows["id"]) <= set(values["id"])
    # Only classes that are too small after all columns are gone are left out.
    kept = {key for key, ids in classes_of(values, "sex").items() if len(ids) >= k}
    assert rows.height == sum(len(ids) for key, ids in classes_of(values, "sex").items() if key in kept)


@given(
    table=TABLES,
    k=st.integers(1, 4),
    least=st.sampled_from([None, 1.0, 2.0, 2.5]),
    kind=st.sampled_from(["distinct", "entropy", "recursive"]),
    t=st.sampled_from([None, 0.1, 0.3, 0.6]),
)
def test_what_is_left_meets_the_demand(table, k, least, kind, t):
    demand = RiskDemand(k=k, l=least, diversity=kind, c=2.0, t=t)
    left = meet_demand(table.lazy(), QUASI, ["disease", "cost"], demand).subjects
    assert measure_risk(left.lazy(), QUASI, ["disease", "cost"], demand=demand).find_failures(demand) == ()
    before = measure_risk(table.lazy(), QUASI, ["disease", "cost"], demand=demand)
    if not before.find_failures(demand):
        assert left.equals(table)


@given(table=TABLES, k=st.integers(1, 6), seed=st.integers(0, 99))
def test_suppression_does_not_depend_on_the_order_of_rows(table, k, seed):
    table = table.with_row_index("id")
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=seed)
    demand = RiskDemand(k=k, l=2, t=0.5)
    first, second = (meet_demand(frame.lazy(), QUASI, ["disease"], demand) for frame in (table, shuffled))
    assert first.order == second.order
    assert first.subjects.sort("id").equals(second.subjects.sort("id"))


@given(table=TABLES, k=st.integers(1, 6))
def test_suppressing_twice_changes_nothing(table, k):
    once = meet_demand(table.lazy(), QUASI, [], RiskDemand(k=k)).subjects
    assert meet_demand(once.lazy(), QUASI, [], RiskDemand(k=k)).subjects.equals(once)


@given(table=TABLES, k=st.integers(1, 6))
def test_changes_of_the_subjects_reach_the_dataset(table, k):
    dataset = table.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("patient_id"))
    subjects = dataset.rename({"patient_id": SUBJECT})
    left = meet_demand(subjects.lazy(), QUASI, [], RiskDemand(k=k)).subjects
    changes = find_changes(subjects, left, QUASI)
    columns = {name: name for name in QUASI}
    changed = apply_changes(dataset.lazy(), "patient_id", changes, columns).collect()
    assert changed.columns == dataset.columns
    assert changed.equals(left.rename({SUBJECT: "patient_id"}).select(dataset.columns))


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6), secret=st.booleans())
def test_no_small_count_can_be_worked_out(counts, secret):
    shown = show_counts(counts, hide_total=secret)
    hidden = [count for count, text in zip(counts, shown, strict=True) if not text.isdigit()]
    assert all(count >= 11 or count == 0 for count, text in zip(counts, shown, strict=True) if text.isdigit())
    rest = [count for count, text in zip(counts, shown, strict=True) if text.isdigit() and count]
    if secret:
        assert hidden or not sum(counts)
    elif hidden and rest:
        assert len(hidden) >= 2
        assert sum(hidden) >= 11
