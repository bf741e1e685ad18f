"""What redaction promises for every table."""

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.redaction import NO_AGES, Override, ProjectKey, classify, load_policy, plan_redaction, redact
from cohortflow.redaction.crosswalk import Crosswalk
from cohortflow.redaction.dates import PLACEHOLDERS
from cohortflow.redaction.phi import split_path

STRING, DATE, DATETIME = ColumnType.STRING, ColumnType.DATE, ColumnType.DATETIME
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
OTHER = ProjectKey.from_text("1c3f8a0d5e72b6944fd1a83b6e0c97520ab5e84d73f1926c0e8d5b7a4f3c6291")
AS_OF = dt.date(2026, 6, 30)
FLOOR = dt.date(1936, 1, 1)
POLICIES = {name: load_policy(Catalog.default(), name) for name in Catalog.default().names("redaction")}
COLUMNS = (
    Column("encounter_id", STRING, ("Encounter.id",), target="Encounter"),
    Column(
        "patient_id",
        STRING,
        ("Encounter.subject.reference",),
        tags={"cohortflow/role": "subject"},
        target="Patient",
    ),
    Column("status", STRING, ("Encounter.status",)),
    Column("started_at", DATETIME, ("Encounter.period.start",)),
    Column("ended_on", DATE, ("Encounter.period.end",)),
    Column("reason", STRING, ("Encounter.reasonCode.text",)),
)
SCHEMA = {
    "encounter_id": pl.String,
    "patient_id": pl.String,
    "status": pl.String,
    "started_at": pl.Datetime("us", "UTC"),
    "ended_on": pl.Date,
    "reason": pl.String,
}

ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=64)
moments = st.datetimes(dt.datetime(1940, 1, 1), dt.datetime(2025, 12, 31), timezones=st.just(dt.UTC))  # noqa: DTZ001 - Hypothesis adds the zone
rows = st.fixed_dictionaries(
    {
        "encounter_id": ids,
        "patient_id": st.sampled_from(["a", "b", "c", "Ä-4", "5" * 64]),
        "status": st.sampled_from(["finished", "planned"]),
        "started_at": st.none() | moments,
        "ended_on": st.none() | st.dates(dt.date(1940, 1, 1), dt.date(2025, 12, 31)),
        "reason": st.text(max_size=5),
    }
)
tables = st.lists(rows, min_size=1, max_size=12).map(lambda items: pl.DataFrame(items, schema=SCHEMA))
policies = st.sampled_from(sorted(POLICIES))


def apply(frame, name="shifted_dates", key=KEY):
    plan = plan_redaction("encounter", COLUMNS, POLICIES[name])
    return redact(frame.lazy(), plan, key, as_of=AS_OF, ages=NO_AGES).collect()


@given(tables, policies)
def test_rows_are_kept_and_columns_are_never_added(frame, name):
    redacted = apply(frame, name)
    plan = plan_redaction("encounter", COLUMNS, POLICIES[name])
    assert redacted.height == frame.height
    assert redacted.columns == [column.name for column in plan.output_columns]
    assert set(redacted.columns) <= set(plan.known_columns)
    assert "reason" not in redacted.columns


@given(tables, policies, st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_row_order_or_partition(frame, name, random):
    order = list(range(frame.height))
    random.shuffle(order)
    cut = random.randint(0, frame.height)
    shuffled = frame[order]
    parts = [apply(part, name) for part in (shuffled.head(cut), shuffled.tail(frame.height - cut))]
    assert pl.concat(parts).equals(apply(frame, name)[order])


@given(tables, policies)
def test_an_id_has_one_pseudonym_in_every_table(frame, name):
    patients = frame.select("patient_id").unique(maintain_order=True)
    column = Column("id", STRING, ("Patient.id",), target="Patient")
    plan = plan_redaction("patient", [column], POLICIES[name])
    redacted = redact(patients.rename({"patient_id": "id"}).lazy(), plan, KEY, as_of=AS_OF).collect()
    table = dict(zip(patients["patient_id"], redacted["id"], strict=True))
    assert apply(frame, name)["patient_id"].to_list() == [table[patient] for patient in frame["patient_id"]]


@given(tables, policies)
def test_different_ids_have_different_pseudonyms(frame, name):
    assert apply(frame, name)["encounter_id"].n_unique() == frame["encounter_id"].n_unique()


@given(tables, policies)
def test_the_pseudonyms_of_two_projects_do_not_match(frame, name):
    mine, theirs = apply(frame, name), apply(frame, name, OTHER)
    for column in ("patient_id", "encounter_id"):
        assert set(mine[column]).isdisjoint(theirs[column])
        assert set(mine[column]).isdisjoint(frame[column])


@given(tables)
def test_a_shift_keeps_intervals_within_a_patient(frame):
    redacted = apply(frame)
    moved = pl.concat(
        [
            pl.DataFrame(
                {
                    "patient": frame["patient_id"],
                    "days": (redacted[name].cast(pl.Date) - frame[name].cast(pl.Date)).dt.total_days(),
                }
            )
            for name in ("started_at", "ended_on")
        ]
    ).drop_nulls()
    assert moved.group_by("patient").agg(pl.col("days").n_unique())["days"].to_list() == [1] * (
        moved["patient"].n_unique()
    )
    assert moved.filter((pl.col("days") == 0) | (pl.col("days").abs() > 365)).is_empty()
    unmoved = frame["started_at"].dt.time().equals(redacted["started_at"].dt.time())
    assert unmoved


@given(ids, st.integers(1, 3650))
def test_the_column_and_the_single_value_agree(patient, window):
    policy = POLICIES["shifted_dates"].model_copy(update={"shift_days": window})
    plan = plan_redaction("encounter", COLUMNS, policy)
    day = dt.date(2000, 1, 1)
    frame = pl.DataFrame([{"patient_id": patient, "ended_on": day}], schema=SCHEMA)
    redacted = redact(frame.lazy(), plan, KEY, as_of=AS_OF).collect()
    assert redacted["patient_id"].item() == KEY.pseudonym("Patient", patient)
    assert redacted["ended_on"].item() == day + dt.timedelta(days=KEY.shift_days(patient, window))


@given(st.dates(dt.date(1850, 1, 1), AS_OF), st.sampled_from(["safe_harbor", "shifted_dates"]))
def test_no_date_tells_an_age_over_89(day, name):
    frame = pl.DataFrame([{"patient_id": "a", "ended_on": day}], schema=SCHEMA)
    found = apply(frame, name).to_series(-1).item()
    assert (found if isinstance(found, int) else found.year) >= FLOOR.year


@given(tables, policies)
def test_planning_is_deterministic_and_ignores_the_order_of_columns(frame, name):
    plan = plan_redaction("encounter", COLUMNS, POLICIES[name])
    again = plan_redaction("encounter", COLUMNS[::-1], POLICIES[name])
    assert plan == plan_redaction("encounter", COLUMNS, POLICIES[name])
    assert {entry.column.name: entry for entry in plan.columns} == {e.column.name: e for e in again.columns}


EXPERT = POLICIES["expert"]
OVERRIDES = {
    "value": Override(action="noise", amount=1.5, at_least=0, at_most=50, reason="Set by the expert."),
    "score": Override(action="generalize", to="limits", at_least=2, at_most=8, reason="Set by the expert."),
    "code": Override(action="generalize", to="rare", under=2, reason="Set by the expert."),
    "note": Override(action="mask"),
}
MEASURED = (
    COLUMNS[1],
    Column("on", STRING, ("Encounter.period.start",)),
    Column("day", DATE, ("Encounter.period.end",)),
    Column("value", ColumnType.FLOAT, ("Observation.valueQuantity.value",)),
    Column("score", ColumnType.INTEGER, ("Observation.valueInteger",)),
    Column("code", STRING, ("Condition.code.coding.code",)),
    Column("zip", STRING, ("Patient.address.postalCode",)),
    Column("note", STRING, ("Condition.note.text",)),
    Column("observation_id", STRING, ("Observation.id",)),
)
MEASURED_SCHEMA = {
    "patient_id": pl.String,
    "on": pl.String,
    "day": pl.Date,
    "value": pl.Float64,
    "score": pl.Int64,
    "code": pl.String,
    "zip": pl.String,
    "note": pl.String,
    "observation_id": pl.String,
}
days = st.dates(dt.date(1940, 1, 1), dt.date(2025, 12, 31))
measured = st.lists(
    st.fixed_dictionaries(
        {
            "patient_id": st.sampled_from(["a", "b", "c"]),
            "on": days.flatmap(lambda day: st.sampled_from([str(day), str(day)[:7], str(day)[:4]])),
            "day": days,
            "value": st.none() | st.floats(0, 50),
            "score": st.none() | st.integers(0, 10),
            "code": st.none() | st.sampled_from(["x", "y", "z"]),
            "zip": st.sampled_from(["02138", "03601", "K1A"]),
            "note": st.none() | st.just("text"),
            "observation_id": st.sampled_from(["o1", "o2"]),
        }
    ),
    min_size=1,
    max_size=12,
).map(lambda items: pl.DataFrame(items, schema=MEASURED_SCHEMA))


def measure(frame, key=KEY):
    plan = plan_redaction("measured", MEASURED, EXPERT, OVERRIDES)
    return redact(frame.lazy(), plan, key, as_of=AS_OF, ages=NO_AGES).collect()


@given(measured)
def test_redacting_again_what_was_generalized_changes_nothing(frame):
    """Pseudonyms, shifts and noise cannot be idempotent: they are new ids, days and numbers."""
    once = measure(frame)
    twice = measure(once)
    for name in ("score", "zip", "note"):
        assert twice[name].equals(once[name])


@given(measured)
def test_the_same_table_is_redacted_in_the_same_way(frame):
    assert measure(frame).equals(measure(frame))


@given(measured)
def test_noise_stays_within_its_amount_and_limits(frame):
    found = measure(frame)["value"]
    assert found.is_null().equals(frame["value"].is_null())
    assert ((found - frame["value"]).abs().drop_nulls() <= 1.5 + 1e-9).all()
    assert found.drop_nulls().is_between(0, 50).all()


@given(measured)
def test_written_dates_move_like_dates_and_keep_their_precision(frame):
    found = measure(frame)
    for patient, written, moved in zip(frame["patient_id"], frame["on"], found["on"], strict=True):
        start = dt.date.fromisoformat(
            written + "-01-01"[len(written) - 4 :] if len(written) < 10 else written
        )
        shifted = start + dt.timedelta(days=KEY.shift_days(patient, 365))
        if start in PLACEHOLDERS and len(written) == 10 and shifted >= FLOOR:
            assert moved is None
        else:
            assert moved == str(max(shifted, FLOOR))[: len(written)]


@given(measured)
def test_a_category_that_is_told_has_enough_patients(frame):
    found = frame.select("patient_id").with_columns(measure(frame)["code"])
    told = found.filter(pl.col("code").is_not_null() & (pl.col("code") != "other"))
    assert (told.group_by("code").agg(pl.col("patient_id").n_unique())["patient_id"] >= 2).all()


links = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")),
    max_size=10,
    unique_by=lambda link: link[0],
)


@given(links, st.randoms(use_true_random=False))
def test_merged_records_lead_to_one_that_is_not_merged_whatever_the_order(pairs, random):
    def follow(items):
        frame = pl.DataFrame(items, schema={"id": pl.String, "replaced_by": pl.String}, orient="row")
        return dict(Crosswalk.of_links(frame).links.iter_rows())

    found = follow(pairs)
    assert set(found.values()).isdisjoint(found)
    for old, new in pairs:
        assert found.get(old, old) == found.get(new, new)
    random.shuffle(pairs)
    assert follow(pairs) == found


segments = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)


@given(st.lists(segments, min_size=1, max_size=5), st.lists(segments, max_size=3), segments)
@settings(max_examples=100)
def test_nothing_below_an_unknown_extension_is_known(above, below, url):
    path = ".".join([*above, f"extension(http://{url}.example/a.b)", *below])
    assert classify(path).name == "UNKNOWN"
    assert ".".join(split_path(path)) == path
