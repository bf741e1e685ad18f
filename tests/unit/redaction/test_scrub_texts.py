"""What is taken out of texts, and what stays."""

import base64
import datetime as dt

import polars as pl
import pytest

from cohortflow.errors import CatalogError, PolicyError
from cohortflow.model import Catalog, Column, ColumnType
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, Override, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import FACTS, LeakScan, load_common_words
from cohortflow.redaction.scrub import (
    TAGS,
    ColumnScrubber,
    DateRule,
    Dates,
    ScrubCounts,
    TextScrubber,
    collect_identities,
    load_lexicon,
    plan_dates,
    scrubs_texts,
)

CATALOG = Catalog.default()
LEXICON = load_lexicon(CATALOG)
PATTERNS = load_patterns(CATALOG).select(kinds=("identifier", "contact", "date"))
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
AS_OF = dt.date(2026, 6, 30)
WHITE, ROSE, OBRIEN = "p-white", "p-rose", "p-obrien"
ROWS = [
    ("name", "White", "Margaret\x1fQuinn", None, WHITE),
    ("name", "Hollis", "Rose", None, ROSE),
    ("name", "O'Brien", "Li", None, OBRIEN),
    ("name", "Parkinson", "Desmond", None, None),
    ("name", "Zapatero", "Inés", None, None),
    ("display", "Dr. Wanda Kowalczyk", "Practitioner", None, None),
    ("identifier", "00123457", None, None, WHITE),
    ("identifier", "98431", None, None, WHITE),
    ("contact", "617-555-0142", None, None, WHITE),
    ("contact", "mqwhite@example.org", None, None, WHITE),
    ("address", "12 Larkspur Lane", None, None, WHITE),
    ("place", "Ithaca", "NY", "14850", WHITE),
    ("birth_date", "1951-03-09", None, None, WHITE),
    ("organization", "Harbor Point Medical Center", None, None, None),
]
KNOWN = collect_identities(pl.DataFrame(ROWS, schema=FACTS, orient="row"), LEXICON)
NOTE = Column("note", ColumnType.STRING, ("Condition.note.text",))
DATA = Column("data", ColumnType.STRING, ("DocumentReference.content.attachment.data",))
SUBJECT = Column("patient_id", ColumnType.STRING, ("Patient.id",), target="Patient")


def scrub(text, subject=WHITE, dates=None, counts=None):
    scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS, dates)
    return scrubber.scrub(pl.Series([text]), pl.Series([subject]), counts).item()


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Margaret White was seen.", "[NAME] was seen."),
        ("WHITE, MARGARET Q. was seen", "[NAME]. was seen"),
        ("Maggie; White's son", "[NAME]; [NAME]'s son"),
        ("Magaret came; Margarett left; Margraet, too", "[NAME] came; [NAME] left; [NAME], too"),
        ("initials M.Q.W. on file", "initials [NAME]. on file"),
        ("spoke with Peg today", "spoke with [NAME] today"),
        ("record 00123457, or 00-123-457", "record [ID], or [ID]"),
        ("code 98431", "code [ID]"),
        ("at 12 Larkspur Ln, Ithaca NY 14850", "at [ADDRESS]"),
        ("(617) 555 0142 or 617.555.0142 or 5550142", "[PHONE] or [PHONE] or [PHONE]"),
        ("MQWhite@Example.org", "[EMAIL]"),
        ("born 9 March 1951 or 3/9/1951 or 19510309", "born [DATE] or [DATE] or [DATE]"),
    ],
)
def test_what_is_known_of_the_patient_is_taken_out_in_every_form(text, scrubbed):
    assert scrub(text) == scrubbed


def test_a_word_that_is_this_patients_name_is_taken_out_and_stays_elsewhere():
    text = "Rose tolerated the procedure; the rash is rose in colour."
    assert scrub(text, ROSE) == "[NAME] tolerated the procedure; the rash is rose in colour."
    assert scrub(text, WHITE) == text


def test_short_and_parted_names_of_the_patient_are_taken_out():
    assert scrub("Li O'Brien and Li", OBRIEN) == "[NAME] and [NAME]"


def test_a_nickname_that_is_a_word_stays_where_a_sentence_begins():
    rows = [("name", "Zorn", "William", None, "w")]
    known = collect_identities(pl.DataFrame(rows, schema=FACTS, orient="row"), LEXICON)
    scrubber = TextScrubber(known, LEXICON, PATTERNS)
    texts = pl.Series(["Will follow up.", "Talked with Will."])
    assert scrubber.scrub(texts, pl.Series(["w", "w"])).to_list() == [
        "Will follow up.",
        "Talked with [NAME].",
    ]


def test_names_of_others_are_taken_out_where_they_are_no_words():
    assert scrub("Zapatero and kowalczyk agree") == "[NAME] and [NAME] agree"
    assert scrub("Desmond Parkinson called") == "[NAME] called"
    assert scrub("seen at Harbor Point Medical Center") == "seen at [ORGANIZATION]"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Discussed with Dr. Xu", "Discussed with [NAME]"),
        ("her daughter Fiona drove", "her daughter [NAME] drove"),
        ("Signed by: Abel Quux, RN", "Signed by: [NAME], RN"),
        ("lives in Saginaw with a cat", "lives in [ADDRESS] with a cat"),
        ("94 y.o. man", "[AGE>89] man"),
        ("MRN: 5551234", "MRN: [MRN]"),
        ("SSN 219-09-9999", "SSN [SSN]"),
        ("see https://x.example.org/a", "see [URL]"),
        ("account # 77120093", "account # [ID]"),
        ("records of Mercy Vale Hospital", "records of [ORGANIZATION]"),
    ],
)
def test_what_has_a_form_or_a_context_is_taken_out(text, scrubbed):
    assert scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "Parkinson disease, Graves' disease, Wilson's disease and Down syndrome were excluded.",
        "BP 128/76, HR 72, T 98.6, SpO2 97 %, HbA1c 7.2 %, Na 138, WBC 11500.",
        "Metformin 500 mg, Lasix 40 mg daily; Coumadin 5 mg.",
        "Foley catheter, Babinski negative, McBurney point tender, Glasgow Coma Scale 15.",
        "The patient rose; the wound is white. May shower. 67-year-old.",
        "",
        "\n\n",
    ],
)
def test_text_without_identifiers_stays_as_it_is(text):
    assert scrub(text) == text


def test_a_null_stays_null_and_rows_keep_their_place():
    scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS)
    texts = pl.Series([None, "Margaret", "fever", None])
    subjects = pl.Series([WHITE, WHITE, WHITE, None])
    assert scrubber.scrub(texts, subjects).to_list() == [None, "[NAME]", "fever", None]
    assert texts.to_list() == [None, "Margaret", "fever", None]


def test_nothing_to_scrub_is_nothing():
    empty = pl.Series([], dtype=pl.String)
    assert TextScrubber(KNOWN, LEXICON, PATTERNS).scrub(empty, empty).to_list() == []


def test_a_tag_that_is_there_stays():
    text = "[NAME] on [DATE 2020-03-04], [AGE>89]"
    assert scrub(text) == text


def test_parts_of_any_size_give_the_same(monkeypatch):
    texts = pl.Series([f"Margaret on 2020-03-{day:02d}" for day in range(1, 29)])
    subjects = pl.Series([WHITE] * len(texts))
    scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS)
    whole = scrubber.scrub(texts, subjects)
    monkeypatch.setattr("cohortflow.redaction.scrub.scrubber._BYTES_AT_ONCE", 60)
    assert scrubber.scrub(texts, subjects).to_list() == whole.to_list()


class TestDates:
    SHIFT = Dates(DateRule.SHIFT, days=lambda ids: pl.Series([10] * len(ids)), floor=1936)

    @pytest.mark.parametrize(
        ("text", "moved"),
        [
            ("2020-03-04", "2020-03-14"),
            ("2020-03-04T05:06:07Z", "2020-03-14"),
            ("March 4, 2020", "2020-03-14"),
            ("Mar. 4, 2020", "2020-03-14"),
            ("4 March 2020", "2020-03-14"),
            ("4. März 2020", "2020-03-14"),
            ("04-MAR-2020", "2020-03-14"),
            ("04.03.2020", "2020-03-14"),
            ("3/14/2020", "2020-03-24"),
        ],
    )
    def test_a_date_that_can_be_read_one_way_moves(self, text, moved):
        assert scrub(f"on {text}, seen", dates=self.SHIFT) == f"on [DATE {moved}], seen"

    @pytest.mark.parametrize("text", ["3/4/2020", "3/14/20", "March 2020", "March 4", "Feb 30, 2020"])
    def test_any_other_date_is_taken_out(self, text):
        assert "[DATE]" in scrub(f"on {text}, seen", dates=self.SHIFT)

    def test_a_date_that_tells_an_age_above_the_cap_is_taken_out(self):
        assert scrub("born 1930-03-04", dates=self.SHIFT) == "born [DATE]"

    def test_a_date_of_nobody_is_taken_out(self):
        assert scrub("on 2020-03-04", None, dates=self.SHIFT) == "on [DATE]"

    def test_kept_dates_stay_but_for_the_day_of_birth(self):
        kept = Dates(DateRule.KEEP, ages=False)
        text = "born 03/09/1951, seen 3/4/2020, 95 y.o."
        assert scrub(text, dates=kept) == "born [DATE], seen 3/4/2020, 95 y.o."


class TestColumns:
    def plan(self, column, policy="expert"):
        override = Override(action="scrub", reason="Notes are what the study is about.")
        return plan_redaction(
            "notes", [SUBJECT, column], load_policy(CATALOG, policy), {column.name: override}
        )

    def run(self, column, values, policy="expert", subject=WHITE):
        plan = self.plan(column, policy)
        scrubber = TextScrubber(KNOWN, LEXICON, PATTERNS, plan_dates(plan.policy, KEY, AS_OF))
        columns = ColumnScrubber(scrubber, plan.subject)
        frame = pl.LazyFrame({"patient_id": [subject] * len(values), column.name: values})
        result = redact(frame, plan, KEY, as_of=AS_OF, scrub=columns, ages=NO_AGES).collect()
        return result[column.name].to_list(), columns.count()[column.name]

    def test_texts_move_by_the_days_of_the_table(self):
        (text,), counts = self.run(NOTE, ["Margaret came on 2020-03-04"])
        moved = dt.date(2020, 3, 4) + dt.timedelta(days=KEY.shift_days(WHITE, 365))
        assert text == f"[NAME] came on [DATE {moved}]"
        assert counts == {"values": 1, "changed": 1, "left_out": 0, "tags": {"DATE": 1, "NAME": 1}}

    def test_a_limited_data_set_keeps_dates(self):
        assert self.run(NOTE, ["Margaret came on 2020-03-04"], "limited_dataset")[0] == [
            "[NAME] came on 2020-03-04"
        ]

    def test_safe_harbor_scrubs_nothing(self):
        with pytest.raises(PolicyError, match="does not let a study scrub"):
            self.plan(NOTE, "safe_harbor")

    def test_a_reason_is_demanded(self):
        with pytest.raises(PolicyError, match="gives no reason"):
            plan_redaction(
                "notes", [SUBJECT, NOTE], load_policy(CATALOG, "expert"), {"note": Override(action="scrub")}
            )

    def test_a_plan_says_whether_it_scrubs(self):
        assert scrubs_texts(self.plan(NOTE))
        assert not scrubs_texts(plan_redaction("notes", [SUBJECT, NOTE], load_policy(CATALOG, "expert")))

    def test_texts_in_base64_are_scrubbed_and_what_is_no_plain_text_is_left_out(self):
        contents = [
            "Mrs. White, näher".encode(),
            b"%PDF-1.7 White",
            b"\xff\xd8\xff White",
            rb"{\rtf1 {\b Wh}ite}",
            b"ok\x00",
        ]
        values = [*(base64.b64encode(content).decode() for content in contents), "no base64!", None]
        result, counts = self.run(DATA, values)
        assert base64.b64decode(result[0]).decode() == "[NAME], näher"
        assert result[1:] == [None] * 6
        assert (counts["values"], counts["left_out"]) == (1, 5)

    def test_the_leak_gate_finds_nothing_in_what_is_left(self):
        text = (
            "Margaret White, MRN: 00123457, born 3/9/1951, 12 Larkspur Ln, Zapatero; 617-555-0142, 2020-03-04"
        )
        plan = self.plan(NOTE)
        assert self.leaks(plan, text)
        assert self.leaks(plan, self.run(NOTE, [text])[0][0]) == ()

    def leaks(self, plan, text):
        facts = pl.DataFrame([*ROWS, ("id", WHITE, "Patient", None, WHITE)], schema=FACTS, orient="row")
        scan = LeakScan(
            facts, common=load_common_words(CATALOG), patterns=load_patterns(CATALOG), as_of_year=AS_OF.year
        )
        pseudonym = KEY.pseudonym("Patient", WHITE)
        scan.add_table("notes", pl.LazyFrame({"patient_id": [pseudonym], "note": [text]}), plan)
        return scan.finish().leaks


def test_counts_add_up_by_tag():
    counts = ScrubCounts()
    scrub("Margaret and Zapatero, MRN: 5551234", counts=counts)
    scrub("nothing", counts=counts)
    assert counts.to_dict() == {"values": 2, "changed": 1, "left_out": 0, "tags": {"MRN": 1, "NAME": 2}}
    assert set(counts.to_dict()["tags"]) <= set(TAGS)


def test_nothing_known_is_shown():
    assert "white" not in repr(KNOWN).lower()
    assert "white" not in repr(TextScrubber(KNOWN, LEXICON, PATTERNS)).lower()


@pytest.mark.parametrize("content", ["nicknames: bob rob", "surnames: bob rob", "titles: [mr]"])
def test_a_malformed_list_is_refused(tmp_path, content):
    folder = tmp_path / "scrub"
    folder.mkdir()
    (folder / "mine.yaml").write_text(content)
    with pytest.raises(CatalogError) as caught:
        load_lexicon(Catalog(tmp_path))
    assert "mine.yaml" in str(caught.value)
