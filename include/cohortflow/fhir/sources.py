"""NDJSON files by name: files, patterns and folders of a bulk export."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from cohortflow.errors import InputError

__all__ = ["find_ndjson"]


def find_ndjson(inputs: Iterable[str], resource: str) -> list[str]:
    """Return the NDJSON files that hold a resource type.

    Args:
        inputs: Files, URIs, patterns such as ``export/*.ndjson``, or folders. Of a folder, the files named
            after the type are taken: ``Patient.ndjson``, ``Patient.001.ndjson.gz``, ``Patient.ndjson.zst``.
        resource: The resource type.

    Raises:
        InputError: Nothing is there under one of the names.
    """
    found: dict[str, None] = {}
    for given in inputs:
        files = _find(given, resource)
        if not files:
            is_folder = Path(given).is_dir()
            raise InputError(
                f"No {resource} files are there." if is_folder else "There is no such file.",
                remedy=f"A folder holds {resource}.ndjson or {resource}.ndjson.gz."
                if is_folder
                else "Name NDJSON files, patterns in quotes, or a folder.",
                place=given,
            )
        found.update(dict.fromkeys(files))
    return list(found)


def _find(given: str, resource: str) -> list[str]:
    if "://" in given:
        return [given]
    path = Path(given)
    if path.is_dir():
        wanted = re.compile(rf"{resource}([._-].*)?\.(ndjson|jsonl)(\.gz|\.zst)?")
        return sorted(str(one) for one in path.iterdir() if wanted.fullmatch(one.name) and one.is_file())
    if path.is_file():
        return [given]
    found = glob.glob(given, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute patterns
    return sorted(one for one in found if Path(one).is_file())
