"""Texts that hide what they say: what is known, and what has a form, is found in them all the same."""

import base64
import datetime as dt

import polars as pl
import pytest

from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.patterns import load_patterns
from cohortflow.redaction import Override, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import FACTS
from cohortflow.redaction.scrub import (
    ColumnScrubber,
    DateRule,
    Dates,
    TextScrubber,
    collect_identities,
    load_lexicon,
    plan_dates,
)

CATALOG = Catalog.default()
LEXICON = load_lexicon(CATALOG)
PATTERNS = load_patterns(CATALOG).select(kinds=("identifier", "contact", "date"))
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
WHITE, OBRIEN, MAY, NUNEZ, BERG = "p-white", "p-obrien", "p-may", "p-nunez", "p-berg"
ROWS = [
    ("name", "White", "Margaret\x1fQuinn", None, WHITE),
    ("name", "O'Brien", "Li", None, OBRIEN),
    ("name", "May", "Will", None, MAY),
    ("name", "Núñez-Čapek", "José María", None, NUNEZ),
    ("name", "van der Berg", "Grace", None, BERG),
    ("identifier", "00123457", None, None, WHITE),
    ("identifier", "0000098431", None, None, WHITE),
    ("contact", "617-555-0142", None, None, WHITE),
    ("contact", "mq.white+notes@example.org", None, None, WHITE),
    ("address", "12 Larkspur Lane", None, None, WHITE),
    ("place", "Ithaca", "NY", "14850", WHITE),
    ("birth_date", "1951-03-09", None, None, WHITE),
]
KNOWN = collect_identities(pl.DataFrame(ROWS, schema=FACTS, orient="row"), LEXICON)
SHIFT = Dates(DateRule.SHIFT, days=lambda ids: pl.Series([10] * len(ids)), floor=1936, ceiling=2046)


def scrub(text, subject=WHITE, dates=None):
    scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS, dates)
    return scrubber.scrub(pl.Series([text]), pl.Series([subject])).item()


@pytest.mark.parametrize(
    ("subject", "text", "scrubbed"),
    [
        (WHITE, "MARGARET Q WHITE's chart", "[NAME]'s chart"),
        (WHITE, "Margaret\nWhite came", "[NAME] came"),
        (WHITE, "Mar-\ngaret came", "[NAME]-\n[NAME] came"),
        (WHITE, "Whi\u200bte and Marga\xadret", "[NAME] and [NAME]"),
        (WHITE, "Mar\x01garet; \ufeffMargaret", "[NAME]; [NAME]"),
        (WHITE, "Margaret\xa0White", "[NAME]"),
        (WHITE, "Marg\u0430ret", "[NAME]"),  # a Cyrillic letter
        (WHITE, "\uff2d\uff41\uff52garet", "[NAME]"),
        (WHITE, "MargaretWhite; WhiteMargaret; DrWhite; White2020", "[NAME]; [NAME]; [NAME]; [NAME]"),
        (WHITE, "Margaret_White.pdf", "[NAME].pdf"),
        (WHITE, "White M; White, MQ; M White; M.W.", "[NAME]; [NAME]; [NAME]; [NAME]."),
        (OBRIEN, "O\u2019Brien; OBrien; O Brien; OBRIEN", "[NAME]; [NAME]; [NAME]; [NAME]"),
        (MAY, "Will reports pain; may eat. Mr May said", "[NAME] reports pain; may eat. [NAME] said"),
        (NUNEZ, "NUNEZ CAPEK; Nun\u0303ez; Nunez\u2010Capek; NunezCapek", "[NAME]; [NAME]; [NAME]; [NAME]"),
        (NUNEZ, "N\u00c3\u00ba\u00c3\u00b1ez", "[NAME]"),  # UTF-8 that was read as Latin-1
        (BERG, "Grace van der Berg, VANDERBERG; grace of God", "[NAME]; grace of God"),
    ],
)
def test_names_are_found_however_they_are_written(subject, text, scrubbed):
    assert scrub(text, subject) == scrubbed


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("<p><b>Mar</b>garet W<i>hi</i>te</p>", "\n[NAME]\n"),
        ('<span title="Mar > x">Mar</span>garet', "[NAME]"),
        ("<td>Margaret</td><td>afebrile</td>", " [NAME]  afebrile "),
        ("seen<!-- Margaret --> today", "seen today"),
        ("seen<script>let name = 'Margaret'</script>", "seen"),
        ("W&#104;ite; Wh&#x69;te; Whi&#8203;te", "[NAME]; [NAME]; [NAME]"),
        ("&lt;b&gt;Mar&lt;/b&gt;garet", "[NAME]"),
        ("Mar<b&#8203;>garet", "[NAME]"),
    ],
)
def test_mark_up_hides_no_name(text, scrubbed):
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "BP < 120 & HR > 60; a<b and c>d; R&D; Na <135",
        "“Quoted” — 38 °C, 5 µg, ½ tablet, café, naïve",
        "0 of 5 <5 mm>",
        "Christmas disease, pityriasis in Christmas tree pattern",
        "Refer to page 9/12. Reference range 18-99 years. T 98 F. Score 12/27.",
        "________________________________________________________",
        "pneumonoultramicroscopicsilicovolcanoconiosis",
        "100 mg daily, 1/2 tablet, FiO2 40%, HbA1c 7.2, COVID19, B12, T4N1M0",
    ],
)
def test_plain_texts_stay_as_they_are(text):
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("MRN00123457", "[MRN]"),
        ("id123457abc", "[ID]"),
        ("000123457 and 123457", "[ID] and [ID]"),
        ("98431, 9-8431", "[ID], [ID]"),
        ("MRN \uff10\uff10123457", "MRN [MRN]"),
        ("617\u2011555\u20110142 or 617\u2013555\u20130142 x 12", "[PHONE] or [PHONE]"),
        ("617\xa0555\xa00142", "[PHONE]"),
        ("phone 617-555-0142 ext. 33", "phone [PHONE]"),
        ("mq.white+notes@example.org, foo+bar@baz.co.uk", "[EMAIL], [EMAIL]"),
        ("jane.roe [at] example.org", "[EMAIL]"),
        ("facebook.com/jane.roe", "[URL]"),
        ("Twitter @jane_roe1", "Twitter [CONTACT]"),
        ("account no. 12-3456-78", "account no. [ID]"),
        ("last four of SSN: 9999", "last four of SSN: [ID]"),
        ("Ithaca, NY 14850-1234, Larkspur Lane", "[ADDRESS]"),
    ],
)
def test_numbers_and_contacts_are_found_however_they_are_written(text, scrubbed):
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("dtr Mary drove", "dtr [NAME] drove"),
        ("DAUGHTER MARY, her son's name is Ted", "DAUGHTER [NAME], her son's name is [NAME]"),
        ("his wife of 40 years, Doris, came", "his wife of 40 years, [NAME], came"),
        ("her sons Ted and Bob", "her sons [NAME]"),
        ("Mary Quux, his older sister", "[NAME], his older sister"),
        ("Dr.Quux, Drs. Quux and Roe", "Dr.[NAME], Drs. [NAME]"),
        ("Dr.\nQuux agrees", "Dr.\n[NAME] agrees"),
        ("Dr. de la Quux; Dr. d'Angelo", "Dr. [NAME]; Dr. [NAME]"),
        ("J Quux RN; /s/ Jane Roe; signed: Jane Roe", "[NAME] RN; /s/ [NAME]; signed: [NAME]"),
    ],
)
def test_names_of_strangers_are_found_by_what_stands_beside_them(text, scrubbed):
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "ninety-two year old",
        "aged ninety-one",
        "a nonagenarian",
        "in her nineties",
        "in his 90s",
        "her 97th birthday",
        "98 yrs",
        "92M with fever",
        "92-y-o",
        "one hundred and one years old",
    ],
)
def test_ages_over_89_are_found_in_words_too(text):
    assert "[AGE>89]" in scrub(text)


def test_a_text_in_base64_within_a_text_is_taken_out():
    hidden = base64.b64encode(b"Margaret White was seen at home on 2020-03-04").decode()
    assert scrub(f"payload {hidden} end") == "payload [ID] end"


def test_a_very_long_text_is_scrubbed_as_a_short_one_is():
    line = "Margaret (MRN 00123457) slept well, daughter Fiona called. "
    long = scrub(line * 18_000)
    assert long == scrub(line) * 18_000


class TestDates:
    @pytest.mark.parametrize(
        "text",
        [
            "1900-01-01",
            "01/01/1970",
            "2099-12-31",
            "December 31, 2099",
            "20991231",
            "2001-09-11",
        ],
    )
    def test_a_day_that_anyone_recognises_is_not_moved(self, text):
        """What it became would tell by how many days the patient's dates were moved."""
        assert scrub(f"until {text} valid", dates=SHIFT) == "until [DATE] valid"

    @pytest.mark.parametrize("text", ["9999-12-31", "12/31/9999", "0001-01-01", "0000-00-00", "99991231"])
    def test_what_is_beyond_the_calendar_stays_and_fails_nothing(self, text):
        assert scrub(f"until {text} valid", dates=SHIFT) == f"until {text} valid"

    @pytest.mark.parametrize(
        ("text", "scrubbed"),
        [
            ("Christmas 2019", "[DATE] 2019"),
            ("New Year's Eve", "[DATE]"),
            ("since 9/11", "since [DATE]"),
            ("the 9/11 attacks", "the [DATE] attacks"),
            ("on July 4th 2015", "on [DATE 2015-07-14]"),
            ("Fourth of July", "[DATE]"),
            ("Memorial Day weekend", "[DATE] weekend"),
            ("Christmas Day, 2019-12-25", "[DATE], [DATE 2020-01-04]"),
        ],
    )
    def test_holidays_are_dates(self, text, scrubbed):
        assert scrub(text, dates=SHIFT) == scrubbed

    def test_holidays_stay_where_dates_do(self):
        kept = Dates(DateRule.KEEP)
        assert scrub("Christmas 2019, 9/11", dates=kept) == "Christmas 2019, 9/11"

    @pytest.mark.parametrize(
        "text",
        [
            "Monday, March 2, 2020",
            "Mon 2020-03-02",
            "2020-03-02 (Monday)",
            "Monday 2 March 2020",
            "02MAR2020",
        ],
    )
    def test_the_day_of_the_week_goes_with_the_date(self, text):
        """It would tell the shift but for whole weeks."""
        assert scrub(f"seen {text}.", dates=SHIFT) == "seen [DATE 2020-03-12]."

    @pytest.mark.parametrize(
        "text", ["2020-3-4", "2020.03.04", "03-2020", "2020-03", "spring 2020", "Q1 2020", "week 12 of 2020"]
    )
    def test_parts_of_years_are_dates(self, text):
        assert "[DATE]" in scrub(f"in {text} seen", dates=SHIFT)

    def test_stamps_are_dates(self):
        assert scrub("printed 20200304101500", dates=SHIFT) == "printed [DATE 2020-03-14]"

    def test_a_plan_tells_no_placeholder(self):
        dates = plan_dates(load_policy(CATALOG, "expert"), KEY, dt.date(2026, 6, 30))
        assert dates.ceiling == 2046


class TestColumns:
    SUBJECT = Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient")

    def run(self, path, values):
        column = Column("note", ColumnType.STRING, (path,))
        override = {"note": Override(action="scrub", reason="Notes are what the study is about.")}
        plan = plan_redaction("notes", [self.SUBJECT, column], load_policy(CATALOG, "expert"), override)
        scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS)
        columns = ColumnScrubber(scrubber, plan.subject)
        frame = pl.LazyFrame({"patient_id": [WHITE] * len(values), "note": values})
        result = redact(frame, plan, KEY, as_of=dt.date(2026, 6, 30), scrub=columns).collect()
        return result["note"].to_list(), columns.count()["note"]

    @pytest.mark.parametrize(
        "path", ["DiagnosticReport.presentedForm.data", "DocumentReference.content.attachment.data"]
    )
    def test_html_in_base64_becomes_plain_text(self, path):
        (data,), counts = self.run(path, [base64.b64encode(b"<p>Mar<b>garet</b> came</p>").decode()])
        assert base64.b64decode(data) == b"\n[NAME] came\n"
        assert counts["left_out"] == 0

    def test_what_is_no_text_is_left_out_of_a_text_column_too(self):
        values = [r"{\rtf1 Mar{\b garet}}", "%PDF-1.7 Margaret", "\x00\x01\x02\x03ab", "fine", None]
        result, counts = self.run("Observation.note.text", values)
        assert result == [None, None, None, "fine", None]
        assert counts["left_out"] == 3
