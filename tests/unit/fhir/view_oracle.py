"""Views evaluated with fhirpathpy, resource by resource, as the specification describes."""

import itertools
import re
from datetime import UTC, date, datetime

import pytest

_CHOICE = re.compile(r"(\w+)\.ofType\((\w+)\)")


class Oracle:
    """An independent evaluator of one view."""

    def __init__(self, view):
        self.evaluate = pytest.importorskip("fhirpathpy").evaluate
        self.model = pytest.importorskip("fhirpathpy.models").models["r4"]
        self.view = view
        self.constants = {
            entry["name"]: next(value for key, value in entry.items() if key != "name")
            for entry in view.get("constant", ())
        }
        self.index = 0

    def rows(self, resource):
        self.index = 0
        if not all(
            self.values(where["path"], resource, resource) == [True] for where in self.view.get("where", ())
        ):
            return []
        parts = [self.select(select, resource, resource) for select in self.view["select"]]
        return [_merge(combination) for combination in itertools.product(*parts)]

    def select(self, select, focus, resource):
        if "repeat" in select:
            inner = {key: value for key, value in select.items() if key != "repeat"}
            items = self.descend(select["repeat"], focus, resource)
            return [row for item in items for row in self.select(inner, item, resource)]
        path = select.get("forEach") or select.get("forEachOrNull")
        if path is None or focus is None:
            return self.branches(select, focus, resource)
        items = self.values(path, focus, resource)
        if not items and "forEachOrNull" in select:
            return self.branches(select, None, resource)
        rows = []
        for index, item in enumerate(items):
            self.index = index
            rows += self.branches(select, item, resource)
        return rows

    def branches(self, select, focus, resource):
        own = {column["name"]: self.column(column, focus, resource) for column in select.get("column", ())}
        parts = [[own], *(self.select(inner, focus, resource) for inner in select.get("select", ()))]
        if "unionAll" in select:
            parts.append(
                [row for branch in select["unionAll"] for row in self.select(branch, focus, resource)]
            )
        return [_merge(combination) for combination in itertools.product(*parts)]

    def descend(self, paths, focus, resource):
        found = []
        for path in paths:
            for item in self.values(path, focus, resource):
                found += [item, *self.descend(paths, item, resource)]
        return found

    def column(self, column, focus, resource):
        if focus is None and "%resource" not in column["path"]:
            return None
        values = self.values(column["path"], focus or {}, resource)
        assert len(values) <= 1, column["name"]
        if not values:
            return None
        ansi = {tag["name"]: tag["value"] for tag in column.get("tag", [])}.get("ansi/type")
        return _convert(values[0], ansi)

    def values(self, path, focus, resource):
        # fhirpathpy does not know the functions of SQL-on-FHIR.
        if path == "getResourceKey()":
            return [resource["id"]]
        if path.startswith("getReferenceKey("):  # of a reference that is iterated over
            path, focus = f"reference.{path}", {"reference": focus}
        if ".getReferenceKey(" in path:
            reference, _, rest = path.partition(".getReferenceKey(")
            kind, _, rest = rest.partition(")")
            found = self.find(f"{reference}.reference", focus, resource, {})
            keys = [key[1] for text in found if (key := re.search(rf"(?:^|/){kind}/([^/]+)", text))]
            return keys[:1] if rest == ".first()" else keys
        path = path.replace("%rowIndex", str(self.index)).replace("$this.", "")
        for name, value in self.constants.items():
            path = path.replace(f"%{name}", f"'{value}'")
        if focus is resource:  # what stands behind where() has another focus in fhirpathpy
            path = path.replace(".combine(", ".combine(%resource.")
        else:  # choice elements go by their JSON keys there
            path = _CHOICE.sub(lambda found: found[1] + found[2][0].upper() + found[2][1:], path)
        return self.find(path, focus, resource, {"resource": resource})

    def find(self, path, focus, resource, variables):
        # Below the resource, fhirpathpy knows no types any more.
        typed = focus is resource or "resourceType" in focus
        return self.evaluate(focus, path, variables, self.model if typed else None)


def _merge(parts):
    return {key: value for part in parts for key, value in part.items()}


def _convert(value, ansi):
    if ansi in {"DATE", "TIMESTAMP"} and len(str(value)) < len("YYYY-MM-DD"):
        value = f"{value}-01-01"[: len("YYYY-MM-DD")]  # a partial date begins with its first day
    if ansi == "DATE":
        return date.fromisoformat(str(value))
    if ansi == "TIMESTAMP":
        moment = datetime.fromisoformat(str(value))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return float(value) if not isinstance(value, str | bool | int) else value
