"""RxNorm in Rich Release Format: concepts, relations, national drug codes, and retired concepts.

Source: RxNorm Technical Documentation, section 12 (https://www.nlm.nih.gov/research/umls/rxnorm/docs/
techdoc.html): ``RXNCONSO``, ``RXNREL``, ``RXNSAT``, ``RXNATOMARCHIVE``, ``RXNSAB``. A relation is read from
the second concept to the first: *RXCUI2 has_ingredient RXCUI1*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from cohortflow.errors import InputError
from cohortflow.terminology.concept_map import Relationship
from cohortflow.terminology.loaders.delimited import Delimited, find_one_below, name_files, require_one_below
from cohortflow.terminology.loaders.rows import NO_DATE, NO_TEXT, make_table, place_targets, unique_terms
from cohortflow.terminology.loaders.rrf import CONSO, REL, SAB
from cohortflow.terminology.loaders.uris import ATC
from cohortflow.terminology.normalize import code_expr
from cohortflow.terminology.systems import NDC, RXNORM
from cohortflow.terminology.tables import Release

__all__ = ["load_rxnorm"]

_LICENCE = (
    "RxNorm's own content (SAB=RXNORM) is produced by the National Library of Medicine and free to use, "
    "which asks to be named; the other sources in the files need the UMLS Metathesaurus License: "
    "https://www.nlm.nih.gov/research/umls/rxnorm/docs/termsofservice.html."
)
_SAT = (
    "rxcui",
    "lui",
    "sui",
    "rxaui",
    "stype",
    "code",
    "atui",
    "satui",
    "atn",
    "sab",
    "atv",
    "suppress",
    "cvf",
)
_ARCHIVE = (
    "rxaui",
    "aui",
    "str",
    "archive_timestamp",
    "created_timestamp",
    "updated_timestamp",
    "code",
    "is_brand",
    "lat",
    "last_released",
    "saui",
    "vsab",
    "rxcui",
    "sab",
    "tty",
    "merged_to_rxcui",
)
_OWN = "RXNORM"
_SYNONYM_TYPES = ("SY", "TMSY", "PSN", "ET")


@dataclass(frozen=True)
class _Files:
    names: Delimited
    relations: Delimited
    attributes: Delimited
    archive: Delimited | None
    sources: Delimited | None

    def file_names(self) -> tuple[str, ...]:
        return name_files(self.names, self.relations, self.attributes, self.archive, self.sources)


def load_rxnorm(path: Path, *, version: str | None = None) -> Release:
    """Read the folder of a release.

    Args:
        path: The folder of the unpacked release: ``RXNCONSO.RRF``, ``RXNREL.RRF`` and ``RXNSAT.RRF`` must be
            in it or below, ``RXNATOMARCHIVE.RRF`` and ``RXNSAB.RRF`` are read where they are.
        version: Name of the version; by default its date, as ``2026-01-05``, from the folder's name
            (``RxNorm_full_01052026``) or from ``RXNSAB.RRF`` (``20AA_260105F``).

    Returns:
        Concepts of RxNorm itself, and those that were retired, not active, with the concept that they were
        merged into where it is one; *obsolete* concepts are not active. Synonyms, among them prescribable
        names. Edges (*isa*). Attributes: ``tty``, and the relations. Maps: ``ndc-rxnorm``, whose codes are
        packages and so narrower than the drug; ``rxnorm-atc``, where a concept has a code of ATC.

    Raises:
        InputError: The folder or a file is not there, the version is not to be found, or two are.
        MalformedDataError: A line is cut, or an atom stands twice; the place names the line.
    """
    files = _open_files(path)
    name = version or _name_version(files, path)
    release = {"system": RXNORM.uri, "version": name}
    atoms = files.names.scan().filter(pl.col("sab") == _OWN)
    relations = (
        files.relations.scan()
        .filter(
            (pl.col("sab") == _OWN)
            & pl.col("rela").is_not_null()
            & pl.col("cui1").is_not_null()
            & pl.col("cui2").is_not_null()
            & (pl.col("suppress").fill_null("N") != "O")
        )
        .select(code="cui2", attribute="rela", value="cui1")
    )
    concepts = pl.concat([_read_concepts(atoms), *([_read_retired(files)] if files.archive else [])])
    known = concepts.select("code")
    edges = relations.filter(pl.col("attribute") == "isa").select(child="code", parent="value").unique()
    attributes = [
        atoms.filter(~pl.col("tty").is_in(_SYNONYM_TYPES)).select(
            code="cui", attribute=pl.lit("tty"), value="tty"
        ),
        relations.filter(~pl.col("attribute").is_in(["isa", "inverse_isa"])),
    ]
    return Release(
        system=RXNORM.uri,
        version=name,
        title=RXNORM.title,
        licence=_LICENCE,
        source=files.file_names(),
        tables={
            "concepts": make_table("concepts", concepts, **release),
            "synonyms": make_table("synonyms", _read_terms(atoms, concepts), **release),
            "edges": make_table(
                "edges",
                edges.join(known, left_on="child", right_on="code", how="semi").join(
                    known, left_on="parent", right_on="code", how="semi"
                ),
                **release,
            ),
            "attributes": make_table("attributes", pl.concat(attributes).unique(), **release),
            "maps": make_table(
                "maps", pl.concat([_read_ndc(files.attributes), _read_atc(files)]), version=name
            ),
        },
    )


def _open_files(path: Path) -> _Files:
    # Beside the full set the release has that of the drugs that can be prescribed, in another folder.
    path = path / "rrf" if (path / "rrf").is_dir() else path
    archive, sources = find_one_below(path, "rxnatomarchive.rrf"), find_one_below(path, "rxnsab.rrf")
    files = _Files(
        names=Delimited.open_rrf(require_one_below(path, "rxnconso.rrf", "RXNCONSO.RRF"), CONSO),
        relations=Delimited.open_rrf(require_one_below(path, "rxnrel.rrf", "RXNREL.RRF"), REL),
        attributes=Delimited.open_rrf(require_one_below(path, "rxnsat.rrf", "RXNSAT.RRF"), _SAT),
        archive=Delimited.open_rrf(archive, _ARCHIVE) if archive else None,
        sources=Delimited.open_rrf(sources, SAB) if sources else None,
    )
    files.names.require("cui", "[1-9][0-9]{0,7}", "concept of RxNorm")
    files.names.require("str", ".*", "name")
    files.names.require_unique(
        ("aui",),
        files.names.scan(),
        "An atom has one row: use the files of one release, and of the folder rrf.",
    )
    return files


def _name_version(files: _Files, path: Path) -> str:
    """Return the date of the release, which folder and file must agree on."""
    found = set()
    for folder in files.names.path.resolve().parents:
        if match := re.search(r"rxnorm_[a-z_]+_([0-9]{2})([0-9]{2})(20[0-9]{2})", folder.name.lower()):
            found.add(f"{match[3]}-{match[1]}-{match[2]}")
            break
    if files.sources is not None:
        rows = files.sources.scan().filter((pl.col("rsab") == _OWN) & pl.col("sver").is_not_null())
        for text in rows.select("sver").collect()["sver"]:
            if match := re.search(r"_([0-9]{2})([0-9]{2})([0-9]{2})", text):
                found.add(f"20{match[1]}-{match[2]}-{match[3]}")
    if len(found) > 1:
        raise InputError(
            f"Folder and files are of several versions: {' and '.join(sorted(found))}.",
            place=str(path),
            remedy="Use the files of one release together.",
        )
    try:
        return date.fromisoformat("".join(found)).isoformat()
    except ValueError:
        raise InputError(
            "The files do not tell their version.", place=str(path), remedy="Name it: --version."
        ) from None


def _read_concepts(atoms: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row per concept: a name proper before synonyms, a current one before obsolete ones."""
    obsolete = pl.col("suppress") == "O"
    return (
        atoms.with_columns(
            synonym=pl.col("tty").is_in(_SYNONYM_TYPES), obsolete=obsolete.fill_null(value=False)
        )
        .group_by("cui")
        .agg(
            display=pl.col("str").sort_by("synonym", "obsolete", "str").first(),
            active=~pl.col("obsolete").sort_by("synonym", "obsolete").first(),
        )
        .select(code="cui", display="display", active="active", effective=NO_DATE, replaced_by=NO_TEXT)
    )


def _read_retired(files: _Files) -> pl.LazyFrame:
    """Return the concepts that are in the archive alone."""
    if files.archive is None:
        return pl.LazyFrame()
    merged = pl.col("merged_to_rxcui")
    return (
        files.archive.scan()
        .filter((pl.col("sab") == _OWN) & pl.col("rxcui").is_not_null())
        .join(
            files.names.scan().filter(pl.col("sab") == _OWN),
            left_on="rxcui",
            right_on="cui",
            how="anti",
        )
        .group_by("rxcui")
        .agg(
            display=pl.col("str").sort_by(pl.col("tty").is_in(_SYNONYM_TYPES), "str").first(),
            targets=merged.filter(merged.is_not_null() & (merged != pl.col("rxcui"))).unique(),
        )
        .select(
            code="rxcui",
            display=pl.coalesce("display", "rxcui"),
            active=pl.lit(value=False),
            effective=NO_DATE,
            replaced_by=pl.when(pl.col("targets").list.len() == 1).then(pl.col("targets").list.first()),
        )
    )


def _read_terms(atoms: pl.LazyFrame, concepts: pl.LazyFrame) -> pl.LazyFrame:
    preferred = concepts.select("code", term="display", kind=pl.lit("preferred"))
    others = atoms.select(code="cui", term="str", kind=pl.lit("synonym"))
    return unique_terms([preferred, others])


def _read_ndc(attributes: Delimited) -> pl.LazyFrame:
    rows = attributes.scan().filter(
        (pl.col("sab") == _OWN)
        & (pl.col("atn") == "NDC")
        & pl.col("atv").is_not_null()
        & (pl.col("suppress").fill_null("N") != "O")
    )
    pairs = rows.select(source=code_expr(pl.lit(NDC.uri), pl.col("atv")), target="rxcui")
    return _make_map("ndc-rxnorm", pairs, NDC.uri, RXNORM.uri, Relationship.NARROWER)


def _read_atc(files: _Files) -> pl.LazyFrame:
    rows = files.names.scan()
    own = rows.filter(pl.col("sab") == _OWN)
    pairs = (
        rows.filter((pl.col("sab") == "ATC") & (pl.col("suppress").fill_null("N") != "O"))
        .join(own, on="cui", how="semi")
        .select(source="cui", target="code")
    )
    return _make_map("rxnorm-atc", pairs, RXNORM.uri, ATC, Relationship.RELATED)


def _make_map(
    name: str, pairs: pl.LazyFrame, source: str, target: str, relationship: Relationship
) -> pl.LazyFrame:
    """Return pairs of codes, ``source`` and ``target``, as the table of maps without its version."""
    return (
        pairs.unique()
        .sort("source", "target")
        .select(
            pl.lit(name).alias("map"),
            source_system=pl.lit(source),
            source_code="source",
            target_system=pl.lit(target),
            target_code="target",
            target_display=NO_TEXT,
            relationship=pl.lit(relationship.value),
            **place_targets("source"),
            advice=NO_TEXT,
            order=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32),
        )
    )
