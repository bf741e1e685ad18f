"""The page on views names all that the language has."""

import re
from pathlib import Path

import pytest

from cohortflow.errors import FhirPathError
from cohortflow.fhir.views import compile_view, functions

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "views.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| Of FHIRPath |") : PAGE.index("## What is refused")]


def test_every_function_is_documented():
    assert [name for name in functions._FUNCTIONS if not re.search(rf"`{name}(\(\))?`", TABLE)] == []


@pytest.mark.parametrize("name", ["aggregate", "children", "trace"])
def test_what_is_said_to_be_refused_is(name):
    assert f"`{name}()`" in PAGE
    column = {"name": "c", "path": f"name.{name}()"}
    with pytest.raises(FhirPathError, match="not supported"):
        compile_view({"resource": "Patient", "select": [{"column": [column]}]})
