"""What coverage tells of a mapping, and what it keeps to itself."""

import json

import polars as pl
import pytest

from cohortflow.terminology import CodeMapping, Coverage, hide_rare_codes, map_codes, measure_coverage
from cohortflow.terminology.coverage import Tally
from cohortflow.terminology.coverage_measure import count_codes
from cohortflow.terminology.coverage_page import render_coverage_page
from cohortflow.terminology.map_lookup import MapContent
from cohortflow.terminology.map_table import MapTable
from cohortflow.terminology.tables import CONCEPTS
from html_outline import Outline, assert_self_contained

SNOMED, LOINC, ICD10CM = "http://snomed.info/sct", "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm"
LOCAL = "https://hospital.example.org/codes"
ONE, TWO, RANKED, RULED, RETIRED, MISSING = "10001", "10002", "10003", "10004", "10005", "109999009"


def make_map(*entries, name="m"):
    names = ("source_code", "target_code", "relationship", "group", "rule")
    schema = dict.fromkeys(names, pl.String()) | {"group": pl.UInt16()}
    rows = pl.DataFrame(entries, schema=schema, orient="row")
    return MapTable(
        name,
        f"{name}|1",
        rows.with_row_index("order").with_columns(
            source_system=pl.lit(SNOMED),
            target_system=pl.lit(ICD10CM),
            target_display=pl.lit(None, pl.String),
            priority=pl.col("order").cast(pl.UInt16),
        ),
    )


MAP = make_map(
    (ONE, "A01.0", "equivalent", 1, None),
    (TWO, "A02.0", "related-to", 1, None),
    (TWO, "A02.1", "related-to", 1, None),
    (RANKED, "A03.0", "equivalent", 1, None),
    (RANKED, "A03.1", "related-to", 1, None),
    (RULED, "A04.0", "equivalent", 1, "IFA 248152002 | Female (finding) |"),
    (RULED, "A04.1", "equivalent", 1, "OTHERWISE TRUE"),
    (RETIRED, "A05.0", "equivalent", 1, None),
)
CONTENT = pl.LazyFrame(
    [
        (SNOMED, "1", code, f"Concept {code}", code != RETIRED, None, None)
        for code in (ONE, TWO, RANKED, RULED, RETIRED)
    ],
    schema=CONCEPTS,
    orient="row",
)
ROWS = [
    *[(SNOMED, ONE, "One")] * 20,
    *[(SNOMED, TWO, "Two")] * 12,
    *[(SNOMED, RANKED, "Ranked")] * 5,
    *[(SNOMED, RULED, "Ruled")] * 4,
    *[(SNOMED, RETIRED, "Retired")] * 3,
    *[(SNOMED, MISSING, "Missing")] * 11,
    *[(SNOMED, "208888003", "Rare")] * 10,
    *[(LOCAL, "SMITH JOHN", "Name of a patient")] * 30,
    (LOCAL, "SMITH JOHN", "Another name"),
    (LOINC, "4548-4", "HbA1c"),
    (None, None, None),
]
FRAME = pl.LazyFrame(
    ROWS, schema=dict.fromkeys(("code_system", "code", "code_display"), pl.String), orient="row"
)
MAPPING = CodeMapping(maps=("m",), prefix="to", undecided="default")


def measure(frame=FRAME, mapping=MAPPING, **options):
    return measure_coverage(map_codes(frame, mapping, [MAP]), mapping, [MAP], **options)


@pytest.mark.parametrize("cardinality", ["best", "all"])
def test_ambiguous_are_codes_with_several_targets_of_the_closest_relationship(cardinality):
    coverage = measure(mapping=MAPPING.model_copy(update={"cardinality": cardinality}))
    assert coverage.ambiguous == Tally(rows=12, codes=1)
    assert coverage.mapped == Tally(rows=44, codes=5)
    assert coverage.unmapped == Tally(rows=53, codes=4)
    assert (coverage.rows, coverage.rows_with_code) == (98, 97)


def test_each_group_of_a_map_with_rules_is_a_target_of_its_own():
    grouped = make_map(
        (ONE, "A01.0", "equivalent", 1, "TRUE"), (ONE, "B95.0", "equivalent", 2, "TRUE"), name="m"
    )
    coverage = measure_coverage(map_codes(FRAME, MAPPING, [grouped]), MAPPING, [grouped])
    assert coverage.ambiguous == Tally(rows=20, codes=1)


def test_ambiguity_is_judged_by_the_map_that_was_used():
    mapping = MAPPING.model_copy(update={"maps": ("first", "m")})
    maps = [make_map((TWO, "A02.0", "equivalent", 1, None), name="first"), MAP]
    coverage = measure_coverage(map_codes(FRAME, mapping, maps), mapping, maps)
    assert coverage.ambiguous == Tally(0, 0)
    assert coverage.versions == ("first|1", "m|1")


def test_retired_is_known_of_loaded_systems_only():
    coverage = measure(concepts=CONTENT)
    assert coverage.retired == Tally(rows=3, codes=1)
    known = {total.system: total.retired for total in coverage.totals}
    assert known == {SNOMED: Tally(3, 1), LOCAL: None, LOINC: None}
    assert measure().retired is None


def test_a_replaced_code_counts_as_retired():
    successors = CONTENT.collect().with_columns(
        replaced_by=pl.when(pl.col("code") == RETIRED).then(pl.lit(TWO))
    )
    used = MapTable("m", "m|1", MAP.entries.filter(pl.col("source_code") != RETIRED))
    mapping = MAPPING.model_copy(update={"replace_retired": True})
    frame = map_codes(FRAME, mapping, [used], content=MapContent(concepts=successors.lazy()))
    coverage = measure_coverage(frame, mapping, [used])
    assert coverage.retired == Tally(rows=3, codes=1)
    # It is mapped as a code with two targets.
    assert coverage.ambiguous == Tally(rows=15, codes=2)


def test_rows_that_stand_for_many_count_as_many():
    counted = count_codes(FRAME, code="code", system="code_system", display="code_display")
    assert counted.collect().height < len(ROWS)
    assert measure(counted, rows="rows", concepts=CONTENT) == measure(concepts=CONTENT)


def test_codes_of_the_hospital_are_named_on_request_only():
    assert "SMITH" not in json.dumps(measure().to_dict())
    named = measure(all_codes=True, display="code_display", top=None).top_unmapped
    assert [(code.code, code.rows, code.display) for code in named] == [
        ("SMITH JOHN", 31, "Name of a patient"),
        (MISSING, 11, "Missing"),
        ("208888003", 10, "Rare"),
        ("4548-4", 1, "HbA1c"),
    ]


def test_a_hospitals_name_of_its_system_is_kept_where_codes_are():
    frame = pl.LazyFrame({"code_system": ["LAB"] * 2, "code": ["X"] * 2})
    assert [total.system for total in measure(frame).totals] == ["(not a URI)"]
    assert [total.system for total in measure(frame, all_codes=True).totals] == ["LAB"]


def test_rare_codes_and_systems_are_not_published():
    coverage = hide_rare_codes(measure(all_codes=True, display="code_display", top=None), 11)
    text = json.dumps(coverage.to_dict())
    assert [(code.code, code.rows, code.display) for code in coverage.top_unmapped] == [(MISSING, 11, None)]
    assert LOINC not in text
    assert "SMITH" not in text
    assert {total.system: total.rows for total in coverage.totals} == {
        SNOMED: 65,
        LOCAL: 31,
        "(systems of few rows)": 1,
    }
    assert sum(part.rows for part in coverage.systems) == coverage.rows == len(ROWS)
    assert coverage.share == measure().share


def test_a_report_can_be_read_again():
    coverage = measure(concepts=CONTENT, all_codes=True, display="code_display")
    assert Coverage.from_dict(json.loads(json.dumps(coverage.to_dict()))) == coverage


def test_the_page_shows_the_figures_and_needs_nothing_else():
    page = render_coverage_page("Study", {"condition": [measure(concepts=CONTENT)]})
    assert_self_contained(page)
    seen = Outline(page)
    for figure in ("45.4%", "Rows with a code", "Ambiguous", MISSING, "code not in map"):
        assert figure in seen.text
    assert "Not for publication" not in seen.text


def test_the_bars_are_as_long_as_the_shares():
    bars = Outline(render_coverage_page("Study", {"condition": [measure()]})).find("rect")
    widths = {
        kind: next(float(bar["width"]) for bar in bars if bar.get("class", "").startswith(kind))
        for kind in ("solid", "hatched")
    }
    assert widths["solid"] / widths["hatched"] == pytest.approx((44 - 12) / 12, rel=0.01)


def test_the_page_escapes_what_the_source_wrote():
    frame = pl.LazyFrame(
        {"code_system": ["<b>lab"], "code": ["<script>"], "code_display": ["\"'><img src=x>"]}
    )
    coverage = measure(frame, all_codes=True, display="code_display", top=None)
    page = render_coverage_page("<i>title", {"<u>": [coverage]}, all_codes=True)
    seen = Outline(page)
    assert {"script", "img", "b", "i", "u"}.isdisjoint(tag for tag, _ in seen.elements)
    assert "Not for publication" in seen.text


def test_a_page_without_codes_says_so():
    empty = measure(FRAME.clear())
    assert "0" in Outline(render_coverage_page("Study", {"condition": [empty]})).text
    assert "Nothing is mapped." in render_coverage_page("Study", {})
