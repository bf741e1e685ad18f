"""SNOMED CT: the snapshot of a release in Release Format 2.

Source: the SNOMED CT Release File Specification, https://docs.snomed.org/snomed-ct-specifications/
snomed-ct-release-file-specification (sections 4, component files, and 5, reference sets). Files are text in
UTF-8 with tabs between the columns, a header, line ends of Windows, and no quotes. A snapshot has the last
state of each component, in one row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError
from cohortflow.terminology.loaders.delimited import Delimited, find_below, find_one_below, require_one_below
from cohortflow.terminology.loaders.rf2_refsets import (
    read_associations,
    read_maps,
    read_members,
    read_modules,
)
from cohortflow.terminology.loaders.rows import make_table, only_successors, parse_date
from cohortflow.terminology.systems import SNOMED_CT
from cohortflow.terminology.tables import Release

__all__ = ["load_rf2"]

_LICENCE = (
    "SNOMED CT is owned by SNOMED International and needs an Affiliate Licence, which is free of charge in "
    "member countries: https://www.snomed.org/get-snomed."
)
_SCTID = r"[1-9][0-9]{5,17}"
_IS_A = "116680003"
_FULL_NAME, _SYNONYM, _DEFINITION = "900000000000003001", "900000000000013009", "900000000000550004"
_PREFERRED = "900000000000548007"
# Of preferred terms in several dialects the one is shown that comes first here: US, then GB English.
_DIALECTS = {"900000000000509007": 0, "900000000000508004": 1}
_OTHER_DIALECT = 2
_AREA_MODULES = {
    "INT": "900000000000207008",
    "US1000124": "731000124108",
    "GB1000000": "999000041000000102",
    "AU1000036": "32506021000036107",
    "CA1000087": "20611000087101",
}
_NAME = re.compile(r"_(?P<area>[A-Z]{2,3}[0-9]{0,7})_(?P<date>[0-9]{8})\.txt$", re.IGNORECASE)
_ONE_SNAPSHOT = "A snapshot has one row per component: use the folder Snapshot of one edition and version."


@dataclass(frozen=True)
class _Files:
    """The files of a snapshot that are read."""

    concepts: Delimited
    descriptions: tuple[Delimited, ...]
    languages: tuple[Delimited, ...]
    relationships: tuple[Delimited, ...]
    values: tuple[Delimited, ...]
    associations: tuple[Delimited, ...]
    simple: tuple[Delimited, ...]
    simple_maps: tuple[Delimited, ...]
    extended_maps: tuple[Delimited, ...]
    modules: Delimited | None

    def paths(self) -> tuple[Path, ...]:
        lists = (
            (self.concepts,),
            self.descriptions,
            self.languages,
            self.relationships,
            self.values,
            self.associations,
            self.simple,
            self.simple_maps,
            self.extended_maps,
            (self.modules,) if self.modules else (),
        )
        return tuple(file.path for files in lists for file in files)


def load_rf2(path: Path, *, version: str | None = None) -> Release:
    """Read the snapshot of a release, which may lie anywhere below the folder.

    Args:
        path: The folder of the unpacked release, of one edition.
        version: Name of the version; by default FHIR's for SNOMED CT,
            ``http://snomed.info/sct/<module>/version/<date>``: the date is that of the file names, the module
            that of the edition in them; of an edition that is not known, the one in the module dependency
            reference set on which no other depends.

    Returns:
        Concepts with the preferred term (US English before British before other dialects); synonyms, among
        them the fully specified names, and definitions; edges (is-a); attributes: the other relationships,
        concrete values as written (``#5``), and historical associations under the id of their reference set;
        members of simple reference sets; maps. The successor of a concept is what it is the *same as* or was
        *replaced by*, where that is one concept. Relationship groups are not kept.

        Maps are named ``snomedct-icd10``, ``snomedct-icd10cm`` or ``snomedct-<reference set>``; the target
        system of a reference set that is not known is ``urn:snomed:refset:<reference set>``.

    Raises:
        InputError: The folder is not there, has no snapshot, or files of several editions or versions.
        MalformedDataError: A column is missing, a line is cut, or two rows contradict each other; the place
            names file and line.
    """
    files = _open_files(path)
    _check_snapshot(files)
    name = version or _name_version(files, path)
    associations = read_associations(files.associations)
    release = {"system": SNOMED_CT.uri, "version": name}
    terms = _read_terms(files)
    tables = {
        "concepts": make_table("concepts", _read_concepts(files.concepts, terms, associations), **release),
        "synonyms": make_table("synonyms", terms.select("code", "term", "kind").unique(), **release),
    }
    if files.relationships:
        edges = _read_relationships(files.relationships).filter(pl.col("attribute") == _IS_A)
        tables["edges"] = make_table("edges", edges.select(child="code", parent="value").unique(), **release)
    attributes = [
        _read_relationships(files.relationships).filter(pl.col("attribute") != _IS_A),
        _read_values(files.values),
        associations.select("code", "attribute", "value"),
    ]
    tables["attributes"] = make_table("attributes", pl.concat(attributes).unique(), **release)
    if files.simple:
        tables["members"] = make_table("members", read_members(files.simple), **release)
    if files.simple_maps or files.extended_maps:
        tables["maps"] = make_table("maps", read_maps(files.extended_maps, files.simple_maps), version=name)
    return Release(
        system=SNOMED_CT.uri,
        version=name,
        title=SNOMED_CT.title,
        licence=_LICENCE,
        source=tuple(file.name for file in files.paths()),
        tables=tables,
    )


def _open_files(path: Path) -> _Files:
    concepts = require_one_below(path, "*sct2_concept_*snapshot*.txt", "snapshot of the concepts")
    status = ("id", "effectivetime", "active")
    member = ("id", "active", "refsetid", "referencedcomponentid")
    relation = ("id", "active", "sourceid", "typeid")

    def open_all(required: Sequence[str], *patterns: str) -> tuple[Delimited, ...]:
        return tuple(Delimited.open(file, required) for file in find_below(path, *patterns))

    description = ("id", "active", "conceptid", "typeid", "term")
    descriptions = open_all(
        description, "*sct2_description_*snapshot*.txt", "*sct2_textdefinition_*snapshot*.txt"
    )
    if not descriptions:
        raise InputError(
            "The folder has no snapshot of the descriptions.",
            place=str(path),
            remedy="Name the folder of the unpacked release.",
        )
    modules = find_one_below(path, "*der2_ssrefset_moduledependency*snapshot*.txt")
    maps = ("mapgroup", "mappriority", "maprule", "mapadvice", "maptarget", "correlationid")
    return _Files(
        concepts=Delimited.open(concepts, status),
        descriptions=descriptions,
        languages=open_all((*member, "acceptabilityid"), "*der2_crefset_*language*snapshot*.txt"),
        relationships=open_all((*relation, "destinationid"), "*sct2_relationship_*snapshot*.txt"),
        values=open_all((*relation, "value"), "*sct2_relationshipconcretevalues_*snapshot*.txt"),
        associations=open_all((*member, "targetcomponentid"), "*der2_crefset_*association*snapshot*.txt"),
        simple=open_all(member, "*der2_refset_*snapshot*.txt"),
        simple_maps=open_all(member, "*der2_srefset_*map*snapshot*.txt"),
        extended_maps=open_all(
            (*member, *maps),
            "*der2_iisssccrefset_*snapshot*.txt",
            "*der2_iissscrefset_*snapshot*.txt",
            "*der2_iissscirefset_*map*snapshot*.txt",
        ),
        modules=Delimited.open(modules, ("active", "moduleid", "referencedcomponentid")) if modules else None,
    )


def _check_snapshot(files: _Files) -> None:
    """Refuse rows that no snapshot has: malformed ids and dates, and a component that stands twice."""
    files.concepts.require("id", _SCTID, "identifier of SNOMED CT")
    files.concepts.require("effectivetime", r"[0-9]{8}", "date such as 20260131")
    for file in (files.concepts, *files.descriptions, *files.relationships, *files.values):
        file.require("active", "[01]", "0 or 1")
        file.require_unique(("id",), file.scan(), _ONE_SNAPSHOT)
    for file in (*files.associations, *files.simple, *files.languages):
        file.require("active", "[01]", "0 or 1")
        file.require("referencedcomponentid", _SCTID, "identifier of SNOMED CT")


def _name_version(files: _Files, path: Path) -> str:
    found = {match.groups() for file in files.paths() if (match := _NAME.search(file.name))}
    if len(found) > 1:
        names = " and ".join(" ".join(part) for part in sorted(found))
        raise InputError(
            f"The folder has files of several editions or versions: {names}.",
            place=str(path),
            remedy="Keep one version of one edition in the folder.",
        )
    if not found:
        raise InputError("The file names tell no version.", place=str(path), remedy="Name it: --version.")
    area, date = found.pop()
    module = _AREA_MODULES.get(area.upper())
    if module is None and files.modules:
        roots = read_modules(files.modules)
        module = roots[0] if len(roots) == 1 else None
    if module is None:
        raise InputError(
            f"The module of the edition '{area}' is not known.",
            place=str(path),
            remedy=f"Name the version: --version {SNOMED_CT.uri}/<module>/version/{date}.",
        )
    return f"{SNOMED_CT.uri}/{module}/version/{date}"


def _active(files: Sequence[Delimited]) -> pl.LazyFrame:
    return pl.concat([file.scan() for file in files], how="diagonal").filter(pl.col("active") == "1")


def _read_terms(files: _Files) -> pl.LazyFrame:
    """Return the active descriptions: code, term, kind, and whether the term is a fully specified name."""
    preferred = pl.LazyFrame(schema={"id": pl.String, "dialect": pl.Int64})
    if files.languages:
        preferred = (
            _active(files.languages)
            .filter(pl.col("acceptabilityid") == _PREFERRED)
            .select(
                id="referencedcomponentid",
                dialect=pl.col("refsetid").replace_strict(
                    _DIALECTS, default=_OTHER_DIALECT, return_dtype=pl.Int64
                ),
            )
            .group_by("id")
            .agg(pl.col("dialect").min())
        )
    terms = (
        _active(files.descriptions)
        .filter(pl.col("term").is_not_null())
        .join(preferred, on="id", how="left")
        .select("id", "typeid", "term", code="conceptid", dialect=pl.col("dialect").fill_null(9))
        .with_columns(
            dialect=pl.when(pl.col("typeid") == _SYNONYM).then("dialect").otherwise(pl.lit(9, pl.Int64))
        )
    )
    # A synonym that no dialect prefers is no preferred term; of several, the oldest id is taken.
    best = (
        terms.filter(pl.col("dialect") <= _OTHER_DIALECT)
        .group_by("code")
        .agg(pl.col("id").sort_by("dialect", pl.col("id").str.len_chars(), "id").first())
        .with_columns(shown=pl.lit(value=True))
    )
    kind = (
        pl.when(pl.col("shown").fill_null(value=False))
        .then(pl.lit("preferred"))
        .when(pl.col("typeid") == _DEFINITION)
        .then(pl.lit("definition"))
        .otherwise(pl.lit("synonym"))
    )
    return terms.join(best, on=["code", "id"], how="left").select(
        "code", "term", kind=kind, full=pl.col("typeid") == _FULL_NAME
    )


def _read_concepts(file: Delimited, terms: pl.LazyFrame, associations: pl.LazyFrame) -> pl.LazyFrame:
    names = (
        terms.filter((pl.col("kind") == "preferred") | pl.col("full"))
        .group_by("code")
        .agg(pl.col("term").sort_by("full", "term").first().alias("display"))
    )
    successors = only_successors(associations.filter("successor"), code="code", successor="value")
    active = pl.col("active") == "1"
    return (
        file.scan()
        .select("active", code="id", effective=parse_date("effectivetime"))
        .join(names, on="code", how="left")
        .join(successors, on="code", how="left")
        .with_columns(
            # A concept without a description in the languages of the release is shown by its code.
            display=pl.coalesce("display", "code"),
            active=active,
            replaced_by=pl.when(~active).then("replaced_by"),
        )
    )


def _read_relationships(files: Sequence[Delimited]) -> pl.LazyFrame:
    if not files:
        return pl.LazyFrame(schema=dict.fromkeys(("code", "attribute", "value"), pl.String))
    return _active(files).select(code="sourceid", attribute="typeid", value="destinationid")


def _read_values(files: Sequence[Delimited]) -> pl.LazyFrame:
    if not files:
        return pl.LazyFrame(schema=dict.fromkeys(("code", "attribute", "value"), pl.String))
    return _active(files).select(code="sourceid", attribute="typeid", value="value")
