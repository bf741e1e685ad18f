"""Lines of JSON to the elements of resources; malformed lines set aside.

There are three ways, each with more care and at more cost than the one before:

- ``FAST``: expressions of Polars decode batch after batch, on all cores. Python sees only the result to check
  what is cheap to check: the number of resources, their type and their id. The first line that cannot be
  decoded fails the whole read, which then begins again with more care.
- ``CAREFUL``: each batch is decoded within a function that, where that fails, searches it for the lines at
  fault. This costs about a fifth more on good lines, and one look at each line of a batch with a fault.
- ``LOSSY``: the same for lines with bytes that are not UTF-8, which become replacement characters first.

All three yield the same for the same line. Polars reads a bare number or boolean as text where FHIR has a
string, and ``true`` as 1 where it has a number; such lines are accepted, always. Anything else of the wrong
JSON type makes a line malformed. Of a malformed line that tells its resource type and id, these are read all
the same, and ``meta.lastUpdated``: they say which resource cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import orjson
import polars as pl

from cohortflow.errors import MalformedDataError
from cohortflow.fhir.views.decimals import add_digits

__all__ = [
    "LINE",
    "REASON",
    "TEXT",
    "Decoding",
    "LineDecoder",
    "Malformation",
    "is_decoding_fault",
    "mark_modified",
]

LINE, TEXT, REASON = "@line", "@text", "@reason"
"""Columns: number of a line from 1, its text, and why it is malformed (null where it is not)."""

_DOCUMENT, _SIZE, _MODIFIED = "@document", "@size", "@modified"
# In a text value its second quotation mark would have a backslash before it.
_MODIFIER = '"modifierExtension"'
_BOM = "\ufeff"
_REPLACEMENT = "\ufffd"
# Parts of what Polars raises if a batch cannot be decoded.
_NOT_DECODED = "deserializing JSON"


class Malformation(StrEnum):
    """Why a line is malformed."""

    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not one JSON value"
    NOT_AN_OBJECT = "not a JSON object"
    NO_RESOURCE_TYPE = "no resourceType"
    OTHER_RESOURCE_TYPE = "another resourceType"
    NO_ID = "no id"
    WRONG_JSON_TYPE = "a value of the wrong JSON type"
    MODIFIED = "a modifierExtension, which may turn its meaning round"
    """FHIR R4, 2.4.0.2: what has one that is not known must not be processed; none is known here."""


class Decoding(StrEnum):
    """How much care decoding takes; see the module."""

    FAST = "fast"
    CAREFUL = "careful"
    LOSSY = "lossy"


def is_decoding_fault(error: pl.exceptions.PolarsError) -> bool:
    """Say whether a read failed because a batch could not be decoded the fast way."""
    return isinstance(error, pl.exceptions.ShapeError) or _NOT_DECODED in str(error)


def mark_modified(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Mark the lines that hold a modifierExtension anywhere, before they are rewritten.

    Args:
        lines: Columns ``LINE`` and ``TEXT``, as they were received.
    """
    return lines.with_columns(pl.col(TEXT).str.contains(_MODIFIER, literal=True).alias(_MODIFIED))


@dataclass(frozen=True)
class LineDecoder:
    """Decodes lines to resources of one type.

    Attributes:
        resource: The resource type.
        dtype: The elements to read, ``resourceType`` and ``id`` among them.
        digits: Keys of the decimals whose digits are read.
        decoding: The care to take.
        on_batch: Called with the bytes of each batch of lines, from any thread.
    """

    resource: str
    dtype: pl.Struct
    digits: tuple[str, ...] = ()
    decoding: Decoding = Decoding.FAST
    on_batch: Callable[[int], None] | None = field(default=None, repr=False, compare=False)

    @property
    def schema(self) -> pl.Schema:
        """Columns of what ``decode`` yields."""
        return pl.Schema({LINE: pl.Int64(), REASON: pl.String(), **dict(self.dtype.to_schema())})

    def decode(self, lines: pl.LazyFrame) -> pl.LazyFrame:
        """Return the elements of each line that is not blank, with the reason beside each malformed one.

        Args:
            lines: Columns ``LINE``, strictly increasing within a batch, ``TEXT``, and that of
                ``mark_modified``.
        """
        text, document = pl.col(TEXT), pl.col(_DOCUMENT)
        there = lines.filter(text.str.strip_chars() != "")
        known = pl.lit(None, dtype=pl.String)
        if self.decoding is Decoding.FAST:
            found = add_digits(text, self.digits).str.json_decode(self.dtype)
            decoded = there.select(LINE, text.str.len_bytes().alias(_SIZE), _MODIFIED, found.alias(_DOCUMENT))
            # As an expression of its own, Python's part would be several times as dear.
            schema = {_SIZE: pl.UInt32(), _MODIFIED: pl.Boolean(), _DOCUMENT: self.dtype}
            decoded = _map(decoded, self._check, schema)
        else:
            schema = {_MODIFIED: pl.Boolean(), REASON: pl.String(), _DOCUMENT: self.dtype}
            decoded = _map(there, self._search, schema)
            known = pl.col(REASON)
        rejected = pl.when(_MODIFIED).then(pl.lit(Malformation.MODIFIED.value))
        reason = pl.coalesce(known, self._explain(document), rejected).alias(REASON)
        return decoded.select(pl.col(LINE).cast(pl.Int64), reason, document).unnest(_DOCUMENT)

    def _check(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Check a batch that was decoded by expressions."""
        self._report(batch[_SIZE])
        lines, ids = batch[LINE], batch[_DOCUMENT].struct.unnest()["id"]
        # A single line may hold several values, and several lines may be parts of a single value: Polars
        # then repeats what is single. Any other number of values than of lines fails within Polars.
        if len(batch) > 1 and (lines[0] == lines[-1] or ids[0] == ids[-1]):
            raise pl.exceptions.ShapeError
        return batch

    def _search(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Decode a batch, and search it for malformed lines if that fails."""
        self._report(batch[TEXT].str.len_bytes())
        texts = add_digits(batch[TEXT], self.digits)
        reason = pl.Series(REASON, [None], dtype=pl.String).new_from_index(0, len(batch))
        documents = None if self.decoding is Decoding.LOSSY else _try_decode(texts, self.dtype)
        if documents is None:
            documents, reasons = self._sift(texts)
            rows = sorted(reasons)
            reason = reason.scatter(rows, [reasons[row].value for row in rows])
        return pl.DataFrame([batch[LINE], batch[_MODIFIED], reason, documents.alias(_DOCUMENT)])

    def _sift(self, texts: pl.Series) -> tuple[pl.Series, dict[int, Malformation]]:
        """Decode what can be decoded of a batch; return an outline, or null, and a reason for the rest."""
        texts = texts.str.strip_prefix(_BOM)
        reasons: dict[int, Malformation] = {}
        good = texts
        if self.decoding is Decoding.LOSSY:
            rows = texts.str.contains(_REPLACEMENT, literal=True).arg_true().to_list()
            reasons.update(dict.fromkeys(rows, Malformation.NOT_UTF8))
            good = self._blank(texts, rows)
        # A line that orjson refuses is tried alone, so that its fate does not depend on its neighbours.
        for row, text in enumerate(good):
            reason = _explain_text(text)
            alone = good[row : row + 1]
            if reason is not Malformation.WRONG_JSON_TYPE and _try_decode(alone, self.dtype) is None:
                reasons[row] = reason
        good = self._blank(texts, sorted(reasons))
        # What is left may hold values of the wrong type: halve the batch until they are found.
        todo = [(0, len(good))]
        while todo:
            start, stop = todo.pop()
            if _try_decode(good[start:stop], self.dtype) is not None:
                continue
            if stop - start == 1:
                reasons[start] = _explain_text(good[start])
            else:
                middle = (start + stop) // 2
                todo += [(start, middle), (middle, stop)]
        documents = _try_decode(self._blank(texts, sorted(reasons)), self.dtype)
        if documents is None:  # each line was decoded above, alone or among others
            raise MalformedDataError(
                "A batch of lines cannot be decoded.", remedy="Report it as a fault of ours."
            )
        return documents, reasons

    def _blank(self, texts: pl.Series, rows: list[int]) -> pl.Series:
        """Leave of some lines what says which resource they are about."""
        return texts.scatter(rows, [_outline(texts[row], self.resource) for row in rows]) if rows else texts

    def _report(self, sizes: pl.Series) -> None:
        if self.on_batch is not None:
            self.on_batch(int(sizes.sum()) + len(sizes))

    def _explain(self, document: pl.Expr) -> pl.Expr:
        """Return why documents are no resources of the type, or null for those that are."""
        kind, key = document.struct.field("resourceType"), document.struct.field("id")
        right = kind == self.resource
        return (
            pl.when(right & (key != ""))
            .then(None)
            .when(document.is_null())
            .then(pl.lit(Malformation.NOT_AN_OBJECT.value))
            .when(right)
            .then(pl.lit(Malformation.NO_ID.value))
            .when(kind != "")
            .then(pl.lit(Malformation.OTHER_RESOURCE_TYPE.value))
            .otherwise(pl.lit(Malformation.NO_RESOURCE_TYPE.value))
        )


def _map(
    lines: pl.LazyFrame, function: Callable[[pl.DataFrame], pl.DataFrame], schema: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    return lines.map_batches(
        function,
        schema={LINE: pl.UInt32(), **schema},
        streamable=True,
        validate_output_schema=False,
        predicate_pushdown=False,
        projection_pushdown=False,
        slice_pushdown=False,
    )


def _try_decode(texts: pl.Series, dtype: pl.Struct) -> pl.Series | None:
    """Decode lines, or return ``None`` if one of them is at fault."""
    try:
        documents = texts.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        return None
    # Polars reads the lines as the items of one array: a line that holds two values, or a part of one,
    # shows in the number of items.
    return documents if len(documents) == len(texts) else None


def _outline(text: str, resource: str) -> str:
    """Return the JSON of a malformed line's type, id and time alone; ``null`` where it does not tell them."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "null"
    if not isinstance(value, dict) or value.get("resourceType") != resource:
        return "null"
    key, meta = value.get("id"), value.get("meta")
    if not isinstance(key, str | int) or isinstance(key, bool) or _REPLACEMENT in str(key):
        return "null"
    found: dict[str, object] = {"resourceType": resource, "id": str(key)}
    if isinstance(meta, dict) and isinstance(updated := meta.get("lastUpdated"), str):
        found["meta"] = {"lastUpdated": updated}
    return orjson.dumps(found).decode()


def _explain_text(text: str) -> Malformation:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Malformation.NOT_JSON
    return Malformation.WRONG_JSON_TYPE if isinstance(value, dict) else Malformation.NOT_AN_OBJECT
