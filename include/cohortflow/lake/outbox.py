"""A durable outbox in object storage: what was noted is kept, and delivered at least once.

``log/<stream>/<id>.json`` keeps every entry for good. ``pending/<time>-<id>.json`` is the same content until
it is delivered. The pending copy is written first, so that no crash leaves an entry that is never delivered;
one that comes right after delivers it twice, with the same id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cohortflow.lake.store import Store

__all__ = ["Outbox", "Parcel"]

_LOG, _PENDING = "log", "pending"
_STAMP = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True, slots=True)
class Parcel:
    """Something to deliver.

    Attributes:
        id: The entry's id.
        path: Where its pending copy is.
        content: What to send.
    """

    id: str
    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Outbox:
    """An outbox in a folder of object storage.

    Attributes:
        store: The folder.
    """

    store: Store

    def add(self, stream: str, entry_id: str, content: bytes, moment: datetime, *, deliver: bool) -> bool:
        """Keep an entry; return whether it is new. One with the same id in the stream is kept once.

        Args:
            stream: Folder of the log: letters, digits, ``-``, ``_``, ``~`` and ``/``.
            entry_id: The entry's id: a UUID.
            content: The entry.
            moment: When it was noted: deliveries are in this order.
            deliver: Whether it is to be delivered.
        """
        path = f"{_LOG}/{stream}/{entry_id}.json"
        if self.store.size(path) is not None:
            return False
        if deliver:
            self.store.write(f"{_PENDING}/{moment.strftime(_STAMP)}-{entry_id}.json", content)
        return self.store.create(path, content)

    def pending(self) -> Iterator[Parcel]:
        """Yield what is to be delivered, oldest first."""
        for path in self.store.list(_PENDING):
            content = self.store.read(path)
            if content is not None:  # another process may have delivered it meanwhile
                yield Parcel(path.removesuffix(".json").partition("-")[2], path, content)

    def count_pending(self) -> int:
        """Return how many entries are to be delivered."""
        return len(self.store.list(_PENDING))

    def settle(self, parcel: Parcel) -> None:
        """Note that a parcel was delivered."""
        self.store.remove(parcel.path)

    def entries(self, stream: str = "") -> Iterator[bytes]:
        """Yield the log's entries, in no order in time."""
        for path in self.store.list(f"{_LOG}/{stream}".rstrip("/")):
            content = self.store.read(path)
            if content is not None:
                yield content
