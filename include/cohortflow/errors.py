"""Everything that Cohortflow raises on purpose.

    CohortflowError
    ├── InputError                     a file or value that a person wrote is wrong (exit code 2)
    │   ├── StudyError                 a study, template or environment file
    │   ├── CatalogError               a catalog entry is missing or malformed
    │   ├── ViewError                  a ViewDefinition
    │   │   └── FhirPathError          an expression in it, with its position
    │   └── PolicyError                a redaction policy, or what a study asks of it
    ├── ConfigurationError             the deployment lacks something (exit code 2)
    │   ├── UnknownEnvironmentError
    │   ├── ConnectionNotFoundError
    │   └── ProjectKeyError            no key, a weak key, or not the key of this dataset
    ├── SourceError                    the hospital's system, or the way to it
    │   ├── AuthorizationError         refused credentials or scopes: retrying will not help
    │   ├── ExportRejectedError        the server refused the request for good
    │   ├── ExportExpiredError         the export or its files are gone: start it again
    │   ├── TransientSourceError       busy or unreachable: retrying may help
    │   ├── SourceBusyError            it must not be asked yet, and nobody wants to wait
    │   └── IncompleteDownloadError    fewer bytes or lines than announced
    ├── DeliveryError                  the receiver of audit events refused one
    ├── RegistryError                  what runs remember of sources
    │   └── LeaseLostError             another run has taken over this one's export
    ├── LakeError                      object storage and the datasets in it
    │   ├── StoreUnavailableError
    │   ├── ArtifactNotFoundError      a file that an earlier step should have left
    │   ├── CommitConflictError        another writer kept winning
    │   └── StaleWriteError            older data would overwrite newer
    └── QualityError                   the data are not fit to publish
        ├── ValidationFailedError      a critical expectation failed
        ├── CoverageError              too few codes were mapped
        ├── ReidentificationRiskError  subjects are not enough alike
        ├── MalformedDataError         more malformed records than the study allows
        └── LeakError                  an identifier of the source is left in what would be published

Messages name the place and never hold a value from a patient's record; ``remedy`` says what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArtifactNotFoundError",
    "AuthorizationError",
    "CatalogError",
    "CohortflowError",
    "CommitConflictError",
    "ConfigurationError",
    "ConnectionNotFoundError",
    "CoverageError",
    "DeliveryError",
    "ExportExpiredError",
    "ExportRejectedError",
    "FhirPathError",
    "IncompleteDownloadError",
    "InputError",
    "LakeError",
    "LeakError",
    "LeaseLostError",
    "MalformedDataError",
    "PolicyError",
    "ProjectKeyError",
    "QualityError",
    "RegistryError",
    "ReidentificationRiskError",
    "SourceBusyError",
    "SourceError",
    "StaleWriteError",
    "StoreUnavailableError",
    "StudyError",
    "TransientSourceError",
    "UnknownEnvironmentError",
    "ValidationFailedError",
    "ViewError",
]


class CohortflowError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What is wrong and where, without patient data.
        remedy: What to do next, as one sentence.
        place: File and line, URL or column, where it helps to find the fault.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "", place: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.place = place

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n  -> {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.remedy, self.place), vars(self)


def _rebuild(kind: type[CohortflowError], message: str, remedy: str, place: str) -> CohortflowError:
    return kind(message, remedy=remedy, place=place)


class InputError(CohortflowError):
    """A file or value that a person wrote is wrong."""

    exit_code: ClassVar[int] = 2


class StudyError(InputError):
    """A study, template or environment file is wrong."""


class CatalogError(InputError):
    """A catalog entry is missing or malformed."""


class ViewError(InputError):
    """A ViewDefinition is wrong or uses what is not supported."""


class FhirPathError(ViewError):
    """A FHIRPath expression is wrong or uses what is not supported; ``place`` holds the position."""


class PolicyError(InputError):
    """A redaction policy is wrong, or a study asks for what its environment forbids."""


class ConfigurationError(CohortflowError):
    """The deployment lacks something that the study needs."""

    exit_code: ClassVar[int] = 2


class UnknownEnvironmentError(ConfigurationError):
    """The environment is not one that the catalog defines."""


class ConnectionNotFoundError(ConfigurationError):
    """No connection has this id."""


class ProjectKeyError(ConfigurationError):
    """The project key is missing, too weak, or not the key that made the dataset."""


class SourceError(CohortflowError):
    """The hospital's system, or the way to it, failed."""


class AuthorizationError(SourceError):
    """The server refused the credentials or the scopes."""


class ExportRejectedError(SourceError):
    """The server refused the export for good."""


class ExportExpiredError(SourceError):
    """The export, or a file of it, is gone from the server."""


class TransientSourceError(SourceError):
    """The server is busy or unreachable.

    Args:
        retry_after: Seconds that the server asked to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        place: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, place=place)
        self.retry_after = retry_after


class IncompleteDownloadError(SourceError):
    """A file ended before the announced bytes or lines."""


class SourceBusyError(SourceError):
    """An export has to wait for the server or for another run, and the caller does not want to."""


class DeliveryError(CohortflowError):
    """The receiver of audit events refused one; it stays in the outbox."""


class RegistryError(CohortflowError):
    """The registry of exports and leases cannot be used."""


class LeaseLostError(RegistryError):
    """Another run has taken over what this one was exporting."""


class LakeError(CohortflowError):
    """Object storage, or a dataset in it, failed."""


class StoreUnavailableError(LakeError):
    """The object store cannot be reached or refuses the credentials."""


class ArtifactNotFoundError(LakeError):
    """A file that an earlier step should have left is not there."""


class CommitConflictError(LakeError):
    """Other writers kept winning the commit."""


class StaleWriteError(LakeError):
    """Older data would overwrite newer data of the same interval."""


class QualityError(CohortflowError):
    """The data are not fit to publish."""


class ValidationFailedError(QualityError):
    """A critical expectation failed."""


class CoverageError(QualityError):
    """Fewer codes were mapped than the study demands."""


class ReidentificationRiskError(QualityError):
    """Too few subjects share what others may know of them."""


class MalformedDataError(QualityError):
    """More malformed records than the study allows."""


class LeakError(QualityError):
    """An identifier of the source is left in what would be published; names columns and rules, no value."""
