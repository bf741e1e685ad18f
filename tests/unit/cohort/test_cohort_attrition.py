import polars as pl
import pytest

from cohortflow.cohort import render_attrition, suppress_small_counts


def make(start, *steps):
    """Steps of criterion, number excluded, and optionally unit mismatches and unknowns."""
    rows, before = [], start
    for step, (criterion, excluded, *notes) in enumerate(steps, start=1):
        unit, unknown = (*notes, 0, 0)[:2]
        rows.append((step, criterion, before, excluded, before - excluded, unit, unknown))
        before -= excluded
    names = ["step", "criterion", "n_before", "n_excluded", "n_after", "n_unit_mismatch", "n_unknown"]
    return pl.DataFrame(rows, schema=names, orient="row")


def published(attrition, **kwargs):
    table = suppress_small_counts(attrition, **kwargs)
    return table.select("step", "criterion", "n_before", "n_excluded", "n_after").rows()


def test_large_counts_and_zeros_are_shown():
    attrition = make(100, ("Has T2D", 40), ("Adult", 0), ("HbA1c", 30))
    assert published(attrition) == [
        ("1", "Has T2D", "100", "40", "60"),
        ("2", "Adult", "60", "0", "60"),
        ("3", "HbA1c", "60", "30", "30"),
    ]


def test_a_small_exclusion_is_joined_with_the_next_step():
    attrition = make(100, ("Has T2D", 40), ("Adult", 3), ("HbA1c", 30))
    assert published(attrition) == [
        ("1", "Has T2D", "100", "40", "60"),
        ("2-3", "Adult; HbA1c", "60", "33", "27"),
    ]


def test_a_small_exclusion_at_the_end_is_joined_with_the_step_before():
    attrition = make(100, ("Has T2D", 40), ("Adult", 3))
    assert published(attrition) == [("1-2", "Has T2D; Adult", "100", "43", "57")]


def test_a_small_exclusion_on_its_own_is_hidden_with_what_gives_it_away():
    assert published(make(100, ("Has T2D", 3))) == [("1", "Has T2D", "100", "<11", "not shown")]


def test_a_small_cohort_is_hidden_with_what_gives_it_away():
    attrition = make(100, ("Has T2D", 40), ("Adult", 55), ("Alive", 0))
    assert published(attrition) == [
        ("1", "Has T2D", "100", "40", "60"),
        ("2", "Adult", "60", "not shown", "<11"),
        ("3", "Alive", "<11", "0", "<11"),
    ]


def test_notes_are_protected_too():
    attrition = make(100, ("Has T2D", 40), ("HbA1c", 30, 4, 0), ("Age", 20, 12, 15))
    table = suppress_small_counts(attrition)
    assert table.select("n_unit_mismatch", "n_unknown").rows() == [
        ("0", "0"),
        ("<11", "0"),
        ("12", "not shown"),
    ]


def test_nothing_is_hidden_if_asked():
    attrition = make(100, ("Has T2D", 3), ("Adult", 96, 2, 1))
    table = suppress_small_counts(attrition, minimum=0)
    assert table.rows() == [
        ("1", "Has T2D", "100", "3", "97", "0", "0"),
        ("2", "Adult", "97", "96", "1", "2", "1"),
    ]


def test_the_flowchart_leads_from_the_population_to_the_cohort():
    attrition = make(120, ("Has T2D", 60), ('HbA1c >= 6.5 % "lab"', 35, 4, 12))
    assert render_attrition(attrition, population="All patients") == (
        "flowchart TD\n"
        '    n0["All patients<br/>n = 120"]\n'
        '    n1["Has T2D<br/>n = 60"]\n'
        '    x1["Excluded<br/>n = 60"]\n'
        "    n0 --> n1\n"
        "    n0 --> x1\n"
        '    n2["HbA1c #gt;= 6.5 % #quot;lab#quot;<br/>n = 25"]\n'
        '    x2["Excluded<br/>n = 35<br/>unit not accepted: #lt;11<br/>not recorded: 12"]\n'
        "    n1 --> n2\n"
        "    n1 --> x2\n"
    )


def test_joined_steps_stand_in_one_box_on_lines_of_their_own():
    text = render_attrition(make(100, ("Has T2D", 40), ("Adult", 3)))
    assert '    n1["Has T2D<br/>Adult<br/>n = 57"]' in text.splitlines()


@pytest.mark.parametrize("text", ["a\nb", '"] --> n9["', "<script>", "x#y;"])
def test_a_criterion_cannot_break_the_flowchart(text):
    lines = render_attrition(make(100, (text, 50))).splitlines()
    label = next(line for line in lines if line.startswith("    n1["))
    assert len(lines) == 6
    assert label.count('"') == 2
    assert label.replace("<br/>", "").count("<") == 0
