"""The manifest of a bulk export, whole or in parts.

Source: https://hl7.org/fhir/uv/bulkdata/export.html#response---complete-status
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urljoin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from cohortflow.errors import ExportRejectedError

__all__ = ["Manifest", "ManifestFile", "merge_manifests", "parse_manifest"]

# File names are made of it, so nothing but a FHIR type name may pass.
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")


class _Part(BaseModel):
    # Values may be signed URLs: they stay out of error messages.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ManifestFile(_Part):
    """One file of a manifest.

    Attributes:
        url: Where it is.
        type: Type of the resources in it; empty where the manifest does not say.
        count: Number of resources in it, where the manifest says.
    """

    url: str = Field(min_length=1, repr=False)
    type: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = ""
    count: int | None = Field(default=None, ge=0)

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        if value and not _TYPE.fullmatch(value):
            msg = "not the name of a resource type"
            raise ValueError(msg)
        return value


_Files = Annotated[
    tuple[ManifestFile, ...],
    BeforeValidator(lambda value: () if value is None else value),
    Field(default=()),
]


class Manifest(_Part):
    """What an export consists of, or what of it is ready.

    Attributes:
        transaction_time: FHIR instant: the export holds no later change. The next export's ``since``.
        requires_access_token: Whether the files need the token; if not, it must not be sent.
        organized_by: Resource type by whose instances the files are ordered: they hold lines of all
            types then (``outputOrganizedBy``, Bulk Data 3.0); empty: each file holds one type.
        output: Files with resources.
        deleted: Files with transaction Bundles of deletions.
        error: Files with OperationOutcomes, of any severity (``outcome`` in Bulk Data 4.0).
        next: URL of the manifest's next page; empty: this is the last.
    """

    transaction_time: str = Field(alias="transactionTime", min_length=1)
    # Bulk Data 1.0 servers may leave it out; their files are behind the token.
    requires_access_token: bool = Field(default=True, alias="requiresAccessToken")
    organized_by: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = Field(
        default="", alias="outputOrganizedBy"
    )
    output: _Files
    deleted: _Files
    error: _Files
    next: str = Field(default="", repr=False)

    @field_validator("organized_by")
    @classmethod
    def _check_organized_by(cls, value: str) -> str:
        if value and not _TYPE.fullmatch(value):
            msg = "not the name of a resource type"
            raise ValueError(msg)
        return value

    @field_validator("transaction_time")
    @classmethod
    def _check_time(cls, value: str) -> str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            # Some servers print the time as their language does: "Sun Mar 01 2026 08:00:00 GMT+0000".
            try:
                moment = parsedate_to_datetime(re.sub(r"GMT(?=[+-]\d{4})", "", value))
            except ValueError:
                msg = "not an instant"
                raise ValueError(msg) from None
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
        return value if moment.tzinfo else f"{value}Z"


def parse_manifest(value: Any, *, place: str, url: str = "") -> Manifest:  # noqa: ANN401 - decoded JSON
    """Read a manifest from decoded JSON.

    Args:
        value: The JSON.
        place: The server's host, for messages.
        url: Where it came from: what relative addresses are relative to.

    Raises:
        ExportRejectedError: It is not one; the message names the fields at fault.
    """
    if not isinstance(value, dict):
        raise _unusable("no JSON object", place)
    links = value.get("link")
    following = [
        link["url"]
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str)
    ]
    # Bulk Data 4.0 calls "error" "outcome"; a server on the way there may fill both.
    outcomes = [*_listed(value.get("error")), *_listed(value.get("outcome"))]
    try:
        manifest = Manifest.model_validate(
            {**value, "error": outcomes, "next": urljoin(url, following[0]) if following else ""}
        )
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise _unusable(faults, place) from None
    if not manifest.organized_by and not all(item.type for item in manifest.output):
        raise _unusable("output: a file without a type", place)
    sections = {
        name: tuple(
            item.model_copy(update={"url": urljoin(url, item.url)}) for item in getattr(manifest, name)
        )
        for name in ("output", "deleted", "error")
    }
    return manifest.model_copy(update=sections)


def merge_manifests(pages: list[Manifest]) -> Manifest:
    """Return one manifest with the files of all pages, each URL once."""

    def files(section: str) -> tuple[ManifestFile, ...]:
        return tuple({item.url: item for page in pages for item in getattr(page, section)}.values())

    sections = {name: files(name) for name in ("output", "deleted", "error")}
    return pages[0].model_copy(update={**sections, "next": ""})


def _listed(value: object) -> list[object]:
    # Anything that is no list is left to the model to refuse.
    return value if isinstance(value, list) else [] if value is None else [value]


def _unusable(fault: str, place: str) -> ExportRejectedError:
    return ExportRejectedError(
        f"The manifest of the export is malformed: {fault}.",
        place=place,
        remedy="Ask the server's operator; the manifest must follow FHIR Bulk Data 2.0 or 3.0.",
    )
