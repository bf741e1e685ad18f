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
from cohortflow.terminology.mapping import (
    IDENTITY,
    CodeMapping,
    PatientContext,
    RuleOutcome,
    UnmappedReason,
    mapped_columns,
)
from cohortflow.terminology.systems import STANDARD_SYSTEMS, CodeSystem, canonical_code, canonical_system
from cohortflow.terminology.value_set import ValueSet, ValueSetPart, load_value_set, parse_value_set

if TYPE_CHECKING:
    from cohortflow.terminology.comparison import compare_releases, subsumes
    from cohortflow.terminology.compose import Compose, implicit_value_set, load_compose, parse_compose
    from cohortflow.terminology.coverage import (
        Coverage,
        SystemCoverage,
        UnmappedCode,
        check_coverage,
        measure_coverage,
    )
    from cohortflow.terminology.ecl import parse_ecl
    from cohortflow.terminology.expansion import expand, to_value_set
    from cohortflow.terminology.map_lookup import MapContent
    from cohortflow.terminology.map_table import MapTable, compose_maps, select_map
    from cohortflow.terminology.normalize import code_expr, system_expr, well_formed_expr
    from cohortflow.terminology.tables import TABLES, Release
    from cohortflow.terminology.translate import map_codes

__all__ = [
    "IDENTITY",
    "STANDARD_SYSTEMS",
    "TABLES",
    "CodeMapping",
    "CodeSystem",
    "Compose",
    "ConceptMap",
    "Coverage",
    "MapContent",
    "MapTable",
    "MappingEntry",
    "PatientContext",
    "Relationship",
    "Release",
    "RuleOutcome",
    "SystemCoverage",
    "UnmappedCode",
    "UnmappedReason",
    "ValueSet",
    "ValueSetPart",
    "canonical_code",
    "canonical_system",
    "check_coverage",
    "code_expr",
    "compare_releases",
    "compose_maps",
    "expand",
    "implicit_value_set",
    "load_compose",
    "load_concept_map",
    "load_value_set",
    "map_codes",
    "mapped_columns",
    "measure_coverage",
    "parse_compose",
    "parse_concept_map",
    "parse_ecl",
    "parse_value_set",
    "select_map",
    "subsumes",
    "system_expr",
    "to_value_set",
    "well_formed_expr",
]

# The kernels import Polars; studies are described, and DAG files parsed, without it.
_KERNELS = {
    "Compose": "compose",
    "Coverage": "coverage",
    "MapContent": "map_lookup",
    "MapTable": "map_table",
    "Release": "tables",
    "SystemCoverage": "coverage",
    "TABLES": "tables",
    "UnmappedCode": "coverage",
    "check_coverage": "coverage",
    "code_expr": "normalize",
    "compare_releases": "comparison",
    "compose_maps": "map_table",
    "expand": "expansion",
    "implicit_value_set": "compose",
    "load_compose": "compose",
    "map_codes": "translate",
    "measure_coverage": "coverage",
    "parse_compose": "compose",
    "parse_ecl": "ecl",
    "select_map": "map_table",
    "subsumes": "comparison",
    "system_expr": "normalize",
    "to_value_set": "expansion",
    "well_formed_expr": "normalize",
}


def __getattr__(name: str) -> object:
    if name in _KERNELS:
        return getattr(import_module(f"{__name__}.{_KERNELS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
