"""Takes identifiers out of texts, batch by batch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import polars as pl

from cohortflow.patterns import Pattern
from cohortflow.redaction.scrub.contexts import find_contexts
from cohortflow.redaction.scrub.dates import take_weekdays, write_dates
from cohortflow.redaction.scrub.forms import FormSearch
from cohortflow.redaction.scrub.identity import Identities
from cohortflow.redaction.scrub.lexicon import Lexicon
from cohortflow.redaction.scrub.names import find_glued, find_names
from cohortflow.redaction.scrub.phrases import find_numbers, find_phrases
from cohortflow.redaction.scrub.plain import write_plainly
from cohortflow.redaction.scrub.spans import SPANS, find_spans, join_neighbours, merge_spans, write_over
from cohortflow.redaction.scrub.words import split_runs, split_words

__all__ = ["TAGS", "DateRule", "Dates", "ScrubCounts", "TextScrubber"]

TAGS: Final = (
    "ADDRESS",
    "AGE>89",
    "CONTACT",
    "DATE",
    "EMAIL",
    "ID",
    "IP",
    "MRN",
    "NAME",
    "ORGANIZATION",
    "PHONE",
    "SSN",
    "URL",
)
"""What takes the place of what is found, in brackets."""

_TAG: Final = rf"\[(?:{'|'.join(TAGS)}|DATE \d{{4}}-\d{{2}}-\d{{2}})\]"
_BYTES_AT_ONCE: Final = 8_000_000
_FORM, _KNOWN, _NAME, _CONTEXT = 1, 2, 3, 4


class DateRule(StrEnum):
    """What happens to dates in texts."""

    SHIFT = "shift"
    """Moved like the patient's other dates where they can be read one way only, else taken out."""
    REMOVE = "remove"
    KEEP = "keep"
    """Left as they are, but for the patient's date of birth."""


@dataclass(frozen=True, slots=True)
class Dates:
    """How dates and ages in texts are treated.

    Attributes:
        rule: What happens to dates.
        days: Patients' ids to the days by which their dates move; needed to shift.
        floor: First year that is told; ``None``: all years are.
        ceiling: Last year of real dates; later ones are taken out. ``None``: there is none.
        ages: Whether ages over 89 are taken out.
    """

    rule: DateRule = DateRule.REMOVE
    days: Callable[[pl.Series], pl.Series] | None = field(default=None, repr=False)
    floor: int | None = None
    ceiling: int | None = None
    ages: bool = True


class ScrubCounts:
    """How much was taken out of a column; may be added to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tags: Counter[str] = Counter()
        self._values = self._changed = self._left_out = 0

    def add(self, values: int, changed: int, tags: dict[str, int]) -> None:
        """Count a batch."""
        with self._lock:
            self._values += values
            self._changed += changed
            self._tags.update(tags)

    def leave_out(self, values: int) -> None:
        """Count values that are no plain text and were left out."""
        with self._lock:
            self._left_out += values

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Return counts, never a text.

        ``values`` (texts), ``changed`` (of them), ``left_out`` (values that were no plain text), ``tags``
        (how often each was put).
        """
        with self._lock:
            return {
                "values": self._values,
                "changed": self._changed,
                "left_out": self._left_out,
                "tags": dict(sorted(self._tags.items())),
            }


class TextScrubber:
    """Finds identifiers in texts and puts tags in their place.

    Args:
        known: What is known of the persons in the raw zone.
        lexicon: Words that decide.
        patterns: Forms of identifiers.
        dates: How dates and ages are treated.
    """

    def __init__(
        self, known: Identities, lexicon: Lexicon, patterns: Iterable[Pattern], dates: Dates | None = None
    ) -> None:
        self._known = known
        self._lexicon = lexicon
        self._dates = Dates() if dates is None else dates
        self._forms = FormSearch(patterns)

    def scrub(self, texts: pl.Series, subjects: pl.Series, counts: ScrubCounts | None = None) -> pl.Series:
        """Return texts without what identifies persons, and without mark-up; nulls stay null.

        Args:
            texts: The texts.
            subjects: Id of the patient whose each is; null where nobody's.
            counts: What was done is added to it.
        """
        parts = [
            self._scrub_part(texts[offset : offset + size], subjects[offset : offset + size], counts)
            for offset, size in _cut_batches(texts)
        ]
        return pl.concat(parts) if parts else texts

    def find(self, texts: pl.Series, subjects: pl.Series) -> pl.DataFrame:
        """Return what is taken out, with ``SPANS``: in order, without overlaps, with what is put.

        The texts are plain ones, as of ``write_plainly``.
        """
        subjects = subjects.cast(pl.String)
        found = self._find_all(texts, subjects)
        spans = merge_spans(found, self._find_tags(texts))
        spans = join_neighbours(texts, spans.filter(pl.col("rank") >= 0), ("NAME", "ADDRESS"))
        if self._dates.rule is DateRule.SHIFT:
            spans = take_weekdays(texts, spans)
        tagged = pl.concat_str(pl.lit("["), "tag", pl.lit("]"))
        return spans.with_columns(put=pl.coalesce("put", tagged))

    def _scrub_part(self, texts: pl.Series, subjects: pl.Series, counts: ScrubCounts | None) -> pl.Series:
        texts = write_plainly(texts)
        spans = self.find(texts, subjects)
        if counts is not None:
            tags = dict(spans.group_by("tag").len().iter_rows())
            counts.add(len(texts) - texts.null_count(), spans["row"].n_unique(), tags)
        return write_over(texts, spans)

    def _find_tags(self, texts: pl.Series) -> pl.DataFrame:
        """Find what an earlier pass has put: it stays."""
        found = find_spans(texts, _TAG) if texts.str.contains("[", literal=True).any() else None
        if found is None:
            return SPANS.to_frame()
        return _as_spans(found.with_columns(tag=pl.lit("")), _FORM)

    def _find_all(self, texts: pl.Series, subjects: pl.Series) -> pl.DataFrame:
        words = split_words(texts, subjects, self._lexicon)
        runs = split_runs(words, self._lexicon)
        forms = self._forms.find(texts)
        contexts = find_contexts(texts, self._lexicon)
        names = [find_names(words, self._known, self._lexicon), find_glued(runs, self._known)]
        known = [
            *(find_phrases(part, self._known) for part in (words, runs)),
            *(find_numbers(part, self._known) for part in (words, runs)),
        ]
        parts = [
            self._treat_dates(forms, subjects, _FORM),
            _as_spans(pl.concat(known), _KNOWN),
            _as_spans(pl.concat(names).with_columns(tag=pl.lit("NAME")), _NAME),
            self._treat_dates(contexts, subjects, _CONTEXT),
        ]
        return pl.concat(parts)

    def _treat_dates(self, found: pl.DataFrame, subjects: pl.Series, rank: int) -> pl.DataFrame:
        is_date = pl.col("tag") == "DATE"
        if not self._dates.ages:
            found = found.filter(pl.col("tag") != "AGE>89")
        if self._dates.rule is DateRule.KEEP:
            return _as_spans(found.filter(~is_date), rank)
        if self._dates.rule is DateRule.REMOVE or self._dates.days is None:
            return _as_spans(found, rank)
        dates = found.filter(is_date)
        owners = subjects.gather(dates["row"])
        known = owners.unique().drop_nulls()
        days = pl.DataFrame({"owner": known, "days": self._dates.days(known).cast(pl.Int64)})
        moved = dates.with_columns(owners.alias("owner")).join(
            days, on="owner", how="left", maintain_order="left"
        )
        put = write_dates(pl.col("text"), pl.col("days"), self._dates.floor, self._dates.ceiling)
        spans = _as_spans(moved, rank, put)
        return pl.concat([spans, _as_spans(found.filter(~is_date), rank)])


def _as_spans(found: pl.DataFrame, rank: int, put: pl.Expr | None = None) -> pl.DataFrame:
    nothing = pl.lit(None, dtype=pl.String)
    return found.select(
        "row",
        "start",
        "end",
        "tag",
        pl.lit(rank, dtype=pl.Int8).alias("rank"),
        (nothing if put is None else put).alias("put"),
    )


def _cut_batches(texts: pl.Series) -> Iterator[tuple[int, int]]:
    """Yield offset and size of parts of bounded size, so that memory is."""
    total = texts.str.len_bytes().fill_null(0).cast(pl.Int64).cum_sum()
    number = (total // _BYTES_AT_ONCE).rle()
    offset = 0
    for size in number.struct.field("len"):
        yield offset, size
        offset += size
