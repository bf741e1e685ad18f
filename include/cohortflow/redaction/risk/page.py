"""The risk page of a release, for the privacy board: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cohortflow.redaction.risk.report import RiskFigures, RiskReport, SizeRange, Verdict
from cohortflow.report import (
    Bar,
    Markup,
    Series,
    Tone,
    callout,
    code,
    concat,
    draw_bars,
    element,
    join,
    list_figures,
    render_page,
    render_table,
    soft,
)

__all__ = ["render_risk_page"]

_VERDICTS: Final[dict[Verdict, tuple[Tone, str, str]]] = {
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

_BEFORE: Final = Series("before suppression", "plain", "solid")
_AFTER: Final = Series("as published", "plain", "hatched")
_HIDDEN: Final = Series("too few to be shown, or would tell them", "idle", "dashed")
_UNKNOWN: Final = 0.08
"""Length of the bar of a count that is not shown."""

_METHODS: Final = (
    "A missing value counts as a value of its own. k-anonymity: Sweeney 2002. l-diversity: Machanavajjhala,"
    " Kifer, Gehrke, Venkitasubramaniam 2007. t-closeness, with the variational distance between categories"
    " and the ordered distance between numbers: Li, Li, Venkatasubramanian 2007. Prosecutor, journalist,"
    " marketer: El Emam, Dankar 2008; Dankar, El Emam 2010."
)
_LIMITS: Final = (
    "The figures hold for the quasi-identifiers named above and for this data interval alone. They say"
    " nothing of what somebody may know beyond them."
)


def render_risk_page(report: RiskReport) -> str:
    """Return the page: verdict, chart before and after, risks, quasi-identifiers, sensitive columns."""
    tone, verdict, explanation = _VERDICTS[report.verdict]
    if report.failures:
        explanation = f"Missed: {', '.join(report.failures)}. {explanation}"
    intro = concat(
        f"{report.title}. Data interval {report.interval}, environment ",
        code(report.environment),
        ", redaction policy ",
        code(report.policy),
        ".",
    )
    return render_page(
        f"Re-identification risk of {report.study}: {verdict}",
        concat("Re-identification risk of ", code(report.study)),
        intro,
        [callout(tone, verdict, explanation), *_render_body(report)],
    )


def _render_body(report: RiskReport) -> Iterator[Markup]:
    before, after = report.before, report.after
    if before is not None and after is not None:
        yield _list_figures(report, after)
        yield from _render_sizes(report, before, after)
        yield element("h2", "Risks")
        yield render_table(
            _explain_population(report),
            ("Risk", "Before suppression", "As published"),
            [
                (concat(label, soft(note)), getattr(before, key), getattr(after, key))
                for key, label, note in _ROWS
                if getattr(after, key)
            ],
            numbers={1, 2},
        )
    yield element("h2", "What others are taken to know")
    yield render_table(
        "Quasi-identifiers, the most important to keep first."
        f" Subjects left out as a whole: {report.removed}.",
        ("Quasi-identifier", "Compared by", "Subjects whose value was suppressed"),
        [(code(column.name), column.compared, column.suppressed) for column in report.quasi_identifiers],
        numbers={2},
    )
    if report.excluded:
        yield render_table(
            "Published columns that others are taken not to know, as the study says.",
            ("Column", "Reason"),
            [(code(name), reason) for name, reason in report.excluded.items()],
        )
    if report.unpublished:
        yield element("p", "Declared, but not published: ", join(map(code, report.unpublished), ", "), ".")
    if before is not None and after is not None and after.sensitive:
        yield element("h2", "What they must not learn")
        yield _render_sensitive(before, after)
    yield element("h2", "How it is measured")
    yield element("p", _METHODS)
    yield element("p", _LIMITS)


def _list_figures(report: RiskReport, after: RiskFigures) -> Markup:
    return list_figures(
        {
            "Subjects published": after.subjects,
            "Quasi-identifiers": str(len(report.quasi_identifiers)),
            **{f"Demanded {name}": value for name, value in report.demand.items()},
            "Smallest class": after.k,
            "Subjects left out": report.removed,
        }
    )


def _render_sizes(report: RiskReport, before: RiskFigures, after: RiskFigures) -> Iterator[Markup]:
    pairs = list(zip(before.sizes, after.sizes, strict=True))
    yield element("h2", "Class sizes")
    yield draw_bars(
        "Share of subjects by the size of their class, before suppression and as published",
        (_BEFORE, _AFTER, _HIDDEN),
        [
            _draw_size(label, size, series)
            for b, a in pairs
            for label, size, series in ((f"{b.label} subjects", b, _BEFORE), ("", a, _AFTER))
        ],
    )
    yield render_table(
        f"Share of subjects by the size of their class. Counts from 1 to {report.small_cell - 1} are not"
        " shown, nor those that would give them away.",
        ("Subjects in the class", "Before suppression", "As published"),
        [(code(b.label), b.subjects, a.subjects) for b, a in pairs],
        numbers={1, 2},
    )


def _draw_size(label: str, size: SizeRange, series: Series) -> Bar:
    if size.share is None:
        return Bar(label, [(_HIDDEN, _UNKNOWN)], size.subjects)
    return Bar(label, [(series, size.share)], _show_percent(size.share))


def _show_percent(share: float) -> str:
    least = 0.01
    return "under 1%" if 0 < share < least else f"{100 * share:.0f}%"


def _explain_population(report: RiskReport) -> str:
    if report.population:
        return f"Journalist and marketer are measured against the population table '{report.population}'."
    return "Without a population table the marketer is taken to know exactly who is in the data."


def _render_sensitive(before: RiskFigures, after: RiskFigures) -> Markup:
    rows = [
        (
            code(published.column),
            when,
            item.distinct_l,
            item.entropy_l,
            item.recursive,
            item.t,
            item.failing,
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
    return render_table(caption, header, rows, numbers=range(2, len(header)))
