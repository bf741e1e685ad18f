"""Files ordered by patient hold lines of all types: they are parted by type on their way to storage.

Source: https://hl7.org/fhir/uv/bulkdata/export.html#bulk-data-output-file-organization
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import orjson

from cohortflow.connectors.bulk.state import FilePart
from cohortflow.connectors.bulk.transfer import FileMeter
from cohortflow.connectors.extraction.folder import RawSink

__all__ = ["TypeSplitter"]

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_START = re.compile(rb'\s*\{\s*"resourceType"\s*:\s*"([A-Z][A-Za-z]{1,63})"')
_PIECE = 1 << 18


class TypeSplitter:
    """Writes the lines of one file into one file for each resource type.

    Memory is bounded by the number of types: each has at most three pieces of 256 KiB, and a line, in it.

    Args:
        sink: Where to.
        name: Name of the file that was split, such as ``block.0001.ndjson``.
        fallback: Type that lines which are no JSON are counted to, for the reader to find them.
    """

    def __init__(self, sink: RawSink, name: str, fallback: str) -> None:
        self.lines = 0
        self.headers = 0
        self._sink = sink
        self._name = name
        self._fallback = fallback
        self._streams: dict[str, _Stream] = {}
        self._begun: list[bytes] = []

    async def write(
        self, chunks: AsyncIterator[bytes], check: Callable[[], None] = lambda: None
    ) -> tuple[FilePart, ...]:
        """Write all parts; they appear when ``chunks`` has ended and ``check`` has not raised.

        Raises:
            Exception: What ``chunks``, ``check`` or the sink raised; no part is left behind.
        """
        try:
            async with asyncio.TaskGroup() as group:
                async for chunk in chunks:
                    first, *others = chunk.split(b"\n")
                    self._begun.append(first)
                    if others:
                        await self._take(group, b"".join(self._begun))
                        for line in others[:-1]:
                            await self._take(group, line)
                        self._begun = [others[-1]]
                await self._take(group, b"".join(self._begun))
                check()
                for stream in self._streams.values():
                    await stream.end()
        except* Exception as errors:  # noqa: BLE001 - the first one is raised below
            failure = errors.exceptions[0]
        else:
            return tuple(stream.part(kind) for kind, stream in self._streams.items())
        raise failure

    async def _take(self, group: asyncio.TaskGroup, line: bytes) -> None:
        if not line.strip():
            return
        kind = self._type_of(line)
        if kind == "Parameters" and b'"header"' in line:
            self.headers += 1
            return
        self.lines += 1
        stream = self._streams.get(kind)
        if stream is None:
            stream = self._streams[kind] = _Stream(f"{kind}/{kind}.{self._name}")
            group.create_task(self._sink.write_file(stream.name, stream.pieces()))
        await stream.put(line)

    def _type_of(self, line: bytes) -> str:
        if match := _START.match(line):
            return match[1].decode()
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            return self._fallback
        kind = value.get("resourceType") if isinstance(value, dict) else None
        return kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else self._fallback


class _Stream:
    def __init__(self, name: str) -> None:
        self.name = name
        self._meter = FileMeter()
        self._buffer = bytearray()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    async def put(self, line: bytes) -> None:
        self._buffer += line
        self._buffer += b"\n"
        if len(self._buffer) >= _PIECE:
            await self._flush()

    async def end(self) -> None:
        await self._flush()
        await self._queue.put(b"")

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._queue.get():
            yield piece

    def part(self, kind: str) -> FilePart:
        meter = self._meter
        return FilePart(type=kind, name=self.name, bytes=meter.bytes, lines=meter.lines, sha256=meter.sha256)

    async def _flush(self) -> None:
        if self._buffer:
            piece = bytes(self._buffer)
            self._buffer.clear()
            self._meter.update(piece)
            await self._queue.put(piece)
