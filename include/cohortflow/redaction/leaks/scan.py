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
from cohortflow.redaction.leaks.sweep import as_text, inner_type, sweep_table
from cohortflow.redaction.leaks.terms import TermRule, iterate_terms, unkeyed_hashes
from cohortflow.redaction.plan import RedactionPlan

__all__ = ["LeakScan", "Pseudonymize"]

Pseudonymize = Callable[[pl.Series], pl.Series]
"""Patients' ids to what they have become in the tables."""

_PSEUDONYMS_AT_ONCE: Final = 2_000_000
_BYTES_AT_ONCE: Final = 64_000_000
_KEPT_FACTS: Final = 200_000
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
        self._pending: dict[tuple[int, str], list[pl.Series]] = {}
        self._pending_bytes = 0
        self._candidates: list[pl.DataFrame] = []
        self._leaks: Counter[tuple[str, str]] = Counter()
        self._columns = self._cells = self._values = self._flagged = 0
        self._documents: list[_Document] = []
        digests = unkeyed_hashes(self._facts)
        ids = self._facts.filter(pl.col("kind") == FactKind.ID.value)["value"]
        opaque = ids.filter(ids.str.contains(OPAQUE_IDS)).unique()
        self._opaque_ids = not opaque.is_empty()
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
        # Where no id of the source looks like a pseudonym, the form of a row's own says enough.
        hashed = {
            check.name: check for check in checks if check.pseudonyms and (self._opaque_ids or not check.key)
        }
        met: dict[str, list[pl.DataFrame]] = {column: [] for column in hashed}
        waiting = 0
        for batch in sweep_table(frame, checks, hashed):
            self._cells += batch.rows * len(checks)
            for (column, rule), count in batch.broken.items():
                self._leaks[f"{name}.{column}", rule] += count
            for column, values in batch.texts.items():
                self._keep(len(self._tables) - 1, column, values)
            for column, counted in batch.pseudonyms.items():
                met[column].append(counted)
                waiting += counted.height
            if waiting > _PSEUDONYMS_AT_ONCE:
                self._look_at(table, hashed, met)
                waiting = 0
        self._look_at(table, hashed, met)

    def _look_at(
        self, table: _Table, hashed: dict[str, ColumnCheck], met: dict[str, list[pl.DataFrame]]
    ) -> None:
        """Check the pseudonyms that were met, and forget them."""
        for column, parts in met.items():
            if parts:
                self._check_pseudonyms(table, hashed[column], pl.concat(parts))
                parts.clear()

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
            decided={
                f"{table.name}.{check.name}": check.decided
                for table in self._tables
                for check in table.checks
                if check.decided
            },
        )

    def _terms(self) -> Iterator[pl.DataFrame]:
        """Yield the terms; those of a small source are made once."""
        if self._facts.height > _KEPT_FACTS:
            yield from iterate_terms(self._facts, self._common)
            return
        if self._kept is None:
            self._kept = list(iterate_terms(self._facts, self._common))
        yield from self._kept

    def _check_pseudonyms(self, table: _Table, check: ColumnCheck, met: pl.DataFrame) -> None:
        """Count pseudonyms that are none: by form, by ids that look like one, by digests without a key.

        Those of other rows' resources repeat, so each is looked at once.
        """
        place = f"{table.name}.{check.name}"
        met = met.group_by("value").agg(pl.col("len").sum())
        for rule, broken in () if check.key else check.forms:
            bad = met.rename({"value": check.name}).filter(broken)
            self._leaks[place, str(rule)] += int(bad["len"].sum())
        known = met.join(self._known, on="value").group_by("rule").agg(pl.col("len").sum())
        for rule, count in known.iter_rows():
            self._leaks[place, rule] += count

    def _keep(self, table: int, column: str, values: pl.Series) -> None:
        """Take the different values of a column along; search when there are enough of them."""
        if values.is_empty():
            return
        self._pending.setdefault((table, column), []).append(values)
        self._pending_bytes += int(values.estimated_size())
        if self._pending_bytes < _BYTES_AT_ONCE:
            return
        # What repeats from batch to batch, such as codes, is no reason to search yet.
        self._pending = {place: [pl.concat(parts).unique()] for place, parts in self._pending.items()}
        self._pending_bytes = sum(int(parts[0].estimated_size()) for parts in self._pending.values())
        if self._pending_bytes > _BYTES_AT_ONCE // 2:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        places = pl.concat(
            pl.DataFrame({"value": pl.concat(parts).unique()}).with_columns(
                pl.lit(table, dtype=pl.UInt32).alias("table"), pl.lit(column).alias("column")
            )
            for (table, column), parts in self._pending.items()
        )
        self._pending, self._pending_bytes = {}, 0
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
        cells = cells.with_columns(as_text(pl.col("value"), inner_type(dtype)))
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
