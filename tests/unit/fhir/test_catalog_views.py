"""The views of the catalog: their columns, against resources written by hand, and against fhirpathpy."""

import gzip
import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from cohortflow.fhir.views import analyze_view, compile_view
from cohortflow.model import Catalog, ColumnType

ROOT = Path(__file__).resolve().parents[3]
CATALOG = Catalog(ROOT / "include" / "catalog")
GOLDEN = ROOT / "tests" / "golden" / "views"
VIEWS = [
    "allergy",
    "condition",
    "document_reference",
    "encounter",
    "immunization",
    "medication_request",
    "observation",
    "observation_component",
    "patient",
    "procedure",
]


def as_json(value):
    return value.isoformat() if isinstance(value, date) else value


@pytest.mark.parametrize("name", VIEWS)
def test_rows_of_hand_written_resources(name):
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    view = compile_view(CATALOG.load("views", name))
    found = view.collect(golden["resources"])
    assert found.schema == view.schema
    rows = [{key: as_json(value) for key, value in row.items()} for row in found.to_dicts()]
    assert rows == golden["rows"]


@pytest.mark.parametrize("name", VIEWS)
def test_every_column_is_described_and_traced(name):
    view = analyze_view(CATALOG.load("views", name))
    assert view.name == name
    for column in view.columns:
        assert column.description.endswith("."), column.name
        assert column.paths, column.name
        assert all(path.startswith(f"{view.resource}.") for path in column.paths)
    roles = [column.tags.get("cohortflow/role") for column in view.columns]
    assert roles.count("key") == 1
    assert roles.count("subject") == (name != "patient")
    assert roles.count("time") == (name != "patient")
    times = [column for column in view.columns if column.tags.get("cohortflow/role") == "time"]
    assert all(column.type is ColumnType.DATETIME for column in times)


def test_paths_name_choice_types_and_extensions():
    patient = {column.name: column for column in analyze_view(CATALOG.load("views", "patient")).columns}
    observation = {
        column.name: column for column in analyze_view(CATALOG.load("views", "observation")).columns
    }
    race = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    assert patient["patient_id"].paths == ("Patient.id",)
    assert patient["patient_id"].target == "Patient"
    assert patient["race_code"].paths == (
        f"Patient.extension({race}).extension(ombCategory).valueCoding.code",
    )
    assert patient["mrn"].paths == ("Patient.identifier.value",)
    assert observation["patient_id"].paths == ("Observation.subject.reference",)
    assert observation["patient_id"].target == "Patient"
    assert observation["value_quantity"].paths == ("Observation.valueQuantity.value",)
    assert observation["code"].paths == ("Observation.code.coding.code",)
    assert observation["effective_at"].paths == (
        "Observation.effectiveDateTime",
        "Observation.effectiveInstant",
        "Observation.effectivePeriod.start",
    )


def test_analysis_does_not_load_polars():
    code = (
        "import sys, json, pathlib; from cohortflow.fhir.views import analyze_view; "
        "[analyze_view(json.loads(p.read_text())) for p in pathlib.Path(sys.argv[1]).glob('*.json')]; "
        "assert 'polars' not in sys.modules, 'polars was loaded'"
    )
    subprocess.run([sys.executable, "-c", code, str(CATALOG.root / "views")], check=True)


class Oracle:
    """Evaluates a view with fhirpathpy, resource by resource, as the specification describes."""

    def __init__(self):
        self.evaluate = pytest.importorskip("fhirpathpy").evaluate
        self.model = pytest.importorskip("fhirpathpy.models").models["r4"]

    def rows(self, view, resource):
        parts = [self.select(select, resource, resource) for select in view["select"]]
        return [self.merge(combination) for combination in itertools.product(*parts)]

    def select(self, select, focus, resource):
        if "forEach" in select or "forEachOrNull" in select:
            items = self.values(select.get("forEach") or select["forEachOrNull"], focus, resource)
            if not items:
                items = [None] if "forEachOrNull" in select else []
        else:
            items = [focus]
        rows = []
        for item in items:
            own = {column["name"]: self.column(column, item, resource) for column in select.get("column", [])}
            parts = [[own], *(self.select(inner, item, resource) for inner in select.get("select", []))]
            rows += [self.merge(combination) for combination in itertools.product(*parts)]
        return rows

    def column(self, column, focus, resource):
        if focus is None and "%resource" not in column["path"]:
            return None
        values = self.values(column["path"], focus or {}, resource)
        assert len(values) <= 1, column["name"]
        if not values:
            return None
        ansi = {tag["name"]: tag["value"] for tag in column.get("tag", [])}.get("ansi/type")
        return self.convert(values[0], ansi)

    def values(self, path, focus, resource):
        # fhirpathpy does not know the functions of SQL-on-FHIR; all references of the data are relative.
        if path == "getResourceKey()":
            return [resource["id"]]
        if ".getReferenceKey(" in path:
            reference, _, rest = path.partition(".getReferenceKey(")
            kind, _, rest = rest.partition(")")
            found = self.evaluate(focus, f"{reference}.reference", {}, self.typed(focus, resource))
            keys = [text.split("/")[1] for text in found if text.startswith(f"{kind}/")]
            return keys[:1] if rest == ".first()" else keys
        return self.evaluate(focus, path, {"resource": resource}, self.typed(focus, resource))

    def typed(self, focus, resource):
        # Below the resource, fhirpathpy knows no types any more: choice elements go by their JSON keys.
        return self.model if focus is resource or "resourceType" in focus else None

    @staticmethod
    def merge(parts):
        return {key: value for part in parts for key, value in part.items()}

    @staticmethod
    def convert(value, ansi):
        if ansi == "DATE":
            return date.fromisoformat(str(value))
        if ansi == "TIMESTAMP":
            moment = datetime.fromisoformat(str(value))
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return float(value) if not isinstance(value, str | bool | int) else value


ORACLE_VIEWS = [name for name in VIEWS if name not in {"document_reference", "observation_component"}]


@pytest.mark.parametrize("name", ORACLE_VIEWS)
def test_rows_agree_with_an_independent_evaluator(name):
    shared = os.environ.get("COHORTFLOW_SHARED")
    if not shared:
        pytest.skip("COHORTFLOW_SHARED is not set")
    definition = CATALOG.load("views", name)
    path = Path(shared) / "data" / "synthea-100" / f"{definition['resource']}.ndjson.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        every = list(lines)
    resources = [json.loads(line) for line in every[:: max(1, len(every) // 36)]]
    oracle = Oracle()
    expected = [row for resource in resources for row in oracle.rows(definition, resource)]
    found = compile_view(definition).collect(resources).to_dicts()
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert row == wanted
