"""OMOP's standardised vocabularies, as OHDSI's Athena gives them: one folder, many vocabularies.

Source: OMOP Common Data Model 5.4, "Vocabulary tables" (https://ohdsi.github.io/CommonDataModel/cdm54.html).
The files are named ``.csv``, but have tabs between the columns and no quotes; line ends differ.
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
from cohortflow.terminology.loaders.rows import NO_TEXT, make_table, only_successors, parse_date, unique_terms
from cohortflow.terminology.loaders.scratch import spool
from cohortflow.terminology.loaders.uris import ATC, ICD9CM_PROCEDURES
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
    NDC,
    RXNORM,
    SNOMED_CT,
    UCUM,
)
from cohortflow.terminology.tables import Release

__all__ = ["load_athena"]

_LICENCE = (
    "From OHDSI's Athena. The vocabulary's own licence holds, which Athena shows when it is chosen: "
    "https://athena.ohdsi.org/vocabulary/list."
)
_SYSTEMS: Mapping[str, str] = {
    "ATC": ATC,
    "CPT4": CPT.uri,
    "CVX": CVX.uri,
    "HCPCS": HCPCS.uri,
    "ICD10": ICD10.uri,
    "ICD10CM": ICD10CM.uri,
    "ICD10PCS": ICD10PCS.uri,
    "ICD9CM": ICD9CM.uri,
    "ICD9Proc": ICD9CM_PROCEDURES,
    "LOINC": LOINC.uri,
    "NDC": NDC.uri,
    "RxNorm": RXNORM.uri,
    "SNOMED": SNOMED_CT.uri,
    "UCUM": UCUM.uri,
}
_CONCEPT = (
    "concept_id",
    "concept_name",
    "domain_id",
    "vocabulary_id",
    "concept_class_id",
    "standard_concept",
    "concept_code",
    "valid_start_date",
    "valid_end_date",
    "invalid_reason",
)
_RELATIONSHIP = ("concept_id_1", "concept_id_2", "relationship_id", "invalid_reason")
_ANCESTOR = ("ancestor_concept_id", "descendant_concept_id", "min_levels_of_separation")
_SYNONYM = ("concept_id", "concept_synonym_name")
_VOCABULARY = ("vocabulary_id", "vocabulary_name", "vocabulary_version")
_WHOLE = "None"
"""The vocabulary whose version is that of all vocabularies together."""
_IS_A, _MAPS_TO, _REPLACED_BY = "Is a", "Maps to", "Concept replaced by"
_NO_ATTRIBUTES = (_IS_A, "Subsumes", _MAPS_TO, "Mapped from", _REPLACED_BY, "Concept replaces")
_ONE_DOWNLOAD = "Use the files of one download together."
_UNKNOWN_DATE = "19700101"


@dataclass(frozen=True)
class _Parsed:
    """What all vocabularies share, parsed once.

    Attributes:
        concepts: Columns of ``CONCEPT.csv``, with ``system`` and canonical ``code``; one row per code.
        relations: ``vocabulary``, ``code``, ``relation``, ``other_vocabulary``, ``other_system``,
            ``other_code``, ``other_name``; valid ones.
        synonyms: ``vocabulary``, ``code``, ``term``.
        names: Names of the files.
    """

    concepts: pl.LazyFrame
    relations: pl.LazyFrame
    synonyms: pl.LazyFrame
    names: tuple[str, ...]


def load_athena(path: Path, *, version: str | None = None) -> tuple[Release, ...]:
    """Read the folder of a download: one release for each vocabulary that has concepts.

    Args:
        path: The unpacked folder: ``CONCEPT.csv``, ``CONCEPT_RELATIONSHIP.csv`` and ``VOCABULARY.csv`` must
            be there, ``CONCEPT_ANCESTOR.csv`` and ``CONCEPT_SYNONYM.csv`` are read where they are.
        version: Name of the version for all of them; by default each one's ``vocabulary_version``, else that
            of the whole.

    Returns:
        Releases by vocabulary. A vocabulary without a canonical URI that Cohortflow knows is
        ``urn:ohdsi:vocabulary:<vocabulary_id>``. Concepts that are updated (``U``) or deleted (``D``) are not
        active, and have the successor by *Concept replaced by*, where it is one of the vocabulary. A code
        that was used again keeps its valid concept, else the last one. Edges: *Is a*, and pairs of
        ``CONCEPT_ANCESTOR`` at one level, within the vocabulary. Attributes: ``domain``, ``class``,
        ``standard``, and other relations within the vocabulary.

        The map ``athena-<vocabulary>`` has *Maps to*. OMOP means by it an equivalent concept or a more
        general one and does not say which, so that the relationship is *related-to*. Several targets of a
        code are needed together: each is a group of its own.

    Raises:
        InputError: The folder or a file is not there, or has another separator than tabs.
        MalformedDataError: A column is missing, a line is cut, a date or number is malformed, two valid
            concepts have the same code, or the files are of different downloads.
    """
    vocabularies = _read_vocabularies(path)
    parsed = _parse(path, vocabularies)
    present = parsed.concepts.select("vocabulary").unique().collect()["vocabulary"].sort().to_list()
    return tuple(
        _make_release(parsed, vocabulary, *vocabularies[vocabulary], version or "", path)
        for vocabulary in present
    )


def _read_vocabularies(path: Path) -> dict[str, tuple[str, str]]:
    """Return title and version by vocabulary."""
    file = Delimited.open(require_one_below(path, "vocabulary.csv", "VOCABULARY.csv"), _VOCABULARY)
    rows = file.scan().select(_VOCABULARY).filter(pl.col("vocabulary_id").is_not_null()).collect()
    whole = next((version for name, _, version in rows.iter_rows() if name == _WHOLE and version), "")
    return {name: (title or name, version or whole) for name, title, version in rows.iter_rows()}


def _parse(path: Path, vocabularies: Mapping[str, tuple[str, str]]) -> _Parsed:
    concept_file = Delimited.open(require_one_below(path, "concept.csv", "CONCEPT.csv"), _CONCEPT)
    relation_file = Delimited.open(
        require_one_below(path, "concept_relationship.csv", "CONCEPT_RELATIONSHIP.csv"), _RELATIONSHIP
    )
    ancestors, synonyms = (
        find_one_below(path, "concept_ancestor.csv"),
        find_one_below(path, "concept_synonym.csv"),
    )
    ancestor_file = Delimited.open(ancestors, _ANCESTOR) if ancestors else None
    synonym_file = Delimited.open(synonyms, _SYNONYM) if synonyms else None
    _check_concepts(concept_file, vocabularies)
    concepts = _spool_concepts(concept_file)
    known = concepts.select("id", "vocabulary", "system", "code", "name")
    relations = [_join_relations(relation_file, known)]
    if ancestor_file is not None:
        relations.append(_join_ancestors(ancestor_file, known))
    terms = pl.LazyFrame(schema={"vocabulary": pl.String, "code": pl.String, "term": pl.String})
    if synonym_file is not None:
        rows = _spool_numbers(synonym_file, ("concept_id",), ("concept_synonym_name",))
        terms = spool(
            rows.join(known, left_on="concept_id", right_on="id").select(
                "vocabulary", "code", term="concept_synonym_name"
            )
        )
    return _Parsed(
        concepts=concepts,
        relations=spool(pl.concat(relations)),
        synonyms=terms,
        names=(*name_files(concept_file, relation_file, ancestor_file, synonym_file), "VOCABULARY.csv"),
    )


def _check_concepts(file: Delimited, vocabularies: Mapping[str, tuple[str, str]]) -> None:
    file.require("concept_id", "[0-9]{1,18}", "number")
    file.require("valid_start_date", "[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}", "date such as 20260131")
    file.require("vocabulary_id", ".+", "vocabulary")
    file.require("concept_code", ".+", "code")
    file.require_unique(("concept_id",), file.scan(), _ONE_DOWNLOAD)
    unknown = (
        file.scan()
        .filter(~pl.col("vocabulary_id").is_in(list(vocabularies)))
        .select(LINE, "vocabulary_id")
        .head(1)
        .collect(engine="streaming")
    )
    if unknown.height:
        raise MalformedDataError(
            f"The vocabulary '{unknown['vocabulary_id'][0]}' is not in VOCABULARY.csv.",
            place=file.place(unknown[LINE][0]),
            remedy=_ONE_DOWNLOAD,
        )
    valid = file.scan().filter(pl.col("invalid_reason").is_null())
    file.require_unique(
        ("vocabulary_id", "concept_code"),
        valid,
        "Two valid concepts have the same code: get the download again, or report it to OHDSI.",
    )


def _spool_concepts(file: Delimited) -> pl.LazyFrame:
    """Return one row per concept: of concepts with the same code the valid one, else the last."""
    other = pl.concat_str(
        pl.lit("urn:ohdsi:vocabulary:"), pl.col("vocabulary").str.replace_all(r"[^A-Za-z0-9._-]", "-")
    )
    system = pl.col("vocabulary").replace_strict(_SYSTEMS, default=None, return_dtype=pl.String)
    start = pl.col("valid_start_date").str.replace_all("-", "", literal=True)
    rows = (
        file.scan()
        .with_columns(
            pl.col("vocabulary_id").alias("vocabulary"),
            pl.col("concept_id").cast(pl.Int64).alias("id"),
            pl.when(start != _UNKNOWN_DATE).then(parse_date("valid_start_date")).alias("effective"),
            end=pl.col("valid_end_date").str.replace_all("-", "", literal=True),
        )
        .with_columns(system=pl.coalesce(system, other))
        .select(
            "id",
            "vocabulary",
            "system",
            "effective",
            code=code_expr(pl.col("system"), pl.col("concept_code")),
            name=pl.coalesce("concept_name", "concept_code"),
            active=pl.col("invalid_reason").is_null(),
            domain="domain_id",
            concept_class="concept_class_id",
            standard="standard_concept",
            end="end",
        )
    )
    try:
        return spool(
            rows.sort("vocabulary", "code", "active", "end", "id").unique(
                ["vocabulary", "code"], keep="last", maintain_order=True
            )
        )
    except pl.exceptions.InvalidOperationError:
        raise MalformedDataError(
            "A valid_start_date is no date of the calendar.", place=str(file.path), remedy=_ONE_DOWNLOAD
        ) from None


def _spool_numbers(file: Delimited, numbers: tuple[str, ...], others: tuple[str, ...]) -> pl.LazyFrame:
    """Return columns with numbers instead of text; the line of text that is none is named."""
    rows = file.scan().select(*(pl.col(name).cast(pl.Int64) for name in numbers), *others)
    try:
        return spool(rows)
    except pl.exceptions.PolarsError:
        for name in numbers:
            file.require(name, "[0-9]{1,18}", "number")
        raise


def _join_relations(file: Delimited, known: pl.LazyFrame) -> pl.LazyFrame:
    ids = ("concept_id_1", "concept_id_2")
    rows = _spool_numbers(file, ids, ("relationship_id", "invalid_reason"))
    return _join_ends(
        rows.filter(pl.col("invalid_reason").is_null()).rename({"relationship_id": "relation"}), known, ids
    )


def _join_ancestors(file: Delimited, known: pl.LazyFrame) -> pl.LazyFrame:
    ids = ("descendant_concept_id", "ancestor_concept_id")
    rows = _spool_numbers(file, (*ids, "min_levels_of_separation"), ())
    parents = rows.filter(pl.col("min_levels_of_separation") == 1)
    return _join_ends(parents.with_columns(relation=pl.lit(_IS_A)), known, ids).filter(
        pl.col("vocabulary") == pl.col("other_vocabulary")
    )


def _join_ends(rows: pl.LazyFrame, known: pl.LazyFrame, ids: tuple[str, str]) -> pl.LazyFrame:
    """Return relations with codes instead of numbers; ends that were not downloaded are left out."""
    one, other = ids
    return (
        rows.join(known, left_on=one, right_on="id")
        .join(known, left_on=other, right_on="id", suffix="_other")
        .select(
            "vocabulary",
            "code",
            "relation",
            other_vocabulary="vocabulary_other",
            other_system="system_other",
            other_code="code_other",
            other_name="name_other",
        )
    )


def _make_release(parsed: _Parsed, vocabulary: str, title: str, own: str, named: str, path: Path) -> Release:
    version = named or own
    if not version:
        raise InputError(
            f"VOCABULARY.csv does not tell the version of '{vocabulary}'.",
            place=str(path),
            remedy="Name it: --version.",
        )
    concepts = parsed.concepts.filter(pl.col("vocabulary") == vocabulary)
    relations = parsed.relations.filter(pl.col("vocabulary") == vocabulary)
    system = concepts.select("system").head(1).collect()["system"][0]
    release = {"system": system, "version": version}
    inner = relations.filter(pl.col("other_vocabulary") == vocabulary)
    properties = {"domain": "domain", "class": "concept_class", "standard": "standard"}
    attributes = [
        *(
            concepts.select("code", attribute=pl.lit(name), value=column).drop_nulls()
            for name, column in properties.items()
        ),
        inner.filter(~pl.col("relation").is_in(_NO_ATTRIBUTES)).select(
            "code", attribute="relation", value="other_code"
        ),
    ]
    terms = [
        concepts.select("code", term="name", kind=pl.lit("preferred")),
        parsed.synonyms.filter((pl.col("vocabulary") == vocabulary) & pl.col("term").is_not_null()).select(
            "code", "term", kind=pl.lit("synonym")
        ),
    ]
    edges = inner.filter((pl.col("relation") == _IS_A) & (pl.col("code") != pl.col("other_code")))
    return Release(
        system=system,
        version=version,
        title=title,
        licence=_LICENCE,
        source=parsed.names,
        tables={
            "concepts": make_table("concepts", _add_successors(concepts, inner), **release),
            "synonyms": make_table("synonyms", unique_terms(terms), **release),
            "edges": make_table("edges", edges.select(child="code", parent="other_code").unique(), **release),
            "attributes": make_table("attributes", pl.concat(attributes).unique(), **release),
            "maps": make_table("maps", _read_maps(relations, system, vocabulary), version=version),
        },
    )


def _add_successors(concepts: pl.LazyFrame, inner: pl.LazyFrame) -> pl.LazyFrame:
    replaced = inner.filter(pl.col("relation") == _REPLACED_BY)
    successors = only_successors(replaced, code="code", successor="other_code")
    return concepts.join(successors, on="code", how="left").with_columns(
        display="name", replaced_by=pl.when(~pl.col("active")).then("replaced_by")
    )


def _read_maps(relations: pl.LazyFrame, system: str, vocabulary: str) -> pl.LazyFrame:
    itself = (pl.col("other_vocabulary") == vocabulary) & (pl.col("code") == pl.col("other_code"))
    name = re.sub(r"[^a-z0-9]+", "-", vocabulary.lower()).strip("-")
    return (
        relations.filter((pl.col("relation") == _MAPS_TO) & ~itself)
        .select("code", "other_system", "other_code", "other_name")
        .unique()
        .sort("code", "other_system", "other_code")
        .select(
            pl.lit(f"athena-{name}").alias("map"),
            source_system=pl.lit(system),
            source_code="code",
            target_system="other_system",
            target_code="other_code",
            target_display="other_name",
            relationship=pl.lit(Relationship.RELATED.value),
            group=pl.int_range(1, pl.len() + 1, dtype=pl.UInt16).over("code"),
            priority=pl.lit(1, pl.UInt16),
            rule=NO_TEXT,
            advice=NO_TEXT,
            order=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32),
        )
    )
