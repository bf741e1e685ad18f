"""Units of work, and the part files that they fill."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PartFile", "UnitState"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PartFile(_Part):
    """One file of a crawl: type, name in the sink, resources, bytes, SHA-256 in hex."""

    type: str
    name: str
    lines: int
    bytes: int
    sha256: str


class UnitState(_Part):
    """One unit of work: a type of a batch of patients, or one search of a type.

    Attributes:
        done: Whether nothing is left of it.
        parts: How often a part of it was completed: the number of its next part file, less one.
        rest: Positions of the patients that are left; ``None``: all.
        tries: How often some of its queries found the server failing, and no other query did.
        cursor: URL of the page to go on with.
        files: Its files.
    """

    done: bool = False
    parts: int = 0
    rest: tuple[int, ...] | None = None
    tries: int = 0
    cursor: str = Field(default="", repr=False)
    files: tuple[PartFile, ...] = ()

    def with_part(
        self,
        files: tuple[PartFile, ...],
        *,
        rest: tuple[int, ...] = (),
        tries: int | None = None,
        cursor: str = "",
        stopped: bool = False,
    ) -> UnitState:
        """Return the state after one more part; it is done where nothing is left and nothing stopped it."""
        return UnitState(
            done=not (rest or cursor or stopped),
            parts=self.parts + bool(files),
            rest=rest or None,
            tries=self.tries if tries is None else tries,
            cursor=cursor,
            files=(*self.files, *files),
        )
