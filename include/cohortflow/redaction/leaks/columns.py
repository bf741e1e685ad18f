"""What is searched for in which column: it follows from the redaction plan, not from the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import polars as pl

from cohortflow.model import PhiClass
from cohortflow.redaction.actions import Action, Generalization
from cohortflow.redaction.ages import age_limit, means_age, unit_columns
from cohortflow.redaction.kernel import MASK
from cohortflow.redaction.keys import PSEUDONYM_DIGITS
from cohortflow.redaction.leaks.facts import PERSONS
from cohortflow.redaction.plan import ColumnRedaction, RedactionPlan
from cohortflow.redaction.policy import RedactionPolicy
from cohortflow.redaction.results import AgeMatch
from cohortflow.redaction.zip3 import OUTSIDE

__all__ = ["ColumnCheck", "FormRule", "plan_checks"]


class FormRule(StrEnum):
    """A form that a redacted column must have, as reports name it where it has not."""

    UNPLANNED = "a column that the redaction plan does not let out"
    PSEUDONYM = "not a pseudonym"
    MASK = "not masked"
    YEAR = "not a year"
    MONTH = "not a year and month"
    ZIP3 = "more than three digits of a postal code, or a restricted one"
    AGE = "tells an age above the cap"
    DATE = "a full date"


_CODES: Final = frozenset({PhiClass.SAFE_CODE, PhiClass.NUMBER, PhiClass.QUASI_IDENTIFIER})
_URI_STEPS: Final = ("system", "version", "url", "questionnaire", "policyRule")
_EARLIEST, _LATEST = 1800, 2200
_MONTH: Final = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
_PSEUDONYM: Final = rf"^[0-9a-f]{{{PSEUDONYM_DIGITS}}}$"


@dataclass(frozen=True, slots=True)
class ColumnCheck:
    """How one column of a redacted table is checked.

    Attributes:
        name: The column.
        forms: Rule and Boolean expression that is true for each value that breaks it; it may leave rows out.
        searched: Whether its values are searched for identifiers.
        pseudonyms: Whether it holds pseudonyms.
        key: Whether these are the rows' own: each different, and no person's.
        codes: Codes or numbers: a number in it is more likely a code than somebody's.
        place: A town, state or country, which may be called like a person.
        derived: Its values come from the catalog, not from the record: what maps and units add.
        overridden: The study keeps it against its class.
        uris: Canonical URIs or versions, which may hold a date.
        dates: The policy lets true dates out, or the study those of this column.
        geography: The policy lets towns or postal codes out, or the study those of this column.
        decided: What the study lets out of this column alone, with a written reason; empty for nothing.
    """

    name: str
    forms: tuple[tuple[FormRule, pl.Expr], ...] = ()
    searched: bool = False
    pseudonyms: bool = False
    key: bool = False
    codes: bool = False
    place: bool = False
    derived: bool = False
    overridden: bool = False
    uris: bool = False
    dates: bool = False
    geography: bool = False
    decided: str = ""


def plan_checks(plan: RedactionPlan, schema: pl.Schema, *, as_of_year: int) -> tuple[ColumnCheck, ...]:
    """Return how each column of a redacted table is checked.

    Args:
        plan: The redaction plan of the table.
        schema: What the table holds, which need not be what the plan says.
        as_of_year: Year at which ages are counted.
    """
    entries = {entry.output.name: entry for entry in plan.columns if entry.output is not None}
    floor = None if plan.policy.age_cap is None else as_of_year - plan.policy.age_cap - 1
    dates, geography = _lets_dates(plan.policy), _lets_geography(plan.policy)
    checks = []
    for name, dtype in schema.items():
        entry = entries.get(name)
        if entry is None:
            rule = (FormRule.UNPLANNED, pl.col(name).is_not_null())
            checks.append(ColumnCheck(name, (rule,), searched=True, dates=dates, geography=geography))
            continue
        decided = _decided(entry)
        true_dates = dates or decided == _DECISIONS[PhiClass.DATE]
        checks.append(
            ColumnCheck(
                name,
                forms=(
                    *_forms(entry, name, dtype, plan, floor, dates=true_dates),
                    *_aged_results(entry, name, dtype, plan, schema),
                ),
                searched=_is_searched(entry, dtype),
                pseudonyms=entry.treatment.action is Action.HASH,
                key=entry.column.tags.get("cohortflow/role") == "key" and entry.kind not in PERSONS,
                codes=entry.column.phi in _CODES or dtype.is_numeric(),
                place=any(".address." in f".{path}." for path in entry.column.paths),
                derived=not entry.column.paths and entry.column.phi in _CODES,
                overridden=entry.overridden,
                uris=_ends(entry.column.paths, _URI_STEPS),
                dates=true_dates,
                geography=geography or decided == _DECISIONS[PhiClass.GEOGRAPHIC],
                decided=decided,
            )
        )
    return tuple(checks)


_DECISIONS: Final = {PhiClass.DATE: "dates", PhiClass.GEOGRAPHIC: "towns and postal codes"}


def _decided(entry: ColumnRedaction) -> str:
    """Say what a study keeps as it is, against its policy: a decision that has a name and a reason.

    It holds for this kind of identifier in this column. A name in a column of dates is found all the same.
    """
    kept = entry.overridden and entry.treatment.action is Action.KEEP
    return _DECISIONS.get(entry.column.phi, "") if kept else ""


def _lets_dates(policy: RedactionPolicy) -> bool:
    return policy.default(PhiClass.DATE).action is Action.KEEP


def _lets_geography(policy: RedactionPolicy) -> bool:
    if policy.default(PhiClass.GEOGRAPHIC).action is Action.KEEP:
        return True
    return any(rule.action is Action.KEEP and rule.path and ".address." in rule.path for rule in policy.rules)


def _ends(paths: Iterable[str], steps: tuple[str, ...]) -> bool:
    paths = tuple(paths)
    return bool(paths) and all(path.rpartition(".")[2] in steps for path in paths)


def _is_searched(entry: ColumnRedaction, dtype: pl.DataType) -> bool:
    """Only text, and numbers, which may be identifiers too; a pseudonym is checked by its form."""
    if entry.treatment.action is Action.HASH:
        return False
    return dtype.is_nested() or dtype.is_numeric() or dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum)


def _forms(
    entry: ColumnRedaction,
    name: str,
    dtype: pl.DataType,
    plan: RedactionPlan,
    floor: int | None,
    *,
    dates: bool,
) -> Iterable[tuple[FormRule, pl.Expr]]:
    value = pl.col(name)
    text = value.cast(pl.String, strict=False) if not dtype.is_nested() else value.is_null().cast(pl.String)
    match entry.treatment.action:
        case Action.HASH:
            yield FormRule.PSEUDONYM, ~text.str.contains(_PSEUDONYM)
        case Action.MASK:
            yield FormRule.MASK, text != MASK
        case Action.GENERALIZE:
            yield from _generalized(entry.treatment.to, value, text, dtype, plan, floor)
        case Action.SHIFT:
            if not dtype.is_temporal():
                yield FormRule.DATE, value.is_not_null()
            elif floor is not None:
                yield FormRule.AGE, _is_before(value, dtype, floor)
        case _:
            if dtype.is_temporal() and not dates:
                yield FormRule.DATE, value.is_not_null()


def _aged_results(
    entry: ColumnRedaction, name: str, dtype: pl.DataType, plan: RedactionPlan, schema: pl.Schema
) -> Iterable[tuple[FormRule, pl.Expr]]:
    """Hold numbers that are shown as they are against the code that the row itself shows."""
    cap = plan.policy.age_cap
    kept = entry.treatment.action is Action.KEEP and dtype.is_numeric()
    if entry.ages is None or entry.ages.match is not AgeMatch.NUMBER or cap is None or not kept:
        return
    place = entry.ages.place
    shown = {
        other.column.name: pl.col(other.output.name).cast(pl.String)
        for other in plan.columns
        if other.output is not None and other.treatment.action is Action.KEEP and other.output.name in schema
    }
    codes = [
        shown[other.column.name]
        for other in plan.columns
        if other.column.paths == (place.code_path,) and other.column.name in shown
    ]
    if not codes:
        return
    is_age = pl.any_horizontal(means_age(code, plan.policy.age_codes, place) for code in codes)
    # Only ages are looked at: most results are none, and units are dear to read.
    units = [shown[unit].filter(is_age) for unit in unit_columns(entry, plan) if unit in shown]
    limits = [age_limit(unit, cap) for unit in units]
    bare = [unit.is_null() for unit in units]
    if not limits and any(path.endswith(".value") for path in entry.column.paths):
        return  # of which unit it is, the row does not show
    years = pl.when(pl.all_horizontal(pl.lit(value=True), *bare)).then(cap + 1.0)
    yield FormRule.AGE, pl.col(name).filter(is_age).cast(pl.Float64) > pl.coalesce(*limits, years)


def _is_before(value: pl.Expr, dtype: pl.DataType, year: int) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        start = pl.lit(datetime(year, 1, 1), dtype=pl.Datetime(dtype.time_unit))  # noqa: DTZ001  # zone follows
        return value < start.dt.replace_time_zone(dtype.time_zone)
    return value.dt.year() < year


def _generalized(
    to: Generalization | None,
    value: pl.Expr,
    text: pl.Expr,
    dtype: pl.DataType,
    plan: RedactionPlan,
    floor: int | None,
) -> Iterable[tuple[FormRule, pl.Expr]]:
    match to:
        case Generalization.YEAR:
            year = value if dtype.is_integer() else pl.lit(None, dtype=pl.Int64)
            yield (
                FormRule.YEAR,
                ~year.is_between(_EARLIEST, _LATEST).fill_null(value=False) & value.is_not_null(),
            )
            if floor is not None and dtype.is_integer():
                yield FormRule.AGE, year.is_between(_EARLIEST, floor - 1)
        case Generalization.YEAR_MONTH:
            yield FormRule.MONTH, ~text.str.contains(_MONTH)
            if floor is not None:
                yield FormRule.AGE, text.str.contains(_MONTH) & (text < f"{floor:04d}-01")
        case Generalization.ZIP3:
            restricted = plan.policy.restricted_prefixes() - {OUTSIDE}
            yield FormRule.ZIP3, ~text.str.contains(r"^[0-9]{3}$") | text.is_in(sorted(restricted))
        case Generalization.AGE if plan.policy.age_cap is not None and dtype.is_numeric():
            yield FormRule.AGE, value > plan.policy.age_cap + 1
        case _:
            if dtype.is_temporal():
                yield FormRule.DATE, value.is_not_null()
