"""The coverage page: what mapping did to a dataset's codes, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cohortflow.report import (
    Bar,
    Markup,
    Series,
    callout,
    code,
    count_noun,
    draw_bars,
    element,
    join,
    list_figures,
    render_page,
    render_table,
)
from cohortflow.terminology.coverage import MAPPED, Coverage, SystemTotals, Tally

__all__ = ["render_coverage_page"]

_MAPPED: Final = Series("mapped", "passed", "solid")
_AMBIGUOUS: Final = Series("mapped, several targets", "warned", "hatched")
_UNMAPPED: Final = Series("unmapped", "failed", "dashed")
_PUBLISHED: Final = (
    "Rows are source rows. Codes of few rows, and codes of a hospital's own systems, "
    "are counted but not named."
)
_RAW: Final = "Rows are source rows."
_WARNING: Final = (
    "This page names every unmapped code, as the source wrote it: "
    "keep it like the records that it comes from."
)


def render_coverage_page(
    title: str, datasets: Mapping[str, Sequence[Coverage]], *, all_codes: bool = False
) -> str:
    """Return the page: for each map the figures, a chart by code system, reasons and top misses.

    Args:
        title: What was mapped, for the heading.
        datasets: The coverage of every mapping of each dataset.
        all_codes: Whether the coverages name codes that must not be published; the page then says so.
    """
    sections = [_render_map(name, coverage) for name, maps in datasets.items() for coverage in maps]
    warning = [callout("failed", "Not for publication", _WARNING)] if all_codes else []
    heading = f"Mapping coverage of {title}"
    return render_page(
        heading,
        heading,
        _RAW if all_codes else _PUBLISHED,
        [*warning, *(sections or [element("p", "Nothing is mapped.")])],
    )


def _render_map(dataset: str, coverage: Coverage) -> Markup:
    maps = join(map(code, coverage.versions or coverage.maps), ", ")
    parts = [
        element("h2", code(dataset), ": ", code(coverage.prefix)),
        element("p", "By ", maps, ".", class_="soft"),
        _list_figures(coverage),
        _draw_systems(coverage.totals),
        _render_systems(coverage),
        _render_reasons(coverage),
        _render_misses(coverage),
    ]
    return element("section", "\n", join(parts), "\n")


def _list_figures(coverage: Coverage) -> Markup:
    figures = {
        "Mapped": (_percent(coverage.share), coverage.mapped),
        "Unmapped": (f"{coverage.unmapped.rows:,}", coverage.unmapped),
        "Ambiguous": (_show(coverage.ambiguous), coverage.ambiguous),
        "Retired": (_show(coverage.retired), coverage.retired),
    }
    return list_figures(
        {"Rows with a code": (f"{coverage.rows_with_code:,}", f"of {coverage.rows:,} rows")}
        | {name: (figure, _describe(tally)) for name, (figure, tally) in figures.items()}
    )


def _describe(tally: Tally | None) -> str:
    if tally is None:
        return "not known"
    return f"{count_noun(tally.rows, 'row')}, {count_noun(tally.codes, 'code')}"


def _draw_systems(totals: Sequence[SystemTotals]) -> Markup:
    if not totals:
        return Markup()
    return draw_bars(
        "Share of mapped rows by code system; the table below has the figures",
        (_MAPPED, _AMBIGUOUS, _UNMAPPED),
        [_draw_system(total) for total in totals],
    )


def _draw_system(total: SystemTotals) -> Bar:
    ambiguous = total.ambiguous.rows if total.ambiguous else 0
    rows = {_MAPPED: total.mapped.rows - ambiguous, _AMBIGUOUS: ambiguous, _UNMAPPED: total.unmapped.rows}
    share = _percent(total.mapped.rows / total.rows if total.rows else None)
    parts = [(kind, count / total.rows if total.rows else 0) for kind, count in rows.items()]
    return Bar(_shorten(total.system), parts, f"{share} of {total.rows:,}")


def _render_systems(coverage: Coverage) -> Markup:
    rows = [
        [total.system, f"{total.rows:,}", f"{total.codes:,}"]
        + [
            "not known" if tally is None else f"{tally.rows:,} ({tally.codes:,})"
            for tally in (total.mapped, total.unmapped, total.ambiguous, total.retired)
        ]
        for total in coverage.totals
    ]
    columns = ["Code system", "Rows", "Codes", "Mapped", "Unmapped", "Ambiguous", "Retired"]
    return render_table(
        "By code system: rows, and distinct codes in brackets.", columns, rows, numbers=range(1, 7)
    )


def _render_reasons(coverage: Coverage) -> Markup:
    rows = [
        (part.system, part.outcome, f"{part.rows:,}", f"{part.codes:,}")
        for part in coverage.systems
        if part.outcome not in MAPPED
    ]
    columns = ("Code system", "Reason", "Rows", "Codes")
    return render_table("Why rows have no target.", columns, rows, numbers={2, 3}) if rows else Markup()


def _render_misses(coverage: Coverage) -> Markup:
    misses = coverage.top_unmapped
    if not misses:
        return Markup()
    named = any(miss.display for miss in misses)
    rows = [
        (
            code(miss.code),
            *([miss.display or ""] if named else []),
            code(miss.system),
            miss.reason,
            f"{miss.rows:,}",
        )
        for miss in misses
    ]
    columns = ("Code", *(["Display"] if named else []), "Code system", "Reason", "Rows")
    caption = f"Unmapped codes of most rows: {len(rows):,} of {coverage.unmapped.codes:,}."
    return render_table(caption, columns, rows, numbers={len(columns) - 1})


def _shorten(system: str) -> str:
    """Return the end of a URI, where systems differ."""
    most = 36
    text = system.removeprefix("https://").removeprefix("http://")
    return text if len(text) <= most else "\N{HORIZONTAL ELLIPSIS}" + text[1 - most :]


def _show(tally: Tally | None) -> str:
    return "\N{EN DASH}" if tally is None else f"{tally.rows:,}"


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{share:.1%}"
