"""Pages of a query's rows, cut by its key."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cohortflow.connectors.sql.engine import translate_error
from cohortflow.errors import CatalogError, MalformedDataError
from cohortflow.model import ColumnType, DataInterval
from cohortflow.model.sql_query import SqlQuery

__all__ = ["ARROW_TYPES", "Key", "QueryPages"]

Key = tuple[str | int | float | None, ...]
"""Values of a query's key in one row, in a form that JSON can hold."""

ARROW_TYPES: Mapping[ColumnType, pa.DataType] = {
    ColumnType.STRING: pa.large_string(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.FLOAT: pa.float64(),
    ColumnType.DECIMAL: pa.decimal128(38, 10),
    ColumnType.DATE: pa.date32(),
    ColumnType.DATETIME: pa.timestamp("us", "UTC"),
}
_KEY_TYPES: Mapping[ColumnType, sa.types.TypeEngine[Any]] = {
    ColumnType.STRING: sa.String(),
    ColumnType.INTEGER: sa.BigInteger(),
    ColumnType.DECIMAL: sa.Numeric(38, 10),
    ColumnType.DATE: sa.Date(),
}


class QueryPages:
    """The pages of one query."""

    def __init__(self, engine: sa.Engine, query: SqlQuery, interval: DataInterval) -> None:
        self._engine = engine
        self._query = query
        self._place = f"query '{query.query}'"
        # Untyped: values arrive as the driver gives them, and are checked against their declared types.
        columns: list[sa.ColumnClause[Any]] = [sa.column(column.name) for column in query.columns]
        text = sa.text(query.sql)
        values = {"interval_start": interval.start, "interval_end": interval.end}
        if engine.dialect.name == "mssql":  # its common time types have no zone
            zone = zoneinfo.ZoneInfo(query.timezone or "UTC")
            values = {name: value.astimezone(zone).replace(tzinfo=None) for name, value in values.items()}
        wanted = set(text.compile(dialect=engine.dialect).params)
        if unknown := wanted - set(values):
            raise CatalogError(
                f"The query has the unknown parameter ':{min(unknown)}'.",
                place=self._place,
                remedy="Use :interval_start and :interval_end; write a colon in a text as \\:.",
            )
        bound = text.bindparams(**{name: value for name, value in values.items() if name in wanted})
        self._source = bound.columns(*columns).subquery("q")
        self._key = [self._source.c[name] for name in query.key]
        self._key_index = [[column.name for column in query.columns].index(name) for name in query.key]

    def key_of(self, row: Sequence[Any]) -> Key:
        """Return the key of a row in a form that JSON can hold."""
        values = [row[index] for index in self._key_index]
        return tuple(value if isinstance(value, str | int | float) else str(value) for value in values)

    def read_clock(self) -> datetime:
        """Return the database's time, UTC."""
        clock: sa.TextClause = sa.text(
            "SELECT SYSUTCDATETIME()" if self._engine.dialect.name == "mssql" else "SELECT CURRENT_TIMESTAMP"
        )
        value: datetime = self._run(clock)[0][0]
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def check_key(self) -> None:
        """Check that no key is null: such rows would be lost between two pages.

        Raises:
            MalformedDataError: One is.
        """
        empty = sa.or_(*(column.is_(None) for column in self._key))
        if self._run(sa.select(sa.literal(1)).select_from(self._source).where(empty).limit(1)):
            raise MalformedDataError(
                f"The key ({', '.join(self._query.key)}) is null in some rows.",
                place=self._place,
                remedy="Leave these rows out in the SQL, or choose another key.",
            )

    def read(self, last: Sequence[Any], rows: int) -> tuple[list[Sequence[Any]], bool]:
        """Read the page after a key; tell whether there are more.

        Raises:
            MalformedDataError: Two rows have one key.
        """
        statement = sa.select(*self._source.c).order_by(*self._key).limit(rows + 1)
        if last:
            statement = statement.where(self._after(last))
        found = self._run(statement)
        keys = [tuple(row[index] for index in self._key_index) for row in found]
        if len(set(keys)) < len(keys):
            raise MalformedDataError(
                f"The key ({', '.join(self._query.key)}) is not unique.",
                place=self._place,
                remedy="Add columns to 'key' until every row has one of its own.",
            )
        return found[:rows], len(found) > rows

    def _after(self, last: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Rows after a key; written out, because SQL Server does not compare tuples."""
        values = [
            sa.cast(sa.literal(value), _KEY_TYPES[self._query.columns[index].type])
            for index, value in zip(self._key_index, last, strict=True)
        ]
        return sa.or_(
            *(
                sa.and_(*(self._key[i] == values[i] for i in range(depth)), self._key[depth] > values[depth])
                for depth in range(len(self._key))
            )
        )

    def to_arrow(self, rows: Sequence[Sequence[Any]]) -> pa.Table:
        """Return rows as a table of the declared types.

        Raises:
            CatalogError: A value has another type; it is not shown.
        """
        values = list(zip(*rows, strict=True)) if rows else [()] * len(self._query.columns)
        arrays = []
        for column, items in zip(self._query.columns, values, strict=True):
            try:
                placed = self._zoned(items) if column.type is ColumnType.DATETIME else items
                arrays.append(pa.array(placed, ARROW_TYPES[column.type]))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError):
                raise CatalogError(
                    f"The column '{column.name}' holds values that are no {column.type}.",
                    place=self._place,
                    remedy="Declare its real type or cast it; times without a zone need 'timezone'.",
                ) from None
        return pa.table(arrays, names=[column.name for column in self._query.columns])

    def _zoned(self, values: Sequence[datetime | None]) -> list[datetime | None]:
        zone = zoneinfo.ZoneInfo(self._query.timezone) if self._query.timezone else None

        def place(value: datetime | None) -> datetime | None:
            if value is None or value.tzinfo is not None:
                return value
            if zone is None:
                raise ValueError("a time without a zone")
            return value.replace(tzinfo=zone)

        return [place(value) for value in values]

    def _run(self, statement: sa.Executable) -> list[Sequence[Any]]:
        """Run a statement in a transaction of its own; messages of drivers may quote values."""
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement).fetchall())
        except DBAPIError as error:
            raise translate_error(error, host=self._engine.url.host or "", place=self._place) from None
        except SQLAlchemyError as error:
            raise CatalogError(
                f"The query cannot be run ({type(error).__name__}).",
                place=self._place,
                remedy="Compare the declared columns with the SQL's.",
            ) from None
