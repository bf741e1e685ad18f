"""Part files: many small answers gathered into one file per resource type, streamed, each id once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

import orjson

from cohortflow.connectors.extraction.folder import RawFolder
from cohortflow.connectors.search.bundle import FoundResource
from cohortflow.connectors.search.units import PartFile

__all__ = ["Collector", "PartWriter", "Seen", "read_lines"]

_BLOCK = 1 << 18
_WAITING_BLOCKS = 4


class FileWriter(Protocol):
    """The part of ``RawSink`` that writes."""

    async def write_file(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file from chunks; it appears when they are exhausted, or not at all."""
        ...


class _AbortedError(Exception):
    """Ends a file that is not to appear."""


class _Stream:
    """One file on its way to storage."""

    def __init__(self, writer: FileWriter, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.lines = 0
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_BLOCKS)
        self._aborted = False
        self._task = asyncio.create_task(writer.write_file(name, self._chunks()))

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        while (block := await self._queue.get()) is not None:
            yield block
        if self._aborted:
            raise _AbortedError

    async def write(self, line: bytes) -> None:
        self.lines += 1
        self._buffer += line
        if len(self._buffer) >= _BLOCK:
            await self._flush()

    async def _flush(self) -> None:
        block = bytes(self._buffer)
        self._buffer.clear()
        self.bytes += len(block)
        self._hash.update(block)
        await self._put(block)

    async def _put(self, block: bytes | None) -> None:
        # A writer that has failed takes nothing from the queue any more.
        put = asyncio.ensure_future(self._queue.put(block))
        await asyncio.wait({put, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not put.done():
            put.cancel()
            await self._task

    async def close(self) -> PartFile:
        if self._buffer:
            await self._flush()
        await self._put(None)
        await self._task
        return PartFile(
            type=self.kind, name=self.name, lines=self.lines, bytes=self.bytes, sha256=self._hash.hexdigest()
        )

    async def abort(self) -> None:
        self._aborted = True
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task


class PartWriter:
    """Writes resources to one file per type; the files appear when it is closed.

    Args:
        folder: Where to.
        name: Gives the name of a type's file.
    """

    def __init__(self, folder: FileWriter, name: Callable[[str], str]) -> None:
        self._folder = folder
        self._name = name
        self._streams: dict[str, _Stream] = {}

    @property
    def lines(self) -> int:
        """Resources so far."""
        return sum(stream.lines for stream in self._streams.values())

    async def write(self, resource_type: str, line: bytes) -> None:
        """Add a resource as a line with its line feed."""
        stream = self._streams.get(resource_type)
        if stream is None:
            stream = _Stream(self._folder, resource_type, self._name(resource_type))
            self._streams[resource_type] = stream
        await stream.write(line)

    async def close(self) -> tuple[PartFile, ...]:
        """Finish all files.

        Raises:
            LakeError: The store failed; some of the files may be there.
        """
        return tuple([await stream.close() for _, stream in sorted(self._streams.items())])

    async def abort(self) -> None:
        """Drop all files."""
        for stream in self._streams.values():
            await stream.abort()


class Collector:
    """Takes resources of some types, each once, and writes them to part files.

    Args:
        writer: Where they go.
        seen: What is there already.
        types: The types that are wanted.
    """

    def __init__(self, writer: PartWriter, seen: Seen, types: Collection[str]) -> None:
        self.writer = writer
        self._seen = seen
        self._types = types

    async def take(self, resources: Iterable[FoundResource]) -> None:
        """Write what is wanted and new."""
        for item in self._seen.new(item for item in resources if item.type in self._types):
            await self.writer.write(item.type, item.line)


class Seen:
    """Ids of one scope, so that each resource is taken once."""

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}

    def add(self, resource_type: str, resource_id: str) -> bool:
        """Note a resource; ``False`` where it was there."""
        ids = self._ids.setdefault(resource_type, set())
        if resource_id in ids:
            return False
        ids.add(resource_id)
        return True

    def new(self, resources: Iterable[FoundResource]) -> list[FoundResource]:
        """Note resources and return those that were not there."""
        return [item for item in resources if self.add(item.type, item.id)]

    @classmethod
    async def of_files(cls, folder: RawFolder, files: Collection[PartFile]) -> Seen:
        """Return the ids of files that are there."""
        seen = cls()
        for file in files:
            async for line in read_lines(folder, file.name):
                seen.add(file.type, str(orjson.loads(line).get("id")))
        return seen


async def read_lines(folder: RawFolder, name: str) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a file that are not blank, without their line feeds."""
    rest = b""
    async for chunk in folder.read_file(name):
        *lines, rest = (rest + bytes(chunk)).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
    if rest.strip():
        yield rest
