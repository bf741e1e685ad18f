"""Reads the identifying facts of NDJSON files and of tables."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from cohortflow.fhir.ndjson import LINES, Malformation, read_views
from cohortflow.fhir.views.analysis import analyze_view
from cohortflow.fhir.views.compile import CompiledView
from cohortflow.model import Column, PhiClass
from cohortflow.redaction.leaks.facts import (
    CONTAINED,
    FACTS,
    GIVEN_SEPARATOR,
    OPAQUE_IDS,
    PERSONS,
    PLACES,
    FactKind,
    Harvest,
    plan_harvest,
)

__all__ = ["collect_facts", "collect_table_facts"]

_LINES_AT_ONCE = 20_000
_READABLE = (Malformation.WRONG_JSON_TYPE.value, Malformation.MODIFIED.value)
"""Why a line may be left out of the views and still name somebody."""


def collect_facts(
    resource: str, files: Sequence[str], storage_options: Mapping[str, str | int] | None = None
) -> pl.DataFrame:
    """Return every identifying fact in the NDJSON files of a resource type, each once.

    Resources that stand within others, and lines that views leave out though they can be read, are read one
    by one; they are few. Lines that are no JSON are left out, as they are left out of every view.

    Args:
        resource: The resource type.
        files: Paths or URIs, plain, gzip or zstd.
        storage_options: For remote files, as Polars takes them.

    Returns:
        Rows with ``FACTS``.

    Raises:
        CohortflowError: A file cannot be read; see ``ViewsRead.execute``.
    """
    if not files:
        return FACTS.to_frame()
    harvest = plan_harvest(resource)
    view = CompiledView(_read_only(resource, harvest.reads))
    read = read_views([view], files, storage_options=storage_options)

    gatherer = _Gatherer(harvest)

    def plan(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
        gatherer.begin()
        facts = frames[LINES].map_batches(
            gatherer.take,
            schema=FACTS,
            streamable=True,
            validate_output_schema=False,
            projection_pushdown=False,
            predicate_pushdown=False,
            slice_pushdown=False,
        )
        return [facts.unique()]

    (most,), malformed = read.execute(plan)
    facts = pl.concat([most, gatherer.finish()]).unique()
    odd = malformed.filter(pl.col("reason").is_in(_READABLE))
    nested = pl.col("kind") == CONTAINED
    if odd.is_empty() and not facts.select(nested.any()).item():
        return facts
    return pl.concat([facts.filter(~nested), _collect_odd(resource, files, odd, storage_options)]).unique()


class _Gatherer:
    """Gathers facts from many documents at once: a read hands out a few hundred, which is dear."""

    def __init__(self, harvest: Harvest) -> None:
        self._harvest = harvest
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Forget what an earlier, failed read has handed out."""
        self._waiting: list[pl.DataFrame] = []
        self._rows = 0

    def take(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Put a batch aside, or gather from all that wait; called from any thread."""
        with self._lock:
            self._waiting.append(batch)
            self._rows += batch.height
            if self._rows < _LINES_AT_ONCE:
                return FACTS.to_frame()
            waiting, self._waiting, self._rows = self._waiting, [], 0
        return self._harvest.gather(pl.concat(waiting, rechunk=True))

    def finish(self) -> pl.DataFrame:
        """Gather from what still waits."""
        return (
            self._harvest.gather(pl.concat(self._waiting, rechunk=True))
            if self._waiting
            else FACTS.to_frame()
        )


def _read_only(resource: str, reads: tuple[Any, ...]) -> Any:  # noqa: ANN401 - an AnalyzedView
    """Return a view that makes a read decode certain elements and yields nothing of its own."""
    view = analyze_view(
        {
            "resourceType": "ViewDefinition",
            "name": "identifying_facts",
            "status": "active",
            "resource": resource,
            "select": [{"column": [{"name": "id", "path": "id"}]}],
        }
    )
    return dataclasses.replace(view, reads=reads)


def _collect_odd(
    resource: str, files: Sequence[str], odd: pl.DataFrame, options: Mapping[str, str | int] | None
) -> pl.DataFrame:
    """Return the facts of lines that the typed read could not, or not wholly, take."""
    found = [FACTS.to_frame()]
    for file in files:
        lines = odd.filter(pl.col("file") == file)["line"].to_list()
        frame = pl.scan_csv(
            file,
            has_header=False,
            schema={"text": pl.String()},
            separator="\x1e",
            quote_char=None,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
            row_index_name="line",
            row_index_offset=1,
            glob=False,
            storage_options=None if options is None else dict(options),
        )
        whole = pl.col("line").is_in(lines)
        wanted = frame.filter(whole | pl.col("text").str.contains(f'"{CONTAINED}"', literal=True))
        for part in wanted.select("text", whole.alias("whole")).collect_batches(chunk_size=_LINES_AT_ONCE):
            rows = {fact for text, all_of_it in part.rows() for fact in _walk_text(text, resource, all_of_it)}
            found.append(pl.DataFrame(list(rows), schema=FACTS, orient="row"))
    return pl.concat(found).unique()


def _walk_text(text: str, resource: str, whole: bool) -> Iterator[tuple[str | None, ...]]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    if not isinstance(value, dict):
        return
    owner = value.get("id") if resource == "Patient" else None
    inside = value if whole else value.get(CONTAINED)
    yield from _walk(inside, resource, owner if isinstance(owner, str) else None)


def _walk(value: Any, resource: str, owner: str | None) -> Iterator[tuple[str | None, ...]]:  # noqa: ANN401 - JSON
    """Yield the facts of any JSON, by the keys that FHIR uses."""
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, resource, owner)
    if not isinstance(value, dict):
        return
    kind = value.get("resourceType")
    if isinstance(kind, str):
        resource = kind
        number = value.get("id")
        if isinstance(number, str) and kind in PERSONS:
            yield FactKind.ID, number, kind, None, owner
    yield from _facts_of_object(value, resource, owner)
    for key, item in value.items():
        if key in {"identifier", "telecom"}:
            fact = FactKind.IDENTIFIER if key == "identifier" else FactKind.CONTACT
            values = (entry.get("value") for entry in _items(item) if isinstance(entry, dict))
            yield from ((fact, text, None, None, owner) for text in values if isinstance(text, str))
        yield from _walk(item, resource, owner)


def _facts_of_object(
    value: dict[str, Any], resource: str, owner: str | None
) -> Iterator[tuple[str | None, ...]]:
    def text(key: str) -> str | None:
        found = value.get(key)
        return found if isinstance(found, str) else None

    if "family" in value or "given" in value:
        given = GIVEN_SEPARATOR.join(name for name in _items(value.get("given")) if isinstance(name, str))
        yield FactKind.NAME, text("family"), given or None, None, owner
    if "postalCode" in value:
        yield FactKind.PLACE, text("city"), text("state"), text("postalCode"), owner
    for line in _items(value.get("line")):
        if isinstance(line, str):
            yield FactKind.ADDRESS, line, None, None, owner
    if "system" not in value and (display := text("display")):
        yield FactKind.DISPLAY, display, None, None, None
    if name := text("name"):
        yield FactKind.ORGANIZATION if resource in PLACES else FactKind.DISPLAY, name, None, None, owner
    if birth := text("birthDate"):
        yield FactKind.BIRTH_DATE, birth, None, None, owner


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - JSON
    return value if isinstance(value, list) else [] if value is None else [value]


_KINDS = (
    (".name.family", FactKind.NAME),
    (".name.given", FactKind.NAME),
    (".address.line", FactKind.ADDRESS),
    (".address.text", FactKind.ADDRESS),
    (".telecom.value", FactKind.CONTACT),
    (".birthDate", FactKind.BIRTH_DATE),
    (".id", FactKind.ID),
    (".reference", FactKind.ID),
    (".name", FactKind.DISPLAY),
    (".name.text", FactKind.DISPLAY),
    (".display", FactKind.DISPLAY),
)


def collect_table_facts(frame: pl.LazyFrame, columns: Iterable[Column]) -> pl.DataFrame:
    """Return the identifying facts in the columns of a table, such as a query's on a reporting database.

    Args:
        frame: The table, before redaction.
        columns: Its columns, classified.

    Returns:
        Rows with ``FACTS``, without owners.
    """
    parts = []
    for column in columns:
        kind = next(
            (kind for end, kind in _KINDS for path in column.paths if path.endswith(end)),
            FactKind.IDENTIFIER if column.phi is PhiClass.DIRECT_IDENTIFIER else None,
        )
        if kind is None or column.collection:
            continue
        value = pl.col(column.name).cast(pl.String)
        as_given = any(path.endswith(".given") for path in column.paths)
        absent = pl.lit(None, dtype=pl.String)
        second = pl.lit(column.target) if kind is FactKind.ID else value if as_given else absent
        keep = value.is_not_null()
        if kind is FactKind.ID and column.target not in PERSONS:
            keep &= value.str.contains(OPAQUE_IDS)
        parts.append(
            frame.filter(keep)
            .select(
                pl.lit(kind.value).alias("kind"),
                (absent if as_given else value).alias("value"),
                second.alias("second"),
                absent.alias("third"),
                absent.alias("owner"),
            )
            .unique()
        )
    return pl.concat(parts).unique().collect(engine="streaming") if parts else FACTS.to_frame()
