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
from cohortflow.terminology.unit_catalog import CanonicalUnit, UnitCatalog, load_unit_catalog
from cohortflow.terminology.unit_mapping import UnitMapping, UnitStatus, unit_columns
from cohortflow.terminology.value_set import ValueSet, ValueSetPart, load_value_set, parse_value_set

if TYPE_CHECKING:
    from cohortflow.terminology.comparison import compare_releases, subsumes
    from cohortflow.terminology.compose import Compose, implicit_value_set, load_compose, parse_compose
    from cohortflow.terminology.coverage import (
        Coverage,
        SystemCoverage,
        SystemTotals,
        Tally,
        UnmappedCode,
        check_coverage,
        hide_rare_codes,
    )
    from cohortflow.terminology.coverage_measure import measure_coverage
    from cohortflow.terminology.coverage_page import render_coverage_page
    from cohortflow.terminology.ecl import parse_ecl
    from cohortflow.terminology.expansion import expand, to_value_set
    from cohortflow.terminology.map_lookup import MapContent
    from cohortflow.terminology.map_table import MapTable, compose_maps, select_map
    from cohortflow.terminology.normalize import code_expr, system_expr, well_formed_expr
    from cohortflow.terminology.tables import TABLES, Release
    from cohortflow.terminology.translate import map_codes
    from cohortflow.terminology.ucum import UnitMeaning, convert, parse_unit
    from cohortflow.terminology.unit_coverage import UnitCoverage, check_units, measure_units
    from cohortflow.terminology.unit_table import UnitReading, UnitTable
    from cohortflow.terminology.units import harmonize_units

__all__ = [
    "IDENTITY",
    "STANDARD_SYSTEMS",
    "TABLES",
    "CanonicalUnit",
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
    "SystemTotals",
    "Tally",
    "UnitCatalog",
    "UnitCoverage",
    "UnitMapping",
    "UnitMeaning",
    "UnitReading",
    "UnitStatus",
    "UnitTable",
    "UnmappedCode",
    "UnmappedReason",
    "ValueSet",
    "ValueSetPart",
    "canonical_code",
    "canonical_system",
    "check_coverage",
    "check_units",
    "code_expr",
    "compare_releases",
    "compose_maps",
    "convert",
    "expand",
    "harmonize_units",
    "hide_rare_codes",
    "implicit_value_set",
    "load_compose",
    "load_concept_map",
    "load_unit_catalog",
    "load_value_set",
    "map_codes",
    "mapped_columns",
    "measure_coverage",
    "measure_units",
    "parse_compose",
    "parse_concept_map",
    "parse_ecl",
    "parse_unit",
    "parse_value_set",
    "render_coverage_page",
    "select_map",
    "subsumes",
    "system_expr",
    "to_value_set",
    "unit_columns",
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
    "SystemTotals": "coverage",
    "TABLES": "tables",
    "Tally": "coverage",
    "UnitCoverage": "unit_coverage",
    "UnitMeaning": "ucum",
    "UnitReading": "unit_table",
    "UnitTable": "unit_table",
    "UnmappedCode": "coverage",
    "check_coverage": "coverage",
    "check_units": "unit_coverage",
    "code_expr": "normalize",
    "compare_releases": "comparison",
    "compose_maps": "map_table",
    "convert": "ucum",
    "expand": "expansion",
    "harmonize_units": "units",
    "hide_rare_codes": "coverage",
    "implicit_value_set": "compose",
    "load_compose": "compose",
    "map_codes": "translate",
    "measure_coverage": "coverage_measure",
    "measure_units": "unit_coverage",
    "parse_compose": "compose",
    "parse_ecl": "ecl",
    "parse_unit": "ucum",
    "render_coverage_page": "coverage_page",
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
