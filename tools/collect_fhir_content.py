"""Collect the shipped code systems from the definitions of FHIR R4.

    python tools/collect_fhir_content.py DEFINITIONS

``DEFINITIONS`` is the folder of https://hl7.org/fhir/R4/definitions.json.zip, unpacked. Written are the code
systems to which elements of the catalog's resources, and the data types, are bound, and CVX as HL7 published
it with v2 table 0292, with the later codes that the catalog's map names. Content of other owners is left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cohortflow.model import Catalog

CONTENT = Path(__file__).resolve().parents[1] / "include/cohortflow/terminology/content"
HL7 = ("http://hl7.org/fhir/", "http://terminology.hl7.org/CodeSystem/")
FREE = {"", "HL7 International.", "HL7 Inc.", "This is an example set.", "This is an extensible set."}
BINDINGS = {"required", "extensible", "preferred", "example"}
KEPT = ("resourceType", "id", "url", "version", "name", "title", "content", "hierarchyMeaning", "property")
CVX = "http://hl7.org/fhir/sid/cvx"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("definitions", type=Path)
    folder = parser.parse_args().definitions
    resources = [
        resource
        for name in ("valuesets", "v3-codesystems", "v2-tables")
        for resource in _read(folder / f"{name}.json")
    ]
    systems = {
        resource["url"]: resource for resource in resources if resource["resourceType"] == "CodeSystem"
    }
    sets = {resource["url"]: resource for resource in resources if resource["resourceType"] == "ValueSet"}
    wanted = _systems_of(_bound_sets(folder), sets)
    chosen = [systems[url] for url in sorted(wanted) if url in systems and _is_free(systems[url])]
    _write("fhir-r4.json", [_trim(system) for system in chosen])
    table = systems["http://terminology.hl7.org/CodeSystem/v2-0292"]
    _write("cvx.json", [_make_cvx(table)])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    for entry in json.loads(path.read_text(encoding="utf-8"))["entry"]:
        yield entry["resource"]


def _bound_sets(folder: Path) -> set[str]:
    catalog = Catalog.default()
    types = {catalog.load("views", name)["resource"] for name in catalog.names("views")}
    found = set()
    for name in ("profiles-resources", "profiles-types"):
        for profile in _read(folder / f"{name}.json"):
            if profile["resourceType"] != "StructureDefinition":
                continue
            if profile["kind"] == "resource" and profile["type"] not in types:
                continue
            for element in profile["snapshot"]["element"]:
                binding = element.get("binding", {})
                if binding.get("strength") in BINDINGS and "valueSet" in binding:
                    found.add(binding["valueSet"].partition("|")[0])
    return found


def _systems_of(urls: set[str], sets: dict[str, Any]) -> set[str]:
    """Return the systems of value sets, and of the sets that they include."""
    systems: set[str] = set()
    todo, seen = set(urls), set[str]()
    while todo:
        url = todo.pop()
        seen.add(url)
        for part in sets.get(url, {}).get("compose", {}).get("include", ()):
            if "system" in part:
                systems.add(part["system"])
            todo.update({name.partition("|")[0] for name in part.get("valueSet", ())} - seen)
    return systems


def _is_free(system: dict[str, Any]) -> bool:
    owner = " ".join(system.get("copyright", "").split())
    return system["url"].startswith(HL7) and system["content"] == "complete" and owner in FREE


def _trim(system: dict[str, Any]) -> dict[str, Any]:
    kept = {name: system[name] for name in KEPT if name in system}
    return kept | {"concept": [_trim_concept(concept) for concept in system["concept"]]}


def _trim_concept(concept: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: concept[name] for name in ("code", "display", "definition", "property") if name in concept
    }
    if below := concept.get("concept"):
        kept["concept"] = [_trim_concept(child) for child in below]
    return kept


def _make_cvx(table: dict[str, Any]) -> dict[str, Any]:
    concepts = {}
    for concept in table["concept"]:
        name = re.sub(r"(?<=[A-Za-z])[0-9]$", "", concept["display"])  # the number of a footnote
        full = next((note["valueString"] for note in concept.get("extension", ())), name)
        concepts[concept["code"]] = {"code": concept["code"], "display": name, "definition": full}
    later = Catalog.default().load("conceptmaps", "cvx_to_group")
    for element in (element for group in later["group"] for element in group["element"]):
        for found in (element, *element["target"]):
            known = concepts.setdefault(found["code"], {"code": found["code"]})
            known["display"] = found["display"]
    return {
        "resourceType": "CodeSystem",
        "id": "cvx",
        "url": CVX,
        "version": "2.9-fragment",
        "name": "CVX",
        "title": "CVX: HL7 v2.9 table 0292 and later codes of the catalog",
        "content": "fragment",
        "copyright": "CVX is maintained by the U.S. Centers for Disease Control and Prevention and is in the "
        "public domain.",
        "concept": sorted(concepts.values(), key=lambda concept: int(concept["code"])),
    }


def _write(name: str, resources: list[dict[str, Any]]) -> None:
    """Write a bundle with one resource on each line."""
    lines = ",\n".join(json.dumps({"resource": resource}, ensure_ascii=False) for resource in resources)
    text = f'{{"resourceType": "Bundle", "type": "collection", "entry": [\n{lines}\n]}}\n'
    CONTENT.mkdir(exist_ok=True)
    (CONTENT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
