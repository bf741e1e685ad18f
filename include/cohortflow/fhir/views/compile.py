"""ViewDefinitions, compiled to Polars."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from cohortflow.errors import ViewError
from cohortflow.fhir.views.analysis import AnalyzedView, analyze_view
from cohortflow.fhir.views.decimals import add_digits
from cohortflow.fhir.views.expressions import DTYPES, TOO_DEEP
from cohortflow.fhir.views.gathering import gather_repeats
from cohortflow.fhir.views.plan import SEVERAL, plan_view
from cohortflow.fhir.views.reads import ReadField, digit_keys

if TYPE_CHECKING:
    import pyarrow as pa

    from cohortflow.model import Column

__all__ = ["CompiledView", "compile_view", "explain_failure", "read_schema"]


@dataclass(frozen=True)
class CompiledView:
    """A view that is ready to run.

    Attributes:
        analyzed: What is known of it without data.
    """

    analyzed: AnalyzedView

    @property
    def name(self) -> str:
        """Name of the view."""
        return self.analyzed.name

    @property
    def resource(self) -> str:
        """Resource type that it reads."""
        return self.analyzed.resource

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it yields, in order."""
        return self.analyzed.columns

    @property
    def lineage(self) -> dict[str, tuple[str, ...]]:
        """Element paths of each column."""
        return self.analyzed.lineage

    @functools.cached_property
    def schema(self) -> pl.Schema:
        """Names and Polars types of the result."""
        types = {column.name: DTYPES[column.type] for column in self.columns}
        return pl.Schema(
            {
                column.name: pl.List(types[column.name]) if column.collection else types[column.name]
                for column in self.columns
            }
        )

    @functools.cached_property
    def arrow_schema(self) -> pa.Schema:
        """Names and Arrow types of the result."""
        return self.schema.to_frame().to_arrow().schema

    @functools.cached_property
    def read_schema(self) -> pl.Schema:
        """Polars schema of the resources to read: the columns that ``lazy`` needs."""
        return read_schema(self.analyzed.reads)

    def lazy(self, source: pl.LazyFrame) -> pl.LazyFrame:
        """Return the view over resources.

        Args:
            source: One row per resource of the right type; columns at least those of ``read_schema``,
                where structs may have more fields.

        Returns:
            Rows with ``schema``.
        """
        return plan_view(self.analyzed, source)

    def collect(self, resources: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        """Return the view over resources in memory; those of another type are left out.

        Args:
            resources: FHIR resources as JSON objects; a ``Decimal`` keeps the digits that a float may lose.

        Raises:
            ViewError: A value has not the JSON type that FHIR gives it, or a path without ``first()``
                yields several values. The message holds no data.
        """
        lines = [_encode(one) for one in resources if one.get("resourceType") == self.resource]
        reads = self.analyzed.reads
        texts = add_digits(pl.Series("line", lines, dtype=pl.String), digit_keys(reads))
        texts = gather_repeats(texts, reads)
        decoded = (
            texts.to_frame()
            .lazy()
            .select(pl.col("line").str.json_decode(pl.Struct(self.read_schema)))
            .unnest("line")
        )
        try:
            return self.lazy(decoded).collect()
        except pl.exceptions.PolarsError as error:
            # "from None": the text of the original may hold values.
            raise explain_failure(error, self.name) or ViewError(
                "The resources do not fit the view.",
                remedy="Give resources whose values have the JSON types of FHIR.",
                place=f"view {self.name}",
            ) from None


def _encode(resource: Mapping[str, Any]) -> str:
    try:
        return json.dumps(resource)
    except TypeError:  # there are decimals, which only orjson can write as they are
        try:
            return orjson.dumps(resource, default=_write_decimal).decode()
        except TypeError:
            raise ViewError(
                "A resource holds a value that JSON has not.", remedy="Give resources as JSON objects."
            ) from None


def _write_decimal(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError


def explain_failure(error: pl.exceptions.PolarsError, name: str) -> ViewError | None:
    """Return what a failure of Polars means for a view, or ``None`` if it says nothing about the view.

    Args:
        error: What Polars raised.
        name: Name of the view, or of several.
    """
    text = str(error)
    if SEVERAL in text:
        return ViewError(
            "A path yields several values where one is expected.",
            remedy="Add first(), or declare the column as collection.",
            place=f"view {name}",
        )
    if TOO_DEEP in text:
        return ViewError(
            "A resource is nested deeper than repeat was unrolled.",
            remedy="Repeat paths of names only, such as item: they are followed to any depth.",
            place=f"view {name}",
        )
    if "conversion from" in text:
        # Polars quotes the values that do not fit.
        return ViewError(
            "A value does not fit the type of its column.",
            remedy="Choose a wider ansi/type, such as DOUBLE PRECISION for DECIMAL.",
            place=f"view {name}",
        )
    return None


def compile_view(view: Mapping[str, Any] | AnalyzedView) -> CompiledView:
    """Compile a ViewDefinition.

    Args:
        view: The ViewDefinition as JSON, or what ``analyze_view`` made of it.

    Raises:
        ViewError: The definition is wrong.
        FhirPathError: An expression is wrong or not supported.
    """
    return CompiledView(view if isinstance(view, AnalyzedView) else analyze_view(view))


def read_schema(fields: Iterable[ReadField]) -> pl.Schema:
    """Return the Polars schema of fields to read."""
    return pl.Schema({field.name: _read_type(field) for field in fields})


def _read_type(field: ReadField) -> pl.DataType:
    inner = pl.Struct(read_schema(field.fields)) if field.type is None else DTYPES[field.type]
    return pl.List(inner) if field.many else inner
