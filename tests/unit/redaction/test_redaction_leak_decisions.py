"""What the leak gate makes of a study's decisions and of ages among results."""

import datetime as dt

import polars as pl
import pytest

from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, Override, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import FACTS, LeakScan, load_common_words

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
SUBJECT = Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient")
BORN = Column("birth_date", ColumnType.DATE, ("Patient.birthDate",))
DIED = Column("died_on", ColumnType.DATE, ("Patient.deceasedDateTime",))
WRITTEN = Column("written", ColumnType.STRING, ("Condition.recordedDate",))
POSTAL = Column("postal_code", ColumnType.STRING, ("Patient.address.postalCode",))
KEEP = Override(action="keep", reason="The expert found that the true value is needed.")
FACTS_OF_JO = [
    ("id", "jo", "Patient", None),
    ("name", "Lemke", "Josephine", None),
    ("birth_date", "1931-01-03", None, None),
    ("place", "Bedford", "MA", "01730"),
]


def scan(columns, row, overrides=None, change=None):
    """Redact a row of one patient, change it, and return the gate's report."""
    plan = plan_redaction("t", [SUBJECT, *columns], load_policy(CATALOG, "expert"), overrides)
    frame = pl.DataFrame({"patient_id": ["jo"], **{name: [value] for name, value in row.items()}})
    redacted = redact(frame.lazy(), plan, KEY, as_of=dt.date(2026, 6, 30), ages=NO_AGES)
    facts = [(*fact, "jo") for fact in FACTS_OF_JO]
    gate = LeakScan(
        pl.DataFrame(facts, schema=FACTS, orient="row"),
        common=load_common_words(CATALOG),
        patterns=load_patterns(CATALOG),
        as_of_year=2026,
        pseudonymize=lambda ids: pl.Series([KEY.pseudonym("Patient", one) for one in ids], dtype=pl.String),
    )
    gate.add_table("t", redacted if change is None else redacted.with_columns(**change), plan)
    return gate.finish()


def found(report):
    return {(leak.place, leak.rule) for leak in report.leaks}


DATES = {"birth_date": dt.date(1931, 1, 3), "died_on": dt.date(2020, 2, 3)}


class TestDecisions:
    def test_dates_that_a_study_keeps_with_a_reason_are_no_leak(self):
        report = scan([BORN, DIED], DATES, {"birth_date": KEEP})
        assert report.clean
        assert report.to_dict()["decided"] == {"t.birth_date": "dates"}

    def test_other_dates_of_the_table_are(self):
        true = {"died_on": pl.lit("1931-01-03")}
        assert ("t.died_on", "a full date") in found(scan([BORN, DIED], DATES, {"birth_date": KEEP}, true))

    def test_a_column_that_nobody_kept_is_not_excused_by_its_plan(self):
        report = scan([BORN, DIED], DATES, change={"birth_date": pl.lit("1931-01-03")})
        assert ("t.birth_date", "a full date") in found(report)
        assert report.to_dict()["decided"] == {}

    @pytest.mark.parametrize(
        ("text", "rules"),
        [
            ("1931-01-03", set()),
            ("2020-03", set()),
            ("Josephine Lemke, 1931-01-03", {"full name", "name"}),
        ],
    )
    def test_a_decision_is_of_one_kind_of_identifier(self, text, rules):
        report = scan([WRITTEN], {"written": "2020-03-04"}, {"written": KEEP}, {"written": pl.lit(text)})
        assert {rule for _, rule in found(report)} == rules

    def test_postal_codes_that_a_study_keeps_with_a_reason_are_no_leak(self):
        row = {"postal_code": "01730-1234"}
        assert scan([POSTAL], row, {"postal_code": KEEP}).to_dict()["decided"] == {
            "t.postal_code": "towns and postal codes"
        }
        assert scan([POSTAL], row, {"postal_code": KEEP}).clean
        assert not scan([POSTAL], row, change={"postal_code": pl.lit("01730")}).clean

    def test_other_decisions_excuse_nothing(self):
        note = Column("note", ColumnType.STRING, ("Condition.note.text",))
        report = scan([note], {"note": "Josephine Lemke, born 1931-01-03"}, {"note": KEEP})
        assert {"full name", "date of birth"} <= {rule for _, rule in found(report)}
        assert report.to_dict()["decided"] == {}


class TestAges:
    """The gate reads the code and the unit that a row shows, whatever redaction went by."""

    COLUMNS = (
        Column("id", ColumnType.STRING, ("Observation.id",)),
        Column("code", ColumnType.STRING, ("Observation.code.coding.code",)),
        Column("value", ColumnType.FLOAT, ("Observation.valueQuantity.value",)),
        Column(
            "unit", ColumnType.STRING, ("Observation.valueQuantity.code", "Observation.valueQuantity.unit")
        ),
        Column("whole", ColumnType.INTEGER, ("Observation.valueInteger",)),
    )

    @pytest.mark.parametrize(
        ("code", "value", "unit", "whole", "leaks"),
        [
            ("30525-0", 95.0, "a", None, {"t.value"}),
            ("30525-0", 1100.0, "months", None, {"t.value"}),
            ("30525-0", 95.0, None, None, {"t.value"}),
            ("30525-0", None, None, 95, {"t.whole"}),
            ("30525-0", 90.0, "a", 90, set()),
            ("30525-0", 1080.0, "mo", None, set()),
            ("30525-0", 95.0, "mo", None, set()),
            ("8480-6", 195.0, "mm[Hg]", 195, set()),
            (None, 195.0, "a", None, set()),
        ],
    )
    def test_an_age_above_the_cap_is_a_leak(self, code, value, unit, whole, leaks):
        change = {
            "code": pl.lit(code, dtype=pl.String),
            "value": pl.lit(value, dtype=pl.Float64),
            "unit": pl.lit(unit, dtype=pl.String),
            "whole": pl.lit(whole, dtype=pl.Int64),
        }
        harmless = {"id": "o", "code": "x", "value": 1.0, "unit": "a", "whole": 1}
        report = scan(self.COLUMNS, harmless, change=change)
        assert found(report) == {(place, "tells an age above the cap") for place in leaks}

    def test_without_its_unit_a_number_says_nothing(self):
        columns = [column for column in self.COLUMNS if column.name != "unit"]
        row = {"id": "o", "code": "30525-0", "value": 1080.0, "whole": 90}
        assert scan(columns, row).clean
