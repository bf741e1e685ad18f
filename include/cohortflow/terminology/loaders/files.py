"""Distributors' files: found, and told from others that are like them."""

from __future__ import annotations

from pathlib import Path

from cohortflow.errors import InputError

__all__ = ["PUBLIC_DOMAIN_US", "find_file", "open_failure", "require_file"]

PUBLIC_DOMAIN_US = "Public domain: a work of the United States government (17 U.S.C. 105)."


def require_file(path: Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        InputError: It is not, or it is a folder.
    """
    if path.is_file():
        return path
    problem = "This is a folder." if path.is_dir() else "The file is not there."
    raise InputError(problem, place=str(path), remedy="Name the distributor's file.")


def find_file(folder: Path, *patterns: str) -> Path | None:
    """Return the one file of a folder whose name matches a pattern in any case; the first pattern wins.

    Raises:
        InputError: More than one does.
    """
    names = sorted(path for path in folder.iterdir() if path.is_file())
    for pattern in patterns:
        found = [path for path in names if path.with_name(path.name.lower()).match(pattern)]
        if len(found) > 1:
            raise InputError(
                f"More than one file is named like {pattern}: {', '.join(path.name for path in found)}.",
                place=str(folder),
                remedy="Name the file, or keep one version in the folder.",
            )
        if found:
            return found[0]
    return None


def open_failure(path: Path, expected: str) -> InputError:
    """Return the error for a file that is not of its format."""
    return InputError(
        f"The file is not {expected}.",
        place=str(path),
        remedy="Check that it is the distributor's file, unpacked, and whole.",
    )
