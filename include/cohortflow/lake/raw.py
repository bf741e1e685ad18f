"""The raw zone: an export's files as received, with the state to resume it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cohortflow.lake.store import Store

__all__ = ["RawExport"]

_STATE = "_state.json"


class _Relay:
    """Hands chunks from the task that has them to the store, which asks for them in tasks of its own.

    So a source of chunks is never asked, or closed, by two tasks at once.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)
        self._closed = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._queue.get()
        if chunk is None:
            msg = "given up"
            raise RuntimeError(msg)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def put(self, chunk: bytes) -> bool:
        """Hand on a chunk, or the end as an empty one; ``False``: nobody takes it any more."""
        put = asyncio.ensure_future(self._queue.put(chunk))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait([put, closed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
            if not put.done():
                put.cancel()
        return not self._closed.is_set()

    def give_up(self) -> None:
        """Let the store fail instead of taking what came so far for all."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def close(self, upload: asyncio.Future[None]) -> None:
        """Note that nobody takes chunks any more."""
        if not upload.cancelled():
            upload.exception()  # looked at: where the file was given up, nobody else does
        self._closed.set()


@dataclass(frozen=True, slots=True)
class RawExport:
    """One export's folder.

    Attributes:
        store: The raw zone.
        prefix: The folder below it.
    """

    store: Store
    prefix: str

    async def read_state(self) -> bytes | None:
        """Return the saved state, or ``None`` before the first save."""
        return await asyncio.to_thread(self.store.read, f"{self.prefix}/{_STATE}")

    async def write_state(self, state: bytes) -> None:
        """Save the state atomically."""
        await asyncio.to_thread(self.store.write, f"{self.prefix}/{_STATE}", state)

    async def write_file(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file; it appears when complete, or not at all.

        An error that ``chunks`` raises, or a cancellation, passes through unchanged once the store has
        given the file up.
        """
        relay = _Relay()
        upload = asyncio.ensure_future(self.store.write_stream(f"{self.prefix}/{name}", relay))
        upload.add_done_callback(relay.close)
        try:
            async for chunk in chunks:
                if chunk and not await relay.put(chunk):
                    break  # the store has failed: its error is raised below
            else:
                await relay.put(b"")
        except BaseException:
            relay.give_up()
            await asyncio.wait([upload])
            raise
        await upload

    def read_file(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a complete file in chunks.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        return self.store.read_stream(f"{self.prefix}/{name}")

    async def file_size(self, name: str) -> int | None:
        """Return a file's bytes, or ``None`` where there is none."""
        return await asyncio.to_thread(self.store.size, f"{self.prefix}/{name}")

    async def remove_files(self) -> None:
        """Remove all files, but not the state."""
        await asyncio.to_thread(self.store.delete, self.prefix, keep=f"{self.prefix}/{_STATE}")

    def uri(self, name: str) -> str:
        """Return the full URI of a file."""
        return self.store.child(self.prefix, name)
