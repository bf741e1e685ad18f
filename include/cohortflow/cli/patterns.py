"""cohortflow patterns: the forms of identifiers, codes, contacts and dates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.errors import InputError
from cohortflow.model import Catalog

if TYPE_CHECKING:
    import polars as pl

__all__ = ["app"]

app = typer.Typer(help="Forms of identifiers, codes, contacts and dates.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _patterns() -> None:
    """Forms of identifiers, codes, contacts and dates."""


@app.command("list")
def list_patterns(
    kind: Annotated[str, typer.Option(help="identifier, code, contact or date; all by default.")] = "",
    json: JsonOption = False,
) -> None:
    """List the patterns, shipped and of the catalog; their examples are tried."""
    from cohortflow.patterns import load_patterns

    library = load_patterns(Catalog.default())
    if kind and kind not in {pattern.kind for pattern in library}:
        raise InputError(f"There is no kind '{kind}'.", remedy="Use identifier, code, contact or date.")
    rows = [
        {
            "name": pattern.name,
            "title": pattern.title,
            "kind": pattern.kind,
            "hipaa": pattern.hipaa,
            "phi": pattern.phi.name,
            "check": pattern.definition.check,
            "in_text": pattern.telling,
            "source": pattern.source,
            "place": pattern.place,
        }
        for pattern in library
        if kind in {"", pattern.kind}
    ]
    if json:
        print_json(rows)
        return
    print_table(
        "Patterns",
        ("name", "title", "kind", "HIPAA", "check digit"),
        [(row["name"], row["title"], row["kind"], row["hipaa"] or "", row["check"] or "") for row in rows],
    )


@app.command("test")
def try_pattern(
    name: Annotated[str, typer.Argument(help="Name of a pattern.")],
    values: Annotated[list[str], typer.Argument(help="Values or texts; do not use those of real people.")],
    json: JsonOption = False,
) -> None:
    """Show what a pattern makes of values: is it one, and what is found in it.

    Exits with 1 where no value is one and none contains one.
    """
    import polars as pl

    from cohortflow.patterns import load_patterns

    pattern = load_patterns(Catalog.default(), name)[name]
    value = pl.col("value")
    rows = (
        pl.DataFrame({"value": values})
        .select(value, matches=pattern.matches(value), found=pattern.find_all(value))
        .to_dicts()
    )
    if json:
        print_json(rows)
    else:
        print_table(
            pattern.title,
            ("value", "is one", "found in it"),
            [(row["value"], "yes" if row["matches"] else "no", ", ".join(row["found"])) for row in rows],
        )
    if not any(row["matches"] or row["found"] for row in rows):
        raise typer.Exit(1)


@app.command()
def scan(
    file: Annotated[Path, typer.Argument(help="A CSV, TSV, Parquet, NDJSON or text file.")],
    names: Annotated[
        list[str] | None, typer.Option("--pattern", help="Patterns to look for; all by default.")
    ] = None,
    min_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of values that a suggestion needs.")
    ] = 0.9,
    json: JsonOption = False,
) -> None:
    """Count patterns in each column of a file, and suggest what the columns hold; no value is shown."""
    from cohortflow.patterns import load_patterns, scan_table, suggest_contents
    from cohortflow.patterns.scan import has_context

    library = load_patterns(Catalog.default(), *(names or ()))
    counts = _scan(file, lambda frame: scan_table(frame, library))
    suggestions = suggest_contents(counts, library, min_share=min_share)
    if json:
        print_json(
            {
                "counts": counts.to_dicts(),
                "suggestions": [
                    {"column": item.column, "pattern": item.pattern, "share": item.share, "named": item.named}
                    for item in suggestions
                ],
            }
        )
        return
    telling = [
        row
        for row in counts.rows()
        if row[-1] or library[row[1]].telling or has_context(row[0], library[row[1]])
    ]
    print_table("Found", ("column", "pattern", "values", "are one", "contain one"), telling)
    best: dict[str, list[str]] = {}
    for item in suggestions:
        best.setdefault(item.column, []).append(f"{item.pattern} ({item.share:.0%})")
    if best:
        print_table(
            "Suggested", ("column", "holds"), [(name, ", ".join(all_)) for name, all_ in best.items()]
        )
    else:
        stdout.print("No column is suggested to hold one of them.")


def _scan(file: Path, count: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
    """Read a table and count; errors of the reader are told without what they quote of the file."""
    from polars.exceptions import PolarsError

    try:
        return count(_open_table(file))
    except OSError as error:
        raise InputError(
            f"The file cannot be read: {error.strerror or 'no such file'}.",
            place=str(file),
            remedy="Name a file that is there.",
        ) from None
    except PolarsError as error:
        raise InputError(
            f"The file is not of the format that its name says ({type(error).__name__}).",
            place=str(file),
            remedy="Give it the ending .csv, .tsv, .parquet, .ndjson or .txt, whichever it is.",
        ) from None


def _open_table(file: Path) -> pl.LazyFrame:
    import polars as pl

    if not file.is_file():
        raise InputError("There is no such file.", place=str(file), remedy="Name a file that is there.")
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in {".gz", ".zst"}]
    match suffixes[-1] if suffixes else "":
        case ".csv":
            return pl.scan_csv(file, infer_schema=False, null_values="")
        case ".tsv" | ".tab":
            return pl.scan_csv(file, separator="\t", infer_schema=False, null_values="")
        case ".parquet":
            return pl.scan_parquet(file)
        case ".ndjson" | ".jsonl":
            # All of it: a field that only late lines have may be the one that matters.
            return pl.scan_ndjson(file, infer_schema_length=None)
        case ".txt" | ".text" | ".md" | ".log" | ".hl7" | "":
            return pl.scan_lines(file, name="text")
        case suffix:
            raise InputError(
                f"Files that end in '{suffix}' cannot be scanned.",
                place=str(file),
                remedy="Convert it to CSV, TSV, Parquet, NDJSON or text.",
            )
