from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest

from cohortflow.cohort import CohortDefinition, age_expr, before, restrict, select_cohort
from cohortflow.errors import StudyError

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
EVENT = {
    "patient_id": pl.String,
    "code": pl.String,
    "code_system": pl.String,
    "status": pl.String,
}


class Codes:
    """A value set of codes, whatever their system."""

    def __init__(self, *codes):
        self.codes = codes

    def matches(self, system, code):
        return code.is_in(self.codes).fill_null(value=False)


SETS = {"dm": Codes("DM"), "a1c": Codes("A1C"), "asthma": Codes("AS")}


def at(*parts):
    return datetime(*parts, tzinfo=UTC)


def patients(*rows):
    """Rows of id, birth date, gender, and optionally deceased and deceased_at."""
    schema = {
        "patient_id": pl.String,
        "birth_date": pl.Date,
        "gender": pl.String,
        "deceased": pl.Boolean,
        "deceased_at": TIME,
    }
    return pl.LazyFrame([(*row, *[None] * (5 - len(row))) for row in rows], schema=schema, orient="row")


def conditions(*rows):
    """Rows of patient, code, time and optionally verification status."""
    return pl.LazyFrame(
        [(row[0], row[1], "s", row[2], row[3] if len(row) > 3 else None) for row in rows],
        schema={
            "patient_id": pl.String,
            "code": pl.String,
            "code_system": pl.String,
            "recorded_at": TIME,
            "verification_status": pl.String,
        },
        orient="row",
    )


def observations(*rows):
    """Rows of patient, code, time, value, unit and optionally status."""
    return pl.LazyFrame(
        [(p, c, "s", t, v, u, *(rest or ("final",))) for p, c, t, v, u, *rest in rows],
        schema={
            "patient_id": pl.String,
            "code": pl.String,
            "code_system": pl.String,
            "effective_at": TIME,
            "value_quantity": pl.Float64,
            "value_unit": pl.String,
            "status": pl.String,
        },
        orient="row",
    )


ADULT = date(1970, 6, 15)
P = patients(*[(p, ADULT, "male") for p in "abcdef"])


def select(inclusion=(), entry=None, patient=P, condition=None, observation=None, **kwargs):
    definition = CohortDefinition.model_validate(
        {
            "name": "c",
            "entry": {"view": "condition", "value_set": "dm"} | (entry or {}),
            "inclusion": list(inclusion),
        }
    )
    views = {"patient": patient, "condition": condition, "observation": observation}
    views = {name: frame for name, frame in views.items() if frame is not None}
    return select_cohort(views, definition, SETS, kwargs.pop("as_of", AS_OF), **kwargs)


def ids(selection):
    return selection.subjects.collect()["patient_id"].to_list()


def counts(selection):
    return selection.attrition.select("n_before", "n_excluded", "n_after").collect().rows()


A1C = {
    "kind": "observed",
    "view": "observation",
    "value_set": "a1c",
    "value": {"at_least": 6.5, "units": ["%"]},
}
DM = conditions(*[(p, "DM", at(2020, 6, 1)) for p in "abcdef"])


def test_a_whole_cohort_with_its_attrition():
    selection = select(
        [{**A1C, "window": {"from_day": -30, "to_day": 30}}, {"kind": "age", "at_least": 18}],
        patient=patients(
            ("a", date(1970, 6, 1), "male"),
            ("b", date(1970, 6, 2), "female"),
            ("c", date(2010, 1, 1), "male"),
            ("d", date(1970, 1, 1), "male"),
            ("e", date(1970, 1, 1), "male"),
            ("f", None, "male"),
            ("g", date(1970, 1, 1), "male"),
        ),
        condition=conditions(
            ("a", "DM", at(2020, 6, 1, 12)),
            ("a", "DM", at(2021, 6, 1)),
            *[(p, "DM", at(2020, 6, 1)) for p in "bcdef"],
            ("g", "AS", at(2020, 6, 1)),
            ("stranger", "DM", at(2020, 6, 1)),
        ),
        observation=observations(
            ("a", "A1C", at(2020, 6, 10), 6.5, "%"),
            ("b", "A1C", at(2020, 5, 2), 9.0, "%"),
            ("c", "A1C", at(2020, 6, 1), 7.0, "%"),
            ("d", "A1C", at(2020, 6, 1), 6.4, "%"),
            ("e", "A1C", at(2020, 6, 1), 60.0, "mmol/mol"),
            ("f", "A1C", at(2020, 7, 1), 8.0, "%"),
        ),
    )
    subjects, attrition = selection.collect()
    assert subjects.rows() == [("a", date(2020, 6, 1), 50), ("b", date(2020, 6, 1), 49)]
    assert subjects.schema == {"patient_id": pl.String, "index_date": pl.Date, "age_at_index": pl.Int64}
    assert attrition.columns == [
        "step", "criterion", "n_before", "n_excluded", "n_after", "n_unit_mismatch", "n_unknown",
    ]  # fmt: skip
    assert attrition.rows() == [
        (1, "Has dm", 7, 1, 6, 0, 0),
        (2, "Has a1c >= 6.5 %, day -30 to 30", 6, 2, 4, 1, 0),
        (3, "Age >= 18 at index date", 4, 2, 2, 0, 1),
    ]


@pytest.mark.parametrize(("occurrence", "day"), [("first", date(2019, 3, 4)), ("last", date(2023, 12, 31))])
def test_the_index_date_is_the_first_or_last_event_before_as_of(occurrence, day):
    condition = conditions(
        ("a", "DM", at(2021, 1, 1)),
        ("a", "DM", at(2019, 3, 4, 23, 59)),
        ("a", "DM", at(2023, 12, 31, 23, 59, 59)),
        ("a", "DM", AS_OF),
        ("a", "DM", None),
        ("a", "AS", at(2018, 1, 1)),
    )
    selection = select(entry={"occurrence": occurrence}, condition=condition)
    assert selection.subjects.collect()["index_date"].to_list() == [day]


def test_what_is_dated_at_or_after_as_of_does_not_count():
    condition = conditions(("a", "DM", AS_OF), ("b", "DM", AS_OF - timedelta(microseconds=1)))
    assert ids(select(condition=condition)) == ["b"]
    late = AS_OF.astimezone(timezone(timedelta(hours=-5)))
    assert ids(select(condition=condition, as_of=late)) == ["b"]


@pytest.mark.parametrize("status", ["entered-in-error", "refuted"])
def test_a_record_that_says_nothing_happened_does_not_count(status):
    condition = conditions(("a", "DM", at(2020, 1, 1), status), ("b", "DM", at(2020, 1, 1), "confirmed"))
    assert ids(select(condition=condition)) == ["b"]
    observation = observations(
        *[(p, "A1C", at(2020, 6, 1), 7.0, "%", "cancelled") for p in "abc"],
        ("d", "A1C", at(2020, 6, 1), 7.0, "%", None),
    )
    assert ids(select([A1C], condition=DM, observation=observation)) == ["d"]


def test_where_narrows_the_events():
    condition = conditions(
        ("a", "DM", at(2020, 1, 1), "provisional"),
        ("b", "DM", at(2020, 1, 1), "confirmed"),
        ("c", "DM", at(2020, 1, 1)),
    )
    assert ids(select(entry={"where": {"verification_status": ["confirmed"]}}, condition=condition)) == ["b"]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"at_least": 6.5}, ["b", "c"]),
        ({"greater_than": 6.5}, ["c"]),
        ({"at_most": 6.5}, ["a", "b"]),
        ({"less_than": 6.5}, ["a"]),
        ({"at_least": 6.0, "less_than": 7.0}, ["a", "b"]),
    ],
)
def test_limits_are_included_or_not_as_they_say(limits, kept):
    observation = observations(
        ("a", "A1C", at(2020, 1, 1), 6.4, "%"),
        ("b", "A1C", at(2020, 1, 1), 6.5, "%"),
        ("c", "A1C", at(2020, 1, 1), 8.0, "%"),
        ("d", "A1C", at(2020, 1, 1), None, "%"),
        ("e", "A1C", at(2020, 1, 1), float("nan"), "%"),
    )
    rule = {**A1C, "value": {**limits, "units": ["%"]}}
    assert ids(select([rule], condition=DM, observation=observation)) == kept


def test_a_value_in_another_unit_or_without_one_does_not_qualify_and_is_counted():
    observation = observations(
        ("a", "A1C", at(2020, 1, 1), 48.0, "mmol/mol"),
        ("b", "A1C", at(2020, 1, 1), 7.0, None),
        ("c", "A1C", at(2020, 1, 1), 7.0, "%"),
        ("c", "A1C", at(2020, 1, 2), 60.0, "mmol/mol"),
        ("d", "A1C", at(2020, 1, 1), None, None),
        ("e", "A1C", AS_OF, 48.0, "mmol/mol"),
    )
    selection = select([A1C], condition=DM, observation=observation)
    assert ids(selection) == ["c"]
    assert selection.attrition.collect()["n_unit_mismatch"].to_list() == [0, 3]
    both = {**A1C, "value": {"at_least": 6.5, "units": ["%", "mmol/mol"]}}
    assert ids(select([both], condition=DM, observation=observation)) == ["a", "c"]


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        ({"from_day": -1, "to_day": 1}, ["b", "c", "d"]),
        ({"to_day": -1}, ["a", "b"]),
        ({"from_day": 1}, ["d", "e"]),
        ({}, ["a", "b", "c", "d", "e"]),
    ],
)
@pytest.mark.parametrize("kind", ["observed", "absent"])
def test_windows_count_calendar_days_from_the_index_date(window, kept, kind):
    days = [
        ("a", at(2020, 5, 30, 23, 59)),
        ("b", at(2020, 5, 31)),
        ("c", at(2020, 6, 1, 23)),
        ("d", at(2020, 6, 2, 23, 59)),
        ("e", at(2020, 6, 3)),
    ]
    condition = pl.concat([DM, conditions(*[(p, "AS", day) for p, day in days])])
    rule = {"kind": kind, "view": "condition", "value_set": "asthma", "window": window}
    expected = kept if kind == "observed" else [p for p in "abcdef" if p not in kept]
    assert ids(select([rule], condition=condition)) == expected


def test_count_means_different_days():
    condition = pl.concat(
        [
            DM,
            conditions(
                ("a", "AS", at(2020, 1, 1, 8)),
                ("a", "AS", at(2020, 1, 1, 9)),
                ("b", "AS", at(2020, 1, 1)),
                ("b", "AS", at(2020, 1, 2)),
            ),
        ]
    )
    rule = {"kind": "observed", "view": "condition", "value_set": "asthma", "count": 2}
    assert ids(select([rule], condition=condition)) == ["b"]


def test_age_and_sex_that_are_not_known_exclude_and_are_counted():
    patient = patients(
        ("a", ADULT, "female"), ("b", None, "female"), ("c", ADULT, None), ("d", ADULT, "male")
    )
    selection = select(
        [{"kind": "age", "at_least": 0}, {"kind": "sex", "any_of": ["female"]}], patient=patient, condition=DM
    )
    assert ids(selection) == ["a"]
    assert selection.attrition.collect()["n_unknown"].to_list() == [0, 1, 1]


def test_age_at_as_of_and_at_index_differ():
    patient = patients(("a", date(2002, 6, 2), "male"), ("b", date(2002, 6, 1), "male"))
    rule = {"kind": "age", "at_least": 18}
    assert ids(select([rule], patient=patient, condition=DM)) == ["b"]
    assert ids(select([{**rule, "at": "as_of"}], patient=patient, condition=DM)) == ["a", "b"]


def test_who_died_before_as_of_or_at_an_unknown_time_is_not_alive():
    patient = patients(
        ("a", ADULT, "male", None, at(2023, 12, 31)),
        ("b", ADULT, "male", None, AS_OF),
        ("c", ADULT, "male", True),
        ("d", ADULT, "male", False),
        ("e", ADULT, "male"),
    )
    assert ids(select([{"kind": "alive"}], patient=patient, condition=DM)) == ["b", "d", "e"]


def test_only_the_columns_that_the_rules_read_are_needed():
    patient = P.select("patient_id", "birth_date")
    assert ids(select([{"kind": "age", "at_least": 18}], patient=patient, condition=DM)) == list("abcdef")
    with pytest.raises(StudyError, match="gender"):
        select([{"kind": "sex", "any_of": ["male"]}], patient=patient, condition=DM)
    with pytest.raises(StudyError, match="deceased, deceased_at"):
        select([{"kind": "alive"}], patient=patient, condition=DM)


def test_a_patient_in_several_rows_counts_once():
    patient = pl.concat([P, P])
    selection = select(patient=patient, condition=DM)
    assert ids(selection) == list("abcdef")
    assert counts(selection) == [(6, 0, 6)]


def test_empty_views_give_an_empty_cohort_and_its_attrition():
    selection = select([A1C], condition=conditions(), observation=observations())
    assert ids(selection) == []
    assert counts(selection) == [(6, 6, 0), (0, 0, 0)]
    nobody = select([A1C], patient=patients(), condition=DM, observation=observations())
    assert counts(nobody) == [(0, 0, 0), (0, 0, 0)]


def test_another_date_column_and_a_date_type_can_be_chosen():
    condition = DM.with_columns(pl.lit(date(2023, 12, 31)).alias("onset_at"))
    selection = select(entry={"date": "onset_at"}, condition=condition)
    assert set(selection.subjects.collect()["index_date"]) == {date(2023, 12, 31)}
    late = DM.with_columns(pl.lit(date(2024, 1, 1)).alias("onset_at"))
    assert ids(select(entry={"date": "onset_at"}, condition=late)) == []


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({}, "'condition'"),
        ({"condition": DM, "patient": None}, "'patient'"),
        ({"condition": DM, "patient": P.drop("birth_date")}, "birth_date"),
        ({"condition": DM.drop("code_system")}, "code_system"),
        ({"condition": DM.drop("recorded_at")}, "recorded_at"),
        ({"condition": DM.with_columns(pl.col("recorded_at").cast(pl.String))}, "DATE or TIMESTAMP"),
        ({"condition": DM, "entry": {"value_set": "dn"}}, "'dn'"),
        ({"condition": DM, "entry": {"where": {"stage": ["1"]}}}, "stage"),
        ({"condition": DM, "time_columns": {}}, "no time column"),
        ({"condition": DM, "inclusion": [A1C]}, "'observation'"),
        ({"condition": DM, "as_of": datetime(2024, 1, 1)}, "time zone"),  # noqa: DTZ001 - the fault under test
    ],
)
def test_what_is_missing_is_named_before_any_data_are_read(kwargs, word):
    with pytest.raises(StudyError, match=word) as caught:
        select(**kwargs)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [
        (date(2000, 2, 29), date(2018, 2, 28), 17),
        (date(2000, 2, 29), date(2018, 3, 1), 18),
        (date(2000, 2, 29), date(2020, 2, 29), 20),
        (date(2000, 1, 1), date(2017, 12, 31), 17),
        (date(2000, 1, 1), date(2018, 1, 1), 18),
        (date(2000, 12, 31), date(2000, 12, 31), 0),
        (date(1923, 5, 5), date(2024, 5, 4), 100),
        (None, date(2024, 1, 1), None),
    ],
)
def test_age_is_exact_by_the_calendar(born, on, age):
    frame = pl.DataFrame({"born": [born], "on": [on]}, schema={"born": pl.Date, "on": pl.Date})
    assert frame.select(age_expr(pl.col("born"), pl.col("on"))).item() == age


def test_restrict_keeps_the_rows_of_the_cohort_once_and_in_order():
    frame = pl.LazyFrame({"who": ["b", "x", "a", None, "b"], "n": [1, 2, 3, 4, 5]})
    subjects = pl.LazyFrame({"patient_id": ["a", "b", "b", None]})
    assert restrict(frame, subjects, "who").collect()["n"].to_list() == [1, 3, 5]


def test_before_drops_what_is_late_or_undated_whatever_the_time_type():
    times = [at(2023, 12, 31, 23, 59, 59), AS_OF, None]
    frame = pl.LazyFrame({"n": [1, 2, 3], "t": times}, schema_overrides={"t": TIME})
    for expression in (
        pl.col("t"),
        pl.col("t").dt.replace_time_zone(None),
        pl.col("t").dt.convert_time_zone("America/New_York").cast(pl.Datetime("ms", "America/New_York")),
    ):
        assert before(frame.with_columns(expression.alias("t")), "t", AS_OF).collect()["n"].to_list() == [1]
    days = pl.LazyFrame({"n": [1, 2], "t": [date(2023, 12, 31), date(2024, 1, 1)]})
    assert before(days, "t", AS_OF).collect()["n"].to_list() == [1]
