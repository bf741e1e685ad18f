"""What the leak gate reads of a source, and that its parts and limits hide nothing."""

import hashlib
import json

import polars as pl
import pytest

from cohortflow.errors import LeakError
from cohortflow.model import Catalog, Column, ColumnType, PhiClass
from cohortflow.redaction import load_policy, plan_redaction
from cohortflow.redaction.leaks import (
    FACTS,
    LeakReport,
    LeakScan,
    check_leaks,
    collect_facts,
    collect_table_facts,
    load_common_words,
)
from cohortflow.redaction.leaks import scan as scan_module
from cohortflow.redaction.leaks import sweep as sweep_module
from cohortflow.redaction.leaks import terms as terms_module
from cohortflow.redaction.leaks.columns import ColumnCheck, FormRule
from cohortflow.redaction.leaks.sweep import sweep_table

CATALOG = Catalog.default()


def write(path, *resources):
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in resources))
    return [str(path)]


def values(facts, kind):
    return set(facts.filter(kind=kind)["value"])


def scan_texts(facts, texts):
    plan = plan_redaction(
        "t",
        [Column("text", ColumnType.STRING, paths=("Encounter.class.code",))],
        load_policy(CATALOG, "safe_harbor"),
    )
    scan = LeakScan(facts, common=load_common_words(CATALOG), patterns=(), as_of_year=2026)
    scan.add_table("t", pl.LazyFrame({"text": texts}), plan)
    return {(leak.rule, leak.count) for leak in scan.finish().leaks}


def names(*pairs):
    return pl.DataFrame(
        [("name", family, given, None, None) for family, given in pairs], schema=FACTS, orient="row"
    )


def test_line_of_unexpected_types_is_read_all_the_same(tmp_path):
    odd = {
        "resourceType": "Patient",
        "id": "odd1",
        "name": {"family": "Oddington"},
        "telecom": [{"value": "x@y.example"}],
    }
    files = write(tmp_path / "Patient.ndjson", {"resourceType": "Patient", "id": "even1"}, odd, "{not json")
    facts = collect_facts("Patient", files)
    assert values(facts, "id") == {"even1", "odd1"}
    assert values(facts, "name") == {"Oddington"}
    assert values(facts, "contact") == {"x@y.example"}


def test_resources_within_resources_are_read(tmp_path):
    inner = {"resourceType": "Practitioner", "id": "p", "name": [{"family": "Innerfield", "given": ["Ida"]}]}
    outer = {"resourceType": "Observation", "id": "o", "contained": [inner], "status": "final"}
    facts = collect_facts("Observation", write(tmp_path / "Observation.ndjson", outer))
    assert values(facts, "name") == {"Innerfield"}
    assert "contained" not in facts["kind"]


def test_no_files_no_facts():
    assert collect_facts("Patient", []).is_empty()


def test_columns_of_a_database_are_facts_by_their_paths():
    columns = (
        Column("pat", ColumnType.STRING, paths=("Patient.id",), phi=PhiClass.REFERENCE, target="Patient"),
        Column("last", ColumnType.STRING, paths=("Patient.name.family",), phi=PhiClass.DIRECT_IDENTIFIER),
        Column("mrn", ColumnType.STRING, paths=("Patient.identifier.value",), phi=PhiClass.DIRECT_IDENTIFIER),
        Column("dx", ColumnType.STRING, paths=("Condition.code.coding.code",), phi=PhiClass.SAFE_CODE),
    )
    table = pl.LazyFrame(
        {"pat": ["p1", None], "last": ["Lemke", "Lemke"], "mrn": ["84617390", None], "dx": ["E11", "E11"]}
    )
    found = collect_table_facts(table, columns)
    assert sorted(found.select("kind", "value").rows()) == [
        ("id", "p1"),
        ("identifier", "84617390"),
        ("name", "Lemke"),
    ]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_parts_of_the_dictionary_find_as_much_as_the_whole(monkeypatch, size):
    monkeypatch.setattr(terms_module, "_CHUNK_FACTS", size)
    facts = names(("Lemkein", "Abram"), ("Szymborska", "Ewa"), ("White", "Rose"))
    assert scan_texts(facts, ["Lemkein", "by Szymborska", "rose white", "white"]) == {
        ("name", 2),
        ("full name", 1),
    }


def test_tables_read_in_parts_are_counted_once(monkeypatch):
    monkeypatch.setattr(sweep_module, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(scan_module, "_BYTES_AT_ONCE", 1)
    texts = ["Lemkein", "no"] * 5 + [None]
    assert scan_texts(names(("Lemkein", "Abram")), texts) == {("name", 5)}


PSEUDONYM = "0" * 31 + "a"
IDS = (
    Column(
        "row_id", ColumnType.STRING, ("Encounter.id",), tags={"cohortflow/role": "key"}, target="Encounter"
    ),
    Column(
        "patient_id",
        ColumnType.STRING,
        ("Encounter.subject.reference",),
        tags={"cohortflow/role": "subject"},
        target="Patient",
    ),
)


@pytest.mark.parametrize("rows", [1, 3, 1000])
@pytest.mark.parametrize("waiting", [0, 4, 1000])
def test_pseudonyms_looked_at_in_parts_are_counted_once(monkeypatch, rows, waiting):
    monkeypatch.setattr(sweep_module, "_ROWS_AT_ONCE", rows)
    monkeypatch.setattr(scan_module, "_PSEUDONYMS_AT_ONCE", waiting)
    raw, hashed = "ab" * 16, hashlib.md5(b"p1", usedforsecurity=False).hexdigest()
    facts = pl.DataFrame(
        [("id", raw, "Encounter", None, None), ("id", "p1", "Patient", None, None)],
        schema=FACTS,
        orient="row",
    )
    table = pl.LazyFrame(
        {
            "row_id": [raw, PSEUDONYM, "Encounter/1", None, *["0" * 32] * 3],
            "patient_id": [hashed, "p1", hashed, PSEUDONYM, None, "p1", "p1"],
        }
    )
    plan = plan_redaction("t", IDS, load_policy(CATALOG, "safe_harbor"))
    scan = LeakScan(facts, common=frozenset(), patterns=(), as_of_year=2026)
    scan.add_table("t", table, plan)
    report = scan.finish()
    assert {(leak.place, leak.rule, leak.count) for leak in report.leaks} == {
        ("t.row_id", "id of the source", 1),
        ("t.row_id", "not a pseudonym", 1),
        ("t.patient_id", "pseudonym without a key", 2),
        ("t.patient_id", "not a pseudonym", 3),
    }
    assert report.cells == 14


@pytest.mark.parametrize("rows", [1, 1000])
def test_values_of_every_type_are_searched(monkeypatch, rows):
    monkeypatch.setattr(sweep_module, "_ROWS_AT_ONCE", rows)
    facts = names(("Lemkein", "Abram"))
    number = facts.with_columns(kind=pl.lit("identifier"), value=pl.lit("123456789"), second=None).cast(FACTS)
    columns = {
        "text": (["by Lemkein", None], ColumnType.STRING, "name"),
        "list": ([["x", "Lemkein"], []], ColumnType.STRING, "name"),
        "structure": ([{"a": "Lemkein"}, None], ColumnType.STRING, "name"),
        "whole": ([123456789, 5], ColumnType.INTEGER, "identifier"),
        "decimal": ([123456789.0, float("nan")], ColumnType.DECIMAL, "identifier"),
    }
    for name, (cells, kind, rule) in columns.items():
        plan = plan_redaction(
            "t", [Column(name, kind, ("Encounter.class.code",))], load_policy(CATALOG, "safe_harbor")
        )
        scan = LeakScan(pl.concat([facts, number]), common=frozenset(), patterns=(), as_of_year=2026)
        scan.add_table("t", pl.LazyFrame({name: cells}), plan)
        assert [(leak.rule, leak.count) for leak in scan.finish().leaks] == [(rule, 1)], name


def test_a_form_may_be_judged_by_a_column_that_is_not_searched():
    aged = ColumnCheck("value", forms=((FormRule.AGE, pl.col("is_age") & (pl.col("value") > 90)),))
    table = pl.LazyFrame({"is_age": [True, False, True], "value": [95, 95, 40]})
    (batch,) = sweep_table(table, (aged, ColumnCheck("is_age")), ())
    assert batch.broken == {("value", str(FormRule.AGE)): 1}


def test_a_clean_report_passes_and_says_what_was_searched():
    report = LeakReport(identifiers=3, tables=1)
    check_leaks(report, place="here")
    assert report.to_dict()["clean"]


def test_a_common_word_of_the_catalog_is_no_name_alone():
    assert "parkinson" in load_common_words(CATALOG)
    facts = names(("Parkinson", "May"))
    assert scan_texts(facts, ["Parkinson disease"]) == set()
    assert scan_texts(facts, ["May Parkinson"]) == {("full name", 1)}


def test_error_names_at_most_a_screenful():
    scan = LeakScan(names(("Lemkein", "Abram")), common=frozenset(), patterns=(), as_of_year=2026)
    for number in range(30):
        scan.add_document(f"page {number}", "of Lemkein")
    with pytest.raises(LeakError, match="and 18 more") as caught:
        check_leaks(scan.finish(), place="here")
    assert "Lemkein" not in str(caught.value)
