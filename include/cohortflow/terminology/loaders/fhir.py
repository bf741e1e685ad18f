"""FHIR's own terminology resources: CodeSystem, ValueSet and ConceptMap.

Sources: https://hl7.org/fhir/R4/codesystem.html, https://hl7.org/fhir/R4/valueset.html,
https://hl7.org/fhir/R4/conceptmap.html, their R5 forms, and
https://confluence.hl7.org/display/FHIR/NPM+Package+Specification for packages.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.loaders.fhir_resources import READERS, Origin
from cohortflow.terminology.loaders.files import open_failure
from cohortflow.terminology.tables import Release

__all__ = ["load_fhir"]

_log = logging.getLogger(__name__)

_PACKAGE_ENDINGS = (".tgz", ".tar.gz")
_CC0_PACKAGE = "CC0-1.0"


@dataclass(frozen=True, slots=True)
class _Package:
    """What ``package.json`` tells."""

    version: str = ""
    licence: str = ""


def load_fhir(path: Path, *, version: str | None = None) -> tuple[Release, ...]:
    """Read terminology resources; what else a package or a folder holds is left out.

    Args:
        path: A JSON file with one resource or a Bundle, a folder of such files, or an NPM package (``.tgz``).
        version: Name of the version of resources that do not tell theirs; a package's own by default.

    Returns:
        A release for each resource. Code systems whose content is ``not-present`` or a supplement, value
        sets made of rules in place of lists, and maps with rules cannot be stored as tables: of many
        resources they are left out, with a warning that counts them; where one is named, it is refused.

    Raises:
        InputError: The path is not there, or holds no such resource, or one without a version.
        MalformedDataError: JSON or an element is malformed; the place names file and element.
    """
    if not path.exists():
        raise InputError("The file is not there.", place=str(path), remedy="Name a file, folder or package.")
    releases: dict[tuple[str, str], Release] = {}
    left_out: Counter[str] = Counter()
    single = path.is_file() and not path.name.endswith(_PACKAGE_ENDINGS)
    for resource, place, package in _find(path):
        reader = READERS.get(str(resource.get("resourceType")))
        if reader is None:
            continue
        file = Path(place).name if path.is_dir() else path.name
        origin = Origin(file, place, version or package.version, package.licence)
        release = reader(resource, origin)
        if isinstance(release, str):
            left_out[release] += 1
            continue
        key = (release.system, release.version)
        if key in releases:
            raise MalformedDataError(
                f"{release.system} {release.version} stands twice.",
                place=place,
                remedy="Load one of the two files.",
            )
        releases[key] = release
    if not releases:
        problem = next(iter(left_out)) if single and left_out else "No code system, value set or map is here."
        raise InputError(
            problem, place=str(path), remedy="Name a CodeSystem, ValueSet or ConceptMap with its content."
        )
    for reason, count in left_out.items():
        _log.warning("%s: %d left out: %s", path.name, count, reason)
    return tuple(releases.values())


def _find(path: Path) -> Iterator[tuple[Mapping[str, Any], str, _Package]]:
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield from _unpack(file.read_bytes(), str(file), _Package())
    elif path.name.endswith(_PACKAGE_ENDINGS):
        yield from _read_package(path)
    else:
        yield from _unpack(path.read_bytes(), str(path), _Package())


def _read_package(path: Path) -> Iterator[tuple[Mapping[str, Any], str, _Package]]:
    """Yield the resources of a package: the files of its folder ``package``, not its examples."""
    package = _Package()
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = [member for member in archive if member.isfile() and _is_resource(member.name)]
            members.sort(key=lambda member: (member.name != "package/package.json", member.name))
            for member in members:
                file = archive.extractfile(member)
                content = file.read() if file is not None else b""
                place = f"{path}/{member.name}"
                if member.name == "package/package.json":
                    package = _read_package_json(content, place)
                else:
                    yield from _unpack(content, place, package)
    except (tarfile.TarError, EOFError, OSError):
        raise open_failure(path, "an NPM package (.tgz)") from None


def _is_resource(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder == "package" and file.endswith(".json") and not file.startswith(".")


def _read_package_json(content: bytes, place: str) -> _Package:
    value = _parse(content, place)
    licence = str(value.get("license") or "")
    if licence == _CC0_PACKAGE:
        licence = "CC0 1.0: dedicated to the public domain by its publisher."
    return _Package(str(value.get("version") or ""), licence)


def _unpack(
    content: bytes, place: str, package: _Package
) -> Iterator[tuple[Mapping[str, Any], str, _Package]]:
    value = _parse(content, place)
    if value.get("resourceType") != "Bundle":
        yield value, place, package
        return
    for index, entry in enumerate(value.get("entry") or ()):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict):
            yield resource, f"{place}: entry[{index}]", package


def _parse(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise MalformedDataError(f"Not JSON: {error}.", place=place, remedy="Get the file again.") from None
    if not isinstance(value, dict):
        raise MalformedDataError("The file holds no resource.", place=place, remedy="Name a FHIR resource.")
    return value
