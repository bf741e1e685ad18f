"""Re-identification risk on tables of the literature, beside pycanon, and at the edges."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import MappingProxyType

import polars as pl
import pytest

from cohortflow.errors import PolicyError
from cohortflow.redaction import risk
from cohortflow.redaction.risk import (
    SUBJECT,
    RiskDemand,
    SubjectColumn,
    apply_changes,
    count_classes,
    find_changes,
    gather_subjects,
    map_population,
    measure_closeness,
    measure_diversity,
    measure_risk,
    meet_demand,
    order_columns,
    suppress_values,
)

TESTS = Path(__file__).parents[2]
# pycanon's figures: python tests/bench/peers/compare_risk.py --golden tests/golden/risk_pycanon.json
PYCANON = json.loads((TESTS / "golden" / "risk_pycanon.json").read_text(encoding="utf-8"))["measures"]


def load_tables():
    """Return the tables that pycanon measured, by name."""
    path = TESTS / "bench" / "peers" / "risk_tables.py"
    spec = importlib.util.spec_from_file_location("risk_tables", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["risk_tables"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return {table.name: table for table in module.TABLES}


TABLES = load_tables()

# Patients of a hospital: Machanavajjhala et al. 2007, figure 2, the 4-anonymous table.
INPATIENTS = pl.LazyFrame(
    {
        "zip": ["130**"] * 4 + ["1485*"] * 4 + ["130**"] * 4,
        "age": ["<30"] * 4 + [">=40"] * 4 + ["3*"] * 4,
        "condition": [
            "heart",
            "heart",
            "viral",
            "viral",
            "cancer",
            "heart",
            "viral",
            "viral",
            *["cancer"] * 4,
        ],
    }
)

# Salaries and diseases: Li et al. 2007, table 3, the 3-diverse table.
SALARIES = pl.LazyFrame(
    {
        "zip": ["476**"] * 3 + ["4790*"] * 3 + ["476**"] * 3,
        "age": ["2*"] * 3 + [">=40"] * 3 + ["3*"] * 3,
        "salary": [3, 4, 5, 6, 11, 8, 7, 9, 10],
    }
)


@pytest.mark.parametrize("theirs", PYCANON, ids=lambda theirs: theirs["table"])
def test_pycanon_agrees(theirs):
    name, _, demanded = theirs["table"].partition(", k = ")
    table = TABLES[name]
    frame = pl.DataFrame(table.columns)
    if demanded:  # after suppression; pycanon was given stars in place of suppressed values
        demand = RiskDemand(k=int(demanded))
        frame = meet_demand(frame.lazy(), table.quasi_identifiers, table.sensitive, demand).subjects
        assert theirs["k"] >= demand.k
    ours = measure_risk(frame.lazy(), table.quasi_identifiers, table.sensitive)
    assert ours.k == theirs["k"]
    for item in ours.sensitive:
        their = theirs["sensitive"][item.column]
        assert item.distinct_l == their["l"]
        assert item.t == pytest.approx(their["t"], abs=1e-9)
        # pycanon rounds down to a whole number, and sums may end just below one.
        assert their["entropy_l"] in {math.floor(item.entropy_l + 1e-9), math.floor(item.entropy_l - 1e-9)}


def test_the_published_4_anonymous_table_is_not_diverse():
    measure = measure_risk(INPATIENTS, ["zip", "age"], ["condition"])
    assert measure.k == 4
    assert measure.sensitive[0].distinct_l == 1
    assert measure.sensitive[0].entropy_l == 1.0
    assert measure.sensitive[0].recursive_c == math.inf
    assert measure.prosecutor == 0.25


def test_the_published_distances_of_salaries():
    """Li et al. 2007, section 4.1: 0.375 for {3k, 4k, 5k} and 0.167 for {6k, 8k, 11k}."""
    distances = measure_closeness(SALARIES, ["zip", "age"], "salary").collect()
    found = {(row["zip"], row["age"]): round(row["distance"], 3) for row in distances.iter_rows(named=True)}
    assert found["476**", "2*"] == 0.375
    assert found["4790*", ">=40"] == 0.167


def test_diversity_names_what_it_measures():
    table = pl.LazyFrame({"q": ["a"] * 10, "s": ["x"] * 5 + ["y"] * 3 + ["z"] * 2})
    row = measure_diversity(table, ["q"], "s", recursive_l=2).collect().row(0, named=True)
    assert row["recursive_c"] == 1.0  # 5 / (3 + 2)
    assert row["distinct_l"] == 3
    assert 2 < row["entropy_l"] < 3


@pytest.mark.parametrize(
    ("demand", "met"),
    [
        (RiskDemand(l=3), True),
        (RiskDemand(l=4), False),
        (RiskDemand(l=2.8, diversity="entropy"), True),
        (RiskDemand(l=2.9, diversity="entropy"), False),
        (RiskDemand(l=2, diversity="recursive", c=1.1), True),
        (RiskDemand(l=2, diversity="recursive", c=1.0), False),
        (RiskDemand(l=4, diversity="recursive", c=100), False),
        (RiskDemand(t=0), True),
        (RiskDemand(k=10), True),
        (RiskDemand(k=11), False),
    ],
)
def test_a_demand_is_met_or_not(demand, met):
    table = pl.LazyFrame({"q": ["a"] * 10, "s": ["x"] * 5 + ["y"] * 3 + ["z"] * 2})
    assert (measure_risk(table, ["q"], ["s"], demand=demand).find_failures(demand) == ()) is met


def test_failures_name_columns_and_no_figures():
    demand = RiskDemand(k=5, l=2, t=0.1)
    measure = measure_risk(INPATIENTS, ["zip", "age"], ["condition"], demand=demand)
    assert measure.find_failures(demand) == ("k-anonymity", "l-diversity and t-closeness of condition")


def test_a_table_without_subjects_tells_nothing():
    measure = measure_risk(INPATIENTS.clear(), ["zip", "age"], ["condition"], demand=RiskDemand(k=5, l=2))
    assert (measure.subjects, measure.k, measure.prosecutor, measure.average) == (0, 0, 0.0, 0.0)
    assert measure.find_failures(RiskDemand(k=5, l=2)) == ()


def test_one_value_in_all_has_no_distance():
    table = pl.LazyFrame({"q": ["a", "b"], "s": [1, 1]})
    assert measure_closeness(table, ["q"], "s").collect()["distance"].to_list() == [0.0, 0.0]


@pytest.mark.parametrize(("columns", "message"), [([], "no quasi-identifier"), (["zip", "sex"], "lacks sex")])
def test_a_wrong_declaration_is_refused(columns, message):
    with pytest.raises(PolicyError, match=message):
        count_classes(INPATIENTS, columns)


def test_the_population_makes_a_unique_subject_less_recognisable():
    table = pl.LazyFrame({"sex": ["f", "m", "m"], "zip": ["021", "021", None]})
    population = pl.LazyFrame({"sex": ["f", "m", "m"], "zip": ["021", "021", "022"], "count": [50, 20, 80]})
    measure = measure_risk(table, ["sex", "zip"], population=population)
    assert (measure.k, measure.k_map, measure.journalist) == (1, 20, 0.05)
    assert measure.marketer == pytest.approx((1 / 50 + 1 / 20 + 1 / 100) / 3)


def test_values_of_a_population_file_are_read_as_the_subjects_have_them():
    table = pl.LazyFrame({"dead": [True, False, None], "year": [1950, 1960, 1960], "risk": ["a", "a", "b"]})
    population = pl.LazyFrame(
        {"dead": ["true", "false", "False"], "year": ["1950", "1960", "1960"], "count": ["30", "8", "9"]}
    )
    mapped = map_population(table, ["dead", "year", "risk"], population).sort("risk", "year").collect()
    assert mapped["population_size"].to_list() == [30, 17, 17]


def test_a_population_that_knows_none_of_the_columns_is_refused():
    with pytest.raises(PolicyError, match="needs the column 'count'"):
        map_population(INPATIENTS, ["zip", "age"], pl.LazyFrame({"sex": ["f"], "count": [1]}))


class TestSuppression:
    TABLE = pl.LazyFrame(
        {
            "sex": ["f"] * 5 + ["m"] * 5,
            "year": [1950] * 4 + [1960] + [1950] * 4 + [1960],
            "id": range(10),
        }
    )

    def test_the_column_that_helps_most_goes_first(self):
        # Without their sex the two of 1960 are alike; without their year each is alone.
        assert order_columns(self.TABLE, ["sex", "year"], 2) == ("sex",)
        assert order_columns(self.TABLE, ["year", "sex"], 2) == ("sex",)

    def test_of_two_that_help_alike_the_one_declared_last_goes_first(self):
        table = pl.LazyFrame({"a": [1, 1, 2, 2], "b": [1, 1, 2, 2]})
        assert order_columns(table, ["a", "b"], 3) == ("b", "a")
        assert order_columns(table, ["b", "a"], 3) == ("a", "b")

    def test_only_small_classes_lose_values(self):
        left = suppress_values(self.TABLE, ["year", "sex"], 2, ["sex"]).collect()
        assert left.filter(pl.col("sex").is_null())["id"].to_list() == [4, 9]
        assert left["id"].to_list() == list(range(10))

    def test_nothing_is_given_up_where_all_classes_are_large(self):
        assert order_columns(self.TABLE, ["sex"], 5) == ()

    def test_columns_that_may_not_be_given_up_stay(self):
        kept = meet_demand(self.TABLE, ["sex", "year"], [], RiskDemand(k=2), suppressible=[])
        assert kept.order == ()
        assert kept.subjects["id"].to_list() == [0, 1, 2, 3, 5, 6, 7, 8]


class TestSubjects:
    PATIENTS = pl.LazyFrame({"pid": ["b", "a", None], "gender": ["f", "m", "f"]})
    CONDITIONS = pl.LazyFrame({"subject": ["a", "a", "a", "c"], "code": ["I10", "E11", "I10", None]})
    SUBJECTS = MappingProxyType({"patient": "pid", "condition": "subject"})
    COLUMNS = (
        SubjectColumn("patient.gender", "patient", "gender"),
        SubjectColumn("condition.code", "condition", "code", many=True),
        SubjectColumn("condition", "condition", ""),
    )

    def gather(self):
        datasets = {"patient": self.PATIENTS, "condition": self.CONDITIONS}
        return gather_subjects(datasets, self.SUBJECTS, self.COLUMNS).collect()

    def test_there_is_one_row_per_subject_of_any_dataset(self):
        assert self.gather().rows() == [
            ("a", "m", "E11\x1fI10", 3),
            ("b", "f", None, 0),
            ("c", None, None, 1),
        ]

    def test_dates_are_compared_as_closely_as_others_can_know_them(self):
        dates = pl.LazyFrame({"pid": ["a"], "born": ["1980-04-30"]}).with_columns(
            pl.col("born").str.to_date()
        )
        columns = [SubjectColumn(name, "patient", "born", name) for name in ("exact", "month", "year")]
        row = gather_subjects({"patient": dates}, self.SUBJECTS, columns).collect().row(0)
        assert [str(value) for value in row[1:]] == ["1980-04-30", "1980-04", "1980"]

    def test_changes_keep_rows_that_belong_to_nobody_and_every_other_column(self):
        before = self.gather()
        after = before.filter(pl.col(SUBJECT) != "c").with_columns(
            pl.when(pl.col(SUBJECT) != "b").then(pl.col("patient.gender")).alias("patient.gender")
        )
        changes = find_changes(before, after, ["patient.gender"])
        patients = apply_changes(self.PATIENTS, "pid", changes, {"patient.gender": "gender"}).collect()
        assert patients.rows() == [("b", None), ("a", "m"), (None, "f")]
        conditions = apply_changes(self.CONDITIONS, "subject", changes, {}).collect()
        assert conditions["subject"].to_list() == ["a", "a", "a"]


def test_all_names_exist():
    assert [name for name in risk.__all__ if not hasattr(risk, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'k_anonymity'"):
        _ = risk.k_anonymity
