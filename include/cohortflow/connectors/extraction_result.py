"""What an export brought, in counts and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cohortflow.connectors.coverage import CoverageRow, tabulate_coverage
from cohortflow.connectors.state import ExportState

__all__ = ["ExtractionResult"]


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

    @classmethod
    def from_state(cls, state: ExportState) -> ExtractionResult:
        """Sum up a complete export."""
        files: dict[str, tuple[str, ...]] = {}
        resources: dict[str, int] = {}
        severities: dict[str, int] = {}
        for item in state.files:
            for piece in item.pieces if item.section == "output" else ():
                files[piece.type] = (*files.get(piece.type, ()), piece.name)
                resources[piece.type] = resources.get(piece.type, 0) + piece.lines
            for severity, count in item.severities.items():
                severities[severity] = severities.get(severity, 0) + count
        return cls(
            transaction_time=state.transaction_time,
            files=files,
            resources=resources,
            bytes=sum(p.bytes for item in state.files if item.section == "output" for p in item.pieces),
            deleted_files=tuple(item.name for item in state.files if item.section == "deleted"),
            error_files=tuple(item.name for item in state.files if item.section == "error"),
            severities=severities,
            coverage=tabulate_coverage(state),
        )
