"""Lines of NDJSON, rewritten so that ``repeat`` finds all its elements in one list.

Views without a ``repeat`` pay nothing. Lines of others pass through Python, once: they are cut down to what
is read, and the list is added. There is no limit to the depth but that of the JSON parser, 1024 objects and
lists within each other; a line beyond it is malformed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import polars as pl

from cohortflow.fhir.views.decimals import add_digits
from cohortflow.fhir.views.reads import ReadField, digit_keys, repeat_paths

__all__ = ["gather_lines", "gather_repeats", "has_repeat"]

_BOM = "\ufeff"
_KEPT = ReadField("resourceType", None, many=False)


def has_repeat(fields: Sequence[ReadField]) -> bool:
    """Say whether a list of a ``repeat`` is read, at any depth."""
    return any(repeat_paths(field.name) or has_repeat(field.fields) for field in fields)


def gather_lines(lines: pl.LazyFrame, column: str, fields: tuple[ReadField, ...]) -> pl.LazyFrame:
    """Return lines with the lists that are read by ``repeat``, and with digits where there are such lists.

    Args:
        lines: Lines to be read.
        column: Holds their text.
        fields: What is read of them.
    """
    if not has_repeat(fields):
        return lines

    def rewrite(batch: pl.DataFrame) -> pl.DataFrame:
        # Before the rewriting, which would write 1.50 as 1.5.
        texts = add_digits(batch[column], digit_keys(fields))
        return batch.with_columns(gather_repeats(texts, fields).alias(column))

    return lines.map_batches(rewrite, streamable=True, projection_pushdown=False, slice_pushdown=False)


def gather_repeats(texts: pl.Series, fields: Sequence[ReadField]) -> pl.Series:
    """Return JSON texts with the lists that are read by ``repeat``.

    Args:
        texts: Resources, as JSON.
        fields: What is read of them.

    Returns:
        Texts of the same meaning to whoever reads the fields. A text that is not JSON stays none.
    """
    if not has_repeat(fields):
        return texts
    return pl.Series(texts.name, [_rewrite(text, fields) for text in texts], dtype=pl.String)


def _rewrite(text: str, fields: Sequence[ReadField]) -> str:
    if not text.strip():
        return text
    try:
        resource = orjson.loads(text.removeprefix(_BOM))
    except orjson.JSONDecodeError:
        # What Polars might still accept would lack the list, and rows without a word.
        return f"!{text}"
    return orjson.dumps(_cut(resource, (*fields, _KEPT))).decode()


def _cut(value: Any, fields: Sequence[ReadField]) -> Any:  # noqa: ANN401 - JSON
    """Return the fields of an object; anything else stays as it is, for the reader to refuse."""
    if not isinstance(value, dict) or not fields:
        return value
    found = {}
    for field in fields:
        paths = repeat_paths(field.name)
        if paths:
            found[field.name] = [_cut(one, field.fields) for one in _find(value, paths)]
            continue
        inner = value.get(field.name)
        if isinstance(inner, list):
            found[field.name] = [_cut(one, field.fields) for one in inner]
        elif inner is not None:
            found[field.name] = _cut(inner, field.fields)
    return found


def _find(start: dict[str, Any], paths: Sequence[Sequence[str]]) -> Iterator[Any]:
    """Yield what the paths lead to, each element before those that it leads to."""
    todo = _follow(start, paths)[::-1]
    while todo:
        found = todo.pop()
        yield found
        if isinstance(found, dict):
            todo.extend(reversed(_follow(found, paths)))


def _follow(start: Any, paths: Sequence[Sequence[str]]) -> list[Any]:  # noqa: ANN401 - JSON
    found = []
    for path in paths:
        values = [start]
        for name in path:
            inner = [value.get(name) for value in values if isinstance(value, dict)]
            values = [item for one in inner for item in (one if isinstance(one, list) else [one])]
        found += [value for value in values if value is not None]
    return found
