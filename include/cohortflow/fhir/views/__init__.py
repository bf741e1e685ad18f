"""SQL-on-FHIR v2 ViewDefinitions: checked without data, compiled to Polars.

``analyze_view`` needs no Polars and is fast enough for DAG files; ``compile_view`` yields the LazyFrame
and loads Polars when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cohortflow.fhir.views.analysis import AnalyzedView, analyze_view
from cohortflow.fhir.views.reads import ReadField, merge_reads

if TYPE_CHECKING:
    from cohortflow.fhir.views.compile import CompiledView, compile_view, read_schema

__all__ = [
    "AnalyzedView",
    "CompiledView",
    "ReadField",
    "analyze_view",
    "compile_view",
    "merge_reads",
    "read_schema",
]

_NEEDS_POLARS = frozenset({"CompiledView", "compile_view", "read_schema"})


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    if name in _NEEDS_POLARS:
        return getattr(importlib.import_module("cohortflow.fhir.views.compile"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
