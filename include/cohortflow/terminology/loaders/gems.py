"""General Equivalence Mappings between ICD-9-CM and ICD-10, both ways, diagnoses and procedures.

Source: ``2018_I9gem.txt`` and ``2018_I10gem.txt`` ("2018 ICD-10-CM and GEMs"), ``gem_i9pcs.txt`` and
``gem_pcsi9.txt`` ("2018 ICD-10-PCS and GEMs") of the Centers for Medicare & Medicaid Services, described in
``Dxgem_guide_2018.pdf`` and ``Pcsgem_guide_2018.pdf`` beside them: source, target and five digits, the flags
*approximate*, *no map*, *combination*, *scenario* and *choice list*. 2018 was the last year of the mappings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.loaders.files import PUBLIC_DOMAIN_US, open_failure, require_file
from cohortflow.terminology.loaders.rows import NO_TEXT, make_table
from cohortflow.terminology.loaders.uris import ICD9CM_PROCEDURES
from cohortflow.terminology.systems import ICD9CM, ICD10CM, ICD10PCS
from cohortflow.terminology.tables import Release

__all__ = ["load_gems"]

_SYSTEM = "urn:cohortflow:map:gems"
_LINE = r"^(?<source>[0-9A-Z]{3,7}) +(?<target>[0-9A-Z]{3,7}|No[A-Za-z0-9]+) +(?<flags>[01]{3}[0-9]{2})$"
_ICD9_DOT = (r"^(E[0-9]{3}|V[0-9]{2}|[0-9]{3})([0-9]+)$", "${1}.${2}")
_ICD10_DOT = (r"^(.{3})(.+)$", "${1}.${2}")
_PROCEDURE_DOT = (r"^([0-9]{2})([0-9]+)$", "${1}.${2}")
_NO_DOT = (r"^$", "")


@dataclass(frozen=True, slots=True)
class _Side:
    system: str
    dot: tuple[str, str]


_DIAGNOSIS_9, _DIAGNOSIS_10 = _Side(ICD9CM.uri, _ICD9_DOT), _Side(ICD10CM.uri, _ICD10_DOT)
_PROCEDURE_9, _PROCEDURE_10 = _Side(ICD9CM_PROCEDURES, _PROCEDURE_DOT), _Side(ICD10PCS.uri, _NO_DOT)
# The end of a file's name, without year, to the map's name and its two sides.
_MAPS: dict[str, tuple[str, _Side, _Side]] = {
    "i9gem": ("gem-icd9cm-icd10cm", _DIAGNOSIS_9, _DIAGNOSIS_10),
    "i10gem": ("gem-icd10cm-icd9cm", _DIAGNOSIS_10, _DIAGNOSIS_9),
    "gem_i9pcs": ("gem-icd9proc-icd10pcs", _PROCEDURE_9, _PROCEDURE_10),
    "gem_pcsi9": ("gem-icd10pcs-icd9proc", _PROCEDURE_10, _PROCEDURE_9),
}
_NAME = re.compile(r"(?:^|_)(i9gem|i10gem|gem_i9pcs|gem_pcsi9)(?:_20[0-9]{2})?\.txt$")


def load_gems(path: Path, *, version: str | None = None) -> Release:
    """Read the mappings.

    A target that is not *approximate* and stands alone is equivalent; every other one is *related-to*, as
    the flags do not tell which side is wider. A *combination* says that several targets are needed together:
    ``group`` is the choice list, of which each gives one target; ``priority`` follows scenario and place in
    the file; ``advice`` has the flags in words, scenario and choice list among them.

    Args:
        path: One of the files, or the folder with them.
        version: Name of the version; by default the year in the files' names.

    Returns:
        One release with the maps ``gem-icd9cm-icd10cm``, ``gem-icd10cm-icd9cm``, ``gem-icd9proc-icd10pcs``
        and ``gem-icd10pcs-icd9proc``, as far as their files are there. Codes have their dots.

    Raises:
        InputError: No file is there, or files of several years.
        MalformedDataError: A line has another layout or contradicts another; the place names it.
    """
    files = _find_files(path)
    years = sorted({year for file in files for year in re.findall(r"20[0-9]{2}", file.name)})
    if len(years) > 1 and version is None:
        raise InputError(
            f"The folder has mappings of several years: {', '.join(years)}.",
            place=str(path),
            remedy="Keep one year in the folder, or name the version: --version.",
        )
    name = version or "".join(years)
    if not name:
        raise InputError("The file does not tell its version.", place=str(path), remedy="Name it: --version.")
    maps = [_read(file).lazy() for file in files]
    return Release(
        system=_SYSTEM,
        version=name,
        title="General Equivalence Mappings, ICD-9-CM and ICD-10",
        licence=PUBLIC_DOMAIN_US,
        source=tuple(file.name for file in files),
        tables={"maps": make_table("maps", pl.concat(maps), version=name)},
    )


def _find_files(path: Path) -> tuple[Path, ...]:
    if path.is_dir():
        found = tuple(file for file in sorted(path.iterdir()) if _NAME.search(file.name.lower()))
        kinds = [_kind(file) for file in found]
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise InputError(
                f"Several files are mappings of the kind '{twice[0]}'.",
                place=str(path),
                remedy="Keep one year in the folder.",
            )
        if found:
            return found
        raise InputError(
            "The folder has no mappings.",
            place=str(path),
            remedy="Put 2018_I9gem.txt, 2018_I10gem.txt, gem_i9pcs.txt or gem_pcsi9.txt there.",
        )
    if not _NAME.search(require_file(path).name.lower()):
        raise InputError(
            "The file's name does not tell which mapping it is.",
            place=str(path),
            remedy="Keep its name: 2018_I9gem.txt, 2018_I10gem.txt, gem_i9pcs.txt or gem_pcsi9.txt.",
        )
    return (path,)


def _kind(file: Path) -> str:
    match = _NAME.search(file.name.lower())
    return match[1] if match else ""


def _read(file: Path) -> pl.DataFrame:
    name, source, target = _MAPS[_kind(file)]
    rows = _read_lines(file)
    no_map, combined = pl.col("no_map") == "1", pl.col("combination") == "1"
    exact = (pl.col("approximate") == "0") & ~combined
    return rows.sort("source", "scenario", "number").select(
        pl.lit(name).alias("map"),
        source_system=pl.lit(source.system),
        source_code=pl.col("source").str.replace(*source.dot),
        target_system=pl.lit(target.system),
        target_code=pl.when(~no_map).then(pl.col("target").str.replace(*target.dot)),
        target_display=NO_TEXT,
        relationship=pl.when(no_map)
        .then(pl.lit(Relationship.NOT_RELATED.value))
        .when(exact)
        .then(pl.lit(Relationship.EQUIVALENT.value))
        .otherwise(pl.lit(Relationship.RELATED.value)),
        group=pl.when(combined).then(pl.col("choice").cast(pl.UInt16)).otherwise(pl.lit(1, pl.UInt16)),
        priority=pl.int_range(1, pl.len() + 1, dtype=pl.UInt16).over("source", "choice"),
        rule=NO_TEXT,
        advice=pl.when(no_map)
        .then(pl.lit("no map"))
        .otherwise(
            pl.concat_str(
                pl.when(pl.col("approximate") == "1").then(pl.lit("approximate")).otherwise(pl.lit("exact")),
                pl.when(combined)
                .then(
                    pl.concat_str(
                        pl.lit("; combination, scenario "), "scenario", pl.lit(", choice list "), "choice"
                    )
                )
                .otherwise(pl.lit("")),
            )
        ),
        order=pl.col("number").cast(pl.UInt32),
    )


def _read_lines(file: Path) -> pl.DataFrame:
    lines = pl.scan_lines(file, name="line", row_index_name="number", row_index_offset=1, glob=False)
    text = pl.col("line").str.strip_chars(" \t\r\ufeff")
    try:
        found = lines.with_columns(text).filter(pl.col("line") != "").collect()
    except pl.exceptions.PolarsError:
        raise open_failure(file, "text in UTF-8") from None
    rows = found.select("number", parts=pl.col("line").str.extract_groups(_LINE)).unnest("parts")
    if rows["source"].null_count() == rows.height:
        raise open_failure(file, "a file of General Equivalence Mappings")
    _refuse(rows, pl.col("source").is_null(), "The line is not: source, target, five flags.", file)
    digits = ("approximate", "no_map", "combination", "scenario", "choice")
    rows = rows.with_columns(
        pl.col("flags").str.slice(place, 1).alias(name) for place, name in enumerate(digits)
    )
    nothing = pl.col("no_map") == "1"
    _refuse(
        rows,
        nothing != pl.col("target").str.starts_with("No"),
        "The flag 'no map' and the target contradict each other.",
        file,
    )
    combined = pl.col("combination") == "1"
    placed = (pl.col("scenario") != "0") & (pl.col("choice") != "0")
    _refuse(
        rows,
        combined != placed,
        "A combination has a scenario and a choice list, and nothing else has.",
        file,
    )
    _refuse(
        rows,
        nothing & (pl.len().over("source") > 1),
        "The line says that the code has no target, and another line names one.",
        file,
    )
    _refuse(
        rows,
        ~pl.struct("source", "target", "scenario", "choice").is_first_distinct(),
        "The line repeats an earlier one.",
        file,
    )
    return rows


def _refuse(rows: pl.DataFrame, bad: pl.Expr, problem: str, file: Path) -> None:
    """Refuse the file if a row is bad; the place names the first one."""
    found = rows.filter(bad)
    if found.height:
        raise MalformedDataError(
            problem,
            place=f"{file}:{found['number'][0]}",
            remedy="Get the file again: it may be cut or changed.",
        )
