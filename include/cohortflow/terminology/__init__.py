"""Code systems, ConceptMaps and ValueSets, applied as joins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cohortflow.terminology.concept_map import (
    ConceptMap,
    MappingEntry,
    Relationship,
    load_concept_map,
    parse_concept_map,
)
from cohortflow.terminology.mapping import IDENTITY, CodeMapping, UnmappedReason, mapped_columns
from cohortflow.terminology.systems import STANDARD_SYSTEMS, CodeSystem, canonical_code, canonical_system
from cohortflow.terminology.value_set import ValueSet, ValueSetPart, load_value_set, parse_value_set

if TYPE_CHECKING:
    from cohortflow.terminology.coverage import (
        Coverage,
        SystemCoverage,
        UnmappedCode,
        check_coverage,
        measure_coverage,
    )
    from cohortflow.terminology.normalize import code_expr, system_expr, well_formed_expr
    from cohortflow.terminology.translate import map_codes

__all__ = [
    "IDENTITY",
    "STANDARD_SYSTEMS",
    "CodeMapping",
    "CodeSystem",
    "ConceptMap",
    "Coverage",
    "MappingEntry",
    "Relationship",
    "SystemCoverage",
    "UnmappedCode",
    "UnmappedReason",
    "ValueSet",
    "ValueSetPart",
    "canonical_code",
    "canonical_system",
    "check_coverage",
    "code_expr",
    "load_concept_map",
    "load_value_set",
    "map_codes",
    "mapped_columns",
    "measure_coverage",
    "parse_concept_map",
    "parse_value_set",
    "system_expr",
    "well_formed_expr",
]

# The kernels import Polars; studies are described, and DAG files parsed, without it.
_KERNELS = {
    "Coverage": "coverage",
    "SystemCoverage": "coverage",
    "UnmappedCode": "coverage",
    "check_coverage": "coverage",
    "code_expr": "normalize",
    "map_codes": "translate",
    "measure_coverage": "coverage",
    "system_expr": "normalize",
    "well_formed_expr": "normalize",
}


def __getattr__(name: str) -> object:
    if name in _KERNELS:
        return getattr(import_module(f"{__name__}.{_KERNELS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
