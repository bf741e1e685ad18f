"""One pattern as Polars expressions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from cohortflow.model import PhiClass
from cohortflow.patterns.check_digits import check_digit_holds
from cohortflow.patterns.definition import Boundary, PatternDefinition, PatternKind

__all__ = ["Pattern"]

# ASCII word boundaries: the Unicode ones make the regex engine leave its fast path on text beyond ASCII.
_EDGE = r"(?-u:\b)"
# Between a context word and the value: "MRN: ", "Patient ID (new) #", "SSN is ".
_GLUE = (
    r"(?i:[ _\-]?(?:numbers?|no|nr|num|code|id|is|was|are|of|the|new|old)){0,3}"
    r"[ \t\r\n]{0,3}[.:#=,;|>\-(\[\"']{0,3}[ \t\r\n]{0,3}"
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A named form of identifier, code, contact or date.

    The expressions work on String columns of any length; no Python runs per row.

    Attributes:
        definition: What the catalog says of it.
        place: File and line of the definition.
    """

    definition: PatternDefinition
    place: str = ""

    @property
    def name(self) -> str:
        """Name in the catalog."""
        return self.definition.name

    @property
    def title(self) -> str:
        """Name for people."""
        return self.definition.title

    @property
    def kind(self) -> PatternKind:
        """What its values are."""
        return self.definition.kind

    @property
    def system(self) -> str | None:
        """Canonical URI of the code or naming system."""
        return self.definition.system

    @property
    def source(self) -> str:
        """Standard and section that the form comes from."""
        return self.definition.source

    @property
    def phi(self) -> PhiClass:
        """How much a value can identify."""
        return self.definition.phi

    @property
    def hipaa(self) -> str | None:
        """Letter of the identifier in 45 CFR 164.514(b)(2)(i) that it is."""
        return self.definition.hipaa

    @property
    def telling(self) -> bool:
        """Whether a form of it is found in a text without a context word in front."""
        return self.definition.telling

    @property
    def whole_regex(self) -> str:
        """Regular expression of a whole value; blanks around it carry no meaning."""
        return rf"^[ \t\r\n]*(?:{_join(self.definition.regex, self._flags)})[ \t\r\n]*$"

    @property
    def text_regex(self) -> str:
        """Regular expression of an occurrence in a text, without the check of its check digit.

        With context words it has two groups, of which one holds the value.
        """
        item = self.definition
        alone = item.regex if item.in_text is None else item.in_text
        if item.token is not None:
            return item.token
        parts = []
        if item.context:
            words = "|".join(_word(word) for word in item.context)
            after = _EDGE if item.boundary in {Boundary.BOTH, Boundary.END} else ""
            parts.append(rf"{_EDGE}(?i:{words}){_GLUE}({_join(item.regex, self._flags)}){after}")
        if alone:
            start = _EDGE if item.boundary in {Boundary.BOTH, Boundary.START} else ""
            end = _EDGE if item.boundary in {Boundary.BOTH, Boundary.END} else ""
            forms = _join(alone, self._flags)
            parts.append(f"{start}({forms}){end}" if parts else f"{start}(?:{forms}){end}")
        return "|".join(parts)

    def matches(self, value: pl.Expr) -> pl.Expr:
        """Return whether the whole value is one, its check digit included; null for null."""
        found = value.str.contains(self.whole_regex)
        if self._verified:
            found &= self._verify(pl.when(found).then(value))
        return pl.when(value.is_not_null()).then(found)

    def occurs_in(self, text: pl.Expr) -> pl.Expr:
        """Return whether a text contains one, its check digit included; null for null."""
        if not self._verified and self.definition.token is None:
            return text.str.contains(self.text_regex)
        return pl.when(text.is_not_null()).then(self.find_all(text).list.len() > 0)

    def find_all(self, text: pl.Expr) -> pl.Expr:
        """Return the occurrences in a text, in its order, as List(String); null for null.

        They have the spelling of the text, without the context words.
        """
        found = text.str.extract_all(self.text_regex)
        item = pl.element()
        if self.definition.token is not None:
            found = found.list.filter(item.str.contains(self.whole_regex))
        elif self.definition.context:
            groups = [item.str.extract(self.text_regex, 1)]
            if self.telling:
                groups.append(item.str.extract(self.text_regex, 2))
            found = found.list.eval(pl.coalesce(groups))
        if not self._verified:
            return found
        return found.map_batches(self._keep_real, return_dtype=pl.List(pl.String), is_elementwise=True)

    def normalize(self, value: pl.Expr) -> pl.Expr:
        """Return values without the characters that carry no meaning, for comparison and check digits."""
        text = value.str.strip_chars()
        if self.definition.remove:
            text = text.str.replace_all(f"[{re.escape(self.definition.remove)}]", "")
        return text.str.to_uppercase() if self.definition.uppercase else text

    @property
    def _flags(self) -> str:
        return "i" if self.definition.ignore_case else ""

    @property
    def _verified(self) -> bool:
        return self.definition.check is not None or bool(self.definition.never)

    def _keep_real(self, found: pl.Series) -> pl.Series:
        """Leave out of lists what has the form alone.

        Few texts hold a candidate: these are taken out of their lists and verified as one column, because
        an expression with a table in it would be evaluated list by list.
        """
        rows = found.to_frame("found").with_row_index("row")
        candidates = rows.filter(pl.col("found").list.len() > 0).explode("found")
        if candidates.is_empty():
            return found
        real = (
            candidates.filter(self._verify(pl.col("found")))
            .group_by("row", maintain_order=True)
            .agg(real=pl.col("found"))
        )
        none: pl.Expr = pl.lit(pl.Series([[]], dtype=pl.List(pl.String)))
        kept = pl.when(pl.col("found").is_not_null()).then(pl.coalesce("real", none))
        return rows.join(real, on="row", how="left", maintain_order="left").select(kept).to_series()

    def _verify(self, value: pl.Expr) -> pl.Expr:
        """Return whether values of the right form are real ones: check digit, exceptions, never issued."""
        text = self.normalize(value)
        holds = pl.lit(value=True)
        if self.definition.check is not None:
            part = text
            if self.definition.check_part is not None:
                part = text.str.extract(self.definition.check_part, 1)
            holds = check_digit_holds(self.definition.check, part)
            if self.definition.exceptions:
                holds |= text.is_in(list(self.definition.exceptions))
        if self.definition.never:
            holds &= ~text.is_in(list(self.definition.never))
        return holds.fill_null(value=False)


def _join(forms: tuple[str, ...], flags: str) -> str:
    return f"(?{flags}:{'|'.join(forms)})"


def _word(word: str) -> str:
    """Return the pattern of a context word, in which a blank stands for any of blank, hyphen, underscore."""
    return r"[ _\-]?".join(re.escape(part) for part in word.split())
