"""Scrubs the text columns of a table, also those that hold texts in base64."""

from __future__ import annotations

import functools
import threading
from datetime import date
from functools import partial
from typing import Final

import polars as pl
from polars.exceptions import ComputeError

from cohortflow.fhir.elements import base_type, list_elements
from cohortflow.model import Column, PhiClass
from cohortflow.redaction.actions import Action
from cohortflow.redaction.keyed import add_keyed_columns, days_column
from cohortflow.redaction.keys import ProjectKey
from cohortflow.redaction.plan import RedactionPlan
from cohortflow.redaction.policy import RedactionPolicy
from cohortflow.redaction.scrub.plain import is_no_text
from cohortflow.redaction.scrub.scrubber import DateRule, Dates, ScrubCounts, TextScrubber

__all__ = ["ColumnScrubber", "plan_dates", "scrubs_texts"]

_ENCODED: Final = "base64Binary"
_YEARS_AHEAD: Final = 20
"""Years after which a date is a placeholder, as in columns."""


def scrubs_texts(plan: RedactionPlan) -> bool:
    """Whether a plan scrubs a column."""
    return any(entry.treatment.action is Action.SCRUB for entry in plan.columns)


def plan_dates(policy: RedactionPolicy, key: ProjectKey, as_of: date) -> Dates:
    """Return how dates in texts are treated: as the policy treats dates in columns, never with less care.

    Args:
        policy: Shifted dates are shifted, true ones kept; where a policy does something else, they are
            taken out.
        key: The project's key, which tells the patients' shifts.
        as_of: Day at which ages are counted.
    """
    cap = policy.age_cap
    floor = None if cap is None else as_of.year - cap - 1
    match policy.default(PhiClass.DATE).action:
        case Action.SHIFT:
            rule = DateRule.SHIFT
        case Action.KEEP:
            rule = DateRule.KEEP
        case _:
            rule = DateRule.REMOVE
    days, ceiling = partial(_shift_days, policy, key), as_of.year + _YEARS_AHEAD
    return Dates(rule, days=days, floor=floor, ceiling=ceiling, ages=cap is not None)


def _shift_days(policy: RedactionPolicy, key: ProjectKey, subjects: pl.Series) -> pl.Series:
    column = days_column("subject", "days", policy.shift_days, weeks=policy.keep_day_of_week)
    frame = pl.LazyFrame({"subject": subjects.cast(pl.String)})
    return add_keyed_columns(frame, [column], key).collect().get_column("days")


class ColumnScrubber:
    """Scrubs columns of one table, and counts what it does; it is given to ``redact``.

    Args:
        scrubber: Takes identifiers out of texts.
        subject: Column with the patients' ids; empty where there is none.
    """

    def __init__(self, scrubber: TextScrubber, subject: str) -> None:
        self._scrubber = scrubber
        self._subject = subject
        self._counts: dict[str, ScrubCounts] = {}
        self._lock = threading.Lock()

    def __call__(self, text: pl.Expr, column: Column) -> pl.Expr:
        """Return the scrubbed text of a column."""
        with self._lock:
            counts = self._counts.setdefault(column.name, ScrubCounts())
        encoded = any(_is_encoded(path) for path in column.paths)
        work = partial(self._scrub_encoded if encoded else self._scrub, counts)
        nobody = pl.lit(None, dtype=pl.String)
        subject = pl.col(self._subject).cast(pl.String) if self._subject else nobody
        both = pl.struct(text.alias("text"), subject.alias("subject"))
        return both.map_batches(work, return_dtype=pl.String(), is_elementwise=True)

    def count(self) -> dict[str, dict[str, int | dict[str, int]]]:
        """Return by column what was done; see ``ScrubCounts.to_dict``."""
        return {name: counts.to_dict() for name, counts in sorted(self._counts.items())}

    def _scrub(self, counts: ScrubCounts, both: pl.Series) -> pl.Series:
        return self._scrub_texts(counts, both.struct.field("text"), both)

    def _scrub_encoded(self, counts: ScrubCounts, both: pl.Series) -> pl.Series:
        data = both.struct.field("text")
        texts = decode_texts(data)
        counts.leave_out(texts.null_count() - data.null_count())
        return self._scrub_texts(counts, texts, both).cast(pl.Binary).bin.encode("base64")

    def _scrub_texts(self, counts: ScrubCounts, texts: pl.Series, both: pl.Series) -> pl.Series:
        texts = texts.cast(pl.String)
        kept = pl.select(pl.when(~is_no_text(texts)).then(texts)).to_series().alias(texts.name)
        counts.leave_out(kept.null_count() - texts.null_count())
        return self._scrubber.scrub(kept, both.struct.field("subject"), counts)


@functools.cache
def _is_encoded(path: str) -> bool:
    """Whether the values of an element are written in base64."""
    if path.endswith("ttachment.data"):  # also in an extension, whose URL parts the path elsewhere
        return True
    owner, _, rest = path.partition(".")
    kinds: tuple[str, ...] = (owner,)
    for name in rest.split("."):
        kinds = tuple(kind for owner in kinds for kind in _step(owner, name))
    return _ENCODED in kinds


def _step(owner: str, name: str) -> tuple[str, ...]:
    """Return the types of an element of a type, by its name or by its key in JSON: ``contentAttachment``."""
    while owner:
        for element in list_elements(owner):
            if element.name == name:
                return element.types
            for kind in element.types:
                if element.key(kind) == name:
                    return (kind,)
        owner = base_type(owner)
    return ()


def decode_texts(data: pl.Series) -> pl.Series:
    """Return the texts that are written in base64; null for what is none."""
    plain = data.str.replace_all(r"\s+", "")
    decoded = plain.str.decode("base64", strict=False)
    try:
        return decoded.cast(pl.String)
    except ComputeError:  # one picture among the texts fails the cast of the whole column
        return pl.Series(data.name, [_decode(content) for content in decoded], dtype=pl.String)


def _decode(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
