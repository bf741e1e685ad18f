"""cohortflow terminology suggest and accept: from local codes to a reviewed map."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cohortflow.cli.console import BarProgress, print_json, stdout
from cohortflow.cli.terminology_coverage import write_private
from cohortflow.cli.terminology_options import JsonOption, StoreOption, VersionOption, open_store_option
from cohortflow.errors import CatalogError, InputError
from cohortflow.model import Catalog
from cohortflow.terminology.coverage import NO_SYSTEM, OTHER_SYSTEM

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.workflow.local_codes import Vocabulary

__all__ = ["accept", "suggest"]

_COLUMNS = {"code": "code", "system": "system", "code_system": "system", "display": "display"} | {
    "code_display": "display",
    "rows": "rows",
    "count": "rows",
}
"""Names of the columns of a CSV of local codes, and what they hold."""
_STEP = 50
"""Codes between two moves of the bar."""


class Fhir(StrEnum):
    """Versions of FHIR in which a map can be written."""

    R4 = "R4"
    R5 = "R5"


def suggest(  # noqa: PLR0913, PLR0917 - the options of the command
    codes: Annotated[
        Path,
        typer.Argument(
            help="What 'coverage --all-codes' wrote, .json; or a .csv of code, system, display and count."
        ),
    ],
    target: Annotated[str, typer.Option(help="Code system to map to: its URI, OID or name, such as LOINC.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Review file to write: .csv or .yaml.")],
    top: Annotated[int, typer.Option(min=1, max=100, help="Most candidates for a code.")] = 5,
    least: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="Least score of a candidate, 0 to 1.")
    ] = 0.2,
    limit: Annotated[int, typer.Option(min=1, help="Most codes, those of most rows first.")] = 1000,
    version: VersionOption = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the review file if there is one.")
    ] = False,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Propose concepts for unmapped codes by the likeness of their names, for people to review."""
    if out.suffix not in {".csv", ".yaml"}:
        raise InputError("A review file is .csv or .yaml.", place=str(out), remedy="Name such a file.")
    if out.exists() and not replace:
        raise InputError(
            "The review file is there already.", place=str(out), remedy="Name another one, or add --replace."
        )
    from cohortflow.terminology.review_file import format_review
    from cohortflow.workflow.local_codes import find_vocabulary

    wanted = _read_codes(codes)
    usable = wanted.filter(~wanted["system"].is_in([NO_SYSTEM, OTHER_SYSTEM, ""]), wanted["code"] != "")
    vocabulary = find_vocabulary(Catalog.default(), open_store_option(store), target, version or None)
    left_out = wanted.height - usable.height
    usable = usable.filter(usable["system"] != vocabulary.system)  # these need no map
    rows = _find_candidates(usable.head(limit), vocabulary, top, least)
    write_private(out, format_review(rows, out.suffix))
    facts = {
        "review": str(out),
        "vocabulary": vocabulary.label,
        "codes": min(usable.height, limit),
        "without_candidate": sum(not row["target_code"] for row in rows),
        "left_out": left_out,
        "over_limit": max(0, usable.height - limit),
    }
    if json:
        print_json(facts)
        return
    stdout.print(
        f"[green]{escape(str(out))}[/] {facts['codes']:,} codes, {facts['without_candidate']:,} of them "
        f"without a candidate, beside {escape(vocabulary.label)}",
        highlight=False,
        soft_wrap=True,
    )
    if facts["left_out"]:
        stdout.print(
            f"[yellow]{facts['left_out']:,} codes without a code system were left out[/]: no map finds them"
        )
    if facts["over_limit"]:
        stdout.print(f"[yellow]{facts['over_limit']:,} codes of fewer rows were left out[/] (--limit)")


def accept(
    review: Annotated[Path, typer.Argument(help="A review file with decisions: .csv or .yaml.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Map to write: include/catalog/conceptmaps/NAME.json.")
    ],
    title: Annotated[str, typer.Option(help="Title of a new map.")] = "",
    fhir: Annotated[Fhir, typer.Option(help="Version of FHIR of a new map.")] = Fhir.R5,
    update: Annotated[
        bool, typer.Option("--update", help="Add to the map that is there; what is decided anew is replaced.")
    ] = False,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Turn what reviewers accepted into a ConceptMap: all of it, or nothing."""
    if out.suffix != ".json":
        raise InputError("A map is a .json file.", place=str(out), remedy="Name such a file.")
    from cohortflow.terminology import parse_concept_map
    from cohortflow.terminology.review import check_review
    from cohortflow.terminology.review_file import read_review
    from cohortflow.terminology.reviewed_map import build_reviewed_map
    from cohortflow.workflow.local_codes import known_targets

    earlier = _read_earlier(out, update=update)
    rows = read_review(review)
    pairs = [row.target for row in rows if row.decision and row.target_system]
    targets, systems = known_targets(Catalog.default(), open_store_option(store), pairs)
    decided = check_review(rows, targets, systems, str(review))
    document = build_reviewed_map(
        decided, targets, name=out.stem, title=title, fhir=fhir.value, earlier=earlier
    )
    written = parse_concept_map(document, name=out.stem, place=str(out))
    write_private(out, json_format.dumps(document, indent=2, ensure_ascii=False) + "\n")
    out.chmod(0o644)  # the catalog is read by every run, and kept in version control
    facts: dict[str, Any] = {
        "map": str(out),
        "version": written.version,
        "decisions": len(decided),
        "open": sum(not row.decision for row in rows),
        "entries": len(written.entries),
    }
    if json:
        print_json(facts)
        return
    stdout.print(
        f"[green]{escape(str(out))}[/] version {escape(written.version)}: {len(written.entries):,} mappings, "
        f"{len(decided):,} of this review; {facts['open']:,} rows are open",
        highlight=False,
        soft_wrap=True,
    )
    maps = Catalog.default().root / "conceptmaps"
    first = "" if out.resolve().parent == maps.resolve() else f"Put it into {maps}. "
    stdout.print(
        f"{escape(first)}Name '{escape(out.stem)}' in the maps of a template, and the next run uses it.",
        soft_wrap=True,
    )


def _read_codes(path: Path) -> pl.DataFrame:
    """Return ``system``, ``code``, ``display`` and ``rows`` of local codes, most rows first."""
    import polars as pl

    from cohortflow.terminology.normalize import spell

    if not path.is_file():
        raise InputError("There is no such file.", place=str(path), remedy="Name one that is there.")
    schema = {"system": pl.String(), "code": pl.String(), "display": pl.String(), "rows": pl.Int64()}
    found = pl.DataFrame(_read_report(path), schema=schema) if path.suffix == ".json" else _read_csv(path)
    return (
        spell(found)
        .with_columns(pl.col("system").fill_null(""), pl.col("code").fill_null(""))
        .sort("rows", "display", descending=[True, False], nulls_last=True)
        .group_by("system", "code", maintain_order=True)
        .agg(pl.col("display").drop_nulls().first(), pl.col("rows").sum())
        .sort("rows", "system", "code", descending=[True, False, False], nulls_last=True)
    )


def _read_report(path: Path) -> list[dict[str, Any]]:
    try:
        document = json_format.loads(path.read_text(encoding="utf-8"))
        parts = [part for maps in document["coverage"].values() for part in maps.values()]
        return [
            {name: code.get(name) for name in ("system", "code", "display", "rows")}
            for part in parts
            for code in part["top_unmapped"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            "Not a report on coverage.",
            place=str(path),
            remedy="Use what 'cohortflow terminology coverage --all-codes --out FILE' wrote.",
        ) from None


def _read_csv(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        table = pl.read_csv(path, infer_schema=False)
        names = {
            name: _COLUMNS[name.strip().lower()] for name in table.columns if name.strip().lower() in _COLUMNS
        }
        table = table.select(list(names)).rename(names)
    except pl.exceptions.PolarsError:
        # Its text may quote the file.
        raise InputError(
            "Not a CSV file.", place=str(path), remedy="Write it as UTF-8, with commas."
        ) from None
    if missing := [name for name in ("code", "system") if name not in table.columns]:
        raise InputError(
            f"There is no column '{missing[0]}'.",
            place=str(path),
            remedy="Use code, system, display and count.",
        )
    absent = [
        pl.lit(None, pl.String).alias(name) for name in ("display", "rows") if name not in table.columns
    ]
    table = table.with_columns(absent).with_columns(count=pl.col("rows").cast(pl.Int64, strict=False))
    if table.filter(pl.col("rows").is_not_null(), pl.col("count").is_null()).height:
        raise InputError("A count is no whole number.", place=str(path), remedy="Mend the column.")
    return table.select("system", "code", "display", pl.col("count").fill_null(1).alias("rows"))


def _find_candidates(
    codes: pl.DataFrame, vocabulary: Vocabulary, top: int, least: float
) -> list[dict[str, object]]:
    """Return the rows of a review: each code with its candidates, or alone where it has none."""
    import polars as pl

    from cohortflow.terminology.suggest import TermIndex

    # A code without a name may be an abbreviation of one.
    texts = codes.select(pl.coalesce("display", "code"))["display"]
    with BarProgress() as progress:
        progress.update("index terms", 0)
        index = TermIndex.build(vocabulary.terms)
        parts = []
        for start in range(0, len(texts), _STEP):
            progress.update("compare", start, len(texts), "codes")
            found = index.search(texts.slice(start, _STEP), top=top, least=least)
            parts.append(found.with_columns(pl.col("query") + start))
    candidates = pl.concat(parts) if parts else index.search(texts)
    return (
        codes.select(
            pl.col("system").alias("source_system"),
            pl.col("code").alias("source_code"),
            pl.col("display").alias("source_display"),
            pl.col("rows").alias("source_rows"),
        )
        .with_row_index("query")
        .join(candidates, on="query", how="left", maintain_order="left_right")
        .join(vocabulary.concepts.collect(), on="code", how="left", maintain_order="left")
        .select(
            pl.col("^source_.*$"),
            pl.lit(vocabulary.system).alias("target_system"),
            pl.col("code").alias("target_code"),
            pl.col("display").alias("target_display"),
            pl.col("term").alias("matched_term"),
            "score",
        )
        .to_dicts()
    )


def _read_earlier(path: Path, *, update: bool) -> Mapping[str, Any] | None:
    if not path.exists():
        return None
    if not update:
        raise InputError(
            "The map is there already.",
            place=str(path),
            remedy="Add to it with --update, or name another file.",
        )
    try:
        document = json_format.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CatalogError(f"Not JSON: {error}.", place=str(path), remedy="Mend the file.") from None
    if not isinstance(document, dict):
        raise CatalogError("A ConceptMap must be an object.", place=str(path), remedy="Mend the file.")
    return document
