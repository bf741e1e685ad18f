"""The risk report: what readers see, and that small counts are not among it."""

import re
from pathlib import Path

import polars as pl
import pytest

from cohortflow.redaction.risk import (
    SUBJECT,
    RiskDemand,
    RiskReport,
    SubjectColumn,
    find_changes,
    measure_risk,
    meet_demand,
    publish_risk,
    render_risk_page,
    show_count,
    show_counts,
    show_share,
)
from html_outline import assert_self_contained

GOLDEN = Path(__file__).parents[2] / "golden" / "risk_page.html"
QUASI = ["patient.gender", "patient.birth_year"]
DEMAND = RiskDemand(k=11, l=2, t=0.5)


def make_subjects():
    """Four hundred subjects, seven of them in classes of three and four."""
    rows = (
        [("female", 1950, "E11")] * 100
        + [("female", 1950, "I10")] * 100
        + [("male", 1960, "E11")] * 12
        + [("male", 1960, "I10")] * 13
        + [("male", 1970, "I10")] * 90
        + [("male", 1970, "E11")] * 78
        + [("other", 1950, "E11")] * 4
        + [("other", 1960, "E11")] * 3
    )
    frame = pl.DataFrame(rows, [*QUASI, "condition.code"], orient="row")
    return frame.with_columns(pl.int_range(pl.len()).cast(pl.String).alias(SUBJECT))


def make_report(subjects, **changes):
    columns = [SubjectColumn(name, "patient", name.partition(".")[2]) for name in QUASI]
    before = measure_risk(subjects.lazy(), QUASI, ["condition.code"], demand=DEMAND)
    left = meet_demand(subjects.lazy(), QUASI, ["condition.code"], DEMAND).subjects
    after = measure_risk(left.lazy(), QUASI, ["condition.code"], demand=DEMAND)
    published = publish_risk(before, after, columns, find_changes(subjects, left, QUASI))
    values = {
        "study": "diabetes_nightly",
        "title": "Type 2 diabetes, nightly",
        "environment": "prod",
        "policy": "safe_harbor",
        "interval": "2026-10-31",
        "verdict": "suppressed",
        "failures": (),
        "demand": DEMAND.describe(),
        "quasi_identifiers": published[2],
        "excluded": {"patient.deceased": "Nobody outside knows it & it is rare."},
        "unpublished": ("patient.city",),
        "population": "",
        "small_cell": 11,
        "removed": published[3],
        "before": published[0],
        "after": published[1],
    }
    return RiskReport(**(values | changes))


class TestDisclosure:
    @pytest.mark.parametrize(
        ("count", "beside", "text"),
        [
            (0, (), "0"),
            (1, (), "<11"),
            (10, (), "<11"),
            (11, (), "11"),
            (1234, (), "1,234"),
            (95, (100,), "not shown"),
            (89, (100,), "89"),
            (100, (100,), "100"),
            (50, (100, 55), "not shown"),
        ],
    )
    def test_a_count(self, count, beside, text):
        assert show_count(count, *beside) == text

    @pytest.mark.parametrize(
        ("counts", "shown"),
        [
            ([20, 0, 30], ["20", "0", "30"]),
            ([3, 20, 30], ["<11", "not shown", "30"]),
            ([3, 9, 30], ["<11", "<11", "30"]),
            ([1, 1, 30, 40], ["<11", "<11", "not shown", "40"]),
            ([3, 0, 0], ["<11", "0", "0"]),
        ],
    )
    def test_counts_that_add_up(self, counts, shown):
        assert show_counts(counts) == shown

    def test_a_secret_total_stays_one(self):
        assert show_counts([20, 30, 0], hide_total=True) == ["not shown", "30", "0"]

    def test_a_share_is_shown_where_its_count_may_be(self):
        assert show_share(50, 100) == "50.0%"
        assert show_share(5, 100) == "<11"
        assert show_share(95, 100) == "not shown"
        assert show_share(0, 0) == "0"


class TestFigures:
    def test_small_classes_are_not_counted_out(self):
        report = make_report(make_subjects())
        assert (report.before.k, report.after.k) == ("<11", "25")
        assert report.before.unique == "0%"
        assert report.before.small == "<11"
        assert report.before.prosecutor == "over 9%"
        assert report.after.prosecutor == "4.0%"
        assert report.removed == "<11"
        assert [item.subjects for item in report.before.sizes] == ["<11", "0", "25", "0", "368"]

    def test_the_number_before_does_not_tell_a_small_number_of_subjects_left_out(self):
        subjects = make_subjects()
        report = make_report(subjects)
        assert report.before.subjects == "not shown"
        assert str(subjects.height) not in str(report.to_dict())
        assert [item.share for item in report.before.sizes] == [None, 0.0, 0.06, 0.0, 0.92]

    def test_small_tables_show_nothing(self):
        few = make_subjects().filter(pl.col("patient.gender") == "other")
        measure = measure_risk(few.lazy(), QUASI, ["condition.code"])
        figures, _, _, _ = publish_risk(measure, measure, [], None)
        assert (figures.subjects, figures.k, figures.small) == ("<11", "<11", "<11")
        assert (figures.average, figures.marketer) == ("not shown", "not shown")

    def test_risks_over_a_population_are_added(self):
        population = pl.LazyFrame({"patient.gender": ["female", "male", "other"], "count": [5000, 4000, 40]})
        measure = measure_risk(make_subjects().lazy(), QUASI, population=population)
        figures, _, _, _ = publish_risk(measure, measure, [], None)
        assert (figures.k_map, figures.journalist) == ("40", "2.5%")


class TestPage:
    def test_the_page_is_the_golden_one(self):
        page = render_risk_page(make_report(make_subjects()))
        assert page == GOLDEN.read_text(encoding="utf-8"), "see tests/golden/risk_page.html"

    def test_no_small_count_is_in_it(self):
        page = render_risk_page(make_report(make_subjects()))
        cells = re.findall(r"<(?:td|dd|text)[^>]*>([^<]*)</", page)
        assert "393" in cells  # published; three, four, seven left out and 400 before are not shown
        assert not {"3", "4", "7", "400"} & set(cells)
        assert cells.count("&lt;11") >= 5

    def test_it_needs_nothing_else_and_runs_nothing(self):
        assert_self_contained(render_risk_page(make_report(make_subjects())))

    def test_texts_are_escaped(self):
        hostile = "<b>x</b>&"
        report = make_report(
            make_subjects(),
            title=hostile,
            excluded={hostile: hostile},
            unpublished=(hostile,),
            failures=(hostile,),
        )
        page = render_risk_page(report)
        assert "<b>" not in page
        assert page.count("&lt;b&gt;x&lt;/b&gt;&amp;") == 5

    def test_it_can_be_read_without_colour(self):
        page = render_risk_page(make_report(make_subjects()))
        assert 'fill="url(#hatching)"' in page
        assert ">before suppression</text>" in page
        assert ">as published</text>" in page

    @pytest.mark.parametrize(
        ("verdict", "text"),
        [
            ("measured", "Measured only"),
            ("met", "Nothing had to be suppressed"),
            ("missed", "Nothing was published"),
        ],
    )
    def test_the_verdict_goes_first(self, verdict, text):
        assert text in render_risk_page(make_report(make_subjects(), verdict=verdict))

    def test_a_release_without_such_columns_says_so(self):
        report = make_report(
            make_subjects(), verdict="unknown", before=None, after=None, quasi_identifiers=()
        )
        assert "Nothing to measure" in render_risk_page(report)
