"""Redaction of tables."""

import datetime as dt
import pickle

import polars as pl
import pytest

from cohortflow.errors import PolicyError, ProjectKeyError
from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.redaction import (
    NO_AGES,
    Override,
    ProjectKey,
    Rule,
    count_rows_without_subject,
    load_policy,
    plan_redaction,
    redact,
)

SECRET = "8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083"
KEY = ProjectKey.from_text(SECRET)
AS_OF = dt.date(2026, 6, 30)
STRING, DATE, DATETIME = ColumnType.STRING, ColumnType.DATE, ColumnType.DATETIME
SUBJECT = Column("patient_id", STRING, ("Patient.id",), target="Patient")


def policy(name="safe_harbor", **changes):
    return load_policy(Catalog.default(), name).model_copy(update=changes)


def run(name, columns, data, *, key=KEY, overrides=None, **changes):
    """Redact a small table whose rows belong to patients p0, p1 and so on."""
    plan = plan_redaction("demo", [SUBJECT, *columns], policy(name, **changes), overrides)
    rows = len(next(iter(data.values())))
    frame = pl.DataFrame({"patient_id": [f"p{row}" for row in range(rows)]} | data)
    return redact(frame.lazy(), plan, key, as_of=AS_OF, ages=NO_AGES).collect()


def one(name, column, values, **changes):
    return run(name, [column], {column.name: values}, **changes).to_series(1).to_list()


BIRTH = Column("birth_date", DATE, ("Patient.birthDate",))
SEEN = Column("seen_at", DATETIME, ("Encounter.period.start",))
AGE = Column("onset_age", ColumnType.FLOAT, ("Condition.onsetAge.value",))
POSTAL = Column("postal_code", STRING, ("Patient.address.postalCode",))
DAY = Column("day", STRING, ("Condition.recordedDate",))


def test_birth_dates_become_years_and_no_year_tells_an_age_over_89():
    births = [dt.date(1990, 5, 1), dt.date(1936, 7, 1), dt.date(1936, 1, 1), dt.date(1911, 1, 1), None]
    assert one("safe_harbor", BIRTH, births) == [1990, 1936, 1936, 1936, None]


def test_events_do_not_tell_an_age_over_89_either():
    moments = [dt.datetime(1931, 3, 1, tzinfo=dt.UTC), dt.datetime(2020, 3, 1, tzinfo=dt.UTC)]
    assert one("safe_harbor", SEEN, moments) == [1936, 2020]


def test_ages_of_90_and_more_are_one_group():
    assert one("safe_harbor", AGE, [42.0, 89.0, 89.9, 90.0, 97.0, None]) == [
        42.0,
        89.0,
        89.9,
        90.0,
        90.0,
        None,
    ]


def test_dates_written_as_text_become_years_too():
    texts = ["2020", "2020-03", "2020-03-04T05:06:07Z", "1925-01-01", "12:30:00", "about 2020", None]
    assert one("safe_harbor", DAY, texts) == [2020, 2020, 2020, 1936, None, None, None]


def test_year_and_month():
    rules = (Rule(path="**", action="generalize", to="year_month", reason="Seasons matter."),)
    changes = {"rules": (*rules, Rule(path="Patient.id", action="hash", reason="id"))}
    births = [dt.date(1990, 5, 17), dt.date(1911, 2, 3), None]
    assert one("shifted_dates", BIRTH, births, **changes) == ["1990-05", "1936-01", None]
    texts = ["1990-05-17", "1990", "1911-02", None]
    assert one("shifted_dates", DAY, texts, **changes) == ["1990-05", None, "1936-01", None]


@pytest.mark.parametrize("name", ["safe_harbor", "shifted_dates"])
def test_zip_codes_keep_three_digits_where_enough_people_live(name):
    codes = ["03601", "02138", "02138-1234", "021381234", " 02138 ", "893", "3601", "K1A 0B1", "", None]
    expected = ["000", "021", "021", "021", "021", "000", "000", "000", "000", None]
    assert one(name, POSTAL, codes) == expected


def test_a_policy_can_restrict_more_zip_codes():
    assert one("safe_harbor", POSTAL, ["02138"], also_restricted_zip3=frozenset({"021"})) == ["000"]


def test_a_limited_data_set_keeps_the_zip_code_and_the_dates():
    assert one("limited_dataset", POSTAL, ["03601"]) == ["03601"]
    assert one("limited_dataset", BIRTH, [dt.date(1911, 1, 1)]) == [dt.date(1911, 1, 1)]


@pytest.mark.parametrize("name", Catalog.default().names("redaction"))
def test_free_text_names_and_unknown_extensions_never_come_out(name):
    planted = "PLANTED Jane Roe 555-0100"
    columns = [
        Column("display", STRING, ("Condition.code.coding.display",)),
        Column("note", STRING, ("Condition.note.text",)),
        Column("value", STRING, ("Observation.valueString",)),
        Column("author", STRING, ("DocumentReference.author.display",)),
        Column("vip", STRING, ("Patient.extension(http://hospital.example/vip).valueString",)),
        Column("family", STRING, ("Patient.name.family",)),
        Column("mrn", STRING, ("Patient.identifier.value",)),
    ]
    redacted = run(name, columns, {column.name: [planted] for column in columns})
    assert redacted.columns == ["patient_id"]
    assert "PLANTED" not in str(redacted.to_dicts())


def test_ids_become_the_pseudonyms_that_the_key_gives():
    redacted = run("safe_harbor", [BIRTH], {"birth_date": [dt.date(1990, 1, 1)] * 2})
    assert redacted["patient_id"].to_list() == [
        KEY.pseudonym("Patient", "p0"),
        KEY.pseudonym("Patient", "p1"),
    ]
    assert redacted["patient_id"].str.contains("^[0-9a-f]{32}$").all()


def test_a_missing_reference_stays_missing():
    encounter = Column("encounter_id", STRING, ("Observation.encounter.reference",), target="Encounter")
    assert one("safe_harbor", encounter, ["e1", None]) == [KEY.pseudonym("Encounter", "e1"), None]


def test_dates_move_by_the_shift_that_the_key_gives():
    births = [dt.date(1990, 5, 1), dt.date(1991, 5, 1), None]
    days = [KEY.shift_days(f"p{row}", 365) for row in range(2)]
    expected = [births[0] + dt.timedelta(days[0]), births[1] + dt.timedelta(days[1]), None]
    assert one("shifted_dates", BIRTH, births) == expected


def test_a_shift_is_whole_days_and_keeps_the_type():
    moment = dt.datetime(2020, 3, 1, 4, 5, 6, 789, tzinfo=dt.UTC)
    redacted = run("shifted_dates", [SEEN], {"seen_at": [moment]})
    assert redacted.schema["seen_at"] == pl.Datetime("us", "UTC")
    moved = redacted["seen_at"].item() - moment
    assert moved == dt.timedelta(days=KEY.shift_days("p0", 365))
    assert moved.days != 0


def test_shifted_dates_do_not_tell_an_age_over_89():
    assert one("shifted_dates", BIRTH, [dt.date(1911, 1, 1)]) == [dt.date(1936, 1, 1)]


END_OF_TIME = dt.date(9999, 12, 31)


@pytest.mark.parametrize("name", ["shifted_dates", "expert"])
def test_a_placeholder_for_no_end_does_not_tell_the_shift(name):
    """What became of 9999-12-31 would tell by how many days the patient's dates were moved."""
    ends = [END_OF_TIME, dt.date(2099, 12, 31), dt.date(2040, 1, 1)]
    shifted = one(name, Column("end", DATE, ("Coverage.period.end",)), ends)
    assert shifted[:2] == [None, None]
    assert abs(shifted[2] - ends[2]) <= dt.timedelta(days=365)
    moments = [dt.datetime(9999, 12, 31, 23, 59, tzinfo=dt.UTC)]
    assert one(name, SEEN, moments) == [None]
    assert one(name, DAY, ["9999-12-31", "2099-12-31T23:59:59Z", "9999"]) == [None] * 3


@pytest.mark.parametrize("name", ["shifted_dates", "expert"])
def test_a_placeholder_for_unknown_does_not_tell_the_shift(name):
    onset = Column("onset", DATE, ("Condition.onsetDateTime",))
    epoch, dummy, real = dt.date(1970, 1, 1), dt.date(1900, 1, 1), dt.date(1970, 1, 2)
    shifted = one(name, onset, [epoch, real, dummy])
    assert shifted[0] is None
    assert abs(shifted[1] - real) <= dt.timedelta(days=365)
    # What lies before all dates that may be told does not move with the patient's.
    assert shifted[2] == dt.date(1936, 1, 1)
    assert one(name, SEEN, [dt.datetime(1970, 1, 1, tzinfo=dt.UTC)]) == [None]
    whole, month, year = one(name, DAY, ["1970-01-01T00:00:00Z", "1970-01", "1970"])
    assert whole is None
    assert (len(month), len(year)) == (7, 4), "a partial date is what is known"


def test_a_placeholder_is_no_year_that_the_leak_gate_would_take_for_something_else():
    assert one("safe_harbor", BIRTH, [END_OF_TIME]) == [None]
    assert one("safe_harbor", DAY, ["9999-12-31", "9999"]) == [None, None]


@pytest.mark.parametrize("name", ["safe_harbor", "shifted_dates"])
@pytest.mark.parametrize(
    "written",
    [
        "2020-02-29T10:00:00 call Jane Lemke",
        "2020-02-29T10:00:00Z\nJane Lemke",
        "2025-551234",
        "0405-551-1234",
        "2020-13-01",
        "\uff12\uff10\uff12\uff10-01-01",
        "20200229",
    ],
)
def test_what_only_begins_like_a_date_is_none(name, written):
    assert one(name, DAY, [written]) == [None]


def test_a_text_that_is_kept_because_it_is_a_date_is_one():
    written = ["2020", "2020-03", "2020-03-04", "2020-03-04T05:06:07.123+01:00", "05:06:07"]
    assert one("limited_dataset", DAY, [*written, "2020-03-04 Jane Lemke", "unknown"]) == [
        *written,
        None,
        None,
    ]


def test_digits_of_other_scripts_are_no_zip_code_that_may_be_told():
    """The list of restricted prefixes is written in ASCII: others would pass it."""
    assert one(
        "safe_harbor", POSTAL, ["\uff10\uff13\uff16\uff10\uff11", "\u0661\u0662\u0663\u0664\u0665"]
    ) == ["000", "000"]


def test_a_mask_tells_only_whether_there_was_a_value():
    note = Column("note", STRING, ("Observation.note.text",))
    overrides = {"note": Override(action="mask")}
    assert one("safe_harbor", note, ["Jane", None], overrides=overrides) == ["[redacted]", None]


ROWS = pl.DataFrame(
    {
        "patient_id": ["p0", None, ""],
        "seen_at": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * 3,
    }
)


def test_rows_without_a_patient_are_dropped_and_can_be_counted():
    plan = plan_redaction("demo", [SUBJECT, SEEN], policy("shifted_dates"))
    assert redact(ROWS.lazy(), plan, KEY, as_of=AS_OF).collect().height == 1
    assert count_rows_without_subject(ROWS.lazy(), plan).collect().item() == 2


def test_where_such_rows_are_kept_their_dates_are_not():
    kept = policy("shifted_dates", rows_without_subject="keep")
    redacted = redact(ROWS.lazy(), plan_redaction("demo", [SUBJECT, SEEN], kept), KEY, as_of=AS_OF).collect()
    assert redacted.height == 3
    assert redacted["seen_at"].is_null().to_list() == [False, True, True]


def test_columns_that_the_plan_does_not_know_are_left_behind():
    plan = plan_redaction("demo", [SUBJECT], policy())
    frame = pl.LazyFrame({"surprise": ["x"], "patient_id": ["p0"]})
    assert redact(frame, plan, KEY, as_of=AS_OF).collect_schema().names() == ["patient_id"]


def test_the_schema_is_the_one_that_the_plan_announced():
    columns = [SUBJECT, BIRTH, SEEN, AGE, POSTAL, DAY]
    types = {
        STRING: pl.String(),
        ColumnType.INTEGER: pl.Int64(),
        ColumnType.FLOAT: pl.Float64(),
        DATE: pl.Date(),
        DATETIME: pl.Datetime("us", "UTC"),
    }
    frame = pl.LazyFrame(schema={column.name: types[column.type] for column in columns})
    for name in Catalog.default().names("redaction"):
        plan = plan_redaction("demo", columns, policy(name))
        announced = {column.name: types[column.type] for column in plan.output_columns}
        redacted = redact(frame, plan, KEY, as_of=AS_OF)
        assert dict(redacted.collect_schema()) == announced
        assert dict(redacted.collect().schema) == announced


def test_a_table_that_lacks_a_planned_column_is_refused():
    plan = plan_redaction("demo", [SUBJECT, BIRTH], policy())
    with pytest.raises(PolicyError, match="lacks birth_date"):
        redact(pl.LazyFrame({"patient_id": ["p0"]}), plan, KEY, as_of=AS_OF)


def test_a_date_column_of_another_type_is_refused_instead_of_guessed():
    plan = plan_redaction("demo", [SUBJECT, BIRTH], policy())
    frame = pl.LazyFrame({"patient_id": ["p0"], "birth_date": ["1990-01-01"]})
    with pytest.raises(PolicyError, match="has type String") as caught:
        redact(frame, plan, KEY, as_of=AS_OF)
    assert "1990" not in str(caught.value)


def test_without_a_key_nothing_starts():
    with pytest.raises(ProjectKeyError, match="There is no project key"):
        ProjectKey.from_text(None)


def test_the_query_shows_neither_key_nor_values():
    plan = plan_redaction("demo", [SUBJECT, BIRTH, SEEN, POSTAL], policy("shifted_dates"))
    secrets = [
        SECRET,
        KEY.shift_key(),
        KEY.pseudonym_key("Patient"),
        "p0",
        "02138",
        repr(bytes.fromhex(SECRET)),
    ]
    frame = pl.LazyFrame(
        {"patient_id": ["p0"], "birth_date": [None], "seen_at": [None], "postal_code": ["02138"]},
        schema={
            "patient_id": pl.String,
            "birth_date": pl.Date,
            "seen_at": pl.Datetime("us", "UTC"),
            "postal_code": pl.String,
        },
    )
    redacted = redact(frame, plan, KEY, as_of=AS_OF)
    shown = [
        redacted.explain(optimized=True),
        redacted.explain(optimized=False),
        repr(redacted),
        repr(plan),
        str(plan.explain()),
        repr(KEY),
    ]
    for secret in secrets:
        assert not any(secret in text for text in shown)


def test_the_query_cannot_be_written_out_with_the_key():
    plan = plan_redaction("demo", [SUBJECT], policy())
    redacted = redact(pl.LazyFrame({"patient_id": ["p0"]}), plan, KEY, as_of=AS_OF)
    with pytest.raises(Exception, match=r"serializ|pickle|cloudpickle") as caught:
        pickle.dumps(redacted)
    assert SECRET not in str(caught.value)


def test_a_failing_source_shows_no_value_of_the_redaction():
    def fail(_):
        msg = "the disk is full"
        raise OSError(msg)

    plan = plan_redaction("demo", [SUBJECT, POSTAL], policy())
    frame = pl.LazyFrame({"patient_id": ["p0-SECRET"], "postal_code": ["02138"]})
    broken = frame.with_columns(pl.col("postal_code").map_batches(fail, return_dtype=pl.String))
    with pytest.raises(OSError, match="the disk is full") as caught:
        redact(broken, plan, KEY, as_of=AS_OF).collect()
    assert "SECRET" not in str(caught.value)
    assert KEY.pseudonym_key("Patient") not in str(caught.value)


def test_numbers_and_codes_pass_unchanged():
    columns = [
        Column("code", STRING, ("Condition.code.coding.code",)),
        Column("value", ColumnType.FLOAT, ("Observation.valueQuantity.value",)),
        Column("mapped", STRING, phi=PhiClass.SAFE_CODE),
        Column("observation_id", STRING, ("Observation.id",)),
    ]
    row = {"code": ["44054006"], "value": [7.2], "mapped": ["E11"], "observation_id": ["o1"]}
    redacted = run("safe_harbor", columns, row)
    assert redacted.select("code", "value", "mapped").row(0) == ("44054006", 7.2, "E11")


def test_large_tables_get_the_same_pseudonyms_and_shifts_as_small_ones():
    rows = 20_000
    encounter = Column("encounter_id", STRING, ("Observation.encounter.reference",), target="Encounter")
    frame = pl.DataFrame(
        {
            "patient_id": [f"p{row // 100}" for row in range(rows)],
            "encounter_id": [None if row % 7 == 0 else f"e{row // 10}" for row in range(rows)],
            "birth_date": [dt.date(1990, 5, 1)] * rows,
        }
    )
    plan = plan_redaction("demo", [SUBJECT, encounter, BIRTH], policy("shifted_dates"))
    whole = redact(frame.lazy(), plan, KEY, as_of=AS_OF, ages=NO_AGES).collect()
    parts = [
        redact(part.lazy(), plan, KEY, as_of=AS_OF, ages=NO_AGES).collect() for part in frame.iter_slices(500)
    ]
    assert whole.equals(pl.concat(parts))
    assert whole["patient_id"][150] == KEY.pseudonym("Patient", "p1")
