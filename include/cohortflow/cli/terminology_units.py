"""cohortflow terminology units: what units mean, how values convert, which unit a code has."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.cli.terminology_options import JsonOption
from cohortflow.errors import InputError
from cohortflow.model import Catalog
from cohortflow.terminology.systems import LOINC, canonical_code, canonical_system
from cohortflow.terminology.unit_catalog import load_unit_catalog

if TYPE_CHECKING:
    from cohortflow.terminology.unit_table import UnitReading, UnitTable

__all__ = ["units"]

units = typer.Typer(
    help="Units: what they mean, how values convert, which unit a code has.", no_args_is_help=True
)

CodeOption = Annotated[str, typer.Option("--code", help="A code that has a canonical unit, such as 2345-7.")]
SystemOption = Annotated[str, typer.Option("--system", help="Its code system.")]


@units.command()
def check(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[UNIT]...", help="Units as a source writes them; without: the catalog."),
    ] = None,
    code: CodeOption = "",
    system: SystemOption = LOINC.title,
    json: JsonOption = False,
) -> None:
    """Tell what units are: UCUM, a listed spelling, or unknown, and what they are for a code."""
    table = _open_table()
    if not texts:
        _print_size(table, json=json)
        return
    found = [_describe(table, text) for text in texts]
    unknown = not all(table.read(text) for text in texts)
    if code:
        key = _find_code(table, system, code)
        for entry, text in zip(found, texts, strict=True):
            reading = table.resolve(*key, text)
            entry |= {"status": str(reading.status), "in_canonical_unit": _formula(table, key, reading)}
            unknown = unknown or reading.conversion is None
    if json:
        print_json(found)
    else:
        names = [name for name in found[0] if name != "dimension"]
        rows = [tuple(_show(entry[name]) for name in names) for entry in found]
        print_table("Units", [name.replace("_", " ") for name in names], rows)
    if unknown:
        raise typer.Exit(1)


@units.command()
def convert(
    value: Annotated[float, typer.Argument(help="A number.")],
    unit: Annotated[str, typer.Argument(help="Its unit, as a source writes it.")],
    code: CodeOption = "",
    system: SystemOption = LOINC.title,
    to: Annotated[str, typer.Option("--to", help="A UCUM unit, in place of a code's.")] = "",
    json: JsonOption = False,
) -> None:
    """Convert a value to the canonical unit of a code, or to another unit."""
    if bool(code) == bool(to):
        raise InputError("Name what to convert to.", remedy="Give --code, or --to with a unit: one of them.")
    if not isfinite(value):
        raise InputError("The value is no number.", remedy="Give one, such as 5.5.")
    table = _open_table()
    if code:
        key = _find_code(table, system, code)
        reading, target = table.resolve(*key, unit), table.catalog.codes[key].unit
        conversion, status = reading.conversion, str(reading.status)
    else:
        from cohortflow.terminology.ucum import convert as find_conversion
        from cohortflow.terminology.ucum import parse_unit

        target, wanted = to, parse_unit(to)
        meanings = table.read(unit)
        found = {c for c in (find_conversion(meaning, wanted) for meaning in meanings) if c is not None}
        conversion = found.pop() if len(found) == 1 else None
        status = "converted" if conversion else "incompatible" if meanings else "unknown_unit"
    if conversion is None:
        raise InputError(
            f"'{unit}' does not convert to '{target}': {status}.",
            remedy="See 'cohortflow terminology units check' for what the unit is.",
        )
    result = float(Fraction(str(value)) * conversion.factor + conversion.offset)
    if json:
        print_json({"value": result, "unit": target, "status": status})
    else:
        stdout.print(f"{result:.10g} {target} ({status})", markup=False, highlight=False)


@units.command("list")
def list_units(
    text: Annotated[str, typer.Argument(help="Only codes whose code or name has this text.")] = "",
    json: JsonOption = False,
) -> None:
    """List the codes that have a canonical unit."""
    wanted = text.casefold()
    rows = [
        {
            "code": entry.code,
            "name": entry.name,
            "unit": entry.unit,
            "plausible": list(entry.plausible) if entry.plausible else None,
            "system": entry.system,
        }
        for entry in load_unit_catalog(Catalog.default()).codes.values()
        if wanted in entry.code.casefold() or wanted in entry.name.casefold()
    ]
    if json:
        print_json(rows)
        return
    print_table(
        "Canonical units",
        ["code", "name", "unit", "plausible"],
        [(row["code"], row["name"], row["unit"], _limits(row["plausible"])) for row in rows],
    )


def _open_table() -> UnitTable:
    from cohortflow.terminology.unit_table import UnitTable

    return UnitTable(load_unit_catalog(Catalog.default()))


def _find_code(table: UnitTable, system: str, code: str) -> tuple[str, str]:
    uri = canonical_system(system) or system
    key = (uri, canonical_code(uri, code))
    if key not in table.catalog.codes:
        raise InputError(
            f"The catalog has no unit for '{code}' of {system}.",
            remedy="Find codes with 'cohortflow terminology units list TEXT', or add it: docs/units.md.",
        )
    return key


def _describe(table: UnitTable, text: str) -> dict[str, Any]:
    from cohortflow.terminology.ucum import parse_unit

    entry: dict[str, Any] = {"unit": text, "ucum": False, "dimension": {}}
    try:
        entry |= {"ucum": True, "dimension": dict(parse_unit(text).dimensions)}
        fault = ""
    except InputError as error:
        fault = error.message
    spellings = [unit for unit in table.spelled_as(text) if unit != text]
    if not entry["ucum"] and not spellings and table.read(text):
        from cohortflow.terminology.unit_table import clean_unit

        spellings = [clean_unit(text)]
    if entry["ucum"] and not table.read(text):
        fault = "A number in it is neither a power of ten nor 24, so that it is not taken for a unit."
    return entry | {"spelling_of": spellings, "fault": "" if spellings else fault}


def _formula(table: UnitTable, key: tuple[str, str], reading: UnitReading) -> str:
    if reading.conversion is None:
        return ""
    factor, offset = float(reading.conversion.factor), float(reading.conversion.offset)
    shift = f" {'+' if offset > 0 else '-'} {abs(offset):.6g}" if offset else ""
    return f"x {factor:.6g}{shift} {table.catalog.codes[key].unit}"


def _show(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return ", ".join(cell) if isinstance(cell, list) else str(cell)


def _limits(plausible: object) -> str:
    return f"{plausible[0]:g} to {plausible[1]:g}" if isinstance(plausible, list) else ""


def _print_size(table: UnitTable, *, json: bool) -> None:
    catalog = table.catalog
    size = {
        "files": len(catalog.files),
        "codes": len(catalog.codes),
        "units": len({entry.unit for entry in catalog.codes.values()}),
        "spellings": sum(len(texts) for texts in catalog.spellings.values()),
    }
    if json:
        print_json(size)
    else:
        print_table("The catalog's units are sound", list(size), [tuple(size.values())])
