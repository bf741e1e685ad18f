"""The leak scan: every column of every redacted table, and every document, before anything is published."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import polars as pl

from cohortflow.patterns import Pattern
from cohortflow.redaction.leaks.columns import ColumnCheck, plan_checks
from cohortflow.redaction.leaks.context import CONTEXT, judge_candidates
from cohortflow.redaction.leaks.facts import OPAQUE_IDS, FactKind
from cohortflow.redaction.leaks.normalize import normalize
from cohortflow.redaction.leaks.report import Leak, LeakReport
from cohortflow.redaction.leaks.search import TextSearch
from cohortflow.redaction.leaks.shift import UNSHIFTED, count_unshifted
from cohortflow.redaction.leaks.terms import TermRule, iterate_terms, unkeyed_hashes
from cohortflow.redaction.plan import RedactionPlan

__all__ = ["LeakScan", "Pseudonymize"]

Pseudonymize = Callable[[pl.Series], pl.Series]
"""Patients' ids to what they have become in the tables."""

_ROWS_AT_ONCE: Final = 2_000_000
_BYTES_AT_ONCE: Final = 64_000_000
_KEPT_FACTS: Final = 200_000
_WHOLE_NUMBER: Final = 1_000_000
_LONG_NUMBER: Final = 9
_UNKEYED, _RAW = "pseudonym without a key", TermRule.RAW_ID.value


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    frame: pl.LazyFrame
    subject: str
    checks: tuple[ColumnCheck, ...]


@dataclass(frozen=True, slots=True)
class _Document:
    name: str
    text: str
    known: str


class LeakScan:
    """Searches tables and documents for what identifies the source's persons.

    Args:
        facts: The identifying facts of the source, with ``FACTS``.
        common: Words that are no name by themselves; see ``load_common_words``.
        patterns: Patterns of identifiers, contacts, dates and codes.
        as_of_year: Year at which ages are counted.
        pseudonymize: What patients' ids have become; without it, numbers that could be codes are passed over
            where only the row's patient could tell.
    """

    def __init__(
        self,
        facts: pl.DataFrame,
        *,
        common: frozenset[str],
        patterns: Iterable[Pattern],
        as_of_year: int,
        pseudonymize: Pseudonymize | None = None,
    ) -> None:
        self._facts = facts.unique()
        self._common = common
        self._as_of_year = as_of_year
        self._pseudonymize = pseudonymize
        patterns = tuple(patterns)
        self._codes = tuple(pattern for pattern in patterns if pattern.kind == "code")
        self._search = TextSearch(self._terms, (one for one in patterns if one.kind != "code"))
        self._kept: list[pl.DataFrame] | None = None
        self._tables: list[_Table] = []
        self._pending: list[pl.DataFrame] = []
        self._pending_bytes = 0
        self._candidates: list[pl.DataFrame] = []
        self._leaks: Counter[tuple[str, str]] = Counter()
        self._columns = self._cells = self._values = self._flagged = 0
        self._documents: list[_Document] = []
        digests = unkeyed_hashes(self._facts)
        ids = self._facts.filter(pl.col("kind") == FactKind.ID.value)["value"]
        opaque = ids.filter(ids.str.contains(OPAQUE_IDS)).unique()
        self._known = pl.concat(
            pl.DataFrame({"value": values}).with_columns(pl.lit(rule).alias("rule"))
            for rule, values in ((_UNKEYED, digests), (_RAW, opaque))
        )

    def add_table(self, name: str, frame: pl.LazyFrame, plan: RedactionPlan) -> None:
        """Search a redacted table.

        Args:
            name: Its name in the report.
            frame: Its rows.
            plan: What should have happened to it.
        """
        schema = frame.collect_schema()
        checks = plan_checks(plan, schema, as_of_year=self._as_of_year)
        subject = next(
            (e.output.name for e in plan.columns if e.column.name == plan.subject and e.output is not None),
            "",
        )
        table = _Table(name, frame, subject if subject in schema else "", checks)
        self._tables.append(table)
        self._columns += len(checks)
        self._check_forms(table)
        searched = [check for check in checks if check.searched]
        for part in _parts(frame):
            self._gather(part, searched)

    def add_shifted(self, name: str, before: pl.LazyFrame, after: pl.LazyFrame, plan: RedactionPlan) -> None:
        """Check that the dates of a table were moved where its plan says so.

        Args:
            name: Its name in the report.
            before: The table that redaction read.
            after: The table that it wrote.
            plan: What should have happened to it.
        """
        if self._pseudonymize is None:
            return
        for column, count in count_unshifted(before, after, plan, self._patients).items():
            self._leaks[f"{name}.{column}", UNSHIFTED] += count

    @functools.cached_property
    def _patients(self) -> pl.DataFrame:
        """The patients' ids with what they became: ``owner`` and ``subject``."""
        is_patient = (pl.col("kind") == FactKind.ID.value) & (pl.col("second") == "Patient")
        owners = self._facts.filter(is_patient)["value"].unique()
        names = owners if self._pseudonymize is None else self._pseudonymize(owners)
        return pl.DataFrame({"owner": owners, "subject": names})

    def add_document(self, name: str, text: str, *, known: str = "") -> None:
        """Search a document when the scan is finished.

        Args:
            name: Its name in the report.
            text: What it says.
            known: What its authors, not the data, put into it: terms that stand there too are no leak.
        """
        self._documents.append(_Document(name, text, known))

    def _search_documents(self) -> None:
        texts = pl.Series([document.text for document in self._documents], dtype=pl.String)
        found = self._search.find(texts)
        digits = pl.col("term").str.contains(r"^[\d ]+$")
        # A page is full of counts, versions and days of its own: only what is long enough is no accident.
        short = digits & (
            pl.col("term").str.replace_all(" ", "", literal=True).str.len_bytes() < _LONG_NUMBER
        )
        dated = pl.col("rule") == TermRule.BIRTH_DATE.value
        terms = found.filter(pl.col("term").is_not_null() & ~pl.col("weak") & ~short & ~dated)
        for (row, rule), hits in terms.group_by("row", "rule"):
            document = self._documents[int(str(row))]
            known = normalize(pl.Series([document.known], dtype=pl.String))[0]
            count = sum(term not in known for term in hits["term"].unique())
            self._leaks[document.name, str(rule)] += count
        forms = found.filter(pl.col("rule").is_in(_IN_DOCUMENTS)).select("row", "rule").unique()
        for row, rule in forms.iter_rows():
            self._leaks[self._documents[row].name, rule] += 1

    def finish(self) -> LeakReport:
        """Search what is left and return the report."""
        self._flush()
        if self._documents:
            self._search_documents()
        if self._candidates:
            judged = judge_candidates(pl.concat(self._candidates), self._is_code())
            self._flagged = judged.select("table", "column", "value").unique().height
            self._count(judged)
        leaks = (Leak(place, rule, count) for (place, rule), count in self._leaks.items() if count)
        return LeakReport(
            leaks=tuple(sorted(leaks)),
            identifiers=self._facts.height,
            tables=len(self._tables),
            columns=self._columns,
            cells=self._cells,
            values=self._values,
            candidates=self._flagged,
            documents=tuple(document.name for document in self._documents),
        )

    def _terms(self) -> Iterator[pl.DataFrame]:
        """Yield the terms; those of a small source are made once."""
        if self._facts.height > _KEPT_FACTS:
            yield from iterate_terms(self._facts, self._common)
            return
        if self._kept is None:
            self._kept = list(iterate_terms(self._facts, self._common))
        yield from self._kept

    def _check_forms(self, table: _Table) -> None:
        """Count the values that have not the form that redaction gives them, in one streamed pass."""
        tests = {
            (check.name, str(rule)): broken.sum()
            for check in table.checks
            for rule, broken in check.forms
            if check.key or not check.pseudonyms
        }
        keys = list(tests)
        row = (
            table.frame.select(
                pl.len().alias("rows"), *(tests[key].alias(str(n)) for n, key in enumerate(keys))
            )
            .collect(engine="streaming")
            .row(0)
        )
        self._cells += row[0] * len(table.checks)
        for (column, rule), count in zip(keys, row[1:], strict=True):
            self._leaks[f"{table.name}.{column}", rule] += count or 0
        self._check_pseudonyms(table)

    def _check_pseudonyms(self, table: _Table) -> None:
        """Count pseudonyms that are none: by form, by ids that look like one, by digests without a key.

        Those of other rows' resources repeat, so each is looked at once. A row's own are all different; where
        no id of the source looks like a pseudonym, their form says enough.
        """
        opaque = not self._known.filter(pl.col("rule") == _RAW).is_empty()
        checks = [check for check in table.checks if check.pseudonyms and (opaque or not check.key)]
        plans = [
            table.frame.select(pl.col(check.name).cast(pl.String, strict=False).alias("value"))
            .drop_nulls()
            .group_by("value")
            .len()
            for check in checks
        ]
        for check, met in zip(checks, pl.collect_all(plans, engine="streaming"), strict=True):
            place = f"{table.name}.{check.name}"
            for rule, broken in () if check.key else check.forms:
                bad = met.rename({"value": check.name}).filter(broken)
                self._leaks[place, str(rule)] += int(bad["len"].sum())
            for rule, count in (
                met.join(self._known, on="value").group_by("rule").agg(pl.col("len").sum()).iter_rows()
            ):
                self._leaks[place, rule] += count

    def _gather(self, part: pl.LazyFrame, checks: list[ColumnCheck]) -> None:
        """Take the different values of columns along; search when there are enough of them."""
        schema = part.collect_schema()
        plans = [_distinct(part, check.name, schema[check.name]) for check in checks]
        frames = pl.collect_all(plans, engine="streaming")
        for check, frame in zip(checks, frames, strict=True):
            if frame.is_empty():
                continue
            self._pending.append(
                frame.with_columns(
                    pl.lit(len(self._tables) - 1, dtype=pl.UInt32).alias("table"),
                    pl.lit(check.name).alias("column"),
                )
            )
            self._pending_bytes += int(frame.estimated_size())
        if self._pending_bytes > _BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        places = pl.concat(self._pending).unique()
        self._pending, self._pending_bytes = [], 0
        texts = places["value"].unique()
        found = self._search.find(texts)
        self._values += len(texts)
        if found.is_empty():
            return
        candidates = found.with_columns(texts.gather(found["row"]).alias("value"))
        self._candidates.append(
            candidates.drop("row").join(places, on="value").join(self._contexts(), on=_PLACE)
        )

    def _contexts(self) -> pl.DataFrame:
        rows = [
            (number, check.name, *(getattr(check, name) for name in CONTEXT))
            for number, table in enumerate(self._tables)
            for check in table.checks
        ]
        flags = dict.fromkeys(CONTEXT, pl.Boolean())
        return pl.DataFrame(rows, schema={"table": pl.UInt32(), "column": pl.String(), **flags}, orient="row")

    def _count(self, judged: pl.DataFrame) -> None:
        """Count the cells of each leak."""
        for (number, column), rows in judged.group_by("table", "column"):
            table = self._tables[int(str(number))]
            hits = self._count_cells(table, str(column), rows)
            for rule, count in hits.iter_rows():
                self._leaks[f"{table.name}.{column}", rule] += count

    def _is_code(self) -> pl.Expr:
        """Whether a value is a code with a check digit that holds."""
        checked = [pattern for pattern in self._codes if pattern.definition.check is not None]
        return (
            pl.any_horizontal(pattern.matches(pl.col("value")) for pattern in checked)
            if checked
            else pl.lit(value=False)
        )

    def _count_cells(self, table: _Table, column: str, rows: pl.DataFrame) -> pl.DataFrame:
        dtype = table.frame.collect_schema()[column]
        subject = pl.col(table.subject).cast(pl.String) if table.subject else pl.lit(None, dtype=pl.String)
        cells = table.frame.select(pl.col(column).alias("value"), subject.alias("subject"))
        if isinstance(dtype, pl.List | pl.Array):
            cells = cells.explode("value")
        cells = cells.with_columns(_as_text(pl.col("value"), _inner(dtype)))
        wanted = rows.select(pl.col("value").unique())
        met = (
            cells.join(wanted.lazy(), on="value")
            .group_by("value", "subject")
            .len()
            .collect(engine="streaming")
        )
        certain = rows.filter(pl.col("certain")).select("value", "rule").unique()
        found = [met.join(certain, on="value").select("rule", "len")]
        owned = rows.filter(~pl.col("certain") & pl.col("owner").is_not_null())
        if owned.height and table.subject and self._pseudonymize is not None:
            owners = owned["owner"].unique()
            names = pl.DataFrame({"owner": owners, "subject": self._pseudonymize(owners)})
            pairs = (
                owned.select("value", "rule", "owner").unique().join(names, on="owner").drop("owner").unique()
            )
            found.append(met.join(pairs, on=["value", "subject"]).select("rule", "len"))
        return pl.concat(found).group_by("rule").agg(pl.col("len").sum()).sort("rule")


_PLACE: Final = ("table", "column")
_IN_DOCUMENTS: Final = ["pattern fhir_reference", "pattern ssn", "pattern email"]


def _parts(frame: pl.LazyFrame) -> Iterator[pl.LazyFrame]:
    rows = int(frame.select(pl.len()).collect(engine="streaming").item())
    for offset in range(0, rows, _ROWS_AT_ONCE):
        yield frame if rows <= _ROWS_AT_ONCE else frame.slice(offset, _ROWS_AT_ONCE)


def _distinct(frame: pl.LazyFrame, column: str, dtype: pl.DataType) -> pl.LazyFrame:
    """Return the different values of a column as text: of numbers, those with seven digits or more."""
    value = frame.select(pl.col(column).alias("value")).drop_nulls()
    if dtype.is_numeric():
        value = value.filter(pl.col("value").abs() >= _WHOLE_NUMBER)
        if not dtype.is_integer():
            value = value.filter(pl.col("value") == pl.col("value").round())
    if isinstance(dtype, pl.List | pl.Array):
        value = value.explode("value").drop_nulls()
    return value.unique().select(_as_text(pl.col("value"), _inner(dtype)).alias("value"))


def _inner(dtype: pl.DataType) -> pl.DataType:
    return dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype  # type: ignore[return-value]


def _as_text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Struct):
        return value.struct.json_encode()
    if dtype.is_numeric() and not dtype.is_integer():
        return value.cast(pl.Int64, strict=False).cast(pl.String)
    return value.cast(pl.String, strict=False)
