"""Queries on reporting databases: SQL in a file, and beside it what its columns are.

``queries/<name>.yaml`` declares key and columns, ``queries/<name>.sql`` holds one SELECT. A column names the
FHIR element that it stands for, so that redaction decides by the same table as for views; a column that
names none is dropped before publication.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cohortflow.errors import CatalogError
from cohortflow.model.column import Column, ColumnType

if TYPE_CHECKING:
    from cohortflow.model.catalog import Catalog

__all__ = ["QueryColumn", "SqlQuery"]

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

_KEY_TYPES = (ColumnType.INTEGER, ColumnType.STRING, ColumnType.DATE, ColumnType.DECIMAL)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QueryColumn(_Part):
    """A column of a query's result.

    Attributes:
        name: Its name in the SELECT list.
        type: Physical type that its values have.
        path: FHIR element that it stands for, such as ``Condition.code.coding.code``; it decides how the
            column is redacted. Empty: not known, so never published.
        role: ``key``, ``subject`` (the patient's id) or ``time`` (places the row in time).
        target: Resource type whose id the column holds; ids of one type get the same pseudonyms everywhere.
        description: For the data dictionary.
    """

    name: _Name
    type: ColumnType
    path: str = ""
    role: Literal["key", "subject", "time"] | None = None
    target: str = ""
    description: str = ""

    def to_column(self) -> Column:
        """Return the column as plans know it."""
        return Column(
            name=self.name,
            type=self.type,
            paths=(self.path,) if self.path else (),
            tags=MappingProxyType({"cohortflow/role": self.role} if self.role else {}),
            target=self.target,
            description=self.description,
        )


class SqlQuery(_Part):
    """One query.

    Attributes:
        query: Its name, which is the file's.
        title: One line.
        key: Columns that are unique together and never null; pages are read in their order. Their values
            must sort in the database as they compare there: whole numbers are best.
        columns: All columns of the result that are read.
        timezone: IANA name of the zone of times without one; empty: such times are an error.
        sql: Text of the SELECT, from the file beside. It may use ``:interval_start`` and
            ``:interval_end``, and must have neither ORDER BY nor a semicolon.
    """

    query: _Name
    title: str
    key: Annotated[tuple[str, ...], Field(min_length=1)]
    columns: Annotated[tuple[QueryColumn, ...], Field(min_length=1)]
    timezone: str = ""
    sql: Annotated[str, Field(min_length=1, repr=False)]

    @field_validator("timezone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        if value and value not in zoneinfo.available_timezones():
            raise ValueError("no time zone of this name; use one such as America/Chicago")
        return value

    @field_validator("sql")
    @classmethod
    def _strip(cls, value: str) -> str:
        text = value.strip().removesuffix(";").strip()
        if not text:
            raise ValueError("the file is empty")
        return text

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [column.name for column in self.columns]
        if twice := _repeated(names):
            raise ValueError(f"the column '{twice}' is declared twice")
        types = {column.name: column.type for column in self.columns}
        for name in self.key:
            if name not in types:
                raise ValueError(f"'key' names '{name}', which is no column")
            if types[name] not in _KEY_TYPES:
                raise ValueError(f"'key' names '{name}', a {types[name]}; use {', '.join(_KEY_TYPES)}")
        if twice := _repeated(column.role for column in self.columns if column.role in ("subject", "time")):
            raise ValueError(f"two columns have the role '{twice}'")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the rows, except the data."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def load(cls, catalog: Catalog, name: str) -> SqlQuery:
        """Read a query of the catalog.

        Raises:
            CatalogError: There is none of this name, its SQL file is missing, or it is malformed.
        """
        path = catalog.path("queries", name)
        document: dict[str, Any] = catalog.load("queries", name)
        file = path.with_suffix(".sql")
        try:
            sql = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise CatalogError(
                "The query's SQL file is missing or no UTF-8 text.",
                place=str(file),
                remedy=f"Put the SELECT of '{name}' there.",
            ) from None
        try:
            found = cls.model_validate({**document, "sql": sql})
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise CatalogError(
                f"The query is malformed: {where + ': ' if where else ''}{fault['msg']}.",
                place=str(path),
                remedy="Mend the file; include/catalog/queries/clarity_problem_list.yaml shows the form.",
            ) from None
        if found.query != name:
            raise CatalogError(
                f"The file is named '{name}', the query in it '{found.query}'.",
                place=str(path),
                remedy="Give both one name.",
            )
        return found


def _repeated(names: Iterable[str | None]) -> str | None:
    seen: set[str | None] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
