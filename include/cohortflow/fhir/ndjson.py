"""FHIR NDJSON files to views: one read for all views of a resource type, malformed lines set aside.

Lines are decoded in batches with the smallest schema that serves the views. Blank lines, a byte order mark
and CRLF are tolerated. A read begins on the assumption that all lines can be decoded; if one cannot, it
begins again with more care (see ``cohortflow.fhir.decoding``): files without such lines are read fast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from cohortflow.errors import ArtifactNotFoundError, MalformedDataError, StoreUnavailableError, ViewError
from cohortflow.fhir.decoding import (
    LINE,
    REASON,
    TEXT,
    Decoding,
    LineDecoder,
    Malformation,
    is_decoding_fault,
    mark_modified,
)
from cohortflow.fhir.views.compile import CompiledView, explain_failure, read_schema
from cohortflow.fhir.views.gathering import gather_lines, has_repeat
from cohortflow.fhir.views.reads import digit_keys, merge_reads
from cohortflow.model import ZSTD_LEVEL

__all__ = ["GOOD", "LINES", "MALFORMED_SCHEMA", "OCCURRENCES", "Malformation", "ViewsRead", "read_views"]

MALFORMED_SCHEMA = pl.Schema({"file": pl.String(), "line": pl.Int64(), "reason": pl.String()})
"""Schema of the list of malformed lines: where, from line 1, and why; never what."""

LINES = "@lines"
"""Name, among the frames of a read, of the one with a row per well-formed line.

Its columns: ``@file``, ``@line`` from 1, ``@fate`` (see ``ViewsRead.judge``) and the elements that the views
read, ``id`` among them.
"""

OCCURRENCES = "@occurrences"
"""Name of the frame with a row per line that tells its resource type and id, malformed ones among them.

Its columns: those of ``LINES``, and ``GOOD``. Of a malformed line nothing but ``id`` and ``meta.lastUpdated``
can be relied on.
"""

GOOD = "@good"
"""Whether a line is well-formed."""

# JSON cannot hold this control character as it stands, so it never separates anything.
_NO_SEPARATOR = "\x1e"
# Columns of the plans in between.
_FILE, _BRANCH, _WANTED, _FATE = "@file", "@branch", "@wanted", "@fate"


@dataclass(frozen=True)
class ViewsRead:
    """A read of NDJSON files for several views of one resource type.

    Attributes:
        views: The views.
        files: Local paths or URIs, plain, gzip or zstd.
        storage_options: For remote files, as Polars takes them.
        decoding: The care to take. ``frames`` of a ``FAST`` read fail at the first line that cannot be
            decoded; ``execute`` then begins again with more care.
        on_batch: Called with the bytes of each batch of lines, from any thread, to show progress.
        judge: Fills the column ``@fate`` (null so far) of a frame with the columns of ``LINES``. Lines with a
            fate are left out of the views; rows must be neither added nor removed.
    """

    views: tuple[CompiledView, ...]
    files: tuple[str, ...]
    storage_options: Mapping[str, str | int] | None = field(default=None, repr=False)  # may hold secrets
    decoding: Decoding = Decoding.FAST
    on_batch: Callable[[int], None] | None = field(default=None, repr=False, compare=False)
    judge: Callable[[pl.LazyFrame], pl.LazyFrame] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def frames(self) -> dict[str, pl.LazyFrame]:
        """The views by name, ``LINES`` and ``OCCURRENCES``.

        Collected together (``pl.collect_all``) they share one read.
        """
        is_good = pl.col(REASON).is_null()
        told = (pl.col("resourceType") == self.views[0].resource) & (pl.col("id") != "")
        lines = self._branch(LINES, is_good, pl.exclude(REASON))
        occurrences = self._branch(
            OCCURRENCES, told.fill_null(value=False), is_good.alias(GOOD), pl.exclude(REASON)
        )
        frames = {LINES: lines.drop(_BRANCH, _WANTED), OCCURRENCES: occurrences.drop(_BRANCH, _WANTED)}
        if self.judge is not None:
            is_good &= pl.col(_FATE).is_null()
        for view in self.views:
            frames[view.name] = view.lazy(self._branch(view.name, is_good, *view.read_schema.names()))
        return frames

    def _branch(self, name: str, wanted: pl.Expr, *columns: pl.Expr | str) -> pl.LazyFrame:
        """Return some columns of the lines that are wanted.

        Polars shares only the outermost common part of several plans, which must be the decoding, or each
        would decode the files for itself. So the branches differ from the start, by their names, and no
        filter on top may move below.
        """
        lines = self._documents.select(pl.lit(name).alias(_BRANCH), wanted.alias(_WANTED), *columns)
        return lines.map_batches(
            _keep_wanted,
            streamable=True,
            predicate_pushdown=False,
            projection_pushdown=False,
            slice_pushdown=False,
        )

    @functools.cached_property
    def malformed(self) -> pl.LazyFrame:
        """The malformed lines, with ``MALFORMED_SCHEMA``."""
        bad = self._documents.select(_FILE, LINE, REASON).filter(pl.col(REASON).is_not_null())
        return bad.rename({_FILE: "file", LINE: "line", REASON: "reason"})

    def execute(
        self, build: Callable[[Mapping[str, pl.LazyFrame]], Sequence[pl.LazyFrame]]
    ) -> tuple[list[pl.DataFrame], pl.DataFrame]:
        """Run plans on top of the views, in one streamed read.

        Args:
            build: Gets the views by name and returns plans, such as lazy sinks. It may be called several
                times: the read begins again if a line cannot be decoded, and again if a file holds bytes
                that are not UTF-8. The last call's plans count.

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
            again = self._begin_again(error)
            if again is not None:
                return again.execute(build)
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

    def _begin_again(self, error: pl.exceptions.PolarsError) -> ViewsRead | None:
        """Return the read that may succeed where this one failed."""
        # First, because this message may quote anything.
        if self.decoding is Decoding.FAST and is_decoding_fault(error):
            return replace(self, decoding=Decoding.CAREFUL)
        if self.decoding is not Decoding.LOSSY and "utf8" in str(error):
            return replace(self, decoding=Decoding.LOSSY)
        return None

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
                frames[name].sink_parquet(
                    target, compression_level=ZSTD_LEVEL, lazy=True, storage_options=_options(options)
                )
                for name, target in targets.items()
            ]

        return self.execute(build)[1]

    @functools.cached_property
    def _documents(self) -> pl.LazyFrame:
        """One row per line that is not blank: file, line, reason, and the elements of the resource."""
        reads = merge_reads(view.analyzed.reads for view in self.views)
        dtype = pl.Struct({"resourceType": pl.String(), **read_schema(reads)})
        digits = () if has_repeat(reads) else digit_keys(reads)
        decoder = LineDecoder(self.views[0].resource, dtype, digits, self.decoding, on_batch=self.on_batch)
        if not self.files:
            return pl.LazyFrame(schema={**decoder.schema, _FILE: pl.String(), _FATE: pl.String()})
        parts = [
            decoder.decode(gather_lines(mark_modified(self._scan(file)), TEXT, reads)).with_columns(
                pl.lit(file).alias(_FILE), pl.lit(None, dtype=pl.String).alias(_FATE)
            )
            for file in self.files
        ]
        documents = pl.concat(parts)
        return documents if self.judge is None else self.judge(documents)

    def _scan(self, file: str) -> pl.LazyFrame:
        options = _options(self.storage_options)
        if self.decoding is not Decoding.LOSSY:
            return pl.scan_lines(
                file,
                name=TEXT,
                row_index_name=LINE,
                row_index_offset=1,
                glob=False,
                storage_options=options,
            )
        return pl.scan_csv(
            file,
            has_header=False,
            schema={TEXT: pl.String()},
            separator=_NO_SEPARATOR,
            quote_char=None,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
            row_index_name=LINE,
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
    judge: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None,
) -> ViewsRead:
    """Prepare to read NDJSON files for views; nothing is read yet.

    Args:
        views: Views of one resource type.
        files: NDJSON files of that type: local paths or URIs such as ``s3://bucket/key``; plain,
            gzip or zstd.
        storage_options: For remote files, as ``polars.scan_lines`` takes them.
        on_batch: Called with the bytes of each batch of lines, from any thread, to show progress.
        judge: Leaves lines out; see ``ViewsRead``.

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
    return ViewsRead(
        views, tuple(str(file) for file in files), storage_options, on_batch=on_batch, judge=judge
    )


def _keep_wanted(batch: pl.DataFrame) -> pl.DataFrame:
    wanted = batch[_WANTED]
    return batch if wanted.all() else batch.filter(wanted)


def _options(options: Mapping[str, str | int] | None) -> dict[str, Any] | None:
    return None if options is None else dict(options)
