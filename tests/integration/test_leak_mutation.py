"""A marker in every text of every resource type that the catalog reads: none survives redaction.

The resources are made from FHIR's own table of elements and know nothing of the classes that redaction goes
by: a path with the wrong class shows here as a marker in an output.
"""

import datetime as dt
import itertools
import json

import polars as pl
import pytest

from cohortflow.fhir.elements import base_type, is_primitive, list_elements
from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view
from cohortflow.model import Catalog
from cohortflow.patterns import load_patterns
from cohortflow.redaction import NO_AGES, ProjectKey, load_policy, plan_redaction, redact
from cohortflow.redaction.leaks import LeakScan, collect_facts, load_common_words

pytestmark = pytest.mark.integration

CATALOG = Catalog.default()
KEY = ProjectKey.from_text("8f1d0a6b7c3e52944be0d7f3a1c86e5f02b94d7a6c1e8f30d5a27b4c9e6f1083")
MARKER = "Qzxv"
VARIANTS = 8  # of each choice type, one alternative after the other
DEEPEST = 5
RESOURCES = sorted({CATALOG.load("views", name)["resource"] for name in CATALOG.names("views")})

# Texts that may go out: codes and canonical names that somebody published, units, and what is larger than a
# town. Each is the end of a path, and every other text carries a marker.
PUBLISHED = (
    "system",
    "version",
    "unit",
    "code",
    "state",
    "country",
    "contentType",
    "questionnaire",
    "linkId",
    "manufacturer",
    "modelNumber",
    "CodeSystem.url",
    "CodeSystem.version",
    "Immunization.lotNumber",  # many share one; Device.lotNumber is the implant's own
)
FIXED = {
    "boolean": True,
    "integer": 7,
    "positiveInt": 7,
    "unsignedInt": 7,
    "decimal": 7.5,
    "date": "2020-05-06",
    "dateTime": "2020-05-06T07:08:09Z",
    "instant": "2020-05-06T07:08:09Z",
    "time": "07:08:09",
    "code": "final",
}
KEPT_BY_LIMITED = ("city", "postalCode")


class Mutant:
    """Makes resources with every element, each text with a marker of its own."""

    def __init__(self):
        self.paths = {}
        self.numbers = itertools.count(1)

    def make(self, resource, variant):
        document = self.fill(resource, resource, variant, (resource,))
        return {"resourceType": resource, **document}

    def fill(self, owner, path, variant, stack):
        found = {}
        while owner:
            for element in list_elements(owner):
                if element.name == "modifierExtension":
                    continue  # the resource would be set aside
                kind = element.types[variant % len(element.types)]
                key = element.key(kind)
                value = self.value(kind, f"{path}.{key}", variant, stack)
                if value is not None:
                    found[key] = [value] if element.many else value
            owner = base_type(owner)
        return found

    def value(self, kind, path, variant, stack):
        if is_primitive(kind):
            return self.text(kind, path)
        if kind == "Resource" or kind in stack or len(stack) > DEEPEST:
            return None
        if kind == "Extension" and len(stack) > 1:
            return None
        if kind == "Reference":
            target = (
                "Patient"
                if path.rpartition(".")[2] in {"subject", "patient", "beneficiary"}
                else "Organization"
            )
            return {
                "reference": f"{target}/{self.mark(f'{path}.reference')}",
                "display": self.mark(f"{path}.display"),
                "identifier": {"value": self.mark(f"{path}.identifier.value")},
            }
        return self.fill(kind, path, variant, (*stack, kind)) or None

    def text(self, kind, path):
        if kind in FIXED:
            return FIXED[kind]
        if path.endswith(tuple(f".{end}" for end in PUBLISHED)) or path in PUBLISHED:
            return "http://loinc.org" if path.endswith("system") else "published"
        if kind == "base64Binary":
            return self.mark(path) + "Q="
        return self.mark(path)

    def mark(self, path):
        marker = f"{MARKER}{next(self.numbers):06d}"
        self.paths[marker] = path
        return marker


@pytest.fixture(scope="module")
def mutants(tmp_path_factory):
    """The files, and which marker stands where."""
    folder = tmp_path_factory.mktemp("mutants")
    mutant = Mutant()
    for resource in RESOURCES:
        lines = [json.dumps(mutant.make(resource, variant)) for variant in range(VARIANTS)]
        (folder / f"{resource}.ndjson").write_text("\n".join(lines))
    return folder, mutant.paths


@pytest.fixture(scope="module")
def tables(mutants):
    folder, _ = mutants
    found = {}
    for name in CATALOG.names("views"):
        view = compile_view(CATALOG.load("views", name))
        read = read_views([view], [folder / f"{view.resource}.ndjson"])
        frames, malformed = read.collect()
        assert malformed.is_empty(), name
        found[name] = (view, frames[name])
    return found


def marked(frame):
    """Return the markers in a table, by column."""
    found = {}
    for column, dtype in frame.schema.items():
        values = frame[column].explode() if isinstance(dtype, pl.List) else frame[column]
        if values.dtype == pl.String:
            hits = values.str.extract(f"({MARKER}\\d+)").drop_nulls().unique().to_list()
            found |= {column: hits} if hits else {}
    return found


def test_every_type_is_full_of_markers(mutants, tables):
    _, paths = mutants
    assert len(paths) > 20_000
    for resource in RESOURCES:
        assert any(path.startswith(f"{resource}.") for path in paths.values())
    full = [name for name, (_, frame) in tables.items() if marked(frame)]
    assert len(full) > 0.8 * len(tables), "most views read texts"


@pytest.mark.parametrize("policy", CATALOG.names("redaction"))
def test_no_marker_survives(policy, mutants, tables):
    _, paths = mutants
    survivors = {}
    for name, (view, table) in tables.items():
        plan = plan_redaction(name, view.columns, load_policy(CATALOG, policy))
        for column, markers in marked(
            redact(table.lazy(), plan, KEY, as_of=dt.date(2026, 11, 1), ages=NO_AGES).collect()
        ).items():
            places = sorted({paths[marker] for marker in markers})
            if policy in {"limited_dataset", "synthetic_only"}:
                places = [place for place in places if not place.endswith(KEPT_BY_LIMITED)]
            if places:
                survivors[f"{name}.{column}"] = places
    assert survivors == {}


def test_the_gate_knows_the_identifying_markers(mutants, tables):
    folder, paths = mutants
    facts = pl.concat(collect_facts(resource, [str(folder / f"{resource}.ndjson")]) for resource in RESOURCES)
    scan = LeakScan(
        facts, common=load_common_words(CATALOG), patterns=load_patterns(CATALOG), as_of_year=2026
    )
    view, table = tables["patient"]
    plan = plan_redaction("patient", view.columns, load_policy(CATALOG, "safe_harbor"))
    scan.add_table("patient", table.lazy(), plan)
    found = {(leak.place, leak.rule) for leak in scan.finish().leaks}
    places = {place for place, _ in found}
    assert {"patient.address_line", "patient.family_name", "patient.patient_id"} <= places
    known = set(facts.filter(kind="identifier")["value"])
    missed = {
        path for marker, path in paths.items() if path.endswith(".identifier.value") and marker not in known
    }
    # Those of an issuer, and those in a note within an extension, are not read.
    assert {path for path in missed if "assigner" not in path and "xtension.valueA" not in path} == {
        "CodeSystem.useContext.valueReference.identifier.value"
    }
