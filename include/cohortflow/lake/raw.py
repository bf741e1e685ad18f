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
        """Write a file; it appears when complete, or not at all."""
        await self.store.write_stream(f"{self.prefix}/{name}", chunks)

    async def file_size(self, name: str) -> int | None:
        """Return a file's bytes, or ``None`` where there is none."""
        return await asyncio.to_thread(self.store.size, f"{self.prefix}/{name}")

    async def remove_files(self) -> None:
        """Remove all files, but not the state."""
        await asyncio.to_thread(self.store.delete, self.prefix, keep=f"{self.prefix}/{_STATE}")

    def uri(self, name: str) -> str:
        """Return the full URI of a file."""
        return self.store.child(self.prefix, name)
