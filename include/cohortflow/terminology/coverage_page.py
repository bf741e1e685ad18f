"""The coverage page: what mapping did to a dataset's codes, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib import resources
from string import Template
from typing import Final

from cohortflow.terminology.coverage import MAPPED, Coverage, SystemTotals, Tally

__all__ = ["render_coverage_page"]

_LEGEND: Final = {"mapped": "mapped", "ambiguous": "mapped, several targets", "unmapped": "unmapped"}
_PUBLISHED: Final = (
    "Rows are source rows. Codes of few rows, and codes of a hospital's own systems, "
    "are counted but not named."
)
_RAW: Final = "Rows are source rows."
_WARNING: Final = (
    '<p class="warning" role="note"><strong>Not for publication.</strong> This page names every unmapped '
    "code, as the source wrote it: keep it like the records that it comes from.</p>"
)
_WIDTH, _LEFT, _BAR, _ROW = 800, 270, 420, 44


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
    return _template().substitute(
        title=escape(title),
        note=_RAW if all_codes else _PUBLISHED,
        warning=_WARNING if all_codes else "",
        body="\n".join(sections) or "<p>Nothing is mapped.</p>",
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    page = resources.files("cohortflow.terminology").joinpath("coverage_page.html")
    return Template(page.read_text(encoding="utf-8"))


def _render_map(dataset: str, coverage: Coverage) -> str:
    maps = ", ".join(f"<code>{escape(name)}</code>" for name in coverage.versions or coverage.maps)
    return "\n".join(
        [
            "<section>",
            f"<h2><code>{escape(dataset)}</code>: <code>{escape(coverage.prefix)}</code></h2>",
            f'<p class="soft">By {maps}.</p>',
            _render_figures(coverage),
            _render_chart(coverage),
            _render_systems(coverage),
            _render_reasons(coverage),
            _render_misses(coverage),
            "</section>",
        ]
    )


def _render_figures(coverage: Coverage) -> str:
    figures = {
        "Mapped": (_percent(coverage.share), coverage.mapped),
        "Unmapped": (f"{coverage.unmapped.rows:,}", coverage.unmapped),
        "Ambiguous": (_show(coverage.ambiguous), coverage.ambiguous),
        "Retired": (_show(coverage.retired), coverage.retired),
    }
    total = f"<small>of {coverage.rows:,} rows</small>"
    parts = [f"<div><dt>Rows with a code</dt><dd>{coverage.rows_with_code:,}{total}</dd></div>"]
    for name, (figure, tally) in figures.items():
        detail = (
            "not known" if tally is None else f"{_count(tally.rows, 'row')}, {_count(tally.codes, 'code')}"
        )
        parts.append(f"<div><dt>{name}</dt><dd>{figure}<small>{detail}</small></dd></div>")
    return '<dl class="summary">\n' + "\n".join(parts) + "\n</dl>"


def _render_chart(coverage: Coverage) -> str:
    """Draw one bar for each system; solid, striped and dashed tell its parts without colour."""
    if not coverage.totals:
        return ""
    height = _ROW * len(coverage.totals) + 34
    label = "Share of mapped rows by code system; the table below has the figures"
    lines = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">']
    for index, total in enumerate(coverage.totals):
        lines += _render_bar(total, index * _ROW)
    x = _LEFT
    for kind, text in _LEGEND.items():
        y = height - 26
        lines.append(_rect(kind, x, y, 14, 14))
        lines.append(f'<text class="soft" x="{x + 20}" y="{y + 12}">{text}</text>')
        x += 50 + 7 * len(text)
    return "\n".join([*lines, "</svg>"])


def _render_bar(total: SystemTotals, top: int) -> list[str]:
    ambiguous = total.ambiguous.rows if total.ambiguous else 0
    rows = {"mapped": total.mapped.rows - ambiguous, "ambiguous": ambiguous, "unmapped": total.unmapped.rows}
    lines = [f'<text x="0" y="{top + 22}">{escape(_shorten(total.system))}</text>']
    x = float(_LEFT)
    for kind, count in rows.items():
        width = _BAR * count / total.rows if total.rows else 0
        if width:
            lines.append(_rect(kind, x, top + 8, width, 20))
        x += width
    share = _percent(total.mapped.rows / total.rows if total.rows else None)
    text = f"{share} of {total.rows:,}"
    lines.append(f'<text class="soft" x="{_LEFT + _BAR + 10}" y="{top + 22}">{text}</text>')
    return lines


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    fill = ' fill="url(#stripes)"' if kind == "ambiguous" else ""
    return f'<rect class="{kind}"{fill} x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}"/>'


def _render_systems(coverage: Coverage) -> str:
    rows = [
        [_heading(total.system), f"{total.rows:,}", f"{total.codes:,}"]
        + [
            "not known" if tally is None else f"{tally.rows:,} ({tally.codes:,})"
            for tally in (total.mapped, total.unmapped, total.ambiguous, total.retired)
        ]
        for total in coverage.totals
    ]
    columns = ["Code system", "Rows", "Codes", "Mapped", "Unmapped", "Ambiguous", "Retired"]
    return _table("By code system: rows, and distinct codes in brackets.", columns, rows, numbers=6)


def _render_reasons(coverage: Coverage) -> str:
    rows = [
        [_heading(part.system), escape(part.outcome), f"{part.rows:,}", f"{part.codes:,}"]
        for part in coverage.systems
        if part.outcome not in MAPPED
    ]
    columns = ["Code system", "Reason", "Rows", "Codes"]
    return _table("Why rows have no target.", columns, rows, numbers=2) if rows else ""


def _render_misses(coverage: Coverage) -> str:
    named = any(code.display for code in coverage.top_unmapped)
    rows = [
        [
            f"<code>{escape(code.code)}</code>",
            *([escape(code.display or "")] if named else []),
            f"<code>{escape(code.system)}</code>",
            escape(code.reason),
            f"{code.rows:,}",
        ]
        for code in coverage.top_unmapped
    ]
    columns = ["Code", *(["Display"] if named else []), "Code system", "Reason", "Rows"]
    caption = f"Unmapped codes of most rows: {len(rows):,} of {coverage.unmapped.codes:,}."
    return _table(caption, columns, rows, numbers=1) if rows else ""


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """Return a table whose cells are HTML already; the last ``numbers`` columns are aligned to the right."""
    first = len(columns) - numbers
    head = "".join(
        f'<th scope="col"{_align(index >= first)}>{name}</th>' for index, name in enumerate(columns)
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(cell, number=index >= first) for index, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">\n'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _cell(cell: str, *, number: bool) -> str:
    return cell if cell.startswith("<th") else f"<td{_align(number)}>{cell}</td>"


def _align(number: bool) -> str:
    return ' class="number"' if number else ""


def _heading(system: str) -> str:
    return f'<th scope="row">{escape(system)}</th>'


def _shorten(system: str) -> str:
    """Return the end of a URI, where systems differ."""
    most = 36
    text = system.removeprefix("https://").removeprefix("http://")
    return text if len(text) <= most else "\N{HORIZONTAL ELLIPSIS}" + text[1 - most :]


def _show(tally: Tally | None) -> str:
    return "\N{EN DASH}" if tally is None else f"{tally.rows:,}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{share:.1%}"
