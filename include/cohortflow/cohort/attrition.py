"""The attrition of a cohort for readers: small counts protected, drawn as a flowchart."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from cohortflow.model import SMALL_CELL

__all__ = ["SMALL_CELL", "render_attrition", "suppress_small_counts"]

HIDDEN = "not shown"
_COUNTS = ("n_before", "n_excluded", "n_after", "n_unit_mismatch", "n_unknown")


@dataclass(slots=True)
class _Block:
    """Consecutive steps that are published as one."""

    steps: list[str]
    criteria: list[str]
    before: int
    excluded: int
    after: int
    unit_mismatch: int
    unknown: int


def suppress_small_counts(attrition: pl.DataFrame, *, minimum: int = SMALL_CELL) -> pl.DataFrame:
    """Make an attrition table fit for publication.

    To hide a small exclusion alone would not do: the counts before and after it give it away. Therefore steps
    that exclude fewer than ``minimum`` patients are joined with the next ones, until together they exclude
    enough, or none. What cannot be joined is shown as ``<11``, with the counts beside it as ``not shown``.

    Args:
        attrition: What ``CohortSelection.attrition`` gives.
        minimum: Least count to show; 0 or 1 shows all.

    Returns:
        The columns of ``attrition``, all as text; ``step`` is ``2-3`` and ``criterion`` is joined by ``; ``
        where steps were joined.
    """
    blocks = _join_steps(attrition, minimum)
    rows = []
    hidden = False  # once a population is hidden, so are those that follow without a published count
    for block in blocks:
        small_step = 0 < block.excluded < minimum
        small_rest = 0 < block.after < minimum
        before = HIDDEN if hidden else str(block.before)
        excluded, after = str(block.excluded), str(block.after)
        if small_step:
            excluded, after = f"<{minimum}", HIDDEN
        if small_rest:
            excluded, after = (excluded if block.excluded == 0 or small_step else HIDDEN), f"<{minimum}"
        if 0 < block.before < minimum:
            before = f"<{minimum}"
        hidden = small_step or small_rest
        rows.append(
            {
                "step": "-".join(dict.fromkeys((block.steps[0], block.steps[-1]))),
                "criterion": "; ".join(block.criteria),
                "n_before": before,
                "n_excluded": excluded,
                "n_after": after,
                "n_unit_mismatch": _protect(block.unit_mismatch, block.before, minimum),
                "n_unknown": _protect(block.unknown, block.excluded, minimum),
            }
        )
    return pl.DataFrame(rows, schema=dict.fromkeys(("step", "criterion", *_COUNTS), pl.String()))


def render_attrition(
    attrition: pl.DataFrame, *, population: str = "Patients", suppress_below: int = SMALL_CELL
) -> str:
    """Draw an attrition as a Mermaid flowchart, from the population down to the cohort.

    Args:
        attrition: What ``CohortSelection.attrition`` gives.
        population: What the patients before the first step are called.
        suppress_below: Least count to show; 0 shows all.
    """
    table = suppress_small_counts(attrition, minimum=suppress_below)
    lines = ["flowchart TD"]
    for position, row in enumerate(table.iter_rows(named=True)):
        if position == 0:
            lines.append(f'    n0["{_escape(population)}<br/>n = {_escape(row["n_before"])}"]')
        note = "".join(
            f"<br/>{text}: {_escape(row[column])}"
            for column, text in (("n_unit_mismatch", "unit not accepted"), ("n_unknown", "not recorded"))
            if row[column] != "0"
        )
        criterion, here = _escape(row["criterion"]).replace("; ", "<br/>"), position + 1
        lines += [
            f'    n{here}["{criterion}<br/>n = {_escape(row["n_after"])}"]',
            f'    x{here}["Excluded<br/>n = {_escape(row["n_excluded"])}{note}"]',
            f"    n{position} --> n{here}",
            f"    n{position} --> x{here}",
        ]
    return "\n".join(lines) + "\n"


def _join_steps(attrition: pl.DataFrame, minimum: int) -> list[_Block]:
    blocks: list[_Block] = []
    for row in attrition.iter_rows(named=True):
        block = _Block(
            [str(row["step"])],
            [row["criterion"]],
            row["n_before"],
            row["n_excluded"],
            row["n_after"],
            row["n_unit_mismatch"],
            row["n_unknown"],
        )
        if blocks and 0 < blocks[-1].excluded < minimum:
            _append(blocks[-1], block)
        else:
            blocks.append(block)
    # The last steps have none after them to join: they go to the ones before.
    while len(blocks) > 1 and 0 < blocks[-1].excluded < minimum:
        last = blocks.pop()
        _append(blocks[-1], last)
    return blocks


def _append(block: _Block, further: _Block) -> None:
    block.steps += further.steps
    block.criteria += further.criteria
    block.excluded += further.excluded
    block.after = further.after
    # The same patient may stand in both: the larger count is certain, the sum is not.
    block.unit_mismatch = max(block.unit_mismatch, further.unit_mismatch)
    block.unknown = max(block.unknown, further.unknown)


def _protect(count: int, whole: int, minimum: int) -> str:
    """Return a count that is part of a whole; the rest of the whole must not be small either."""
    if 0 < count < minimum:
        return f"<{minimum}"
    return HIDDEN if 0 < whole - count < minimum and count else str(count)


def _escape(text: str) -> str:
    """Return text that Mermaid shows as it is."""
    table = {'"': "#quot;", "<": "#lt;", ">": "#gt;", "#": "#35;"}
    return "".join(table.get(character, character) for character in text).replace("\n", " ")
