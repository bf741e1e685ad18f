"""The rules by which the maps of SNOMED CT choose among targets, evaluated for whole columns.

Source: SNOMED CT to ICD-10 Mapping Technical Guide (http://snomed.org/icd10map). A rule is ``TRUE``,
``OTHERWISE TRUE``, or conditions joined by ``AND``: ``IFA 248152002 | Female (finding) |`` for the sex,
``IFA 445518008 | Age at onset of clinical finding (observable entity) | < 12.0 years`` for the age, and
``IFA`` with any other concept for a finding beside this one, which a row does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from cohortflow.terminology.mapping import PatientContext

__all__ = ["AgeCondition", "RuleSet", "SexCondition", "is_conditional", "parse_rule"]

_FEMALE, _MALE = "248152002", "248153007"
_AGES = frozenset({"445518008", "424144002"})  # at onset; current chronological age
_CLAUSE = re.compile(
    r"\s*IFA\s+(?P<concept>[0-9]{6,18})\s*(?:\|[^|]*\|)?\s*"
    r"(?:(?P<op><=|>=|<|>)\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>day|week|month|year)s?)?\s*"
    r"(?:AND\b|$)",
    re.IGNORECASE,
)
_OFFSETS = {"day": "d", "week": "w", "month": "mo", "year": "y"}
_PER_YEAR = {"day": 365.25, "week": 365.25 / 7, "month": 12.0, "year": 1.0}
_SEXES = {
    "female": "female",
    "f": "female",
    _FEMALE: "female",
    "male": "male",
    "m": "male",
    _MALE: "male",
}
_FALSE, _TRUE, _UNKNOWN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class SexCondition:
    """The patient is of this sex, ``female`` or ``male``."""

    sex: str

    def holds(self, context: PatientContext) -> pl.Expr:
        """Return whether it holds for each row; null where the row does not tell."""
        if context.sex is None:
            return pl.lit(None, pl.Boolean)
        text = pl.col(context.sex).cast(pl.String).str.strip_chars().str.to_lowercase()
        return text.replace_strict(_SEXES, default=None, return_dtype=pl.String) == self.sex


@dataclass(frozen=True, slots=True)
class AgeCondition:
    """The age compares so with a number of days, weeks, months or years.

    Attributes:
        op: ``<``, ``<=``, ``>`` or ``>=``.
        number: How many.
        unit: ``day``, ``week``, ``month`` or ``year``.
    """

    op: str
    number: float
    unit: str

    def holds(self, context: PatientContext) -> pl.Expr:
        """Return whether it holds for each row; null where the row does not tell.

        From two dates the age is that of the calendar: twelve years old is who has had the birthday.
        """
        if context.age is not None:
            # Text that is no number, such as "90+", is an age that is not known.
            age = pl.col(context.age).cast(pl.Float64, strict=False)
            known = pl.when(age.is_not_nan() & (age >= 0)).then(age)
            return _compare(known, self.op, pl.lit(self.number / _PER_YEAR[self.unit]))
        if context.birth_date is None or context.at is None:
            return pl.lit(None, pl.Boolean)
        birth, at = (pl.col(name).cast(pl.Date, strict=False) for name in (context.birth_date, context.at))
        # Before the birth there is no age: one of the two dates is wrong.
        at = pl.when(at >= birth).then(at)
        offset = (
            birth.dt.offset_by(f"{int(self.number)}{_OFFSETS[self.unit]}")
            if self.number.is_integer()
            else birth + pl.duration(days=round(self.number * 365.25 / _PER_YEAR[self.unit]))
        )
        return _compare(at, self.op, offset)


Condition = SexCondition | AgeCondition | None
"""``None``: a condition that no row can decide."""


def is_conditional(rule: pl.Expr) -> pl.Expr:
    """Return whether a rule needs to be evaluated at all: ``TRUE`` and no rule always hold."""
    return rule.is_not_null() & ~rule.str.strip_chars().str.to_uppercase().is_in(["", "TRUE"])


def parse_rule(rule: str) -> tuple[Condition, ...]:
    """Return the conditions of a rule, all of which must hold; none for ``TRUE`` and ``OTHERWISE TRUE``.

    What is not understood is a condition that cannot be decided.
    """
    text = rule.strip()
    if text.upper() in {"", "TRUE", "OTHERWISE TRUE"}:
        return ()
    conditions: list[Condition] = []
    position = 0
    while position < len(text):
        found = _CLAUSE.match(text, position)
        if found is None or found.end() == position:
            return (*conditions, None)
        conditions.append(_read_condition(found))
        position = found.end()
    return tuple(conditions)


def _read_condition(found: re.Match[str]) -> Condition:
    concept, op = found["concept"], found["op"]
    if concept in _AGES and op:
        return AgeCondition(op, float(found["number"]), found["unit"].lower())
    if concept in {_FEMALE, _MALE} and not op:
        return SexCondition(_SEXES[concept])
    return None


class RuleSet:
    """Distinct rules, ready to be evaluated for distinct contexts.

    The context of a row is a text with one digit for each condition of any rule: 0 it does not hold, 1 it
    holds, 2 the row does not tell. Rows are many, these texts few.
    """

    def __init__(self, rules: Sequence[str]) -> None:
        parsed = [parse_rule(rule) for rule in rules]
        self.conditions = sorted(
            {condition for rule in parsed for condition in rule if condition is not None}, key=repr
        )
        # Two places more than there are conditions: one that is never decided, one that always holds.
        unknown, always = len(self.conditions), len(self.conditions) + 1
        place = {condition: index for index, condition in enumerate(self.conditions)}
        width = max((len(rule) for rule in parsed), default=0)
        self._places = np.full((len(parsed), width), always, dtype=np.int64)
        for row, rule in enumerate(parsed):
            for column, condition in enumerate(rule):
                self._places[row, column] = unknown if condition is None else place[condition]

    def context_key(self, context: PatientContext | None) -> pl.Expr:
        """Return the text that tells for each row which conditions hold."""
        columns = context or PatientContext()
        digits = [
            condition.holds(columns).cast(pl.UInt8).fill_null(_UNKNOWN).cast(pl.String)
            for condition in self.conditions
        ]
        return pl.concat_str(digits) if digits else pl.lit("")

    def evaluate(self, keys: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Return 0 (false), 1 (true) or 2 (not decidable) for each context and each rule."""
        facts = np.empty((len(keys), len(self.conditions) + 2), dtype=np.uint8)
        for row, key in enumerate(keys):
            facts[row, : len(key)] = np.frombuffer(key.encode(), dtype=np.uint8) - ord("0")
        facts[:, -2], facts[:, -1] = _UNKNOWN, _TRUE
        values = facts[:, self._places]
        verdict = np.where((values == _UNKNOWN).any(axis=2), _UNKNOWN, _TRUE)
        return np.where((values == _FALSE).any(axis=2), _FALSE, verdict).astype(np.uint8)


def _compare(left: pl.Expr, op: str, right: pl.Expr) -> pl.Expr:
    if op == "<":
        return left < right
    if op == "<=":
        return left <= right
    return left > right if op == ">" else left >= right
