"""What a compiled view tells of itself, and the physical types of its columns."""

from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from cohortflow.errors import ViewError
from cohortflow.fhir.elements import find_element, suggest_element
from cohortflow.fhir.views import analyze_view, compile_view, merge_reads, read_schema
from cohortflow.model import ColumnType


def view_of(*columns, resource="Observation", **more):
    return {"name": "v", "resource": resource, "select": [{"column": list(columns)}], **more}


def typed(name, path, ansi):
    return {"name": name, "path": path, "tag": [{"name": "ansi/type", "value": ansi}]}


def test_schemas_lineage_and_columns():
    view = compile_view(
        view_of(
            {"name": "id", "path": "getResourceKey()", "type": "id", "description": "The key."},
            {"name": "patient", "path": "subject.getReferenceKey(Patient)"},
            {"name": "value", "path": "value.ofType(Quantity).value", "type": "decimal"},
            {"name": "codes", "path": "code.coding.code", "collection": True},
            {"name": "final", "path": "status = 'final' or value.exists()", "type": "boolean"},
            typed("at", "effective.ofType(dateTime)", "TIMESTAMP"),
        )
    )
    assert view.schema == pl.Schema(
        {
            "id": pl.String,
            "patient": pl.String,
            "value": pl.Float64,
            "codes": pl.List(pl.String),
            "final": pl.Boolean,
            "at": pl.Datetime("us", "UTC"),
        }
    )
    assert view.arrow_schema.field("at").type == pa.timestamp("us", "UTC")
    assert view.lineage["value"] == ("Observation.valueQuantity.value",)
    assert "Observation.status" in view.lineage["final"]
    assert "Observation.valueString" in view.lineage["final"]
    first, patient, *_ = view.columns
    assert (first.description, first.target, first.type) == ("The key.", "Observation", ColumnType.STRING)
    assert patient.target == "Patient"


def test_only_what_is_used_is_read():
    view = analyze_view(view_of({"name": "code", "path": "code.coding.where(system = 's').code.first()"}))
    coding = pl.Struct({"code": pl.String, "system": pl.String})
    assert read_schema(view.reads) == {"code": pl.Struct({"coding": pl.List(coding)}), "id": pl.String}


def test_reads_of_several_views_merge():
    one = analyze_view(view_of({"name": "a", "path": "code.text"}))
    other = analyze_view(view_of({"name": "b", "path": "code.exists()"}, {"name": "c", "path": "status"}))
    merged = read_schema(merge_reads([one.reads, other.reads]))
    assert merged == {
        "code": pl.Struct({"id": pl.String, "text": pl.String}),
        "id": pl.String,
        "status": pl.String,
    }


def test_ansi_types():
    quantity = "value.ofType(Quantity).value"
    view = compile_view(
        view_of(
            typed("decimal", quantity, "DECIMAL(18, 4)"),
            typed("double", quantity, "DOUBLE PRECISION"),
            typed("day", "effective.ofType(dateTime)", "date"),
            typed("time", "effective.ofType(dateTime)", "TIMESTAMP WITH TIME ZONE"),
            typed("text", "effective.ofType(dateTime)", "CHARACTER VARYING"),
            {**typed("days", "extension('u').value.ofType(date)", "DATE"), "collection": True},
        )
    )
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "valueQuantity": {"value": 0.1},
        "effectiveDateTime": "2020-01-31T23:30:00.5-05:00",
        "extension": [{"url": "u", "valueDate": "2020"}, {"url": "u", "valueDate": "2020-02-29"}],
    }
    found = view.collect([observation])
    assert found.schema == view.schema
    assert found.row(0, named=True) == {
        "decimal": Decimal("0.1000000000"),
        "double": 0.1,
        "day": date(2020, 1, 31),
        "time": datetime(2020, 2, 1, 4, 30, 0, 500_000, UTC),
        "text": "2020-01-31T23:30:00.5-05:00",
        "days": [date(2020, 1, 1), date(2020, 2, 29)],
    }


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-02", datetime(2020, 2, 1, tzinfo=UTC)),
        ("2020-02-29", datetime(2020, 2, 29, tzinfo=UTC)),
        ("2020-02-29T10:00:00Z", datetime(2020, 2, 29, 10, tzinfo=UTC)),
        ("2020-02-29T10:00:00", datetime(2020, 2, 29, 10, tzinfo=UTC)),
        ("2020-02-29T10:00:00.123456", datetime(2020, 2, 29, 10, 0, 0, 123_456, UTC)),
        ("2020-02-29T10:00:00+14:00", datetime(2020, 2, 28, 20, tzinfo=UTC)),
        ("1850-01-01T00:00:00.1Z", datetime(1850, 1, 1, 0, 0, 0, 100_000, UTC)),
        ("2020-02-30", None),
        ("yesterday", None),
    ],
)
def test_timestamps_of_partial_and_complete_values(text, moment):
    view = compile_view(view_of(typed("at", "effective.ofType(dateTime)", "TIMESTAMP")))
    resource = {"resourceType": "Observation", "id": "o", "effectiveDateTime": text}
    assert view.collect([resource]).item() == moment


@pytest.mark.parametrize(
    ("reference", "patient", "anyone"),
    [
        ("Patient/1", "1", "1"),
        ("https://ehr.example.org/fhir/Patient/1", "1", "1"),
        ("Patient/1/_history/2", "1", "1"),
        ("Patient/Patient/1", "1", "1"),
        ("Patient/", None, None),
        ("Patient/1/2", None, None),
        ("Patient/1?_format=json", None, None),
        ("Patient/1|2", None, None),
        ("Patient/1#p", None, None),
        ("Group/1", None, "1"),
        ("NotPatient/1", None, "1"),
        ("#p", None, None),
        ("urn:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427", None, None),
        (None, None, None),
    ],
)
def test_reference_keys(reference, patient, anyone):
    view = compile_view(
        view_of(
            {"name": "patient", "path": "subject.getReferenceKey(Patient)"},
            {"name": "anyone", "path": "subject.getReferenceKey()"},
        )
    )
    resource = {"resourceType": "Observation", "id": "o", "subject": {"reference": reference}}
    assert view.collect([resource]).row(0) == (patient, anyone)


def test_lazy_takes_wider_frames_and_yields_a_plan():
    view = compile_view(view_of({"name": "s", "path": "status"}, where=[{"path": "code.exists()"}]))
    source = pl.LazyFrame(
        {"id": ["a", "b"], "status": ["x", "y"], "code": [{"id": "1", "text": "t"}, None], "other": [1, 2]}
    )
    plan = view.lazy(source)
    assert isinstance(plan, pl.LazyFrame)
    assert plan.collect(engine="streaming").rows() == [("x",)]


def test_a_resource_nested_deeper_than_repeat_reads_is_an_error():
    view = compile_view(
        {
            "resource": "QuestionnaireResponse",
            "select": [
                {"repeat": ["item.where(linkId != 'x')"], "column": [{"name": "link", "path": "linkId"}]}
            ],
        }
    )

    def nest(depth):
        item = {"linkId": str(depth)}
        for level in range(depth - 1, 0, -1):
            item = {"linkId": str(level), "item": [item]}
        return {"resourceType": "QuestionnaireResponse", "id": "q", "item": [item]}

    assert view.collect([nest(12)])["link"].to_list() == [str(level) for level in range(1, 13)]
    with pytest.raises(ViewError, match="nested deeper"):
        view.collect([nest(13)])


def test_values_of_the_wrong_json_type_are_an_error_without_the_values():
    view = compile_view(view_of({"name": "s", "path": "status"}))
    with pytest.raises(ViewError) as caught:
        view.collect([{"resourceType": "Observation", "id": "o", "status": {"secret": "Jane Doe"}}])
    assert "Jane" not in str(caught.value)


def test_elements():
    value = find_element("Observation", "value")
    assert value.choice
    assert value.key("Quantity") == "valueQuantity"
    assert find_element("Observation", "subject").targets[:2] == ("Patient", "Group")
    assert find_element("QuestionnaireResponse.item.answer", "item").types == ("QuestionnaireResponse.item",)
    assert find_element("Observation.component", "referenceRange").types == ("Observation.referenceRange",)
    assert find_element("Age", "unit").types == ("string",)
    assert find_element("Patient", "valueQuantity") is None
    assert suggest_element("Patient", "deceasedBoolean") == "deceased.ofType(boolean)"
