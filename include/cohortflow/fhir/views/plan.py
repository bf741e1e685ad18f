"""An analysed view to a Polars plan.

The plan is linear: filter, then for each iteration one ``select`` (what is needed of the element, nothing
else is carried on) and one ``explode``. ``unionAll`` multiplies each row by the number of branches and
blanks, per row, what belongs to the other branches. ``repeat`` builds nested lists of results and takes
them apart. No operation looks at more than one resource, so the plan streams and the rows of a resource
stay together, in the order of the definition.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import polars as pl

from cohortflow.fhir.views.analysis import AnalyzedView
from cohortflow.fhir.views.expressions import Environment, build, concatenate, guard_depth, to_physical
from cohortflow.fhir.views.steps import Branch, Each, Level, Unfold, Union
from cohortflow.fhir.views.typed import RowIndex

__all__ = ["SEVERAL", "plan_view"]

SEVERAL = "'item'"
"""Part of Polars' message where a path yields several values instead of one."""

_ROOT, _THERE = "@resource.", "@there"


def plan_view(view: AnalyzedView, source: pl.LazyFrame) -> pl.LazyFrame:
    """Return a view over resources.

    Args:
        view: The analysed view.
        source: One row per resource; columns at least those that the view reads.
    """
    for where in view.wheres:
        source = source.filter(build(where, Environment()))
    start = _Stage(Environment(elements=tuple(field.name for field in view.reads)))
    # What an iteration takes from the resource (%resource) is carried along under another name.
    carried = (pl.col(key).alias(_ROOT + key) for key in view.carried)
    rows = _Rows(source, ()).select((*_prepare(view.plan, start), *carried))
    return _run(rows, view.plan, start).frame.select(column.name for column in view.columns)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A plan and the names of its columns, which need not be asked of Polars then."""

    frame: pl.LazyFrame
    columns: tuple[str, ...]

    def select(self, added: Iterable[pl.Expr], dropped: Iterable[str] = ()) -> _Rows:
        """Keep the columns but some, and add others."""
        added, dropped = list(added), set(dropped)
        kept = [name for name in self.columns if name not in dropped]
        names = (*kept, *(one.meta.output_name() for one in added))
        return _Rows(self.frame.select(*kept, *added), names)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where a level stands.

    Attributes:
        env: Environment of its expressions.
        anchor: Something that is there in each row.
        branches: Branches around it: column of the number, number.
        suffix: Marks its columns as those of a branch.
        in_list: Whether it stands on the items of a list (``repeat``).
    """

    env: Environment
    anchor: pl.Expr = field(default_factory=lambda: pl.col("id"))
    branches: tuple[tuple[str, int], ...] = ()
    suffix: str = ""
    in_list: bool = False

    def guard(self) -> pl.Expr | None:
        """Return whether a row belongs to the branches around, or ``None`` outside of unions."""
        parts = [pl.col(name) == number for name, number in self.branches]
        return functools.reduce(lambda left, right: left & right, parts) if parts else None

    def branch(self, name: str, number: int) -> _Stage:
        """Return the stage of a branch."""
        branches = (*self.branches, (name, number))
        return replace(self, branches=branches, suffix=f"{self.suffix}{name}.{number}")


def _prepare(level: Level, stage: _Stage) -> Iterator[pl.Expr]:
    """Yield all that a level needs of the element it stands on, to be evaluated at once."""
    for output in level.outputs:
        column = output.column
        if stage.in_list and isinstance(output.value, RowIndex):
            continue  # known when the list is taken apart
        value = to_physical(
            build(output.value, stage.env), output.value, column.type, collection=column.collection
        )
        if not value.meta.root_names():
            # A literal alone would yield one row, whatever the number of resources.
            value = pl.when(stage.anchor.is_null() | stage.anchor.is_not_null()).then(value)
        yield value.alias(column.name + stage.suffix)
    for step in level.steps:
        if isinstance(step, Each):
            found = build(step.source, stage.env)
            yield found.alias(step.name)
            if step.source.many and step.numbered:
                yield pl.int_ranges(found.list.len(), dtype=pl.Int64).alias(f"{step.name}#")
        elif isinstance(step, Unfold):
            parts = [_unfold(branch, stage.env, stage.suffix) for branch in step.branches]
            found = concatenate(parts) if len(parts) > 1 else parts[0]
            yield found.alias(step.name)
            if step.numbered:
                yield pl.int_ranges(found.list.len(), dtype=pl.Int64).alias(f"{step.name}#")
        else:
            for number, branch in enumerate(step.branches):
                yield from _prepare(branch, stage.branch(step.name, number))


def _run(rows: _Rows, level: Level, stage: _Stage) -> _Rows:
    """Apply the steps of a level to rows that hold what ``_prepare`` yields."""
    for step in level.steps:
        if isinstance(step, Each):
            rows = _iterate(rows, step, stage)
        elif isinstance(step, Unfold):
            rows = _take_apart(rows, step, stage)
        else:
            rows = _unite(rows, step, stage)
    return rows


def _iterate(rows: _Rows, step: Each, stage: _Stage) -> _Rows:
    rows = _explode(rows, step, stage, is_list=step.source.many)
    env = Environment(root=_ROOT)
    if step.numbered and step.source.many:
        env = Environment(index=_number(step), root=_ROOT)
    inner = _Stage(env, pl.col(step.name), stage.branches, stage.suffix)
    rows = rows.select(_prepare(step.level, inner), dropped=_columns(step))
    return _run(rows, step.level, inner)


def _columns(step: Each | Unfold) -> tuple[str, str]:
    """Return the columns of an iteration: its items and their numbers."""
    return step.name, f"{step.name}#"


def _number(step: Each | Unfold) -> pl.Expr:
    return pl.col(f"{step.name}#").fill_null(0)


def _explode(rows: _Rows, step: Each | Unfold, stage: _Stage, *, is_list: bool) -> _Rows:
    """Make a row of each item, and drop the rows without one unless they are to be kept."""
    guard = stage.guard()
    frame = rows.frame
    if is_list:
        exploded = _columns(step) if step.numbered else (step.name,)
        if guard is not None:
            # Rows of other branches pass with a null in place of the list.
            frame = frame.with_columns(pl.when(guard).then(pl.col(name)).alias(name) for name in exploded)
        frame = frame.explode(exploded, empty_as_null=True, keep_nulls=True)
    if not step.or_null:
        exists = pl.col(step.name).is_not_null()
        frame = frame.filter(exists if guard is None else exists | ~guard)
    return _Rows(frame, rows.columns)


def _unfold(branch: Branch, env: Environment, suffix: str) -> pl.Expr:
    """Return the list of what a branch yields: a struct of all that its level needs, per element."""
    found = build(branch.source, env)
    if not branch.source.many:
        found = pl.concat_list(found).list.drop_nulls()
    stage = _Stage(env.on(pl.element()), pl.element(), (), suffix, in_list=True)
    own = pl.struct(*_prepare(branch.level, stage), pl.element().is_not_null().alias(_THERE))
    itself = pl.concat_list(own)
    nothing = itself.list.head(0)
    further = [pl.coalesce(_unfold(child, stage.env, suffix), nothing) for child in branch.children]
    if branch.rest:
        itself = guard_depth(itself, [build(one, stage.env) for one in branch.rest])
    joined = pl.concat_list(itself, *further) if further else itself
    return found.list.eval(joined.explode(empty_as_null=False, keep_nulls=False))


def _take_apart(rows: _Rows, step: Unfold, stage: _Stage) -> _Rows:
    """Make rows of the list that ``_unfold`` built, and columns of its fields."""
    level = step.branches[0].level
    rows = _explode(rows, step, stage, is_list=True)
    in_list = _Stage(Environment(item=pl.element()), pl.element(), (), stage.suffix, in_list=True)
    fields = [part.meta.output_name() for part in _prepare(level, in_list)]
    taken = [pl.col(step.name).struct.field(name) for name in fields]
    numbers = [_number(step).alias(name) for name in _numbered(level, in_list)]
    rows = rows.select([*taken, *numbers], dropped=_columns(step))
    return _run(rows, level, _Stage(Environment(root=_ROOT), pl.col(step.name), stage.branches, stage.suffix))


def _numbered(level: Level, stage: _Stage) -> Iterator[str]:
    """Yield the columns that hold ``%rowIndex``."""
    for output in level.outputs:
        if isinstance(output.value, RowIndex):
            yield output.column.name + stage.suffix
    for step in level.steps:
        if isinstance(step, Union):
            for number, branch in enumerate(step.branches):
                yield from _numbered(branch, stage.branch(step.name, number))


def _unite(rows: _Rows, step: Union, stage: _Stage) -> _Rows:
    count = len(step.branches)
    branches = pl.lit(list(range(count)), dtype=pl.List(pl.Int64)).first()
    guard = stage.guard()
    if guard is not None:
        branches = pl.when(guard).then(branches).otherwise(pl.lit([-1], dtype=pl.List(pl.Int64)).first())
    rows = rows.select([branches.alias(step.name)])
    rows = _Rows(rows.frame.explode(step.name), rows.columns)
    for number, branch in enumerate(step.branches):
        rows = _run(rows, branch, stage.branch(step.name, number))
    suffixes = [stage.branch(step.name, number).suffix for number in range(count)]
    outputs = []
    for column in step.columns:
        # Exactly one branch is not blanked, unless the row belongs to none of them.
        chosen = [
            pl.when(pl.col(step.name) == number).then(pl.col(column.name + suffix))
            for number, suffix in enumerate(suffixes)
        ]
        outputs.append(pl.coalesce(chosen).alias(column.name + stage.suffix))
    used = [column.name + suffix for column in step.columns for suffix in suffixes]
    return rows.select(outputs, dropped=[step.name, *used])
