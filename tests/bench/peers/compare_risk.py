"""k, l and t of tables, by Cohortflow and by pycanon in an environment of its own.

Each table is measured as it is and after Cohortflow's suppression to k = 11, with suppressed values as a
star. pycanon rounds the l of entropy l-diversity down to a whole number, so ours is rounded down to compare,
and a whole number that floating point sums leave just below itself counts as itself. Its c of recursive
(c, l)-diversity is computed from ascending counts, the definition's from descending ones, so c is not
compared.

Usage: ``python tests/bench/peers/compare_risk.py``; ``--golden FILE`` keeps pycanon's figures for the tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from compare import WORK, environment
from risk_tables import TABLES, Table

from cohortflow.cli.console import print_table, stdout
from cohortflow.redaction.risk import RiskDemand, measure_risk, meet_demand

HERE = Path(__file__).parent
TOLERANCE = 1e-9
DEMANDED = 11


def suppress(table: Table) -> Table:
    """Return a table as it would be published with k = 11."""
    frame = pl.LazyFrame(table.columns)
    left = meet_demand(frame, table.quasi_identifiers, table.sensitive, RiskDemand(k=DEMANDED)).subjects
    starred = left.with_columns(pl.col(table.quasi_identifiers).cast(pl.String).fill_null("*"))
    return dataclasses.replace(
        table, name=f"{table.name}, k = {DEMANDED}", columns=starred.to_dict(as_series=False)
    )


def ask_pycanon(tables: list[Table]) -> dict[str, Any]:
    """Return pycanon's version and its measures of all tables."""
    WORK.mkdir(parents=True, exist_ok=True)
    content = json.dumps([dataclasses.asdict(table) for table in tables])
    command = [environment("pycanon"), str(HERE / "risk_pycanon.py")]
    answer = subprocess.run(command, input=content, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(answer.stdout)
    return measured


def compare(table: Table, theirs: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return one row per measure: table, measure, ours, theirs, whether they agree."""
    frame = pl.LazyFrame(table.columns)
    ours = measure_risk(frame, table.quasi_identifiers, table.sensitive)
    rows = [(table.name, "k", ours.k, theirs["k"], ours.k == theirs["k"])]
    for item in ours.sensitive:
        their = theirs["sensitive"][item.column]
        rows += [
            (table.name, f"l of {item.column}", item.distinct_l, their["l"], item.distinct_l == their["l"]),
            (
                table.name,
                f"entropy l of {item.column}",
                item.entropy_l,
                their["entropy_l"],
                their["entropy_l"]
                in {math.floor(item.entropy_l + TOLERANCE), math.floor(item.entropy_l - TOLERANCE)},
            ),
            (
                table.name,
                f"t of {item.column}",
                item.t,
                their["t"],
                math.isclose(item.t, their["t"], abs_tol=TOLERANCE),
            ),
        ]
    return [
        (name, measure, f"{mine:.6g}", f"{their:.6g}", "agrees" if same else "DIFFERS")
        for name, measure, mine, their, same in rows
    ]


def main() -> int:
    """Compare, print the table, and return 1 where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--golden", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    tables = [*TABLES, *map(suppress, TABLES)]
    measured = ask_pycanon(tables)
    rows = [
        row
        for table, theirs in zip(tables, measured["measures"], strict=True)
        for row in compare(table, theirs)
    ]
    print_table(
        f"Cohortflow and pycanon {measured['pycanon']}",
        ["table", "measure", "Cohortflow", "pycanon", ""],
        rows,
    )
    differing = sum(row[-1] != "agrees" for row in rows)
    stdout.print(f"{len(rows) - differing} of {len(rows)} measures agree")
    if arguments.golden:
        arguments.golden.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
