"""cohortflow terminology subsumes and diff: one code, or one version, beside another."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from cohortflow.cli.console import print_json, print_table, stdout
from cohortflow.cli.terminology_options import (
    JsonOption,
    StoreOption,
    SystemArgument,
    VersionOption,
    open_store_option,
)
from cohortflow.errors import InputError
from cohortflow.terminology.systems import canonical_code, canonical_system

__all__ = ["diff", "subsumes"]


def subsumes(
    system: SystemArgument,
    code_a: Annotated[str, typer.Argument(metavar="A", help="A code.")],
    code_b: Annotated[str, typer.Argument(metavar="B", help="Another code.")],
    version: VersionOption = "",
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Tell how two codes are related: equivalent, subsumes, subsumed-by or not-subsumed."""
    from cohortflow.terminology import comparison

    terminologies = open_store_option(store)
    release = terminologies.release(system, version or None)
    a, b = (canonical_code(release.system, code) for code in (code_a, code_b))
    outcome = comparison.subsumes(terminologies.tables(release.system, release.version), a, b)
    if json:
        print_json({"system": release.system, "version": release.version, "a": a, "b": b, "outcome": outcome})
    else:
        stdout.print(outcome)


def diff(
    system: SystemArgument,
    old: Annotated[str, typer.Argument(metavar="V1", help="The older version.")],
    new: Annotated[str, typer.Argument(metavar="V2", help="The newer version.")],
    limit: Annotated[int, typer.Option(min=0, help="Most codes to show; --json prints all.")] = 50,
    store: StoreOption = "",
    json: JsonOption = False,
) -> None:
    """Show what changed between two versions: added, removed, retired, reinstated and renamed codes."""
    from cohortflow.terminology.comparison import CHANGE_KINDS, compare_releases

    terminologies = open_store_option(store)
    uri = canonical_system(system)
    tables = [terminologies.tables(uri, version) for version in (old, new)]
    if lacking := [
        version for version, found in zip((old, new), tables, strict=True) if "concepts" not in found
    ]:
        raise InputError(f"Version '{lacking[0]}' of {uri} has no concepts.", remedy="Compare code systems.")
    changes = compare_releases(tables[0], tables[1]).collect()
    counts = Counter(changes["change"].to_list())
    summary = {kind: counts[kind] for kind in CHANGE_KINDS}
    if json:
        print_json({"system": uri, "old": old, "new": new, "counts": summary, "changes": changes.to_dicts()})
        return
    print_table(f"{uri}: {old} to {new}", ["change", "codes"], list(summary.items()))
    if limit and changes.height:
        title = "Changes" if changes.height <= limit else f"The first {limit:,} of {changes.height:,} changes"
        rows = changes.head(limit).select("change", "code", "before", "after", "replaced_by")
        print_table(
            title,
            ["change", "code", "before", "after", "replaced by"],
            [tuple(cell or "" for cell in row) for row in rows.iter_rows()],
        )
