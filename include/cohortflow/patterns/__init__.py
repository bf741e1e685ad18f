"""Named, tested patterns of identifiers, clinical codes, contacts and dates.

They stand in ``catalog/patterns/*.yaml``, with examples that are tried whenever they are loaded. Redaction,
validation and the discovery of unknown tables use the same ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cohortflow.patterns.definition import Algorithm, Examples, InText, PatternDefinition, PatternKind
from cohortflow.patterns.files import pattern_names, read_definitions
from cohortflow.patterns.luhn import luhn_digit

if TYPE_CHECKING:
    from cohortflow.patterns.check_digits import check_digit_holds
    from cohortflow.patterns.library import PatternLibrary, load_patterns
    from cohortflow.patterns.pattern import Pattern
    from cohortflow.patterns.scan import SCAN_SCHEMA, Suggestion, scan_table, suggest_contents

__all__ = [
    "SCAN_SCHEMA",
    "Algorithm",
    "Examples",
    "InText",
    "Pattern",
    "PatternDefinition",
    "PatternKind",
    "PatternLibrary",
    "Suggestion",
    "check_digit_holds",
    "load_patterns",
    "luhn_digit",
    "pattern_names",
    "read_definitions",
    "scan_table",
    "suggest_contents",
]

# The kernels import Polars; suites that name a pattern are read, and DAG files parsed, without it.
_KERNELS = {
    "Pattern": "pattern",
    "PatternLibrary": "library",
    "SCAN_SCHEMA": "scan",
    "Suggestion": "scan",
    "check_digit_holds": "check_digits",
    "load_patterns": "library",
    "scan_table": "scan",
    "suggest_contents": "scan",
}


def __getattr__(name: str) -> object:
    """Import a kernel when it is asked for."""
    module = _KERNELS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
