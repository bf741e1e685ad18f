"""Random views over random patients, against an evaluator that follows the specification word by word."""

import gzip
import itertools
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohortflow.fhir.ndjson import read_views
from cohortflow.fhir.views import compile_view

SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=4)
points = st.fixed_dictionaries({}, optional={"system": st.sampled_from(["phone", "email"]), "value": texts})
names = st.fixed_dictionaries(
    {},
    optional={
        "family": texts,
        "given": st.lists(texts, max_size=3),
        "use": st.sampled_from(["usual", "old"]),
    },
)
contacts = st.fixed_dictionaries({}, optional={"name": names, "telecom": st.lists(points, max_size=2)})
patients = st.lists(
    st.fixed_dictionaries(
        {"resourceType": st.just("Patient"), "id": st.uuids().map(str)},
        optional={
            "gender": st.sampled_from(["male", "female"]),
            "active": st.booleans(),
            "name": st.lists(names, max_size=3),
            "contact": st.lists(contacts, max_size=3),
            "telecom": st.lists(points, max_size=3),
        },
    ),
    max_size=4,
)

# For each type: paths to single values, and paths to iterate over with the type of their items.
VALUES = {
    "Patient": ["id", "gender", "name.first().family", "'fixed'", "%rowIndex"],
    "HumanName": ["family", "use", "given.first()", "'name'", "%rowIndex"],
    "Contact": ["name.family", "telecom.first().value", "%rowIndex"],
    "ContactPoint": ["system", "value", "%rowIndex"],
    "string": ["$this", "%rowIndex"],
}
LISTS = {
    "Patient": [
        ("name", "HumanName"),
        ("contact", "Contact"),
        ("telecom", "ContactPoint"),
        ("contact.telecom", "ContactPoint"),
        ("name.given", "string"),
        ("contact.name", "HumanName"),
    ],
    "HumanName": [("given", "string")],
    "Contact": [("telecom", "ContactPoint"), ("name", "HumanName"), ("name.given", "string")],
    "ContactPoint": [],
    "string": [],
}


@st.composite
def selects(draw, kind="Patient", depth=0, columns=None):
    """Draw a select on a type; ``columns`` fixes the paths' types so that union branches match."""
    select = {}
    if LISTS[kind] and depth and draw(st.booleans()):
        path, kind = draw(st.sampled_from(LISTS[kind]))
        select[draw(st.sampled_from(["forEach", "forEachOrNull"]))] = path
    if columns is not None:
        select["column"] = [draw(column(kind, numeric=numeric)) for numeric in columns]
        return select
    shape = draw(st.lists(st.booleans(), max_size=2))
    select["column"] = [draw(column(kind, numeric=numeric)) for numeric in shape]
    if depth < 3:
        select["select"] = draw(st.lists(selects(kind=kind, depth=depth + 1), max_size=2))
        if draw(st.booleans()):
            union = draw(st.lists(st.booleans(), min_size=1, max_size=2))
            branch = selects(kind=kind, depth=depth + 1, columns=union)
            select["unionAll"] = draw(st.lists(branch, min_size=1, max_size=3))
    if not any(select.get(key) for key in ("column", "select", "unionAll")):
        select["column"] = [draw(column(kind, numeric=False))]
    return {key: value for key, value in select.items() if value}


@st.composite
def column(draw, kind, *, numeric):
    if numeric:
        return {"path": "%rowIndex", "type": "integer"}
    return {
        "path": draw(st.sampled_from([path for path in VALUES[kind] if path != "%rowIndex"])),
        "type": "string",
    }


def name_columns(select, prefix="c"):
    """Give the columns names: unique ones, but the same in all branches of a union."""
    for number, one in enumerate(select.get("column", [])):
        one["name"] = f"{prefix}_{number}"
    for number, inner in enumerate(select.get("select", [])):
        name_columns(inner, f"{prefix}_s{number}")
    for branch in select.get("unionAll", []):
        name_columns(branch, f"{prefix}_u")


def walk(value, path):
    """Follow a path of names, flattening lists."""
    values = [value]
    for step in path.split("."):
        found = [one.get(step) for one in values if isinstance(one, dict)]
        values = [
            item for one in found if one is not None for item in (one if isinstance(one, list) else [one])
        ]
    return values


def evaluate(path, focus, index):
    if path == "%rowIndex":
        return index
    if path.startswith("'"):
        return path.strip("'")
    if path == "$this":
        return focus
    head, _, rest = path.partition(".first()")
    found = walk(focus, head)[:1]
    if rest:
        found = [item for one in found for item in walk(one, rest.removeprefix("."))]
    return found[0] if found else None


def expected_rows(select, focus, index):
    if "forEach" in select:
        items = list(enumerate(walk(focus, select["forEach"])))
        items = [(number, item) for number, item in items]
    elif "forEachOrNull" in select:
        items = list(enumerate(walk(focus, select["forEachOrNull"]))) or [(0, None)]
    else:
        items = [(index, focus)]
    rows = []
    for number, item in items:
        own = {one["name"]: evaluate(one["path"], item, number) for one in select.get("column", [])}
        parts = [[own]] + [expected_rows(inner, item, number) for inner in select.get("select", [])]
        if "unionAll" in select:
            parts.append(
                [row for branch in select["unionAll"] for row in expected_rows(branch, item, number)]
            )
        rows += [merge(combination) for combination in itertools.product(*parts)]
    return rows


def merge(parts):
    return {key: value for part in parts for key, value in part.items()}


@SETTINGS
@given(select=selects(), resources=patients)
def test_rows_are_those_of_the_specification_in_its_order(select, resources):
    name_columns(select)
    view = compile_view({"resource": "Patient", "select": [select]})
    found = view.collect(resources)
    assert found.schema == view.schema
    assert found.to_dicts() == [row for one in resources for row in expected_rows(select, one, 0)]


VIEW = compile_view(
    {
        "name": "names",
        "resource": "Patient",
        "select": [
            {"column": [{"name": "id", "path": "getResourceKey()"}]},
            {"forEachOrNull": "name", "column": [{"name": "given", "path": "given", "collection": True}]},
        ],
        "where": [{"path": "active.exists().not() or active"}],
    }
)


@SETTINGS
@given(groups=st.lists(patients, max_size=3), packed=st.booleans(), data=st.data())
def test_files_yield_the_same_rows_in_any_order_beside_malformed_lines(
    groups, packed, data, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("ndjson")
    files, malformed = [], 0
    for number, group in enumerate(groups):
        lines = [json.dumps(one, ensure_ascii=data.draw(st.booleans())) for one in group]
        for bad in data.draw(st.lists(st.sampled_from(["{", "[]", "{}", '{"id":1}']), max_size=2)):
            lines.insert(data.draw(st.integers(0, len(lines))), bad)
            malformed += 1
        content = "\n".join(lines).encode()
        file = folder / f"{number}.ndjson"
        file.write_bytes(gzip.compress(content) if packed else content)
        files.append(file)
    wanted = [
        (one["id"], name.get("given", []) if name is not None else [])
        for group in groups
        for one in group
        if one.get("active", True)
        for name in (one.get("name") or [None])
    ]
    files = data.draw(st.permutations(files))
    frames, bad = read_views([VIEW], files).collect()
    assert sorted(frames["names"].rows()) == sorted(wanted)
    assert len(bad) == malformed
