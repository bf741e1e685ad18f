"""UMLS Metathesaurus in Rich Release Format: the sources whose URI is known, and maps by shared concept.

Source: UMLS Reference Manual, chapter 3, "Metathesaurus - Rich Release Format"
(https://www.ncbi.nlm.nih.gov/books/NBK9685/): ``MRCONSO``, ``MRREL``, ``MRSAB``, ``MRRANK``. A relation says
what the second atom is to the first: *AUI2 is the parent (PAR) of AUI1*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError, MalformedDataError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.loaders.delimited import Delimited, find_one_below, name_files, require_one_below
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table, place_targets, unique_terms
from cohortflow.terminology.loaders.rrf import CONSO, REL, SAB
from cohortflow.terminology.loaders.scratch import spool
from cohortflow.terminology.loaders.uris import ATC
from cohortflow.terminology.normalize import code_expr
from cohortflow.terminology.systems import (
    CPT,
    CVX,
    HCPCS,
    ICD9CM,
    ICD10,
    ICD10CM,
    ICD10PCS,
    LOINC,
    RXNORM,
    SNOMED_CT,
    STANDARD_SYSTEMS,
)
from cohortflow.terminology.tables import Release

__all__ = ["load_umls"]

_LICENCE = (
    "The UMLS Metathesaurus needs a license of the National Library of Medicine, free of charge; sources of "
    "category 1 and above ask for more: https://uts.nlm.nih.gov/uts/assets/LicenseAgreement.pdf."
)
_SYSTEM = "http://www.nlm.nih.gov/research/umls"
_SOURCES: Mapping[str, str] = {
    "ATC": ATC,
    "CPT": CPT.uri,
    "CVX": CVX.uri,
    "HCPCS": HCPCS.uri,
    "ICD10": ICD10.uri,
    "ICD10CM": ICD10CM.uri,
    "ICD10PCS": ICD10PCS.uri,
    "ICD9CM": ICD9CM.uri,
    "LNC": LOINC.uri,
    "RXNORM": RXNORM.uri,
    "SNOMEDCT_US": SNOMED_CT.uri,
}
_RANK = ("rank", "sab", "tty", "suppress")
_NO_CODE = "NOCODE"
# Where MRRANK is not there: types of names proper, best first.
_NAME_TYPES = ("PT", "SCD", "SBD", "IN", "BN", "LC", "LN", "HT", "FN")


@dataclass(frozen=True)
class _Parsed:
    """What all sources share, parsed once.

    Attributes:
        atoms: ``aui``, ``cui``, ``sab``, ``system``, ``code``, ``term``, ``rank`` (best first), ``obsolete``.
        relations: ``sab``, ``code``, ``rel``, ``rela``, ``other``; within a source, second to first.
        names: Names of the files.
    """

    atoms: pl.LazyFrame
    relations: pl.LazyFrame
    names: tuple[str, ...]


def load_umls(path: Path, *, version: str | None = None) -> tuple[Release, ...]:
    """Read the folder of a release, or of a subset of it.

    Of each source in English whose canonical URI is known (ATC, CPT, CVX, HCPCS, ICD-9-CM, ICD-10, ICD-10-CM,
    ICD-10-PCS, LOINC, RxNorm, SNOMED CT US) a release is made, and one of maps between them. Other sources
    are left out.

    Args:
        path: The folder ``META`` or one above it: ``MRCONSO.RRF`` must be there; ``MRREL.RRF``,
            ``MRSAB.RRF`` and ``MRRANK.RRF`` are read where they are.
        version: Name of the version for all of them. By default each source has its own, from ``MRSAB.RRF``,
            and the maps that of the Metathesaurus, such as ``2026AA``, from a folder's name.

    Returns:
        Releases of the sources: concepts by their code, not active where all atoms are obsolete; edges (PAR);
        attributes: relations that the source has named (RELA), and ``cui``. Last the release of
        ``http://www.nlm.nih.gov/research/umls``, with maps ``umls-<source>-<source>``: codes that share a
        concept of the Metathesaurus are *equivalent* where each of the two is the only one of its source in
        the concept, and has no other concept; else *related-to*.

    Raises:
        InputError: The folder or a file is not there, no source of it is known, or no version is told.
        MalformedDataError: A line is cut, or an atom stands twice; the place names the line.
    """
    conso = Delimited.open_rrf(require_one_below(path, "mrconso.rrf", "MRCONSO.RRF"), CONSO)
    conso.require("cui", "C[0-9]{7}", "concept of the Metathesaurus")
    conso.require("aui", "A[0-9]{7,8}", "atom of the Metathesaurus")
    conso.require_unique(
        ("aui",), conso.scan().select("line", "aui"), "An atom has one row: use the files of one release."
    )
    folder = path.resolve()
    whole = version or next(
        (
            match[0]
            for name in (folder.name, *(part.name for part in conso.path.resolve().parents))
            if (match := re.search(r"20[0-9]{2}A[A-C]", name.upper()))
        ),
        "",
    )
    if not whole:
        raise InputError(
            "No folder's name tells the version.", place=str(path), remedy="Name it: --version 2026AA."
        )
    sources = find_one_below(path, "mrsab.rrf")
    parsed = _parse(path, conso, (sources,) if sources else ())
    present = parsed.atoms.select("sab").unique().sort("sab").collect()["sab"].to_list()
    if not present:
        raise InputError(
            "The file has none of the sources that are read.",
            place=str(conso.path),
            remedy=f"Choose some of these for your subset: {', '.join(_SOURCES)}.",
        )
    versions = {} if version else _read_versions(sources)
    releases = [_make_release(parsed, sab, versions.get(sab) or whole) for sab in present]
    return (*releases, *_make_maps(parsed, present, whole))


def _parse(path: Path, conso: Delimited, others: tuple[Path, ...]) -> _Parsed:
    relations, ranks = find_one_below(path, "mrrel.rrf"), find_one_below(path, "mrrank.rrf")
    rank_file = Delimited.open_rrf(ranks, _RANK) if ranks else None
    relation_file = Delimited.open_rrf(relations, REL) if relations else None
    if rank_file is not None:
        rank_file.require("rank", "[0-9]{1,6}", "number")
    atoms = spool(_read_atoms(conso, rank_file))
    found = pl.LazyFrame(schema=dict.fromkeys(("sab", "code", "rel", "rela", "other"), pl.String))
    if relation_file is not None:
        ends = atoms.select("aui", "sab", "code")
        found = spool(
            relation_file.scan()
            .filter(pl.col("sab").is_in(list(_SOURCES)) & (pl.col("suppress").fill_null("N") != "O"))
            .filter(pl.col("rela").is_not_null() | (pl.col("rel") == "PAR"))
            .select("aui1", "aui2", "rel", "rela", source="sab")
            .join(ends, left_on=["aui1", "source"], right_on=["aui", "sab"])
            .join(ends, left_on=["aui2", "source"], right_on=["aui", "sab"], suffix="_2")
            .select("rel", "rela", sab="source", code="code_2", other="code")
            .filter(pl.col("code") != pl.col("other"))
            .unique()
        )
    names = (*name_files(conso, relation_file, rank_file), *(file.name for file in others))
    return _Parsed(atoms, found, names)


def _read_atoms(conso: Delimited, ranks: Delimited | None) -> pl.LazyFrame:
    """Return the atoms of known sources in English, with the rank of their type of name."""
    atoms = (
        conso.scan()
        .filter(
            pl.col("sab").is_in(list(_SOURCES))
            & (pl.col("lat") == "ENG")
            & pl.col("code").is_not_null()
            & (pl.col("code") != _NO_CODE)
            & pl.col("str").is_not_null()
        )
        .with_columns(system=pl.col("sab").replace_strict(_SOURCES, return_dtype=pl.String))
    )
    if ranks is None:
        order = {tty: place for place, tty in enumerate(_NAME_TYPES)}
        rank = pl.col("tty").replace_strict(order, default=len(order), return_dtype=pl.Int64)
        atoms = atoms.with_columns(rank=rank)
    else:
        table = ranks.scan().select("sab", "tty", "suppress", rank=-pl.col("rank").cast(pl.Int64))
        atoms = atoms.join(table, on=["sab", "tty", "suppress"], how="left").with_columns(
            pl.col("rank").fill_null(0)
        )
    return atoms.select(
        "aui",
        "cui",
        "sab",
        "system",
        "rank",
        code=code_expr(pl.col("system"), pl.col("code")),
        term="str",
        obsolete=(pl.col("suppress") == "O").fill_null(value=False),
    )


def _read_versions(found: Path | None) -> dict[str, str]:
    if found is None:
        return {}
    file = Delimited.open_rrf(found, SAB)
    rows = (
        file.scan()
        .filter((pl.col("curver") == "Y") & pl.col("rsab").is_in(list(_SOURCES)))
        .select("rsab", "sver")
        .drop_nulls()
        .unique()
        .collect()
    )
    twice = rows.filter(pl.col("rsab").is_duplicated())["rsab"].sort()
    if len(twice):
        raise MalformedDataError(
            f"The source {twice[0]} has two current versions.",
            place=str(found),
            remedy="Use the files of one release together.",
        )
    return dict(zip(rows["rsab"], rows["sver"], strict=True))


def _make_release(parsed: _Parsed, sab: str, version: str) -> Release:
    system = _SOURCES[sab]
    known = STANDARD_SYSTEMS.get(system)
    atoms = parsed.atoms.filter(pl.col("sab") == sab)
    relations = parsed.relations.filter(pl.col("sab") == sab)
    release = {"system": system, "version": version}
    concepts = atoms.group_by("code").agg(
        display=pl.col("term").sort_by("obsolete", "rank", "term").first(),
        active=~pl.col("obsolete").all(),
        effective=NO_DATE.first(),
        replaced_by=NO_TEXT.first(),
    )
    terms = [
        concepts.select("code", term="display", kind=pl.lit("preferred")),
        atoms.select("code", "term", kind=pl.lit("synonym")),
    ]
    attributes = [
        atoms.select("code", attribute=pl.lit("cui"), value="cui"),
        relations.filter((pl.col("rel") != "PAR") & (pl.col("rel") != "CHD")).select(
            "code", attribute="rela", value="other"
        ),
    ]
    # Of a pair "AUI2 is the parent of AUI1", `code` is the second.
    edges = relations.filter(pl.col("rel") == "PAR").select(child="other", parent="code")
    return Release(
        system=system,
        version=version,
        title=f"{known.title if known else sab}, from the UMLS Metathesaurus",
        licence=_LICENCE,
        source=parsed.names,
        tables={
            "concepts": make_table("concepts", concepts, **release),
            "synonyms": make_table("synonyms", unique_terms(terms), **release),
            "edges": make_table("edges", edges.unique(), **release),
            "attributes": make_table("attributes", pl.concat(attributes).drop_nulls().unique(), **release),
        },
    )


def _make_maps(parsed: _Parsed, present: list[str], version: str) -> tuple[Release, ...]:
    if len(present) == 1:
        return ()
    codes = parsed.atoms.filter(~pl.col("obsolete")).select("cui", "sab", "system", "code").unique()
    codes = codes.with_columns(
        only=(pl.len().over("cui", "sab") == 1) & (pl.len().over("sab", "code") == 1),
    )
    pairs = (
        codes.join(codes, on="cui", suffix="_2")
        .filter(pl.col("sab") != pl.col("sab_2"))
        .group_by("sab", "system", "code", "sab_2", "system_2", "code_2")
        .agg(exact=(pl.col("only") & pl.col("only_2")).all())
        .sort(
            "sab", "sab_2", "code", pl.col("exact"), "code_2", descending=[False, False, False, True, False]
        )
    )
    table = pairs.select(
        pl.concat_str(
            pl.lit("umls-"),
            pl.col("sab").str.to_lowercase(),
            pl.lit("-"),
            pl.col("sab_2").str.to_lowercase(),
        ).alias("map"),
        source_system="system",
        source_code="code",
        target_system="system_2",
        target_code="code_2",
        target_display=NO_TEXT,
        relationship=pl.when("exact")
        .then(pl.lit(Relationship.EQUIVALENT.value))
        .otherwise(pl.lit(Relationship.RELATED.value)),
        **place_targets("sab", "sab_2", "code"),
        advice=NO_TEXT,
        order=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32),
    )
    return (
        Release(
            system=_SYSTEM,
            version=version,
            title="UMLS Metathesaurus, maps by shared concept",
            licence=_LICENCE,
            source=parsed.names,
            tables={"maps": make_table("maps", table, version=version)},
        ),
    )
