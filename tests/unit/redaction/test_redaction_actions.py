"""Actions with settings: shifts by precision, bins, limits, rare categories, noise, scrubbing."""

import datetime as dt

import polars as pl
import pytest
from pydantic import ValidationError

from cohortflow.errors import PolicyError
from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.redaction import (
    NO_AGES,
    Override,
    PolicySettings,
    ProjectKey,
    Treatment,
    load_policy,
    plan_redaction,
    redact,
)

KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
AS_OF = dt.date(2026, 6, 30)
STRING, DATE, DATETIME = ColumnType.STRING, ColumnType.DATE, ColumnType.DATETIME
INTEGER, FLOAT = ColumnType.INTEGER, ColumnType.FLOAT
SUBJECT = Column("patient_id", STRING, ("Patient.id",), target="Patient")
DAY = Column("day", STRING, ("Condition.recordedDate",))
SEEN = Column("seen_at", DATETIME, ("Encounter.period.start",))
RECORD = Column("observation_id", STRING, ("Observation.id",))
VALUE = Column("value", FLOAT, ("Observation.valueQuantity.value",))
NUMBER = Column("number", INTEGER, ("Observation.valueInteger",))
CODE = Column("code", STRING, ("Condition.code.coding.code",))
NOTE = Column("note", STRING, ("Condition.note.text",))
EXPERT = load_policy(Catalog.default(), "expert")


def run(column, values, *, subjects=None, override=None, scrub=None, key=KEY, **settings):
    policy = EXPERT.configure(PolicySettings(**settings))
    overrides = {column.name: Override(**override, reason="Set by the expert.")} if override else {}
    plan = plan_redaction("demo", [SUBJECT, column, RECORD], policy, overrides)
    subjects = subjects or ["p0"] * len(values)
    frame = pl.DataFrame({"patient_id": subjects, column.name: values, "observation_id": subjects})
    dtypes = {DATETIME: pl.Datetime("us", "UTC"), INTEGER: pl.Int64, FLOAT: pl.Float64, STRING: pl.String}
    frame = frame.with_columns(pl.col(column.name).cast(dtypes[column.type]))
    return redact(frame.lazy(), plan, key, as_of=AS_OF, scrub=scrub, ages=NO_AGES).collect().to_series(1)


DAYS = KEY.shift_days("p0", 365)  # -164 would be a golden value of another id


def moved(text):
    return (dt.date.fromisoformat(text) + dt.timedelta(days=DAYS)).isoformat()


class TestShift:
    def test_dates_as_written_move_and_keep_their_precision(self):
        texts = ["2020-03-04", "2020-03", "2020", "2020-03-04T05:06:07+01:00", "2020-03-04T05:06:07.25Z"]
        assert run(DAY, texts).to_list() == [
            moved("2020-03-04"),
            moved("2020-03-01")[:7],
            moved("2020-01-01")[:4],
            f"{moved('2020-03-04')}T05:06:07+01:00",
            f"{moved('2020-03-04')}T05:06:07.25Z",
        ]

    def test_what_is_no_date_is_not_told(self):
        texts = [
            "05:06:07",
            "about 2020",
            "2020-13-01",
            "2020-02-30",
            "2020-03-04 Jane",
            "",
            None,
            "20200304",
        ]
        assert run(DAY, texts).to_list() == [None] * 8

    def test_written_dates_tell_no_age_over_89(self):
        texts = ["1911-02-03", "1911-02", "1911", "1911-02-03T04:05:06Z"]
        assert run(DAY, texts).to_list() == ["1936-01-01", "1936-01", "1936", "1936-01-01"]

    def test_the_day_of_the_week_can_be_kept(self):
        days = [KEY.shift_days(str(number), 365, weeks=True) for number in range(200)]
        assert all(day % 7 == 0 and 7 <= abs(day) <= 364 for day in days)
        assert {KEY.shift_days(str(number), 20, weeks=True) for number in range(100)} == {-14, -7, 7, 14}
        moment = dt.datetime(2020, 3, 4, 5, 6, tzinfo=dt.UTC)
        found = run(SEEN, [moment], keep_day_of_week=True).item()
        assert found.weekday() == moment.weekday()
        assert (found - moment).days == KEY.shift_days("p0", 365, weeks=True)

    def test_the_time_of_day_can_be_left_out_and_the_name_says_so(self):
        moment = dt.datetime(2020, 3, 4, 5, 6, tzinfo=dt.UTC)
        found = run(SEEN, [moment], times="drop")
        assert (found.name, found.dtype) == ("seen_date", pl.Date)
        assert found.item() == moment.date() + dt.timedelta(days=DAYS)
        assert run(DAY, ["2020-03-04T05:06:07Z"], times="drop").item() == moved("2020-03-04")

    def test_the_window_can_be_set(self):
        found = run(SEEN, [dt.datetime(2020, 3, 4, tzinfo=dt.UTC)], shift_days=3).item()
        assert 1 <= abs((found - dt.datetime(2020, 3, 4, tzinfo=dt.UTC)).days) <= 3

    def test_a_text_that_is_no_date_cannot_be_shifted(self):
        with pytest.raises(PolicyError, match="needs a text of class DATE"):
            run(NOTE, ["x"], override={"action": "shift"})


class TestNumbers:
    def test_bins_are_named_by_their_edges(self):
        bins = {"action": "generalize", "to": "bins", "edges": [0, 10, 20.5]}
        found = run(VALUE, [-1.0, 0.0, 9.99, 10.0, 20.5, 99.0, None, float("nan")], override=bins)
        assert found.name == "value_bin"
        assert found.to_list() == [
            "< 0",
            "0 to < 10",
            "0 to < 10",
            "10 to < 20.5",
            ">= 20.5",
            ">= 20.5",
            None,
            None,
        ]

    def test_extremes_become_the_limits(self):
        limits = {"action": "generalize", "to": "limits", "at_least": 2, "at_most": 5}
        assert run(NUMBER, [1, 2, 4, 9, None], override=limits).to_list() == [2, 2, 4, 5, None]

    def test_noise_is_bounded_and_the_same_each_time(self):
        noise = {"action": "noise", "amount": 2.0, "at_least": 0, "at_most": 100}
        values = [float(number) for number in range(101)]
        first, again = run(VALUE, values, override=noise), run(VALUE, values, override=noise)
        assert first.to_list() == again.to_list()
        assert first.to_list() != values
        assert (first - pl.Series(values)).abs().max() <= 2
        assert first.min() >= 0
        assert first.max() <= 100

    def test_noise_depends_on_patient_and_key(self):
        noise = {"action": "noise", "amount": 2.0}
        found = run(VALUE, [5.0] * 3, subjects=["a", "a", "b"], override=noise)
        assert found[0] == found[1] != found[2]
        other = ProjectKey.from_text("1c3f8a0d5e72b6944fd1a83b6e0c97520ab5e84d73f1926c0e8d5b7a4f3c6291")
        assert run(VALUE, [5.0], subjects=["a"], override=noise, key=other).item() != found[0]

    def test_whole_numbers_stay_whole(self):
        found = run(NUMBER, list(range(50)), override={"action": "noise", "amount": 3})
        assert found.dtype == pl.Int64
        assert (found - pl.Series(range(50))).abs().max() <= 3


class TestRare:
    def test_categories_of_few_patients_become_other(self):
        rare = {"action": "generalize", "to": "rare", "under": 2}
        codes = ["a", "a", "b", "b", None]
        found = run(CODE, codes, subjects=["p", "q", "p", "p", "q"], override=rare)
        assert found.to_list() == ["a", "a", "other", "other", None]


class TestScrub:
    def test_a_text_is_given_to_what_scrubs(self):
        def scrub(text, column):
            assert column.name == "note"
            return text.str.replace_all("Jane", "[name]")

        assert run(NOTE, ["saw Jane"], override={"action": "scrub"}, scrub=scrub).item() == "saw [name]"

    def test_without_it_nothing_is_redacted(self):
        with pytest.raises(PolicyError, match="nothing is there that does so"):
            run(NOTE, ["saw Jane"], override={"action": "scrub"})

    def test_only_texts_are_scrubbed(self):
        with pytest.raises(PolicyError, match="needs a text of class FREE_TEXT"):
            run(CODE, ["x"], override={"action": "scrub"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action": "generalize", "to": "bins"}, "needs 'edges'"),
        ({"action": "generalize", "to": "bins", "edges": [2, 1]}, "must rise"),
        ({"action": "generalize", "to": "rare"}, "needs 'under'"),
        ({"action": "generalize", "to": "limits"}, "needs 'at_least'"),
        ({"action": "generalize", "to": "limits", "at_least": 3, "at_most": 1}, "greater than 'at_most'"),
        ({"action": "generalize", "to": "year", "under": 3}, "does not take 'under'"),
        ({"action": "noise"}, "needs 'amount'"),
        ({"action": "keep", "amount": 1}, "does not take 'amount'"),
        ({"action": "noise", "amount": 0}, "greater than 0"),
        ({"action": "noise", "amount": float("inf")}, "finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Treatment(**fields)
