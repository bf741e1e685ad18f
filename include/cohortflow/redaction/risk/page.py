"""The risk page of a release, for the privacy board: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from importlib import resources
from string import Template
from typing import Final

from cohortflow.redaction.risk.chart import draw_sizes
from cohortflow.redaction.risk.report import RiskFigures, RiskReport, Verdict

__all__ = ["render_risk_page"]

_VERDICTS: Final[dict[Verdict, tuple[str, str, str]]] = {
    "measured": (
        "idle",
        "Measured only",
        "Neither the study nor the environment demands a least size of classes.",
    ),
    "met": ("passed", "Demands met", "Nothing had to be suppressed."),
    "suppressed": ("passed", "Demands met after suppression", "What was taken out is listed below."),
    "missed": ("failed", "Demands not met", "Nothing was published."),
    "unknown": (
        "idle",
        "Nothing to measure",
        "No published dataset has a column that others may know of a subject.",
    ),
}

_ROWS: Final = (
    ("k", "Smallest class (k)", "Subjects who share all of their quasi-identifiers form a class."),
    ("unique", "Subjects alone in their class", ""),
    ("small", "Subjects in small classes", "Classes that are smaller than the least count that is shown."),
    ("below", "Subjects in classes below the demanded k", ""),
    ("prosecutor", "Prosecutor: greatest chance", "Somebody looks for a person known to be in the data."),
    ("average", "Prosecutor: mean chance", "The same, over all subjects."),
    ("journalist", "Journalist: greatest chance", "Somebody looks for any person of the population."),
    ("k_map", "Fewest people alike in the population (k-map)", ""),
    ("marketer", "Marketer: share found", "Somebody matches everybody with a register."),
)


def render_risk_page(report: RiskReport) -> str:
    """Return the page: verdict, chart before and after, risks, quasi-identifiers, sensitive columns."""
    tone, verdict, explanation = _VERDICTS[report.verdict]
    if report.failures:
        explanation = f"Missed: {', '.join(report.failures)}. {explanation}"
    return _template().substitute(
        study=escape(report.study),
        title=escape(report.title),
        interval=escape(report.interval),
        environment=escape(report.environment),
        policy=escape(report.policy),
        tone=tone,
        verdict=verdict,
        explanation=escape(explanation),
        body="\n".join(_render_body(report)),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    page = resources.files("cohortflow.redaction.risk").joinpath("page.html")
    return Template(page.read_text(encoding="utf-8"))


def _render_body(report: RiskReport) -> Iterable[str]:
    before, after = report.before, report.after
    if before is not None and after is not None:
        yield _render_summary(report, after)
        yield "<h2>Class sizes</h2>"
        yield (
            '<div class="scroll" role="region" aria-label="Chart of class sizes" tabindex="0">'
            f"{draw_sizes(before.sizes, after.sizes)}</div>"
        )
        yield _table(
            f"Share of subjects by the size of their class. Counts from 1 to {report.small_cell - 1} are not"
            " shown, nor those that would give them away.",
            ("Subjects in the class", "Before suppression", "As published"),
            [
                (_code(b.label), b.subjects, a.subjects)
                for b, a in zip(before.sizes, after.sizes, strict=True)
            ],
        )
        yield "<h2>Risks</h2>"
        yield _table(
            _explain_population(report),
            ("Risk", "Before suppression", "As published"),
            [
                (_describe(label, note), escape(getattr(before, key)), escape(getattr(after, key)))
                for key, label, note in _ROWS
                if getattr(after, key)
            ],
        )
    yield "<h2>What others are taken to know</h2>"
    yield _table(
        "Quasi-identifiers, the most important to keep first."
        f" Subjects left out as a whole: {escape(report.removed)}.",
        ("Quasi-identifier", "Compared by", "Subjects whose value was suppressed"),
        [
            (_code(column.name), escape(column.compared), escape(column.suppressed))
            for column in report.quasi_identifiers
        ],
        numbers=1,
    )
    if report.excluded:
        yield _table(
            "Published columns that others are taken not to know, as the study says.",
            ("Column", "Reason"),
            [(_code(name), escape(reason)) for name, reason in report.excluded.items()],
            numbers=0,
        )
    if report.unpublished:
        names = ", ".join(_code(name) for name in report.unpublished)
        yield f"<p>Declared, but not published: {names}.</p>"
    if before is not None and after is not None and after.sensitive:
        yield "<h2>What they must not learn</h2>"
        yield _render_sensitive(before, after)
    yield _SOURCES


def _render_summary(report: RiskReport, after: RiskFigures) -> str:
    figures = {
        "Subjects published": after.subjects,
        "Quasi-identifiers": str(len(report.quasi_identifiers)),
        **{f"Demanded {name}": value for name, value in report.demand.items()},
        "Smallest class": after.k,
        "Subjects left out": report.removed,
    }
    items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures.items())
    return '<dl class="summary">\n' + "\n".join(items) + "\n</dl>"


def _explain_population(report: RiskReport) -> str:
    if report.population:
        name = escape(report.population)
        return f"Journalist and marketer are measured against the population table '{name}'."
    return "Without a population table the marketer is taken to know exactly who is in the data."


def _render_sensitive(before: RiskFigures, after: RiskFigures) -> str:
    rows = [
        (
            _code(published.column),
            when,
            escape(item.distinct_l),
            escape(item.entropy_l),
            escape(item.recursive),
            escape(item.t),
            escape(item.failing),
        )
        for first, published in zip(before.sensitive, after.sensitive, strict=True)
        for when, item in (("before suppression", first), ("as published", published))
    ]
    header = (
        "Sensitive column",
        "When",
        "Least different values (l)",
        "Entropy l",
        "Recursive (c, l)",
        "Greatest distance (t)",
        "Subjects in classes that miss the demand",
    )
    caption = "The worst class decides: the larger l and the smaller t, the less a class gives away."
    return _table(caption, header, rows, numbers=5)


def _table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int | None = None
) -> str:
    """Return a table; the last ``numbers`` columns, or all but the first, are set to the right."""
    first = 1 if numbers is None else len(header) - numbers
    style = [' class="number"' if position >= first else "" for position in range(len(header))]
    head = "".join(f'<th{kind} scope="col">{name}</th>' for name, kind in zip(header, style, strict=True))
    lines = []
    for row in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], style[1:], strict=True))
        lines.append(f'<tr><th scope="row">{row[0]}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(header[0])}" tabindex="0">\n<table>\n'
        f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _code(name: str) -> str:
    return f"<code>{escape(name)}</code>"


def _describe(label: str, note: str) -> str:
    return f"{label}<br><span class='soft'>{note}</span>" if note else label


_SOURCES: Final = """<h2>How it is measured</h2>
<p>A missing value counts as a value of its own. k-anonymity: Sweeney 2002. l-diversity: Machanavajjhala,
Kifer, Gehrke, Venkitasubramaniam 2007. t-closeness, with the variational distance between categories and
the ordered distance between numbers: Li, Li, Venkatasubramanian 2007. Prosecutor, journalist, marketer:
El Emam, Dankar 2008; Dankar, El Emam 2010.</p>
<p>The figures hold for the quasi-identifiers named above and for this data interval alone. They say
nothing of what somebody may know beyond them.</p>"""
