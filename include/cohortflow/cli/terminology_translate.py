"""cohortflow terminology translate and expand: what a map or a value set makes of codes."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.cli.terminology_options import JsonOption, StoreOption, SystemArgument, open_store_option
from cohortflow.errors import CatalogError, InputError
from cohortflow.model import Catalog

if TYPE_CHECKING:
    import polars as pl

    from cohortflow.terminology.compose import Compose

__all__ = ["expand", "translate"]


def translate(  # noqa: PLR0913, PLR0917 - the options of the command
    system: SystemArgument,
    codes: Annotated[list[str], typer.Argument(help="Codes, in any spelling.")],
    maps: Annotated[
        list[str],
        typer.Option(
            "--map",
            help="A map of the catalog, or 'terminology:NAME[|VERSION]' of what is loaded; "
            "'A > B' is a path. Of several, the first with a target counts.",
        ),
    ],
    sex: Annotated[str, typer.Option(help="Sex, for maps with rules: female or male.")] = "",
    age: Annotated[float | None, typer.Option(min=0, help="Age in years, for maps with rules.")] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Go on to the next rule where one cannot be decided.")
    ] = False,
    replace_retired: Annotated[
        bool, typer.Option("--replace-retired", help="Map a retired code as its successor.")
    ] = False,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Show every target of codes, best first, or the reason why there is none."""
    import polars as pl

    from cohortflow.terminology import CodeMapping, map_codes, mapped_columns
    from cohortflow.terminology.mapping import PatientContext
    from cohortflow.workflow.code_maps import load_code_map, load_map_content

    mapping = CodeMapping(
        maps=tuple(maps),
        prefix="to",
        cardinality="all",
        context=PatientContext(sex="sex", age="age"),
        undecided="default" if default else "unmapped",
        replace_retired=replace_retired,
    )
    catalog = Catalog.default()
    found = [load_code_map(catalog, name, lambda: open_store_option(store)) for name in maps]
    content = load_map_content(mapping, found, lambda: open_store_option(store))
    frame = pl.LazyFrame(
        {"code_system": [system] * len(codes), "code": codes, "sex": [sex or None] * len(codes)},
        schema=dict.fromkeys(("code_system", "code", "sex"), pl.String()),
    ).with_columns(pl.lit(age, pl.Float64).alias("age"))
    names = {column.name: column.name.removeprefix("to_") for column in mapped_columns(mapping)}
    rows = (
        map_codes(frame, mapping, found, content=content)
        .select(pl.col("code").alias("source"), *(pl.col(name).alias(part) for name, part in names.items()))
        .collect()
    )
    _print_rows(f"{system} by {', '.join(maps)}", rows, json=json)


def expand(
    value_set: Annotated[
        str,
        typer.Argument(
            metavar="VALUESET",
            help="A value set of the catalog, a file, or a URL: http://snomed.info/sct?fhir_vs=isa/73211009.",
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="Most members to show; --json prints all.")] = 50,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """List the members of a value set, in the loaded versions."""
    from cohortflow.lake.expansions import StoredExpansions
    from cohortflow.terminology import expansion

    compose = _read_compose(value_set)
    terminologies = open_store_option(store)
    rows = expansion.expand(compose, terminologies, cache=StoredExpansions(terminologies.store)).collect()
    if json:
        print_json(rows.to_dicts())
        return
    _print_rows(compose.title, rows.head(count), json=False)
    if rows.height > count:
        stdout.print(f"{count:,} of {rows.height:,} members; --json prints all.")


def _read_compose(text: str) -> Compose:
    from cohortflow.terminology.compose import find_value_set, implicit_value_set, load_compose, parse_compose

    catalog = Catalog.default()
    implicit = implicit_value_set(text)
    if implicit is not None:
        return implicit
    path = Path(text)
    if path.suffix != ".json" and not path.is_file():
        return load_compose(catalog, find_value_set(catalog, text) or text)
    try:
        data = json_format.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The file cannot be read: {error.strerror}.", place=text, remedy="Name a file that is there."
        ) from None
    except ValueError as error:
        raise CatalogError(f"Not JSON: {error}.", place=text, remedy="Mend the file.") from None
    if not isinstance(data, dict):
        raise CatalogError("A ValueSet must be an object.", place=text, remedy="Mend the file.")

    def find(url: str) -> Compose | None:
        name = find_value_set(catalog, url)
        return load_compose(catalog, name) if name is not None else None

    return parse_compose(data, name=path.stem, place=text, find=find)


def _print_rows(title: str, rows: pl.DataFrame, *, json: bool) -> None:
    if json:
        print_json(rows.to_dicts())
        return
    # A column that says nothing anywhere is left out.
    shown = [name for name in rows.columns if rows[name].null_count() < rows.height]
    cells: list[list[Any]] = [
        ["" if cell is None else cell for cell in row] for row in rows.select(shown).rows()
    ]
    print_table(title, [name.replace("_", " ") for name in shown], cells)
