"""LOINC: the table, the hierarchy of components, the parts, and the successors of deprecated codes.

Source: the LOINC Users' Guide (https://loinc.org/kb/users-guide/), "LOINC Table File and LOINC Table Core
File Structure", and the read-me files of the accessory files. Files are CSV in UTF-8 with quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.loaders.delimited import (
    LINE,
    Delimited,
    find_one_below,
    name_files,
    require_one_below,
)
from cohortflow.terminology.loaders.rows import (
    NO_DATE,
    NO_TEXT,
    make_table,
    only_successors,
    place_targets,
    unique_terms,
)
from cohortflow.terminology.systems import LOINC
from cohortflow.terminology.tables import Release

__all__ = ["load_loinc"]

_LICENCE = (
    "LOINC is copyright of Regenstrief Institute, Inc. and free of charge under the LOINC license, which "
    "asks for its copyright notice: https://loinc.org/license/."
)
_CODE = r"[0-9]{1,7}-[0-9]"
_PART = r"LP[0-9]{1,7}-[0-9]"
_STATUSES = "ACTIVE|TRIAL|DISCOURAGED|DEPRECATED"
# Columns of the table, and types of parts, to attributes.
_COLUMNS: Mapping[str, str] = {
    "component": "component",
    "property": "property",
    "time_aspct": "time_aspect",
    "system": "system",
    "scale_typ": "scale",
    "method_typ": "method",
    "class": "class",
    "classtype": "class_type",
    "status": "status",
    "order_obs": "order_obs",
    "example_ucum_units": "example_ucum_units",
}
_PARTS: Mapping[str, str] = {
    "COMPONENT": "component",
    "PROPERTY": "property",
    "TIME": "time_aspect",
    "SYSTEM": "system",
    "SCALE": "scale",
    "METHOD": "method",
}
_REQUIRED = ("loinc_num", "component", "property", "time_aspct", "system", "scale_typ", "method_typ", "class")
_NAMES = ("status", "shortname", "long_common_name", "versionlastchanged")
_ONE_RELEASE = "Use the files of one release together."


@dataclass(frozen=True)
class _Files:
    table: Delimited
    hierarchy: Delimited | None
    parts: Delimited | None
    links: Delimited | None
    successors: Delimited | None

    def names(self) -> tuple[str, ...]:
        return name_files(self.table, self.hierarchy, self.parts, self.links, self.successors)


def load_loinc(path: Path, *, version: str | None = None) -> Release:
    """Read the folder of a release.

    ``Loinc.csv`` must be there; ``ComponentHierarchyBySystem.csv``, ``Part.csv``,
    ``LoincPartLink_Primary.csv`` are read where they are, in any folder below, and ``MapTo.csv`` beside the
    table.

    Args:
        path: The folder of the unpacked release.
        version: Name of the version; by default that in a folder's name, such as ``Loinc_2.81``, else the
            newest one in the column ``VersionLastChanged``.

    Returns:
        Concepts with their long common names, parts among them; only what is *deprecated* is not active.
        Synonyms: short, consumer and display names, definitions. Edges: the hierarchy by system. Attributes:
        ``component``, ``property``, ``time_aspect``, ``system``, ``scale`` and ``method``, each with the
        part's name and, where the links are there, its code, as filters may have either; ``class``,
        ``class_type``, ``status``, ``order_obs``, ``example_ucum_units``. The map ``loinc-map-to`` has all
        successors; ``replaced_by`` has the successor where it is the only one. Related names are left out:
        they are words to search by, not names.

    Raises:
        InputError: The folder or the table is not there, or the folder's name and the table are of different
            versions.
        MalformedDataError: A column is missing, a line is cut, a code is malformed or stands twice, or files
            of different versions are together.
    """
    files = _open_files(path)
    name = version or _name_version(files.table)
    release = {"system": LOINC.uri, "version": name}
    parts = _read_parts(files)
    _check_ends(files, parts)
    successors = _read_successors(files.successors)
    tables = {
        "concepts": make_table(
            "concepts", pl.concat([_read_concepts(files.table, successors), parts]), **release
        ),
        "synonyms": make_table("synonyms", _read_terms(files.table, parts), **release),
        "attributes": make_table("attributes", _read_attributes(files), **release),
    }
    if files.hierarchy is not None:
        edges = files.hierarchy.scan().select(child="code", parent="immediate_parent").drop_nulls().unique()
        tables["edges"] = make_table("edges", edges, **release)
    if files.successors is not None:
        tables["maps"] = make_table(
            "maps",
            successors,
            map="loinc-map-to",
            version=name,
            source_system=LOINC.uri,
            target_system=LOINC.uri,
            relationship=Relationship.RELATED.value,
        )
    return Release(
        system=LOINC.uri,
        version=name,
        title=LOINC.title,
        licence=_LICENCE,
        source=files.names(),
        tables=tables,
    )


def _open_files(path: Path) -> _Files:
    def open_one(name: str, *required: str, folder: Path = path) -> Delimited | None:
        file = find_one_below(folder, name)
        return Delimited.open(file, required, separator=",", quoted=True) if file else None

    table = require_one_below(path, "loinc.csv", "table of LOINC, Loinc.csv")
    files = _Files(
        table=Delimited.open(table, (*_REQUIRED, *_NAMES), separator=",", quoted=True),
        hierarchy=open_one("componenthierarchybysystem.csv", "immediate_parent", "code", "code_text"),
        parts=open_one("part.csv", "partnumber", "partname", "parttypename", "status"),
        links=open_one("loincpartlink_primary.csv", "loincnumber", "partnumber", "parttypename"),
        # The folder of the core table has a copy.
        successors=open_one("mapto.csv", "loinc", "map_to", "comment", folder=table.parent),
    )
    files.table.require("loinc_num", _CODE, "code of LOINC")
    files.table.require("status", _STATUSES, "status of LOINC")
    files.table.require_unique(("loinc_num",), files.table.scan(), _ONE_RELEASE)
    if files.hierarchy:
        files.hierarchy.require("code", f"{_CODE}|{_PART}", "code of LOINC")
    if files.parts:
        files.parts.require("partnumber", _PART, "number of a part")
        files.parts.require_unique(("partnumber",), files.parts.scan(), _ONE_RELEASE)
    if files.links:
        files.links.require("loincnumber", _CODE, "code of LOINC")
        files.links.require("partnumber", _PART, "number of a part")
    if files.successors:
        files.successors.require("loinc", _CODE, "code of LOINC")
        files.successors.require("map_to", _CODE, "code of LOINC")
    return files


def _name_version(table: Delimited) -> str:
    pattern = re.compile(r"loinc[_ -]*v?([0-9]+\.[0-9]+)", re.IGNORECASE)
    folders = [part.name for part in table.path.resolve().parents]
    named = next((match[1] for name in folders if (match := pattern.search(name))), None)
    numbers = (
        table.scan()
        .select(version=pl.col("versionlastchanged").str.extract(r"^([0-9]+\.[0-9]+)"))
        .drop_nulls()
        .unique()
        .collect()["version"]
        .to_list()
    )
    newest = max(numbers, key=_version_key, default=None)
    if named and newest and _version_key(newest) > _version_key(named):
        raise InputError(
            f"The table has changes of version {newest}, the folder is of version {named}.",
            place=str(table.path),
            remedy=_ONE_RELEASE,
        )
    if found := named or newest:
        return found
    raise InputError(
        "The files do not tell their version.", place=str(table.path), remedy="Name it: --version."
    )


def _version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: 2.9 came before 2.10, and 2.07 was 2.7."""
    return tuple(int(part) for part in version.split("."))


def _read_concepts(table: Delimited, successors: pl.LazyFrame) -> pl.LazyFrame:
    only = only_successors(successors, code="source_code", successor="target_code")
    deprecated = pl.col("status") == "DEPRECATED"
    return (
        table.scan()
        .select(
            code="loinc_num",
            display=pl.coalesce("long_common_name", "shortname", "component", "loinc_num"),
            active=~deprecated,
            effective=NO_DATE,
        )
        .join(only, on="code", how="left")
        .with_columns(pl.when(~pl.col("active")).then("replaced_by").alias("replaced_by"))
    )


def _read_parts(files: _Files) -> pl.LazyFrame:
    """Return the parts as concepts: those of ``Part.csv``, and others that the hierarchy names."""
    found = [pl.LazyFrame(schema={"code": pl.String, "display": pl.String, "active": pl.Boolean})]
    if files.parts is not None:
        shown = ["partdisplayname"] if "partdisplayname" in files.parts.names else []
        found.append(
            files.parts.scan().select(
                code="partnumber",
                display=pl.coalesce(*shown, "partname", "partnumber"),
                active=pl.col("status").fill_null("") != "DEPRECATED",
            )
        )
    if files.hierarchy is not None:
        found.append(
            files.hierarchy.scan()
            .filter(pl.col("code").str.starts_with("LP"))
            .select("code", display=pl.coalesce("code_text", "code"), active=pl.lit(value=True))
        )
    return (
        pl.concat(found)
        .unique("code", keep="first", maintain_order=True)
        .with_columns(effective=NO_DATE, replaced_by=NO_TEXT)
    )


def _check_ends(files: _Files, parts: pl.LazyFrame) -> None:
    """Refuse accessory files that name codes which the table does not have."""
    codes = pl.concat([files.table.scan().select(code="loinc_num"), parts.select("code")])
    places = (
        (files.hierarchy, "code"),
        (files.hierarchy, "immediate_parent"),
        (files.links, "loincnumber"),
        (files.successors, "loinc"),
    )
    for file, column in places:
        if file is None:
            continue
        ends = file.scan().select(LINE, code=column).drop_nulls()
        missing = ends.join(codes, on="code", how="anti").sort(LINE).head(1).collect()
        if missing.height:
            raise MalformedDataError(
                f"The code {missing['code'][0]} is not in {files.table.path.name}.",
                place=file.place(missing[LINE][0]),
                remedy=_ONE_RELEASE,
            )


def _read_terms(table: Delimited, parts: pl.LazyFrame) -> pl.LazyFrame:
    kinds = {
        "long_common_name": "preferred",
        "shortname": "synonym",
        "consumer_name": "synonym",
        "displayname": "synonym",
        "definitiondescription": "definition",
    }
    terms = [
        table.scan()
        .select(code="loinc_num", term=pl.col(column).str.replace_all(r"\s+", " "), kind=pl.lit(kind))
        .drop_nulls("term")
        for column, kind in kinds.items()
        if column in table.names
    ]
    terms.append(parts.select("code", term="display", kind=pl.lit("preferred")))
    # A short name that equals the long one is no further name.
    return unique_terms(terms)


def _read_attributes(files: _Files) -> pl.LazyFrame:
    rows = [
        files.table.scan().select(code="loinc_num", attribute=pl.lit(attribute), value=column)
        for column, attribute in _COLUMNS.items()
        if column in files.table.names
    ]
    if files.links is not None:
        rows.append(
            files.links.scan().select(
                code="loincnumber",
                attribute=pl.col("parttypename").replace_strict(_PARTS, default=None, return_dtype=pl.String),
                value="partnumber",
            )
        )
    return pl.concat(rows).drop_nulls().unique()


def _read_successors(file: Delimited | None) -> pl.LazyFrame:
    """Return the successors as the table of maps, without what is the same in all rows."""
    if file is None:
        return pl.LazyFrame(schema={"source_code": pl.String, "target_code": pl.String})
    return file.scan().select(
        source_code="loinc",
        target_code="map_to",
        target_display=NO_TEXT,
        **place_targets("loinc"),
        advice="comment",
        order=pl.col(LINE).cast(pl.UInt32),
    )
