"""Key sets in files: private ones for their owner alone, public ones for everyone.

A file is replaced as a whole, so that readers see the old or the new set, never a part; changes wait
for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cohortflow.connectors.keys.key_set import KeySet
from cohortflow.errors import ConfigurationError

__all__ = ["change_key_file", "create_key_file", "find_work_tree", "read_key_file", "write_public_file"]

_MAX_BYTES = 1_000_000
_PRIVATE = 0o600
_PUBLIC = 0o644


def read_key_file(path: Path) -> KeySet:
    """Read a key set.

    Raises:
        ConfigurationError: The file cannot be read or holds no key set.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The key file cannot be read ({type(error).__name__}).",
            place=str(path),
            remedy="Give the path of a file made by 'cohortflow jwks generate', or '-' for standard input.",
        ) from None
    return KeySet.parse(text, str(path))


def create_key_file(path: Path, key_set: KeySet, *, allow_work_tree: bool = False) -> None:
    """Write a new key set, readable by its owner alone; what exists is never overwritten.

    Args:
        path: Where.
        key_set: What.
        allow_work_tree: Whether the file may lie in a git work tree, from which keys leak.

    Raises:
        ConfigurationError: The file exists, lies in a git work tree, or cannot be written.
    """
    tree = find_work_tree(path)
    if tree is not None and not allow_work_tree:
        raise ConfigurationError(
            f"A private key would be written into the git work tree {tree}.",
            place=str(path),
            remedy="Choose a folder outside of it, or say '--allow-work-tree' if git ignores the file.",
        )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE)
    except FileExistsError:
        raise ConfigurationError(
            "The file exists, and keys are never overwritten.",
            place=str(path),
            remedy="Add a key to it with 'cohortflow jwks rotate', or choose another name.",
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), _PRIVATE)  # whatever the umask takes away
            file.write(key_set.to_text().encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def change_key_file(path: Path, change: Callable[[KeySet], KeySet]) -> tuple[KeySet, KeySet]:
    """Replace a key set by a changed one, while no other change of the same file is under way.

    Mode and owner of the file are kept. Nothing is written where nothing changes.

    Args:
        path: The file; where it is a symbolic link, its target is replaced.
        change: Returns the new set for the present one.

    Returns:
        The set before and after.

    Raises:
        ConfigurationError: The file cannot be read or written, or ``change`` refused.
    """
    path = Path(os.path.realpath(path))
    with _locked(path.parent):
        before = read_key_file(path)
        after = change(before)
        if after != before:
            status = path.stat()
            _replace(path, after.to_text().encode(), stat.S_IMODE(status.st_mode), status)
    return before, after


def write_public_file(path: Path, content: bytes) -> None:
    """Write a public key set, readable by everyone.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    if path.is_dir():
        raise ConfigurationError("This is a folder.", place=str(path), remedy="Name a file in it.")
    _replace(path, content, _PUBLIC)


def find_work_tree(path: Path) -> Path | None:
    """Return the git work tree that a path lies in, if any."""
    real = Path(os.path.realpath(path))
    return next((folder for folder in real.parents if (folder / ".git").exists()), None)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The folder is locked, not the file, which is replaced, and no other file, which would stay behind.
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes, mode: int, owner: os.stat_result | None = None) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from None
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        draft.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The file cannot be written ({error.strerror or type(error).__name__}).",
        place=str(path),
        remedy="Check folder and permissions. A secrets backend: '-' reads standard input and prints.",
    )
