"""Runs a suite with Great Expectations.

Great Expectations has no engine for Polars. The columns that the suite names are handed to it as a pandas
frame backed by the same Arrow buffers. It runs in a context in memory, without analytics, and is
imported only here and at the first use, since that takes seconds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cohortflow.errors import CatalogError
from cohortflow.model import Catalog
from cohortflow.quality.conditions import Condition
from cohortflow.quality.expectation_types import EXPECTATION_TYPES
from cohortflow.quality.report import ExpectationResult, Outcome, ValidationReport
from cohortflow.quality.suite import BoundSuite, Expectation, ExpectationSuite, bind_suite

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # it ships no types
    import polars as pl

__all__ = ["validate_dataset"]

_POSITION: Final = "position"
_RESULT_FORMAT: Final = {"result_format": "BASIC", "partial_unexpected_count": 0}
_BOUNDS: Final = ("min_value", "max_value")


def validate_dataset(
    data: pl.DataFrame | pl.LazyFrame | Path | str,
    suite: ExpectationSuite | BoundSuite,
    name: str,
    *,
    catalog: Catalog | None = None,
) -> ValidationReport:
    """Evaluate a suite on a dataset.

    Args:
        data: The dataset, or the path of its Parquet file or files. Only columns that the suite needs
            are read.
        suite: The suite, bound to the dataset's columns where some of them may be redacted away.
        name: Name of the dataset, for the report.
        catalog: Where the patterns are that the suite names; the default one where none is given.

    Returns:
        Counts and verdicts. An expectation that cannot be evaluated is a broken one, not an exception.

    Raises:
        CatalogError: The suite names a column that the dataset does not have, or a bound that is not of
            the column's type, or a pattern that the catalog does not have.
    """
    import polars as pl

    frame = pl.scan_parquet(data) if isinstance(data, Path | str) else data.lazy()
    schema = frame.collect_schema()
    bound = suite if isinstance(suite, BoundSuite) else bind_suite(suite, schema.names())
    _check_columns(bound, schema.names(), name)
    expectations = bound.suite.expectations
    configurations = {
        position: _configure(position, expectation, schema)
        for position, expectation in enumerate(expectations)
        if not bound.missing[position]
    }
    verdicts = _match_patterns([expectations[position] for position in configurations], catalog)
    found: dict[int, Any] = {}
    with _datasource() as source:
        for condition, positions in _group_by_condition(expectations, configurations).items():
            rows_of_group = _load(
                frame, condition, [expectations[position] for position in positions], verdicts
            )
            asset = source.add_dataframe_asset(f"from_{positions[0]}")
            found |= _evaluate(asset, rows_of_group, [configurations[position] for position in positions])
    rows = int(frame.select(pl.len()).collect().item())
    results = tuple(
        _skip(expectation, bound.missing[position])
        if bound.missing[position]
        else _read_result(expectation, found.get(position))
        for position, expectation in enumerate(expectations)
    )
    return ValidationReport(
        dataset=name, suite=bound.suite.name, rows=rows, results=results, engine=_engine_version()
    )


def _check_columns(bound: BoundSuite, present: list[str], name: str) -> None:
    absent = [column for column in bound.needed_columns if column not in present]
    if absent:
        raise CatalogError(
            f"Dataset '{name}' lacks {', '.join(absent)}, which suite '{bound.suite.name}' was bound to.",
            remedy="Bind the suite to the columns of this dataset.",
        )


def _group_by_condition(
    expectations: Sequence[Expectation], positions: Iterable[int]
) -> dict[Condition | None, list[int]]:
    """Return the positions of the expectations that are about the same rows."""
    groups: dict[Condition | None, list[int]] = {}
    for position in positions:
        groups.setdefault(expectations[position].condition, []).append(position)
    return groups


def _match_patterns(expectations: Iterable[Expectation], catalog: Catalog | None) -> dict[str, pl.Expr]:
    """Return the columns of verdicts that the expectations on patterns are judged by, by name."""
    wanted = {_verdict_name(item): item for item in expectations if item.pattern is not None}
    if not wanted:
        return {}
    import polars as pl

    from cohortflow.patterns import load_patterns

    library = load_patterns(catalog or Catalog.default(), *{str(item.pattern) for item in wanted.values()})
    return {
        name: library[str(item.pattern)].matches(pl.col(item.columns[0]).cast(pl.String)).alias(name)
        for name, item in wanted.items()
    }


def _verdict_name(expectation: Expectation) -> str:
    return f"{expectation.columns[0]} is a {expectation.pattern}"


def _load(
    frame: pl.LazyFrame,
    condition: Condition | None,
    expectations: Sequence[Expectation],
    verdicts: Mapping[str, pl.Expr],
) -> pd.DataFrame:
    """Read the columns of some expectations, and of these the rows that they are about.

    Of an expectation on a pattern the verdicts are handed on, not the values.
    """
    import polars as pl

    if condition is not None:
        frame = frame.filter(condition.to_expression())
    needed = dict.fromkeys(name for item in expectations if item.pattern is None for name in item.columns)
    judged = dict.fromkeys(_verdict_name(item) for item in expectations if item.pattern is not None)
    # A frame without columns would have lost the row count.
    chosen = (
        frame.select(*needed, *(verdicts[name] for name in judged))
        if needed or judged
        else frame.select(row=pl.int_range(pl.len()))
    )
    return chosen.collect().to_pandas(use_pyarrow_extension_array=True)


def _configure(position: int, expectation: Expectation, schema: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = {name: value for name, value in expectation.kwargs.items() if name != "row_condition"}
    if expectation.type == "expect_column_values_to_be_between":
        dtype = schema[kwargs["column"]]
        for bound in _BOUNDS:
            kwargs[bound] = _parse_bound(kwargs.get(bound), dtype, expectation)
    if EXPECTATION_TYPES[expectation.type].column_arguments == ("column_A", "column_B"):
        kwargs.setdefault("ignore_row_if", "either_value_is_missing")
    kind = expectation.type
    if kwargs.pop("pattern", None) is not None:
        kind = "expect_column_values_to_be_in_set"
        kwargs |= {"column": _verdict_name(expectation), "value_set": [True]}
    return {
        "type": kind,
        "kwargs": kwargs,
        "severity": str(expectation.severity),
        "meta": {_POSITION: position},
    }


def _parse_bound(value: Any, dtype: Any, expectation: Expectation) -> Any:  # noqa: ANN401 - any constant of JSON
    """Read a bound of a date column, which JSON can only write as text."""
    import polars as pl

    if not isinstance(value, str):
        return value
    try:
        if dtype == pl.Date:
            return date.fromisoformat(value)
        if dtype == pl.Datetime:
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        raise CatalogError(
            f"'{value}' is no date, but the column is of type {dtype}.",
            place=", ".join(expectation.columns),
            remedy="Write the bound as YYYY-MM-DD.",
        ) from None
    return value


def _evaluate(asset: Any, frame: pd.DataFrame, configurations: list[dict[str, Any]]) -> dict[int, Any]:  # noqa: ANN401 - a class without types
    """Return Great Expectations' result of each expectation, by its position."""
    suite = _import_library().ExpectationSuite(name="validation", expectations=configurations)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    validated = batch.validate(suite, result_format=_RESULT_FORMAT)
    return {item.expectation_config.meta[_POSITION]: item for item in validated.results}


def _import_library() -> Any:  # noqa: ANN401 - a module without types
    """Import Great Expectations, which takes seconds at the first call.

    It redirects all Python warnings of the process to the log when it is imported; that is undone.
    """
    show = warnings.showwarning
    import great_expectations as gx

    if warnings.showwarning is not show:
        logging.captureWarnings(capture=False)
    return gx


@contextmanager
def _datasource() -> Iterator[Any]:
    """Open a source of frames in a context of its own, in memory, that calls nobody."""
    with _quiet():
        gx = _import_library()
        context = gx.get_context(mode="ephemeral", project_config=_make_config())
        try:
            yield context.data_sources.add_pandas("memory")
        finally:
            # The library keeps its last context for the life of the process; the data must not stay with it.
            context.data_sources.delete("memory")


def _make_config() -> Any:  # noqa: ANN401 - a class without types
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's messages out of the log: they are many, and may quote values."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _skip(expectation: Expectation, missing: tuple[str, ...]) -> ExpectationResult:
    return _result(
        expectation,
        Outcome.NOT_APPLICABLE,
        reason=f"The dataset was made without {', '.join(missing)}.",
    )


def _read_result(expectation: Expectation, found: Any) -> ExpectationResult:  # noqa: ANN401 - a class without types
    """Take the counts out of a result; everything else may hold values and is left behind."""
    if found is None or _raised(found.exception_info):
        return _result(
            expectation, Outcome.ERROR, reason="It could not be evaluated; check the types of its columns."
        )
    counts = found.result
    observed = counts.get("observed_value") if EXPECTATION_TYPES[expectation.type].observes_count else None
    return _result(
        expectation,
        Outcome.PASSED if found.success else Outcome.FAILED,
        evaluated_rows=counts.get("element_count"),
        unexpected_count=counts.get("unexpected_count"),
        unexpected_percent=counts.get("unexpected_percent"),
        observed_count=None if observed is None else float(observed),
        reason=str(expectation.meta.get("reason", "")),
    )


def _raised(info: Mapping[str, Any] | None) -> bool:
    """Whether an evaluation raised: the information is one entry, or one per metric."""
    if not info:
        return False
    entries = [info] if "raised_exception" in info else list(info.values())
    return any(entry["raised_exception"] for entry in entries)


def _result(expectation: Expectation, outcome: Outcome, **counts: Any) -> ExpectationResult:  # noqa: ANN401
    return ExpectationResult(
        type=expectation.type,
        columns=expectation.columns,
        description=expectation.description,
        severity=expectation.severity,
        outcome=outcome,
        **counts,
    )


def _engine_version() -> str:
    from importlib.metadata import version

    return f"great_expectations {version('great_expectations')}"
