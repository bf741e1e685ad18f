"""The manifest of a finished bulk export.

Source: https://hl7.org/fhir/uv/bulkdata/export.html#response---complete-status
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

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
    type: str = ""
    count: int | None = Field(default=None, ge=0)

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        if value and not _TYPE.fullmatch(value):
            msg = "not the name of a resource type"
            raise ValueError(msg)
        return value


_Files = Annotated[tuple[ManifestFile, ...], Field(default=())]


class Manifest(_Part):
    """What an export consists of.

    Attributes:
        transaction_time: FHIR instant, as the server wrote it: the export holds no later change.
            The next export's ``since``.
        requires_access_token: Whether the files need the token; if not, it must not be sent.
        output: Files with resources.
        deleted: Files with transaction Bundles of deletions.
        error: Files with OperationOutcomes, of any severity (``outcome`` in Bulk Data 4.0).
        next: URL of the manifest's next page; empty: this is the last.
    """

    transaction_time: str = Field(alias="transactionTime", min_length=1)
    # Bulk Data 1.0 servers may leave it out; their files are behind the token.
    requires_access_token: bool = Field(default=True, alias="requiresAccessToken")
    output: _Files
    deleted: _Files
    error: Annotated[
        tuple[ManifestFile, ...], Field(default=(), validation_alias=AliasChoices("error", "outcome"))
    ]
    next: str = Field(default="", repr=False)

    @field_validator("output", "deleted", "error", mode="before")
    @classmethod
    def _accept_null(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("output")
    @classmethod
    def _check_output(cls, value: tuple[ManifestFile, ...]) -> tuple[ManifestFile, ...]:
        if not all(item.type for item in value):
            msg = "a file without a type"
            raise ValueError(msg)
        return value


def parse_manifest(value: Any, *, place: str) -> Manifest:  # noqa: ANN401 - decoded JSON
    """Read a manifest from decoded JSON.

    Raises:
        ExportRejectedError: It is not one; the message names the fields at fault.
    """
    if not isinstance(value, dict):
        raise _unusable("no JSON object", place)
    links = value.get("link")
    following = [
        link.get("url")
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("relation") == "next"
    ]
    try:
        return Manifest.model_validate({**value, "next": following[0] if following else ""})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise _unusable(faults, place) from None


def merge_manifests(pages: list[Manifest]) -> Manifest:
    """Return one manifest with the files of all pages, each URL once."""

    def files(section: str) -> tuple[ManifestFile, ...]:
        return tuple({item.url: item for page in pages for item in getattr(page, section)}.values())

    sections = {name: files(name) for name in ("output", "deleted", "error")}
    return pages[0].model_copy(update={**sections, "next": ""})


def _unusable(fault: str, place: str) -> ExportRejectedError:
    return ExportRejectedError(
        f"The manifest of the export is malformed: {fault}.",
        place=place,
        remedy="Ask the server's operator; the manifest must follow FHIR Bulk Data 2.0 or 3.0.",
    )
