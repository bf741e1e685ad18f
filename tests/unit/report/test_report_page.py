"""What every HTML report has from the page, the tables and the charts that they share."""

import re

import pytest

from cohortflow.report import (
    Bar,
    Series,
    callout,
    code,
    concat,
    count_noun,
    draw_bars,
    element,
    join,
    list_figures,
    render_page,
    render_table,
    soft,
)
from html_outline import Outline, assert_self_contained

HOSTILE = "<b onclick='x'>\"&"
SHOWN = "&lt;b onclick=&#x27;x&#x27;&gt;&quot;&amp;"
BEFORE, AFTER, HIDDEN = (
    Series("before", "plain", "solid"),
    Series("after", "plain", "hatched"),
    Series("too few", "idle", "dashed"),
)


def test_a_text_is_escaped_once_wherever_it_goes():
    text = code(HOSTILE)
    assert text == f"<code>{SHOWN}</code>"
    assert concat(text, HOSTILE) == join([text, HOSTILE], "") == f"<code>{SHOWN}</code>{SHOWN}"
    assert element("p", text, title=HOSTILE) == f'<p title="{SHOWN}"><code>{SHOWN}</code></p>'


def test_what_is_made_of_markup_by_other_means_is_escaped_again():
    assert concat(f"{code('a')}") == "&lt;code&gt;a&lt;/code&gt;"


def test_attributes_are_spelled_as_in_html_and_empty_ones_left_out():
    made = element("rect", class_="bar", aria_label="x", id="", width=0)
    assert made == '<rect class="bar" aria-label="x" width="0"></rect>'


@pytest.mark.parametrize(
    "part",
    [
        render_page(HOSTILE, HOSTILE, HOSTILE, [HOSTILE]),
        callout("failed", HOSTILE, HOSTILE),
        list_figures({HOSTILE: HOSTILE, "x": (HOSTILE, HOSTILE)}),
        render_table(HOSTILE, [HOSTILE], [[HOSTILE]]),
        draw_bars(HOSTILE, [Series(HOSTILE, "plain", "solid")], [Bar(HOSTILE, [], HOSTILE)]),
        soft(HOSTILE),
    ],
    ids=["page", "callout", "figures", "table", "chart", "remark"],
)
def test_every_part_escapes_every_text(part):
    assert "<b " not in part
    assert SHOWN in part


def test_a_page_is_self_contained_and_serves_light_dark_and_paper():
    page = render_page("Title", "Heading", "Intro", [callout("passed", "Fine", "All is well.")])
    assert_self_contained(page)
    outline = Outline(page)
    assert outline.find("html") == [{"lang": "en"}]
    assert [tag for tag, _ in outline.elements].count("h1") == 1
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "$" not in page


def test_every_colour_is_defined_in_light_and_dark():
    style = re.search(r"<style>(.*)</style>", render_page("", "", "", []), re.DOTALL)[1]
    used = set(re.findall(r"var\((--\w+)\)", style))
    light, dark = (
        set(re.findall(r"(--\w+):", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert used == light == dark


def test_a_table_has_a_caption_and_headings_of_columns_and_rows():
    table = Outline(render_table("Counts", ["Name", "Rows"], [["a", "1"], ["b", "2"]], numbers={1}))
    assert table.elements[0] == (
        "div",
        {"class": "scroll", "role": "region", "aria-label": "Counts", "tabindex": "0"},
    )
    assert len(table.find("caption")) == 1
    assert [item["scope"] for item in table.find("th")] == ["col", "col", "row", "row"]
    assert table.find("td") == [{"class": "number"}] * 2


def test_rows_of_one_heading_share_it():
    table = Outline(render_table("Counts", ["Name", "When"], [["a", "1"], ["a", "2"], ["b", "3"]]))
    assert table.find("th")[2:] == [{"scope": "rowgroup", "rowspan": "2"}, {"scope": "row"}]
    assert len(table.find("td")) == 3
    assert len(table.find("tbody")) == 2  # a group of rows is a body of its own


def test_a_chart_can_be_read_without_colour():
    bars = [Bar("a", [(BEFORE, 0.5), (AFTER, 0.25)], "75%"), Bar("", [(HIDDEN, 0.1)], "<11")]
    chart = Outline(draw_bars("Shares", (BEFORE, AFTER, HIDDEN), bars))
    drawn = [item for item in chart.find("rect") if "class" in item]
    assert [item["class"] for item in drawn[:3]] == ["solid plain", "hatched plain", "dashed idle"]
    assert {"url(#hatching)"} == {item["fill"] for item in chart.find("rect") if "fill" in item}
    widths = [float(item["width"]) for item in drawn[:3]]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert chart.text.split() == ["a", "75%", "<11", "before", "after", "too", "few"]
    assert chart.find("svg")[0]["aria-label"] == "Shares"


def test_nothing_of_a_chart_stands_outside_of_it():
    bars = [Bar("x" * 36, [(BEFORE, 1.0)], "100.0% of 12,345,678"), Bar("y", [(AFTER, 0)], "0%")]
    chart = Outline(draw_bars("Shares", (BEFORE,), bars))
    _, _, width, height = map(float, chart.find("svg")[0]["viewbox"].split())
    for item in chart.find("rect"):
        assert float(item["x"]) + float(item["width"]) <= width
        assert float(item["y"]) >= 0
        assert float(item["y"]) + float(item["height"]) <= height
    assert max(float(item["y"]) for item in chart.find("text")) <= height


def test_a_count_has_its_noun():
    assert [count_noun(number, "row") for number in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
