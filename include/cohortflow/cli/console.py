"""Tables, bars and machine-readable output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["BarProgress", "print_json", "print_table", "stderr", "stdout"]

stdout = Console()
stderr = Console(stderr=True)


def print_json(value: Any) -> None:  # noqa: ANN401  # any JSON-ready value
    """Print a value for machines."""
    print(json.dumps(value, indent=1, default=str))  # noqa: T201  # this is the output


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people; numbers are aligned to the right."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int | float) else escape(str(cell)) for cell in row))
    stdout.print(table)


class BarProgress:
    """Shows a bar per task on the terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=stderr,
            transient=True,
            disable=not stderr.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, task: str, done: int, total: int | None = None, unit: str = "") -> None:
        """Move the task's bar."""
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total, unit=unit)
        self._bars.update(self._tasks[task], completed=done, total=total)
