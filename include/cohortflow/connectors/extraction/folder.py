"""A folder of the raw zone, as extractions need it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

__all__ = ["RawFolder", "RawSink"]


class RawSink(Protocol):
    """Where one export is kept: a folder of the raw zone.

    Names of files are relative, such as ``Patient/Patient.0001.ndjson``.
    """

    async def read_state(self) -> bytes | None:
        """Return what ``write_state`` wrote last, or ``None``."""
        ...

    async def write_state(self, state: bytes) -> None:
        """Replace the state in one step: readers see the old one or the new one."""
        ...

    async def write_file(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write a file from chunks, replacing any of this name.

        The file becomes visible only once ``chunks`` is exhausted. An error that ``chunks`` raises, or
        a cancellation, leaves nothing new behind and passes through unchanged.
        """
        ...

    async def file_size(self, name: str) -> int | None:
        """Return the bytes of a complete file, or ``None`` where there is none."""
        ...

    async def remove_files(self) -> None:
        """Remove all files, but not the state."""
        ...


class RawFolder(RawSink, Protocol):
    """A folder of the raw zone that can be read as well."""

    def read_file(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a complete file in chunks.

        Raises:
            ArtifactNotFoundError: There is none.
        """
        ...
