"""Every view of the catalog over random valid resources, row by row against an independent evaluator.

The resources are made from the element table of FHIR R4 that the package ships: each element that the view
reads may be missing, empty, there once or several times, with codes that the view asks for and others.
"""

import functools
import itertools
import json
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohortflow.errors import ViewError
from cohortflow.fhir.views import analyze_view, compile_view
from cohortflow.fhir.views.reads import repeat_paths
from cohortflow.model import Catalog, ColumnType

fhirpathpy = pytest.importorskip("fhirpathpy")
r4 = pytest.importorskip("fhirpathpy.models").models["r4"]

CATALOG = Catalog(Path(__file__).resolve().parents[2] / "include" / "catalog")
# The evaluator parses slowly. For a long search over all views: HYPOTHESIS_EXAMPLES=100.
IS_LONG = "HYPOTHESIS_EXAMPLES" in os.environ
VIEWS = ["care_team", "code_system_hierarchy", "patient_addresses", "questionnaire_response_items"]
if IS_LONG:
    VIEWS = sorted(path.stem for path in (CATALOG.root / "views").glob("*.json"))
SETTINGS = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "15")),
    deadline=None,
    derandomize=not IS_LONG,
    suppress_health_check=list(HealthCheck),
)

# Names of the choice elements that the catalog reads.
STEM = re.compile(
    "abatement|age|allowed|author|born|deceased|diagnosis|due|effective|item|location|medication|multipleBirth|"
    "occurred|occurrence|onset|performed|procedure|product|quantity|reported|scheduled|serviced|start|timing|value"
)
_PLAIN = ["a", "b", "official"]
_TIMES = {
    "start",
    "end",
    "issued",
    "recorded",
    "authoredon",
    "authored",
    "sent",
    "received",
    "created",
    "instant",
}
_DATES = ["1970", "1970-06", "1970-06-15"]
_MOMENTS = [*_DATES, "2020-01-31T10:00:00Z", "2020-01-31T23:30:00-05:00", "2020-01-31T10:00:00.123+02:00"]


def literals(definition):
    """Return the texts in quotes of a view's paths: codes, systems and URLs that it looks for."""
    return sorted({text for text in re.findall(r"'([^']+)'", json.dumps(definition)) if len(text) < 200})


def values(field, wanted, targets):
    """Draw JSON for an element that a view reads."""
    name = field.name.lower()
    if field.name == "url":
        return st.sampled_from([*wanted, "http://example.org/other"])
    if field.name == "reference":
        kinds = ["Patient", "Encounter", "Practitioner", *targets]
        return st.tuples(st.sampled_from(kinds), st.sampled_from(_PLAIN)).map("/".join)
    if field.type is None:
        return objects(field.fields, wanted, targets)
    if field.type is not ColumnType.STRING:
        return st.booleans() if field.type is ColumnType.BOOLEAN else st.integers(0, 9)
    if name == "birthdate":
        return st.sampled_from(_DATES)
    is_time = "date" in name or name in _TIMES
    return st.sampled_from(_MOMENTS if is_time else [*_PLAIN, *wanted])


@st.composite
def objects(draw, fields, wanted, targets):
    """Draw an object with some of the fields; of a choice element one type."""
    found = {}
    for field in fields:
        if field.name == "resourceType" or repeat_paths(field.name):
            continue
        if field.name != "url" and draw(st.integers(0, 3)) == 0:  # an extension has a URL
            continue
        if any(is_same_choice(field.name, other) for other in found):
            continue
        inner = values(field, wanted, targets)
        found[field.name] = draw(st.lists(inner, max_size=2) if field.many else inner)
    if not found:
        found["id"] = "x"  # FHIR has no empty objects
    for field in fields:
        for path in repeat_paths(field.name):
            draw(nest(found, path, field, wanted, targets, 2))
    return found


@st.composite
def nest(draw, owner, path, field, wanted, targets, depth):
    """Put elements within elements, as a repeat of the view follows them."""
    for name in path[:-1]:
        inner = owner.setdefault(name, [{}])
        owner = inner[0] if isinstance(inner, list) and inner else {}
    for _ in range(draw(st.integers(0, 2))):
        one = draw(objects(field.fields, wanted, targets))
        owner.setdefault(path[-1], [])
        if isinstance(owner[path[-1]], list):
            owner[path[-1]].append(one)
        if depth:
            for further in repeat_paths(field.name):
                draw(nest(one, further, field, wanted, targets, depth - 1))


def is_same_choice(key, other):
    """Say whether two keys are one choice element, such as ``valueString`` and ``valueQuantity``."""
    stem = "".join(
        one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(key, other, strict=False))
    )
    return bool(stem) and all(
        STEM.fullmatch(stem) and name[len(stem) :][:1].isupper() for name in (key, other)
    )


@functools.cache
def parsed(path, *, typed):
    return fhirpathpy.compile(path, r4 if typed else None)


class Oracle:
    """Evaluates a view with fhirpathpy, resource by resource, as the processing model does."""

    def __init__(self, definition, resource):
        self.resource = resource
        constants = definition.get("constant", [])
        self.variables = {
            one["name"]: next(value for key, value in one.items() if key.startswith("value"))
            for one in constants
        }

    def rows(self, selects, focus, index):
        return [
            merge(parts) for parts in itertools.product(*(self.select(one, focus, index) for one in selects))
        ]

    def select(self, select, focus, index):
        items = [(index, focus)]
        for key in ("forEach", "forEachOrNull"):
            if key in select:
                found = self.values(select[key], focus, index)
                items = list(enumerate(found)) or ([(0, None)] if key == "forEachOrNull" else [])
        if "repeat" in select:
            items = list(enumerate(self.descend(select["repeat"], focus)))
        rows = []
        for number, item in items:
            own = {one["name"]: self.column(one, item, number) for one in select.get("column", [])}
            parts = [[own], *(self.select(inner, item, number) for inner in select.get("select", []))]
            if "unionAll" in select:
                parts.append([row for one in select["unionAll"] for row in self.select(one, item, number)])
            rows += [merge(combination) for combination in itertools.product(*parts)]
        return rows

    def descend(self, paths, focus):
        for path in paths:
            for found in self.values(path, focus, 0):
                yield found
                yield from self.descend(paths, found)

    def column(self, column, focus, index):
        found = self.values(column["path"], focus, index)
        ansi = {tag["name"]: tag["value"] for tag in column.get("tag", [])}.get("ansi/type")
        if column.get("collection"):
            return [convert(value, ansi) for value in found]
        assert len(found) <= 1, "several values"
        return convert(found[0], ansi) if found else None

    def values(self, path, focus, index):  # noqa: PLR0911  # one for each thing that the evaluator lacks
        if path == "%rowIndex":
            return [index]
        if path == "getResourceKey()":
            return [self.resource["id"]]
        # fhirpathpy has no functions of SQL-on-FHIR; all references of the data are relative.
        before, call, rest = path.partition("getReferenceKey(")
        if call:
            kind, _, rest = rest.partition(")")
            texts = self.values(f"{before}reference", focus, index)
            keys = [text.split("/")[1] for text in texts if text.startswith(f"{kind}/" if kind else "")]
            return keys[:1] if rest == ".first()" else keys
        # fhirpathpy combines nothing with something to nothing; FHIRPath 2.0.0, 5.4.2, to something.
        joined = re.fullmatch(r"(.*)\.combine\((.*)\)\.first\(\)", path)
        if joined:
            return [*self.values(joined[1], focus, index), *self.values(joined[2], focus, index)][:1]
        if path.endswith(".join(' ')"):  # of nothing an empty text, as the official tests want it
            texts = self.values(path.removesuffix(".join(' ')"), focus, index)
            return [" ".join(texts)]
        is_root = focus is self.resource
        if focus is None and "%" not in path and not path.startswith("'"):
            return []
        # fhirpathpy does not know $this here.
        there = "false" if focus is None else "true"
        path = path.replace("$this.exists()", there).replace("$this.empty()", f"{there}.not()")
        variables = {**self.variables, "resource": self.resource, "rowIndex": index}
        if not is_root:
            # Below the resource, fhirpathpy knows no types any more: choice elements go by their JSON keys.
            path = re.sub(r"\.ofType\((\w)(\w+)\)", lambda found: found[1].upper() + found[2], path)
        return parsed(path, typed=is_root)(focus if focus is not None else {}, variables)


def merge(parts):
    return {key: value for part in parts for key, value in part.items()}


def convert(value, ansi):
    try:
        if ansi == "DATE":
            return date.fromisoformat(complete(str(value)[:10]))
        if ansi and ansi.startswith("TIMESTAMP"):
            moment = datetime.fromisoformat(complete(str(value)))
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return None  # a text that is no date is none
    return float(value) if not isinstance(value, str | bool | int) else value


def complete(text):
    """Return the first day of a partial date."""
    return text + {4: "-01-01", 7: "-01"}.get(len(text), "")


@pytest.mark.parametrize("name", VIEWS)
@SETTINGS
@given(data=st.data())
def test_rows_of_random_resources(name, data):
    definition = CATALOG.load("views", name)
    view = compile_view(definition)
    fields = [field for field in analyze_view(definition).reads if field.name != "id"]
    one = objects(fields, literals(definition), ["Organization"])
    drawn = data.draw(st.lists(one, min_size=3, max_size=8))
    resources = [
        {"resourceType": view.resource, "id": f"r{number}", **drawn[number]} for number in range(len(drawn))
    ]
    expected, kept = [], []
    for resource in resources:
        oracle = Oracle(definition, resource)
        if all(oracle.values(where["path"], resource, 0) == [True] for where in definition.get("where", [])):
            try:
                rows = oracle.rows(definition["select"], resource, 0)
            except AssertionError:
                # Several values where the view wants one: an error, and the only one.
                with pytest.raises(ViewError, match="several values"):
                    view.collect([resource])
                continue
            expected += rows
        kept.append(resource)
    assert view.collect(kept).to_dicts() == expected
