"""FHIR NDJSON files to views: one read for all views of a resource type, malformed lines set aside.

Lines are decoded in batches with the smallest schema that serves the views. Only a batch that cannot be
decoded is searched for the lines at fault. Blank lines, a byte order mark and CRLF are tolerated.

Polars reads a bare number or boolean as text where FHIR has a string, and ``true`` as 1 where it has a
number; such lines are accepted, always. Anything else of the wrong JSON type makes a line malformed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from cohortflow.errors import ArtifactNotFoundError, MalformedDataError, StoreUnavailableError, ViewError
from cohortflow.fhir.views.compile import CompiledView, explain_failure, read_schema
from cohortflow.fhir.views.decimals import add_digits
from cohortflow.fhir.views.reads import digit_keys, merge_reads

__all__ = ["MALFORMED_SCHEMA", "Malformation", "ViewsRead", "read_views"]

MALFORMED_SCHEMA = pl.Schema({"file": pl.String(), "line": pl.Int64(), "reason": pl.String()})
"""Schema of the list of malformed lines: where, from line 1, and why; never what."""

_BOM = "\ufeff"
_REPLACEMENT = "\ufffd"
# JSON cannot hold this control character as it stands, so it never separates anything.
_NO_SEPARATOR = "\x1e"
# Columns of the plans in between.
_LINE, _TEXT, _REASON = "@line", "@text", "@reason"
_FILE, _GOOD, _VIEW = "@file", "@good", "@view"


class Malformation(StrEnum):
    """Why a line is malformed."""

    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not one JSON value"
    NOT_AN_OBJECT = "not a JSON object"
    NO_RESOURCE_TYPE = "no resourceType"
    OTHER_RESOURCE_TYPE = "another resourceType"
    NO_ID = "no id"
    WRONG_JSON_TYPE = "a value of the wrong JSON type"


@dataclass(frozen=True)
class ViewsRead:
    """A read of NDJSON files for several views of one resource type.

    Attributes:
        views: The views.
        files: Local paths or URIs, plain, gzip or zstd.
        storage_options: For remote files, as Polars takes them.
        lossy: Accept files with bytes that are not UTF-8 and set those lines aside (slower).
        on_batch: Called with the bytes of each batch of lines, from any thread, to show progress.
    """

    views: tuple[CompiledView, ...]
    files: tuple[str, ...]
    storage_options: Mapping[str, str | int] | None = field(default=None, repr=False)  # may hold secrets
    lossy: bool = False
    on_batch: Callable[[int], None] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def frames(self) -> dict[str, pl.LazyFrame]:
        """The views by name; collected together (``pl.collect_all``) they share one read."""
        frames = {}
        for view in self.views:
            # Each view gets a branch of its own from the decoded lines: Polars shares only the
            # outermost common part of several plans, which must be the decoding.
            own = self._documents.select(
                pl.lit(view.name).alias(_VIEW),
                pl.col(_REASON).is_null().alias(_GOOD),
                *view.read_schema.names(),
            )
            frames[view.name] = view.lazy(own.filter(_GOOD))
        return frames

    @functools.cached_property
    def malformed(self) -> pl.LazyFrame:
        """The malformed lines, with ``MALFORMED_SCHEMA``."""
        bad = self._documents.select(_FILE, _LINE, _REASON).filter(pl.col(_REASON).is_not_null())
        return bad.rename({_FILE: "file", _LINE: "line", _REASON: "reason"})

    def execute(
        self, build: Callable[[Mapping[str, pl.LazyFrame]], Sequence[pl.LazyFrame]]
    ) -> tuple[list[pl.DataFrame], pl.DataFrame]:
        """Run plans on top of the views, in one streamed read.

        Args:
            build: Gets the views by name and returns plans, such as lazy sinks. It may be called twice:
                again, if a file turns out to hold bytes that are not UTF-8.

        Returns:
            The results of the plans, and the malformed lines.

        Raises:
            ArtifactNotFoundError: A file is not there.
            MalformedDataError: A file is truncated or corrupt as a whole.
            StoreUnavailableError: The object store refused or did not answer.
            ViewError: A path of a view yields several values where one is expected.
        """
        try:
            *results, malformed = pl.collect_all([*build(self.frames), self.malformed], engine="streaming")
        except pl.exceptions.PolarsError as error:
            if not self.lossy and "utf8" in str(error):
                return replace(self, lossy=True).execute(build)
            explained = explain_failure(error, ", ".join(view.name for view in self.views))
            if explained is None:
                raise
            raise explained from None  # the text of the original may hold values
        except FileNotFoundError as error:
            raise ArtifactNotFoundError(
                f"A file is not there: {error}.", remedy="Repeat the step that should have left it."
            ) from None
        except OSError as error:
            if "object-store" in str(error):
                raise StoreUnavailableError(
                    "The object store refused or did not answer.",
                    remedy="Check its address and credentials, then repeat.",
                    place=self.files[0],
                ) from error
            raise MalformedDataError(
                f"A file cannot be read to its end: {error}.",
                remedy="Download it again.",
                place=", ".join(self._find_unreadable()) or ", ".join(self.files),
            ) from None
        return results, malformed

    def collect(self) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
        """Return the views by name, and the malformed lines, in memory."""
        names = [view.name for view in self.views]
        results, malformed = self.execute(lambda frames: [frames[name] for name in names])
        return dict(zip(names, results, strict=True)), malformed

    def sink_parquet(
        self, targets: Mapping[str, str | Path], *, storage_options: Mapping[str, str | int] | None = None
    ) -> pl.DataFrame:
        """Write views to Parquet files, in bounded memory.

        Args:
            targets: File or URI for each view to write, by name.
            storage_options: For remote targets; those of the read by default.

        Returns:
            The malformed lines.
        """
        options = self.storage_options if storage_options is None else storage_options

        def build(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
            return [
                frames[name].sink_parquet(target, lazy=True, storage_options=_options(options))
                for name, target in targets.items()
            ]

        return self.execute(build)[1]

    @functools.cached_property
    def _documents(self) -> pl.LazyFrame:
        """One row per line that is not blank: file, line, reason, and the elements of the resource."""
        reads = merge_reads(view.analyzed.reads for view in self.views)
        dtype = pl.Struct({"resourceType": pl.String(), **read_schema(reads)})
        schema = pl.Schema({_LINE: pl.Int64(), _REASON: pl.String(), **dict(dtype.to_schema())})
        decode = functools.partial(
            _decode,
            resource=self.views[0].resource,
            dtype=dtype,
            lossy=self.lossy,
            digits=digit_keys(reads),
            on_batch=self.on_batch,
        )
        if not self.files:
            return pl.LazyFrame(schema={**schema, _FILE: pl.String()})
        parts = [
            self._scan(file)
            .filter(pl.col(_TEXT).str.strip_chars() != "")
            .map_batches(decode, schema=schema, streamable=True, validate_output_schema=False)
            .with_columns(pl.lit(file).alias(_FILE))
            for file in self.files
        ]
        return pl.concat(parts)

    def _scan(self, file: str) -> pl.LazyFrame:
        options = _options(self.storage_options)
        if not self.lossy:
            return pl.scan_lines(
                file,
                name=_TEXT,
                row_index_name=_LINE,
                row_index_offset=1,
                glob=False,
                storage_options=options,
            )
        return pl.scan_csv(
            file,
            has_header=False,
            schema={_TEXT: pl.String()},
            separator=_NO_SEPARATOR,
            quote_char=None,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
            row_index_name=_LINE,
            row_index_offset=1,
            glob=False,
            storage_options=options,
        )

    def _find_unreadable(self) -> list[str]:
        unreadable = []
        for file in self.files:
            try:
                self._scan(file).select(pl.len()).collect(engine="streaming")
            except OSError:
                unreadable.append(file)
        return unreadable


def read_views(
    views: Iterable[CompiledView],
    files: Iterable[str | Path],
    *,
    storage_options: Mapping[str, str | int] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> ViewsRead:
    """Prepare to read NDJSON files for views; nothing is read yet.

    Args:
        views: Views of one resource type.
        files: NDJSON files of that type: local paths or URIs such as ``s3://bucket/key``; plain,
            gzip or zstd.
        storage_options: For remote files, as ``polars.scan_lines`` takes them.
        on_batch: Called with the bytes of each batch of lines, from any thread, to show progress.

    Raises:
        ViewError: No views, views of several resource types, or two of one name.
    """
    views = tuple(views)
    resources = sorted({view.resource for view in views})
    if len(resources) != 1:
        raise ViewError(
            f"One read serves views of one resource type, not of {', '.join(resources) or 'none'}.",
            remedy="Read the files of each type with the views of that type.",
        )
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise ViewError(f"Two of the views {', '.join(names)} have one name.", remedy="Rename one.")
    return ViewsRead(views, tuple(str(file) for file in files), storage_options, on_batch=on_batch)


def _options(options: Mapping[str, str | int] | None) -> dict[str, Any] | None:
    return None if options is None else dict(options)


def _decode(
    frame: pl.DataFrame,
    *,
    resource: str,
    dtype: pl.Struct,
    lossy: bool,
    digits: tuple[str, ...],
    on_batch: Callable[[int], None] | None,
) -> pl.DataFrame:
    """Decode a batch of lines that are not blank; a reason stands beside each malformed one."""
    if on_batch is not None:
        on_batch(int(frame[_TEXT].str.len_bytes().sum()) + len(frame))
    texts = add_digits(frame[_TEXT], digits)
    reasons: dict[int, Malformation] = {}
    documents = None if lossy else _try_decode(texts, dtype)
    if documents is None:
        documents, reasons = _sift(texts, dtype, lossy=lossy)
    # `unnest` and comparisons of series work at once; expressions would cost a plan per batch.
    elements = documents.struct.unnest()
    good = (elements["resourceType"] == resource) & (elements["id"] != "")
    if not good.all(ignore_nulls=False):
        for row, is_good in enumerate(good):
            if not is_good and row not in reasons:
                reasons[row] = _explain(documents[row], resource)
    reason = pl.Series(_REASON, [None], dtype=pl.String).new_from_index(0, len(texts))
    if reasons:
        rows = sorted(reasons)
        reason = reason.scatter(rows, [reasons[row].value for row in rows])
    return pl.DataFrame([frame[_LINE].cast(pl.Int64), reason, *elements.get_columns()])


def _explain(document: Mapping[str, object] | None, resource: str) -> Malformation:
    if document is None:
        return Malformation.NOT_AN_OBJECT
    kind = document["resourceType"]
    if not kind:
        return Malformation.NO_RESOURCE_TYPE
    return Malformation.NO_ID if kind == resource else Malformation.OTHER_RESOURCE_TYPE


def _try_decode(texts: pl.Series, dtype: pl.Struct) -> pl.Series | None:
    """Decode lines, or return ``None`` if one of them is at fault."""
    try:
        documents = texts.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        return None
    # Polars reads the lines as the items of one array: a line that holds two values, or a part of one,
    # shows in the number of items.
    return documents if len(documents) == len(texts) else None


def _sift(texts: pl.Series, dtype: pl.Struct, *, lossy: bool) -> tuple[pl.Series, dict[int, Malformation]]:
    """Decode what can be decoded of a batch; return null and a reason for the rest."""
    texts = texts.str.strip_prefix(_BOM)
    reasons: dict[int, Malformation] = {}
    if lossy:
        rows = texts.str.contains(_REPLACEMENT, literal=True).arg_true().to_list()
        reasons.update(dict.fromkeys(rows, Malformation.NOT_UTF8))
        texts = _blank(texts, rows)
    # A line that orjson refuses is tried alone, so that its fate does not depend on its neighbours.
    for row, text in enumerate(texts):
        reason = _explain_text(text)
        if reason is not Malformation.WRONG_JSON_TYPE and _try_decode(texts[row : row + 1], dtype) is None:
            reasons[row] = reason
    texts = _blank(texts, sorted(reasons))
    # What is left may hold values of the wrong type: halve the batch until they are found.
    todo = [(0, len(texts))]
    while todo:
        start, stop = todo.pop()
        if _try_decode(texts[start:stop], dtype) is not None:
            continue
        if stop - start == 1:
            reasons[start] = _explain_text(texts[start])
        else:
            middle = (start + stop) // 2
            todo += [(start, middle), (middle, stop)]
    documents = _try_decode(_blank(texts, sorted(reasons)), dtype)
    if documents is None:  # each line was decoded above, alone or among others
        raise MalformedDataError(
            "A batch of lines cannot be decoded.", remedy="Report it as a fault of ours."
        )
    return documents, reasons


def _blank(texts: pl.Series, rows: list[int]) -> pl.Series:
    return texts.scatter(rows, ["null"] * len(rows)) if rows else texts


def _explain_text(text: str) -> Malformation:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Malformation.NOT_JSON
    return Malformation.WRONG_JSON_TYPE if isinstance(value, dict) else Malformation.NOT_AN_OBJECT
