"""What holds for the scrubbing of any text."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortflow.model import Catalog
from cohortflow.patterns import load_patterns
from cohortflow.redaction.leaks import FACTS
from cohortflow.redaction.scrub import DateRule, Dates, TextScrubber, collect_identities, load_lexicon
from cohortflow.redaction.scrub.spans import SPANS, find_spans, merge_spans, write_over

CATALOG = Catalog.default()
LEXICON = load_lexicon(CATALOG)
PATTERNS = load_patterns(CATALOG).select(kinds=("identifier", "contact", "date"))
OWN = {
    "name": ["Thistlewood", "Cordelia", "Rose", "Bo"],
    "number": ["00471123", "X9-4471", "617-555-0142"],
    "other": ["12 Larkspur Lane", "cthistle@example.org", "1951-03-09", "Ithaca"],
}
ROWS = [
    ("name", "Thistlewood", "Cordelia\x1fRose\x1fBo", None, "p"),
    ("identifier", "00471123", None, None, "p"),
    ("identifier", "X9-4471", None, None, "p"),
    ("contact", "617-555-0142", None, None, "p"),
    ("contact", "cthistle@example.org", None, None, "p"),
    ("address", "12 Larkspur Lane", None, None, "p"),
    ("place", "Ithaca", "NY", "14850", "p"),
    ("birth_date", "1951-03-09", None, None, "p"),
    ("name", "Zapatero", "Inés", None, None),
]
KNOWN = collect_identities(pl.DataFrame(ROWS, schema=FACTS, orient="row"), LEXICON)
SHIFT = Dates(DateRule.SHIFT, days=lambda ids: pl.Series([10] * len(ids)), floor=1936)
PLAIN = TextScrubber(KNOWN, LEXICON, PATTERNS)
SHIFTING = TextScrubber(KNOWN, LEXICON, PATTERNS, SHIFT)

IDENTIFIERS = [value for values in OWN.values() for value in values]
PIECES = [
    *IDENTIFIERS, "Zapatero", "Dr. Jane Doe", "daughter Fiona", "2020-03-04", "March 4, 2020", "3/4",
    "MRN: 12345678", "[NAME]", "[DATE 2020-01-01]", "[", "]", "fever", "BP 120/80", "Smith", "J.", "MD", "né",
    "—", "\n", ",", ".", "-", "é", "94 y.o.", "call 555-0123", "a@b.org", "http://x.org/", "Parkinson",
    "disease", "x***", "The", "lives in", "9",
]  # fmt: skip
TEXTS = st.lists(
    st.tuples(st.sampled_from(PIECES) | st.text(max_size=6), st.sampled_from([" ", " ", " ", "\n", ""]))
).map(lambda parts: "".join(piece + gap for piece, gap in parts))
SAFE_WORDS = [
    "fever",
    "cough",
    "stable",
    "with",
    "normal",
    "lungs",
    "no",
    "pain",
    "left",
    "120 mg",
    "7.2",
    "was",
    "and",
]


def scrub(scrubber, *texts):
    return scrubber.scrub(pl.Series(texts, dtype=pl.String), pl.Series(["p"] * len(texts))).to_list()


def part(text):
    """Return the words of a text with single blanks between."""
    return pl.Series([text]).str.replace_all(r"[^\pL\pN]+", " ").item()


@settings(max_examples=8, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=20), st.sampled_from([PLAIN, SHIFTING]))
def test_scrubbing_twice_changes_nothing_more(texts, scrubber):
    once = scrub(scrubber, *texts)
    assert scrub(scrubber, *once) == once


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(IDENTIFIERS), TEXTS), min_size=1, max_size=20))
def test_no_identifier_of_the_patient_is_left_as_it_is(cases):
    left = scrub(PLAIN, *(f"{before} {identifier} {after}" for before, identifier, after in cases))
    for text, (_, identifier, _) in zip(left, cases, strict=True):
        assert f" {part(identifier)} " not in f" {part(text)} "


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.sampled_from(SAFE_WORDS), max_size=40).map(" ".join), max_size=10))
def test_a_text_without_identifiers_is_not_changed(texts):
    assert scrub(PLAIN, *texts) == texts


@settings(max_examples=6, deadline=None)
@given(st.lists(TEXTS | st.none(), min_size=2, max_size=4))
def test_rows_and_nulls_stay_and_each_text_is_scrubbed_by_itself(texts):
    together = scrub(PLAIN, *texts)
    assert [text is None for text in together] == [text is None for text in texts]
    assert together == [text for one in texts for text in scrub(PLAIN, one)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet="aé—\n1 .", max_size=20), max_size=5))
def test_places_of_matches_are_those_of_the_text(texts):
    series = pl.Series(texts, dtype=pl.String)
    found = find_spans(series, r"[a\x{e9}1]+")
    for row, start, end, text in found.select("row", "start", "end", "text").iter_rows():
        assert texts[row].encode()[start:end].decode() == text
    rest = found.select(
        "row", "start", "end", tag=pl.lit("NAME"), rank=pl.lit(1, dtype=pl.Int8), put=pl.lit("")
    )
    left = write_over(series, merge_spans(rest, SPANS.to_frame()))
    assert left.to_list() == [text.replace("a", "").replace("é", "").replace("1", "") for text in texts]
