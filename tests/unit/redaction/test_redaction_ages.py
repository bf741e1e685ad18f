"""Ages that were recorded as results: found in the records, capped wherever a table shows them."""

import csv
import datetime as dt
from importlib import resources

import polars as pl
import pytest

from cohortflow.errors import PolicyError
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.patterns import load_patterns
from cohortflow.redaction import (
    NO_AGES,
    Override,
    ProjectKey,
    age_views,
    find_ages,
    find_table_ages,
    load_policy,
    plan_redaction,
    redact,
)

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
AS_OF = dt.date(2026, 6, 30)
LOINC = "http://loinc.org"
AGE, PRESSURE = (LOINC, "30525-0"), (LOINC, "8480-6")
CAPPED = ["safe_harbor", "shifted_dates", "expert"]


def policy(name="safe_harbor", **changes):
    return load_policy(CATALOG, name).model_copy(update=changes)


def concept(*codings):
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


def observation(*codings, record="o1", **value):
    return {
        "resourceType": "Observation",
        "id": record,
        "status": "final",
        "subject": {"reference": "Patient/p"},
        "code": concept(*codings),
        **value,
    }


def years(value, unit="a"):
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def show(view, records, chosen=None, overrides=None):
    """Redact what a view shows of records, as a run does: ages are looked for in the records."""
    chosen = chosen or policy()
    compiled = compile_view(view if isinstance(view, dict) else CATALOG.load("views", view))
    plan = plan_redaction(compiled.name, compiled.columns, chosen, overrides)
    found = [
        find_ages(compile_view(own).collect(records).lazy(), place, chosen.age_codes, chosen.age_cap)
        for place, own in age_views(compiled.resource, chosen.age_codes).items()
    ]
    frame = compiled.collect(records).lazy()
    return redact(frame, plan, KEY, as_of=AS_OF, ages=pl.concat(found)).collect()


def make_view(*columns, resource="Observation", **select):
    named = [{"name": name, "path": path} for name, path in columns]
    record = {"column": [{"name": "record_id", "path": "getResourceKey()"}]}
    return {
        "resourceType": "ViewDefinition",
        "name": "demo",
        "status": "active",
        "resource": resource,
        "select": [record, {"column": named, **select}],
    }


class TestCodes:
    def test_every_shipped_code_is_a_code_with_a_title_and_a_source(self):
        text = resources.files("cohortflow.redaction").joinpath("age_codes.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        patterns = load_patterns(CATALOG)
        for name, system in (("loinc", LOINC), ("snomed_ct", "http://snomed.info/sct")):
            codes = [row["code"] for row in rows if row["system"] == system]
            assert codes
            assert pl.select(patterns[name].matches(pl.Series(codes)).all()).item(), "a check digit is wrong"
        assert all(row["title"] and row["source"] for row in rows)
        assert len({row["code"] for row in rows}) == len(rows)

    @pytest.mark.parametrize("system", [LOINC, "urn:oid:2.16.840.1.113883.6.1", "http://x.example", None])
    def test_a_shipped_code_counts_under_any_name_of_its_system(self, system):
        record = observation(AGE, valueQuantity=years(95))
        record["code"]["coding"][0]["system"] = system
        assert show("observation", [record])["value_quantity"].to_list() == [90]

    @pytest.mark.parametrize(("system", "told"), [("http://lab.example", 90), ("http://other.example", 95)])
    def test_a_code_of_the_source_counts_in_its_own_system(self, system, told):
        own = policy(also_age_codes=frozenset({"http://lab.example|it's AGE"}))
        records = [observation((system, "it's AGE"), valueQuantity=years(95))]
        assert show("observation", records, own)["value_quantity"].to_list() == [told]

    @pytest.mark.parametrize("code", ["AGE", "http://lab.example|", "a b|AGE", ""])
    def test_codes_of_the_source_are_written_with_their_system(self, code):
        with pytest.raises(ValueError, match="also_age_codes"):
            policy().model_validate(policy().model_dump() | {"also_age_codes": [code]})


class TestNumbers:
    @pytest.mark.parametrize("name", CAPPED)
    @pytest.mark.parametrize(
        ("value", "unit", "told"),
        [
            (89, "a", 89),
            (89.9, "a", 89.9),
            (90, "a", 90),
            (95, "a", 90),
            (117.25, "years", 90),
            (95, "Years", 90),
            (95, "mo", 95),
            (1079, "mo", 1079),
            (1140, "mo", 1080),
            (4800, "wk", 4696),
            (32871, "d", 32871),
            (34000, "Days", 32872),
            (900_000, "h", 788_940),
            (95, "kg", None),
            (30, "decades", None),
        ],
    )
    def test_an_age_over_89_is_90_in_its_unit(self, name, value, unit, told):
        records = [observation(AGE, valueQuantity=years(value, unit))]
        shown = show("observation", records, policy(name))
        assert shown["value_quantity"].to_list() == [told]
        assert shown["value_unit"].to_list() == [unit]

    @pytest.mark.parametrize(
        ("value", "told"), [(42, 42), (89.5, 89.5), (90, None), (95, None), (1080, None)]
    )
    def test_without_a_unit_it_may_be_years(self, value, told):
        assert show("observation", [observation(AGE, valueQuantity={"value": value})])[
            "value_quantity"
        ].to_list() == [told]

    def test_text_of_the_unit_counts_where_its_code_is_of_another_system(self):
        quantity = {"value": 1200, "unit": "months", "code": "258706009"}
        assert (
            show("observation", [observation(AGE, valueQuantity=quantity)])["value_quantity"].item() == 1080
        )

    @pytest.mark.parametrize(("value", "told"), [(12, 12), (90, 90), (101, 90)])
    def test_a_whole_number_is_of_years(self, value, told):
        assert show("observation", [observation(AGE, valueInteger=value)])["value_integer"].item() == told

    def test_ranges_are_capped_at_both_ends(self):
        view = make_view(("low", "value.ofType(Range).low.value"), ("high", "value.ofType(Range).high.value"))
        record = observation(AGE, valueRange={"low": years(85), "high": years(95)})
        assert show(view, [record]).select("low", "high").row(0) == (85, 90)

    def test_policies_without_a_cap_tell_ages_as_they_are(self):
        compiled = compile_view(CATALOG.load("views", "observation"))
        plan = plan_redaction("observation", compiled.columns, policy("limited_dataset"))
        frame = compiled.collect([observation(AGE, valueQuantity=years(95))])
        assert redact(frame.lazy(), plan, KEY, as_of=AS_OF).collect()["value_quantity"].to_list() == [95]
        assert plan.age_places == ()


class TestViews:
    """What a view shows of the code does not matter."""

    AGED = observation(("http://lab.example", "1"), AGE, valueQuantity=years(95))

    def test_every_row_of_a_record_with_several_codings(self):
        assert show("observation", [self.AGED])["value_quantity"].to_list() == [90, 90]

    @pytest.mark.parametrize(
        "columns",
        [
            [("value", "value.ofType(Quantity).value")],
            [("value", "value.ofType(Quantity).value"), ("code", "code.coding.first().code")],
            [("value", "iif(code.coding.exists(), value.ofType(Quantity).value, {})")],
        ],
    )
    def test_views_that_show_another_code_or_none(self, columns):
        records = [self.AGED, observation(PRESSURE, record="o2", valueQuantity=years(95, "mm[Hg]"))]
        assert show(make_view(*columns), records)["value"].to_list() == [90, 95]

    @pytest.mark.parametrize(
        ("path", "kind"),
        [
            ("value.ofType(Quantity).value * 2", "decimal"),
            ("value.ofType(Quantity).value > 92", "boolean"),
            ("iif(value.ofType(Quantity).value > 92, 'old', 'young')", "string"),
            ("value.ofType(Quantity).value.toString()", "string"),
        ],
    )
    def test_what_is_computed_from_an_age_over_89_is_not_told(self, path, kind):
        view = make_view()
        view["select"][1]["column"] = [{"name": "value", "path": path, "type": kind}]
        young = observation(AGE, record="o2", valueQuantity=years(40))
        other = observation(PRESSURE, record="o3", valueQuantity=years(95, "mm[Hg]"))
        shown = show(view, [self.AGED, young, other])["value"]
        assert shown.is_null().to_list() == [True, False, False]

    def test_lists_that_hold_an_age_over_89_are_not_told(self):
        panel = observation(PRESSURE, component=[{"code": concept(AGE), "valueQuantity": years(95)}])
        other = observation(
            PRESSURE, record="o2", component=[{"code": concept(PRESSURE), "valueInteger": 95}]
        )
        view = make_view()
        path = "component.value.ofType(Quantity).value"
        view["select"][1]["column"] = [{"name": "values", "path": path, "collection": True}]
        assert show(view, [panel])["values"].to_list() == [None]
        assert show(view, [other])["values"].to_list() == [[]]

    def test_whether_there_is_a_value_stays(self):
        view = make_view(("known", "value.ofType(Quantity).exists()"))
        assert show(view, [self.AGED])["known"].to_list() == [True]

    def test_exact_decimals_are_capped_as_well(self):
        view = make_view()
        column = {"name": "value", "path": "value.ofType(Quantity).value", "type": "decimal"}
        column["tag"] = [{"name": "ansi/type", "value": "DECIMAL"}]
        view["select"][1]["column"] = [column]
        shown = show(view, [observation(AGE, valueQuantity=years(95.5))])["value"]
        assert shown.dtype == pl.Decimal(38, 10)
        assert shown.to_list() == [90]

    def test_a_component_is_capped_and_its_neighbours_are_not(self):
        panel = observation(
            (LOINC, "85354-9"),
            component=[
                {"code": concept(PRESSURE), "valueQuantity": years(180, "mm[Hg]")},
                {"code": concept(("http://lab.example", "2"), AGE), "valueQuantity": years(95)},
                {"code": concept((LOINC, "8462-4")), "valueInteger": 96},
            ],
        )
        shown = show("observation_component", [panel])
        assert shown["value_quantity"].to_list() == [180, 90, 90, None]

    def test_a_value_of_the_record_is_no_value_of_its_components(self):
        record = observation(
            PRESSURE,
            valueQuantity=years(95, "mm[Hg]"),
            component=[{"code": concept(AGE), "valueQuantity": years(95)}],
        )
        assert show("observation", [record])["value_quantity"].to_list() == [95]
        assert show("observation_component", [record])["value_quantity"].to_list() == [90]

    @pytest.mark.parametrize("link", ["30525-0", "/30525-0", "/54114-4/54139-1/54141-7"])
    def test_answers_are_found_by_the_id_of_the_question_at_any_depth(self, link):
        asked = {"linkId": link, "answer": [{"valueInteger": 95}, {"valueString": "95"}]}
        other = {"linkId": "weight", "answer": [{"valueDecimal": 96.5, "item": [asked]}]}
        record = {"resourceType": "QuestionnaireResponse", "id": "q", "status": "completed"}
        record |= {"subject": {"reference": "Patient/p"}, "item": [{"linkId": "g", "item": [other]}]}
        shown = show("questionnaire_response_items", [record])
        assert shown["answer_value_integer"].drop_nulls().to_list() == [90]
        assert shown["answer_value_decimal"].drop_nulls().to_list() == [96.5]


class TestTexts:
    RECORDS = (
        observation(AGE, valueCodeableConcept=concept(("http://lab.example", "95-99"))),
        observation(AGE, record="o2", valueString="ninety-five"),
        observation(PRESSURE, record="o3", valueCodeableConcept=concept(("http://lab.example", "high"))),
        observation(PRESSURE, record="o4", valueString="text"),
    )

    def test_codes_that_tell_an_age_are_not_told(self):
        shown = show("observation", list(self.RECORDS))
        assert shown["value_code"].to_list() == [None, None, "high", None]
        assert shown["value_system"].to_list() == [None, None, "http://lab.example", None]

    def test_texts_that_a_study_keeps_are_not_told_where_they_tell_an_age(self):
        kept = {"value_string": Override(action="keep", reason="Results are words of a list.")}
        shown = show("observation", list(self.RECORDS), policy("expert"), kept)
        assert shown["value_string"].to_list() == [None, None, None, "text"]


class TestPlan:
    VALUE = Column("value", ColumnType.FLOAT, ("Observation.valueQuantity.value",))
    RECORD = Column("observation_id", ColumnType.STRING, ("Observation.id",))
    SUBJECT = Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient")

    def test_says_what_happens_to_ages(self):
        plan = plan_redaction("demo", [self.SUBJECT, self.RECORD, self.VALUE], policy())
        rows = {row["column"]: row for row in plan.explain()}
        assert rows["value"]["reason"] == (
            "Default of NUMBER. Ages above 89 years, by the record's code, become 90 years in their unit."
        )
        assert plan.to_dict()["capped_ages"] == ["value"]

    def test_results_of_records_without_an_id_are_dropped(self):
        plan = plan_redaction("demo", [self.SUBJECT, self.VALUE], policy())
        assert plan.dropped == ("value",)
        assert "No column holds Observation.id" in plan.explain()[1]["reason"]
        free = plan_redaction("demo", [self.SUBJECT, self.VALUE], policy("limited_dataset"))
        assert free.dropped == ()

    def test_an_override_of_such_a_column_is_refused(self):
        noise = Override(action="noise", amount=1, reason="Set by the expert.")
        with pytest.raises(PolicyError, match=r"demo\.value: Cannot noise: No column holds Observation\.id"):
            plan_redaction("demo", [self.SUBJECT, self.VALUE], policy("expert"), {"value": noise})

    def test_dropped_and_masked_columns_need_no_ages(self):
        for action in ("drop", "mask"):
            plan = plan_redaction(
                "demo", [self.SUBJECT, self.VALUE], policy(), {"value": Override(action=action)}
            )
            assert plan.age_places == ()

    def test_nothing_is_redacted_while_nobody_says_which_results_are_ages(self):
        plan = plan_redaction("demo", [self.SUBJECT, self.RECORD, self.VALUE], policy())
        frame = pl.LazyFrame({"patient_id": ["p"], "observation_id": ["o"], "value": [95.0]})
        with pytest.raises(PolicyError, match="nothing says which of them are ages"):
            redact(frame, plan, KEY, as_of=AS_OF)
        assert redact(frame, plan, KEY, as_of=AS_OF, ages=NO_AGES).collect()["value"].item() == 95

    def test_bins_are_of_the_capped_age(self):
        edges = Override(action="generalize", to="bins", edges=[90, 95], reason="Set by the expert.")
        columns = [self.SUBJECT, self.RECORD, self.VALUE]
        plan = plan_redaction("demo", columns, policy("expert"), {"value": edges})
        ages = pl.LazyFrame({"place": ["Observation"], "id": ["o"], "value": [97.0], "capped": [90.0]})
        frame = pl.LazyFrame({"patient_id": ["p"], "observation_id": ["o"], "value": [97.0]})
        assert redact(frame, plan, KEY, as_of=AS_OF, ages=ages).collect()["value_bin"].item() == "90 to < 95"

    def test_ages_by_type_and_in_extensions_are_no_results(self):
        columns = [
            self.SUBJECT,
            Column("onset", ColumnType.FLOAT, ("Condition.onsetAge.value",)),
            Column("from", ColumnType.FLOAT, ("Condition.onsetRange.low.value",)),
            Column("died", ColumnType.FLOAT, ("FamilyMemberHistory.deceasedAge.value",)),
            Column("told", ColumnType.FLOAT, ("Patient.extension(http://x.example/age).valueAge.value",)),
        ]
        plan = plan_redaction("demo", columns, policy())
        frame = pl.LazyFrame(
            {"patient_id": ["p"], "onset": [95.0], "from": [91.0], "died": [99.0], "told": [95.0]}
        )
        shown = redact(frame, plan, KEY, as_of=AS_OF).collect()
        assert shown.drop("patient_id").row(0, named=True) == {"onset": 90, "from": 90, "died": 90}


class TestTables:
    """Tables of a reporting database, whose own columns tell what a number is."""

    COLUMNS = (
        Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient"),
        Column("id", ColumnType.INTEGER, ("Observation.id",)),
        Column("code", ColumnType.STRING, ("Observation.code.coding.code",)),
        Column("value", ColumnType.FLOAT, ("Observation.valueQuantity.value",)),
        Column("unit", ColumnType.STRING, ("Observation.valueQuantity.unit",)),
    )
    FRAME = pl.LazyFrame(
        {
            "patient_id": ["p"] * 4,
            "id": [1, 2, 3, 4],
            "code": ["30525-0", "30525-0", "8480-6", None],
            "value": [95.0, 1100.0, 95.0, 95.0],
            "unit": ["years", "months", "years", "a"],
        }
    )

    def test_ages_are_found_by_the_code_of_the_row(self):
        plan = plan_redaction("labs", self.COLUMNS, policy())
        ages = find_table_ages(self.FRAME, plan)
        shown = redact(self.FRAME, plan, KEY, as_of=AS_OF, ages=ages).collect()
        assert shown["value"].to_list() == [90, 1080, 95, 95]

    def test_without_a_column_of_codes_the_author_says_what_it_is(self):
        columns = [column for column in self.COLUMNS if column.name != "code"]
        plan = plan_redaction("weights", columns, policy())
        assert find_table_ages(self.FRAME, plan).collect().is_empty()
