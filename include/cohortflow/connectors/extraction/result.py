"""What an export brought, in counts and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["CoverageRow", "CoverageStatus", "ExtractionResult"]

CoverageStatus = Literal["complete", "partial", "refused", "unavailable", "not requested"]


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """What came of one resource type.

    Attributes:
        type: Resource type.
        status: ``complete``: all that the manifest announces, and no error; ``partial``: resources are
            missing, or may be; ``refused``: the server does not let this client have it;
            ``unavailable``: the server does not export it; ``not requested``: it came unasked.
        expected: Resources that the manifest announces; ``None`` where it does not.
        received: Lines that came.
        files: Files that came.
        why: Codes of the issues behind the status, and what else explains it.
    """

    type: str
    status: CoverageStatus
    expected: int | None = None
    received: int = 0
    files: int = 0
    why: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> CoverageRow:
        """Read a row that was written as JSON."""
        return cls(**{**value, "why": tuple(value["why"])})


@dataclass(frozen=True, slots=True)
class ExtractionResult:
    """What an export brought; counts and names only, so it may travel through XCom and logs.

    Attributes:
        transaction_time: FHIR instant: the ``since`` of the next export.
        files: Names in the sink by resource type, in the manifest's order.
        resources: Number of resources by type.
        bytes: Size of the resource files.
        deleted_files: Names of the files with Bundles of deletions.
        error_files: Names of the files with OperationOutcomes.
        severities: Issues in the error files by severity, as the profile's code table corrects it.
        coverage: What came of each resource type, and why not all.
    """

    transaction_time: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    deleted_files: tuple[str, ...] = ()
    error_files: tuple[str, ...] = ()
    severities: Mapping[str, int] = field(default_factory=dict)
    coverage: tuple[CoverageRow, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether resources may be missing: the server reported errors, or too few came.

        Warnings do not count.
        """
        return any(self.severities.get(severity, 0) for severity in ("fatal", "error")) or any(
            row.status in ("partial", "refused") for row in self.coverage
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ExtractionResult:
        """Read what ``to_dict`` wrote, also after a round trip through JSON."""
        return cls(
            **{
                **value,
                "files": {kind: tuple(names) for kind, names in value["files"].items()},
                "deleted_files": tuple(value["deleted_files"]),
                "error_files": tuple(value["error_files"]),
                "coverage": tuple(CoverageRow.from_dict(row) for row in value.get("coverage", ())),
            }
        )
